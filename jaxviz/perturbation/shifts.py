"""Small shifts of all pixels at once, drawn from a key and a position, and nothing else."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxviz.perturbation.filters import wide
from jaxviz.perturbation.occluders import Canvas


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShiftOccluder:
    """Take normal noise of one standard deviation from every pixel of an image.

    Attributes:
        key: a random key; position p is drawn from it and p.
        scale: the standard deviation, ().
    """

    key: jax.Array
    scale: jax.Array

    def prepare(self, image: jax.Array) -> Canvas:
        """Return the image."""
        return Canvas(image, image)

    def shift(self, shape: tuple[int, ...], dtype: Any, position: jax.Array) -> jax.Array:
        """Return what is taken from an image (H, W, C) at `position`, an index (1,)."""
        key = jax.random.fold_in(self.key, position[0].astype(np.uint32))
        drawn = jax.random.normal(key, shape, wide(dtype))
        return (drawn * self.scale.astype(drawn.dtype)).astype(dtype)

    def hide(self, canvas: Canvas, position: jax.Array) -> jax.Array:
        """Return the image (H, W, C) less its shift."""
        return canvas.under - self.shift(canvas.under.shape, canvas.under.dtype, position)
