"""Winograd's convolution by 3 taps: m results of a tile for m + 2 products instead of 3 m.

For a tile d of m + 2 pixels and the taps g, with matrices B, G and A of small constants,

    y = A · ((G · g) * (B · d))        element by element; m = 2: 4 products where 6 are usual

so pixels, taps and results are combined by additions, and what lies between, for each of the
m + 2 elements, is a product over the channels: a matrix product. Tiles overlap by 2 pixels. For
m = 2, one axis of 7 pixels:

    pixel     0 1 2 3 4 5 6 .
    tile 0    [-----]
    tile 1        [-----]
    tile 2            [-----]          pixel 7 is a zero; the result's last site is cut off

In two dimensions the same is done to rows and to columns: (m + 2)² products where 9 m² are usual.
The constants of m = 2 are powers of two: no rounding error but that of sums in another order, and
none on whole numbers. Those of m = 4 are not, and cost digits: 2e-6 to 3e-6 of the largest result
along one axis, 1e-5 along both. A pixel that is not finite reaches all results of its tile.

Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016, arXiv:1509.09308.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.jaxpr.convolution.higher import convolve_higher
from jaxviz.jaxpr.convolution.shapes import Params
from jaxviz.jaxpr.convolution.views import every

Matrix = tuple[tuple[float, ...], ...]


class Constants(NamedTuple):
    """The matrices for tiles of so many results: of results, of taps, of pixels."""

    results: Matrix
    taps: Matrix
    pixels: Matrix

    @property
    def tile(self) -> int:
        """How many results a tile has, m."""
        return len(self.results)


TWO = Constants(
    results=((1, 1, 1, 0), (0, 1, -1, -1)),
    taps=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    pixels=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
)
FOUR = Constants(
    results=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    taps=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    pixels=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
)


Elements = tuple[jax.Array, ...]  # a kernel, transformed


def along_width_taps(constants: Constants, kernel: jax.Array) -> Elements:
    """Transform a kernel (3, 3, C, F) along its width: m + 2 kernels (3, 1, C, F)."""
    columns = [kernel[:, j : j + 1] for j in range(3)]
    return tuple(_combined(constants.taps, columns))


def along_width(
    constants: Constants, params: Params, image: jax.Array, taps: Elements
) -> jax.Array:
    """Convolve by tiles along the width and by XLA's convolution along the height."""
    rows, (low, _) = params["padding"]
    width = image.shape[2] + sum(params["padding"][1]) - 2
    pixels = _combined(constants.pixels, _tiles(constants, image, low, width, axis=2))
    products = [
        convolve_higher((rows, (0, 0)), params, pixel, kernel)
        for pixel, kernel in zip(pixels, taps, strict=True)
    ]
    return _joined(_combined(constants.results, products), width, axis=2)


def along_both_taps(constants: Constants, kernel: jax.Array) -> Elements:
    """Transform a kernel (3, 3, C, F) along both axes.

    Returns:
        For each of the m + 2 elements of a tile's row, the matrices (m + 2, C, F) of its column.
    """
    # Both axes at once, by one matrix product: [G ⊗ G] · w.
    both = [
        [a * b for a in along_rows for b in along_columns]
        for along_columns in constants.taps
        for along_rows in constants.taps
    ]
    matrix = jnp.asarray(both, kernel.dtype)
    elements = lax.dot(matrix, kernel.reshape(9, -1), precision=lax.Precision.HIGHEST)
    m, channels = constants.tile, kernel.shape[2:]
    return tuple(elements.reshape(m + 2, m + 2, *channels))


def along_both(constants: Constants, params: Params, image: jax.Array, taps: Elements) -> jax.Array:
    """Convolve by tiles along both axes, and a matrix product for each element of a tile."""
    height, width = (
        n + sum(pads) - 2 for n, pads in zip(image.shape[1:3], params["padding"], strict=True)
    )
    (top, _), (left, _) = params["padding"]
    rows = _combined(constants.pixels, _tiles(constants, image, top, height, axis=1))
    # One array of all rows, which is written once: each element along the width reads it.
    tall = jnp.concatenate(rows, axis=0)
    pixels = _combined(constants.pixels, _tiles(constants, tall, left, width, axis=2))
    products = [
        _products(params, pixel, matrices) for pixel, matrices in zip(pixels, taps, strict=True)
    ]
    lines = [
        _joined(_combined(constants.results, jnp.split(column, len(rows))), height, axis=1)
        for column in _combined(constants.results, products)
    ]
    return _joined(lines, width, axis=2)


def _products(params: Params, pixels: jax.Array, matrices: jax.Array) -> jax.Array:
    """Multiply the rows of a tile, which lie along the batch, each with its matrix (C, F)."""
    count, channels, features = matrices.shape
    out = lax.dot_general(
        pixels.reshape(count, -1, channels),
        matrices,
        (((2,), (1,)), ((0,), (0,))),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return out.reshape(*pixels.shape[:3], features)


def _combined(matrix: Matrix, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """Return matrix · terms, without the products with 0, 1 and -1."""
    return [_sum_of(row, terms) for row in matrix]


def _sum_of(row: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
    pairs = sorted(zip(row, terms, strict=True), key=lambda pair: -pair[0])
    total: Any = None
    for factor, term in pairs:  # the largest factor first: mostly a sum that begins with no minus
        if not factor:
            continue
        size = term if abs(factor) == 1 else term * jnp.asarray(abs(factor), term.dtype)
        if total is None:
            total = size if factor > 0 else -size
        else:
            total = total + size if factor > 0 else total - size
    return total


def _tiles(constants: Constants, x: jax.Array, low: int, size: int, axis: int) -> list[jax.Array]:
    """Return the first pixel of every tile along an axis, the second, …, of a padded image."""
    m = constants.tile
    count = -(-size // m)
    border = [(0, 0, 0)] * x.ndim
    border[axis] = (low, count * m + 2 - low - x.shape[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), border)
    return [every(x, i, count, m, axis) for i in range(m + 2)]


def _joined(tiles: Sequence[jax.Array], size: int, axis: int) -> jax.Array:
    """Return what `tiles` holds, the first site of every tile, the second, …, in order."""
    shape = list(tiles[0].shape)
    shape[axis] *= len(tiles)
    return lax.slice_in_dim(jnp.stack(tiles, axis + 1).reshape(shape), 0, size, axis=axis)
