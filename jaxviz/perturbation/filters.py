"""Filter images along rows and columns: bilinear interpolation and Gaussian blur.

The filter of an axis is a matrix of weights (results, pixels) whose rows sum to 1. What it would
read beyond an edge it reads at the edge pixel, and what is a position may be traced. A product with
a matrix took less time on a CPU than a convolution or a sum of shifted images: a third to a fifth
on a photograph of 224×224, and no more on one of 1000×1000 (σ of 0.5 to 20 pixels).
"""

from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

_CUT = 4  # standard deviations


def wide(dtype: DTypeLike) -> Any:
    """Return the dtype to compute in, float32 or float64: with 8 bits a sum of weights is not 1."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def neighbours(at: Any, size: int, *, xp: Any = np) -> tuple[Any, Any, Any]:
    """Find the two pixels that each place lies between, and its share of the second.

    Args:
        at: places in pixels, any shape; clamped to 0 … size − 1.
        size: how many pixels there are.
        xp: `numpy`, or `jax.numpy` where places are traced.

    Returns:
        (low, high, share): int32, int32, and in [0, 1) with (1 − share)·x[low] + share·x[high].
    """
    at = xp.clip(at, 0, size - 1)
    below = xp.floor(at)
    low = below.astype(xp.int32)
    return low, xp.minimum(low + 1, size - 1), at - below


def bilinear(at: Any, size: int, *, xp: Any = np) -> Any:
    """Return the weights (places, size) that interpolate linearly at some places, see `neighbours`.

    Example:
        >>> bilinear(np.asarray([-1.0, 0.25, 2.0]), 3).tolist()
        [[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    low, high, share = (values[:, None] for values in neighbours(at, size, xp=xp))
    pixels = xp.arange(size, dtype=xp.int32)[None]
    return xp.where(low == pixels, 1 - share, 0) + xp.where(high == pixels, share, 0)


def reach(sigma: float) -> int:
    """Return how far a Gaussian reads to either side, in pixels: 4 sigma, rounded up."""
    return ceil(_CUT * sigma)


def gaussian(size: int, sigma: ArrayLike, *, radius: int, dtype: DTypeLike) -> jax.Array:
    """Return the weights (size, size) of a Gaussian: exp(−½ ((j − i) / σ)²) / Σ, |j − i| ≤ radius.

    Example:
        >>> [round(w, 2) for w in gaussian(3, 0.5, radius=1, dtype="float32")[1].tolist()]
        [0.11, 0.79, 0.11]
    """
    # Column j is pixel j − radius; those off the image are added up at the edge pixel.
    #
    #     |← radius →|←  size  →|← radius →|
    #      x0 x0 x0 x0 x1 … xn xn xn xn xn
    pixels = jnp.arange(-radius, size + radius, dtype=dtype)
    distance = pixels[None] - jnp.arange(size, dtype=dtype)[:, None]
    bell = jnp.exp(-0.5 * jnp.square(distance / jnp.asarray(sigma, dtype)))
    weights = jnp.where(jnp.abs(distance) <= radius, bell, 0)
    inside = weights[:, radius : radius + size]
    inside = inside.at[:, 0].add(weights[:, :radius].sum(1))
    inside = inside.at[:, -1].add(weights[:, radius + size :].sum(1))
    return inside / inside.sum(1, keepdims=True)


def along(rows: jax.Array, images: jax.Array, cols: jax.Array) -> jax.Array:
    """Apply weights (rows, H) and (cols, W) to images (…, H, W, C); the result has their dtype."""
    dtype = wide(images.dtype)
    rows, pixels, cols = (array.astype(dtype) for array in (rows, images, cols))
    found = jnp.einsum("ij,...jkc,lk->...ilc", rows, pixels, cols, precision="highest")
    return found.astype(images.dtype)


def blur(images: jax.Array, sigma: ArrayLike, *, radius: int) -> jax.Array:
    """Blur images (…, H, W, C) with a Gaussian whose `sigma` may be traced, see `reach`."""
    dtype = wide(images.dtype)
    rows, cols = (gaussian(n, sigma, radius=radius, dtype=dtype) for n in images.shape[-3:-1])
    return along(rows, images, cols)
