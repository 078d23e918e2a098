"""Planning: which equations run on windows, what they read, where windows are given up.

On shapes alone. The planner walks the equations once, keeping for every array how the patch changes
it; a rule turns the reaches of the operands into those of the result, and the window of the result
into regions of the operands.
"""

from collections.abc import Sequence
from functools import partial
from math import lcm, prod
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.incremental import circle
from jaxviz.incremental.cost import cost
from jaxviz.incremental.plan import Body, Run, Step
from jaxviz.incremental.program import Known, Program
from jaxviz.incremental.reach import (
    POINT,
    Positions,
    Reach,
    Reads,
    Span,
    Stencil,
    Turn,
    join_all,
    whole_axis,
)
from jaxviz.incremental.rules import ELEMENTWISE, RULES, Access, Follow, Resize, Site
from jaxviz.incremental.window import Ask, Read, Saved, Spans, Table, plan_read, read_whole
from jaxviz.jaxpr.convolution.forms import ERROR_OF_FOUR_ALONG_BOTH, Form, choose
from jaxviz.jaxpr.walk import Equation, Operand

Reaches = tuple[Reach | None, ...]
Seen = tuple[np.ndarray, np.ndarray]


class Change(NamedTuple):
    """What of an array the patch changes: on each axis, and whether at all.

    Attributes:
        reaches: for each axis, which indices change, or None: any may.
        windows: the spans that are held of it; None: the axis is held whole.
        seen: for both image axes, by start, whether the patch reaches the array.
    """

    reaches: Reaches
    windows: Spans
    seen: Seen


