"""What is compiled is found by content, and never out of date."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.jaxpr import compiled as module
from jaxviz.jaxpr.compiled import PROGRAMS, ahead, compiled, program_bytes

X = jnp.arange(4.0)


def test_equal_text_compiles_once(compilations):
    def scaled_by(weights):
        return compiled(lambda x: jnp.sin(x * weights).cumsum(), X)(X)

    weights = [jnp.full(4, value) for value in (1.0, 2.0)]
    wanted = np.sin(np.asarray(X) * 2).cumsum()
    first = scaled_by(weights[0])
    compilations.start()
    before = len(PROGRAMS)
    np.testing.assert_allclose(scaled_by(weights[1]), wanted, rtol=1e-6)
    assert compilations.count == 0 and len(PROGRAMS) == before
    assert not np.allclose(first, wanted)


def test_a_changed_scalar_is_seen():
    scale = 2.0

    def f(x):
        return x * scale

    assert compiled(f, X)(X).tolist() == [0, 2, 4, 6]
    scale = 3.0
    assert compiled(f, X)(X).tolist() == [0, 3, 6, 9]


def test_trees_keys_and_donated_arguments():
    def f(tree, key):
        drawn = jax.random.uniform(key, (4,))
        return {"sum": tree["a"] + tree["b"][0], "drawn": drawn}, tree["b"]

    key = jax.random.key(0)
    tree = {"a": jnp.ones(4), "b": (jnp.full(4, 2.0), 3)}
    run = compiled(f, tree, key, donated=[0])
    found, kept = run(tree, key)
    assert found["sum"].tolist() == [3.0] * 4 and int(kept[1]) == 3
    np.testing.assert_array_equal(found["drawn"], jax.random.uniform(key, (4,)))
    assert tree["a"].is_deleted() or tree["b"][0].is_deleted()


def test_callbacks_are_called_and_not_kept():
    before = len(PROGRAMS)
    for add in (1, 2):

        def f(x, add=add):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(lambda x: np.asarray(x) + np.float32(add), shape, x)

        assert compiled(f, X)(X).tolist() == [add, 1 + add, 2 + add, 3 + add]
    assert len(PROGRAMS) == before


@pytest.mark.slow
def test_precision_is_part_of_the_key():
    before = len(PROGRAMS)
    for precision in ("highest", "default"):
        with jax.default_matmul_precision(precision):
            compiled(lambda x: x @ x, X)
    assert len(PROGRAMS) == before + 2


def test_a_program_tells_its_temporary_and_output_bytes():
    def double(x):
        return jnp.sort(x * 2)

    compiled = jax.jit(double).lower(jnp.ones(1000)).compile()
    assert 4000 <= program_bytes(compiled) <= 12000


@pytest.mark.slow
def test_a_program_that_tells_nothing_counts_nothing():
    assert program_bytes(SimpleNamespace(memory_analysis=lambda: None)) == 0


def test_what_follows_from_the_first_argument_is_made_once():
    weight, x = jnp.linspace(0.0, 1.0, 1 << 15), jnp.ones(1 << 15)
    made = ahead(lambda weight, x: (jnp.exp(weight) * x).sum(), weight, x, often=True)
    assert made.first is not None and "exponential" not in made.program.as_text()
    run = made.arranged(weight)
    np.testing.assert_allclose(run(weight, 2 * x), 2 * np.exp(weight).sum(), rtol=1e-5)
    once = ahead(lambda weight, x: (jnp.exp(weight) * x).sum(), weight, x)
    assert once.first is None and "exponential" in once.program.as_text()


def test_it_is_made_anew_where_the_first_argument_is_another_one(monkeypatch):
    made, both = [], module._both

    def counted(*args):
        program = both(*args)
        begin, call = program.call
        return program._replace(call=(lambda *known: (made.append(1), begin(*known))[1], call))

    monkeypatch.setattr(module, "_both", counted)
    weight, x = jnp.linspace(0.0, 1.0, 1 << 15), jnp.ones(1 << 15)

    def total(weight, x, factor):
        return (jnp.exp(weight) * x).sum() * factor

    run = compiled(total, weight, x, X[2], donated=(2,), often=True)
    for given, factor, times in ((weight, 2.0, 1), (weight, 3.0, 1), (2 * weight, 3.0, 2)):
        found = run(given, x, jnp.asarray(factor))
        np.testing.assert_allclose(found, np.exp(given).sum() * factor, rtol=1e-5)
        assert len(made) == times
