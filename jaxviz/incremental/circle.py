"""Axes that a network wraps round, by a padding or a roll: indices count on beyond their ends.

What a patch changes at one end of such an axis lies at both ends of the next array, and is no
interval of it. But on a circle it is: with period n, index j stands for all that differ from it by
multiples of n, of which the array holds at least one. For a padding by one, n = 8:

    array        0 1 2 3 4 5 6 7
    padded     7 0 1 2 3 4 5 6 7 0         index o reads o - 1, modulo 8
    changed    * *               * *       first = 8, last = 11: the array's 7, 8 = 0, 9 and 1, 10

So a roll or such a padding (`turn`) reads at a shift, `Turn`. Behind it the array stays a circle as
long as every output reads its inputs inside the array, at a stride that divides the period, and a
period of outputs is left. What reads beyond the ends, or has another length, needs a larger circle:
with a gap, whose indices no array holds and where what lies beyond is read. For that convolution,
padded by one zero, and a period of 9 for 8 elements:

    array        0 1 2 3 4 5 6 7 .     the zero before index 0 is that behind index 7
    changed      * *           *       first = 7, last = 10: index 7, the gap, 9 = 0 and 10 = 1

What reads an axis in another order puts the changes back on the line, where those that lie at both
ends are the whole axis.
"""

from collections.abc import Sequence

import numpy as np

from jaxviz.incremental.reach import NOTHING, POINT, Reach, Reads, Span, Stencil, Turn


