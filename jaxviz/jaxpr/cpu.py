"""How an operation is carried out where XLA does better on an equivalent one.

The results are the same sums of the same products, in another order. Everything here was measured
on the CPU (`benchmarks/incremental_speedup_follows_the_flops.py` says how much each gives); on
other platforms every operation is carried out as it stands.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.neutral import greatest, least, zero

Params = dict[str, Any]
CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
PRODUCT_CHANNELS = 128  # from here on the product of all taps outruns XLA's convolution
FULL = (jnp.float32, jnp.float64)
MOST_TAPS = 128  # a heuristic, as the next: every tap is an operation that has to be compiled
WIDEST_POOL = 16


def bind(primitive: Primitive, params: Params, args: list[Any], *, platform: str) -> list[Any]:
    """Apply a primitive to windows, the way that suits the platform."""
    suited = LOWERINGS.get(primitive.name) if platform == "cpu" else None
    return (suited or _jax.bind)(primitive, params, args)


def bind_whole(
    primitive: Primitive, params: Params, args: list[Any], *, platform: str
) -> list[Any]:
    """Apply a primitive to whole arrays: only depthwise convolutions have a better form."""
    if (
        platform == "cpu"
        and primitive.name == "conv_general_dilated"
        and is_depthwise(params, *args)
    ):
        return [depthwise(params, *args)]
    return _jax.bind(primitive, params, args)


class _Taps(NamedTuple):
    """The shifted views of a padded image that a kernel's taps see, each as large as the result.

    On one axis y[o] = sum over t of x[o*s + t*d] * w[t], so the view of tap t begins with x[t*d]
    and takes every s-th pixel. For 3 taps, s = 2, d = 1:

        pixel         0 1 2 3 4 5 6
        view of t=0   0   1   2
        view of t=1     0   1   2
        view of t=2       0   1   2
    """

    image: jax.Array
    height: int
    width: int
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @classmethod
    def of(cls, params: Params, image: jax.Array, kernel: jax.Array) -> "_Taps":
        padding = [(0, 0, 0), *((low, high, 0) for low, high in params["padding"]), (0, 0, 0)]
        image = lax.pad(image, jnp.zeros((), image.dtype), padding)
        strides, dilations = params["window_strides"], params["rhs_dilation"]
        height, width = (
            (image.shape[a + 1] - (kernel.shape[a] - 1) * dilations[a] - 1) // strides[a] + 1
            for a in (0, 1)
        )
        return cls(image, height, width, strides, dilations)

    def row(self, image: jax.Array, i: int) -> jax.Array:
        return _every(image, i * self.dilations[0], self.height, self.strides[0], axis=1)

    def column(self, image: jax.Array, j: int) -> jax.Array:
        return _every(image, j * self.dilations[1], self.width, self.strides[1], axis=2)


def _every(x: jax.Array, first: int, count: int, step: int, axis: int) -> jax.Array:
    return lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)


def convolution(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """Choose a form: depthwise taps, matrix products, or the convolution as it stands."""
    image, kernel = args
    if is_depthwise(params, image, kernel):
        return [depthwise(params, image, kernel)]
    wide = params["feature_group_count"] == 1 and kernel.shape[2] >= PRODUCT_CHANNELS
    if wide and image.dtype in FULL and is_plain(params, image, kernel):
        return [products(params, image, kernel)]
    return _jax.bind(primitive, params, args)


def is_plain(params: Params, image: jax.Array, kernel: jax.Array) -> bool:
    """Say whether it is a convolution of images, channels last, of one dtype, with a result."""
    wanted = params["preferred_element_type"]
    return (
        tuple(params["dimension_numbers"]) == CHANNELS_LAST
        and params["batch_group_count"] == 1
        and image.dtype == kernel.dtype
        and (wanted is None or wanted == image.dtype)  # NumPy takes None for float64: no `in`
        and set(params["lhs_dilation"]) == {1}
        and all(
            min(low, high) >= 0 and image.shape[1 + i] + low + high > (kernel.shape[i] - 1) * gap
            for i, ((low, high), gap) in enumerate(
                zip(params["padding"], params["rhs_dilation"], strict=True)
            )
        )
    )


def is_depthwise(params: Params, image: jax.Array, kernel: jax.Array) -> bool:
    """Say whether each channel is convolved on its own, in a form that `depthwise` knows."""
    return (
        is_plain(params, image, kernel)
        and image.dtype in FULL
        and 1 < params["feature_group_count"] == image.shape[3]
        and kernel.shape[0] * kernel.shape[1] <= MOST_TAPS
    )


def depthwise(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by one multiply-add a tap: XLA fuses them into one loop over the channels."""
    # Features lie channel by channel: feature f reads channel f // (features / channels).
    image = jnp.repeat(image, kernel.shape[3] // image.shape[3], axis=3)
    taps = _Taps.of(params, image, kernel)
    lines = [taps.row(taps.image, i) for i in range(kernel.shape[0])]
    terms = (
        taps.column(line, j) * kernel[i, j][None, None]
        for i, line in enumerate(lines)
        for j in range(kernel.shape[1])
    )
    return reduce(lax.add, terms)


def products(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by one matrix product, of the views of all taps side by side.

    y[o] = [x[o*s], x[o*s + d], ...] · [w[0]; w[1]; ...]: the kernel, which lies tap by tap in
    memory, is that matrix as it stands. XLA's convolution runs at a quarter to a half of the
    speed of its matrix product once the kernel outgrows the cache.
    """
    taps = _Taps.of(params, image, kernel)
    rows, columns, channels, features = kernel.shape
    lines = [taps.row(taps.image, i) for i in range(rows)]
    wide = jnp.concatenate([taps.column(x, j) for x in lines for j in range(columns)], axis=3)
    out = lax.dot_general(
        wide.reshape(-1, rows * columns * channels),
        kernel.reshape(-1, features),
        (((1,), (0,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return out.reshape(len(image), taps.height, taps.width, features)


def pool(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """Pool overlapping windows by shifted views, axis by axis: loops that XLA vectorises.

    The derivative is the primitive's own, which gives all to one of several largest pixels.
    """
    sizes, strides = params["window_dimensions"], params["window_strides"]
    overlapping = any(size > stride for size, stride in zip(sizes, strides, strict=True))
    # Windows side by side share nothing, and a view a pixel does not pay for wide ones.
    suits = overlapping and max(sizes) <= WIDEST_POOL and set(params["base_dilation"]) == {1}
    if not suits or 0 in jax.eval_shape(partial(_whole_pool, primitive, params), *args).shape:
        return _jax.bind(primitive, params, args)
    pooled = jax.custom_jvp(partial(_pool_by_views, *POOLS[primitive.name], params))
    pooled.defjvp(
        lambda primals, tangents: (
            pooled(*primals),
            jax.jvp(partial(_whole_pool, primitive, params), primals, tangents)[1],
        )
    )
    return [pooled(*args)]


def _whole_pool(primitive: Primitive, params: Params, x: jax.Array) -> jax.Array:
    return _jax.bind(primitive, params, [x])[0]


def _pool_by_views(
    combine: Callable[..., jax.Array],
    neutral: Callable[[Any], Any],
    params: Params,
    x: jax.Array,
) -> jax.Array:
    if any(map(any, params["padding"])):
        x = lax.pad(x, neutral(x.dtype), [(low, high, 0) for low, high in params["padding"]])
    # The largest of a window is the largest of its rows' largest: h + w views instead of h * w.
    for axis, size in enumerate(params["window_dimensions"]):
        stride, dilation = params["window_strides"][axis], params["window_dilation"][axis]
        count = (x.shape[axis] - (size - 1) * dilation - 1) // stride + 1
        views = (_every(x, i * dilation, count, stride, axis) for i in range(size))
        x = reduce(combine, views)
    return x


def dot_general(primitive: Primitive, params: Params, args: list[Any]) -> list[Any]:
    """Multiply without the unit axes of the left side, which are put back, behind a fence."""
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = args
    free = [a for a in range(left.ndim) if a not in left_sum and a not in left_batch]
    unit = [a for a in free if left.shape[a] == 1]
    # Where axis a lies once the unit axes in front of it are gone.
    place = [a - sum(u < a for u in unit) for a in range(left.ndim)]
    numbers = (
        (tuple(place[a] for a in left_sum), right_sum),
        (tuple(place[a] for a in left_batch), right_batch),
    )
    args = [fence(lax.squeeze(left, unit)), right]
    (out,) = _jax.bind(primitive, {**params, "dimension_numbers": numbers}, args)
    # A product's axes: batch axes, free ones of the left side, free ones of the right.
    return [lax.expand_dims(out, [len(left_batch) + free.index(a) for a in unit])]


def fence(x: jax.Array) -> jax.Array:
    """Return x, by an operation that XLA's fusion on the CPU does not cross.

    XLA would fuse a pool into the matrix product behind it and pool anew for each of its tiles: the
    head of VGG-16 took 1.3 s instead of 30 ms for 4 or 8 images. It removes optimization barriers
    before it fuses, so they do not help.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    kind = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, kind.nexp, kind.nmant)


POOLS: dict[str, tuple[Callable[..., jax.Array], Callable[[Any], Any]]] = {
    "reduce_window_max": (lax.max, least),
    "reduce_window_min": (lax.min, greatest),
    "reduce_window_sum": (lax.add, zero),
}
LOWERINGS: dict[str, Callable[[Primitive, Params, list[Any]], list[Any]]] = {
    "conv_general_dilated": convolution,
    "dot_general": dot_general,
    **dict.fromkeys(POOLS, pool),
}
