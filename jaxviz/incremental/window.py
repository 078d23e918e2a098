"""Base and change: the one read that every operation uses, planned on integers, then carried out.

An array that the patch changes is held as its window alone; what lies around it is the array of
the unmodified image, its base. Reading a region means: cut the region from the padded base, paste
the window over it, trim. A region inside the window needs no base; an array that does not change
has no window. Every index that varies with the position is looked up in one table that the plan
fills, so what an update does is exactly what the plan has checked for every position.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental import circle
from jaxviz.incremental.reach import Span
from jaxviz.incremental.turn import padded_round
from jaxviz.jaxpr.walk import Constant, Operand

Spans = tuple[Span | None, ...]


class Offset(NamedTuple):
    """An index that depends on the position: column `column` in the table of image axis `axis`."""

    axis: int
    column: int


Index = int | Offset


class Table:
    """Columns of indices, one row for every start that the patch may take, for both image axes."""

    def __init__(self) -> None:
        self.columns: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def index(self, axis: int, values: np.ndarray) -> Index:
        """Return the values as an index: a plain integer where they are all equal."""
        if (values == values[0]).all():
            return int(values[0])
        columns = self.columns[axis]
        # Layers of one geometry share a column, so an update looks up few indices.
        for column, known in enumerate(columns):
            if np.array_equal(known, values):
                return Offset(axis, column)
        columns.append(values)
        return Offset(axis, len(columns) - 1)

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both tables, (starts, columns) of int32."""
        first, second = (
            np.stack(columns, 1).astype(np.int32) if columns else np.zeros((1, 0), np.int32)
            for columns in self.columns
        )
        return first, second


class Saved(NamedTuple):
    """What `base` keeps for updates: an array, padded with `fill`, unit where it is uniform.

    An axis with a period, 0 for none, is padded with what lies a period farther.
    """

    source: int
    padding: tuple[tuple[int, int], ...]
    fill: Operand | None
    uniform: tuple[int, ...]
    periods: tuple[int, ...]


class Cut(NamedTuple):
    """One axis of a read: cut `size` from `start`, paste at `pastes`, keep `keep` from `trim`.

    There are several places to paste where a window goes round an axis that is read whole.
    """

    start: Index
    size: int
    pastes: tuple[Index, ...]
    trim: int
    keep: int


class Wrap(NamedTuple):
    """An axis that is held whole, to be padded with what lies a period farther."""

    axis: int
    low: int
    high: int
    period: int


class Seam(NamedTuple):
    """Where a region goes over the end of an axis of `dim` on a circle, from index `first` on.

    From its `period` on, indices differ by `apart` from those of the circle that was read, see
    `circle.around`. In the gap between `dim` and the period lies `fill`, None: anything.
    """

    axis: int
    first: Index
    dim: int
    period: int
    apart: int
    fill: "Read | None"


