"""Hold what a patch is made of, as a value.

A fill is a pair of pure functions over arrays: `background` makes, once per image, the whole image
that patches are cut from, and `blend` makes one patch of what lies under it and of the background
there. A fill is a pytree whose arrays can be traced. Images are float (height, width, channel); the
values of a fill are on the image's own scale. The catalogue is `fills`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

ArrayLike = jax.Array | np.ndarray
PatchFn = Callable[[jax.Array, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fill:
    """How a patch is made.

    Attributes:
        values: what the background is, one for all pixels (), one per channel (C,), or an image (H,
            W, C); None: it depends on the image.
        make: image (H, W, C) -> background (H, W, C). None, without `values`: the background is the
            image, and `blend` makes the patch of it.
        blend: (under (h, w, C), background there (h, w, C), which of it lies on the image, bool
            (h, w, 1), start (2,)) -> patch (h, w, C).
        name: what kind of fill it is.
    """

    values: jax.Array | None
    make: Partial | None
    blend: Partial
    name: str = field(metadata={"static": True})

    def background(self, image: jax.Array) -> jax.Array:
        """Return the image (H, W, C) that patches are cut from."""
        if self.values is not None:
            return jnp.broadcast_to(self.values.astype(image.dtype), image.shape)
        return image if self.make is None else self.make(image)

    @property
    def whole(self) -> bool:
        """Whether the background alone is the fill, so that all of an image can be filled."""
        return self.values is not None or self.make is not None

    def __str__(self) -> str:
        if self.values is None or self.values.ndim > 1:
            return self.name
        return f"{self.name} {np.asarray(self.values).tolist()}"


FillLike = Fill | float | Sequence[float] | jax.Array | np.ndarray | str | PatchFn


def check_fill(fill: Fill, images: ArrayLike) -> None:
    """Raise ValueError unless the fill makes a background that suits `images` (N, H, W, C)."""
    shape = tuple(images.shape[1:])
    values = fill.values
    if values is None or values.ndim == 0 or values.shape in (shape, shape[-1:]):
        return
    if values.ndim == 1:
        raise ValueError(
            "`fill` must hold one value per channel:"
            f" got {values.shape[0]} for {shape[-1]} channel(s)."
        )
    raise ValueError(f"`fill` must have the image's shape {shape}: got {values.shape}.")


# The scales that images are mostly on; a photograph need not hold black, nor white.
SCALES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))


def outside_range(fill: Fill, images: ArrayLike) -> tuple[float, float] | None:
    """Return the fill's extreme values if they are clearly off the scale of `images`.

    That is the first of `SCALES` that holds all of their values, if they spread over an eighth of
    it; or else the range of the values.
    """
    if fill.values is None:
        return None
    values = np.asarray(fill.values)  # NumPy, so that nothing is compiled for it
    low, high = float(values.min()), float(values.max())
    least, most = float(np.min(images)), float(np.max(images))
    if most == least:  # a constant image tells no scale
        return None
    known = [
        s for s in SCALES if s[0] <= least and most <= s[1] and 8 * (most - least) >= s[1] - s[0]
    ]
    least, most = (*known, (least, most))[0]
    slack = 0.05 * (most - least)
    return None if least - slack <= low and high <= most + slack else (low, high)
