"""Score a grid of positions: all that are wanted, or coarse to fine."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxviz.occlusion.found import Found
from jaxviz.occlusion.refinement import Refinement, Stages, make_stages
from jaxviz.perturbation.grid import Grid
from jaxviz.progress import Progress
from jaxviz.scoring.compiled import halve
from jaxviz.scoring.execute import OnError, execute, execute_in_rounds
from jaxviz.scoring.task import Task

ROUNDS = 4  # a heuristic: each waits for the one before


def score_all(
    task: Task,
    wanted: np.ndarray,
    batch_size: Any,
    progress: Progress,
    *,
    on_error: OnError = halve,
) -> Found:
    """Score the positions of a task, the `wanted` (rows, cols) ones of a grid; NaN elsewhere."""
    run = execute(task, batch_size=batch_size, progress=progress, on_error=on_error)
    values = run.values
    scores = np.full((len(values), *wanted.shape, *values.shape[2:]), np.nan, values.dtype)
    scores[:, wanted] = values[:, 1:]
    return Found(scores, values[:, 0], [values], run.partial)


def score_refined(
    task: Task,
    grid: Grid,
    refinement: Refinement,
    batch_size: Any,
    progress: Progress,
    *,
    on_error: OnError = halve,
) -> Found:
    """Score a grid coarsely, and finer where that varies most; the rest is interpolated."""
    stages = make_stages(grid.shape, refinement)
    coarse, most = stages.coarse, refinement.error
    # Those around which scores vary least come last, and are what the rest is most like.
    finer = np.zeros((len(task.images), stages.count, 2), int)
    parts = [len(part) for part in np.array_split(finer[0], ROUNDS)]
    counts = [stages.count] if most is None else parts
    asked = np.zeros(len(task.images), int)

    def last_error(n: int, values: np.ndarray) -> float:
        last = slice(max(0, asked[n] - parts[0]), asked[n])
        return interpolation_error(stages, values, finer[n], last)

    def then(n: int, number: int, values: np.ndarray) -> np.ndarray | None:
        if number == 0:
            finer[n] = stages.finer(values[1:], by_rank=True)
        elif most is not None and last_error(n, values) <= most:
            return None
        begin = asked[n]
        asked[n] += counts[number]
        return grid.starts[*finer[n, begin : asked[n]].T]

    some = replace(task, positions=grid.starts[*coarse.T])
    run = execute_in_rounds(
        some, counts, then, batch_size=batch_size, progress=progress, on_error=on_error
    )
    scores, exact = [], np.zeros((len(task.images), *grid.shape), bool)
    errors = np.full(len(task.images), np.nan)
    values = [row[: 1 + len(coarse) + count] for row, count in zip(run.values, asked, strict=True)]
    for n, row in enumerate(values):
        scored = ~np.isnan(row[1:].reshape(len(row) - 1, -1)).all(-1) | (not run.partial)
        first, fine = np.split(row[1:], [len(coarse)])
        known, asked_for = scored[len(coarse) :], finer[n, : asked[n]]
        scores.append(stages.scores(first, asked_for[known], fine[known]))
        exact[n][*np.concatenate([coarse, asked_for])[scored].T] = True
        if scored.all():
            errors[n] = last_error(n, row)
    blocks = [row[None] for row in values]
    return Found(np.stack(scores), run.values[:, 0], blocks, run.partial, exact, errors)


def interpolation_error(
    stages: Stages, values: np.ndarray, finer: np.ndarray, last: slice
) -> float:
    """Return how far interpolation was off at some positions: the largest error of any score, as a
    share of the largest change of any score of the image; of what is finite, NaN where nothing is.

    Args:
        stages: of the grid.
        values: scores of the clean image, of the coarse positions and of finer ones.
        finer: the finer positions, by row and column.
        last: which of them.
    """
    coarse, fine = np.split(values[1:], [len(stages.coarse)])
    between = stages.scores(coarse, finer[:0], fine[:0])[*finer[last].T]
    with np.errstate(invalid="ignore"):  # ∞ − ∞ has no value
        wrong = np.abs(fine[last].astype(np.float64) - between)
        change = np.abs(values[1:].astype(np.float64) - values[0])
    wrong, change = wrong[np.isfinite(wrong)], change[np.isfinite(change)]
    if not wrong.size:
        return float("nan")
    return float(wrong.max() / change.max()) if change.max(initial=0) else 0.0
