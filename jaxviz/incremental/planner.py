"""Planning: which equations run on windows, what they read, when to give windows up.

On shapes alone. The planner walks the equations once, keeping the reach of every array that the
patch changes; a rule turns the reaches of the operands into those of the result, and the window of
the result into regions of the operands. `make_plan` does so for a few shares of an array above
which windows are given up, and keeps the plan that the cost model finds fastest.
"""

from collections.abc import Callable
from itertools import count
from math import prod
from typing import Any, NamedTuple

import jax

from jaxviz._arguments import pair
from jaxviz.incremental.cost import cost
from jaxviz.incremental.plan import Body, Plan, Step
from jaxviz.incremental.program import Known, Program, trace_scorer
from jaxviz.incremental.reach import FARTHEST, Positions, Reach, Span, join_all
from jaxviz.incremental.rules import ELEMENTWISE, RULES, Access, Resize, Site
from jaxviz.incremental.window import Ask, Read, Saved, Spans, Table, plan_read, read_whole
from jaxviz.jaxpr._jax import platform_of, settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.convolution.forms import Form, choose
from jaxviz.jaxpr.split import as_callable
from jaxviz.jaxpr.walk import Equation, Operand

# A window of 70 % of its array costs about what the array does, since it has to be cut out and
# pasted; where exactly it stops paying depends on what follows, so a few limits are planned.
SHARES = (0.5, 0.7, 0.85, 1.0)

