"""What a map looks like by itself: no scorer is asked."""

import numpy as np

from jaxviz.metrics.maps import Maps, as_given, read_maps


def sparseness(maps: Maps) -> np.ndarray:
    """Gini index of the magnitudes: 0, all pixels alike, to 1 − 1/P, all in one of P pixels.

    Σ_i (2i − P − 1)·a_i / (P·Σ a), with a the magnitudes in ascending order and i from 1.

    Args:
        maps: (N, H, W), (H, W), or a result of `occlude` or `attribution`.

    Returns:
        float64 (N,); () for a single map; NaN for a map of zeros.

    Raises:
        ValueError: a map holds NaN.

    Example:
        >>> sparseness(np.asarray([[0.0, 0.0], [0.0, 1.0]])).item()
        0.75

    Source: P. Chalasani et al., Concise Explanations of Neural Networks using Adversarial
    Training, 2020, arXiv:1810.06583.
    """
    magnitudes, single = _magnitudes(maps)
    ascending = np.sort(magnitudes, -1)
    count = ascending.shape[-1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return as_given(_ratio(ascending @ weights, count * ascending.sum(-1)), single)


def complexity(maps: Maps) -> np.ndarray:
    """Entropy of the magnitudes as shares of their sum: 0, one pixel, to log P, all P alike.

    −Σ p·log p, with p = |a| / Σ |a|, in nats.

    Args:
        maps: see `sparseness`.

    Returns:
        float64 (N,); () for a single map; NaN for a map of zeros.

    Raises:
        ValueError: a map holds NaN.

    Example:
        >>> complexity(np.ones((2, 2))).round(4).item()  # log 4
        1.3863

    Source: U. Bhatt, A. Weller and J. Moura, Evaluating and Aggregating Feature-based Model
    Explanations, 2020, arXiv:2005.00631.
    """
    magnitudes, single = _magnitudes(maps)
    shares = _ratio(magnitudes, magnitudes.sum(-1, keepdims=True))
    logs = np.log(np.where(shares > 0, shares, 1))
    return as_given(-np.sum(shares * logs, -1) + 0.0, single)


def _magnitudes(maps: Maps) -> tuple[np.ndarray, bool]:
    array, single = read_maps(maps)
    magnitudes = np.abs(array).reshape(len(array), -1)
    largest = magnitudes.max(-1, keepdims=True)
    return magnitudes / np.where(largest > 0, largest, 1), single  # so that no sum overflows


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
