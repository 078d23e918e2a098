"""How an operation is carried out where XLA does better on an equivalent one.

The results are the same sums of the same products, in another order, or those of another form of
the same convolution (`jaxviz.jaxpr.convolution`). Everything here was measured on the CPU
(`benchmarks/incremental_speedup_follows_the_flops.py` says how much each gives); on other platforms
every operation is carried out as it stands.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.convolution.forms import choose
from jaxviz.jaxpr.convolution.views import every
from jaxviz.jaxpr.neutral import greatest, least, zero
from jaxviz.jaxpr.walk import Equation, Rule

Params = dict[str, Any]
WIDEST_POOL = 16  # a heuristic: every view is an operation that has to be compiled


def bind(primitive: Primitive, params: Params, args: list[Any], *, platform: str) -> list[Any]:
    """Apply a primitive to windows, the way that suits the platform."""
    suited = LOWERINGS.get(primitive.name) if platform == "cpu" else None
    return (suited or _jax.bind)(primitive, params, args)


def bind_whole(
    primitive: Primitive,
    params: Params,
    args: list[Any],
    *,
    platform: str,
    error: float = 0.0,
    once: bool = False,
) -> list[Any]:
    """Apply a primitive to whole arrays: convolutions and pools have a better form.

    Args:
        primitive: of the operation.
        params: its parameters.
        args: what it is applied to.
        platform: of the device.
        error: what one convolution may deviate, see `choose`.
        once: whether it is evaluated too seldom for what takes longer to compile or to prepare.
    """
    if platform == "cpu" and primitive.name == "conv_general_dilated":
        return convolution(primitive, params, args, error=error, once=once)
    if platform == "cpu" and primitive.name in POOLS and not once:
        return pool(primitive, params, args)
    return _jax.bind(primitive, params, args)


def whole_rules(error: float = 0.0) -> dict[str, Rule]:
    """Return the rules for `walk.run` and `replay` by which `bind_whole` evaluates on a CPU."""

    def rule(equation: Equation, inputs: Sequence[Any]) -> list[Any]:
        primitive, params = equation.primitive, equation.params
        return bind_whole(primitive, params, list(inputs), platform="cpu", error=error)

    return dict.fromkeys(("conv_general_dilated", *POOLS), rule)


def convolution(
    primitive: Primitive,
    params: Params,
    args: list[Any],
    *,
    error: float = 0.0,
    once: bool = False,
) -> list[Any]:
    """Convolve by the form that is fastest, see `choose`."""
    image, kernel = args
    form = choose(params, image, kernel, error, preparing=inf if once else 0.0)
    if form is None:
        return _jax.bind(primitive, params, args)
    return [form.apply(image, form.prepare(kernel))]


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
        views = (every(x, i * dilation, count, stride, axis) for i in range(size))
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
