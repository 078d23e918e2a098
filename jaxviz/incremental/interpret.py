"""Plan, base, update: a program of equations carried out on windows.

`make_plan` decides on shapes alone, `base` runs the program once on the unmodified image, `update`
runs the planned steps on the windows of one patch. All three are pure and compose with jit, vmap
and grad; a plan is a pytree whose only arrays are those that closures of the scorer captured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental import lower
from jaxviz.incremental.cost import flops
from jaxviz.incremental.program import (
    Equation,
    Operand,
    Program,
    evaluate,
    evaluate_as_written,
    split_arrays,
    trace,
    value_of,
)
from jaxviz.incremental.reach import Positions, Reach, Span, join_all
from jaxviz.incremental.rules import ELEMENTWISE, RULES, Access, Resize, Site
from jaxviz.incremental.window import Ask, Cursor, Read, Saved, Spans, Table, plan_read, read

Reaches = tuple[Reach | None, ...]


class Step(NamedTuple):
    """One equation that the patch reaches: how to read its operands, and with which parameters."""

    equation: Equation
    params: dict[str, Any]
    reads: tuple[Read, ...]
    window: tuple[int, ...]
    result: tuple[int, ...]
    reason: str
    flops_dense: int
    flops_window: int


@dataclass(frozen=True, eq=False)
class Body:
    """The static part of a plan."""

    program: Program
    steps: tuple[Step, ...]
    paste: Read
    outputs: tuple[Read, ...]
    saved: tuple[Saved, ...]
    rows: tuple[np.ndarray, np.ndarray]
    positions: tuple[Positions, Positions]
    tree: Any
    patch: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """How to evaluate a scorer again after a patch: static, but for the arrays it captured."""

    captured: list[Any]
    body: Body

    @property
    def flops_dense(self) -> int:
        """Floating-point operations of a dense evaluation of all that the patch reaches."""
        return sum(step.flops_dense for step in self.body.steps)

    @property
    def flops_window(self) -> int:
        """Floating-point operations of one update."""
        return sum(step.flops_window for step in self.body.steps)

    @property
    def speedup(self) -> float:
        """How many times fewer floating-point operations an update takes; 1 if all is dense."""
        return self.flops_dense / max(1, self.flops_window) if self.flops_dense else 1.0

    def __repr__(self) -> str:
        """Say how much is windowed and what it saves."""
        rows, columns, _ = self.body.patch
        step = "x".join(str(at.step) for at in self.body.positions)
        windowed = sum(step.reason == "" for step in self.body.steps)
        return (
            f"Plan(patch {rows}x{columns}, step {step}: {windowed} of {len(self.body.steps)} "
            f"equations on windows; {self.flops_dense / 1e9:.3g} GFLOP dense, "
            f"{self.flops_window / 1e9:.3g} GFLOP an update: speed-up {self.speedup:.2f})"
        )


jax.tree_util.register_dataclass(Plan, data_fields=["captured"], meta_fields=["body"])


class Base(NamedTuple):
    """The clean image's scores, the arrays that updates read, and the scorer's own inputs."""

    scores: Any
    saved: tuple[Any, ...]
    arrays: list[Any]
    image: jax.Array


class Planner:
    """Walks the equations, keeping for every changed array its reaches."""

    def __init__(
        self, program: Program, positions: tuple[Positions, Positions], dense_above: float
    ) -> None:
        self.program, self.positions, self.dense_above = program, positions, dense_above
        self.table = Table()
        self.slots: dict[Saved, int] = {}
        self.uniform: dict[int, frozenset[int]] = {}
        self.reaches: dict[int, Reaches] = {}

    def shape(self, operand: Operand) -> tuple[int, ...]:
        return self.program.aval(operand).shape

    def changes(self, operand: Operand) -> bool:
        return isinstance(operand, int) and operand in self.reaches

    def spans(self, reaches: Reaches, shape: tuple[int, ...]) -> Spans:
        """Return the windows of an array with these reaches."""
        pairs = zip(reaches, shape, strict=True)
        return tuple(r and self.positions[r.axis].window(r, dim) for r, dim in pairs)

    def mark(self, array: int, reaches: Reaches) -> None:
        """Record an array as changed; an axis that its window fills counts as a whole axis."""
        spans = zip(reaches, self.spans(reaches, self.shape(array)), self.shape(array), strict=True)
        self.reaches[array] = tuple(r if s and s.size < dim else None for r, s, dim in spans)

    def read(self, operand: Operand, ask: Ask) -> Read:
        """Plan to read a region of an operand."""
        shape, window, uniform = self.shape(operand), None, frozenset()
        if isinstance(operand, int):
            uniform = self.uniform.get(operand, uniform)
            if operand in self.reaches:
                window = self.spans(self.reaches[operand], shape)
        return plan_read(operand, shape, window, ask, self.table, self.slots, uniform)

    def paste(self) -> Read:
        """Plan to read the image's window, with the patch, which may overhang, pasted over it."""
        image, held = (
            self.program.image,
            [Span(a, at.starts, at.patch) for a, at in enumerate(self.positions)],
        )
        shape = self.shape(image)
        ask = Ask(self.spans(self.reaches[image], shape))
        return plan_read(image, shape, (*held, None), ask, self.table, self.slots)

    def step(self, eqn: Equation) -> Step | None:
        """Plan one equation; None if the patch does not reach it."""
        if not any(map(self.changes, eqn.operands)):
            self.uniform[eqn.results[0]] = self.uniform_axes(eqn)
            return None
        site, result = self.site(eqn), self.shape(eqn.results[0])
        access, reaches, reason = self.decide(eqn, site)
        for array in eqn.results:
            self.mark(array, reaches if access else (None,) * len(self.shape(array)))
        window = self.spans(self.reaches[eqn.results[0]], result)
        sizes = {a: span.size for a, span in enumerate(window) if span is not None}
        reads = tuple(map(self.read, eqn.operands, _asks(site, access, window)))
        shapes = tuple(read.shape for read in reads)
        resize = Resize(sizes, shapes)
        params = RULES[eqn.primitive.name].adapt(site, resize) if sizes else eqn.params
        name, cut = eqn.primitive.name, resize.shape(result)
        dense, windowed = (
            flops(name, eqn.params, site.shapes, result),
            flops(name, eqn.params, shapes, cut),
        )
        return Step(eqn, params, reads, cut, result, reason, dense, windowed)

    def site(self, eqn: Equation) -> Site:
        """Collect what rules see of an equation."""
        shapes = tuple(map(self.shape, eqn.operands))
        aval = self.program.aval(eqn.results[0])
        return Site(eqn.params, eqn.operands, shapes, aval.shape, aval.dtype)

    def decide(self, eqn: Equation, site: Site) -> tuple[Access | None, Reaches, str]:
        """Choose between window and dense: the reaches of the result and, if dense, the reason."""
        whole: Reaches = (None,) * len(site.result)
        rule = RULES.get(eqn.primitive.name)
        if rule is None:
            return None, whole, "no rule"
        access = rule.access(site)
        if access is None:
            return None, whole, "parameters without a rule"
        reaches = tuple(self.result_reach(eqn, access, a) for a in range(len(site.result)))
        spans = self.spans(reaches, site.result)
        share = prod(
            span.size / dim
            for span, dim in zip(spans, site.result, strict=True)
            if span is not None
        )
        if share == 1:
            known = [self.reaches[x] for x in eqn.operands if self.changes(x)]
            follows_dense = any(not any(reaches) for reaches in known)
            return (
                None,
                whole,
                "behind a dense one" if follows_dense else "reads the windows' axes whole",
            )
        if share > self.dense_above:
            return None, whole, f"window of {share:.0%}"
        return access, reaches, ""

    def result_reach(self, eqn: Equation, access: Access, axis: int) -> Reach | None:
        """Join what every changed operand does to one axis of the result."""
        found = []
        for operand, follows in zip(eqn.operands, access.follows, strict=True):
            if isinstance(operand, int) and operand in self.reaches:
                pairs = zip(self.reaches[operand], follows, strict=True)
                hits = [r and r.through(f.stencil) for r, f in pairs if f and f.axis == axis]
                found.append(hits[0] if hits else None)
        return join_all(found)

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


