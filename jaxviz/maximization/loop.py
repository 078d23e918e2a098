"""Run the steps of `maximize`, a batch of objectives at a time, and watch over them.

On accelerators the steps run in one compiled loop. On a CPU they are driven from here: XLA runs the
body of a loop on one core there, which made the same step take more than twice as long. On the CPU
both ways give the same numbers bit for bit (two networks, 100 steps); XLA does not promise that it
compiles a step alike inside a loop, so another platform may differ by rounding.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr.compiled import compiled
from jaxviz.maximization.objective import Objective
from jaxviz.maximization.problem import Data, Problem, State, Terms, group, term_names
from jaxviz.maximization.result import Maximized, NotFiniteError, joined, not_begun
from jaxviz.maximization.schedule import Schedule, Segment, segments
from jaxviz.maximization.step import advance, advance_many, decode, start
from jaxviz.progress import Advance, Progress, track

REDIRECTED_STEPS = 16
_FAULT = "not finite:"
_ASKED = "the callback asked for it"
SATURATED = 1e-2  # of the steepest slope: of a sigmoid, where it is within 0.0025 of 0 or 1
_END = 8  # steps over whose random transforms the objective at the end is a mean


def run_batches(
    problem: Problem,
    data: Data,
    objectives: Sequence[Objective],
    likely: Sequence[bool],
    schedule: Schedule,
    batch_size: int | None,
    progress: Progress,
) -> Maximized:
    """Maximise all objectives, a batch at a time; `likely` says which read probabilities."""
    results: list[Maximized] = []
    slopes: list[np.ndarray] = []
    known: dict[Any, Programs] = {}
    seeds = len(data.keys)
    batches = list(_batches(objectives, batch_size))
    with track(progress, len(batches) * schedule.steps, "steps") as report:
        for members, kept in batches:
            groups, arrays = group(members)
            alike = (groups, *(leaf.shape for leaf in jax.tree.leaves(arrays)))
            fresh = Programs(
                problem._replace(groups=groups), redirects=_may_be_dead(data, schedule)
            )
            programs = known.setdefault(alike, fresh)
            batch = data._replace(objectives=arrays)
            found = sum(len(result.images) for result in results)
            try:
                result, slope = _run(programs, batch, schedule, report, kept * seeds, found)
                results.append(result)
                slopes.append(slope)
            except NotFiniteError as error:
                error.result = joined([*results, error.result])
                raise
            if (results[-1].stopped or "").startswith(_ASKED):
                break
    left = len(objectives) * seeds - sum(len(result.images) for result in results)
    result = joined([*results, *([not_begun(results[0], left)] if left else [])])
    _warn_of_weak(result.history["objective"], np.concatenate(slopes), np.repeat(likely, seeds))
    return result


def _may_be_dead(data: Data, schedule: Schedule) -> bool:
    """Say whether the steps start from black, where the paths of a network may all be cut."""
    return bool(schedule.redirect_steps) and data.start.ndim == 0 and bool(data.start <= data.low)


def _run(
    programs: "Programs", data: Data, schedule: Schedule, report: Advance, kept: int, before: int
) -> tuple[Maximized, np.ndarray]:
    """Maximise one batch and keep the first `kept` images; `before` images are done.

    Also return the last slope of each objective as a share of its steepest, NaN where that is 0.
    """
    patient = data.patience is not None
    state = start(programs.problem, data)
    history: list[dict[str, np.ndarray]] = []
    pending: list[Terms] = []
    snapshots: dict[int, jax.Array] = {}
    stopped = None

    def images() -> jax.Array:
        return _flat(programs.decode(data, state.parameters))[:kept]

    for segment in segments(schedule):
        state, terms = _advance(programs, data, segment, state, report)
        pending += terms
        if segment.snapshot:
            snapshots[segment.end] = images()
        if schedule.callback is not None:
            newest = {name: _flat(term)[:kept] for name, term in terms[-1].items()}
            if schedule.callback(segment.end, images(), newest):
                stopped = f"{_ASKED} after step {segment.end}"
        if segment.look or stopped or (patient and schedule.callback is not None):
            history.append(_fetched(pending, term_names(programs.problem)))
            pending = []
            fault = _fault(history[-1], segment.end, before, _steps_taken(state))
            stopped = fault or stopped or _plateau(data, state, schedule)
        if stopped:
            break
    result = _result(programs, data, state, history, snapshots, stopped, kept)
    slope, steepest = (
        np.asarray(_flat(x), np.float64)[:kept] for x in (state.slope, state.steepest)
    )
    return result, slope / np.where(steepest > 0, steepest, np.nan)


class Programs:
    """What a problem compiles to, each when it is first called.

    The program that can redirect holds the network's derivative twice, and few runs need it: where
    nothing speaks for a dead start, it is only compiled when an image turns out to be dead. Else it
    takes all steps, so that there is no other one to compile.
    """

    def __init__(self, problem: Problem, *, redirects: bool = False):
        self.problem, self.redirects = problem, redirects
        self._known: dict[Any, Callable[..., Any]] = {}

    def decode(self, data: Data, parameters: Any) -> jax.Array:
        """Return the images that parameters mean."""
        return self._get(decode, (), data, parameters)

    def once(self, data: Data, state: State, *, wake: bool = False) -> tuple[State, Terms]:
        """Take one step, in place; `wake` redirects it for images whose gradient is zero.

        Such an image was dead in the step before, or turns out to be: then the step is held, and
        taken again.
        """
        if not self.redirects and not (wake and np.asarray(state.blocked).any()):
            state, terms = self._step(data, state, redirect=False, watch=wake)
            if not (wake and np.asarray(state.blocked).any()):
                return state, terms
        return self._step(data, state, redirect=True, watch=wake)

    def _step(
        self, data: Data, state: State, *, redirect: bool, watch: bool
    ) -> tuple[State, Terms]:
        return self._get(advance, (redirect,), data, state, np.bool_(watch))

    def many(self, steps: int, data: Data, state: State) -> tuple[State, Terms]:
        """Take several steps in one loop, in place."""
        return self._get(advance_many, (steps,), data, state)

    def _get(
        self, function: Callable[..., Any], options: tuple[Any, ...], data: Data, *args: Any
    ) -> Any:
        scorer, rest = data.scorer, data._replace(scorer=())
        if (function, options) not in self._known:

            def call(scorer: Any, data: Data, *args: Any) -> Any:
                return function(self.problem, *options, data._replace(scorer=scorer), *args)

            # The kernels that a step transforms are those of all steps.
            steps = {} if function is decode else {"donated": (2,), "often": True}
            self._known[function, options] = compiled(call, scorer, rest, *args, **steps)
        return self._known[function, options](scorer, rest, *args)


def _advance(
    programs: Programs, data: Data, segment: Segment, state: State, report: Advance
) -> tuple[State, list[Terms]]:
    """Take the steps of a segment; terms are (M, S) of a single step, (steps, M, S) of a loop."""
    length = segment.end - segment.begin
    if segment.compiled:
        state, terms = programs.many(length, data, state)
        report(length)
        return state, [terms]
    found = []
    for _ in range(length):
        state, terms = programs.once(data, state, wake=segment.redirects)
        found.append(terms)
        report(1)
    return state, found


def _fetched(pending: Sequence[Terms], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the terms of several segments on the host: {term: (steps, N)}."""
    # The axis of a single step is added here: on the device it would be an operation a step.
    pieces = jax.device_get(list(pending))
    joined = {
        name: np.concatenate([piece[name].reshape(-1, *piece[name].shape[-2:]) for piece in pieces])
        for name in names
    }
    return {name: term.reshape(term.shape[0], -1) for name, term in joined.items()}


