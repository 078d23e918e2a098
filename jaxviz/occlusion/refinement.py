"""Coarse to fine: score a part of the grid, and interpolate where the scores hardly vary.

An approximation, and labelled as one: which positions are exact is part of the result.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxviz.scoring.arguments import checked_refinement


class Refinement(NamedTuple):
    """How much of a grid is scored.

    Attributes:
        factor: first, every factor-th row and column of positions, and the last ones.
        share: then, of all positions, this share: where the coarse scores around vary most.
    """

    factor: int
    share: float


def check_refinement(refine: tuple[int, float]) -> Refinement:
    """Return `refine` as a `Refinement`.

    Raises:
        ValueError: it is no such pair, the factor is below 2, or the share is not in [0, 1].
    """
    return Refinement(*checked_refinement(refine))


def coarse_to_fine(
    score: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int], refinement: Refinement
) -> tuple[np.ndarray, np.ndarray]:
    """Score the positions of one image, coarse to fine.

    Args:
        score: scores some positions, given as indices (rows, cols) of shape (M, 2): (M, ..., K).
        shape: (rows, cols) of the grid.
        refinement: how much of it is scored.

    Returns:
        scores (rows, cols, ..., K), exact or interpolated linearly between coarse ones; and which
        of are exact, bool (rows, cols).
    """
    rows, cols = (_every(refinement.factor, count) for count in shape)
    exact = np.zeros(shape, bool)
    exact[np.ix_(rows, cols)] = True
    coarse = score(np.argwhere(exact))
    coarse = coarse.reshape(len(rows), len(cols), *coarse.shape[1:])
    up, along = _between(rows, shape[0]), _between(cols, shape[1])
    scores = np.einsum("ir,jc,rc...->ij...", up, along, coarse).astype(coarse.dtype)
    finer = _most_varied(coarse, rows, cols, exact, round(refinement.share * exact.size))
    if len(finer):
        scores[finer[:, 0], finer[:, 1]] = score(finer)
        exact[finer[:, 0], finer[:, 1]] = True
    return scores, exact


def _every(factor: int, count: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, count, factor), count - 1))


def _between(known: np.ndarray, count: int) -> np.ndarray:
    """(count, known) weights of linear interpolation between the known indices."""
    units = np.eye(len(known))
    return np.stack([np.interp(np.arange(count), known, unit) for unit in units], 1)


def _most_varied(
    coarse: np.ndarray, rows: np.ndarray, cols: np.ndarray, exact: np.ndarray, count: int
) -> np.ndarray:
    """The positions not yet exact, (count, 2), where the coarse scores around them vary most."""
    low, right = min(1, len(rows) - 1), min(1, len(cols) - 1)
    height, width = len(rows) - low, len(cols) - right
    # Coarse positions are the corners of boxes; how much scores vary in a box is the range, max −
    # min, over its four corners, summed over the classes.
    corners = [coarse[i : i + height, j : j + width] for i in {0, low} for j in {0, right}]
    varied = np.ptp(np.stack(corners), axis=0).reshape(height, width, -1).sum(-1)
    # The box in which each position lies, the last corner belonging to the last box.
    box_rows = np.clip(np.searchsorted(rows, np.arange(exact.shape[0]), "right") - 1, 0, height - 1)
    box_cols = np.clip(np.searchsorted(cols, np.arange(exact.shape[1]), "right") - 1, 0, width - 1)
    rank = np.where(exact, -1.0, varied[np.ix_(box_rows, box_cols)])
    most = np.argsort(-rank, axis=None, kind="stable")[: min(count, int((~exact).sum()))]
    return np.stack(np.unravel_index(np.sort(most), exact.shape), -1)
