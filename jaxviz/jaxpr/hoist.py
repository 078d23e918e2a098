"""A function split by what it depends on: what follows from some arguments alone, and the rest.

What a network makes of its weights (a kernel's transform, the scale of a normalisation) need not be
done for each batch. `hoist` finds it in the equations: all that depends on no other argument is
`prepare`, called once for given weights, and `evaluate` reads its results.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax

from jaxviz.jaxpr._jax import mesh_is_set
from jaxviz.jaxpr.content import array_content, content
from jaxviz.jaxpr.walk import Equation, Flat, live, run, trace

# They cost nothing, or less than reading what they make: carried out where the result is read.
MOVES = {"broadcast_in_dim", "expand_dims", "reshape", "squeeze"}
LEAST_ELEMENTS = 1 << 14  # a heuristic: to make fewer is not worth a program of its own


class Hoisted(NamedTuple):
    """function(known, *others) == evaluate(known, prepare(known), *others).

    Attributes:
        prepare: known -> a list of arrays; empty if there is nothing worth preparing.
        evaluate: (known, what was prepared, *others) -> what the function returns.
        prepares: whether `prepare` returns anything.
        key: () -> equal for two functions whose `prepare` does the same.
    """

    prepare: Callable[[Any], list[jax.Array]]
    evaluate: Callable[..., Any]
    prepares: bool
    key: Callable[[], Hashable]


def hoist(
    function: Callable[..., Any], known: Any, *others: Any, least: int = LEAST_ELEMENTS
) -> Hoisted:
    """Split a function for arguments like these; both parts are traceable and differentiable.

    Args:
        function: traceable.
        known: the argument that stays the same from call to call, any pytree of arrays or shapes.
        *others: those that vary.
        least: elements that the prepared part must make, for there to be one.

    Example:
        >>> import jax.numpy as jnp
        >>> f = hoist(lambda weight, x: x * jnp.exp(weight), jnp.zeros(()), jnp.ones(3), least=1)
        >>> ready = f.prepare(jnp.zeros(()))
        >>> f.evaluate(jnp.zeros(()), ready, jnp.arange(3.0)).tolist()
        [0.0, 1.0, 2.0]
    """
    if mesh_is_set():  # equations traced now could not be evaluated under another mesh
        return Hoisted(
            lambda known: [], lambda known, _, *rest: function(known, *rest), False, tuple
        )
    _, flat, values, tree = trace(function, known, *others)
    first, second = split_flat(flat, len(jax.tree.leaves(known)), least=least)

    def prepare(known: Any) -> list[jax.Array]:
        return run(first, values, jax.tree.leaves(known))

    def evaluate(known: Any, prepared: Sequence[jax.Array], *others: Any) -> Any:
        leaves = [*jax.tree.leaves(known), *prepared, *jax.tree.leaves(others)]
        return jax.tree.unflatten(tree, run(second, values, leaves))

    def key() -> Hashable:
        return (content(first), *map(array_content, values))

    return Hoisted(prepare, evaluate, bool(first.outputs), key)


def split_flat(flat: Flat, count: int, *, least: int = LEAST_ELEMENTS) -> tuple[Flat, Flat]:
    """Split a flat function whose first `count` inputs are known.

    Returns:
        What makes arrays of the known inputs, with no outputs if there is too little to make; and
        what takes the known inputs, these arrays and the other inputs.
    """
    first, second = _split(flat, count)
    made = (flat.avals[number] for e in first.equations for number in e.results)
    if sum(prod(getattr(aval, "shape", ())) for aval in made) < least:
        return _unsplit(flat, count)
    return first, second


def _split(flat: Flat, count: int) -> tuple[Flat, Flat]:
    known = flat.inputs[:count]
    rests, ahead = _dependence(flat, known)
    makers = {number: equation for equation in ahead for number in equation.results}
    wanted = [x for equation in rests for x in equation.operands]
    moves, ready = _behind_moves([*wanted, *flat.outputs], makers)
    kept = {id(equation) for equation in (*rests, *moves)}
    first = flat._replace(equations=live(ahead, ready), inputs=known, outputs=ready)
    second = flat._replace(
        equations=tuple(e for e in flat.equations if id(e) in kept),
        inputs=(*known, *ready, *flat.inputs[count:]),
    )
    return first, second


def _unsplit(flat: Flat, count: int) -> tuple[Flat, Flat]:
    return flat._replace(equations=(), inputs=flat.inputs[:count], outputs=()), flat


def _dependence(flat: Flat, known: Iterable[int]) -> tuple[list[Equation], list[Equation]]:
    """Return the equations to be evaluated each time, and those that follow from the known."""
    from_known, varies = {*known, *flat.constants}, set(flat.inputs) - set(known)
    rests, ahead = [], []
    for equation in flat.equations:
        read = {x for x in equation.operands if isinstance(x, int)}
        if read & varies or not read & from_known or not equation.results:
            rests.append(equation)
            varies.update(equation.results)
        else:
            ahead.append(equation)
            from_known.update(equation.results)
    return rests, ahead


def _behind_moves(
    wanted: Sequence[Any], makers: dict[int, Equation]
) -> tuple[list[Equation], tuple[int, ...]]:
    """Return the moves that lead to what is wanted, and what they start from."""
    moves: list[Equation] = []
    ready: dict[int, None] = {}
    left = [x for x in wanted if isinstance(x, int)]
    seen: set[int] = set()
    while left:
        number = left.pop()
        if number in seen or number not in makers:
            continue
        seen.add(number)
        maker = makers[number]
        if maker.primitive.name in MOVES:
            moves.append(maker)
            left.extend(x for x in maker.operands if isinstance(x, int))
        else:
            ready[number] = None
    return moves, tuple(ready)