Reaches = tuple[Reach | None, ...]


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
        self.reaches: dict[int, Reaches] = {}

    def shape(self, operand: Operand) -> tuple[int, ...]:
        """Return the shape of an operand."""
        return self.program.aval(operand).shape

    def changes(self, operand: Operand) -> bool:
        """Say whether the patch changes an operand."""
        return isinstance(operand, int) and operand in self.reaches

    def spans(self, reaches: Reaches, shape: tuple[int, ...]) -> Spans:
        """Return the windows of an array with these reaches."""
        pairs = zip(reaches, shape, strict=True)
        return tuple(r and self.positions[r.axis].window(r, dim) for r, dim in pairs)

    def mark(self, array: int, reaches: Reaches) -> None:
        """Record an array as changed; an axis that its window fills counts as a whole axis."""
        # Without its reach an axis is read whole from here on, and nothing is cut from it again.
        spans = zip(reaches, self.spans(reaches, self.shape(array)), self.shape(array), strict=True)
        self.reaches[array] = tuple(r if s and s.size < dim else None for r, s, dim in spans)

    def read(self, operand: Operand, ask: Ask) -> Read:
        """Plan to read a region of an operand."""
        shape, window, uniform = self.shape(operand), None, frozenset()
        if operand in self.program.arrays and not any(ask.spans):
            return read_whole(operand, shape)
        if isinstance(operand, int):
            uniform = self.uniform.get(operand, uniform)
            if operand in self.reaches:
                window = self.spans(self.reaches[operand], shape)
        return plan_read(operand, shape, window, ask, self.table, self.slots, uniform)

    def paste(self) -> Read:
        """Plan to read the image's window, with the patch, which may overhang, pasted over it."""
        image, shape = self.program.image, self.shape(self.program.image)
        # Along one axis of 8 pixels, for a patch of 3 that starts at -1 and windows of 3:
        #     patch     p p p          starts at -1: one pixel lies off the image
        #     image       . . . . . . . .
        #     window      w w w        starts at 0: moved inside, the third pixel stays the image's
        held = [Span(axis, at.starts, at.patch) for axis, at in enumerate(self.positions)]
        ask = Ask(self.spans(self.reaches[image], shape))
        return plan_read(image, shape, (*held, None), ask, self.table, self.slots)

    def step(self, eqn: Equation) -> Step | None:
        """Plan one equation; None if the patch does not reach it."""
        if not any(map(self.changes, eqn.operands)):
            self.uniform[eqn.results[0]] = self.uniform_axes(eqn)
            return None
        site = self.site(eqn)
        # Forwards: reaches of the operands give that of the result. Backwards: the window of the
        # result gives the regions to read of the operands, larger by a stencil's rim.
        access, reaches, reason = self.decide(eqn, site)
        for array in eqn.results:
            self.mark(array, reaches if access else (None,) * len(self.shape(array)))
        window = self.spans(self.reaches[eqn.results[0]], site.result)
        reads = tuple(map(self.read, eqn.operands, _asks(site, access, window)))
        sizes = {axis: span.size for axis, span in enumerate(window) if span is not None}
        resize = Resize(sizes, tuple(read.shape for read in reads))
        name, params = eqn.primitive.name, eqn.params
        if sizes:
            params = RULES[name].adapt(site, resize)
        cut = resize.shape(site.result)
        moved = sum(read.moved for read in reads)
        dense = cost(name, eqn.params, site.shapes, site.result)
        windowed = cost(name, params, resize.shapes, cut, moved=moved)
        form = self.form(eqn, params, reads)
        return Step(eqn, params, reads, cut, site.result, reason, dense, windowed, form)

    def form(self, eqn: Equation, params: Any, reads: tuple[Read, ...]) -> Form | None:
        """Choose how a convolution of these regions is carried out; None: as it stands."""
        if self.platform != "cpu" or eqn.primitive.name != "conv_general_dilated":
            return None
        dtypes = (self.program.aval(operand).dtype for operand in eqn.operands)
        pairs = zip(reads, dtypes, strict=True)
        return choose(params, *(jax.ShapeDtypeStruct(read.shape, dtype) for read, dtype in pairs))

    def site(self, eqn: Equation) -> Site:
        """Collect what rules see of an equation; values only where there is a window to keep."""
        shapes = tuple(map(self.shape, eqn.operands))
        aval = self.program.aval(eqn.results[0])
        windowed = any(any(self.reaches.get(x, ())) for x in eqn.operands if isinstance(x, int))
        value = self.known.value if windowed else lambda operand: None
        return Site(eqn.params, eqn.operands, shapes, aval.shape, aval.dtype, value)

    def decide(self, eqn: Equation, site: Site) -> tuple[Access | None, Reaches, str]:
        """Choose between window and dense: the reaches of the result and, if dense, the reason."""
        whole: Reaches = (None,) * len(site.result)
        if 0 in site.result:
            return None, whole, "empty"
        rule = RULES.get(eqn.primitive.name)
        if rule is None:
            return None, whole, "no rule"
        access = rule.access(site)
        if access is None:
            return None, whole, "parameters without a rule"
        reaches = tuple(self.result_reach(eqn, access, a) for a in range(len(site.result)))
        spans = self.spans(reaches, site.result)
        # The share of the array that its window holds: Π size / dim over the windowed axes.
        pairs = zip(spans, site.result, strict=True)
        share = prod(span.size / dim for span, dim in pairs if span is not None)
        if share == 1:
            return None, whole, self.why_whole(eqn)
        if share > self.dense_above:
            return None, whole, f"window of {share:.0%}"
        return access, reaches, ""

    def why_whole(self, eqn: Equation) -> str:
        """Say why no window is left: an operand has none, or the equation reads across it."""
        changed = [self.reaches[x] for x in eqn.operands if isinstance(x, int) and self.changes(x)]
        behind = any(not any(reaches) for reaches in changed)
        return "behind a dense one" if behind else "reads the windows' axes whole"

    def result_reach(self, eqn: Equation, access: Access, axis: int) -> Reach | None:
        """Join what every changed operand does to one axis of the result."""
        found = []
        for operand, follows in zip(eqn.operands, access.follows, strict=True):
            if isinstance(operand, int) and operand in self.reaches:
                pairs = zip(self.reaches[operand], follows, strict=True)
                hits = [r and r.through(f.stencil) for r, f in pairs if f and f.axis == axis]
                found.append(hits[0] if hits else None)
        reach = join_all(found)
        return reach if reach is None or self.field is None else reach.limit(self.field)

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


def _asks(site: Site, access: Access | None, window: Spans) -> list[Ask]:
    """Translate the window of a result into the regions that it reads of the operands."""
    if access is None:
        return [Ask((None,) * len(shape)) for shape in site.shapes]
    asks = []
    for follows in access.follows:
        spans: list[Span | None] = []
        for follow in follows:
            span = window[follow.axis] if follow is not None else None
            spans.append(span.inputs(follow.stencil) if span is not None and follow else None)
        asks.append(Ask(tuple(spans), access.fill))
    return asks


