"""The parts of an image that a metric changes at once: pixels, cells of a grid, or segments.

Parts are a label image, int (H, W) for all images or (N, H, W), each image's own.
"""

from typing import Any

import numpy as np

from jaxviz._arguments import Pair, pair

By = int | Pair | np.ndarray | None


def parts_of(by: By, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the number of every pixel's part, int32 (N, H, W), from 0 in each image.

    Args:
        by: None, every pixel; a whole number or a (rows, cols) pair, cells of that many pixels, the
            last ones cut off at the edge; or labels, integers (H, W) or (N, H, W).
        shape: (N, H, W) of the images.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    _, height, width = shape
    if by is None:
        labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    elif np.ndim(by) < 2:
        given: Any = by
        rows, cols = pair(given, "by", least=1)
        labels = cells(_tiles(height, rows), _tiles(width, cols))
    else:
        labels = _segments(np.asarray(by), shape)
    return np.broadcast_to(labels, shape)


def _tiles(size: int, tile: int) -> np.ndarray:
    return np.arange(size, dtype=np.int32) // tile


def evenly(size: int, count: int) -> np.ndarray:
    """Return which of `count` equal stretches each of `size` pixels lies in, int32 (size,)."""
    return np.arange(size, dtype=np.int32) * count // size


def cells(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return the number of every cell, row by row, from the numbers of its row and column."""
    return rows[:, None] * (cols.max() + 1) + cols[None, :]


def _segments(labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.shape not in (shape, shape[1:]):
        raise ValueError(
            f"`by` must be None, a number of pixels, or integer labels {shape[1:]} or {shape}:"
            f" got {labels.dtype} of shape {labels.shape}."
        )
    if labels.ndim == 2:
        return _numbered(labels)
    return np.stack([_numbered(each) for each in labels])


def _numbered(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def means(maps: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return maps (N, H, W) in which every pixel has the mean of its part, float64."""
    return np.stack([_mean(values, each) for values, each in zip(maps, parts, strict=True)])


def _mean(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    count = np.bincount(parts.ravel())
    if len(count) == parts.size:  # every pixel is a part
        return values
    return (np.bincount(parts.ravel(), values.ravel()) / count)[parts]


def sums(maps: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the sum of maps (N, H, W) over each part of (H, W), float64 (N, P)."""
    count = int(parts.max()) + 1
    return np.stack([np.bincount(parts.ravel(), m.ravel(), minlength=count) for m in maps])
