"""Hide, or show, the parts of an image in the order of a map: what deletion curves are made of.

A map travels with its image as two further channels, (H, W, C + 2): the value of the part that a
pixel belongs to, and the number of that part. Ranks are found on the device, once per image; a
position is a row of integers (order, step, inserting).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.perturbation.fills import Fill
from jaxviz.perturbation.occluders import static

MOST_FIRST, LEAST_FIRST = 0, 1


class RankedCanvas(NamedTuple):
    """An image (H, W, C), its background, and both ranks of every pixel's part, int32 (2, H, W)."""

    under: jax.Array
    over: jax.Array
    ranks: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RankedOccluder:
    """Change the first round(step · P / steps) of an image's P parts, by one of two orders.

    Attributes:
        fill: what a part becomes; its `blend` is given the whole image as the patch.
        steps: how many steps lead from the image to its background.
    """

    fill: Fill
    steps: int = field(metadata=static)

    def prepare(self, image: jax.Array) -> RankedCanvas:
        """Return what `hide` needs of an image and its map (H, W, C + 2)."""
        pixels, values, parts = image[..., :-2], image[..., -2], image[..., -1].astype(np.int32)
        both = jnp.stack([ranks(-values, parts), ranks(values, parts)])
        return RankedCanvas(pixels, self.fill.background(pixels), both)

    def hide(self, canvas: RankedCanvas, position: jax.Array) -> jax.Array:
        """Return the image with the map's channels 0: (H, W, C + 2)."""
        order, step, inserting = position[0], position[1], position[2]
        parts = canvas.ranks[0].max() + 1
        first = canvas.ranks[order] < changed(parts, step, self.steps)
        hidden = (first ^ (inserting == 1))[..., None]
        origin = jnp.zeros(2, position.dtype)
        filled = self.fill.blend(canvas.under, canvas.over, hidden, origin)
        pixels = jnp.where(hidden, filled, canvas.under)
        return jnp.pad(pixels, [(0, 0), (0, 0), (0, 2)])


def ranks(values: jax.Array, parts: jax.Array) -> jax.Array:
    """Return how many parts come before that of each pixel, by ascending value: int32 (H, W).

    Parts of equal value go by ascending number.

    Args:
        values: (H, W), the same for all pixels of a part.
        parts: int32 (H, W), the number of each pixel's part.
    """
    pixels = jnp.arange(values.size, dtype=np.int32)
    _, found, at = jax.lax.sort((values.ravel(), parts.ravel(), pixels), num_keys=2)
    new = jnp.concatenate([jnp.zeros(1, np.int32), (found[1:] != found[:-1]).astype(np.int32)])
    by_pixel = jnp.zeros_like(pixels).at[at].set(jnp.cumsum(new, dtype=np.int32))
    return by_pixel.reshape(values.shape)


def changed(parts, step, steps: int):
    """Return round(step · parts / steps), halves up, without a product that overflows int32."""
    whole, rest = parts // steps, parts % steps
    return step * whole + (2 * step * rest + steps) // (2 * steps)
