"""Which patches hide what: the options that every run over positions shares, as one value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxviz._arguments import Pair
from jaxviz._choices import Border
from jaxviz.perturbation.fills import FillLike, checked_fill
from jaxviz.perturbation.grid import Grid, Region, make_grid, positions_in
from jaxviz.perturbation.occluders import PatchOccluder, checked_channels


@dataclass(frozen=True)
class Patches:
    """Patches on a grid, as a caller asks for them; checked once the images are known.

    Attributes: as the options of `jaxviz.occlude`.

    Example:
        >>> Patches(patch=2, fill="mean").grid((4, 6)).shape
        (2, 3)
    """

    patch: int | Pair
    stride: int | Pair | None = None
    margin: int | Pair = 0
    border: Border = "clip"
    fill: FillLike = 0.0
    channels: Sequence[int] | None = None
    complement: bool = False
    region: Region | None = None

    def grid(self, image_shape: Pair) -> Grid:
        """Return all positions on images of (height, width).

        Raises:
            ValueError, TypeError: see `make_grid`.
        """
        return make_grid(
            image_shape,
            patch=self.patch,
            stride=self.stride,
            margin=self.margin,
            border=self.border,
        )

    def occluder(self, images: np.ndarray, grid: Grid, *, stacklevel: int = 3) -> PatchOccluder:
        """Return what pastes the patches on images (N, H, W, C).

        Raises:
            ValueError, TypeError: the fill or the channels do not suit the images.
        """
        fill = checked_fill(self.fill, images, self.complement, stacklevel=stacklevel + 1)
        channels = checked_channels(self.channels, images)
        return PatchOccluder(fill, grid.patch, channels, self.complement)

    def wanted(self, grid: Grid) -> np.ndarray:
        """Return which positions are scored, bool (rows, cols).

        Raises:
            ValueError: the region is none, or holds none of them.
        """
        return positions_in(self.region, grid)
