"""Positions of any shape: an integer label image, and which labels each position occludes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxviz._arguments import Pair
from jaxviz._choices import Reduce
from jaxviz.perturbation.traced import as_floats, average, namespace, product


@dataclass(frozen=True, eq=False)
class Segments:
    """Groups of labelled pixels, such as superpixels; each group is a position.

    Attributes:
        labels: int64 (height, width), the label of every pixel, from 0.
        groups: the labels that each position occludes at once.

    Example:
        >>> halves = make_segments(np.array([[0, 0, 7, 7]]))
        >>> halves.groups, halves.spread(np.array([1.0, 2.0])).tolist()
        (((0,), (7,)), [[1.0, 1.0, 2.0, 2.0]])
    """

    labels: np.ndarray
    groups: tuple[tuple[int, ...], ...]

    @property
    def image_shape(self) -> Pair:
        """(height, width)."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def shape(self) -> tuple[int]:
        """(groups,): how many positions there are."""
        return (len(self.groups),)

    @cached_property
    def indices(self) -> np.ndarray:
        """The rank of every pixel's label among the labels of the image, int32 (height, width)."""
        _, ranks = np.unique(self.labels, return_inverse=True)
        return ranks.reshape(self.labels.shape).astype(np.int32)

    @cached_property
    def table(self) -> np.ndarray:
        """Which labels, by rank, each group holds: bool (groups, labels)."""
        return np.stack([np.isin(np.unique(self.labels), group) for group in self.groups])

    @cached_property
    def boxes(self) -> np.ndarray:
        """The least rectangle around each group: int32 (groups, 4), top, left, height, width."""
        found = []
        for row in self.table:
            hidden = row[self.indices]
            down, across = (np.flatnonzero(hidden.any(axis)) for axis in (1, 0))
            found.append((down[0], across[0], np.ptp(down) + 1, np.ptp(across) + 1))
        return np.array(found, np.int32)

    @property
    def coverage(self) -> np.ndarray:
        """How many groups cover each pixel, int32 (height, width)."""
        return self.table.sum(0, dtype=np.int32)[self.indices]

    def spread(
        self, values: np.ndarray, reduce: Reduce = "mean", *, weights: object = None
    ) -> np.ndarray:
        """Turn one value per group into one value per pixel.

        Args:
            values: (..., groups), may be traced; NaN marks a group without a value, an infinite one
                makes its pixels infinite.
            reduce: "mean" or "sum" over the groups that cover a pixel, or "cell": the first of
                them.
            weights: for grids only.

        Returns:
            float64 (..., height, width), or of the values' dtype if they are traced; NaN where no
            group with a value covers the pixel.

        Raises:
            ValueError: `reduce` is "bilinear" or "stretch", or `weights` are given.
        """
        if reduce not in ("mean", "sum", "cell") or weights is not None:
            raise ValueError(
                '`reduce` must be "mean", "sum" or "cell", without weights, for segments:'
                f" got {reduce!r}."
            )
        values = as_floats(values)
        xp = namespace(values)
        if reduce == "cell":  # a label of no group reads the NaN that is put behind the values
            first = np.where(self.table.any(0), self.table.argmax(0), len(self.groups))
            nobody = xp.full_like(values[..., :1], np.nan)
            return xp.concatenate([values, nobody], -1)[..., first][..., self.indices]
        # Per label first, (groups) @ (groups, labels), then every pixel looks up its own.
        table = self.table.astype(np.float64)
        per_label = average(lambda values: product(values, table), values, divide=reduce == "mean")
        return per_label[..., self.indices]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segments):
            return NotImplemented
        return self.groups == other.groups and np.array_equal(self.labels, other.labels)

    def __hash__(self) -> int:
        return hash((self.groups, self.labels.shape, self.labels.tobytes()))

    def __str__(self) -> str:
        return f"{len(self.groups)} segment{'s' * (len(self.groups) != 1)}"


def make_segments(
    labels: np.ndarray, groups: Sequence[int | Sequence[int]] | None = None
) -> Segments:
    """Lay out one position per label, or per group of labels.

    Args:
        labels: integers (height, width), at least 0.
        groups: what each position occludes: a label, or several at once. None: each label by
            itself.

    Returns:
        The segments.

    Raises:
        ValueError: `labels` is not such an image, or a group names a label that it does not hold.

    Example:
        >>> make_segments(np.array([[0, 0, 7, 9]]), [0, [7, 9]]).groups
        ((0,), (7, 9))
    """
    image = np.asarray(labels)
    if image.ndim != 2 or image.dtype.kind not in "iu" or image.size == 0 or image.min() < 0:
        raise ValueError(
            "`labels` must be integers of at least 0, (height, width):"
            f" got {image.dtype} of shape {image.shape}."
        )
    present = np.unique(image).tolist()
    listed: Any = present if groups is None else groups
    listed = listed if np.iterable(listed) else [[]]
    several: tuple[tuple[Any, ...], ...]
    several = tuple(tuple(g) if isinstance(g, list | tuple | np.ndarray) else (g,) for g in listed)
    known, kinds = set(present), int | np.integer
    named = [label for group in several for label in group]
    unknown = [label for label in named if not isinstance(label, kinds) or int(label) not in known]
    if unknown or not several or not all(several):
        got = unknown or "an empty group"
        raise ValueError(f"`groups` must name labels of the image: got {got}.")
    whole = tuple(tuple(int(label) for label in group) for group in several)
    return Segments(image.astype(np.int64), whole)