def _steps_taken(state: State) -> np.ndarray | None:
    """Return how many steps each image has taken, None where all have taken all."""
    return None if state.waiting is None else np.asarray(_flat(state.waiting.steps))


def _fault(
    newest: dict[str, np.ndarray], done: int, before: int, taken: np.ndarray | None
) -> str | None:
    """Say which term became NaN or infinite first, and where; not of images that had stopped."""
    faults = []
    for order, (name, term) in enumerate(newest.items()):
        step = np.arange(done - len(term), done)[:, None]
        bad = np.argwhere(~np.isfinite(term) & (True if taken is None else step < taken[None]))
        if len(bad):
            first, image = bad[0]
            at = done - len(term) + int(first)
            faults.append((at, order, f"{_FAULT} `{name}` of image {before + image} at step {at}"))
    return min(faults)[2] if faults else None


def _plateau(data: Data, state: State, schedule: Schedule) -> str | None:
    """Say so when every image has stopped, its total not having grown for `patience` steps."""
    if data.patience is None or state.waiting is None:
        return None
    if not bool((state.waiting.since >= data.patience.steps).all()):
        return None
    return (
        f"no total grew by {float(data.patience.growth):g} of its size for {schedule.patience} "
        "steps"
    )


def _result(
    programs: Programs,
    data: Data,
    state: State,
    history: Sequence[dict[str, np.ndarray]],
    snapshots: dict[int, jax.Array],
    stopped: str | None,
    kept: int,
) -> Maximized:
    images = _flat(programs.decode(data, state.parameters))[:kept]
    best = _flat(programs.decode(data, state.best))[:kept]
    taken = _steps_taken(state)
    length = None if taken is None else int(taken.max())  # what was done after that changed nothing
    looked = _flat(state.gradient_sum)[:kept]
    largest = looked.max((1, 2), keepdims=True)
    result = Maximized(
        images=images,
        history={
            name: np.concatenate([piece[name] for piece in history])[:length, :kept]
            for name in history[0]
        },
        best=best,
        snapshots={n: x for n, x in snapshots.items() if length is None or n <= length},
        transparency=looked / jnp.where(largest > 0, largest, jnp.ones_like(largest)),
        stopped=stopped,
    )
    if stopped is None and not bool(jnp.isfinite(images).all()):
        stopped = f"{_FAULT} the image after the last step, {len(result.history['total'])}"
    if stopped is not None and stopped.startswith(_FAULT):
        message = f"{stopped}; lower the learning rate, or look at `result.best` of this error."
        raise NotFiniteError(message, result._replace(images=best, stopped=stopped))
    _check_moved(state, result)
    return result


