"""ReLU rules change exactly what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay

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
