"""Approximate windows: how far they may be cut short, found on a sample of every image.

Tolerance and error are shares, per image: of the largest |exact − clean| of any score over the
checked positions. Scores that change by less than a thousandth of the largest clean score count as
changing by that much, since rounding is all that is left of them.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from jaxviz.blocks import execute
from jaxviz.engines import LEAST_SPEED_UP, Dense, Engine, Incremental, choose_engines, operations
from jaxviz.geometry import Grid
from jaxviz.incremental.approximate import narrowest
from jaxviz.occluders import PatchOccluder
from jaxviz.programs import Task
from jaxviz.result import Approximation

CHECKED = 15  # with the clean image, as many rows as a CPU evaluates at once
LEAST_GAIN = 1.1  # in operations; windows that save less are not worth an error
LEAST_CHANGE = 1e-3  # of the largest clean score


def approximate_engines(
    method: str, grid: Grid, task: Task, tolerance: float, batch_size: int | str
) -> tuple[tuple[Engine, ...], Approximation]:
    """Return the engine whose windows are the narrowest that keep a tolerance.

    Args:
        method: "incremental" or "auto".
        grid: where the patches lie.
        task: scorer, images and positions.
        tolerance: largest error allowed, as a share, in [0, 1].
        batch_size: see `execute`.

    Returns:
        The engines, exact ones where no narrower windows keep the tolerance; and what was measured.

    Raises:
        ValueError: the tolerance is out of range, or nothing runs on windows.
    """
    exact = choose_engines(method, grid, task, task.device.platform)
    if method == "dense" or not isinstance(task.occluder, PatchOccluder):
        raise ValueError(
            "`tolerance` cuts windows short, which only patches have, and not with method"
            ' "dense": use `occlude` with method "auto" or "incremental".'
        )
    if not 0 <= tolerance <= 1:
        raise ValueError(
            f"`tolerance` must be a share of the largest change, from 0 to 1: got {tolerance}."
        )
    engine = Incremental.on_grid(grid)
    if method == "auto" and _gain(task, Dense(), replace(engine, field=0)) < LEAST_SPEED_UP:
        return exact, Approximation(tolerance, 0.0, 0, None)
    picked = np.linspace(0, len(task.positions) - 1, CHECKED).round().astype(int)
    sample = replace(task, positions=task.positions[np.unique(picked)])
    field, error = narrowest(_measure(sample, engine, batch_size), tolerance)
    narrow = replace(engine, field=field)
    if field is None or _gain(task, engine, narrow) < LEAST_GAIN:
        return exact, Approximation(tolerance, 0.0, len(sample.positions), None)
    return (narrow,), Approximation(tolerance, error, len(sample.positions), field)


def _gain(task: Task, slow: Dense | Incremental, fast: Incremental) -> float:
    """How many times fewer operations a position takes."""
    arrays = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in task.scorer.arrays)
    image = jax.ShapeDtypeStruct(task.images.shape[1:], task.images.dtype)
    dense, windows = operations(fast, task.scorer.call, arrays, image)
    if isinstance(slow, Incremental):
        dense = operations(slow, task.scorer.call, arrays, image)[1]
    return dense / max(1, windows)


def _measure(sample: Task, engine: Incremental, batch_size: int | str) -> Callable[[int], float]:
    """Return the function from a field to the largest error on the sample, over all images."""

    def scores(engine: Incremental) -> np.ndarray:
        run = execute(replace(sample, engines=(engine,)), batch_size=batch_size)
        if run.partial:
            raise KeyboardInterrupt
        return run.values.astype(np.float64)

    exact = scores(engine)

    def error(field: int) -> float:
        narrow = replace(engine, field=field)
        if _gain(sample, engine, narrow) < LEAST_GAIN:
            return 0.0  # so little is cut that the exact engine serves
        return largest_error(scores(narrow)[:, 1:], exact[:, 1:], exact[:, 0])

    return error


def largest_error(scores: np.ndarray, exact: np.ndarray, clean: np.ndarray) -> float:
    """Return the largest error of scores, as a share of the largest change, over all images.

    Args:
        scores: (N, positions, ..., K), approximate.
        exact: (N, positions, ..., K).
        clean: (N, ..., K), of the images as they are.

    Returns:
        max over n of max |scores − exact| / max(max |exact − clean|, max |clean| / 1000), in which
        every inner maximum is over image n; NaN counts as infinite.
    """
    wrong, change, size = (
        np.abs(x).reshape(len(clean), -1).max(1)
        for x in (scores - exact, exact - clean[:, None], clean)
    )
    scale = np.maximum(change, LEAST_CHANGE * size)
    share = np.divide(wrong, scale, out=np.where(wrong == 0, 0.0, np.inf), where=scale > 0)
    return float(np.where(np.isnan(share), np.inf, share).max())
