"""What follows from the known arguments is evaluated once, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.jaxpr.hoist import hoist

WEIGHT = jnp.arange(12.0).reshape(3, 4) / 7
X = jnp.arange(6.0).reshape(2, 3)


def layer(weights, x):
    """A product with a normalised weight, and an activation with a derivative rule of its own."""
    scaled = jnp.exp(weights["w"]) / jnp.exp(weights["w"]).sum(axis=0, keepdims=True)
    return jax.nn.relu(x @ scaled + weights["b"][None]), x.sum() * 2


WEIGHTS = {"w": WEIGHT, "b": jnp.ones(4)}


def primitives(function, *args):
    return [str(e.primitive) for e in jax.make_jaxpr(function)(*args).jaxpr.eqns]


@pytest.mark.slow
def test_parts_make_the_whole():
    split = hoist(layer, WEIGHTS, X, least=1)
    assert split.prepares
    ready = split.prepare(WEIGHTS)
    assert [a.shape for a in ready] == [(3, 4)]
    for mine, theirs in zip(split.evaluate(WEIGHTS, ready, X), layer(WEIGHTS, X), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_known_is_prepared_and_moves_stay_with_their_reader():
    split = hoist(layer, WEIGHTS, X, least=1)
    each = primitives(split.evaluate, WEIGHTS, split.prepare(WEIGHTS), X)
    assert "exp" not in each and "broadcast_in_dim" in each and "dot_general" in each
    assert "exp" in primitives(split.prepare, WEIGHTS)


def test_little_is_not_prepared():
    split = hoist(layer, WEIGHTS, X)
    assert not split.prepares and split.prepare(WEIGHTS) == []
    assert "exp" in primitives(split.evaluate, WEIGHTS, [], X)
    np.testing.assert_array_equal(split.evaluate(WEIGHTS, [], X)[0], layer(WEIGHTS, X)[0])


@pytest.mark.slow
def test_results_that_are_known_and_arrays_that_are_captured():
    table = jnp.arange(5.0)

    def function(known, x):
        return jnp.sin(known), known, jnp.cos(table) + x, jnp.arange(3)

    split = hoist(function, X, jnp.ones(5), least=1)
    found = split.evaluate(X, split.prepare(X), jnp.ones(5))
    for mine, theirs in zip(found, function(X, jnp.ones(5)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_it_composes_with_jit_vmap_and_grad():
    split = hoist(layer, WEIGHTS, X, least=1)

    def parts(weights, x):
        return split.evaluate(weights, split.prepare(weights), x)[0].sum()

    def whole(weights, x):
        return layer(weights, x)[0].sum()

    mine, theirs = (jax.jit(jax.grad(f, argnums=(0, 1)))(WEIGHTS, X) for f in (parts, whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, theirs)
    many = jnp.stack([X, -X])
    np.testing.assert_allclose(
        jax.vmap(parts, (None, 0))(WEIGHTS, many), jax.vmap(whole, (None, 0))(WEIGHTS, many)
    )