class Planner:
    """Walks the equations, keeping for every changed array its reaches."""

    def __init__(
        self,
        program: Program,
        known: Known,
        positions: tuple[Positions, Positions],
        dense_above: float,
        field: int | None,
        platform: str,
    ) -> None:
        self.program, self.known, self.positions = program, known, positions
        self.dense_above, self.field, self.platform = dense_above, field, platform
        self.table = Table()
        self.slots: dict[Saved, int] = {}
        self.uniform: dict[int, frozenset[int]] = {}
        self.changed: dict[int, Change] = {}

    def shape(self, operand: Operand) -> tuple[int, ...]:
        """Return the shape of an operand."""
        return self.program.aval(operand).shape

    def changes(self, operand: Operand) -> bool:
        """Say whether the patch changes an operand."""
        return isinstance(operand, int) and operand in self.changed

    def changes_of(self, eqn: Equation) -> list[Change]:
        """Return how the operands change that do."""
        found = (self.changed.get(x) for x in eqn.operands if isinstance(x, int))
        return [change for change in found if change is not None]

    def begin(self) -> Read:
        """Record what the patch covers of the image, and plan to read it."""
        rows, columns = (at.reach(axis) for axis, at in enumerate(self.positions))
        shape = self.shape(self.program.image)
        windows = self.windows((rows, columns, None), shape)
        self.changed[self.program.image] = Change(
            (rows, columns, None), windows, (rows.seen, columns.seen)
        )
        return self.paste()

    def windows(self, reaches: Reaches, shape: tuple[int, ...], align: Any = None) -> Spans:
        """Return the windows of an array with these reaches; an axis that one fills is whole."""
        spans = []
        for axis, (reach, dim) in enumerate(zip(reaches, shape, strict=True)):
            span = reach.window(dim, align[axis] if align else 1) if reach is not None else None
            whole = span is None or span.size >= min(dim, span.period or dim)
            spans.append(None if whole else span)
        return tuple(spans)

    def read(self, operand: Operand, ask: Ask) -> Read:
        """Plan to read a region of an operand."""
        shape, window, uniform = self.shape(operand), None, frozenset()
        if operand in self.program.arrays and not any(ask.spans):
            return read_whole(operand, shape)
        if isinstance(operand, int):
            uniform = self.uniform.get(operand, uniform)
            if operand in self.changed:
                window = self.changed[operand].windows
        return plan_read(operand, shape, window, ask, self.table, self.slots, uniform)

    def paste(self) -> Read:
        """Plan to read the image's window, with the patch, which may overhang, pasted over it."""
        image, shape = self.program.image, self.shape(self.program.image)
        # Along one axis of 8 pixels, for a patch of 3 that starts at -1 and windows of 3:
        #     patch     p p p          starts at -1: one pixel lies off the image
        #     image       . . . . . . . .
        #     window      w w w        starts at 0: moved inside, the third pixel stays the image's
        held = [Span(axis, at.starts, at.patch) for axis, at in enumerate(self.positions)]
        ask = Ask(self.changed[image].windows)
        return plan_read(image, shape, (*held, None), ask, self.table, self.slots)

    def step(self, eqn: Equation) -> Step | None:
        """Plan one equation; None if the patch does not reach it."""
        empty = all(0 in self.program.avals[result].shape for result in eqn.results)
        if empty or not any(map(self.changes, eqn.operands)):
            self.uniform[eqn.results[0]] = self.uniform_axes(eqn)
            return None
        site = self.site(eqn)
        # Forwards: reaches of the operands give that of the result. Backwards: the window of the
        # result gives the regions to read of the operands, larger by a stencil's rim.
        access, change, reason = self.decide(eqn, site)
        for array in eqn.results:
            rank = len(self.shape(array))
            whole = Change((None,) * rank, (None,) * rank, change.seen)
            self.changed[array] = whole if len(change.reaches) != rank else change
        sum_reads = self.sum_by_difference(eqn, site) if access is None else None
        if sum_reads is not None:
            return self.sum_step(eqn, site, sum_reads)
        window = change.windows
        asks = _asks(site, access, window)
        reads = tuple(map(self.read, eqn.operands, asks))
        sizes = {axis: span.size for axis, span in enumerate(window) if span is not None}
        resize = Resize(sizes, tuple(read.shape for read in reads))
        name, params, run = eqn.primitive.name, eqn.params, None
        if sizes and access is not None:
            params = RULES[name].adapt(site, resize)
            run = self.run(access, resize, window, asks)
        cut = resize.shape(site.result)
        moved = sum(read.moved for read in reads)
        dense = cost(name, eqn.params, site.shapes, site.result)
        windowed = cost(name, params, resize.shapes, cut, moved=moved)
        form = self.form(eqn, params, reads)
        return Step(eqn, params, reads, cut, site.result, reason, dense, windowed, form, run)

    def run(self, access: Access, resize: Resize, window: Spans, asks: list[Ask]) -> Run | None:
        """Tell an operation that carries itself out where the windows lie; None: by its name."""
        if access.run is None:
            return None
        places = [
            {a: self.table.index(s.axis, s.first) for a, s in enumerate(spans) if s is not None}
            for spans in (window, *(ask.spans for ask in asks))
        ]
        return Run(partial(access.run, resize), tuple(places))

    def sum_by_difference(self, eqn: Equation, site: Site) -> tuple[Read, ...] | None:
        """Plan to sum over whole axes only what the patch changes, as it is and as it was.

        Not for half precision, where the sum of the clean image is rounded too coarsely; nor where
        it hardly saves anything.
        """
        if (
            eqn.primitive.name != "reduce_sum"
            or site.dtype.itemsize < 4
            or site.dtype.kind not in "if"
        ):
            return None
        (operand,), (result,) = eqn.operands, eqn.results
        change, axes = self.changes_of(eqn)[0], eqn.params["axes"]
        spans = tuple(map(_each_once, change.windows, change.reaches, site.shapes[0]))
        pairs = list(zip(spans, site.shapes[0], strict=True))
        if any(span is not None and a not in axes for a, span in enumerate(spans)):
            return None
        if not all(map(circle.meets_once, change.windows, spans, site.shapes[0])):
            return None
        if 2 * prod(span.size if span else dim for span, dim in pairs) > prod(site.shapes[0]):
            return None
        ask, whole = Ask(spans), Ask((None,) * len(spans))
        now = self.read(operand, ask)
        tables = (self.table, self.slots)
        before = plan_read(operand, site.shapes[0], None, ask, *tables)
        clean = plan_read(result, site.result, None, Ask((None,) * len(site.result)), *tables)
        return now, before, clean, self.read(operand, whole)

    def sum_step(self, eqn: Equation, site: Site, reads: tuple[Read, ...]) -> Step:
        """Return the step of a sum by difference."""
        region = reads[0].shape
        moved = sum(read.moved for read in reads[:3])
        dense = cost("reduce_sum", eqn.params, site.shapes, site.result)
        windowed = cost("reduce_sum", eqn.params, (region,), site.result, moved=moved).times(2)
        return Step(
            eqn, eqn.params, reads, site.result, site.result, "", dense, windowed, difference=True
        )

    def form(self, eqn: Equation, params: Any, reads: tuple[Read, ...]) -> Form | None:
        """Choose how a convolution of these regions is carried out; None: as it stands."""
        if self.platform != "cpu" or eqn.primitive.name != "conv_general_dilated":
            return None
        dtypes = (self.program.aval(operand).dtype for operand in eqn.operands)
        pairs = zip(reads, dtypes, strict=True)
        image, kernel = (jax.ShapeDtypeStruct(read.shape, dtype) for read, dtype in pairs)
        # Windows that are cut short are approximate anyway, by far more than larger tiles deviate.
        error = 0.0 if self.field is None else ERROR_OF_FOUR_ALONG_BOTH
        return choose(params, image, kernel, error)

    def site(self, eqn: Equation) -> Site:
        """Collect what rules see of an equation; values only where there is a window to keep."""
        shapes = tuple(map(self.shape, eqn.operands))
        aval = self.program.aval(eqn.results[0])
        windowed = any(any(change.windows) for change in self.changes_of(eqn))
        value = self.known.value if windowed else lambda operand: None
        return Site(eqn.params, eqn.operands, shapes, aval.shape, aval.dtype, value)

    def decide(self, eqn: Equation, site: Site) -> tuple[Access | None, Change, str]:
        """Choose between window and dense: how the result changes and, if dense, the reason."""
        rank, seen = len(site.result), self.seen(eqn)
        whole = Change((None,) * rank, (None,) * rank, seen)
        rule = RULES.get(eqn.primitive.name)
        if rule is None:
            return None, whole, "no rule"
        access = rule.access(site)
        if access is None:
            return None, whole, "parameters without a rule"
        found = [self.result_reach(eqn, site, access, a) for a in range(rank)]
        reaches = tuple(reach for reach, _ in found)
        for reach in filter(None, reaches):
            also = (reach.seen, np.True_)[:: 1 - 2 * reach.axis]
            seen = (seen[0] & also[0], seen[1] & also[1])
        spans = self.windows(reaches, site.result, [align for _, align in found])
        spans = self.pasted_once(eqn, site, access, spans)
        # The share of the array that its window holds: Π size / dim over the windowed axes.
        pairs = zip(spans, site.result, strict=True)
        share = prod(span.size / dim for span, dim in pairs if span is not None)
        dense = Change(reaches, whole.windows, seen)
        if share == 1:
            return None, dense, self.why_whole(eqn)
        if share > self.dense_above:
            return None, dense, f"window of {share:.0%}"
        return access, dense._replace(windows=spans), ""

    def pasted_once(self, eqn: Equation, site: Site, access: Access, window: Spans) -> Spans:
        """Give up the window on axes where what it reads meets an operand's window twice."""
        gone = set()
        asks = _asks(site, access, window)
        for operand, follows, ask in zip(eqn.operands, access.follows, asks, strict=True):
            change = self.changed.get(operand) if isinstance(operand, int) else None
            if change is None:
                continue
            axes = zip(follows, change.windows, ask.spans, self.shape(operand), strict=True)
            for follow, held, span, dim in axes:
                if follow is not None and not circle.meets_once(held, span, dim):
                    gone.add(follow.axis)
        return tuple(None if a in gone else span for a, span in enumerate(window))

    def why_whole(self, eqn: Equation) -> str:
        """Say why no window is left: an operand has none, or the equation reads across it."""
        behind = any(not any(change.windows) for change in self.changes_of(eqn))
        return "behind a dense one" if behind else "reads the windows' axes whole"

    def seen(self, eqn: Equation) -> Seen:
        """Return for which starts any operand changes."""
        rows, columns = zip(*(change.seen for change in self.changes_of(eqn)), strict=True)
        return np.logical_or.reduce(rows), np.logical_or.reduce(columns)

    def result_reach(
        self, eqn: Equation, site: Site, access: Access, axis: int
    ) -> tuple[Reach | None, int]:
        """Join what every changed operand does to one axis of the result; and how it is aligned."""
        count, found, whole, align = site.result[axis], [], [], 1
        periods, alike = set(), True
        for operand, follows, shape in zip(eqn.operands, access.follows, site.shapes, strict=True):
            if not (isinstance(operand, int) and operand in self.changed):
                periods |= self.periods(operand, follows, axis)
                continue
            change = self.changed[operand]
            hits = [
                (reach, follow.reads, dim)
                for reach, follow, dim in zip(change.reaches, follows, shape, strict=True)
                if follow is not None and follow.axis == axis
            ] or [(None, None, count)]
            reach, reads, dim = next((hit for hit in hits if hit[0] is not None), hits[0])
            if reach is None or reads is None:
                whole.append((change.seen, reads, dim))
                if reads is not None:  # it goes round no circle, also where no start is seen
                    periods.add(_length(reads, dim))
                continue
            gaps = access.run is None
            reach, align = circle.through(reach, reads, dim, count, gaps), lcm(align, reads.up)
            periods.add(reach.period or _length(reads, dim))
            alike = alike and _length(reads, dim) > 0
            # What only moves or repeats, such as a flattening, widens nothing, and its elements are
            # no cells of a layer.
            if self.field is not None and reads.several:
                reach = self.positions[reach.axis].limit(reach, self.field + align - 1)
            found.append(reach.where(change.seen[reach.axis]))
        if not found:
            return None, align
        # An operand all of which may change does, for the starts for which it changes at all.
        image_axis = found[0].axis
        for seen, reads, dim in whole:
            reach = whole_axis(image_axis, seen[image_axis], dim)
            if reads is not None:
                reach = circle.through(reach, reads, dim, count)
            found.append(reach)
        return join_all(circle.together(found, periods, count, alike)), align

    def periods(self, operand: Operand, follows: Sequence[Follow | None], axis: int) -> set[int]:
        """Return the period that an unchanged operand asks of an axis; 0: it goes round by none."""
        return {
            _length(follow.reads, dim)
            for a, (follow, dim) in enumerate(zip(follows, self.shape(operand), strict=True))
            if follow is not None and follow.axis == axis and a not in self.repeats(operand)
        }

    def uniform_axes(self, eqn: Equation) -> frozenset[int]:
        """Return the axes along which an unchanged result repeats one slice: broadcast biases."""
        rank = len(self.shape(eqn.results[0]))
        if eqn.primitive.name == "broadcast_in_dim":
            sent = eqn.params["broadcast_dimensions"]
            inner = self.repeats(eqn.operands[0])
            return frozenset(range(rank)) - {to for a, to in enumerate(sent) if a not in inner}
        if eqn.primitive.name in ELEMENTWISE:
            arrays = [x for x in eqn.operands if len(self.shape(x)) == rank]
            return frozenset(range(rank)).intersection(*map(self.repeats, arrays))
        return frozenset()

    def repeats(self, operand: Operand) -> frozenset[int]:
        """Return the axes along which an operand is uniform, those of length 1 included."""
        known = self.uniform.get(operand, frozenset()) if isinstance(operand, int) else frozenset()
        return known | {a for a, dim in enumerate(self.shape(operand)) if dim == 1}


