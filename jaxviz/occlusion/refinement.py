"""Coarse to fine: score a part of the grid, and interpolate where the scores hardly vary.

An approximation, and labelled as one: which positions are exact is part of the result.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxviz.perturbation.filters import neighbours
from jaxviz.scoring.arguments import checked_refinement


class Refinement(NamedTuple):
    """How much of a grid is scored.

    Attributes:
        factor: first, every factor-th row and column of positions, and the last ones.
        share: then, of all positions, this share: where the coarse scores around vary most.
        error: scored in rounds, which end once interpolation was off by no more than this share of
            the largest change at the positions of one; None: all are scored.
    """

    factor: int
    share: float
    error: float | None = None


Refine = tuple[int, float] | tuple[int, float, float]


def check_refinement(refine: Refine) -> Refinement:
    """Return `refine` as a `Refinement`.

    Raises:
        ValueError: it is nothing like it, the factor is below 2, or a share is not in [0, 1].
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

    def finer(self, coarse: Any, *, by_rank: bool = False, xp: Any = np) -> Any:
        """Return the positions to score next, (count, 2): where the coarse scores around them vary
        most; not known and infinite ones vary infinitely.

        Args:
            coarse: the scores of `coarse`, (M, ..., K).
            by_rank: those first around which they vary most, else in the order of the grid.
            xp: `numpy`, or `jax.numpy` where scores are traced.
        """
        corners = _wide(coarse.reshape(len(self.rows), len(self.cols), -1), xp)
        # Coarse positions are the corners of boxes; how much scores vary in a box is the range,
        # max − min, over its four corners, summed over the classes.
        low, right = min(1, len(self.rows) - 1), min(1, len(self.cols) - 1)
        height, width = len(self.rows) - low, len(self.cols) - right
        boxes = [corners[i : i + height, j : j + width] for i in {0, low} for j in {0, right}]
        with np.errstate(invalid="ignore"):
            varied = xp.nan_to_num(xp.ptp(xp.stack(boxes), axis=0).sum(-1), nan=np.inf)
        # The box in which each position lies, the last corner belonging to the last box.
        box_rows = np.clip(_before(self.rows, self.shape[0]), 0, height - 1)
        box_cols = np.clip(_before(self.cols, self.shape[1]), 0, width - 1)
        is_coarse = np.zeros(self.shape, bool)
        is_coarse[np.ix_(self.rows, self.cols)] = True
        rank = xp.where(is_coarse, -1.0, varied[np.ix_(box_rows, box_cols)])
        most = xp.argsort(-rank.reshape(-1), stable=True)[: self.count]
        return xp.stack(xp.unravel_index(most if by_rank else xp.sort(most), self.shape), -1)

    def scores(self, coarse: Any, finer: Any, fine: Any, *, xp: Any = np) -> Any:
        """Return the scores of all positions, (rows, cols, ..., K): those that were scored as they
        are, and between them linear in the coarse ones next to them.

        Args:
            coarse: the scores of `coarse`, (M, ..., K); NaN where one is not known.
            finer: what `finer` gave, (count, 2).
            fine: its scores, (count, ..., K).
            xp: see `finer`.
        """
        known = _wide(coarse.reshape(len(self.rows), len(self.cols), *coarse.shape[1:]), xp)
        by_rows = _between(known, self.rows, self.shape[0], 0, xp)
        scores = _between(by_rows, self.cols, self.shape[1], 1, xp).astype(coarse.dtype)
        at = (finer[:, 0], finer[:, 1])
        if xp is not np:
            return scores.at[at].set(fine)
        scores[at] = fine
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


def _wide(values: Any, xp: Any) -> Any:
    return values.astype(np.float64) if xp is np else values


def _between(values: Any, known: np.ndarray, count: int, axis: int, xp: Any) -> Any:
    """Interpolate along an axis; what has no share has no part: 0 · NaN is not added."""
    at = np.interp(np.arange(count), known, np.arange(len(known)))
    low, high, share = neighbours(at, len(known))
    others = tuple(n for n in range(values.ndim) if n != axis)
    share = np.expand_dims(share, others).astype(values.dtype)
    near, far = xp.take(values, low, axis), xp.take(values, high, axis)
    with np.errstate(invalid="ignore"):  # ∞ − ∞ has no value
        return xp.where(share == 0, near, (1 - share) * near + share * far)
