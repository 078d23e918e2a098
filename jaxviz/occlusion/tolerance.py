"""Approximate windows: how far they may be cut short, found on a sample of every image.

Some positions, spread evenly, are scored exactly. Among them, those that change the scores most are
scored with windows cut short, too. Error and tolerance are shares, per image: of the largest
|exact − clean| of any score over the positions of the sample, or of a thousandth of the largest
clean score if that is more, since smaller changes are mostly rounding.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxviz.incremental.approximate import narrowest
from jaxviz.occlusion.result import Approximation
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.scoring.evaluators import (
    LEAST_SPEED_UP,
    Dense,
    Evaluator,
    Incremental,
    choose_evaluators,
)
from jaxviz.scoring.execute import execute
from jaxviz.scoring.task import Task

# With the clean image, three times and once as many rows as a CPU evaluates at once.
SAMPLED, CHECKED = 47, 15
LEAST_GAIN = 1.1  # in operations; windows that save less are not worth an error
LEAST_CHANGE = 1e-3  # of the largest clean score


def approximate_evaluators(
    method: str, grid: Grid, task: Task, tolerance: float, batch_size: int | str
) -> tuple[tuple[Evaluator, ...], Approximation]:
    """Return the evaluator whose windows are the narrowest that keep a tolerance.

    Args:
        method: "incremental" or "auto".
        grid: where the patches lie.
        task: scorer, images and positions.
        tolerance: largest error allowed, as a share, in [0, 1].
        batch_size: see `execute`.

    Returns:
        The evaluators, exact ones where no narrower windows keep the tolerance; and what was
        measured.

    Raises:
        ValueError: the tolerance is out of range, or nothing runs on windows.
    """
    exact = choose_evaluators(method, grid, task, task.device.platform)
    if method == "dense" or not isinstance(task.occluder, PatchOccluder):
        raise ValueError(
            "`tolerance` cuts windows short, which only patches have, and not with method"
            ' "dense": use `occlude` with method "auto" or "incremental".'
        )
    if not 0 <= tolerance <= 1:
        raise ValueError(
            f"`tolerance` must be a share of the largest change, from 0 to 1: got {tolerance}."
        )
    evaluator = Incremental.on_grid(grid)
    narrowest_evaluator = replace(evaluator, field=0)
    few = len(task.positions) <= SAMPLED  # which are scored exactly anyway
    if few or (method == "auto" and _gain(task, Dense(), narrowest_evaluator) < LEAST_SPEED_UP):
        return exact, Approximation(tolerance, 0.0, 0, None)
    field, error = narrowest(_measure(task, evaluator, batch_size), tolerance)
    narrow = replace(evaluator, field=field)
    if field is None or _gain(task, evaluator, narrow) < LEAST_GAIN:
        return exact, Approximation(tolerance, 0.0, CHECKED, None)
    return (narrow,), Approximation(tolerance, error, CHECKED, field)


def _gain(task: Task, slow: Dense | Incremental, fast: Incremental) -> float:
    """How many times fewer operations a position takes."""
    found = task.costs(fast)
    before = task.costs(slow).window if isinstance(slow, Incremental) else found.dense
    return before / max(1, found.window)


def _measure(task: Task, evaluator: Incremental, batch_size: int | str) -> Callable[[int], float]:
    """Return the function from a field to the largest error at the checked positions."""

    def scores(positions: np.ndarray, evaluator: Incremental) -> np.ndarray:
        some = replace(task, positions=positions, evaluators=(evaluator,))
        run = execute(some, batch_size=batch_size)
        if run.partial:
            raise KeyboardInterrupt
        return run.values.reshape(*run.values.shape[:2], -1).astype(np.float64)

    # Row 0 of what a run gives is the clean image: position p is row 1 + p.
    spread = np.linspace(0, len(task.positions) - 1, SAMPLED).round().astype(int)
    found = scores(task.positions[spread], evaluator)
    scale, checked = pick(found[:, 1:], found[:, 0])
    exact, positions = found[:, 1 + checked], task.positions[spread[checked]]

    def error(field: int) -> float:
        narrow = replace(evaluator, field=field)
        if _gain(task, evaluator, narrow) < LEAST_GAIN:
            return 0.0  # so little is cut that the exact evaluator serves
        return largest_share(scores(positions, narrow)[:, 1:] - exact, scale)

    return error


def pick(exact: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what errors are shares of, and which positions are checked.

    Args:
        exact: (N, positions, K).
        clean: (N, K), scores of the images as they are.

    Returns:
        The scale of every image, (N,); and the positions, ascending, that change the scores most,
        relative to that scale, in any image.
    """
    change = np.abs(exact - clean[:, None]).max(2)
    scale = np.maximum(change.max(1), LEAST_CHANGE * np.abs(clean).max(1))
    relative = np.divide(
        change, scale[:, None], out=np.zeros_like(change), where=scale[:, None] > 0
    )
    return scale, np.sort(np.argsort(-relative.max(0), kind="stable")[:CHECKED])


def largest_share(wrong: np.ndarray, scale: np.ndarray) -> float:
    """Return max |wrong| / scale, of errors (N, positions, K) and scales (N,); NaN is infinite."""
    wrong = np.abs(wrong).max((1, 2))
    share = np.divide(wrong, scale, out=np.where(wrong == 0, 0.0, np.inf), where=scale > 0)
    return float(np.where(np.isnan(share), np.inf, share).max())