def make_plan(
    f: Callable,
    image: Any,
    patch_shape: tuple[int, int],
    *,
    step: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
    dense_above: float = 0.7,
) -> Plan:
    """Plan on shapes alone how `f` is evaluated again after a patch.

    Args:
        f: a scorer, images (1, H, W, C) -> any tree of arrays (1, ...).
        image: an array or `jax.ShapeDtypeStruct` of shape (H, W, C); only shape and dtype matter.
        patch_shape: (rows, columns) of the patch, in pixels.
        step: rows and columns between the starts that updates will get; (1, 1) allows every start.
        offset: one such start; the others differ from it by multiples of `step`.
        dense_above: share of an array above which its window is not worth it, in (0, 1].

    Returns:
        A `Plan`, for `base` and `update`.

    Raises:
        ValueError: the image is not (H, W, C), or a patch or step is smaller than 1.
    """
    _check(f, image, patch_shape, step)
    program, captured, tree = trace(f, image)
    positions = tuple(
        Positions.on_grid(image.shape[a], patch_shape[a], step[a], offset[a]) for a in (0, 1)
    )
    planner = Planner(program, positions, dense_above)
    planner.mark(program.image, (Reach(0), Reach(1), None))
    paste = planner.paste()
    steps = tuple(filter(None, map(planner.step, program.equations)))
    outputs = tuple(planner.read(x, _whole(planner.shape(x))) for x in program.outputs)
    slots, rows = tuple(planner.slots), planner.table.rows()
    patch = (*patch_shape, image.shape[2])
    return Plan(captured, Body(program, steps, paste, outputs, slots, rows, positions, tree, patch))


def base(plan: Plan, f: Callable, image: jax.Array) -> Base:
    """Evaluate the unmodified image once; keep what updates read.

    Args:
        plan: the plan made for `f` and this shape of image.
        f: the scorer; its arrays may be tracers.
        image: (H, W, C).

    Returns:
        A `Base`; `base.scores` are the scores of `image`, without the batch axis.
    """
    return base_from_arrays(plan, split_arrays(f)[0], image)


