"""Quick rules change no derivative; ReLU rules change exactly what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.gradients import quick_rules, relu_rules
from jaxviz.replay import replay


def gradients(f, x, *others, rules):
    g = jnp.cos(jnp.arange(jax.eval_shape(f, x, *others).size, dtype=jnp.float32))

    def weighted(*args):
        y = replay(f, *args, rules=rules)
        return (y * g.reshape(y.shape).astype(y.dtype)).sum()

    return jax.grad(weighted, argnums=tuple(range(1 + len(others))))(x, *others)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 4)),
    padding=st.sampled_from(["VALID", "SAME", ((1, 0), (0, 1))]),
)
def test_pool_gradient_is_the_usual_one_with_ties(seed, size, window, strides, padding):
    x = np.random.default_rng(seed).integers(0, 3, (2, *size, 2)).astype(np.float32)
    sizes, steps = (1, *window, 1), (1, *(strides or window), 1)
    if not isinstance(padding, str):
        padding = ((0, 0), *padding, (0, 0))

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, steps, padding)

    quick = gradients(pool, jnp.asarray(x), rules=quick_rules())
    usual = gradients(pool, jnp.asarray(x), rules={})
    np.testing.assert_allclose(quick[0], usual[0], rtol=1e-6, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 99),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["SAME", "VALID", ((2, 1), (0, 3))]),
)
def test_convolution_gradients_are_the_usual_ones(
    seed, channels, kernel, strides, dilation, padding
):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.integers(-3, 4, (2, 9, 8, channels)), jnp.float32)
    w = jnp.asarray(rng.integers(-3, 4, (*kernel, channels, 3)), jnp.float32)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    quick = gradients(convolve, x, w, rules=quick_rules())
    usual = gradients(convolve, x, w, rules={})
    for mine, theirs in zip(quick, usual, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-4)


def test_quick_rules_leave_other_pools_and_convolutions_alone():
    x = jnp.ones((1, 6, 6, 2))

    def pool(x):
        window = (1, 1, 2, 2)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")

    def depthwise(x):
        return jax.lax.conv_general_dilated(
            x,
            jnp.ones((3, 3, 1, 2)),
            (1, 1),
            "SAME",
            feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    for f in (pool, depthwise):
        text = str(jax.make_jaxpr(lambda x: replay(f, x, rules=quick_rules()))(x))  # noqa: B023
        assert "custom_vjp" not in text
        np.testing.assert_array_equal(replay(f, x, rules=quick_rules()), f(x))


X = np.asarray([[-2.0, -1.0, 1.0, 2.0], [-1.0, -2.0, -3.0, -4.0]], np.float32)
G = np.asarray([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0]], np.float32)
PASSED = {
    "plain": [[0, 0, 1, -1], [0, 0, 0, 0]],
    "guided": [[0, 0, 1, 0], [0, 0, 0, 0]],
    "rectified": [[1, 0, 1, 0], [1, 0, 1, 0]],
    "redirected": [[0, 0, 1, -1], [1, 0, 1, 0]],
}


@pytest.mark.parametrize("backprop", list(PASSED))
@pytest.mark.parametrize(
    "relu",
    [
        jax.nn.relu,
        jax.nn.relu6,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0.0, x),
        jax.jit(jax.nn.relu),
    ],
    ids=["relu", "relu6", "maximum", "maximum of 0", "jit"],
)
def test_relu_passes_what_its_rule_says(backprop, relu):
    def loss(x):
        return (replay(relu, x, rules=relu_rules(backprop)) * G).sum()

    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(X)), PASSED[backprop])
    np.testing.assert_array_equal(replay(relu, X, rules=relu_rules(backprop)), relu(X))


def test_other_activations_keep_their_derivative():
    for f in (jax.nn.silu, jax.nn.leaky_relu, jnp.abs):
        found = jax.grad(lambda x: replay(f, x, rules=relu_rules("guided")).sum())(X)  # noqa: B023
        np.testing.assert_array_equal(found, jax.grad(lambda x: f(x).sum())(X))  # noqa: B023


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="`backprop` must be one of plain, guided, rectified"):
        relu_rules("deconvolved")
