"""Axes that a network merges, kept apart: so that windows are followed on both of them.

Attention within windows lays these along the batch: (1, rows, columns, …) becomes
(rows · columns, …), works on each, and splits the axis again. What a patch changes is then some
rows of some columns, no interval of the merged axis. So the program is written anew: from the
reshape that merges to the one that splits, arrays keep the two axes where the merged one was.

    (1, 8, 8, 7, 7, 32) -> (64, 49, 32)     becomes     -> (8, 8, 49, 32)

An operation that is not known here, or that mixes the merged axis, gets the array merged.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxviz.incremental.program import Program, written_anew
from jaxviz.incremental.rules import ELEMENTWISE, REDUCTIONS
from jaxviz.incremental.rules.access import named_axes
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import Equation, value_of

Sizes = tuple[int, ...]


class Apart(NamedTuple):
    """An array whose merged axis is kept in its parts.

    Attributes:
        array: with the parts, from `axis` on.
        axis: where the merged axis was.
        sizes: of the parts.
    """

    array: jax.Array
    axis: int
    sizes: Sizes

    @property
    def merged(self) -> jax.Array:
        """The array as the program has it."""
        return jnp.reshape(self.array, self.shape)

    @property
    def shape(self) -> Sizes:
        """The shape of the array as the program has it."""
        rest = self.array.shape[self.axis + len(self.sizes) :]
        return (*self.array.shape[: self.axis], prod(self.sizes), *rest)

    def moved(self, axis: int) -> int:
        """Return where one of the merged array's other axes lies."""
        return axis if axis < self.axis else axis + len(self.sizes) - 1

    def spread(self, axes: Sequence[int]) -> Sizes:
        """Return where some of the merged array's axes lie, the merged one as its parts."""
        parts = range(self.axis, self.axis + len(self.sizes))
        lists = (parts if a == self.axis else (self.moved(a),) for a in axes)
        return tuple(a for part in lists for a in part)


Rule = Callable[[Equation, Sequence[Any], Apart], "list[Any] | None"]


def unmerged(program: Program) -> Program | None:
    """Return a program that keeps apart the axes it merges; None if it merges none."""
    if not any(_merges(program, equation) for equation in program.read):
        return None

    def evaluate(*args: Any) -> list[Any]:
        known: dict[int, Any] = dict(zip((*program.arrays, program.image), args, strict=True))
        for equation in program.equations:
            inputs = [value_of(x, known) for x in equation.operands]
            outputs = _apart(program, equation, inputs)
            known.update(zip(equation.results, outputs, strict=True))
        return [_whole(value_of(x, known)) for x in program.outputs]

    return written_anew(program, evaluate)


def _merges(program: Program, equation: Equation) -> Sizes | None:
    """Return the sizes of the axes that a reshape merges into its first one."""
    if equation.primitive.name != "reshape" or equation.params.get("dimensions") is not None:
        return None
    shape, result = (program.aval(x).shape for x in (equation.operands[0], equation.results[0]))
    if not result or 0 in result:
        return None
    count = next((n for n in range(len(shape) + 1) if prod(shape[:n]) == result[0]), 0)
    sizes = tuple(dim for dim in shape[:count] if dim > 1)
    return sizes if len(sizes) > 1 else None


def _apart(program: Program, equation: Equation, inputs: list[Any]) -> list[Any]:
    first = next((x for x in inputs if isinstance(x, Apart)), None)
    if first is None:
        sizes = _merges(program, equation)
        if sizes is not None:
            rest = program.aval(equation.results[0]).shape[1:]
            return [Apart(jnp.reshape(inputs[0], (*sizes, *rest)), 0, sizes)]
    else:
        rule = RULES.get(equation.primitive.name)
        outputs = None if rule is None else rule(equation, inputs, first)
        if outputs is not None:
            return outputs
    return _jax.bind(equation.primitive, equation.params, list(map(_whole, inputs)))


def _whole(value: Any) -> Any:
    return value.merged if isinstance(value, Apart) else value


def _like(value: Any, of: Apart, axis: int) -> Any:
    """Return another operand's array with an axis in the same parts; None if it is in others."""
    if isinstance(value, Apart):
        return value.array if (value.axis, value.sizes) == (axis, of.sizes) else None
    shape = jnp.shape(value)
    if not shape:
        return value
    parts = of.sizes if shape[axis] > 1 else (1,) * len(of.sizes)
    return jnp.reshape(value, (*shape[:axis], *parts, *shape[axis + 1 :]))


