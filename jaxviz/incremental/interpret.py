"""Base and update: the planned program carried out, once on the image, then on windows.

Both are pure and compose with jit, vmap and grad; what `base` returns is a pytree of arrays.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental.plan import Body, Plan, Step
from jaxviz.incremental.reach import FARTHEST
from jaxviz.incremental.turn import padded_round
from jaxviz.incremental.window import Cursor, Read, Saved, read
from jaxviz.jaxpr import cpu
from jaxviz.jaxpr.split import split_arrays
from jaxviz.jaxpr.walk import Operand, value_of


class Base(NamedTuple):
    """The clean image's scores, what updates read of it, and the inputs of the scorer.

    `kernels` are what `prepared` makes of the arrays.
    """

    scores: Any
    saved: tuple[Any, ...]
    arrays: list[Any]
    image: jax.Array
    kernels: tuple[Any, ...]


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
    arrays = [*arrays, *plan.captured]
    scores, saved = run_base(plan.body, arrays, image)
    return Base(plan.tree.unflatten(scores), saved, arrays, image, prepared(plan.body, arrays))


def prepared(body: Body, arrays: list[Any]) -> tuple[Any, ...]:
    """Return what a plan's convolutions, by their forms, make of their kernels: once a run."""
    known: dict[Operand, Any] = dict(zip(body.program.arrays, arrays, strict=True))

    def of(step: Step) -> Any:
        kernel = known.get(step.equation.operands[1]) if step.form is not None else None
        return None if kernel is None or step.form is None else step.form.prepare(kernel)

    return tuple(map(of, body.steps))


def run_base(body: Body, arrays: list[Any], image: jax.Array) -> tuple[list[Any], tuple[Any, ...]]:
    """Run every equation of a plan once: the flat scores, and what updates read."""
    program = body.program
    known = dict(zip(program.arrays, arrays, strict=True)) | {program.image: image}
    for eqn in program.equations:
        args = [value_of(operand, known) for operand in eqn.operands]
        outs = cpu.bind_whole(eqn.primitive, eqn.params, args, platform=body.platform, once=True)
        known.update(zip(eqn.results, outs, strict=True))
    scores = [value_of(x, known) for x in program.outputs]
    return scores, tuple(_save(spec, known) for spec in body.saved)


def update(plan: Plan, base: Base, patch: jax.Array, start: jax.Array) -> Any:
    """Return the scores of the image with a patch pasted at one position.

    Args:
        plan: the plan.
        base: what `base` returned for the same plan.
        patch: (ph, pw, C), of the image's dtype.
        start: (row, column) of the patch's top-left corner, integers, traced or not; the part of
            the patch that lies off the image is cut off. Off the plan's grid, scores are NaN;
            integers are the least of their dtype, unsigned ones the largest, bools False.

    Returns:
        The scores, of the shapes of `base.scores`.

    Raises:
        ValueError: the patch is not as planned, or `start` is not two numbers.
        TypeError: `patch` is no array, or `start` no whole numbers.
    """
    return update_by(run_update, plan, base, patch, start)


def update_by(
    run: Callable[..., list[Any]], plan: Plan, base: Base, patch: jax.Array, start: jax.Array
) -> Any:
    """Return the scores, by `run_update` itself or by a compiled form of it."""
    patch, start = _as_array(patch, "patch"), checked_start(start)
    if patch.shape != plan.body.patch or patch.dtype != base.image.dtype:
        raise ValueError(
            f"`patch` must be {plan.body.patch} of {base.image.dtype}, as planned: "
            f"got {patch.shape} of {patch.dtype}."
        )
    if plan.written is None:
        scores = run(plan.body, base.arrays, base.kernels, base.saved, patch, start)
    else:
        inputs = (base.arrays, base.kernels, base.saved, base.image, patch, start)
        scores = _run_with_rules((run, plan.body, plan.written), *inputs)
    return plan.tree.unflatten(scores)


def _as_array(value: Any, name: str) -> jax.Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        message = f"`{name}` must be an array: got a {type(value).__name__}."
        raise TypeError(message) from error


def checked_start(start: Any) -> jax.Array:
    """Return a start as int32 (2,); what lies farther off than any image, as far off as may be."""
    traced = any(isinstance(x, jax.Array) for x in jax.tree.leaves(start))
    try:
        values: Any = jnp.asarray(start) if traced else np.asarray(start)
    except (TypeError, ValueError):  # words, or lists of unequal lengths
        values = np.asarray(None)
    if values.dtype.kind not in "iu":
        raise TypeError(f"`start` must be two whole numbers, (row, column): got {start!r}.")
    if values.shape != (2,):
        raise ValueError(
            f"`start` must be two whole numbers, (row, column): got {start!r} of shape"
            f" {values.shape}."
        )
    if not traced:
        return jnp.asarray([max(-FARTHEST, min(int(x), FARTHEST)) for x in values], jnp.int32)
    if jnp.iinfo(values.dtype).max > FARTHEST:
        values = jnp.minimum(values, jnp.asarray(FARTHEST, values.dtype))
        if jnp.issubdtype(values.dtype, jnp.signedinteger):
            values = jnp.maximum(values, jnp.asarray(-FARTHEST, values.dtype))
    return values.astype(jnp.int32)