def _each_once(span: Span | None, reach: Reach | None, dim: int) -> Span | None:
    """Return a window in which no element of an axis lies twice, and none that it does not hold."""
    if span is None or reach is None or span.period in (0, dim):
        return span
    return circle.anew(reach, dim, dim).window(dim)


def _length(reads: Reads, dim: int) -> int:
    """Return the length of an axis that is read element by element, and 0 of another."""
    return dim if isinstance(reads, Stencil) and reads == POINT else 0


def _asks(site: Site, access: Access | None, window: Spans) -> list[Ask]:
    """Translate the window of a result into the regions that it reads of the operands."""
    if access is None:
        return [Ask((None,) * len(shape)) for shape in site.shapes]
    asks = []
    for shape, follows in zip(site.shapes, access.follows, strict=True):
        spans: list[Span | None] = []
        for dim, follow in zip(shape, follows, strict=True):
            span = window[follow.axis] if follow is not None else None
            if span is None or follow is None:
                spans.append(None)
                continue
            count = site.result[follow.axis]
            spans.append(span.inputs(follow.reads, dim, count))
        lengths = tuple(site.result[follow.axis] if follow is not None else 0 for follow in follows)
        beyond = map(_reads_beyond, spans, follows, shape, lengths)
        asks.append(Ask(tuple(spans), access.fill, tuple(beyond)))
    return asks


def _reads_beyond(span: Span | None, follow: Follow | None, dim: int, count: int) -> bool:
    """Say whether an operation reads beyond the ends of a circle of `dim`."""
    if span is None or not span.period or follow is None or isinstance(follow.reads, Turn):
        return False
    # What several inputs make must not meet a gap: fast convolutions add up whole tiles of them.
    if follow.reads.several and span.period > dim:
        return True
    first, last = follow.reads.reads(count)
    return bool(first[0] < 0 or last[-1] >= dim)


def plan_by(planner: Planner) -> Body:
    """Walk the equations that the patch may reach; return the plan."""
    program, positions = planner.program, planner.positions
    paste = planner.begin()
    steps = tuple(filter(None, map(planner.step, program.read)))
    outputs = tuple(planner.read(x, Ask((None,) * len(planner.shape(x)))) for x in program.outputs)
    return Body(
        program,
        steps,
        paste,
        outputs,
        tuple(planner.slots),
        planner.table.rows(),
        positions,
        (positions[0].patch, positions[1].patch, planner.shape(program.image)[2]),
        exact=planner.field is None,
        platform=planner.platform,
    )
