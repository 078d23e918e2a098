"""A strided convolution as one of stride 1, its pixels blocks of pixels: for images as they come.

On one axis y[o] = sum over k of x[o*s + k] * w[k]. With k = t*s + r that is the sum over t and r of
X[o + t, r] * W[t, r], where X and W are x and w in blocks of s, and r is one more axis of channels.
For 3 taps and s = 2, a tap of 0 fills the last block of w:

    blocks of x   0 1 | 2 3 | 4 5 | 6 7
    y[0]          w w | w 0
    y[1]                w w | w 0
"""

import jax
import jax.numpy as jnp

from jaxviz.jaxpr.convolution.shapes import Pair, Params


def blocks_of_taps(strides: Pair, kernel: jax.Array) -> jax.Array:
    """Return a kernel (rows, columns, C, F) in blocks: (rows/s, columns/s, s*s*C, F)."""
    grow = [(0, -k % s) for k, s in zip(kernel.shape[:2], strides, strict=True)]
    kernel = jnp.pad(kernel, (*grow, (0, 0), (0, 0)))
    (tall, wide), channels = strides, kernel.shape[2]
    rows, columns = kernel.shape[0] // tall, kernel.shape[1] // wide
    kernel = kernel.reshape(rows, tall, columns, wide, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(rows, columns, tall * wide * channels, -1)


def blocks_of_pixels(params: Params, x: jax.Array, taps: Pair) -> jax.Array:
    """Return an image (N, H, W, C), padded, in blocks (N, H/s, W/s, s*s*C), for so many taps."""
    border = []
    strides, padding = params["window_strides"], params["padding"]
    for n, k, s, (low, high) in zip(x.shape[1:3], taps, strides, padding, strict=True):
        positions = (n + low + high - k) // s + 1
        # Just the blocks that results read: negative where pixels behind them are never read.
        border.append((low, (positions + -(-k // s) - 1) * s - n - low, 0))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *border, (0, 0, 0)))
    (tall, wide), channels = strides, x.shape[3]
    x = x.reshape(x.shape[0], x.shape[1] // tall, tall, x.shape[2] // wide, wide, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(x.shape[0], x.shape[1], x.shape[2], -1)
