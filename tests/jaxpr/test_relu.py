"""ReLU rules change exactly what they say, and nothing but ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay
from jaxviz.keras.layers import activation as keras_activation

X = np.asarray([[-2.0, -1.0, 1.0, 2.0], [-1.0, -2.0, -3.0, -4.0]], np.float32)
G = np.asarray([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0]], np.float32)
PASSED = {
    "plain": [[0, 0, 1, -1], [0, 0, 0, 0]],
    "guided": [[0, 0, 1, 0], [0, 0, 0, 0]],
    "rectified": [[1, 0, 1, 0], [1, 0, 1, 0]],
    "redirected": [[0, 0, 1, -1], [1, 0, 1, 0]],
}


@jax.custom_jvp
def steep(x):
    """Return max(x, 0.5), whose derivative is said to be 7."""
    return jnp.maximum(x, 0.5)


@jax.custom_jvp
def steep_relu(x):
    """Return max(x, 0), whose derivative is said to be 7."""
    return jnp.maximum(x, 0.0)


for function in (steep, steep_relu):
    function.defjvps(lambda t, _, x: 7.0 * t)


@jax.custom_jvp
def equal_relu(x):
    """Return what `jax.nn.relu` does, with the same derivative."""
    return jnp.maximum(x, 0)


equal_relu.defjvps(lambda t, _, x: jax.lax.select(x > 0, t, jax.lax.full_like(t, 0)))


def in_a_loop(activation):
    return lambda x: jax.lax.scan(lambda carry, _: (activation(carry), None), x, length=1)[0]


def gradient(function, x, backprop):
    def loss(x):
        return (replay(function, x, rules=relu_rules(backprop)) * G).sum()

    return jax.grad(loss)(jnp.asarray(x))


@pytest.mark.parametrize("backprop", list(PASSED))
@pytest.mark.parametrize(
    "relu",
    [
        jax.nn.relu,
        jax.nn.relu6,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0.0, x),
        lambda x: jnp.clip(x, 0, 6),
        jax.jit(jax.nn.relu),
        equal_relu,
        in_a_loop(jax.nn.relu),
        keras_activation.Relu(ceiling=6.0),
    ],
    ids=[
        *("relu", "relu6", "maximum", "maximum of 0", "clip", "jit", "equal", "loop"),
        "Keras relu6",
    ],
)
def test_relu_passes_what_its_rule_says(backprop, relu):
    np.testing.assert_array_equal(gradient(relu, X, backprop), PASSED[backprop])
    np.testing.assert_array_equal(replay(relu, X, rules=relu_rules(backprop)), relu(X))


def hard_sigmoid_of_arrays(x):
    return jax.nn.relu6(x + jnp.broadcast_to(jnp.asarray(3.0), x.shape)) * jnp.asarray(1 / 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        *(steep, steep_relu, jax.nn.silu, jax.nn.leaky_relu, jnp.abs, jax.nn.celu),
        *(jax.nn.softplus, jax.nn.sparse_sigmoid, jax.nn.hard_sigmoid, jax.nn.hard_swish),
        *(keras_activation.hard_sigmoid, keras_activation.hard_silu, hard_sigmoid_of_arrays),
        *(keras_activation.hard_sigmoid_legacy, in_a_loop(jax.nn.hard_sigmoid)),
        lambda x: jnp.maximum(x, 0.5),
        lambda x: jnp.clip(x, 0.0, 1.0),
        lambda x: jnp.sqrt(jnp.maximum(x, 0.0) + 1e-3),
    ],
)
def test_what_is_no_rectifier_keeps_its_derivative(function):
    expected = jax.grad(lambda x: (function(x) * G).sum())(jnp.asarray(X))
    np.testing.assert_allclose(gradient(function, X, "guided"), expected, rtol=1e-6)


@pytest.mark.slow
def test_a_normalisation_keeps_its_derivative():
    layer = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
    images = jnp.stack([X, 2 * X]).swapaxes(0, 1)[None]

    def loss(x, rules):
        weights = jnp.arange(16.0).reshape(images.shape)
        return (replay(layer, x, rules=rules) * weights).sum()

    expected = jax.grad(loss)(images, relu_rules("plain"))
    np.testing.assert_array_equal(jax.grad(loss)(images, relu_rules("guided")), expected)


@pytest.mark.slow
def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="`backprop` must be one of plain, guided, rectified"):
        relu_rules("deconvolved")
