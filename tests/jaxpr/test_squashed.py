"""Outputs that are probabilities are known by the operations that make them."""

import jax
import jax.numpy as jnp
import pytest

from jaxviz.jaxpr.squashed import squashed
from jaxviz.jaxpr.walk import trace

X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def exponentials(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "f, wanted",
    [
        (jax.nn.softmax, True),
        (exponentials, True),
        (jax.nn.sigmoid, True),
        (lambda x: jax.jit(jax.nn.softmax)(x).astype(jnp.bfloat16)[:, None, 1:].squeeze(1), True),
        (jax.nn.log_softmax, False),
        (jnp.exp, False),
        (jax.nn.relu, False),
        (lambda x: jax.nn.sigmoid(x) * x, False),
        (lambda x: x / x.sum(-1, keepdims=True), False),
        (lambda x: x, False),
        (lambda x: jnp.ones(3), False),
    ],
)
def test_a_sigmoid_or_softmax_at_the_end_makes_probabilities(f, wanted):
    flat = trace(lambda x: [f(x), x], X, open_derivatives=True).flat
    assert squashed(flat) == [wanted, False]
