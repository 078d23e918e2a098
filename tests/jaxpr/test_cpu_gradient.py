"""Quick rules give the usual values and derivatives, by other ways."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.jaxpr import cpu_gradient as quick
from jaxviz.jaxpr.cpu_gradient import forward, quick_rules
from jaxviz.jaxpr.walk import replay

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def values_and_gradients(f, *args, rules):
    """A function's value, and the derivatives of a weighted sum of it."""

    @jax.jit
    def both(*args):
        y, pull = jax.vjp(lambda *args: replay(f, *args, rules=rules), *args)
        g = jnp.round(3 * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)))
        return y, pull(g.reshape(y.shape).astype(y.dtype))

    return both(*args)


def assert_the_same(f, *args, atol):
    found = values_and_gradients(f, *args, rules=quick_rules("cpu"))
    usual = values_and_gradients(f, *args, rules={})
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(usual), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=atol)


def primitives(f, *args):
    return str(jax.make_jaxpr(lambda *args: replay(f, *args, rules=quick_rules("cpu")))(*args))


@pytest.mark.slow
@settings(max_examples=12)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 4)),
    padding=st.sampled_from(["VALID", "SAME", ((1, 0), (0, 1))]),
)
def test_pools_are_the_usual_ones_with_ties(seed, size, window, strides, padding):
    x = np.random.default_rng(seed).integers(0, 3, (2, *size, 2)).astype(np.float32)
    sizes, steps = (1, *window, 1), (1, *(strides or window), 1)
    if not isinstance(padding, str):
        padding = ((0, 0), *padding, (0, 0))

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, steps, padding)

    assert_the_same(pool, jnp.asarray(x), atol=1e-6)


@pytest.mark.slow
@settings(max_examples=20)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(7, 14), st.integers(7, 14)),
    channels=st.sampled_from([1, 3, 4, 17]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.just((1, 1)) | st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["SAME", "VALID", ((2, 1), (0, 3))]),
)
def test_convolutions_are_the_usual_ones(seed, size, channels, kernel, strides, dilation, padding):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.integers(-3, 4, (2, *size, channels)), jnp.float32)
    w = jnp.asarray(rng.integers(-3, 4, (*kernel, channels, 3)), jnp.float32)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS
        )

    assert_the_same(convolve, x, w, atol=0)


def depthwise(x, w, *options, **more):
    return jax.lax.conv_general_dilated(
        x, w, *options, feature_group_count=x.shape[3], dimension_numbers=DIMENSIONS, **more
    )


@pytest.mark.slow
@settings(max_examples=20)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(7, 14), st.integers(7, 14)),
    channels=st.integers(2, 5),
    times=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["SAME", "VALID", ((2, 1), (0, 3))]),
)
def test_depthwise_convolutions_are_the_usual_ones(
    seed, size, channels, times, kernel, strides, dilation, padding
):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.integers(-3, 4, (2, *size, channels)), jnp.float32)
    w = jnp.asarray(rng.integers(-3, 4, (*kernel, 1, channels * times)), jnp.float32)

    def convolve(x, w):
        return depthwise(x, w, strides, padding, rhs_dilation=dilation)

    assert_the_same(convolve, x, w, atol=0)
    np.testing.assert_array_equal(forward(convolve, x, w), convolve(x, w))
    assert "conv_general_dilated" not in primitives(convolve, x, w)


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((1, 16, 16, 2), (12, 12, 1, 2), dict(padding="SAME")),
        ((1, 8, 8, 2), (3, 3, 1, 2), dict(padding=((-1, 1), (0, 0)))),
        ((1, 8, 8, 2), (3, 3, 1, 2), dict(padding=((0, 0), (0, 0)), lhs_dilation=(2, 2))),
        ((1, 8, 8, 1), (3, 3, 1, 2), dict(padding="SAME")),
        ((1, 6, 8, 2), (9, 3, 1, 2), dict(padding="VALID")),
    ],
)
def test_other_depthwise_convolutions_are_left_alone(shape, kernel, options):
    x, w = jnp.ones(shape), jnp.ones(kernel)

    def convolve(x):
        return depthwise(x, w, (1, 1), **options)

    assert "conv_general_dilated" in str(jax.make_jaxpr(lambda x: forward(convolve, x))(x))
    np.testing.assert_array_equal(forward(convolve, x), convolve(x))


