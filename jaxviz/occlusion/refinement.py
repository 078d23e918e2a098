"""Coarse to fine: score a part of the grid, and interpolate where the scores hardly vary.

An approximation, and labelled as one: which positions are exact is part of the result.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxviz.perturbation.filters import neighbours
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


@dataclass(frozen=True)
class Stages:
    """Which positions of a grid are scored, in two stages.

    Attributes:
        shape: (rows, cols) of the grid.
        rows: which of its rows are coarse, ascending.
        cols: which of its columns are.
        count: how many positions are scored besides the coarse ones.
    """

    shape: tuple[int, int]
    rows: np.ndarray
    cols: np.ndarray
    count: int

    @property
    def coarse(self) -> np.ndarray:
        """The coarse positions, as indices (M, 2)."""
        return np.stack(np.meshgrid(self.rows, self.cols, indexing="ij"), -1).reshape(-1, 2)

    def finer(self, coarse: np.ndarray) -> np.ndarray:
        """Return the positions to score next, (count, 2): where the coarse scores around them vary
        most; not known and infinite ones vary infinitely.

        Args:
            coarse: the scores of `coarse`, (M, ..., K).
        """
        corners = coarse.reshape(len(self.rows), len(self.cols), -1).astype(np.float64)
        # Coarse positions are the corners of boxes; how much scores vary in a box is the range,
        # max − min, over its four corners, summed over the classes.
        low, right = min(1, len(self.rows) - 1), min(1, len(self.cols) - 1)
        height, width = len(self.rows) - low, len(self.cols) - right
        boxes = [corners[i : i + height, j : j + width] for i in {0, low} for j in {0, right}]
        with np.errstate(invalid="ignore"):
            varied = np.nan_to_num(np.ptp(np.stack(boxes), axis=0).sum(-1), nan=np.inf)
        # The box in which each position lies, the last corner belonging to the last box.
        box_rows = np.clip(_before(self.rows, self.shape[0]), 0, height - 1)
        box_cols = np.clip(_before(self.cols, self.shape[1]), 0, width - 1)
        rank = varied[np.ix_(box_rows, box_cols)]
        rank[np.ix_(self.rows, self.cols)] = -1.0
        most = np.argsort(-rank, axis=None, kind="stable")[: self.count]
        return np.stack(np.unravel_index(np.sort(most), self.shape), -1)

    def scores(self, coarse: np.ndarray, finer: np.ndarray, fine: np.ndarray) -> np.ndarray:
        """Return the scores of all positions, (rows, cols, ..., K): those that were scored as they
        are, and between them linear in the coarse ones next to them.

        Args:
            coarse: the scores of `coarse`, (M, ..., K); NaN where one is not known.
            finer: what `finer` gave, (count, 2).
            fine: its scores, (count, ..., K).
        """
        known = coarse.reshape(len(self.rows), len(self.cols), *coarse.shape[1:])
        wide = _between(known.astype(np.float64), self.rows, self.shape[0], 0)
        scores = _between(wide, self.cols, self.shape[1], 1).astype(coarse.dtype)
        scores[np.ix_(self.rows, self.cols)] = known
        scores[finer[:, 0], finer[:, 1]] = fine
        return scores


def make_stages(shape: tuple[int, int], refinement: Refinement) -> Stages:
    """Return which positions of a grid of that shape are scored."""
    rows, cols = (_every(refinement.factor, size) for size in shape)
    left = shape[0] * shape[1] - len(rows) * len(cols)
    return Stages(shape, rows, cols, min(round(refinement.share * (shape[0] * shape[1])), left))


def _every(factor: int, count: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, count, factor), count - 1))


def _before(known: np.ndarray, count: int) -> np.ndarray:
    """For each index below count, which of the known ones is the last up to it."""
    return np.searchsorted(known, np.arange(count), "right") - 1


def _between(values: np.ndarray, known: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Interpolate along an axis; what has no share has no part: 0 · NaN is not added."""
    at = np.interp(np.arange(count), known, np.arange(len(known)))
    low, high, share = neighbours(at, len(known))
    share = np.expand_dims(share, tuple(range(1, values.ndim - axis)))
    near, far = np.take(values, low, axis), np.take(values, high, axis)
    with np.errstate(invalid="ignore"):  # ∞ − ∞ has no value
        return np.where(share == 0, near, (1 - share) * near + share * far)
