"""Approximate windows: how far they may be cut short, found on a sample of every image.

Some positions are scored exactly: random ones, spread over the image, and those around the most
influential of them. At all of these, windows cut short are tried. Errors and tolerance are shares,
per image: of the largest |exact − clean| of any score over the positions of the sample, or of a
thousandth of the largest clean score if that is more, since smaller changes are mostly rounding.

What is found at a sample says little of all positions: errors are heavy-tailed (behind a maximum
most are 0 and a few are large), and to look for windows that pass favours those whose large errors
the sample missed. So the error of all positions is estimated:

    bound = margin · max(largest error found, FADING · largest error found with the next narrower)

The second part is for samples that missed: from one width of windows to the next, the largest error
falls to three quarters in the median, and seldom below a half. The margin is wider where large
errors are rare, as behind a global maximum: half of the sample has errors below a fiftieth of the
largest. All constants are measured, not derived (docs/decisions/tolerance.md), and
`benchmarks/tolerance_keeps_its_word.py` counts how often the bound holds, and how wide it is.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxviz.incremental.approximate import FIELDS, narrowest
from jaxviz.occlusion.result import Approximation
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring.choice import LEAST_SPEED_UP, choose_evaluators, seconds_of
from jaxviz.scoring.compiled import halve
from jaxviz.scoring.evaluators import Evaluator, Incremental
from jaxviz.scoring.execute import OnError, execute
from jaxviz.scoring.task import Task

# With the clean image, three times and once as many rows as a CPU evaluates at once.
RANDOM, AROUND = 47, 15
SAMPLED = RANDOM + AROUND
MOST_INFLUENTIAL = 3  # positions around which others are looked for
MARGIN, FADING = 2.5, 0.5
RARE, MARGIN_OF_RARE = 0.02, 4.0  # a median error, as a share of the largest; and the margin then
CONFIDENCE = 0.95  # that the bound holds, as the benchmark counted
TRIED = 4  # widths of windows that a search compiles, about
LEAST_GAIN = 1.1  # in seconds, by the model; windows that save less are not worth an error
LEAST_CHANGE = 1e-3  # of the largest clean score


def approximate_evaluators(
    method: str,
    grid: Grid,
    task: Task,
    tolerance: float,
    batch_size: int | str,
    exact: tuple[Evaluator, ...] | None = None,
    on_error: OnError = halve,
) -> tuple[tuple[Evaluator, ...], Approximation]:
    """Return the evaluator whose windows are the narrowest whose bound keeps a tolerance.

    Args:
        method: "incremental" or "auto".
        grid: where the patches lie.
        task: scorer, images and positions.
        tolerance: largest error allowed, as a share, in [0, 1].
        batch_size: see `execute`.
        exact: the evaluators of where nothing is cut short; None: they are chosen.
        on_error: see `execute`.

    Returns:
        The evaluators, exact ones where no narrower windows keep the tolerance; and what was
        measured.

    Raises:
        ValueError: the tolerance is out of range, or nothing runs on windows.
    """
    measure = batch_size == "fastest"
    if exact is None:
        exact = choose_evaluators(method, grid, task, task.device.platform, measure=measure)
    check_windows(tolerance, method if isinstance(task.occluder, PatchOccluder) else "dense")
    evaluator = Incremental.on_grid(grid)
    narrowest_evaluator = replace(evaluator, field=0)
    few = len(task.positions) <= SAMPLED  # which are scored exactly anyway
    if few or (method == "auto" and not _worth_a_search(task, exact[0], narrowest_evaluator)):
        return exact, Approximation.none(tolerance, 0)
    errors = Errors(task, evaluator, tolerance, "auto" if measure else batch_size, on_error)
    field = errors.narrowest_field()
    if field is None or not errors.gains(field):
        return exact, Approximation.none(tolerance, SAMPLED)
    measured = Approximation(
        tolerance, errors.bound(field), CONFIDENCE, SAMPLED, errors.largest(field), field
    )
    return (replace(evaluator, field=field),), measured


def check_windows(tolerance: float, method: str) -> None:
    """Raise ValueError unless a tolerance is a share, and a method has windows to cut."""
    if method == "dense":
        raise ValueError(
            "`tolerance` cuts windows short, which only patches have, and not with method"
            ' "dense": use method "auto" or "incremental", and no segments.'
        )
    if not 0 <= tolerance <= 1:
        raise ValueError(
            f"`tolerance` must be a share of the largest change, from 0 to 1: got {tolerance}."
        )


def _worth_a_search(task: Task, exact: Evaluator, narrowest: Incremental) -> bool:
    """Say whether the narrowest windows would save what looking for the right ones takes.

    By the model, compiling counted, so that equal calls choose alike.
    """
    platform = task.device.platform
    narrow = seconds_of(task.costs(narrowest), platform)
    if isinstance(exact, Incremental):
        before = seconds_of(task.costs(exact), platform).window
    else:
        before = narrow.dense
    if before < LEAST_SPEED_UP * narrow.window:
        return False
    images, positions = len(task.images), len(task.positions)
    saved = images * (positions * (before - narrow.window) - SAMPLED * before)
    return saved > TRIED * (narrow.program + images * (narrow.dense + SAMPLED * narrow.window))


def _gain(task: Task, slow: Incremental, fast: Incremental) -> float:
    """How many times less a position takes, by the model."""
    platform = task.device.platform
    before, after = (seconds_of(task.costs(each), platform).window for each in (slow, fast))
    return before / after if after else 1.0


class Seen(NamedTuple):
    """Errors at the sample: the largest, and how many times as large one that it missed may be."""

    largest: float
    margin: float


class Errors:
    """The largest errors of windows of some width at the sampled positions, as they are asked for.

    Attributes:
        found: field -> errors at the sampled positions; where they exceed the tolerance already at
            the most influential ones, at those only.
    """

    def __init__(
        self,
        task: Task,
        evaluator: Incremental,
        tolerance: float,
        batch_size: int | str,
        on_error: OnError = halve,
    ) -> None:
        """Score the sample exactly."""
        self.task, self.evaluator = task, evaluator
        self.tolerance, self.batch_size, self.on_error = tolerance, batch_size, on_error
        self.found: dict[int, Seen] = {}
        first = spread_at_random(len(task.positions))
        clean, scores = self._scores(first, evaluator)
        around = nearest(task.positions, first, influence(scores, clean))
        sample = np.concatenate([first, around])
        exact = np.concatenate([scores, self._scores(around, evaluator)[1]], 1)
        self.scale = scales(exact, clean)
        # The most influential first: they are the ones that tell of most windows too narrow.
        order = np.argsort(-influence(exact, clean), kind="stable")
        self.parts = [(sample[some], exact[:, some]) for some in (order[:AROUND], order[AROUND:])]

    def narrowest_field(self) -> int | None:
        """Return the least field whose bound keeps the tolerance; None: there is none."""
        field, _ = narrowest(lambda field: self.margin(field) * self.largest(field), self.tolerance)
        wider = () if field is None else FIELDS[FIELDS.index(field) :]
        return next((f for f in wider if self.bound(f) <= self.tolerance), None)

    def gains(self, field: int) -> bool:
        """Say whether windows of that field save enough to be worth an error."""
        narrow = replace(self.evaluator, field=field)
        return _gain(self.task, self.evaluator, narrow) >= LEAST_GAIN

    def bound(self, field: int) -> float:
        """Return the estimate of the largest error at any position; 0 where little is cut."""
        if not self.gains(field):
            return 0.0
        narrower = FIELDS[max(0, FIELDS.index(field) - 1)]
        return self.margin(field) * max(self.largest(field), FADING * self.largest(narrower))

    def largest(self, field: int) -> float:
        """Return the largest error found with that field."""
        return self._at(field).largest

    def margin(self, field: int) -> float:
        """Return how many times as large an error of that field that was not found may be."""
        return self._at(field).margin

    def _at(self, field: int) -> Seen:
        if field not in self.found:
            self.found[field] = self._measured(field) if self.gains(field) else Seen(0.0, MARGIN)
        return self.found[field]

    def _measured(self, field: int) -> Seen:
        narrow, shares = replace(self.evaluator, field=field), np.empty((len(self.scale), 0))
        for positions, exact in self.parts:
            wrong = self._scores(positions, narrow)[1] - exact
            shares = np.concatenate([shares, shares_of(wrong, self.scale)], 1)
            if MARGIN * shares.max() > self.tolerance:
                break
        return Seen(float(shares.max()), margin_of(shares))

    def _scores(
        self, positions: np.ndarray, evaluator: Incremental
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clean scores (N, K), and those at some positions, by number, (N, positions, K)."""
        some = replace(self.task, positions=self.task.positions[positions], evaluators=(evaluator,))
        run = execute(some, batch_size=self.batch_size, on_error=self.on_error)
        if run.partial:
            raise KeyboardInterrupt
        values = run.values.reshape(*run.values.shape[:2], -1).astype(np.float64)
        return values[:, 0], values[:, 1:]