def run_update(
    body: Body,
    arrays: list[Any],
    kernels: tuple[Any, ...],
    saved: tuple[Any, ...],
    patch: jax.Array,
    start: jax.Array,
) -> list[Any]:
    """Run the equations that the patch reaches, on windows where the plan says so."""
    places = [at.place(start[axis]) for axis, at in enumerate(body.positions)]
    cursor = Cursor(body.rows, places)

    def fetch(plan: Read) -> Any:
        window = known.get(plan.operand) if isinstance(plan.operand, int) else None
        return read(plan, window, saved, cursor)

    known = dict(zip(body.program.arrays, arrays, strict=True))
    known[body.program.image] = read(body.paste, patch, saved, cursor)
    for step, kernel in zip(body.steps, kernels, strict=True):
        if step.difference:
            known[step.equation.results[0]] = _sum_by_difference(step, fetch)
            continue
        args = [fetch(plan) for plan in step.reads]
        if kernel is not None and step.form is not None:
            results = [step.form.apply(args[0], kernel)]
        elif step.run is not None:
            results = step.run.apply(args, [cursor.of(axes) for axes in step.run.places])
        else:
            results = cpu.bind(step.equation.primitive, step.params, args, platform=body.platform)
        known.update(zip(step.equation.results, results, strict=True))
    return [_on_grid(body, start, fetch(plan)) for plan in body.outputs]


def _sum_by_difference(step: Step, fetch: Callable[[Read], Any]) -> jax.Array:
    """Return the clean sum and what the changed region adds to it.

    Where the clean sum is not finite, nothing can be added to it: then it is summed anew. What is
    read for that is read inside, so that it costs nothing otherwise.
    """
    now, before, clean, whole = step.reads
    total = fetch(clean)

    def add(term: jax.Array) -> jax.Array:
        return cpu.bind(step.equation.primitive, step.params, [term], platform="")[0]

    return lax.cond(
        jnp.isfinite(total).all(),
        lambda: total + add(fetch(now) - fetch(before)),
        lambda: add(fetch(whole)),
    )


def _on_grid(body: Body, start: jax.Array, scores: Any) -> Any:
    """Replace the scores of a start that the plan does not know by NaN."""
    known = [at.knows(start[axis]) for axis, at in enumerate(body.positions) if at.step > 1]
    if not known:
        return scores
    return jnp.where(jnp.all(jnp.stack(known)), scores, jnp.full_like(scores, _odd(scores.dtype)))


def _odd(dtype: Any) -> Any:
    """Return what a score of a dtype will hardly be."""
    if jnp.issubdtype(dtype, jnp.integer):
        signed = jnp.issubdtype(dtype, jnp.signedinteger)
        return jnp.iinfo(dtype).min if signed else jnp.iinfo(dtype).max
    return jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else False


# Functions with derivative rules of their own keep them: the update is differentiated as the
# scorer was written, before inlining. Outside of any jit of ours, so that what is compiled by
# content never holds the rules of one of several functions with the same content.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_with_rules(
    how: Any, arrays: Any, kernels: Any, saved: Any, image: Any, patch: Any, start: Any
) -> Any:
    run, body, _ = how
    return run(body, arrays, kernels, saved, patch, start)


@_run_with_rules.defjvp
def _differentiate_as_written(how: Any, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    run, body, written = how
    arrays, kernels, saved, image, patch, start = primals

    def dense(arrays: list[Any], image: jax.Array, patch: jax.Array) -> list[Any]:
        return written(arrays, paste(image, patch, start))

    inputs, directions = (arrays, image, patch), (tangents[0], tangents[3], tangents[4])
    scores = run(body, arrays, kernels, saved, patch, start)
    return scores, jax.jvp(dense, inputs, directions)[1]


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
    padding = list(spec.padding)
    fill = np.zeros((), value.dtype) if spec.fill is None else value_of(spec.fill, known)
    fill = jnp.asarray(fill, value.dtype)
    for axis, period in enumerate(spec.periods):
        if period and any(padding[axis]):
            gap = None if spec.fill is None else fill
            value = padded_round(value, axis, *padding[axis], period, gap)
            padding[axis] = (0, 0)
    if not any(map(any, padding)):
        return value
    return lax.pad(value, fill, [(low, high, 0) for low, high in padding])
