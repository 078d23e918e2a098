"""Masks over a whole image, made on the device from a position: 1 keeps a pixel, 0 hides it.

A maker of masks is a pytree, `(position (d,), (height, width)) -> mask (height, width)` in [0, 1];
what is random in it follows from its key and the position alone, so that no block, device or order
changes a mask and none need be kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._arguments import Pair
from jaxviz.perturbation.fill import Fill
from jaxviz.perturbation.occluders import Canvas

static: dict[str, Any] = {"static": True}
MaskMaker = Callable[[jax.Array, Pair], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MaskOccluder:
    """x·M + b·(1 − M), b the fill's background.

    Attributes:
        fill: what hidden pixels become; a whole image.
        masks: makes M.
    """

    fill: Fill
    masks: MaskMaker

    def prepare(self, image: jax.Array) -> Canvas:
        """Return the image and the background."""
        return Canvas(image, self.fill.background(image))

    def hide(self, canvas: Canvas, position: jax.Array) -> jax.Array:
        """Return the image (H, W, C) under the mask of a position."""
        image, background = canvas
        mask = self.masks(position, (image.shape[0], image.shape[1])).astype(image.dtype)[..., None]
        return image * mask + background * (1 - mask)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomGrids:
    """A coarse grid of 0 and 1, enlarged bilinearly and shifted by less than a cell (RISE).

    Attributes:
        key: random key; mask k is drawn from it and k alone.
        keep: how likely a cell is 1.
        cells: rows and columns of the grid.
    """

    key: jax.Array
    keep: Any
    cells: int = field(metadata=static)

    def __call__(self, position: jax.Array, shape: Pair) -> jax.Array:
        """Return mask number `position[0]`."""
        # One draw for all: XLA takes seconds to compile each call of a random function.
        number = jax.random.fold_in(self.key, position[0])
        drawn = jax.random.uniform(number, (self.cells**2 + 2,), jnp.float32)
        grid = (drawn[2:] < self.keep).astype(jnp.float32).reshape(self.cells, self.cells)
        down, across = (self.along(drawn[axis], shape[axis]) for axis in (0, 1))
        return down @ grid @ across.T

    def along(self, drawn: jax.Array, size: int) -> jax.Array:
        """How much each grid line counts for each pixel line, (size, cells).

        The grid covers one cell more than the image, from a random pixel of its first cell on:

            |---|---|---|---|   cells · (cell + cell/cells) pixels, half-pixel centres
              |-----------|     the image
        """
        cell = -(-size // self.cells)
        shift = jnp.floor(drawn * cell)  # below `cell`, as the largest number drawn is 1 − 2⁻²³
        pixel = jnp.arange(size, dtype=jnp.float32) + shift
        at = (pixel + 0.5) * (self.cells / ((self.cells + 1) * cell)) - 0.5
        at = jnp.clip(at, 0, self.cells - 1)[:, None]
        lines = jnp.arange(self.cells, dtype=jnp.float32)[None]
        return jnp.maximum(1 - jnp.abs(at - lines), 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coalitions:
    """The features that a position keeps, as 0 and 1, (features,).

    Attributes:
        labels: int32 (height, width), the feature of every pixel; −1: always kept.
    """

    labels: jax.Array

    def __call__(self, position: jax.Array, shape: Pair) -> jax.Array:
        """Return the mask of a coalition."""
        kept = position.astype(jnp.float32)[self.labels]
        return jnp.where(self.labels < 0, jnp.ones_like(kept), kept)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Designs:
    """Levels of the features by two designs: row r of A, of B, or of A with one column of B's.

    Attributes:
        labels: int32 (height, width), the feature of every pixel.
        designs: (2, rows, features), A and B.
    """

    labels: jax.Array
    designs: jax.Array

    def __call__(self, position: jax.Array, shape: Pair) -> jax.Array:
        """Return the mask of (row, which): −1 for A, −2 for B, or the column that B gives."""
        row, which = position
        a, b = self.designs[:, row]
        swapped = (jnp.arange(a.size) == which) | (which == -2)
        return jnp.where(swapped, b, a)[self.labels]
