"""Gradient methods against NumPy in float64, and what each promises to add up to."""

from functools import partial

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from small_network import (
    SHAPE,
    scorer,
    slow_scores,
    slow_slope,
    unbiased,
)

import jaxviz as jv
from jaxviz import attribution as att
from jaxviz.attribution.deep_lift import Regions
from jaxviz.attribution.integrated import quadrature
from jaxviz.jaxpr.walk import trace


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


def slope(at, target=1, bias=True):
    return slow_slope(lambda x: slow_scores(x, bias)[target], at)


@pytest.mark.slow
def test_saliency_and_input_x_gradient(image):
    expected = slope(image)
    np.testing.assert_allclose(att.saliency(scorer, image, target=1).values, expected, atol=1e-4)
    product = att.input_x_gradient(scorer, image, target=1)
    np.testing.assert_allclose(product.values, image * expected, atol=1e-4)


@pytest.mark.parametrize("rule", ["gauss_legendre", "trapezoid", "mean", "right", "midpoint"])
def test_a_rule_integrates_what_it_should(rule):
    at, weights = quadrature(7, rule)
    assert np.isclose(weights.sum(), 1) and at.min() >= 0 and at.max() <= 1
    error = abs(weights @ at**3 - 1 / 4)
    assert error < {"gauss_legendre": 1e-12, "right": 0.1, "mean": 0.06}.get(rule, 0.01)


@pytest.mark.slow
def test_integrated_gradients_is_the_sum_it_says(image):
    baseline = np.full(SHAPE, 0.25, np.float32)
    found = att.integrated_gradients(
        scorer, image, target=1, baseline=0.25, points=4, rule="midpoint"
    )
    way = image.astype(np.float64) - baseline
    slopes = [slope(baseline + t * way) for t in (0.125, 0.375, 0.625, 0.875)]
    expected = way * np.mean(slopes, 0)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    gap = expected.sum() - (slow_scores(image)[1] - slow_scores(baseline)[1])
    np.testing.assert_allclose(found.delta, gap, atol=1e-4)


@pytest.mark.slow
def test_integrated_gradients_is_complete(image):
    smooth_scorer = lambda x: jnp.tanh((0.01 + x).sum((1, 2)))  # noqa: E731
    images = np.stack([image, -0.5 * image]) / 20
    found = att.integrated_gradients(smooth_scorer, images, points=20)
    assert found.delta.shape == (2,) and np.abs(found.delta).max() < 1e-5
    coarse = att.integrated_gradients(smooth_scorer, images, points=3, rule="right")
    assert np.abs(coarse.delta).max() > 1e-3


@pytest.mark.slow
def test_several_baselines_are_averaged(image):
    fills = [0.0, "mean", jv.fills.constant(0.5)]
    one_by_one = [
        att.integrated_gradients(scorer, image, target=0, baseline=b, points=3) for b in fills
    ]
    together = att.integrated_gradients(scorer, image, target=0, baseline=fills, points=3)
    expected = np.mean([one.values for one in one_by_one], 0)
    np.testing.assert_allclose(together.values, expected, atol=1e-5)
    assert np.isclose(together.delta, np.mean([one.delta for one in one_by_one]), atol=1e-5)
    stacked = np.stack([np.zeros(SHAPE), np.full(SHAPE, 0.5)])
    images = att.integrated_gradients(scorer, image, target=0, baseline=stacked, points=3)
    expected = np.mean([one_by_one[0].values, one_by_one[2].values], 0)
    np.testing.assert_allclose(images.values, expected, atol=1e-5)


@pytest.mark.slow
def test_integrated_gradients_depends_on_the_function_alone(image):
    def other(x):  # relu(x) = (x + |x|)/2, and the dense layer split in two
        half = scorer(x) / 2
        return half + jnp.where(half > 0, half, half)

    first, second = (
        att.integrated_gradients(f, image, target=2, points=8) for f in (scorer, other)
    )
    np.testing.assert_allclose(first.values, second.values, atol=1e-5)


@pytest.mark.slow
def test_guided_and_deconvnet_by_hand():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(6, 5)), rng.normal(size=(5, 2))
    x = rng.normal(size=6)
    before = x @ one
    g = two[:, 0]
    expected = {
        att.guided: one @ (g * (g > 0) * (before > 0)),
        att.deconvnet: one @ (g * (g > 0)),
        att.saliency: one @ (g * (before > 0)),
    }

    def f(images):
        flat = images.reshape(images.shape[0], -1)
        hidden = jnp.maximum(flat @ jnp.asarray(one, jnp.float32), 0)
        return hidden @ jnp.asarray(two, jnp.float32)

    image = x.reshape(2, 3, 1).astype(np.float32)
    for method, values in expected.items():
        found = method(f, image, target=0).values.reshape(-1)
        np.testing.assert_allclose(found, values, atol=1e-5)


