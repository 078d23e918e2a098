"""A replayed function is the function; rules see every equation."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr.walk import dependent, equations, replay


@jax.custom_vjp
def twice(x):
    return 2 * x


twice.defvjp(lambda x: (2 * x, None), lambda _, g: (5 * g,))


def mixed(x, y):
    x = jax.jit(lambda x: jax.nn.relu(x) + 1)(x)
    x = jax.checkpoint(jnp.sin)(twice(x))
    total, _ = jax.lax.scan(lambda c, row: (c + row, None), jnp.zeros(3), x)
    return {"sum": total * y, "half": x.astype(jnp.bfloat16)}


def test_without_rules_a_replayed_function_is_the_function(rng):
    x, y = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), jnp.asarray(2.0)
    expected = mixed(x, y)
    for found in (
        replay(mixed, x, y, rules={}),
        jax.jit(lambda x, y: replay(mixed, x, y, rules={}))(x, y),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)

    def loss(run):
        return jax.grad(lambda x: run(x)["sum"].sum())(x)

    np.testing.assert_array_equal(
        loss(lambda x: replay(mixed, x, y, rules={})), loss(lambda x: mixed(x, y))
    )


def test_rules_replace_equations_inside_calls():
    def f(x):
        return jax.jit(jnp.sin)(x) + 1

    found = replay(f, jnp.ones(2), rules={"sin": lambda equation, inputs: [inputs[0] * 10]})
    assert found.tolist() == [11.0, 11.0]
    found = replay(f, jnp.ones(2), rules={"sin": lambda equation, inputs: None})
    np.testing.assert_array_equal(found, f(jnp.ones(2)))


def test_replay_composes_with_vmap_and_closed_over_tracers(rng):
    x = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)

    def outer(scale):
        return replay(lambda x: jnp.tanh(x * scale), x, rules={}).sum()

    grads = jax.vmap(jax.grad(outer))(jnp.asarray([1.0, 2.0]))
    expected = jax.vmap(jax.grad(lambda s: jnp.tanh(x * s).sum()))(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(grads, expected, rtol=1e-5)


def test_dependence_follows_the_data():
    def f(x, y):
        return jax.jit(lambda x, y: (jnp.sin(x), jnp.cos(y)))(x, y), x + y, jnp.ones(2)

    jaxpr = jax.make_jaxpr(f)(jnp.ones(2), jnp.ones(2)).jaxpr
    assert dependent(jaxpr, [True, False]) == [True, False, True, False]
    assert dependent(jaxpr, [False, False]) == [False] * 4


def test_equations_are_listed_inside_calls():
    jaxpr = jax.make_jaxpr(jax.jit(lambda x: jax.jit(jnp.sin)(x) * 2))(1.0).jaxpr
    assert [equation.primitive.name for equation in equations(jaxpr)] == ["sin", "mul"]
