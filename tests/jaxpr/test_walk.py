"""A replayed function is the function; rules see every equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import dependent, flatten, replay, run, trace


@jax.custom_vjp
def twice(x):
    return 2 * x


twice.defvjp(lambda x: (2 * x, None), lambda _, g: (5 * g,))


def mixed(x, y):
    x = jax.jit(lambda x: jax.nn.relu(x) + 1)(x)
    x = jax.checkpoint(jnp.sin)(twice(x))
    total, _ = jax.lax.scan(lambda c, row: (c + row, None), jnp.zeros(3), x)
    return {"sum": total * y, "half": x.astype(jnp.bfloat16)}


@pytest.mark.slow
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


@pytest.mark.slow
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

    flat = trace(f, jnp.ones(2), jnp.ones(2)).flat
    assert dependent(flat, [True, False]) == [True, False, True, False]
    assert dependent(flat, [False, False]) == [False] * 4


def test_a_function_is_traced_at_every_call():
    scale = 2.0

    def f(x):
        return x * scale

    assert replay(f, 3.0, rules={}) == 6.0
    scale = 5.0
    assert replay(f, 3.0, rules={}) == 15.0


def test_calls_are_inlined():
    flat = trace(jax.jit(lambda x: jax.jit(jnp.sin)(x) * 2), 1.0).flat
    assert [equation.primitive.name for equation in flat.equations] == ["sin", "mul"]


W = np.arange(6, dtype=np.float32).reshape(2, 3)


def with_arrays_at_every_depth(x):
    """Reads W in a call, in a call inside a scan, a while and a cond; x is (2, 3)."""
    read = jax.jit(lambda c: c + jnp.asarray(W))
    x = read(x)
    x, _ = jax.lax.scan(lambda c, _: (read(c) * 0.5, None), x, None, length=3)
    x = jax.lax.while_loop(lambda c: (c - read(c)).sum() > 0, read, x)
    return jax.lax.cond(x.sum() > 3, lambda c: read(c) * 2, lambda c: c, x)


def test_arrays_are_lifted_out_at_every_depth():
    _, flat, values, _ = trace(with_arrays_at_every_depth, jnp.ones((2, 3)))
    assert len(values) >= 4
    for value in values:
        np.testing.assert_array_equal(value, W)
    for equation in flat.equations:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_jax.is_jaxpr):
            if _jax.is_jaxpr(inner):
                assert flatten(inner)[1] == []
    found = run(flat, [2 * value for value in values], [jnp.ones((2, 3))])
    by_hand = jnp.ones((2, 3)) + 2 * W
    for _ in range(3):
        by_hand = (by_hand + 2 * W) * 0.5
    np.testing.assert_allclose(found[0], (by_hand + 2 * W) * 2, rtol=1e-6)


@pytest.mark.slow
def test_rules_apply_inside_scans_whiles_and_conds():
    def f(x):
        x, rows = jax.lax.scan(lambda c, row: (jnp.sin(c), c * row), x, jnp.arange(2.0))
        x = jax.lax.while_loop(lambda c: c < 10.0, lambda c: jnp.sin(c) + c + 3.0, x)
        return jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), rows

    found, rows = replay(f, 1.0, rules={"sin": lambda equation, inputs: [inputs[0] * 2]})
    assert (float(found), rows.tolist()) == (30.0, [0.0, 2.0])
    plain = replay(f, 0.1, rules={"tan": lambda equation, inputs: [inputs[0] * 2]})
    jax.tree.map(np.testing.assert_array_equal, plain, f(0.1))
    outside = replay(
        lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=2)[0],
        1.0,
        rules={"sin": lambda equation, inputs: [inputs[0] * 2]},
        inside_loops=False,
    )
    assert float(outside) == float(jnp.sin(jnp.sin(1.0)))


@pytest.mark.slow
def test_derivatives_of_replayed_loops_are_those_of_the_loops(rng):
    x = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)

    def f(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c + jnp.asarray(W)), None), x, None, length=3)[0]

    def doubled(x):
        return replay(f, x, rules={"tanh": lambda equation, inputs: [jnp.tanh(inputs[0])]})

    for run_it in (f, doubled):
        got = jax.grad(lambda x: run_it(x).sum())(x)  # noqa: B023
        np.testing.assert_allclose(got, jax.grad(lambda x: f(x).sum())(x), rtol=1e-6)