def base_from_arrays(plan: Plan, arrays: list[Any], image: jax.Array) -> Base:
    """Evaluate the unmodified image, given the arrays of the scorer."""
    program = plan.body.program
    arrays = [*arrays, *plan.captured]
    known = evaluate(program, arrays, image)
    scores = plan.body.tree.unflatten([value_of(x, known) for x in program.outputs])
    return Base(scores, tuple(_save(spec, known) for spec in plan.body.saved), arrays, image)


def update(plan: Plan, base: Base, patch: jax.Array, start: jax.Array) -> Any:
    """Return the scores of the image with a patch pasted at one position.

    Args:
        plan: the plan.
        base: what `base` returned for the same plan.
        patch: (ph, pw, C), of the image's dtype.
        start: (row, column) of the patch's top-left corner, integers, traced or not; the part of
            the patch that lies off the image is cut off. Off the plan's grid, scores are NaN.

    Returns:
        The scores, of the shapes of `base.scores`.
    """
    patch, start = jnp.asarray(patch), jnp.asarray(start, jnp.int32)
    if patch.shape != plan.body.patch or patch.dtype != base.image.dtype:
        raise ValueError(
            f"`patch` must be {plan.body.patch} of {base.image.dtype}, as planned: "
            f"got {patch.shape} of {patch.dtype}."
        )
    run = _update_dense_derivative if plan.body.program.own_derivative else _update
    return run(plan.body, base, patch, start)


def _update(body: Body, base: Base, patch: jax.Array, start: jax.Array) -> Any:
    places = [at.place(start[axis]) for axis, at in enumerate(body.positions)]
    cursor = Cursor(body.rows, places)

    def fetch(plan: Read) -> Any:
        window = known.get(plan.operand) if isinstance(plan.operand, int) else None
        return read(plan, window, base.saved, cursor)

    known = {body.program.image: read(body.paste, patch, base.saved, cursor)}
    for step in body.steps:
        args = [fetch(plan) for plan in step.reads]
        results = lower.bind(step.equation.primitive, step.params, args)
        known.update(zip(step.equation.results, results, strict=True))
    scores = [_on_grid(body, start, fetch(plan)) for plan in body.outputs]
    return body.tree.unflatten(scores)


def _on_grid(body: Body, start: jax.Array, scores: Any) -> Any:
    """Replace the scores of a start that the plan does not know by NaN."""
    known = [at.knows(start[axis]) for axis, at in enumerate(body.positions) if at.step > 1]
    if not (known and jnp.issubdtype(scores.dtype, jnp.inexact)):
        return scores
    return jnp.where(jnp.all(jnp.stack(known)), scores, jnp.full_like(scores, jnp.nan))


_update_dense_derivative = jax.custom_jvp(_update, nondiff_argnums=(0,))


@_update_dense_derivative.defjvp
def _differentiate_as_written(body: Body, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Functions with derivative rules of their own keep them: differentiate before inlining."""
    base, patch, start = primals

    def dense(arrays: list[Any], image: jax.Array, patch: jax.Array) -> Any:
        pasted = paste(image, patch, start)
        return body.tree.unflatten(evaluate_as_written(body.program, arrays, pasted))

    moved, patch_moved, _ = tangents
    inputs, directions = (base.arrays, base.image, patch), (moved.arrays, moved.image, patch_moved)
    return _update(body, base, patch, start), jax.jvp(dense, inputs, directions)[1]


def paste(image: jax.Array, patch: jax.Array, start: jax.Array) -> jax.Array:
    """Return the image (H, W, C) with the patch pasted at `start`, clipped at the border."""
    rows, columns, _ = patch.shape
    wide = jnp.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    row, column = jnp.maximum(start[0] + rows, 0), jnp.maximum(start[1] + columns, 0)
    wide = lax.dynamic_update_slice(wide, patch, (row, column, jnp.zeros_like(row)))
    return wide[rows : rows + image.shape[0], columns : columns + image.shape[1]]


def _save(spec: Saved, known: dict[int, Any]) -> jax.Array:
    value = known[spec.source]
    for axis in spec.uniform:
        value = lax.slice_in_dim(value, 0, 1, axis=axis)
    if not any(map(any, spec.padding)):
        return value
    fill = np.zeros((), value.dtype) if spec.fill is None else value_of(spec.fill, known)
    return lax.pad(value, fill, [(low, high, 0) for low, high in spec.padding])


def _whole(shape: tuple[int, ...]) -> Ask:
    return Ask((None,) * len(shape))


def _check(f: Any, image: Any, patch_shape: tuple[int, int], step: tuple[int, int]) -> None:
    if not callable(f):
        raise TypeError(f"`f` must be callable, images to scores: got {type(f).__name__}.")
    if len(image.shape) != 3:
        raise ValueError(f"`image` must be (height, width, channel): got shape {image.shape}.")
    for name, pair in (("patch_shape", patch_shape), ("step", step)):
        if len(pair) != 2 or min(pair) < 1:
            raise ValueError(f"`{name}` must be two integers of at least 1: got {pair}.")
