"""Axes that a network wraps round, by a padding or a roll: indices count on beyond their ends.

What a patch changes at one end of such an axis lies at both ends of the next array, and is no
interval of it. But on a circle it is: with period n, index j stands for all that differ from it by
multiples of n, of which the array holds at least one. For a padding by one, n = 8:

    array        0 1 2 3 4 5 6 7
    padded     7 0 1 2 3 4 5 6 7 0         index o reads o - 1, modulo 8
    changed    * *               * *       first = 8, last = 11: the array's 7, 8 = 0, 9 and 1, 10

So a roll or such a padding (`turn`) reads at a shift, `Turn`. Behind it the array stays a circle as
long as every output reads its inputs inside the array, at a stride that
divides the period. Everything else puts the changes back on the line, where those that lie at both
ends are the whole axis.
"""

import numpy as np

from jaxviz.incremental.reach import Reach, Reads, Span, Stencil, Turn, whole_axis


def through(reach: Reach, reads: Reads, dim: int, count: int) -> Reach:
    """Compose a reach with an operation on an axis of `dim`, of `count` outputs."""
    field = reach.field.through(reads, count)
    if isinstance(reads, Turn):
        if reach.period not in (0, dim):
            reach = on_line(reach, dim)
        ends = reach.first - reads.shift, reach.last - reads.shift
        return Reach(reach.axis, *ends, field, dim).where(reach.seen)
    if not reach.period:
        return reach.through(reads, count)
    period = _period(reach, reads, dim, count)
    if not period or not isinstance(reads, Stencil):
        return on_line(reach, dim).through(reads, count)
    # o // up * stride - low is at most `last`, and extent - 1 more at least `first`.
    low, up, stride = reads.low, reads.up, reads.stride
    first = -((reads.extent - 1 - low - reach.first) // stride) * up
    last = (reach.last + low) // stride * up + up - 1
    return Reach(reach.axis, first, last, field, period).where(reach.seen & (first <= last))


def _period(reach: Reach, reads: Reads, dim: int, count: int) -> int:
    """Return the period behind an operation; 0 if the result is no circle."""
    if not isinstance(reads, Stencil) or reach.period % reads.stride:
        return 0
    first, last = reads.reads(count)
    period = reach.period // reads.stride * reads.up
    return period if first[0] >= 0 and last[-1] < dim and count >= period else 0


def on_line(reach: Reach, dim: int) -> Reach:
    """Return the interval of an array of `dim` that holds all that changes on a circle."""
    if not reach.period:
        return reach
    line = whole_axis(reach.axis, np.zeros_like(reach.seen), dim)
    turns = np.arange(-dim // reach.period - 1, dim // reach.period + 2)
    away = np.where(reach.seen, reach.first // reach.period, 0)
    for turn in turns:
        shift = (turn - away) * reach.period
        first, last = np.maximum(reach.first + shift, 0), np.minimum(reach.last + shift, dim - 1)
        line = line.join(Reach(reach.axis, first, last).where(reach.seen & (first <= last)))
        assert line is not None
    return line._replace(field=reach.field)


def once(held: Span | None, ask: Span | None) -> bool:
    """Say whether a window meets a region of the same array in one place, where it can be pasted.

    What is read on the line may meet a window that goes round at both ends.
    """
    if held is None or ask is None or not (held.period or ask.period):
        return True
    if not ask.period:
        return False
    apart = ask.first - held.first + (ask.size - held.size) / 2
    first = held.first + np.rint(apart / ask.period).astype(int) * ask.period
    low = np.minimum(first, ask.first)
    high = np.maximum(first + held.size, ask.first + ask.size)
    return bool((high - low <= ask.period).all())