def test_depthwise_products_of_another_dtype_are_left_alone():
    with jax.enable_x64():
        x, w = jnp.ones((1, 8, 8, 2), jnp.float32), jnp.ones((3, 3, 1, 2), jnp.float32)
        options = dict(preferred_element_type=jnp.float64)
        assert forward(lambda x: depthwise(x, w, (1, 1), "SAME", **options), x).dtype == "float64"


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "sign"),
    [
        ((3, 3, 8, 4), (1, 1), "SAME", "padding=((1, 2), (1, 1))"),
        ((1, 1, 8, 4), (1, 1), "VALID", "dot_general"),
        ((7, 7, 3, 4), (2, 2), "VALID", "f32[1,9,9,12]"),
    ],
    ids=["higher", "product", "blocks"],
)
def test_each_kind_of_convolution_takes_its_own_way(kernel, strides, padding, sign):
    x = jnp.ones((1, 17, 17, kernel[2]))

    def convolve(x):
        return jax.lax.conv_general_dilated(
            x, jnp.ones(kernel), strides, padding, dimension_numbers=DIMENSIONS
        )

    assert sign in primitives(convolve, x)
    assert sign not in str(jax.make_jaxpr(convolve)(x))


@pytest.mark.slow
def test_other_pools_and_convolutions_are_left_alone():
    x = jnp.ones((1, 6, 6, 2))

    def pool(x):
        window = (1, 1, 2, 2)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")

    def grouped(x):
        x, w = jnp.tile(x, 2), jnp.ones((3, 3, 2, 4))
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", feature_group_count=2, dimension_numbers=DIMENSIONS
        )

    def strided(x):
        x = jnp.tile(x, 4)
        return jax.lax.conv_general_dilated(
            x, jnp.ones((3, 3, 8, 2)), (2, 2), "SAME", dimension_numbers=DIMENSIONS
        )

    for f in (pool, grouped, strided):
        assert "custom_vjp" not in primitives(f, x)
        np.testing.assert_array_equal(replay(f, x, rules=quick_rules("cpu")), f(x))


@pytest.mark.slow
def test_on_other_platforms_nothing_is_replaced(monkeypatch):
    assert sorted(quick_rules("cpu")) == ["conv_general_dilated", "reduce_window_max"]
    monkeypatch.setattr(quick, "platform_of", lambda *arrays: "gpu")
    assert quick_rules("gpu") == {}
    x, w = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 1, 2))
    other = jax.make_jaxpr(partial(forward, lambda x: depthwise(x, w, (1, 1), "SAME")))(x)
    assert "conv_general_dilated" in str(other)


@pytest.mark.slow
def test_a_gradient_taken_often_goes_by_tiles_where_they_pay():
    """Two convolutions, one with a padding that its derivative cannot take by the same form."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (1, 7, 6, 20)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-2, 3, (3, 3, 20, 24)), jnp.float32)
    often = quick_rules("cpu", preparing=1.0)

    def f(x, kernel, padding="SAME"):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS
        )

    def products(rules):
        traced = jax.make_jaxpr(partial(values_and_gradients, f, rules=rules))(x, kernel)
        return str(traced).count("conv_general_dilated")

    few = products(often)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "WORTH_COMPILING", -1.0)
        jax.clear_caches()  # each convolution is traced once, and the constant is no part of it
        assert products(often) > few, "tiles along the width are four convolutions"
        assert products(quick_rules("cpu")) == few, "not where the gradient is taken once"
        for padding in ("SAME", "VALID", ((3, 3), (1, 1))):
            g = partial(f, padding=padding)
            found = values_and_gradients(g, x, kernel, rules=often)
            usual = values_and_gradients(g, x, kernel, rules={})
            for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(usual), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    jax.clear_caches()