class Freedom(NamedTuple):
    """What a plan depends on besides the function and the shapes; see `make_plan`."""

    patch_shape: tuple[int, int]
    step: tuple[int, int]
    offset: tuple[int, int]
    dense_above: float | None
    field: int | None


_BODIES = Cache[Body](1 << 28, lambda body: body.bytes)
_unknown = count()


def make_plan(
    f: Callable,
    image: Any,
    patch_shape: int | tuple[int, int],
    *,
    step: int | tuple[int, int] = (1, 1),
    offset: int | tuple[int, int] = (0, 0),
    dense_above: float | None = None,
    field: int | None = None,
) -> Plan:
    """Plan on shapes alone how `f` is evaluated again after a patch.

    `f` is traced at every call, so that a plan is never out of date; its `body` is the same object
    for the same content, so that what was compiled for it is found again.

    Args:
        f: a scorer, images (1, H, W, C) -> any tree of arrays (1, ...).
        image: an array or `jax.ShapeDtypeStruct` of shape (H, W, C); only shape and dtype matter.
        patch_shape: side or (rows, columns) of the patch, in pixels.
        step: rows and columns between the starts that updates will get; (1, 1) allows every start.
        offset: one such start; the others differ from it by multiples of `step`.
        dense_above: share of an array above which its window is given up, in [0, 1]; None: what
            the cost model finds fastest.
        field: approximate: how many cells of each layer beyond the patch its effect is followed,
            along each axis, both sides together; None: all of them, exact.

    Returns:
        A `Plan`, for `base` and `update`.

    Raises:
        TypeError: `f` cannot be called, `image` is no array, or `patch_shape`, `step` or `offset`
            are no whole numbers.
        ValueError: the image is not (H, W, C), a patch or step is smaller than 1, or `f` does not
            return one row per image.
    """
    check_scorer(f, image)
    patch, step = pair(patch_shape, "patch_shape", least=1), pair(step, "step", least=1)
    scored = trace_scorer(f, image)
    first = pair(offset, "offset", least=-FARTHEST)
    freedom = Freedom(patch, step, first, dense_above, field)
    platform = platform_of(f, scored.captured, image)
    try:
        key = content(scored.flat)
    except UnknownContentError:  # a callback: it may be another one each time
        key = next(_unknown)

    def make() -> Body:
        return _choose(scored.program, image.shape, freedom, platform)

    body = _BODIES.get((key, freedom, settings(), platform), make)
    return Plan(scored.captured, body, scored.tree, scored.written)


def _choose(program: Program, shape: tuple[int, ...], freedom: Freedom, platform: str) -> Body:
    """Plan for several shares, keep what is fastest by the cost model."""
    (rows, columns), step, offset = freedom.patch_shape, freedom.step, freedom.offset
    positions = (
        Positions.on_grid(shape[0], rows, step[0], offset[0]),
        Positions.on_grid(shape[1], columns, step[1], offset[1]),
    )
    shares = SHARES if freedom.dense_above is None else (freedom.dense_above,)
    known = Known(program, {*RULES, "iota"})
    planners = [
        Planner(program, known, positions, share, freedom.field, platform) for share in shares
    ]
    bodies = [_plan(planner) for planner in planners]
    return min(bodies, key=lambda body: sum(step.windowed.seconds for step in body.steps))


def _plan(planner: Planner) -> Body:
    program, positions = planner.program, planner.positions
    planner.mark(program.image, (Reach(0), Reach(1), None))
    paste = planner.paste()
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


def check_scorer(f: Any, image: Any) -> None:
    """Raise unless a scorer can be called, and an image is (H, W, C)."""
    if not callable(as_callable(f)):
        raise TypeError(f"`f` must be callable, images to scores: got {type(f).__name__}.")
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        raise TypeError(
            "`image` must be an array (height, width, channel), or its jax.ShapeDtypeStruct: got a"
            f" {type(image).__name__}."
        )
    if len(image.shape) != 3:
        raise ValueError(f"`image` must be (height, width, channel): got shape {image.shape}.")
