"""A roll of an axis, or its padding by what lies at its other end: recognised as one operation.

JAX has none: both are slices of one array, joined. Written as one, `turn`, the planner can follow
what a patch changes round the axis, see `circle`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from jaxviz.jaxpr.walk import Equation, Operand


class _Turning(Primitive):
    """It is carried out as other operations when it is bound: no jaxpr ever holds it."""

    def bind(self, *args: Any, **params: Any) -> Any:
        return turned(*args, **params)


turn_p = _Turning("turn")


def turned(x: jax.Array, *, axis: int, shift: int, size: int) -> jax.Array:
    """Return `size` elements of an axis from index `shift` on, counted round it."""
    return taken_round(x, axis, (np.arange(size) + shift) % x.shape[axis])


def padded_round(
    x: jax.Array, axis: int, low: int, high: int, period: int, fill: Any = None
) -> jax.Array:
    """Pad an axis by `low` and `high` with what lies a period farther.

    Where none is, with `fill`; None: anything, such as the last element, so that arithmetic with
    it is as tame as with the array, and derivatives stay finite.
    """
    index, gap = np.arange(-low, x.shape[axis] + high), max(0, period - x.shape[axis])
    if gap:
        padding = [(0, gap if a == axis else 0) for a in range(x.ndim)]
        if fill is None:
            x = jnp.pad(x, padding, mode="edge")
        else:
            x = lax.pad(x, jnp.asarray(fill, x.dtype), [(*ends, 0) for ends in padding])
    outside = (index < 0) | (index >= x.shape[axis])
    return taken_round(x, axis, np.where(outside, index % period, index))


def taken_round(x: jax.Array, axis: int, indices: np.ndarray) -> jax.Array:
    """Take of an axis what lies at indices that mostly follow one another, by slices."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    pieces = [lax.slice_in_dim(x, int(run[0]), int(run[-1]) + 1, axis=axis) for run in runs]
    return lax.concatenate(pieces, axis) if len(pieces) > 1 else pieces[0]


def with_turns(equations: Sequence[Equation], avals: Sequence[Any]) -> tuple[Equation, ...]:
    """Write what joins slices of one array, going round an axis of it, as `turn`."""
    made = {result: equation for equation in equations for result in equation.results}
    return tuple(_turn(equation, made, avals) or equation for equation in equations)


def _turn(equation: Equation, made: dict[int, Equation], avals: Sequence[Any]) -> Equation | None:
    if equation.primitive.name != "concatenate":
        return None
    axis = equation.params["dimension"]
    pieces = [_pieces(x, made, avals, axis) for x in equation.operands]
    for source in pieces[0]:
        if not all(source in piece for piece in pieces):
            continue
        firsts, lengths = zip(*(piece[source] for piece in pieces), strict=True)
        shift, size, dim = firsts[0], sum(lengths), avals[source].shape[axis]
        before = np.cumsum((0, *lengths[:-1]))
        follow = dim > 0 and all((np.asarray(firsts) - shift - before) % dim == 0)
        if follow and size >= dim and (shift, size) != (0, dim):
            shift -= dim if 2 * shift > dim else 0  # the shorter way round
            params = {"axis": axis, "shift": shift, "size": size}
            return Equation(turn_p, params, (source,), equation.results)
    return None


def _pieces(
    operand: Operand, made: dict[int, Equation], avals: Sequence[Any], axis: int
) -> dict[int, tuple[int, int]]:
    """Return the arrays of which an operand is a piece along one axis: its first index, its length.

    Those are the operand itself, and what it was cut from.
    """
    if not isinstance(operand, int):
        return {}
    found = {operand: (0, avals[operand].shape[axis])}
    cut = made.get(operand)
    if cut is None or cut.primitive.name != "slice" or not isinstance(cut.operands[0], int):
        return found
    source, p = cut.operands[0], cut.params
    shape = avals[source].shape
    others = [a for a in range(len(shape)) if a != axis]
    whole = all((p["start_indices"][a], p["limit_indices"][a]) == (0, shape[a]) for a in others)
    if whole and set(p["strides"] or (1,)) == {1}:
        first, last = p["start_indices"][axis], p["limit_indices"][axis]
        found[source] = first, last - first
    return found