@pytest.mark.slow
def test_smoothing_is_the_mean_over_its_draws(image):
    key, samples = jax.random.key(5), 4
    noisy = [
        image
        + 0.1
        * np.ptp(image)
        * np.asarray(jax.random.normal(jax.random.fold_in(key, k), SHAPE, jnp.float32))
        for k in range(samples)
    ]
    slopes = np.stack([slope(x) for x in noisy])
    options = {"target": 1, "samples": samples, "noise": 0.1, "key": key}
    for reduce, expected in {
        "mean": slopes.mean(0),
        "square": (slopes**2).mean(0),
        "variance": slopes.var(0),
    }.items():
        found = att.smooth(scorer, image, reduce=reduce, **options)
        np.testing.assert_allclose(found.values, expected, atol=2e-3)
    assert found.method == "smooth saliency"
    # Noise is told in pixels, and steps of any size give the same.
    absolute = att.smooth(
        scorer, image, reduce="variance", batch_size=3, scale="absolute",
        **{**options, "noise": 0.1 * float(np.ptp(image))},
    )  # fmt: skip
    np.testing.assert_allclose(absolute.values, found.values, atol=1e-4)


@pytest.mark.slow
def test_any_method_can_be_smoothed(image):
    found = att.smooth(scorer, image, method=att.grad_cam, samples=2, noise=0.0, target=1)
    plain = att.grad_cam(scorer, image, target=1)
    np.testing.assert_allclose(found.values, plain.values, atol=1e-5)
    assert found.heatmap().shape == SHAPE[:2] and found.method == "smooth Grad-CAM"
    few = partial(att.integrated_gradients, points=2)
    found = att.smooth(scorer, image, method=few, samples=2, noise=0.0, target=1)
    np.testing.assert_allclose(found.values, few(scorer, image, target=1).values, atol=1e-5)


@pytest.mark.slow
def test_smoothing_keeps_the_clean_target():
    def f(x):  # the class changes under noise
        total = x.sum((1, 2))
        return jnp.concatenate([0.01 + 0 * total, total], -1)

    found = att.smooth(f, np.zeros((2, 2, 1), np.float32), noise=1.0, scale="absolute")
    assert not found.values.any() and found.target == 0


def test_deep_lift_of_a_dense_network_by_hand():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(6, 5)), rng.normal(size=(5, 2))
    x, x0 = rng.normal(size=6), np.full(6, 0.3)
    z, z0 = x @ one, x0 @ one
    multiplier = (np.maximum(z, 0) - np.maximum(z0, 0)) / (z - z0)
    expected = (x - x0) * (one @ (multiplier * two[:, 1]))

    def f(images):
        flat = images.reshape(images.shape[0], -1)
        return jax.nn.relu(flat @ jnp.asarray(one, jnp.float32)) @ jnp.asarray(two, jnp.float32)

    image = x.reshape(2, 3, 1).astype(np.float32)
    found = att.deep_lift(f, image, target=1, baseline=0.3)
    np.testing.assert_allclose(found.values.reshape(-1), expected, atol=1e-5)


def _gate(x):
    return x * jax.nn.sigmoid(jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape))


def test_deep_lift_takes_no_array_for_a_function_of_one_of_another_shape(rng):
    steps = jnp.linspace(0.0, 1.0, 9)

    def f(images):  # a select takes a scalar for its choice, and is elementwise in the others
        bright = images[0].mean() > 0.3
        chosen = jax.lax.select_n(bright, steps, 2 * steps).sum()
        return jnp.stack([(images[0].sum() + chosen)[None]])

    image = rng.uniform(0.2, 1, size=(4, 5, 1)).astype(np.float32)
    found = att.deep_lift(f, image)
    np.testing.assert_allclose(found.values, image, rtol=1e-5)
    np.testing.assert_allclose(found.delta, -steps.sum(), rtol=1e-5)  # the choice has no slope
    flat = trace(f, image[None], open_derivatives=True).flat
    for number, root in Regions(flat).roots.items():
        assert flat.avals[number].shape == flat.avals[root].shape


