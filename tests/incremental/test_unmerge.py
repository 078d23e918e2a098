"""Merged axes kept apart: the same numbers, and windows on both of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import check

from jaxviz.incremental import make_plan
from jaxviz.incremental.program import Program, trace_scorer
from jaxviz.incremental.unmerge import unmerged
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import value_of

ROWS, COLUMNS, CHANNELS = 12, 20, 4
TALL, WIDE = 3, 5
COUNT = ROWS // TALL * (COLUMNS // WIDE)
_rng = np.random.default_rng(0)
WEIGHTS = jnp.asarray(_rng.integers(-2, 3, (CHANNELS, 3 * CHANNELS)), jnp.float32)
MASK = jnp.asarray(_rng.integers(-1, 2, (COUNT, TALL * WIDE, TALL * WIDE)), jnp.float32)
BIAS = jnp.asarray(_rng.integers(-1, 2, (2, TALL * WIDE, TALL * WIDE)), jnp.float32)


def windows(x: jax.Array) -> jax.Array:
    x = x.reshape(1, ROWS // TALL, TALL, COLUMNS // WIDE, WIDE, CHANNELS)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, TALL * WIDE, CHANNELS)


def back(x: jax.Array) -> jax.Array:
    x = x.reshape(1, ROWS // TALL, COLUMNS // WIDE, TALL, WIDE, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(1, ROWS, COLUMNS, -1)


def attention(x: jax.Array, mask: Any = None, heads: int = 2) -> jax.Array:
    """Attention of whole numbers, without a softmax."""
    count, tokens, channels = x.shape
    three = (x @ WEIGHTS).reshape(count, tokens, 3, heads, channels // heads)
    query, key, value = jnp.moveaxis(jnp.clip(three, -3, 3), 2, 0)
    weights = jnp.einsum("wqhd,wkhd->whqk", query, key) + BIAS[None]
    if mask is not None:
        weights = weights + mask[:, None]
    weights = jnp.clip(weights - weights.max(-1, keepdims=True), -2, 0)
    return jnp.einsum("whqk,wkhd->wqhd", weights, value).reshape(count, tokens, channels)


def by_slices(x: jax.Array) -> jax.Array:
    """What JAX before 0.12 makes of taking a tuple apart."""
    three = x[None] * jnp.arange(1.0, 4.0)[:, None, None, None]
    first, second = (
        jax.lax.squeeze(jax.lax.slice_in_dim(three, n, n + 1, axis=0), (0,)) for n in (0, 2)
    )
    return jnp.where(first > 0, first, second) + jnp.split(x, 2, axis=-1)[1].sum(-1, keepdims=True)


KEPT = {
    "attention": lambda x: back(attention(windows(x))),
    "masked": lambda x: back(attention(windows(x), MASK)),
    "by slices": lambda x: back(by_slices(windows(x))),
    "turned": lambda x: back(jnp.transpose(windows(x) * 2, (2, 0, 1)).transpose(1, 2, 0)),
    "stretched": lambda x: back(jnp.broadcast_to(windows(x).max(1, keepdims=True), (COUNT, 15, 4))),
    "on the right": lambda x: back(
        jnp.einsum("kc,wtc->kwt", WEIGHTS.T, windows(x)).transpose(1, 2, 0)
    ),
    "two of them": lambda x: back(windows(x) + windows(2 * x)),
    "largest index": lambda x: back(windows(x).argmax(1)[:, None].astype(x.dtype) + windows(x)),
}
MIXED = {
    "sum over all": lambda x: back(windows(x) - windows(x).sum(0, keepdims=True)),
    "one window to all": lambda x: back(windows(x) + windows(x)[:1]),
    "turned round": lambda x: back(windows(x)[::-1]),
    "among each other": lambda x: back(
        jnp.einsum("wtc,vtc->wvt", windows(x), windows(x)).sum(1)[..., None]
    ),
    "contracted": lambda x: jnp.einsum("wtc,wk->ktc", windows(x), MASK[:, :2, 0])[None],
    "in other parts": lambda x: windows(x).reshape(2, COUNT // 2, 15, 4).sum(0)[None],
    "cumulated": lambda x: back(jnp.cumsum(windows(x), 0)),
    "returned": lambda x: windows(x)[None],
    "merged twice": lambda x: windows(x).reshape(-1, CHANNELS)[None] * 2,
}


def program(f: Any) -> Program:
    return trace_scorer(f, jax.ShapeDtypeStruct((ROWS, COLUMNS, CHANNELS), jnp.float32)).program


def evaluate(program: Program, arrays: Any, image: Any) -> list[Any]:
    known = dict(zip((*program.arrays, program.image), (*arrays, image), strict=True))
    for equation in program.equations:
        inputs = [value_of(x, known) for x in equation.operands]
        outputs = _jax.bind(equation.primitive, equation.params, inputs)
        known.update(zip(equation.results, outputs, strict=True))
    return [value_of(x, known) for x in program.outputs]


@pytest.mark.parametrize("name", [*KEPT, *MIXED])
def test_the_program_gives_the_same_numbers(name):
    f = {**KEPT, **MIXED}[name]
    shape = jax.ShapeDtypeStruct((ROWS, COLUMNS, CHANNELS), jnp.float32)
    scored = trace_scorer(f, shape)
    image = _rng.integers(-3, 4, shape.shape).astype(np.float32)
    apart = unmerged(scored.program)
    assert apart is not None
    wanted = evaluate(scored.program, scored.captured, image)
    for a, b in zip(evaluate(apart, scored.captured, image), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_program_that_merges_nothing_stays():
    assert unmerged(program(lambda x: x.reshape(-1, CHANNELS)[None])) is not None
    for f in (jnp.tanh, lambda x: x.reshape(1, -1), lambda x: x.reshape(1, ROWS, -1)):
        assert unmerged(program(f)) is None


@pytest.mark.parametrize("name", KEPT)
def test_windows_are_followed_on_both_axes(name):
    image = jax.ShapeDtypeStruct((ROWS, COLUMNS, CHANNELS), jnp.float32)
    plan = make_plan(KEPT[name], image, (1, 1), step=(TALL, WIDE))
    last = plan.body.steps[-1]
    assert last.window == (TALL, WIDE, last.result[-1])  # of 4 × 4 windows, one


@pytest.mark.slow
@pytest.mark.parametrize("patch, step", [((2, 3), (1, 1)), ((4, 7), (3, 2))])
@pytest.mark.parametrize("name", [*KEPT, *MIXED])
def test_windows_equal_dense(rng, name, patch, step):
    f = {**KEPT, **MIXED}[name]
    check(f, rng, shape=(ROWS, COLUMNS, CHANNELS), patch=patch, step=step)
