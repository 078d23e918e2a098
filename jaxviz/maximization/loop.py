"""The driver of `maximize`: step after step on one batch, and what becomes of it.

On accelerators the steps run in one compiled loop. On a CPU they are driven from here: XLA runs the
body of a loop on one core there, which made the same step take more than twice as long. On the CPU
both ways give the same numbers bit for bit (two networks, 100 steps); XLA does not promise that it
compiles a step alike inside a loop, so another platform may differ by rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr._jax import platform_of
from jaxviz.maximization import step as ascent
from jaxviz.maximization.objective import Objective
from jaxviz.maximization.result import Maximized, NotFiniteError
from jaxviz.progress import Advance, Progress, track

REDIRECTED_STEPS = 16
_LOOK_EVERY = 25
_SCAN_STEPS = 64
_FAULT = "not finite:"


class Options(NamedTuple):
    """How to run; see `maximize`."""

    steps: int
    loop: str
    redirect: int
    snapshot_every: int | None
    patience: int | None
    tolerance: float
    callback: Callable[..., Any] | None


def climb(
    problem: ascent.Problem,
    data: ascent.Data,
    objectives: Sequence[Objective],
    options: Options,
    batch_size: int | None,
    progress: Progress,
) -> Maximized:
    """Ascend all objectives, a batch at a time."""
    results: list[Maximized] = []
    seeds = len(data.keys)
    batches = list(_batches(objectives, batch_size))
    with track(progress, len(batches) * options.steps, "steps") as report:
        for members, kept in batches:
            groups, arrays = ascent.group(members)
            batch = problem._replace(groups=groups), data._replace(objectives=arrays)
            found = sum(len(result.images) for result in results)
            try:
                results.append(_run(*batch, options, report, kept * seeds, found))
            except NotFiniteError as error:
                error.result = _joined([*results, error.result])
                raise
    return _joined(results)


def _run(
    problem: ascent.Problem,
    data: ascent.Data,
    options: Options,
    report: Advance,
    kept: int,
    before: int,
) -> Maximized:
    """Ascend one batch and keep the first `kept` images; `before` images are done."""
    state = ascent.start(problem, data)
    history: list[dict[str, np.ndarray]] = []
    pending: list[ascent.Terms] = []
    snapshots: dict[int, jax.Array] = {}
    stopped, done, looked = None, 0, 0
    while done < options.steps and stopped is None:
        length = _segment(done, options)
        redirect = 0 < done < options.redirect and bool(state.blocked.any())
        state, terms = _advance(problem, redirect, length, data, state)
        pending.append(terms)
        done += length
        report(length)
        if options.snapshot_every and done % options.snapshot_every == 0:
            snapshots[done] = _flat(ascent.decode(problem, data, state.parameters))[:kept]
        if options.callback is not None:
            shown = _flat(ascent.decode(problem, data, state.parameters))[:kept]
            newest = {name: _flat(term)[:kept] for name, term in terms.items()}
            if options.callback(done, shown, newest):
                stopped = f"the callback asked for it after step {done}"
        if done - looked >= _LOOK_EVERY or done == options.steps or stopped:
            history.append(_fetched(pending, ascent.term_names(problem)))
            pending, looked = [], done
            stopped = _fault(history[-1], done, before) or stopped or _plateau(history, options)
    return _result(problem, data, state, history, snapshots, stopped, kept)


def _advance(
    problem: ascent.Problem, redirect: bool, length: int, data: ascent.Data, state: ascent.State
) -> tuple[ascent.State, ascent.Terms]:
    """Take some steps; terms are (steps, M, S), or (M, S) of a single one."""
    if length > 1:
        return ascent.advance_many(problem, redirect, length, data, state)
    return ascent.advance_once(problem, redirect, data, state)


def _segment(done: int, options: Options) -> int:
    """How many steps to take at once: one from the host, or many in a compiled loop."""
    scan = options.loop == "scan" or (options.loop == "auto" and platform_of() != "cpu")
    if not scan or options.callback is not None or done < options.redirect:
        return 1
    every = options.snapshot_every or _SCAN_STEPS
    return min(options.steps, (done // every + 1) * every) - done


def _fetched(pending: Sequence[ascent.Terms], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The terms of several segments on the host: {term: (steps, N)}."""
    # The axis of a single step is added here: on the device it would be an operation a step.
    pieces = jax.device_get(list(pending))
    joined = {
        name: np.concatenate([piece[name].reshape(-1, *piece[name].shape[-2:]) for piece in pieces])
        for name in names
    }
    return {name: term.reshape(term.shape[0], -1) for name, term in joined.items()}


def _fault(newest: dict[str, np.ndarray], done: int, before: int) -> str | None:
    """Which term became NaN or infinite first, and where."""
    faults = []
    for order, (name, term) in enumerate(newest.items()):
        bad = np.argwhere(~np.isfinite(term))
        if len(bad):
            step, image = bad[0]
            at = done - len(term) + int(step)
            faults.append((at, order, f"{_FAULT} `{name}` of image {before + image} at step {at}"))
    return min(faults)[2] if faults else None


def _plateau(history: Sequence[dict[str, np.ndarray]], options: Options) -> str | None:
    totals = np.concatenate([piece["total"] for piece in history])
    if options.patience is None or len(totals) <= options.patience:
        return None
    best = np.maximum.accumulate(totals)
    before, now = best[-1 - options.patience], best[-1]
    if (now - before > options.tolerance * np.abs(before)).any():
        return None
    return f"no total grew by {options.tolerance:g} of its size for {options.patience} steps"


def _result(
    problem: ascent.Problem,
    data: ascent.Data,
    state: ascent.State,
    history: Sequence[dict[str, np.ndarray]],
    snapshots: dict[int, jax.Array],
    stopped: str | None,
    kept: int,
) -> Maximized:
    images = _flat(ascent.decode(problem, data, state.parameters))[:kept]
    best = _flat(ascent.decode(problem, data, state.best))[:kept]
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
    _check_moved(problem, state, result)
    return result


def _check_moved(problem: ascent.Problem, state: ascent.State, result: Maximized) -> None:
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


def _batches(
    objectives: Sequence[Objective], batch_size: int | None
) -> Iterator[tuple[list[Objective], int]]:
    """Batches of objectives, and how many to keep; the last is filled up, to compile alike."""
    size = batch_size or len(objectives)
    for first in range(0, len(objectives), size):
        members = list(objectives[first : first + size])
        yield members + members[-1:] * (min(size, len(objectives)) - len(members)), len(members)


def _flat(batch: jax.Array) -> jax.Array:
    return batch.reshape(-1, *batch.shape[2:])