def _elementwise(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    arrays = [_like(value, of, of.axis) for value in inputs]
    if any(array is None for array in arrays):
        return None
    (out,) = _jax.bind(equation.primitive, equation.params, arrays)
    return [Apart(out, of.axis, of.sizes)]


def _reduce(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    axes = named_axes(equation.params, ("axes",))
    if of.axis in axes:
        return None
    params = {**equation.params, "axes": tuple(map(of.moved, sorted(axes)))}
    (out,) = _jax.bind(equation.primitive, params, [of.array])
    return [Apart(out, of.axis - sum(a < of.axis for a in axes), of.sizes)]


def _transpose(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any]:
    order = equation.params["permutation"]
    out = jnp.transpose(of.array, of.spread(order))
    return [Apart(out, order.index(of.axis), of.sizes)]


def _broadcast(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    shape, sent = equation.params["shape"], equation.params["broadcast_dimensions"]
    if len(inputs) != 1:
        return None
    to = Apart(of.array, sent[of.axis], of.sizes)
    shape = (*shape[: to.axis], *of.sizes, *shape[to.axis + 1 :])
    out = jax.lax.broadcast_in_dim(of.array, shape, to.spread(sent))
    return [to._replace(array=out)]


def _reshape(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    if equation.params.get("dimensions") is not None:
        return None
    shape, before = equation.params["new_sizes"], prod(of.shape[: of.axis])
    for axis, dim in enumerate(shape):
        if dim == prod(of.sizes) and prod(shape[:axis]) == before:
            out = jnp.reshape(of.array, (*shape[:axis], *of.sizes, *shape[axis + 1 :]))
            return [Apart(out, axis, of.sizes)]
    return [jnp.reshape(of.array, shape)]  # which splits it, in these parts or in others


def _dot_general(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    contracted, batch = equation.params["dimension_numbers"]
    side = next(side for side in (0, 1) if inputs[side] is of)
    if of.axis in contracted[side]:
        return None
    if of.axis in batch[side]:
        place = batch[side].index(of.axis)
        axes = [batch[each][place] for each in (0, 1)]
        arrays = [_like(value, of, axis) for value, axis in zip(inputs, axes, strict=True)]
        if any(array is None for array in arrays):
            return None
        both = [Apart(array, axis, of.sizes) for array, axis in zip(arrays, axes, strict=True)]
    elif isinstance(inputs[1 - side], Apart):
        return None
    else:
        taken = [
            a for a in range(len(of.shape)) if a not in contracted[side] and a not in batch[side]
        ]
        place = len(batch[0]) + taken.index(of.axis)
        if side == 1:
            place += jnp.ndim(inputs[0]) - len(contracted[0]) - len(batch[0])
        both = [value if value is of else Apart(value, jnp.ndim(value), ()) for value in inputs]
    numbers = tuple(
        tuple(each.spread(axes) for each, axes in zip(both, pair, strict=True))
        for pair in (contracted, batch)
    )
    params = {**equation.params, "dimension_numbers": numbers}
    (out,) = _jax.bind(equation.primitive, params, [each.array for each in both])
    return [Apart(out, place, of.sizes)]


def _along(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    """Take parts along another axis, which `unstack` leaves out."""
    axis = equation.params["axis"] % len(of.shape)
    if axis == of.axis:
        return None
    params = {**equation.params, "axis": of.moved(axis)}
    outs = _jax.bind(equation.primitive, params, [of.array])
    gone = equation.primitive.name == "unstack" and axis < of.axis
    return [Apart(out, of.axis - gone, of.sizes) for out in outs]


def _squeeze(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    gone = {a % len(of.shape) for a in equation.params["dimensions"]}
    if of.axis in gone:
        return None
    out = jax.lax.squeeze(of.array, tuple(map(of.moved, sorted(gone))))
    return [Apart(out, of.axis - sum(a < of.axis for a in gone), of.sizes)]


def _slice(equation: Equation, inputs: Sequence[Any], of: Apart) -> list[Any] | None:
    first, last = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(first)
    axis, whole = of.axis, prod(of.sizes)
    if (first[axis], last[axis], strides[axis]) != (0, whole, 1):
        return None
    parts = len(of.sizes)
    starts, ends, steps = (
        (*line[:axis], *middle, *line[axis + 1 :])
        for line, middle in (
            (first, (0,) * parts),
            (last, of.sizes),
            (strides, (1,) * parts),
        )
    )
    return [Apart(jax.lax.slice(of.array, starts, ends, steps), axis, of.sizes)]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot_general,
    "reshape": _reshape,
    "slice": _slice,
    "split": _along,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "unstack": _along,
}
