"""What a rule says, and what it sees: the words in which all rules are written.

A rule says, for every operand and each of its axes, which axis of the result follows it and what
it reads (`Stencil`, `Table` or `Turn`); None marks an axis that any element of the result may read
as a whole. All results of an operation have the same layout. The second entry of a rule adapts the
parameters to a window. An operation that needs more than other parameters, such as where a window
lies, carries itself out by `Access.run`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxviz.incremental.reach import POINT, Reads
from jaxviz.jaxpr.walk import Operand

Params = dict[str, Any]


class Follow(NamedTuple):
    """This axis of an operand is read by axis `axis` of the result, as `reads` says."""

    axis: int
    reads: Reads = POINT


class Resize(NamedTuple):
    """What a window changes: the size of each windowed axis of the result; the operands' shapes."""

    sizes: dict[int, int]
    shapes: tuple[tuple[int, ...], ...]

    def shape(self, full: tuple[int, ...]) -> tuple[int, ...]:
        """Return the result's shape with its windowed axes cut down."""
        return tuple(self.sizes.get(axis, dim) for axis, dim in enumerate(full))


# For every windowed axis, the first index: of the result's window, then of each operand's region.
Places = list[dict[int, Any]]


class Access(NamedTuple):
    """Per operand, per axis: what follows it; and what an operand holds beyond its border.

    `run`, if any, carries the operation out on windows: their sizes, the regions and their places
    to the results.
    """

    follows: tuple[tuple[Follow | None, ...], ...]
    fill: Operand | None = None
    run: Callable[[Resize, list[Any], Places], list[Any]] | None = None


class Site(NamedTuple):
    """An equation as rules see it: parameters, operands and the shapes around it.

    `value` gives an operand that follows from the program alone, such as the weights of a bilinear
    enlargement; None for others.
    """

    params: Params
    operands: tuple[Operand, ...]
    shapes: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    dtype: Any
    value: Callable[[Operand], np.ndarray | None]


class Rule(NamedTuple):
    """How to read, and how to adapt the parameters to a window."""

    access: Callable[[Site], Access | None]
    adapt: Callable[[Site, Resize], Params] = lambda site, resize: site.params


def points(shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[Follow | None, ...]:
    """Let axis follow axis; one of length 1 that is stretched is read as a whole."""
    return tuple(Follow(a) if dim == result[a] else None for a, dim in enumerate(shape))


def without(rank: int, axes: set[int]) -> tuple[Follow | None, ...]:
    """Let the axes that are kept follow in order."""
    kept = iter(range(rank))
    return tuple(None if a in axes else Follow(next(kept)) for a in range(rank))


def named_axes(params: Params, names: tuple[str, ...]) -> set[int]:
    """Return the axes that the first of several parameters names."""
    found = next(params[name] for name in names if name in params)
    return set(found) if np.ndim(found) else {int(found)}
