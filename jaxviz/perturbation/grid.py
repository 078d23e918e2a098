"""Where patches lie, and how scores of positions become values of pixels.

Integers and index arithmetic in NumPy: no model, no jit; values may be traced. Sizes and offsets
are `(row, col)` pairs of pixels. A position's *start* is the top-left corner of its patch and may
lie off the image; the patch is then clipped. Its *cell* is what it stands for: with a margin the
stride-sized tile that begins `margin` after the start, and without one the pixels that are nearest
to the middle of its patch, the outermost ones up to the patch's end. Everything is separable: rows
and columns never mix.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

from jaxviz._arguments import Pair, pair
from jaxviz._choices import Border, Reduce
from jaxviz.perturbation.filters import bilinear
from jaxviz.perturbation.traced import as_floats, average, namespace, product


@dataclass(frozen=True)
class Grid:
    """All starts of one run, laid out (rows, cols), on an image of (height, width).

    Along an axis of size D, with patch w, stride s and margin m, position j starts at j·s − m:

    - border "clip": until a patch reaches the far edge, j < ceil((D − w) / s) + 1, the last one cut
      off there (left out if it lies off the image, which takes s > w); with a margin, one position
      per cell, j < ceil(D / s);
    - border "valid": whole patches only, j < floor((D − w) / s) + 1;
    - border "shift": as many as "clip", the last one moved inside the image.

    Attributes:
        image_shape: (height, width) of the image, in pixels.
        patch: (rows, cols) of the patch, in pixels.
        stride: (rows, cols) from one start to the next, in pixels.
        margin: (rows, cols) by which the first patch starts before the image.
        border: "clip", "valid" or "shift".

    Example:
        >>> grid = make_grid((28, 28), patch=20, stride=4, margin=8)
        >>> grid.shape, grid.row_starts
        ((7, 7), (-8, -4, 0, 4, 8, 12, 16))
    """

    image_shape: Pair
    patch: Pair
    stride: Pair
    margin: Pair = (0, 0)
    border: Border = "clip"

    @cached_property
    def row_starts(self) -> tuple[int, ...]:
        """First image row of the patch, per grid row."""
        return self._axis_starts(0)

    @cached_property
    def col_starts(self) -> tuple[int, ...]:
        """First image column of the patch, per grid column."""
        return self._axis_starts(1)

    @property
    def shape(self) -> Pair:
        """(rows, cols): how many positions there are."""
        return len(self.row_starts), len(self.col_starts)

    @property
    def size(self) -> int:
        """rows · cols."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def starts(self) -> np.ndarray:
        """Start of every position, int32 (rows, cols, 2)."""
        both = np.meshgrid(self.row_starts, self.col_starts, indexing="ij")
        return np.stack(both, -1).astype(np.int32)

    @cached_property
    def cells(self) -> np.ndarray:
        """First row, first col, last row + 1, last col + 1 of every cell, int32 (rows, cols, 4)."""
        rows, cols = self._cell_edges(0), self._cell_edges(1)
        low = np.meshgrid(rows[:-1], cols[:-1], indexing="ij")
        high = np.meshgrid(rows[1:], cols[1:], indexing="ij")
        return np.stack([*low, *high], -1).astype(np.int32)

    @cached_property
    def coverage(self) -> np.ndarray:
        """How many patches cover each pixel, int32 (height, width)."""
        return np.outer(self._covers(0).sum(0), self._covers(1).sum(0)).astype(np.int32)

    def spread(
        self,
        values: np.ndarray,
        reduce: Reduce = "mean",
        *,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Turn one value per position into one value per pixel.

        mean: (Σ over the patches that cover the pixel) / (how many they are); sum: without the
        division; cell: the value of the pixel's own cell; bilinear: interpolated between the
        middles of the patches, constant beyond the outermost; stretch: the values resized to the
        image as if they were a picture of it, half-pixel centres, clamped at the edge.

        Args:
            values: (..., rows, cols), may be traced. A position whose value is NaN is left out, and
                the others count as if it were not there; an infinite one makes all infinite that it
                has a part in.
            reduce: "mean", "sum", "cell", "bilinear" or "stretch".
            weights: for mean and sum, how much each pixel of a patch counts, (patch rows, patch
                cols), at least 0. None: all 1.

        Returns:
            float64 (..., height, width), or of the values' dtype if they are traced; NaN where no
            position with a value covers the pixel.

        Raises:
            ValueError: `reduce` is none of the five, or `weights` have another shape.
        """
        values = as_floats(values)
        if reduce == "cell":
            return self._spread_cells(values)
        if reduce not in ("mean", "sum", "bilinear", "stretch"):
            raise ValueError(
                f'`reduce` must be "mean", "sum", "cell", "bilinear" or "stretch": got {reduce!r}.'
            )
        if reduce in ("mean", "sum"):
            return average(partial(self._add_up, weights), values, divide=reduce == "mean")
        between = self._between_middles if reduce == "bilinear" else self._stretched
        rows, cols = between(0), between(1)
        return average(lambda values: product(rows, values, cols.T), values, divide=True)

    def __str__(self) -> str:
        (rows, cols), (ph, pw), (sy, sx) = self.shape, self.patch, self.stride
        text = f"{rows}×{cols} positions, patch {ph}×{pw}, stride {sy}×{sx}"
        if any(self.margin):
            text += f", margin {self.margin[0]}×{self.margin[1]}"
        return text + f", {self.border}" * (self.border != "clip")

    def _axis_starts(self, axis: int) -> tuple[int, ...]:
        size, patch = self.image_shape[axis], self.patch[axis]
        stride, margin = self.stride[axis], self.margin[axis]
        if margin:  # one start a cell: cells tile the image from 0, patches begin before them
            return tuple(range(-margin, ceil(size / stride) * stride - margin, stride))
        last = size - patch
        if self.border == "valid":
            return tuple(range(0, last + 1, stride))
        starts = [j * stride for j in range(ceil(last / stride) + 1)]
        if self.border == "shift":
            return tuple(min(start, last) for start in starts)
        return tuple(start for start in starts if start < size)

    def _cell_edges(self, axis: int) -> list[int]:
        """Position j owns the pixels from edge j to j + 1."""
        starts = self.row_starts if axis == 0 else self.col_starts
        size, patch, margin = self.image_shape[axis], self.patch[axis], self.margin[axis]
        if margin:
            return [*(start + margin for start in starts), size]
        # Halfway between the middles of two patches, (a + patch/2 + b + patch/2) / 2.
        between = [(a + b + patch) // 2 for a, b in pairwise(starts)]
        return [0, *between, min(starts[-1] + patch, size)]

    def _between_middles(self, axis: int) -> np.ndarray:
        """Weights (pixels, positions) between the middles of the patches, start + patch / 2."""
        starts = self.row_starts if axis == 0 else self.col_starts
        middles = np.array(starts) + self.patch[axis] / 2
        pixels = np.arange(self.image_shape[axis]) + 0.5
        return bilinear(np.interp(pixels, middles, np.arange(len(starts))), len(starts))

    def _stretched(self, axis: int) -> np.ndarray:
        """Weights (pixels, positions): pixel i at (i + ½) · positions / pixels − ½."""
        count, size = self.shape[axis], self.image_shape[axis]
        return bilinear((np.arange(size) + 0.5) * count / size - 0.5, count)

    def _add_up(self, weights: np.ndarray | None, values: np.ndarray) -> np.ndarray:
        """Σ over positions of value · weight, at every pixel that the position's patch covers."""
        # Patches are rectangles, so covering is separable: Σ_ij R[i,y] v[i,j] C[j,x] = Rᵀ v C.
        if weights is None:
            return product(self._covers(0).T, values, self._covers(1))
        if np.shape(weights) != self.patch:
            raise ValueError(
                f"`weights` must have the patch's shape {self.patch}: got {np.shape(weights)}."
            )
        # Weights need not be, but each row of them is: Σ over the rows of a patch.
        weights = np.asarray(weights, np.float64)
        total: Any = 0
        for row, line in zip(np.eye(self.patch[0]), weights, strict=True):
            total += product(self._covers(0, row).T, values, self._covers(1, line))
        return total

    def _covers(self, axis: int, weights: np.ndarray | None = None) -> np.ndarray:
        """Weights of pixels in the position's patch, or 1, else 0: float64 (positions, pixels)."""
        starts = np.array(self.row_starts if axis == 0 else self.col_starts)[:, None]
        at = np.arange(self.image_shape[axis]) - starts
        weights = np.ones(self.patch[axis]) if weights is None else weights
        inside = (at >= 0) & (at < self.patch[axis])
        return np.where(inside, weights[np.clip(at, 0, self.patch[axis] - 1)], 0.0)

    def _spread_cells(self, values: np.ndarray) -> np.ndarray:
        xp = namespace(values)
        for axis in (0, 1):
            edges, pixels = self._cell_edges(axis), np.arange(self.image_shape[axis])
            owner = np.searchsorted(edges, pixels, "right") - 1
            nobody = xp.full_like(xp.take(values, np.array([0]), axis=axis - 2), np.nan)
            values = xp.take(xp.concatenate([values, nobody], axis - 2), owner, axis=axis - 2)
        return values


def make_grid(
    image_shape: Pair,
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    border: Border = "clip",
) -> Grid:
    """Lay out the positions of a run; an int stands for both axes.

    Args:
        image_shape: (height, width), in pixels.
        patch: height and width of the patch, at least 1, at most the image and its margins.
        stride: from one start to the next, at least 1; None: the patch, so that patches are tiles.
        margin: by how much the first patch starts before the image; less than the patch.
        border: what happens at the far edge, see `Grid`.

    Returns:
        The grid.

    Raises:
        ValueError: one of the sizes breaks its rule.
        TypeError: one of the sizes is not a whole number or a pair of them.

    Example:
        >>> make_grid((5, 7), patch=2).shape
        (3, 4)
    """
    size = pair(image_shape, "image_shape", least=1)
    shape = pair(patch, "patch", least=1)
    step = shape if stride is None else pair(stride, "stride", least=1)
    before = pair(margin, "margin", least=0)
    if border not in ("clip", "valid", "shift"):
        raise ValueError(f'`border` must be "clip", "valid" or "shift": got {border!r}.')
    if any(before) and border != "clip":
        raise ValueError(
            f'`margin` needs border="clip", whose patches may overhang: got {border!r}.'
        )
    if any(m >= w for m, w in zip(before, shape, strict=True)):
        raise ValueError(
            f"`margin` must be less than the patch: got {before} for a patch of {shape}."
        )
    if any(w > d + 2 * m for w, d, m in zip(shape, size, before, strict=True)):
        raise ValueError(f"`patch` must not exceed the image: got {shape} for an image of {size}.")
    return Grid(size, shape, step, before, border)


Region = tuple[int, int, int, int] | np.ndarray


def positions_in(region: Region | None, grid: Grid) -> np.ndarray:
    """Return which positions to score, bool (rows, cols)."""
    if region is None:
        return np.ones(grid.shape, bool)
    mask = np.zeros(grid.image_shape, bool)
    whole = isinstance(region, tuple) and all(isinstance(n, int | np.integer) for n in region)
    if whole and len(region) == 4:
        top, left, bottom, right = region
        mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    elif np.shape(region) == grid.image_shape and np.asarray(region).dtype == bool:
        mask = np.asarray(region)
    else:
        raise ValueError(
            "`region` must be a box (top, left, bottom, right) of whole numbers, or a bool mask of"
            f" the image's shape {grid.image_shape}: got {type(region).__name__} of shape"
            f" {np.shape(region)}."
        )
    inside = np.zeros(grid.shape, bool)
    for i, j in np.ndindex(grid.shape):
        r0, c0, r1, c1 = grid.cells[i, j]
        inside[i, j] = mask[r0:r1, c0:c1].any()
    if not inside.any():
        raise ValueError("`region` must meet the image: no position lies in it.")
    return inside
