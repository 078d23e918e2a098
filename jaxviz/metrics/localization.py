"""Whether a map points at an object whose place is known; no scorer is asked.

It tells where a map points, not whether the scorer looks there: a network may recognise a boat by
the water.
"""

from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from jaxviz.metrics.maps import Maps, as_given, read_maps
from jaxviz.scoring.arguments import as_pixels


def pointing_game(maps: Maps, masks: Any, *, tolerance: float = 0.0) -> np.ndarray:
    """Whether the largest value of a map lies in the object's mask, or near it.

    Of several largest values the first counts, row by row.

    Args:
        maps: (N, H, W), (H, W), or a result of `occlude` or `attribution`.
        masks: bool (N, H, W) or (H, W), True on the object.
        tolerance: how far from the mask still counts, in pixels between their middles; 15 is usual
            for images of 224×224.

    Returns:
        float64 (N,), 1 hit and 0 missed; () for a single map; NaN for a constant map, which points
        nowhere.

    Raises:
        ValueError: a mask is empty or of another shape, or a map holds NaN.

    Example:
        >>> pointing_game(np.asarray([[0.0, 3.0], [1.0, 2.0]]), np.asarray([[0, 1], [0, 0]])).item()
        1.0

    Source: J. Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016,
    arXiv:1608.00507.
    """
    array, single = read_maps(maps)
    inside = _masks(masks, array.shape)
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0 pixels: got {tolerance}.")
    hits = [_hit(values, mask, tolerance) for values, mask in zip(array, inside, strict=True)]
    return as_given(np.asarray(hits), single)


def _hit(values: np.ndarray, mask: np.ndarray, tolerance: float) -> float:
    if values.min() == values.max():
        return np.nan
    at = np.unravel_index(np.argmax(values), values.shape)
    return float(distance_transform_edt(~mask)[at] <= tolerance)  # pyright: ignore


def energy_pointing_game(maps: Maps, masks: Any) -> np.ndarray:
    """The share of a map's positive sum that lies in the object's mask.

    Args:
        maps: see `pointing_game`.
        masks: see `pointing_game`.

    Returns:
        float64 (N,), in [0, 1]; () for a single map; NaN for a map without a positive value.

    Raises:
        ValueError: see `pointing_game`.

    Example:
        >>> both = np.asarray([[0.0, 3.0], [-1.0, 1.0]]), np.asarray([[0, 1], [0, 0]])
        >>> energy_pointing_game(*both).item()
        0.75

    Source: H. Wang et al., Score-CAM, 2020, arXiv:1910.01279.
    """
    array, single = read_maps(maps)
    positive = np.maximum(array, 0)
    positive = positive / np.maximum(positive.max((1, 2), keepdims=True), np.finfo(float).tiny)
    inside = np.sum(positive, (1, 2), where=_masks(masks, array.shape))
    total = positive.sum((1, 2))
    shares = np.divide(inside, total, out=np.full_like(total, np.nan), where=total > 0)
    return as_given(shares, single)


def _masks(masks: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(as_pixels(masks, "masks"))
    array = array[None] if array.ndim == 2 else array
    binary = array.dtype == bool or (array.dtype.kind in "iu" and set(np.unique(array)) <= {0, 1})
    if array.shape != shape or not binary:
        raise ValueError(
            f"`masks` must be bool, one per map, {shape}: got {array.dtype} of shape {array.shape}."
        )
    empty = np.flatnonzero(~array.any((1, 2)))
    if empty.size:
        raise ValueError(f"`masks` must each hold a pixel of the object: {empty[0]} is empty.")
    return array.astype(bool)
