"""Functions compiled by content: traced at every call, compiled once for all of the same equations.

What `jax.jit` finds by the function's identity, `compiled` finds by what the function does: a new
`lambda` of the same text compiles nothing, a closure is never out of date, and nothing that is
kept holds an object of the user's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import BYTES_AN_EQUATION, Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.walk import Flat, run, trace


class _Program(NamedTuple):
    call: Callable[..., list[Any]]
    bytes: int


PROGRAMS = Cache[_Program](1 << 29, lambda program: program.bytes)


def compiled(
    function: Callable[..., Any], *args: Any, donated: Sequence[int] = ()
) -> Callable[..., Any]:
    """Compile a function for arguments like these, or find the program of its content.

    Args:
        function: traceable. Derivative rules of its own are used up: what is returned is to be
            called, not to be differentiated.
        *args: arrays, or their shapes, in any pytree.
        donated: which arguments may be overwritten.

    Returns:
        A function of arguments of the same structure, shapes and dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> double = compiled(lambda x: 2 * x, jnp.ones(2))
        >>> double(jnp.arange(2.0)).tolist()
        [0.0, 2.0]
    """
    _, flat, values, tree = trace(function, *args, open_derivatives=True)
    counts = [len(jax.tree.leaves(arg)) for arg in args]
    first = [sum(counts[:n]) for n in range(len(args))]
    overwritten = tuple(1 + first[n] + i for n in donated for i in range(counts[n]))
    try:
        key = (content(flat), overwritten, settings())
        call = PROGRAMS.get(key, partial(_jit, flat, overwritten)).call
    except UnknownContentError:  # a callback, which may be another one each time
        call = _jit(flat, overwritten).call

    def run_compiled(*args: Any) -> Any:
        return jax.tree.unflatten(tree, call(values, *jax.tree.leaves(args)))

    return run_compiled


class Ahead(NamedTuple):
    """A function compiled for arrays placed as those it was compiled with.

    Attributes:
        call: the function.
        program: what XLA made of it, which tells of its memory.
        captured: how many arrays the function brought with it, those of when it was traced.
    """

    call: Callable[..., Any]
    program: Any
    captured: int


def ahead(function: Callable[..., Any], *args: Any) -> Ahead:
    """Compile a function now, as `compiled` does when it is first called.

    Args:
        function: see `compiled`.
        *args: arrays, in any pytree; shapes do not tell where they will lie.

    Returns:
        The function, of arguments of the same structure, shapes, dtypes and places; and its
        program.
    """
    _, flat, values, tree = trace(function, *args, open_derivatives=True)
    leaves = jax.tree.leaves(args)
    places = tuple(str(getattr(x, "sharding", None)) for x in (*values, *leaves))

    def make() -> _Program:
        call = _jit(flat, ()).call.lower(values, *leaves).compile()  # pyright: ignore
        return _Program(call, BYTES_AN_EQUATION * len(flat.equations))

    try:
        program = PROGRAMS.get((content(flat), "ahead", places, settings()), make).call
    except UnknownContentError:
        program = make().call

    def run_ahead(*args: Any) -> Any:
        return jax.tree.unflatten(tree, program(values, *jax.tree.leaves(args)))

    return Ahead(run_ahead, program, len(values))


def _jit(flat: Flat, overwritten: tuple[int, ...]) -> _Program:
    def call(values: list[Any], *leaves: Any) -> list[Any]:
        return run(flat, values, leaves)

    jitted = jax.jit(call, donate_argnums=overwritten)
    return _Program(jitted, BYTES_AN_EQUATION * len(flat.equations))