class Read(NamedTuple):
    """How an operand's region is obtained from its window, from a saved array, or from both."""

    operand: Operand
    slot: int | None
    windowed: bool
    cuts: tuple[Cut, ...]
    wraps: tuple[Wrap, ...] = ()
    seams: tuple[Seam, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the region."""
        longer = {seam.axis: abs(seam.apart) for seam in self.seams}
        return tuple(cut.keep - longer.get(axis, 0) for axis, cut in enumerate(self.cuts))

    @property
    def moved(self) -> int:
        """How many elements are cut from a saved array and pasted over, or padded round."""
        moves = self.windowed or any(cut.start != 0 for cut in self.cuts)
        cut = prod(cut.size for cut in self.cuts) if moves and self.slot is not None else 0
        return cut + prod(self.shape) * (bool(self.wraps) + len(self.seams))


class Ask(NamedTuple):
    """A region wanted of an array: its spans, None for a whole axis, and what lies beyond.

    `beyond` says of each axis whether that is read; without it, of none.
    """

    spans: Spans
    fill: Operand | None = None
    beyond: tuple[bool, ...] = ()


def plan_read(
    operand: Operand,
    shape: tuple[int, ...],
    window: Spans | None,
    ask: Ask,
    table: Table,
    slots: dict[Saved, int],
    uniform: frozenset[int] = frozenset(),
) -> Read:
    """Plan how to read `ask` of an array that has `window` (None: it does not change)."""
    if isinstance(operand, Constant):
        return read_whole(operand, ())
    held: Spans = window if window is not None else (None,) * len(shape)
    seams: tuple[Seam, ...] = ()
    if window is not None:
        seams = tuple(_seams(shape, held, ask, table, slots))
        ask = ask._replace(spans=tuple(map(_on_its_circle, held, ask.spans)))
    triples = zip(shape, held, ask.spans, strict=True)
    axes = [_Axis.of(*triple, window is not None) for triple in triples]
    wraps = tuple(Wrap(a, *axis.wrap, axis.period) for a, axis in enumerate(axes) if any(axis.wrap))
    # What lies wholly inside the window needs no base, so none is saved for it.
    if window is not None and all(axis.inside for axis in axes):
        cuts = tuple(axis.cut_window(table) for axis in axes)
        return Read(operand, None, True, cuts, wraps, seams)
    # Of an array that repeats one slice along an axis, save that slice, unless padding joins it.
    whole = tuple(
        a
        for a in sorted(uniform)
        if axes[a].fits(shape[a]) or (axes[a].period and not any(ask.beyond[a : a + 1]))
    )
    padding = tuple((0, 0) if a in whole else axis.padding(shape[a]) for a, axis in enumerate(axes))
    fill = ask.fill if any(map(any, padding)) else None
    periods = tuple(axis.period if any(pad) else 0 for axis, pad in zip(axes, padding, strict=True))
    slot = slots.setdefault(Saved(operand, padding, fill, whole, periods), len(slots))
    cuts = tuple(
        Cut(0, 1, (0,), 0, axis.size) if a in whole else axis.cut(padding[a][0], table)
        for a, axis in enumerate(axes)
    )
    return Read(operand, slot, window is not None, cuts, wraps, seams)


def _on_its_circle(held: Span | None, span: Span | None) -> Span | None:
    return span if span is None else circle.around(held, span)


def _seams(
    shape: tuple[int, ...], held: Spans, ask: Ask, table: Table, slots: dict[Saved, int]
) -> Iterator[Seam]:
    """Plan what is left to do where a region goes over the end of an axis."""
    for axis, (dim, own, span) in enumerate(zip(shape, held, ask.spans, strict=True)):
        if span is None or not span.period or (own is not None and not own.period):
            continue
        apart = span.period - own.period if own is not None else 0
        # What is saved of the clean image has its border; what is computed in a gap is nothing.
        border = ask.fill if span.period > dim and ask.beyond[axis] else None
        if apart or border is not None:
            known = (table, slots)
            fill = None if border is None else plan_read(border, (), None, Ask(()), *known)
            first = table.index(span.axis, span.first % span.period)
            yield Seam(axis, first, dim, span.period, apart, fill)


def read_whole(operand: Operand, shape: tuple[int, ...]) -> Read:
    """Plan to take an array of the scorer as it is: nothing of it need be saved."""
    return Read(operand, None, False, tuple(Cut(0, dim, (0,), 0, dim) for dim in shape))


class _Axis(NamedTuple):
    """A region [first, first+size) of one axis; the window [held, held+length) to paste in it.

    Over all positions the window sticks out of the region by at most `before` and `behind`. So a
    cut of one static size holds both, wherever the patch is:

        window       |---- length ----|
        region           |---- size ----|
        cut       |before|---- size ----|behind|
                  first - before

    and pasting never runs over its end, where `dynamic_update_slice` would move the window.

    On an axis with a period, indices count on round it. Where such an axis is wanted whole, the
    window is pasted at each of its `turns`, of which those that lie beyond the axis are trimmed.
    Where the array is held whole, `wrap` says how far it is padded for the region to lie in it.
    """

    axis: int
    first: np.ndarray
    size: int
    held: np.ndarray
    length: int
    before: int
    behind: int
    period: int = 0
    turns: int = 0
    wrap: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, dim: int, held: Span | None, ask: Span | None, changes: bool) -> "_Axis":
        """Measure how far the window ever sticks out of the region, on either side."""
        # A table is of one image axis; without spans nothing varies, and either table will do.
        spans = [span for span in (ask, held) if span is not None]
        axis = spans[0].axis if spans else 0
        period = max((span.period for span in spans), default=0)
        first, size = (ask.first, ask.size) if ask is not None else (np.zeros(1, int), dim)
        start, length = (held.first, held.size) if held is not None else (np.zeros(1, int), dim)
        before, behind, turns, wrap = 0, 0, 0, (0, 0)
        if period and held is not None and ask is not None:
            start = held.nearest_turn(ask)
        elif period and held is not None:
            start, turns = start % period, 1 + -(-dim // period)
            before = behind = length
        elif period and changes:
            wrap = max(0, -int(first.min())), max(0, int(first.max()) + size - dim)
            start, length = start - wrap[0], sum(wrap, dim)
        if changes and not turns:
            before = max(0, int((first - start).max()))
            behind = max(0, int((start + length - first - size).max()))
        places = (axis, first, size, start, length, before, behind)
        return cls(*places, period, turns, wrap)

    @property
    def inside(self) -> bool:
        """Whether the region never leaves the window."""
        ends = self.held + self.length - self.first - self.size
        return bool((self.first >= self.held).all() and (ends >= 0).all())

    def fits(self, dim: int) -> bool:
        """Whether the region never leaves the array."""
        return bool((self.first >= 0).all() and (self.first + self.size <= dim).all())

    def padding(self, dim: int) -> tuple[int, int]:
        """Return how far region and window together ever leave the array, on either side."""
        first = self.first - self.before
        last = first + self.before + self.size + self.behind
        return max(0, -int(first.min())), max(0, int(last.max()) - dim)

    def cut_window(self, table: Table) -> Cut:
        start = table.index(self.axis, np.broadcast_to(self.first - self.held, self._shape))
        return Cut(start, self.size, (0,), 0, self.size)

    def cut(self, low: int, table: Table) -> Cut:
        first = np.broadcast_to(self.first - self.before, self._shape)
        # Of the array as it is saved, whose index `low` is the array's index 0.
        start = table.index(self.axis, first + low)
        size = self.before + self.size + self.behind
        # From one turn before the axis; a turn that lies beyond is pasted next to it.
        held = [self.held + turn * self.period for turn in range(-1, self.turns - 1)]
        places = [p.clip(-self.length, self.size) for p in held] if self.turns else [self.held]
        pastes = tuple(table.index(self.axis, place - first) for place in places)
        return Cut(start, size, pastes, self.before, self.size)

    @property
    def _shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.first.shape, self.held.shape)


class Cursor:
    """Looks up, for one position of the patch, the indices that depend on it."""

    def __init__(self, rows: tuple[np.ndarray, np.ndarray], place: Sequence[jax.Array]) -> None:
        self.rows = [jnp.asarray(table)[i] for table, i in zip(rows, place, strict=True)]

    def at(self, indices: Sequence[Index]) -> list[Any]:
        """Return the indices as JAX wants them: all int32."""
        return [
            self.rows[i.axis][i.column] if isinstance(i, Offset) else np.int32(i) for i in indices
        ]

    def of(self, axes: dict[int, Index]) -> dict[int, Any]:
        """Return the indices on several axes."""
        return dict(zip(axes, self.at(list(axes.values())), strict=True))


def read(plan: Read, window: jax.Array | None, saved: Sequence[Any], cursor: Cursor) -> Any:
    """Carry out a read: cut the base, paste the window, trim."""
    if isinstance(plan.operand, Constant):
        return plan.operand.value
    sizes = [cut.size for cut in plan.cuts]
    for wrap in plan.wraps:
        window = padded_round(jnp.asarray(window), *wrap)
    source = window if plan.slot is None else saved[plan.slot]
    starts = [cut.start for cut in plan.cuts]
    region = (
        source
        if _whole(starts, sizes, source)
        else lax.dynamic_slice(source, cursor.at(starts), sizes)
    )
    if plan.slot is not None and plan.windowed:
        for places in product(*(cut.pastes for cut in plan.cuts)):
            region = paste_at(region, window, cursor.at(places))
    region = _trim(region, plan.cuts)
    for seam in plan.seams:
        fill = None if seam.fill is None else read(seam.fill, None, saved, cursor)
        region = _over_the_end(region, seam, cursor.at([seam.first])[0], fill)
    return region


def _over_the_end(region: jax.Array, seam: Seam, first: Any, fill: Any) -> jax.Array:
    """Return a region on the circle that was asked for, of one read on its window's own."""
    axis, apart = seam.axis, seam.apart
    size = region.shape[axis] - abs(apart)
    at = max(0, apart)
    before = lax.slice_in_dim(region, at, at + size, axis=axis)
    index = first + lax.broadcasted_iota(np.int32, before.shape, axis)
    if apart:
        behind = lax.slice_in_dim(region, at - apart, at - apart + size, axis=axis)
        before = lax.select(index < seam.period, before, behind)
    if fill is None:
        return before
    return jnp.where(index % seam.period < seam.dim, before, jnp.asarray(fill, before.dtype))


@jax.custom_jvp
def paste_at(region: jax.Array, window: jax.Array, starts: Sequence[Any]) -> jax.Array:
    """Return the region with a window pasted over it, wholly inside.

    Its derivative is written out, as a gather, because that of `dynamic_update_slice` crashes the
    process on a CPU in some networks: `docs/decisions/gather-in-derivatives.md`.
    """
    return lax.dynamic_update_slice(region, window, starts)


@paste_at.defjvp
def _paste_tangents(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (region, window, starts), (around, inside, _) = primals, tangents
    out = paste_at(region, window, starts)
    if not jnp.issubdtype(region.dtype, jnp.inexact):
        return out, around
    cut = partial(_gather, starts=starts, shape=window.shape)
    covered = paste_at(jnp.zeros(region.shape, bool), jnp.ones(window.shape, bool), starts)
    (spread,) = jax.linear_transpose(cut, around)(inside)
    return out, jnp.where(covered, 0, around) + spread


def _gather(region: jax.Array, starts: Sequence[Any], shape: tuple[int, ...]) -> jax.Array:
    """Cut `shape` from a region, as `dynamic_slice` does, by a gather of one index."""
    axes = tuple(range(region.ndim))
    numbers = lax.GatherDimensionNumbers(axes, (), axes)
    index = jnp.stack([jnp.asarray(start, jnp.int32) for start in starts])
    return lax.gather(region, index, numbers, shape, mode="promise_in_bounds")


def _whole(starts: list[Index], sizes: list[int], source: Any) -> bool:
    return all(start == 0 for start in starts) and tuple(sizes) == source.shape


def _trim(region: jax.Array, cuts: tuple[Cut, ...]) -> jax.Array:
    """Keep the asked part of the cut; stretch the axes along which the array is uniform."""
    # A cut is as long as what is kept or longer, but for the one slice of a uniform axis.
    if any(cut.size > cut.keep for cut in cuts):
        first = [min(cut.trim, cut.size - 1) for cut in cuts]
        last = [min(cut.trim + cut.keep, cut.size) for cut in cuts]
        region = lax.slice(region, first, last)
    shape = tuple(cut.keep for cut in cuts)
    if region.shape != shape:
        region = lax.broadcast_in_dim(region, shape, range(len(shape)))
    return region