def through(reach: Reach, reads: Reads, dim: int, count: int, gaps: bool = True) -> Reach:
    """Compose a reach with an operation on an axis of `dim`, of `count` outputs.

    Args:
        reach: of the axis.
        reads: what the outputs read.
        dim: length of the axis.
        count: how many outputs there are.
        gaps: whether the operation can be carried out on a circle that is larger than its arrays.
    """
    if isinstance(reads, Turn):
        reach = reach if reach.period in (0, dim) else anew(reach, dim, dim)
        first = (reach.first - reads.shift) % dim  # so that shifts do not add up
        last = first + reach.last - reach.first
        field = reach.field.through(reads, count)
        return Reach(reach.axis, first, last, field, dim).where(reach.seen)
    if not reach.period:
        return reach.through(reads, count)
    stays = isinstance(reads, Stencil) and _stays(reach.period, reads, dim, count)
    if not isinstance(reads, Stencil) or not (gaps or stays):
        return on_line(reach, dim).through(reads, count)
    if not stays:
        reach = anew(reach, dim, _larger(reach.period, reads, dim, count))
    # o // up * stride - low is at most `last`, and extent - 1 more at least `first`.
    low, up, stride = reads.low, reads.up, reads.stride
    first = -((reads.extent - 1 - low - reach.first) // stride) * up
    last = (reach.last + low) // stride * up + up - 1
    field, period = reach.field.through(reads, count), reach.period // stride * up
    reach = Reach(reach.axis, first, last, field, period).where(reach.seen)
    return anew(reach, count, period) if period > count else reach  # what lies in the gap is none


def _stays(period: int, reads: Stencil, dim: int, count: int) -> bool:
    """Say whether the result of an operation on a circle is one, of its own making."""
    if reads == POINT and count == dim:
        return True
    first, last = reads.reads(count)
    inside = first[0] >= 0 and last[-1] < dim and period <= dim
    return bool(
        inside and period % reads.stride == 0 and count >= period // reads.stride * reads.up
    )


def _larger(period: int, reads: Stencil, dim: int, count: int) -> int:
    """Return the period of inputs with a gap for what is read beyond them, or has no output."""
    first, last = reads.reads(count)
    beyond = max(0, -int(first[0]), int(last[-1]) + 1 - dim)
    least = max(dim + beyond, -(-count // reads.up) * reads.stride, period if period > dim else 0)
    return -(-least // reads.stride) * reads.stride


def together(reaches: Sequence[Reach], periods: set[int], dim: int, alike: bool) -> list[Reach]:
    """Return reaches on an axis of `dim` as they can be joined: on one turn of it, or on the line.

    Args:
        reaches: of the operands that change.
        periods: that the operands have or ask for; 0 of those that go round by none.
        dim: length of the axis.
        alike: whether all of them are read element by element, round whichever circle.
    """
    first, *others = reaches
    if not any(reach.period for reach in reaches) or any(x.axis != first.axis for x in others):
        return [on_line(reach, dim) for reach in reaches]
    period = max(periods)
    if len(periods) > 1:
        if not alike or 0 in periods:
            return [on_line(reach, dim) for reach in reaches]
        # A gap is given up where another operand has none: what wraps round needs none either.
        period = dim if dim in {reach.period for reach in reaches} else max(period, dim)
        first, *others = (anew(reach, dim, period) for reach in reaches)
    middle, turned = first.first + first.last, [first]
    for other in others:
        apart = np.where(first.seen & other.seen, middle - other.first - other.last, 0) / 2
        shift = np.rint(apart / period).astype(int) * period
        turned.append(other._replace(first=other.first + shift, last=other.last + shift))
    return turned


def on_line(reach: Reach, dim: int) -> Reach:
    """Return the interval of an array of `dim` that holds all that changes on a circle."""
    if not reach.period:
        return reach
    low, high = _pieces(reach, dim)
    line = Reach(reach.axis, low.min(0), high.max(0), reach.field)
    return line.where(reach.seen)


def anew(reach: Reach, dim: int, period: int) -> Reach:
    """Return the smallest interval, on a circle of at least `dim`, of all that changes."""
    if not reach.period:
        return reach._replace(period=period)
    # From one piece on, all that follow, and a turn later those before it.
    low, high = _pieces(reach, dim)
    turned = np.where(low <= high, high + period, high)
    ends = [np.concatenate([high[k:], turned[:k]]).max(0) for k in range(len(low))]
    sizes = np.where(low <= high, np.stack(ends) - low, NOTHING)
    best = sizes.argmin(0)[None]
    first, last = (np.take_along_axis(x, best, 0)[0] for x in (low, np.stack(ends)))
    return Reach(reach.axis, first, last, reach.field, period).where(reach.seen)


def _pieces(reach: Reach, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what changes of an array of `dim` on a circle: (turns, starts), firsts and lasts."""
    begin = np.where(reach.seen, reach.first % reach.period, 0)
    size = np.where(reach.seen, reach.last - reach.first + 1, 0)
    turn = np.arange(-dim // reach.period - 1, dim // reach.period + 1)[:, None] * reach.period
    low, high = np.maximum(begin + turn, 0), np.minimum(begin + turn + size, dim) - 1
    return np.where(low <= high, low, NOTHING), np.where(low <= high, high, -NOTHING)


def around(held: Span | None, ask: Span) -> Span:
    """Return what to read on a window's own circle for a span that goes round another one.

    Both agree up to the end of either; from there on indices differ by as much as the periods do,
    and what is read is longer by that. From 7 on, 4 of a circle of 9 (8 and a gap, 16 being 7):

        asked     7 8 0 1
        read    6 7 0 1 2     on a circle of 8: the last 4 up to the end, the first 4 from there on
    """
    if held is None or held.period in (0, ask.period) or not ask.period:
        return ask
    apart = ask.period - held.period
    first, size = ask.first % ask.period - max(0, apart), ask.size + abs(apart)
    return Span(ask.axis, first, size, held.period)


def meets_once(held: Span | None, ask: Span | None, dim: int) -> bool:
    """Say whether a window meets a region of the same array in one place, where it can be pasted.

    What is read on the line, or round a circle of less than `dim`, may meet it in several.
    """
    if held is None or ask is None or not (held.period or ask.period):
        return True
    if not ask.period or (held.period not in (0, ask.period) and ask.period < dim):
        return False
    ask = around(held, ask)
    first = held.nearest_turn(ask)
    low = np.minimum(first, ask.first)
    high = np.maximum(first + held.size, ask.first + ask.size)
    return bool((high - low <= ask.period).all())
