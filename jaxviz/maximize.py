"""Images that maximise an objective: activation maximisation and feature visualisation.

`maximize` runs gradient ascent on a batch, one image for each objective and seed. Images are
(batch, height, width, channel) in the units of `value_range`, float32. The step is compiled once.
On accelerators the steps run in one compiled loop; on a CPU they are driven from here, because XLA
runs the body of a loop on one core there.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxviz import ascent
from jaxviz import transforms as tf
from jaxviz.activations import as_scorer
from jaxviz.gradients import relu_rules
from jaxviz.objectives import Objective, check
from jaxviz.parametrize import Parametrization, pixels
from jaxviz.progress import Advance, Progress, track
from jaxviz.regularize import Penalty, Tidy, penalty, total_variation
from jaxviz.replay import dependent
from jaxviz.scorer import split

REDIRECTED_STEPS = 16
_LOOK_EVERY = 25
_SCAN_STEPS = 64
_FAULT = "not finite:"


class Maximized(NamedTuple):
    """What `maximize` found; N = objectives × seeds, the seeds of an objective side by side.

    Args:
        images: (N, H, W, C), the last images, or the best ones where the run was cut short by a
            NaN.
        history: {term: (steps, N)}: "objective", each penalty with its weight, and "total", their
            difference, all before each step.
        best: (N, H, W, C), for each image the one with the highest total on the way.
        snapshots: {step: (N, H, W, C)}, the images after so many steps.
        transparency: (N, H, W) in [0, 1], where the objective looked: the mean |gradient|, by its
            maximum.
        stopped: why it ended early, or None.
    """

    images: jax.Array
    history: dict[str, np.ndarray]
    best: jax.Array
    snapshots: dict[int, jax.Array]
    transparency: jax.Array
    stopped: str | None


class NotFiniteError(ArithmeticError):
    """A term became NaN or infinite; `result` is a `Maximized` with the best images before."""

    def __init__(self, message: str, result: Maximized):
        super().__init__(message)
        self.result = result


class _Options(NamedTuple):
    steps: int
    loop: str
    redirect: int
    snapshot_every: int | None
    patience: int | None
    tolerance: float
    callback: Callable[..., Any] | None


def maximize(
    f: Any,
    objective: Objective | Sequence[Objective],
    *,
    key: jax.Array,
    image_shape: tuple[int, int, int] | None = None,
    steps: int = 256,
    seeds: int | None = None,
    start: jax.Array | None = None,
    optimizer: optax.GradientTransformation | None = None,
    parametrization: Parametrization | None = None,
    bounds: str | None = "sigmoid",
    transforms: Sequence[tf.Transform] | None = None,
    views: int = 1,
    regularizers: Sequence[Penalty | Tidy] | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    backprop: str = "plain",
    grad_modifier: Callable[[jax.Array], jax.Array] | None = None,
    redirect_steps: int = REDIRECTED_STEPS,
    dtype: Any = jnp.float32,
    batch_size: int | None = None,
    snapshot_every: int | None = None,
    patience: int | None = None,
    tolerance: float = 1e-3,
    callback: Callable[[int, jax.Array, dict[str, jax.Array]], Any] | None = None,
    progress: Progress = False,
    loop: str = "auto",
) -> Maximized:
    """Images that maximise an objective, by gradient ascent on a batch.

    Each step moves the parameters of image n along ∂/∂parameters of
    mean over views of objective_n(f(preprocess(transforms(image)))) − Σ penalties(image).

    Args:
        f: a scorer: an adapter model, an NNX module, (Linen module, variables), any function of
            images.
        objective: one objective, or a list of them for one batch: see `jaxviz.objectives`.
        key: a random key. All images of one seed start alike; the same key gives the same images
            bit for bit.
        image_shape: (H, W, C); None for the model's `input_shape`.
        steps: number of steps, ≥ 1.
        seeds: images for each objective, from different random starts; None for 1, or one a start
            image.
        start: (S, H, W, C) or (H, W, C) in the value range, images to start from; None for noise.
        optimizer: any optax transformation without a line search; None for Adam.
        parametrization: what the optimiser moves; None for pixels. See `jaxviz.parametrize`.
        bounds: how images stay in the value range: "sigmoid", "project" (clip after each step), or
            None (not at all).
        transforms: applied in order before f, at random; None for a jitter of 1/14 of the image's
            size.
        views: random transformations averaged in each step, ≥ 1.
        regularizers: penalties and tidying steps; None for total variation. See
            `jaxviz.regularize`.
        value_range: (lowest, highest) pixel value.
        preprocess: from images in the value range to f's input, such as another order of channels.
        backprop: what ReLU passes backwards: "plain", "guided" or "rectified".
        grad_modifier: from the gradient (H, W, C) of an image to the one to follow.
        redirect_steps: as long as the gradient of an image is zero everywhere (dead ReLUs) within
            the first so many steps, let it through the ReLUs that block it; 0 never does.
        dtype: of the images given to f.
        batch_size: objectives at a time; None for all.
        snapshot_every: keep the images every so many steps.
        patience: stop when no image's best total grew by `tolerance` of its size for so many steps.
        tolerance: see `patience`.
        callback: called as callback(step, images, terms) after each step; a true answer stops the
            run.
        progress: True for a bar, or a function called as progress(steps done, steps in all).
        loop: "scan" (one compiled loop), "host" (one call a step), or "auto" for what is faster
            here.

    Returns:
        `Maximized`, with N = objectives × seeds images.

    Raises:
        ValueError: an option is out of range, a layer or channel unknown, or the objective does not
            depend on the image.
        NotFiniteError: a term became NaN or infinite; names step and term, and holds the best
            images so far.

    Example:
        >>> import jax, jaxviz.maximize as jm, jaxviz.objectives as jo
        >>> f = lambda images: images.mean((1, 2))
        >>> options = {"image_shape": (8, 8, 1), "key": jax.random.key(0)}
        >>> result = jm.maximize(f, [jo.unit(0), -jo.unit(0)], steps=9, **options)
        >>> result.images.shape, result.history["objective"].shape
        ((2, 8, 8, 1), (9, 2))

    Source:
        Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", 2009; Olah,
        Mordvintsev, Schubert, "Feature Visualization", Distill 2017, doi:10.23915/distill.00007.
    """
    objectives = [objective] if isinstance(objective, Objective) else list(objective)
    shape = _image_shape(f, image_shape)
    images = None if start is None else _start_images(start, shape, seeds)
    seeds = len(images) if images is not None else 1 if seeds is None else seeds
    parts = split(as_scorer(f))
    tidy_up = _default_regularizers() if regularizers is None else tuple(regularizers)
    program = ascent.Program(
        scorer=parts.call,
        groups=(),
        layers=tuple(dict.fromkeys(layer for o in objectives for layer in o.layers)),
        image_shape=shape,
        parametrization=parametrization or pixels(),
        bounds=bounds,
        transforms=_default_transforms(shape) if transforms is None else tuple(transforms),
        penalties=tuple(r for r in tidy_up if isinstance(r, Penalty)),
        tidies=tuple(r for r in tidy_up if isinstance(r, Tidy)),
        optimizer=optimizer or _default_optimizer(),
        preprocess=preprocess,
        grad_modifier=grad_modifier,
        backprop=backprop,
        views=views,
        dtype=jnp.dtype(dtype),
    )
    options = _Options(steps, loop, redirect_steps, snapshot_every, patience, tolerance, callback)
    _check_options(program, value_range, objectives, images, options)
    low, high = (jnp.asarray(bound, jnp.float32) for bound in value_range)
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.arange(seeds))
    data = ascent.Data(parts.arrays, (), low, high, keys)
    _check_objectives(program, data, objectives)
    results: list[Maximized] = []
    chunks = list(_chunks(objectives, batch_size))
    with track(progress, len(chunks) * steps, "steps") as report:
        for members, kept in chunks:
            groups, arrays = ascent.group(members)
            chunk = program._replace(groups=groups), data._replace(objectives=arrays)
            try:
                results.append(_run(*chunk, images, options, report, len(members), kept * seeds))
            except NotFiniteError as error:
                error.result = _joined([*results, error.result])
                raise
    return _joined(results)


def _run(
    program: ascent.Program,
    data: ascent.Data,
    start: jax.Array | None,
    options: _Options,
    report: Advance,
    objectives: int,
    kept: int,
) -> Maximized:
    """Ascend one batch and keep the first `kept` images."""
    state = ascent.start(program, data, objectives, start)
    history: list[dict[str, np.ndarray]] = []
    pending: list[ascent.Terms] = []
    snapshots: dict[int, jax.Array] = {}
    stopped, done, looked = None, 0, 0
    while done < options.steps and stopped is None:
        length = _segment(done, options)
        redirect = 0 < done < options.redirect and bool(state.blocked.any())
        state, terms = _advance(program, redirect, length, data, state)
        pending.append(terms)
        done += length
        report(length)
        if options.snapshot_every and done % options.snapshot_every == 0:
            snapshots[done] = _flat(ascent.decode(program, data, state.parameters))[:kept]
        if options.callback is not None:
            shown = _flat(ascent.decode(program, data, state.parameters))[:kept]
            newest = {name: _flat(term[-1])[:kept] for name, term in terms.items()}
            if options.callback(done, shown, newest):
                stopped = f"the callback asked for it after step {done}"
        if done - looked >= _LOOK_EVERY or done == options.steps or stopped:
            history.append(_fetched(pending))
            pending, looked = [], done
            stopped = _fault(history[-1], done) or stopped or _plateau(history, options)
    return _result(program, data, state, history, snapshots, stopped, kept)


def _advance(
    program: ascent.Program, redirect: bool, length: int, data: ascent.Data, state: ascent.State
) -> tuple[ascent.State, ascent.Terms]:
    if length > 1:
        return ascent.advance_many(program, redirect, length, data, state)
    state, terms = ascent.advance_once(program, redirect, data, state)
    return state, {name: term[None] for name, term in terms.items()}


def _segment(done: int, options: _Options) -> int:
    """How many steps to take at once: one from the host, or many in a compiled loop."""
    scan = options.loop == "scan" or (options.loop == "auto" and jax.default_backend() != "cpu")
    if not scan or options.callback is not None or done < options.redirect:
        return 1
    every = options.snapshot_every or _SCAN_STEPS
    return min(options.steps, (done // every + 1) * every) - done


def _fetched(pending: Sequence[ascent.Terms]) -> dict[str, np.ndarray]:
    """The terms of several segments on the host: {term: (steps, N)}."""
    pieces = jax.device_get(list(pending))
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return {name: term.reshape(term.shape[0], -1) for name, term in joined.items()}


def _fault(newest: dict[str, np.ndarray], done: int) -> str | None:
    """Which term became NaN or infinite first, and where."""
    faults = []
    for order, (name, term) in enumerate(newest.items()):
        bad = np.argwhere(~np.isfinite(term))
        if len(bad):
            step, image = bad[0]
            at = done - len(term) + int(step)
            faults.append((at, order, f"{_FAULT} `{name}` of image {image} at step {at}"))
    return min(faults)[2] if faults else None


def _plateau(history: Sequence[dict[str, np.ndarray]], options: _Options) -> str | None:
    totals = np.concatenate([piece["total"] for piece in history])
    if options.patience is None or len(totals) <= options.patience:
        return None
    best = np.maximum.accumulate(totals)
    before, now = best[-1 - options.patience], best[-1]
    if (now - before > options.tolerance * np.abs(before)).any():
        return None
    return f"no total grew by {options.tolerance:g} of its size for {options.patience} steps"


def _result(
    program: ascent.Program,
    data: ascent.Data,
    state: ascent.State,
    history: Sequence[dict[str, np.ndarray]],
    snapshots: dict[int, jax.Array],
    stopped: str | None,
    kept: int,
) -> Maximized:
    images = _flat(ascent.decode(program, data, state.parameters))[:kept]
    best = _flat(ascent.decode(program, data, state.best))[:kept]
    looked = _flat(state.gradient_sum)[:kept]
    largest = looked.max((1, 2), keepdims=True)
    result = Maximized(
        images=images,
        history={
            name: np.concatenate([piece[name] for piece in history])[:, :kept]
            for name in history[0]
        },
        best=best,
        snapshots=snapshots,
        transparency=looked / jnp.where(largest > 0, largest, jnp.ones_like(largest)),
        stopped=stopped,
    )
    if stopped is None and not bool(jnp.isfinite(images).all()):
        stopped = f"{_FAULT} the image after the last step, {len(result.history['total'])}"
    if stopped is not None and stopped.startswith(_FAULT):
        message = f"{stopped}; lower the learning rate, or look at `result.best` of this error."
        raise NotFiniteError(message, result._replace(images=best, stopped=stopped))
    _check_moved(program, state, result)
    return result


def _check_moved(program: ascent.Program, state: ascent.State, result: Maximized) -> None:
    values = result.history["objective"]
    still = len(values) >= REDIRECTED_STEPS and bool((values == values[:1]).all())
    if still and bool(state.blocked.all()):
        raise ValueError(
            "`objective` must depend on the image: its gradient was zero at every pixel in all "
            f"{len(values)} steps; try another `key` or `start`, or an objective with a derivative."
        )


def _joined(results: Sequence[Maximized]) -> Maximized:
    """The results of several batches as one; shorter histories end in NaN."""
    if len(results) == 1:
        return results[0]
    steps = max(len(result.history["total"]) for result in results)

    def longer(term: np.ndarray) -> np.ndarray:
        return np.pad(term, ((0, steps - len(term)), (0, 0)), constant_values=np.nan)

    names = results[0].history
    common = set.intersection(*(set(result.snapshots) for result in results))
    return Maximized(
        images=jnp.concatenate([result.images for result in results]),
        history={n: np.concatenate([longer(r.history[n]) for r in results], 1) for n in names},
        best=jnp.concatenate([result.best for result in results]),
        snapshots={
            step: jnp.concatenate([result.snapshots[step] for result in results])
            for step in sorted(common)
        },
        transparency=jnp.concatenate([result.transparency for result in results]),
        stopped=next((result.stopped for result in reversed(results) if result.stopped), None),
    )


def _chunks(
    objectives: list[Objective], batch_size: int | None
) -> Iterator[tuple[list[Objective], int]]:
    """Batches of objectives, and how many to keep; the last is filled up, to compile alike."""
    size = batch_size or len(objectives)
    for first in range(0, len(objectives), size):
        members = objectives[first : first + size]
        yield members + members[-1:] * (min(size, len(objectives)) - len(members)), len(members)


def _flat(batch: jax.Array) -> jax.Array:
    return batch.reshape(-1, *batch.shape[2:])


@cache
def _default_optimizer() -> optax.GradientTransformation:
    return optax.adam(0.05)


@cache
def _default_regularizers() -> tuple[Penalty | Tidy, ...]:
    return (penalty(total_variation, 1.0),)


def _default_transforms(shape: tuple[int, int, int]) -> tuple[tf.Transform, ...]:
    return (tf.jitter(max(1, min(shape[:2]) // 14)),)


def _image_shape(f: Any, image_shape: Any) -> tuple[int, int, int]:
    shape = getattr(f, "input_shape", None) if image_shape is None else image_shape
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    positive = all(isinstance(n, int | np.integer) and n > 0 for n in sizes)
    if len(sizes) != 3 or not positive:
        raise ValueError(
            "`image_shape` must be three positive integers (height, width, channels): got "
            f"{shape}; the model does not fix the size, so give it."
        )
    height, width, channels = map(int, sizes)
    return height, width, channels


def _start_images(start: Any, shape: tuple[int, int, int], seeds: int | None) -> jax.Array:
    images = jnp.asarray(start, jnp.float32)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(
            f"`start` must have shape {shape}, or (seeds, *{shape}): got {np.shape(start)}."
        )
    if seeds not in (None, len(images)):
        raise ValueError(f"`seeds` must be one a start image, {len(images)}: got {seeds}.")
    if not bool(jnp.isfinite(images).all()):
        raise ValueError("`start` must be finite: got NaN or infinite pixels.")
    return images


def _check_options(
    program: ascent.Program,
    value_range: tuple[float, float],
    objectives: Sequence[Objective],
    start: jax.Array | None,
    options: _Options,
) -> None:
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"`value_range` must be (lowest, highest), finite: got ({low}, {high}).")
    counts = {"steps": options.steps, "views": program.views, "objective": len(objectives)}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1: got {count}.")
    for name in ("snapshot_every", "patience"):
        count = getattr(options, name)
        if count is not None and count < 1:
            raise ValueError(f"`{name}` must be at least 1 or None: got {count}.")
    if program.bounds not in ("sigmoid", "project", None):
        raise ValueError(f'`bounds` must be "sigmoid", "project" or None: got {program.bounds!r}.')
    if options.loop not in ("auto", "host", "scan"):
        raise ValueError(f'`loop` must be "auto", "host" or "scan": got {options.loop!r}.')
    relu_rules(program.backprop)
    if program.parametrization.encode is None and (start is not None or program.tidies):
        raise ValueError(
            "`parametrization` must have `encode` for a start image or tidying steps: got one "
            "without; add the third function, or leave `start` and blur steps out."
        )


def _check_objectives(
    program: ascent.Program, data: ascent.Data, objectives: Sequence[Objective]
) -> None:
    """Raise where an objective does not fit its layers or does not depend on the image."""
    seen = jax.ShapeDtypeStruct((1, *program.image_shape), program.dtype)
    network = partial(ascent.network, program, data)
    closed, found = jax.make_jaxpr(network, return_shape=True)(seen)
    shapes = {n: value.shape[1:] for n, value in zip(program.layers, found, strict=True)}
    for objective in objectives:
        check(objective, shapes)
    moving = dependent(closed.jaxpr, [True])
    groups, arrays = ascent.group(objectives)
    for (structure, numbers), values in zip(groups, arrays, strict=True):
        one = [value[0] for value in values]
        closed = jax.make_jaxpr(partial(ascent.evaluate_objective, program, structure))(one, found)
        marks = [False] * len(one) + moving
        if not any(dependent(closed.jaxpr, marks)):
            raise ValueError(
                f"`objective` must depend on the image: objective {numbers[0]} does not; it reads "
                f"{objectives[numbers[0]].layers}."
            )
