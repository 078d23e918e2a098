"""Correlations of rows of numbers, NaN where one of both is constant, and what they are made of."""

import numpy as np
from scipy.stats import rankdata

CONSTANT = 1e-12  # of a row's size: a spread below it is rounding


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation along the last axis; NaN where a row is constant or holds NaN.

    Args:
        x: (..., n).
        y: (..., n).

    Returns:
        float64 (...).
    """
    (x, sx), (y, sy) = _standard(x), _standard(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((sx > 0) & (sy > 0), np.sum(x * y, -1) / (sx * sy), np.nan)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation of ranks, equal values sharing their mean rank; see `pearson`."""
    ranked = (np.where(np.isnan(v), np.nan, rankdata(v, axis=-1)) for v in (x, y))
    return pearson(*ranked)


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The differences from the mean, and their length; 0 where they are rounding."""
    x = np.asarray(x, np.float64)
    size = np.abs(x).max(-1, initial=0)
    x = x - x.mean(-1, keepdims=True)
    length = np.sqrt(np.sum(x * x, -1))
    return x, np.where(length > CONSTANT * size * np.sqrt(x.shape[-1]), length, 0)