@pytest.mark.slow
def test_deep_lift_is_complete_where_derivatives_are_not():
    rngs = nnx.Rngs(0)
    net = networks.Chain(
        networks.conv(2, 4, rngs=rngs),
        networks.max_pool(2, 2),
        networks.Residual(networks.conv(4, 4, rngs=rngs, act=jax.nn.silu)),
        _gate,
        lambda x: x / (1 + jnp.abs(x).max((1, 2), keepdims=True)),
        networks.global_mean,
        nnx.Linear(4, 3, rngs=rngs),
        jax.nn.leaky_relu,
    )
    images = np.random.default_rng(1).normal(size=(2, 8, 6, 2)).astype(np.float32)
    found = att.deep_lift(net, images, baseline=[0.0, 0.5])
    assert np.abs(found.delta).max() < 1e-5
    product = att.input_x_gradient(net, images)
    base = np.asarray(net(jnp.zeros((1, 8, 6, 2))))[0, product.target]
    gap = product.values.sum((1, 2, 3)) - (product.base[range(2), product.target] - base)
    assert np.abs(gap).min() > 1e-3


@pytest.mark.slow
def test_without_bias_all_of_them_are_input_x_gradient(image):
    expected = att.input_x_gradient(unbiased, image, target=1).values
    total = slow_scores(image, bias=False)[1]
    assert np.isclose(expected.sum(), total, atol=1e-4)
    for method in (att.deep_lift, partial(att.integrated_gradients, points=3)):
        np.testing.assert_allclose(method(unbiased, image, target=1).values, expected, atol=1e-4)


METHODS = {
    "saliency": att.saliency,
    "input_x_gradient": att.input_x_gradient,
    "integrated_gradients": partial(att.integrated_gradients, points=3),
    "guided": att.guided,
    "deconvnet": att.deconvnet,
    "deep_lift": partial(att.deep_lift, baseline=0.1),
    "smooth": partial(att.smooth, samples=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_one_by_one_and_traced(image, name):
    method, images = METHODS[name], np.stack([image, image[::-1], 0 * image])
    together = method(scorer, images)
    for n, one in enumerate(images):
        np.testing.assert_allclose(method(scorer, one).values, together.values[n], atol=1e-5)
    traced = jax.jit(jax.vmap(lambda x: method(scorer, x).values))(images)
    np.testing.assert_allclose(traced, together.values, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_constant_scorer_gives_zeros(image, name):
    for f in (lambda x: jnp.ones((x.shape[0], 3)), lambda x: scorer(0 * x)):
        found = METHODS[name](f, image)
        assert not found.values.any() and np.isfinite(found.base).all()
        assert found.delta is None or found.delta == 0


@pytest.mark.slow
def test_dead_units_give_zeros(image):
    dead = lambda x: jax.nn.relu(scorer(x) - 1e6)  # noqa: E731
    for name in ("saliency", "guided", "integrated_gradients", "deep_lift"):
        assert not METHODS[name](dead, image).values.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "error", "said"),
    [
        (att.integrated_gradients, {"points": 0}, ValueError, "`points` must be a whole number"),
        (att.integrated_gradients, {"points": 1, "rule": "trapezoid"}, ValueError, "number from 2"),
        (att.integrated_gradients, {"rule": "simpson"}, ValueError, "`rule` must be one of"),
        (att.integrated_gradients, {"baseline": np.ones((2, 2, 2))}, ValueError,
         "`baseline` must have the image's shape"),
        (att.integrated_gradients, {"baseline": []}, ValueError, "`baseline` must hold at least"),
        (att.integrated_gradients, {"baseline": "patch_mean"}, ValueError,
         "`baseline` must be a whole image"),
        (att.deep_lift, {"baseline": "black"}, ValueError, '`baseline` must be "mean"'),
        (att.deep_lift, {"baseline": None}, TypeError, "`baseline` must be a number"),
        (att.smooth, {"samples": 0}, ValueError, "`samples` must be a whole number from 1"),
        (att.smooth, {"noise": -1}, ValueError, "`noise` must be at least 0"),
        (att.smooth, {"scale": "std"}, ValueError, "`scale` must be one of"),
        (att.smooth, {"reduce": "median"}, ValueError, "`reduce` must be one of"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(image, method, options, error, said):
    with pytest.raises(error, match=said):
        method(scorer, image, **options)


@pytest.mark.slow
def test_scores_that_have_no_derivative_are_told():
    image = np.ones((4, 4, 1), np.float32)
    with pytest.raises(ValueError, match="its scores are int32"):
        jv.attribution.saliency(lambda x: x.sum((1, 2)).astype(np.int32), image)