def spread_at_random(count: int) -> np.ndarray:
    """Return RANDOM of `count` > SAMPLED positions, by number, one of each equal stretch of them.

    Random, so that no pattern of the grid is met; the same in every run.
    """
    edges = np.linspace(0, count, RANDOM + 1).astype(int)
    draws = np.random.default_rng(0).random(RANDOM)
    return edges[:-1] + (draws * np.diff(edges)).astype(int)


def influence(exact: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return how much each position changes the scores, (positions,), relative to the largest
    change of the same image, in the image where that is most."""
    change = np.abs(exact - clean[:, None]).max(2)
    scale = scales(exact, clean)[:, None]
    return np.divide(change, scale, out=np.zeros_like(change), where=scale > 0).max(0)


def scales(exact: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return what errors are shares of, (N,): of scores (N, positions, K) and clean ones (N, K)."""
    change = np.abs(exact - clean[:, None]).max((1, 2))
    return np.maximum(change, LEAST_CHANGE * np.abs(clean).max(1))


def nearest(starts: np.ndarray, sample: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return the AROUND positions, by number, that lie next to the most influential of a sample."""
    top = sample[np.argsort(-strength, kind="stable")[:MOST_INFLUENTIAL]]
    away = np.abs(starts[:, None] - starts[top]).max(2).min(1).astype(np.float64)
    away[sample] = np.inf
    return np.argsort(away, kind="stable")[:AROUND]


def shares_of(wrong: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return max |wrong| / scale, (N, positions), of errors (N, positions, K); NaN is infinite."""
    wrong, scale = np.abs(wrong).max(2), np.broadcast_to(scale[:, None], wrong.shape[:2])
    share = np.divide(wrong, scale, out=np.where(wrong == 0, 0.0, np.inf), where=scale > 0)
    return np.where(np.isnan(share), np.inf, share)


def margin_of(shares: np.ndarray) -> float:
    """Return the margin for errors (N, positions)."""
    return MARGIN_OF_RARE if np.median(shares) < RARE * shares.max() else MARGIN