def _check_moved(state: State, result: Maximized) -> None:
    values = result.history["objective"]
    still = len(values) >= REDIRECTED_STEPS and bool((values == values[:1]).all())
    if still and bool(state.blocked.all()):
        raise ValueError(
            "`objective` must depend on the image: its gradient was zero at every pixel in all "
            f"{len(values)} steps; try another `key` or `start`, or an objective with a "
            f"derivative; {_HINT}."
        )


_HINT = (
    "where penalties outweigh it, give a multiple of it or other `regularizers`, and for "
    "probabilities the scores before them, `jaxviz.logits(model)`"
)


def _warn_of_weak(values: np.ndarray, slopes: np.ndarray, likely: np.ndarray) -> None:
    """Warn of images whose objective ends no higher than it started, or on a plateau of a sigmoid.

    Args:
        values: of the objectives, (steps, N).
        slopes: the last slope of each as a share of its steepest.
        likely: which objectives read probabilities.
    """
    if len(values) < REDIRECTED_STEPS:
        return
    low, flat = [], []
    for number, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known) < 2:
            continue
        unmoved = known[1:][-_END:].mean() <= known[0]
        if likely[number] and (unmoved or slopes[number] < SATURATED):
            flat.append(number)
        elif unmoved:
            low.append(number)
    if flat:
        warnings.warn(
            f"`objective` reads probabilities that are saturated for {_named(flat, values)}: next"
            " to nothing moves them; give the scores before them, `jaxviz.logits(model)`.",
            stacklevel=4,
        )
    if low:
        message = f"`objective` did not rise for {_named(low, values)}: {_HINT}."
        warnings.warn(message, stacklevel=4)


def _named(numbers: Sequence[int], values: np.ndarray) -> str:
    named = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"image {named} ({len(numbers)} of {values.shape[1]})"


def _batches(
    objectives: Sequence[Objective], batch_size: int | None
) -> Iterator[tuple[list[Objective], int]]:
    """Yield batches, and how many of each to keep; the last is filled up, to compile alike."""
    size = batch_size or len(objectives)
    for first in range(0, len(objectives), size):
        members = list(objectives[first : first + size])
        yield members + members[-1:] * (min(size, len(objectives)) - len(members)), len(members)


def _flat(batch: jax.Array) -> jax.Array:
    return batch.reshape(-1, *batch.shape[2:])
