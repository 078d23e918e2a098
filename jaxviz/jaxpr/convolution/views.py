"""Convolutions by the shifted views of an image that the taps of a kernel see.

On one axis y[o] = sum over t of x[o*s + t*d] * w[t], so the view of tap t begins with x[t*d] and
takes every s-th pixel. For 3 taps, s = 2, d = 1:

    pixel         0 1 2 3 4 5 6
    view of t=0   0   1   2
    view of t=1     0   1   2
    view of t=2       0   1   2
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.jaxpr.convolution.shapes import Pair, Params


class Views(NamedTuple):
    """The views of a padded image, each as large as the result."""

    image: jax.Array
    height: int
    width: int
    strides: Pair
    dilations: Pair

    @classmethod
    def of(cls, params: Params, image: jax.Array, kernel: jax.Array) -> "Views":
        """Pad the image of a plain convolution."""
        padding = [(0, 0, 0), *((low, high, 0) for low, high in params["padding"]), (0, 0, 0)]
        image = lax.pad(image, jnp.zeros((), image.dtype), padding)
        strides, dilations = params["window_strides"], params["rhs_dilation"]
        height, width = (
            (image.shape[a + 1] - (kernel.shape[a] - 1) * dilations[a] - 1) // strides[a] + 1
            for a in (0, 1)
        )
        return cls(image, height, width, strides, dilations)

    def all(self, rows: int, columns: int) -> list[jax.Array]:
        """Return the views of all taps, row by row."""
        return [self.column(self.row(i), j) for i in range(rows) for j in range(columns)]

    def row(self, i: int) -> jax.Array:
        """Return the rows that the taps of row i see."""
        return every(self.image, i * self.dilations[0], self.height, self.strides[0], axis=1)

    def column(self, image: jax.Array, j: int) -> jax.Array:
        """Return the columns that the taps of column j see."""
        return every(image, j * self.dilations[1], self.width, self.strides[1], axis=2)


def every(x: jax.Array, first: int, count: int, step: int, axis: int) -> jax.Array:
    """Return `count` slices along an axis, `step` apart."""
    return lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)


def depthwise(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by one multiply-add a tap: XLA fuses them into one loop over the channels."""
    # Features lie channel by channel: feature f reads channel f // (features / channels).
    image = jnp.repeat(image, kernel.shape[3] // image.shape[3], axis=3)
    rows, columns = kernel.shape[:2]
    views = Views.of(params, image, kernel).all(rows, columns)
    taps = (kernel[i, j][None, None] for i in range(rows) for j in range(columns))
    return reduce(lax.add, (view * tap for view, tap in zip(views, taps, strict=True)))


def products(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by one matrix product, of the views of all taps side by side.

    y[o] = [x[o*s], x[o*s + d], ...] · [w[0]; w[1]; ...]: the kernel, which lies tap by tap in
    memory, is that matrix as it stands. XLA's convolution runs at a quarter to a half of the
    speed of its matrix product once the kernel outgrows the cache.
    """
    views = Views.of(params, image, kernel)
    rows, columns, channels, features = kernel.shape
    wide = jnp.concatenate(views.all(rows, columns), axis=3)
    out = lax.dot_general(
        wide.reshape(-1, rows * columns * channels),
        kernel.reshape(-1, features),
        (((1,), (0,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return out.reshape(len(image), views.height, views.width, features)


def grouped_products(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve groups of channels by one batched matrix product, a matrix for each group."""
    views = Views.of(params, image, kernel)
    rows, columns, channels, features = kernel.shape
    groups = params["feature_group_count"]
    # Channels lie group by group, and so do features: axes (site, tap, group, channel).
    sites = [v.reshape(-1, 1, groups, channels) for v in views.all(rows, columns)]
    wide = jnp.concatenate(sites, axis=1)
    matrices = kernel.reshape(rows * columns, channels, groups, features // groups)
    out = lax.dot_general(
        wide,
        matrices,
        (((1, 3), (0, 1)), ((2,), (2,))),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return out.swapaxes(0, 1).reshape(len(image), views.height, views.width, features)
