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


@pytest.mark.parametrize(("sigma", "size"), [(0.3, (1, 4)), (0.7, (6, 8)), (2.0, (6, 3))])
def test_blur_equals_the_double_sum(rng, sigma, size):
    image = rng.uniform(size=(*size, 2)).astype(np.float32)
    radius = filters.reach(sigma)
    found = jax.jit(lambda sigma: filters.blur(jnp.asarray(image), sigma, radius=radius))(sigma)
    np.testing.assert_allclose(found, slow_blur(image, sigma), atol=1e-6)
    both = filters.blur(jnp.stack([image, 2 * image]), sigma, radius=radius)
    np.testing.assert_allclose(both[1], 2 * found, atol=1e-6)


def test_blur_keeps_a_flat_image_and_its_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        flat = jnp.full((5, 4, 1), 0.5, dtype)
        blurred = filters.blur(flat, 3.0, radius=12)
        assert blurred.dtype == dtype
        np.testing.assert_allclose(blurred.astype(jnp.float32), 0.5, rtol=1e-2)


def test_blur_in_float64_is_exact(rng):
    image = rng.uniform(size=(6, 8, 2))
    with jax.enable_x64(True):
        found = filters.blur(jnp.asarray(image), 0.7, radius=3)
    np.testing.assert_allclose(found, slow_blur(image, 0.7), atol=1e-14)


def test_the_derivative_of_blur_is_its_transpose(rng):
    image, weights = rng.normal(size=(2, 5, 6, 1)).astype(np.float32)
    blur = lambda x: filters.blur(x, 1.0, radius=4)  # noqa: E731
    gradient = jax.grad(lambda x: (weights * blur(x)).sum())(jnp.asarray(image))
    impulse = jnp.zeros_like(image).at[0, 5, 0].set(1.0)
    assert float(gradient[0, 5, 0]) == pytest.approx(
        float((weights * blur(impulse)).sum()), abs=1e-6
    )
