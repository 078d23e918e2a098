"""A scorer that mixes the images of a batch, or draws at random, is refused everywhere."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen, nnx
from jax.tree_util import Partial

import jaxviz as jv
from jaxviz.jaxpr.cache import clear_caches
from jaxviz.scoring.independence import check_independence
from jaxviz.scoring.scorer import split

IMAGE = np.random.default_rng(0).random((6, 6, 2), np.float32)


class Normalised(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, images):
        return self.norm(images**2).mean((1, 2))


class Dropped(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, images):
        # Keys as arguments, since a counter may not be written in someone else's trace.
        return self.dropout(images, rngs=nnx.Rngs(0)).mean((1, 2))


class Linen(linen.Module):
    train: bool

    @linen.compact
    def __call__(self, images):
        x = linen.Dropout(0.5, deterministic=not self.train)(images)
        return x.mean((1, 2))


def mixing(images):
    return images.mean((1, 2)) - images.mean((0, 1, 2))[None]


def drawing(images):
    return images.mean((1, 2)) * jax.random.uniform(jax.random.key(0), (len(images), 1))


BAD = {
    "a mean over the batch": mixing,
    "a deviation": lambda images: images.sum((1, 2)) / images.sum((1, 2)).std(0)[None],
    "the first": lambda images: (images - images[:1]).sum((1, 2)),
    "a neighbour": lambda images: (images - jnp.roll(images, 1, 0)).sum((1, 2)),
    "a sum of those before": lambda images: jnp.cumsum(images.mean((1, 2)), 0),
    "chance": drawing,
    "BatchNorm": Normalised(),
    "Dropout": Dropped(),
    "Linen": Partial(Linen(True).apply, {}, rngs={"dropout": jax.random.key(0)}),
}
MESSAGE = (
    "^`f` must score every image by itself and equal images alike: got scores that differ by"
    r" [0-9.e-]+ between .*; call `model.eval\(\)`, or pass `train=False` or `deterministic=True`.$"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_what_mixes_or_draws_is_refused(name):
    with pytest.raises(ValueError, match=MESSAGE):
        check_independence(BAD[name], IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "f",
    [
        lambda images: images.mean((1, 2)),
        lambda images: jnp.argmax(images.mean((1, 2)), -1),
        lambda images: (images, images.sum(), images.mean((1, 2))),  # a sum is no row per image
        lambda images: images.mean((1, 2)) / 0,
        lambda images: images.mean((1, 2)) * (1 + 1j),
        lambda images: images.reshape(1, -1),
    ],
    ids=["mean", "class", "parts", "infinite", "complex", "one row"],
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.uint8])
def test_what_does_not_passes(f, dtype):
    with jax.numpy_dtype_promotion("standard"):
        check_independence(f, (IMAGE * 200).astype(dtype))


def test_models_in_inference_mode_pass():
    for model in (Normalised(), Dropped()):
        model.eval()
        check_independence(model, IMAGE[None])
    check_independence(Partial(Linen(False).apply, {}), IMAGE)


def test_it_takes_a_scorer_apart_or_whole():
    check_independence(split(lambda images: images.mean((1, 2))), IMAGE)
    with pytest.raises(ValueError, match=MESSAGE):
        check_independence(split(mixing), np.stack([IMAGE, IMAGE]))


def test_an_image_of_one_colour_has_another_beside_it():
    with pytest.raises(ValueError, match=MESSAGE):
        check_independence(mixing, np.full((4, 4, 1), 7, np.uint8))


def test_nothing_is_checked_inside_a_trace():
    jax.jit(lambda image: check_independence(mixing, image))(IMAGE)

    @jax.jit
    def run(weight):
        check_independence(lambda images: weight * mixing(images), IMAGE)
        check_independence(Partial(lambda weight, images: weight * mixing(images), weight), IMAGE)
        return weight

    run(jnp.ones(()))


def test_what_passed_is_known_by_its_content(compilations):
    clear_caches()

    def scorer(scale):
        weight = jnp.full((2, 3), scale)
        return lambda images: images.mean((1, 2)) @ weight

    first, second = scorer(1.0), scorer(2.0)
    compilations.start()
    check_independence(first, IMAGE)
    assert compilations.count == 1
    check_independence(second, IMAGE)
    assert compilations.count == 1


def test_a_scorer_with_a_callback_is_checked_every_time():
    def f(images):
        shape = jax.ShapeDtypeStruct((len(images), 2), jnp.float32)
        return jax.pure_callback(lambda x: x.mean((1, 2)), shape, images)

    check_independence(f, IMAGE)
    with pytest.raises(ValueError, match=MESSAGE):
        check_independence(lambda images: f(images) - f(images)[:1], IMAGE)


LABELS = np.arange(36).reshape(6, 6) // 18
OPTIONS = dict(image_shape=(6, 6, 2), key=jax.random.key(0), steps=1)
ENTRIES = {
    "occlude, dense": lambda f, tmp: jv.occlude(f, IMAGE, patch=3, method="dense"),
    "occlude, windows": lambda f, tmp: jv.occlude(f, IMAGE, patch=3, method="incremental"),
    "occlude, one by one": lambda f, tmp: jv.occlude(f, IMAGE, patch=3, batch_size=1),
    "occlude_segments": lambda f, tmp: jv.occlude_segments(f, IMAGE, LABELS, batch_size=1),
    "occlude_dataset": lambda f, tmp: jv.occlude_dataset(
        f, IMAGE[None], tmp / "s", patch=3, batch_size=1, method="incremental", progress=False
    ),
    "activations": lambda f, tmp: jv.activations(
        lambda images: jv.tag("x", f(images)), IMAGE[None], "x"
    ),
    "maximize": lambda f, tmp: jv.maximize(f, jv.objectives.unit(0), **OPTIONS),
    "visualize_activation": lambda f, tmp: jv.keras_vis.visualize_activation(
        f, None, 0, image_shape=(6, 6, 2), max_iter=1
    ),
    "visualize_saliency": lambda f, tmp: jv.keras_vis.visualize_saliency(f, None, 0, IMAGE),
}


@pytest.mark.slow
@pytest.mark.parametrize("f", [mixing, drawing])
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_point_refuses_it(entry, f, tmp_path):
    with pytest.raises(ValueError, match=MESSAGE):
        ENTRIES[entry](f, tmp_path)
