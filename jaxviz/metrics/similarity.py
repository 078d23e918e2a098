"""How alike two maps are: structure, ranks, direction. NaN where one of both is constant."""

import numpy as np
from scipy.ndimage import gaussian_filter

from jaxviz.metrics.statistics import spearman

SIGMA, TRUNCATE = 1.5, 3.5  # a window of 11×11, as in the paper
K1, K2 = 0.01, 0.03


def similarities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Return SSIM, Spearman's ρ and the cosine of maps (N, H, W), each float64 (N,)."""
    flat = (first.reshape(len(first), -1), second.reshape(len(second), -1))
    return {"ssim": ssim(first, second), "spearman": spearman(*flat), "cosine": cosine(*flat)}


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean structural similarity of maps, each divided by its largest magnitude.

    Σ over pixels of (2μν + C₁)(2σ₁₂ + C₂) / ((μ² + ν² + C₁)(σ₁² + σ₂² + C₂)) / P, by a Gaussian
    window of σ 1.5 pixels, cut at 5, mirrored at the edge; C = (K·L)², K₁ .01, K₂ .03, and L from
    the least to the greatest value of both.

    Args:
        first: (N, H, W).
        second: (N, H, W).

    Returns:
        float64 (N,), in [−1, 1].

    Source: Z. Wang et al., Image Quality Assessment, 2004, doi:10.1109/TIP.2003.819861.
    """
    x, y = _scaled(first), _scaled(second)
    span = np.maximum(_most(x), _most(y)) - np.minimum(_least(x), _least(y))
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    mx, my = _window(x), _window(y)
    vx, vy, both = _window(x * x) - mx**2, _window(y * y) - my**2, _window(x * y) - mx * my
    above = (2 * mx * my + c1) * (2 * both + c2)
    constant = (_least(x) == _most(x)) | (_least(y) == _most(y))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.mean(above / ((mx**2 + my**2 + c1) * (vx + vy + c2)), (1, 2))
    return np.where(constant[:, 0, 0], np.nan, found)


def _least(values: np.ndarray) -> np.ndarray:
    return values.min((1, 2), keepdims=True)


def _most(values: np.ndarray) -> np.ndarray:
    return values.max((1, 2), keepdims=True)


def _scaled(values: np.ndarray) -> np.ndarray:
    largest = _most(np.abs(values))
    return values / np.where(largest > 0, largest, 1)


def _window(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, (0, SIGMA, SIGMA), truncate=TRUNCATE, mode="reflect")


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return x·y / (‖x‖·‖y‖) along the last axis; NaN where one of both is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        return np.where(lengths > 0, np.sum(first * second, -1) / lengths, np.nan)
