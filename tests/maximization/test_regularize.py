"""Penalties: golden values, an oracle, finite differences, flat and zero images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import regularize as jr


def slow_total_variation(image, beta):
    height, width, channels = image.shape
    total = 0.0
    for h in range(height - 1):
        for w in range(width - 1):
            for c in range(channels):
                down = image[h + 1, w, c] - image[h, w, c]
                right = image[h, w + 1, c] - image[h, w, c]
                total += (down**2 + right**2) ** (beta / 2)
    return total / image.size


def slow_lp_norm(image, p):
    return (np.abs(image) ** p).sum() ** (1 / p) / image.size


def slow_ink(image, ground):
    return sum(abs(value - ground) for value in image.ravel()) / image.size


@pytest.mark.slow
def test_golden_values_of_keras_vis():
    x = jnp.asarray((np.arange(36).reshape(2, 3, 3, 2) % 7).astype(np.float32))
    for beta, golden in ((2.0, 16.11111111), (1.0, 3.46429485)):
        both = jax.vmap(lambda image: jr.total_variation(image, beta=beta))(x)  # noqa: B023
        assert float(both.sum()) == pytest.approx(golden, rel=1e-6)
    # keras-vis divides by the size of one image, here by that of the batch of two.
    for p, golden in ((6.0, 0.46318320), (2.0, 1.18504050)):
        assert float(2 * jr.lp_norm(x.reshape(6, 3, 2), p=p)) == pytest.approx(golden, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 2), (5, 4, 3)])
def test_penalties_equal_the_formula(rng, size, power):
    image = rng.normal(size=size)

    def penalties(x):
        return jr.total_variation(x, beta=power), jr.lp_norm(x, p=power), jr.ink(x, ground=power)

    variation, norm, ink = jax.jit(penalties)(jnp.asarray(image, jnp.float32))
    expected = slow_total_variation(image, power)
    np.testing.assert_allclose(variation, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm, slow_lp_norm(image, power), rtol=1e-4)
    np.testing.assert_allclose(ink, slow_ink(image, power), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "slow"),
    [
        (lambda x: jr.total_variation(x, beta=2.0), lambda x: slow_total_variation(x, 2)),
        (lambda x: jr.total_variation(x, beta=1.0), lambda x: slow_total_variation(x, 1)),
        (lambda x: jr.lp_norm(x, p=6.0), lambda x: slow_lp_norm(x, 6)),
        (lambda x: jr.lp_norm(x, p=1.0), lambda x: slow_lp_norm(x, 1)),
        (lambda x: jr.ink(x, ground=-0.5), lambda x: slow_ink(x, -0.5)),
    ],
    ids=["tv2", "tv1", "lp6", "lp1", "ink"],
)
def test_gradients_equal_finite_differences(rng, function, slow):
    image = rng.normal(size=(4, 5, 2))
    gradient = np.asarray(jax.jit(jax.grad(function))(jnp.asarray(image, jnp.float32)))
    for index in [(0, 0, 0), (1, 2, 1), (3, 4, 0), (2, 4, 1)]:
        step = np.zeros(image.shape)
        step[index] = 1e-5
        expected = (slow(image + step) - slow(image - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], expected, rtol=2e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_derivatives_are_finite_on_zero_images_and_flat_patches(value):
    functions = [partial(jr.total_variation, beta=beta) for beta in (1.0, 1.5, 2.0)]
    functions += [partial(jr.ink, ground=0.7), *(partial(jr.lp_norm, p=p) for p in (1.0, 2.0, 6.0))]

    def gradients(image):
        return [jax.grad(function)(image) for function in functions]

    found = [np.asarray(one) for one in jax.jit(gradients)(jnp.full((4, 4, 3), value))]
    assert all((one == 0).all() for one in found[:3])
    assert all(np.isfinite(one).all() for one in found)
    costless = found[3:4] if value else found[4:]  # what lies on its ground stays
    assert all((one == 0).all() for one in costless)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [jr.ink, partial(jr.lp_norm, p=1.0)])
def test_a_pixel_that_costs_nothing_is_not_pushed(penalty):
    image = jnp.asarray([[[0.0], [2.0]], [[-1.0], [-0.0]]])
    found = np.asarray(jax.grad(penalty)(image))
    np.testing.assert_allclose(found[..., 0], [[0, 0.25], [-0.25, 0]])


@pytest.mark.slow
def test_lp_norm_neither_overflows_nor_underflows():
    for size in (1e-12, 1e12):
        norm = jr.lp_norm(jnp.full((2, 2, 1), size), p=6.0)
        assert float(norm) == pytest.approx(size * 4 ** (1 / 6) / 4, rel=1e-5)


def test_a_weight_may_follow_a_schedule():
    penalty = jr.penalty(jr.lp_norm, lambda step: 0.5 * step, name="size", options={"p": 1.0})
    image = jnp.ones((2, 2, 1))
    values = [float(penalty(image, jnp.asarray(step))) for step in (0, 2)]
    assert values == [0.0, 1.0] and penalty.name == "size"


def test_equal_penalties_are_one_program():
    assert jr.blur_steps(every=2) == jr.blur_steps(every=2)
    first = jr.penalty(jr.lp_norm, 1.0, options={"p": 2.0})
    assert hash(first) == hash(jr.penalty(jr.lp_norm, 1.0, options={"p": 2.0}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "`every` must be a whole number from 1: got 0"),
        ({"sigma": 0.0}, "`sigma` must be above 0 pixels: got 0.0"),
    ],
)
def test_blur_steps_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jr.blur_steps(**options)
