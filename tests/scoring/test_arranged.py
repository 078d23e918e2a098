"""What a scorer makes of its weights alone, such as kernels for Winograd's tiles, is made once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

from jaxviz import occlude, occlusion_scores
from jaxviz.incremental import incremental
from jaxviz.incremental.interpret import paste
from jaxviz.jaxpr.cache import clear_caches
from jaxviz.jaxpr.convolution import forms, winograd
from jaxviz.scoring import compiled as programs

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 3, (2, 16, 16, 8)).astype(np.float32)
KERNELS = [
    jnp.asarray(rng.integers(-2, 3, shape), jnp.float32)
    for shape in ((3, 3, 8, 48), (3, 3, 48, 48), (12, 3))
]


def network(kernels, x):
    for kernel in kernels[:2]:
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.maximum(x, 0)
    return x.sum((1, 2))[:, :12] @ kernels[2]


@pytest.fixture(autouse=True)
def tiles_of_small_images(monkeypatch):
    """Tiles, however little they save: the network is small. Whole numbers: exact all the same."""
    monkeypatch.setattr(forms, "LEAST_SAVED_BY_TILES", -1.0)
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def transforms(monkeypatch):
    """How often a program that transforms kernels is called: (weights made, blocks run)."""
    counts = {"arrange": 0, "evaluate": 0}
    parts = programs._parts

    def counted(*args):
        arrange, prepare, evaluate = parts(*args)

        def counting(arrays):
            counts["arrange"] += 1
            weights = arrange(arrays)
            counts["kernels"] = len(weights.second)
            return weights

        return counting, prepare, evaluate

    monkeypatch.setattr(programs, "_parts", counted)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_kernels_are_transformed_once_a_run(transforms, method):
    f = Partial(network, KERNELS)
    options = dict(patch=4, stride=4, method=method, batch_size=3)
    found = occlude(f, IMAGES, **options)
    # Once to compile, whatever the number of blocks, and once for the run.
    assert transforms["arrange"] == 2 and transforms["kernels"] > 0
    occlude(f, IMAGES, **options)
    assert transforms["arrange"] == 3, "nothing is compiled again, and weights are taken anew"
    wanted = [
        network(KERNELS, paste(image, jnp.zeros((4, 4, 8)), jnp.array([8, 4]))[None])[0]
        for image in IMAGES
    ]
    np.testing.assert_array_equal(found.scores[:, 2, 1], wanted)
    trained = Partial(network, [2 * KERNELS[0], *KERNELS[1:]])
    np.testing.assert_array_equal(occlude(trained, IMAGES, **options).scores, 2 * found.scores)


@pytest.mark.slow
def test_every_batch_gives_the_same_numbers():
    f = Partial(network, KERNELS)
    options = dict(patch=4, stride=4, method="incremental")
    runs = [occlude(f, IMAGES, **options, batch_size=size).scores for size in (1, 7)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


def test_an_update_reads_kernels_that_were_transformed_before(monkeypatch):
    f = Partial(network, KERNELS)
    image, patch = jnp.asarray(IMAGES[0]), jnp.ones((4, 4, 8))
    _, update = incremental(f, image, (4, 4))
    prepared = update.args[1].kernels
    assert any(kernel is not None for kernel in prepared)

    def never(*args):
        raise AssertionError("a kernel was transformed in an update")

    for name in ("along_both_taps", "along_width_taps"):
        monkeypatch.setattr(winograd, name, never)
    for start in ([0, 0], [6, 9], [-2, 14]):
        wanted = network(KERNELS, paste(image, patch, jnp.asarray(start))[None])[0]
        np.testing.assert_array_equal(update(patch, jnp.asarray(start)), wanted)


@pytest.mark.slow
def test_gradients_go_through_tiles():
    f = Partial(network, KERNELS)
    image, start = jnp.asarray(IMAGES[0]), jnp.array([3, 5])
    _, update = incremental(f, image, (4, 4))
    patch = jnp.asarray(rng.standard_normal((4, 4, 8)), jnp.float32)
    mine = jax.grad(lambda patch: update(patch, start).sum())(patch)
    theirs = jax.grad(lambda patch: network(KERNELS, paste(image, patch, start)[None]).sum())(patch)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.slow
def test_the_kernel_transforms_kernels_outside_its_loop():
    def scores(kernels, image):
        options = dict(patch=4, stride=4, method="dense", batch_size=3)
        return occlusion_scores(Partial(network, kernels), image, **options)

    closed = jax.make_jaxpr(scores)(KERNELS, IMAGES[0])
    (loop,) = (e for e in closed.jaxpr.eqns if str(e.primitive) == "scan")
    shapes = [v.aval.shape for v in loop.invars]
    transformed = [s for s in shapes if s[-2:] == (8, 48) and s[:-2] != (3, 3)]
    assert len(transformed) == 4, shapes  # of a tile's row
    wanted = occlude(Partial(network, KERNELS), IMAGES[0], patch=4, stride=4, method="dense")
    np.testing.assert_array_equal(scores(KERNELS, IMAGES[0]), wanted.scores)
    # What is hoisted composes: over images, and in a derivative by the kernels.
    both = jax.vmap(lambda image: scores(KERNELS, image))(IMAGES)
    np.testing.assert_array_equal(both[0], wanted.scores)
    found = jax.grad(lambda kernels: scores(kernels, IMAGES[0]).sum())(KERNELS)
    whole = jax.grad(
        lambda kernels: occlusion_scores(
            Partial(network, kernels), IMAGES[0], patch=4, stride=4, method="dense"
        ).sum()
    )(KERNELS)
    for mine, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
