"""Segments of each image's own: as many segmentations as images, read together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxviz._arguments import Pair
from jaxviz._choices import Reduce
from jaxviz.perturbation.segments import Segments, make_segments
from jaxviz.perturbation.traced import as_floats, namespace


@dataclass(frozen=True)
class Segmentations:
    """One `Segments` for each image; positions are counted up to the largest number of groups.

    Attributes:
        each: the segments of every image, all of one size.

    Example:
        >>> two = Segmentations((make_segments(np.array([[0, 1]])), make_segments([[3, 3]])))
        >>> two.shape, two.spread(np.array([[1.0, 2.0], [5.0, np.nan]])).tolist()
        ((2,), [[[1.0, 2.0]], [[5.0, 5.0]]])
    """

    each: tuple[Segments, ...]

    @property
    def image_shape(self) -> Pair:
        """(height, width)."""
        return self.each[0].image_shape

    @property
    def shape(self) -> tuple[int]:
        """(groups,): how many positions the image with most of them has."""
        return (max(len(one.groups) for one in self.each),)

    @property
    def present(self) -> np.ndarray:
        """Which of the positions each image has, bool (N, groups)."""
        counts = np.array([len(one.groups) for one in self.each])
        return np.arange(self.shape[0]) < counts[:, None]

    @property
    def coverage(self) -> np.ndarray:
        """How many groups cover each pixel, int32 (N, height, width)."""
        return np.stack([one.coverage for one in self.each])

    def spread(
        self, values: np.ndarray, reduce: Reduce = "mean", *, weights: object = None
    ) -> np.ndarray:
        """Turn one value per group into one value per pixel, image by image.

        Args:
            values: (..., N, groups), or (groups,) for all images alike; see `Segments.spread`.
            reduce: see `Segments.spread`.
            weights: for grids only.

        Returns:
            (..., N, height, width), see `Segments.spread`.

        Raises:
            ValueError: `reduce` is "bilinear" or "stretch", or `weights` are given.
        """
        values = as_floats(values)
        xp = namespace(values)
        values = xp.broadcast_to(values, (*values.shape[:-2], *self.present.shape))
        rows = [
            one.spread(values[..., n, : len(one.groups)], reduce, weights=weights)
            for n, one in enumerate(self.each)
        ]
        return xp.stack(rows, -3)

    def __str__(self) -> str:
        counts = [len(one.groups) for one in self.each]
        least, most = min(counts), max(counts)
        several = str(most) if least == most else f"{least} to {most}"
        return f"{several} segment{'s' * (most != 1)} an image"


def as_segments(
    labels: Any, groups: Sequence[int | Sequence[int]] | None = None
) -> Segments | Segmentations:
    """Return what labels stand for: one segmentation for all images, or one for each.

    Args:
        labels: integers (H, W), for all images; (N, H, W), each image's own; `Segments`; or a
            sequence of N of these, whose groups may differ.
        groups: see `make_segments`; of labels alone.

    Returns:
        The segments.

    Raises:
        ValueError: see `make_segments`; or groups are given twice, or sizes differ.
    """
    several = isinstance(labels, list | tuple) and bool(labels)
    given: tuple[Any, ...] = tuple(labels) if several else (labels,)
    made = [isinstance(one, Segments) for one in given]
    if any(made):
        if not all(made) or groups is not None:
            got = "`groups` too" if groups is not None else "arrays among them"
            raise ValueError(f"`labels` must be arrays, or jaxviz.Segments with groups: got {got}.")
        shapes = sorted({one.image_shape for one in given})
        if len(shapes) > 1:
            got = ", ".join(map(str, shapes))
            raise ValueError(f"`labels` must be images of one size: got {got}.")
        return Segmentations(given) if several else given[0]
    array = np.asarray(labels)
    if array.ndim == 3 and len(array):
        return Segmentations(tuple(make_segments(one, groups) for one in array))
    return make_segments(array, groups)
