"""The frame of every attribution: one image at a time, compiled once, targets, errors, results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.attribution import saliency

W = np.random.default_rng(0).normal(size=(4 * 6 * 2, 5)).astype(np.float32)


def scorer(images):
    return jnp.tanh(images.reshape(images.shape[0], -1) @ W)


@pytest.fixture
def images(rng):
    return rng.random((5, 4, 6, 2), np.float32)


def gradients(images, weights):
    """Of the weighted scores, from the derivative of tanh."""
    x = images.reshape(len(images), -1).astype(np.float64)
    slope = 1 - np.tanh(x @ W) ** 2
    return ((weights * slope) @ W.T).reshape(images.shape)


@pytest.mark.parametrize(
    "target",
    [None, 2, -1, [0, 1, 2, 3, 4], np.full(5, 0.5), "function"],
    ids=["largest", "class", "from the end", "one each", "weights", "function"],
)
def test_targets_are_those_of_occlude(images, target):
    base = np.tanh(images.reshape(5, -1) @ W)
    if target is None:
        weights = np.eye(5)[base.argmax(-1)]
    elif isinstance(target, str):
        weights, target = np.array([0.0, 1, -1, 0, 0]), lambda scores: scores[:, 1] - scores[:, 2]
    else:
        numbers = np.asarray(target)
        weights = numbers if numbers.dtype.kind == "f" else np.eye(5)[numbers]
    att = saliency(scorer, images, target=target)
    np.testing.assert_allclose(att.values, gradients(images, weights), atol=1e-5)
    np.testing.assert_allclose(att.base, base, atol=1e-5)


@pytest.mark.slow
def test_batch_equals_one_by_one_for_any_block(images):
    together = saliency(scorer, images)
    for size in (1, 2, 5):
        some = saliency(scorer, images, batch_size=size)
        np.testing.assert_allclose(some.values, together.values, atol=1e-6)
    for image, values in zip(images, together.values, strict=True):
        np.testing.assert_allclose(saliency(scorer, image).values, values, atol=1e-6)


def test_no_image_sees_its_neighbours(images):
    def mixing(x):
        return scorer(x - x.mean((0, 1, 2), keepdims=True))

    alone = saliency(mixing, images[0], target=1).values
    np.testing.assert_allclose(saliency(mixing, images, target=1).values[0], alone, rtol=1e-6)


def test_more_devices_change_no_bit(images):
    mesh = jax.make_mesh((2, 2), ("images", "positions"))
    one = saliency(scorer, images, batch_size=2)
    many = saliency(scorer, images, batch_size=2, mesh=mesh)
    assert np.array_equal(one.values, many.values)
    assert np.array_equal(one.base, many.base)


def test_a_second_run_compiles_nothing(images, compilations):
    saliency(scorer, images, target=1)
    compilations.start()
    saliency(scorer, images[::-1].copy(), target=3)
    assert compilations.count == 0


@pytest.mark.slow
def test_traced_images_run_the_bare_kernel(images):
    values = saliency(scorer, images, target=1).values
    jitted = jax.jit(lambda x, t: saliency(scorer, x, target=t).values)
    np.testing.assert_allclose(jitted(images, jnp.int32(1)), values, atol=1e-6)
    mapped = jax.vmap(lambda x: saliency(scorer, x, target=1).values)
    np.testing.assert_allclose(mapped(jnp.asarray(images)), values, atol=1e-6)
    # ∂/∂x Σ g·v = H·v, of one image by differences
    v = np.ones_like(images[0])
    product = jax.grad(lambda x: (saliency(scorer, x, target=1).values * v).sum())(images[0])
    near = [saliency(scorer, images[0] + s * v, target=1).values for s in (1e-2, -1e-2)]
    np.testing.assert_allclose(product, (near[0] - near[1]) / 2e-2, atol=1e-2)


def test_results_are_pytrees(images):
    att = jax.jit(lambda x: saliency(scorer, x))(images)
    assert isinstance(att, jv.Attribution)
    assert np.array_equal(att.target, saliency(scorer, images).target)


def test_half_precision_gives_floats(images):
    def f(x):
        return jnp.tanh(x.reshape(x.shape[0], -1) @ jnp.asarray(W, x.dtype))

    half, full = (saliency(f, images, target=0, dtype=d).values for d in ("bfloat16", None))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())


def test_progress_is_told(images):
    told = []
    saliency(scorer, images, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_an_interruption_keeps_what_is_done(images):
    def stop(done, total):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted: 2 of 5 images"):
        att = saliency(scorer, images, batch_size=2, progress=stop)
    assert att.partial and np.isnan(att.values[2:]).all() and not np.isnan(att.values[:2]).any()
    assert "interrupted" in repr(att)


class Named:
    class_names = ("cat", "dog", "fish", "bird", "newt")

    def __call__(self, images):
        return scorer(images)


def test_classes_have_names(images):
    assert saliency(Named(), images, target="bird").target.tolist() == [3] * 5
    each = saliency(Named(), images, target=["cat", "dog", "cat", "dog", 2])
    assert each.target.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match='the nearest are "dog"'):
        saliency(Named(), images, target="dogs")
    with pytest.raises(ValueError, match="where classes have no names"):
        saliency(scorer, images, target="dog")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": 5}, ValueError, "`target` must be a class from 0 to 4"),
        ({"target": "all"}, ValueError, "methods that explain every class"),
        ({"target": lambda s: s}, ValueError, "`target` must reduce scores"),
        ({"target": lambda s: np.asarray(s)[:, 0]}, TypeError, "`target` must be made of JAX"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"memory": "much"}, ValueError, "`memory` must be"),
        ({"memory": 1}, MemoryError, "`memory` must hold"),
        ({"mesh": 1}, TypeError, "`mesh` must be"),
        ({"dtype": "int8"}, ValueError, "`dtype` must be a floating"),
    ],
)
def test_what_is_wrong_is_told(images, options, error, said):
    with pytest.raises(error, match=said):
        saliency(scorer, images, **options)


def test_dense_scores_need_a_function(images):
    with pytest.raises(ValueError, match="`target` must be a function for scores"):
        saliency(lambda x: x, images)
    with pytest.raises(ValueError, match="`target` must be a function for scores"):
        saliency(lambda x: x, images, target=1)
    att = saliency(lambda x: x, images, target=lambda scores: scores[:, 1, 2, 0])
    assert att.values.sum() == len(images)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.argmax(scorer(x), -1)[:, None],
        lambda x: jax.lax.while_loop(lambda y: y.sum() > 9, lambda y: y * 0.5, scorer(x)),
        lambda x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((1, 5), "f4"), scorer(x)),
    ],
    ids=["argmax", "while", "callback"],
)
def test_a_scorer_without_a_derivative_is_told(images, f):
    with pytest.raises(ValueError, match="`f` must be differentiable by its images: got"):
        saliency(f, images, target=0)


@pytest.mark.slow
def test_faults_of_the_forward_pass_stay_what_they_are(images):
    def f(x):
        raise RuntimeError("the scorer's own")

    with pytest.raises(RuntimeError, match="the scorer's own"):
        saliency(f, images)
    with pytest.raises(ValueError, match="`images` must be finite"):
        saliency(scorer, np.full((4, 6, 2), np.nan, np.float32))
