"""Axes that a network wraps round, by a padding or a roll: indices count on beyond their ends.

What a patch changes at one end of such an axis lies at both ends of the next array, and is no
interval of it. But on a circle it is: with period n, index j stands for all that differ from it by
multiples of n, of which the array holds at least one. For a padding by one, n = 8:

    array        0 1 2 3 4 5 6 7
    padded     7 0 1 2 3 4 5 6 7 0         index o reads o - 1, modulo 8
    changed    * *               * *       first = 8, last = 11: the array's 7, 8 = 0, 9 and 1, 10

So a roll or such a padding (`turn`) reads at a shift, `Turn`. Behind it the array stays a circle as
long as every output reads its inputs inside the array, at a stride that divides the period, and a
period of outputs is left. Everything else puts the changes back on the line, where those that lie
at both ends are the whole axis; a turn of that begins another circle, of the array's own length.
"""

from collections.abc import Sequence

import numpy as np

from jaxviz.incremental.reach import Reach, Reads, Span, Stencil, Turn, whole_axis


def through(reach: Reach, reads: Reads, dim: int, count: int) -> Reach:
    """Compose a reach with an operation on an axis of `dim`, of `count` outputs."""
    if isinstance(reads, Turn):
        reach = reach if reach.period in (0, dim) else on_line(reach, dim)
        first = (reach.first - reads.shift) % dim  # so that shifts do not add up
        last = first + reach.last - reach.first
        field = reach.field.through(reads, count)
        return Reach(reach.axis, first, last, field, dim).where(reach.seen)
    if not reach.period:
        return reach.through(reads, count)
    if not isinstance(reads, Stencil) or not _stays(reach.period, reads, dim, count):
        return on_line(reach, dim).through(reads, count)
    # o // up * stride - low is at most `last`, and extent - 1 more at least `first`.
    low, up, stride = reads.low, reads.up, reads.stride
    first = -((reads.extent - 1 - low - reach.first) // stride) * up
    last = (reach.last + low) // stride * up + up - 1
    field, period = reach.field.through(reads, count), reach.period // stride * up
    return Reach(reach.axis, first, last, field, period).where(reach.seen)


def _stays(period: int, reads: Stencil, dim: int, count: int) -> bool:
    """Say whether the result of an operation on a circle is one."""
    first, last = reads.reads(count)
    inside = first[0] >= 0 and last[-1] < dim
    return bool(
        inside and period % reads.stride == 0 and count >= period // reads.stride * reads.up
    )


def together(reaches: Sequence[Reach], periods: set[int], dim: int) -> list[Reach]:
    """Return reaches on an axis of `dim` as they can be joined: on one turn of it, or on the line.

    Args:
        reaches: of the operands that change.
        periods: that the operands have or ask for; 0 of those that go round by none.
        dim: length of the axis.
    """
    if len(periods) > 1:
        return [on_line(reach, dim) for reach in reaches]
    first, *others = reaches
    if not any(reach.period for reach in reaches) or any(x.axis != first.axis for x in others):
        return list(reaches)
    (period,) = periods
    middle, alike = first.first + first.last, [first]
    for other in others:
        apart = np.where(first.seen & other.seen, middle - other.first - other.last, 0) / 2
        shift = np.rint(apart / period).astype(int) * period
        alike.append(other._replace(first=other.first + shift, last=other.last + shift))
    return alike


def on_line(reach: Reach, dim: int) -> Reach:
    """Return the interval of an array of `dim` that holds all that changes on a circle."""
    if not reach.period:
        return reach
    first, last = whole_axis(reach.axis, np.zeros_like(reach.seen), dim)[1:3]
    begin = np.where(reach.seen, reach.first % reach.period, 0)
    size = np.where(reach.seen, reach.last - reach.first + 1, 0)
    for at in range(-dim // reach.period - 1, dim // reach.period + 1):
        low = np.maximum(begin + at * reach.period, 0)
        high = np.minimum(begin + at * reach.period + size, dim) - 1
        first = np.where(low <= high, np.minimum(first, low), first)
        last = np.where(low <= high, np.maximum(last, high), last)
    return Reach(reach.axis, first, last, reach.field)


def meets_once(held: Span | None, ask: Span | None) -> bool:
    """Say whether a window meets a region of the same array in one place, where it can be pasted.

    What is read on the line, or round another circle, may meet a window in several.
    """
    if held is None or ask is None or not (held.period or ask.period):
        return True
    if not ask.period or held.period not in (0, ask.period):
        return False
    first = held.nearest_turn(ask)
    low = np.minimum(first, ask.first)
    high = np.maximum(first + held.size, ask.first + ask.size)
    return bool((high - low <= ask.period).all())
