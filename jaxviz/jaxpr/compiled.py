"""Functions compiled by content: traced at every call, compiled once for all of the same equations.

What `jax.jit` finds by the function's identity, `compiled` finds by what the function does: a new
`lambda` of the same text compiles nothing, a closure is never out of date, and nothing that is
kept holds an object of the user's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import is_not
from typing import Any, NamedTuple

import jax

from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import BYTES_AN_EQUATION, Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.hoist import split_flat
from jaxviz.jaxpr.walk import Flat, run, trace


class _Program(NamedTuple):
    call: Any
    bytes: int


PROGRAMS = Cache[_Program](1 << 29, lambda program: program.bytes)


def compiled(
    function: Callable[..., Any], *args: Any, donated: Sequence[int] = (), often: bool = False
) -> Callable[..., Any]:
    """Compile a function for arguments like these, or find the program of its content.

    Args:
        function: traceable. Derivative rules of its own are used up: what is returned is to be
            called, not to be differentiated.
        *args: arrays, or their shapes, in any pytree.
        donated: which arguments may be overwritten.
        often: whether it is called so often with the same first argument that what follows from
            this alone, such as transformed kernels, is to be made once.

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
    known = counts[0] if often else 0
    try:
        key = (content(flat), overwritten, known, settings())
        begin, call = PROGRAMS.get(key, partial(_both, flat, overwritten, known)).call
    except UnknownContentError:  # a callback, which may be another one each time
        begin, call = _both(flat, overwritten, known).call
    ready = _Ready(begin, values)

    def run_compiled(*args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        return jax.tree.unflatten(tree, call(values, *leaves, *ready.of(leaves[:known])))

    return run_compiled


class _Ready:
    """What follows from the first argument alone, made again where that is another one."""

    def __init__(self, begin: Any, values: list[Any]):
        self._begin, self._values = begin, values
        self._of: list[Any] = []
        self._made: list[Any] = []

    def of(self, known: list[Any]) -> list[Any]:
        if self._begin is None:
            return []
        if len(self._of) != len(known) or any(map(is_not, self._of, known)):
            self._of, self._made = known, self._begin(self._values, *known)
        return self._made


class Ahead(NamedTuple):
    """A function compiled for arrays placed as those it was compiled with.

    Attributes:
        first: what follows from the first argument alone, None if nothing does.
        program: the rest.
        captured: the arrays that the function brought with it, those of when it was traced.
        tree: of what it returns.
        bytes: what one call adds to its arguments.
    """

    first: Any
    program: Any
    captured: list[Any]
    tree: Any
    bytes: int

    def arranged(self, known: Any) -> Callable[..., Any]:
        """Return the function, to be called with this first argument, for which it is prepared."""
        ready = [] if self.first is None else self.first(self.captured, *jax.tree.leaves(known))

        def call(*args: Any) -> Any:
            outputs = self.program(self.captured, ready, *jax.tree.leaves(args))
            return jax.tree.unflatten(self.tree, outputs)

        return call

    def on(self, captured: list[Any]) -> "Ahead":
        """Return it with other arrays in place of those that it brought."""
        return self._replace(captured=captured)


def ahead(function: Callable[..., Any], *args: Any, often: bool = False) -> Ahead:
    """Compile a function now, as `compiled` does when it is first called.

    Args:
        function: see `compiled`.
        *args: arrays, in any pytree; shapes do not tell where they will lie.
        often: whether it is called so often that what follows from the first argument alone, such
            as transformed kernels, is to be made once.

    Returns:
        The function, of arguments of the same structure, shapes, dtypes and places.
    """
    _, flat, values, tree = trace(function, *args, open_derivatives=True)
    leaves = jax.tree.leaves(args)
    places = tuple(str(getattr(x, "sharding", None)) for x in (*values, *leaves))
    count = len(jax.tree.leaves(args[0]))

    def make() -> _Program:
        first, ready, second = None, [], flat
        if often:
            begin, second = split_flat(flat, count)
            if begin.outputs:
                first = _jit(begin, ()).call.lower(values, *leaves[:count]).compile()
                ready = first(values, *leaves[:count])

        def call(values: list[Any], ready: list[Any], *leaves: Any) -> list[Any]:
            return run(second, values, [*leaves[:count], *ready, *leaves[count:]])

        program = jax.jit(call).lower(values, ready, *leaves).compile()
        return _Program((first, program), BYTES_AN_EQUATION * len(flat.equations))

    try:
        key = (content(flat), "ahead", often, places, settings())
        first, program = PROGRAMS.get(key, make).call
    except UnknownContentError:
        first, program = make().call
    return Ahead(first, program, values, tree, program_bytes(program))


def program_bytes(compiled: Any) -> int:
    """Return the bytes that one call of a compiled program adds to its arguments (0: not told)."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def _both(flat: Flat, overwritten: tuple[int, ...], known: int) -> _Program:
    """Return programs of what follows from the first inputs alone, if anything, and of the rest."""
    if not known:
        program = _jit(flat, overwritten)
        return program._replace(call=(None, program.call))
    begin, rest = split_flat(flat, known)
    # What is ready comes last, so that the numbers of what is overwritten stay.
    inputs, end = rest.inputs, known + len(begin.outputs)
    rest = rest._replace(inputs=(*inputs[:known], *inputs[end:], *inputs[known:end]))
    first = _jit(begin, ()).call if begin.outputs else None
    return _Program((first, _jit(rest, overwritten).call), BYTES_AN_EQUATION * len(flat.equations))


def _jit(flat: Flat, overwritten: tuple[int, ...]) -> _Program:
    def call(values: list[Any], *leaves: Any) -> list[Any]:
        return run(flat, values, leaves)

    jitted = jax.jit(call, donate_argnums=overwritten)
    return _Program(jitted, BYTES_AN_EQUATION * len(flat.equations))
