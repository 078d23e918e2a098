"""How an operation is carried out where XLA does better on an equivalent one.

The results are the same sums of the same products, in another order.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from jaxviz.incremental import _jax

Params = dict[str, Any]
CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
PRODUCT_CHANNELS = 128


def convolution(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """A convolution of many channels as matrix products, one for each row of the kernel.

    XLA's convolution of small windows runs at a quarter to a half of the speed of its matrix
    product on the CPU once the kernel outgrows the cache.
    """
    image, kernel = args
    if not _suits_products(params, image, kernel):
        return _jax.bind(primitive, params, args)
    (stride, across), (dilation, apart) = params["window_strides"], params["rhs_dilation"]
    padding = ((0, 0), *params["padding"], (0, 0))
    image = lax.pad(image, jnp.zeros((), image.dtype), [(lo, hi, 0) for lo, hi in padding])
    batch, height, width, channels = image.shape
    rows, columns, _, features = kernel.shape
    height = (height - (rows - 1) * dilation - 1) // stride + 1
    width = (width - (columns - 1) * apart - 1) // across + 1

    def shifted(x: jax.Array, first: int, count: int, step: int, axis: int) -> jax.Array:
        return lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)

    wide = jnp.concatenate(
        [shifted(image, j * apart, width, across, 2) for j in range(columns)], axis=3
    )
    wide = fence(wide)
    flat = kernel.reshape(rows, columns * channels, features)
    total = None
    for i in range(rows):
        lines = shifted(wide, i * dilation, height, stride, 1)
        product = lax.dot_general(
            lines.reshape(batch * height * width, -1),
            flat[i],
            (((1,), (0,)), ((), ())),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
        total = product if total is None else total + product
    return [total.reshape(batch, height, width, features)]


def fence(x: jax.Array) -> jax.Array:
    """Return x, by an operation that XLA's fusion on the CPU does not cross.

    It would fuse a pool into the matrix product that follows, and compute it anew for each tile.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    kind = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, kind.nexp, kind.nmant)


def _suits_products(params: Params, image: jax.Array, kernel: jax.Array) -> bool:
    numbers = params["dimension_numbers"]
    specs = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    return (
        jax.default_backend() == "cpu"
        and image.dtype == kernel.dtype
        and image.dtype in (jnp.float32, jnp.float64)
        and specs == CHANNELS_LAST
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and set(params["lhs_dilation"]) == {1}
        and min(min(pair) for pair in params["padding"]) >= 0
        and image.shape[3] >= PRODUCT_CHANNELS
    )


def dot_general(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """A matrix product without the unit axes of its left side, kept apart from its neighbours.

    XLA on the CPU fuses a chain of small products and computes the first anew for each tile.
    """
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = args
    free = [a for a in range(left.ndim) if a not in left_sum and a not in left_batch]
    unit = [a for a in free if left.shape[a] == 1]
    place = [a - sum(u < a for u in unit) for a in range(left.ndim)]
    numbers = (
        (tuple(place[a] for a in left_sum), right_sum),
        (tuple(place[a] for a in left_batch), right_batch),
    )
    args = [fence(lax.squeeze(left, unit)), right]
    (out,) = _jax.bind(primitive, {**params, "dimension_numbers": numbers}, args)
    return [lax.expand_dims(out, [len(left_batch) + free.index(a) for a in unit])]


LOWERINGS: dict[str, Callable[[Primitive, Params, list[Any]], list[Any]]] = {
    "conv_general_dilated": convolution,
    "dot_general": dot_general,
}


def bind(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """Apply a primitive the way that suits the platform."""
    return LOWERINGS.get(primitive.name, _jax.bind)(primitive, params, args)
