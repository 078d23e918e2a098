"""Score a grid of positions: all that are wanted, or coarse to fine."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxviz.occlusion.found import Found
from jaxviz.occlusion.refinement import Refinement, Stages, make_stages
from jaxviz.perturbation.grid import Grid
from jaxviz.progress import Progress
from jaxviz.scoring.execute import execute, execute_in_rounds
from jaxviz.scoring.task import Task

ROUNDS = 4  # a heuristic: each waits for the one before


def score_all(task: Task, wanted: np.ndarray, batch_size: Any, progress: Progress) -> Found:
    """Score the positions of a task, the `wanted` (rows, cols) ones of a grid; NaN elsewhere."""
    run = execute(task, batch_size=batch_size, progress=progress)
    values = run.values
    scores = np.full((len(values), *wanted.shape, *values.shape[2:]), np.nan, values.dtype)
    scores[:, wanted] = values[:, 1:]
    return Found(scores, values[:, 0], [values], run.partial)


def score_refined(
    task: Task, grid: Grid, refinement: Refinement, batch_size: Any, progress: Progress
) -> Found:
    """Score a grid coarsely, and finer where that varies most; the rest is interpolated."""
    stages = make_stages(grid.shape, refinement)
    coarse, by_rank = stages.coarse, refinement.error is not None
    # Those around which scores vary least come last, and are what the rest is most like.
    finer = np.zeros((len(task.images), stages.count, 2), int)
    counts = [len(part) for part in np.array_split(finer[0], ROUNDS if by_rank else 1)]
    ends = np.cumsum(counts)
    asked = np.zeros(len(task.images), int)
    errors = np.full(len(task.images), np.nan)

    def then(n: int, number: int, values: np.ndarray) -> np.ndarray | None:
        if number == 0:
            finer[n] = stages.finer(values[1:], by_rank=by_rank)
        elif refinement.error is not None:
            last = slice(ends[number - 1] - counts[number - 1], ends[number - 1])
            errors[n] = _interpolation_error(stages, values, finer[n], last)
            if errors[n] <= refinement.error:
                return None
        asked[n] = ends[number]
        return grid.starts[*finer[n, asked[n] - counts[number] : asked[n]].T]

    some = replace(task, positions=grid.starts[*coarse.T])
    run = execute_in_rounds(some, counts, then, batch_size=batch_size, progress=progress)
    scores, exact = [], np.zeros((len(task.images), *grid.shape), bool)
    for n, all_values in enumerate(run.values):
        values = all_values[1 : 1 + len(coarse) + asked[n]]
        scored = ~np.isnan(values.reshape(len(values), -1)).all(-1) | (not run.partial)
        first, fine = np.split(values, [len(coarse)])
        known, some_finer = scored[len(coarse) :], finer[n, : asked[n]]
        scores.append(stages.scores(first, some_finer[known], fine[known]))
        exact[n][*np.concatenate([coarse, some_finer])[scored].T] = True
        if not run.partial:
            last = slice(asked[n] - _of_the_last_round(counts, asked[n]), asked[n])
            values = all_values[: 1 + len(coarse) + asked[n]]
            errors[n] = _interpolation_error(stages, values, some_finer, last)
    values = [run.values[n, : 1 + len(coarse) + asked[n]][None] for n in range(len(asked))]
    return Found(np.stack(scores), run.values[:, 0], values, run.partial, exact, errors)


def _of_the_last_round(counts: Sequence[int], asked: int) -> int:
    ends = np.cumsum(counts)
    return counts[int(np.searchsorted(ends, asked))] if asked else 0


def _interpolation_error(
    stages: Stages, values: np.ndarray, finer: np.ndarray, last: slice
) -> float:
    """Return how far interpolation was off at some positions: the largest error of any score, as a
    share of the largest change of any score of the image; NaN where there are none.

    Args:
        stages: of the grid.
        values: scores of the clean image, of the coarse positions and of finer ones.
        finer: the finer positions, by row and column.
        last: which of them.
    """
    coarse, fine = np.split(values[1:], [len(stages.coarse)])
    if not len(fine[last]):
        return float("nan")
    between = stages.scores(coarse, finer[:0], fine[:0])[*finer[last].T]
    with np.errstate(invalid="ignore"):
        wrong = np.abs(fine[last].astype(np.float64) - between).max()
        change = np.abs(values[1:].astype(np.float64) - values[0]).max()
    return float(wrong / change) if change else 0.0
