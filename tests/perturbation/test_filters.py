"""Interpolation and blur along the axes, against the definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import slow_blur

from jaxviz.perturbation import filters


@given(st.lists(st.floats(-3, 12), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 99))
def test_bilinear_is_linear_interpolation_clamped_at_the_edges(at, size, seed):
    values = np.random.default_rng(seed).normal(size=size)
    weights = filters.bilinear(np.asarray(at), size)
    np.testing.assert_allclose(weights @ values, np.interp(at, np.arange(size), values), atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_bilinear_of_traced_places_is_that_of_numpy():
    at = np.asarray([-1.0, 0.0, 0.25, 3.5, 4.0, 7.0], np.float32)
    found = jax.jit(lambda at: filters.bilinear(at, 5, xp=jnp))(at)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, filters.bilinear(at, 5).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "size"), [(0.7, (6, 8)), (2.0, (1, 3))])
def test_blur_equals_the_double_sum(rng, sigma, size):
    image = rng.uniform(size=(*size, 2)).astype(np.float32)
    images = jnp.stack([image, 2 * image])
    found = jax.jit(lambda x, sigma: filters.blur(x, sigma, radius=filters.reach(2.0)))
    expected = slow_blur(image, sigma)
    within = 1e-6 if sigma == 2.0 else 1e-4  # the radius is that of the largest
    np.testing.assert_allclose(found(images, sigma)[0], expected, atol=within)
    np.testing.assert_allclose(found(images, sigma)[1], 2 * expected, atol=2 * within)


@pytest.mark.slow
def test_blur_in_float64_is_exact_and_in_bfloat16_stays_so(rng):
    image = rng.uniform(size=(4, 5, 2))
    with jax.enable_x64(True):
        found = jax.jit(lambda x: filters.blur(x, 0.7, radius=3))(jnp.asarray(image))
    np.testing.assert_allclose(found, slow_blur(image, 0.7), atol=1e-14)
    half = jax.ShapeDtypeStruct((4, 5, 2), jnp.bfloat16)
    assert jax.eval_shape(lambda x: filters.blur(x, 0.7, radius=3), half).dtype == jnp.bfloat16


@pytest.mark.slow
def test_the_derivative_of_blur_is_its_transpose(rng):
    image, weights = rng.normal(size=(2, 5, 6, 1)).astype(np.float32)

    @jax.jit
    def both_ways(image):
        blurred, pull = jax.vjp(lambda x: filters.blur(x, 1.0, radius=4), image)
        return (blurred * weights).sum(), (image * pull(jnp.asarray(weights))[0]).sum()

    np.testing.assert_allclose(*both_ways(jnp.asarray(image)), rtol=1e-4)
