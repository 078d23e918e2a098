"""The same numbers by quicker ways, where XLA's own are slow on a CPU: rules for `replay`.

The results are the same sums of the same products, some in another order. What is replaced, as
measured on two cores: XLA runs a depthwise convolution at a fraction of the speed of its loops, a
max pool window by window, and its gradient as a scatter; it hands a convolution to one of two
libraries, of which the slower takes those whose result is not higher than their input; and the
derivative by an image of few channels costs more than its products. On other platforms nothing is
replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.convolution.blocks import blocks_of_pixels, blocks_of_taps
from jaxviz.jaxpr.convolution.forms import choose
from jaxviz.jaxpr.convolution.shapes import CHANNELS_LAST, FEW_CHANNELS, is_depthwise, is_plain
from jaxviz.jaxpr.convolution.views import depthwise
from jaxviz.jaxpr.cpu import whole_rules
from jaxviz.jaxpr.walk import Equation, Rule, replay

Pair = tuple[int, int]
FEW_BLOCK_CHANNELS = 16
SMALL_WINDOW = 9
# Seconds saved for each image; a heuristic: made up for, with what compiling takes, in 500 steps.
WORTH_COMPILING = 2e-3


def quick_rules(platform: str, *, preparing: float = inf) -> Mapping[str, Rule]:
    """Return rules for max pools and convolutions under a gradient; no rules but on a CPU.

    Args:
        platform: of the device.
        preparing: how often a kernel is prepared for each image, see `choose`: 0 where that is
            hoisted out of many steps; infinity where the gradient is taken too seldom for forms of
            a convolution which take long to compile, such as Winograd's tiles.
    """
    if platform != "cpu":
        return {}
    convolution = partial(_convolution_rule, preparing)
    return {"reduce_window_max": _pool_rule, "conv_general_dilated": convolution}


def forward(function: Callable[..., Any], *args: Any) -> Any:
    """Evaluate `function(*args)`, its convolutions and pools as they are fastest on a CPU.

    All else is as quick, or quicker, as XLA does it, where no gradient is taken.
    """
    if platform_of(args) != "cpu":
        return function(*args)
    return replay(function, *args, rules=whole_rules())


def _pool_rule(equation: Equation, inputs: Sequence[jax.Array]) -> list[jax.Array] | None:
    params = equation.params
    (x,) = inputs
    window, strides, padding = (
        params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    fits = (
        x.ndim == 4
        and window[0] == window[3] == strides[0] == strides[3] == 1
        and padding[0] == padding[3] == (0, 0)
        and all(d == 1 for d in (*params["base_dilation"], *params["window_dilation"]))
    )
    geometry = (window[1:3], strides[1:3], padding[1:3])
    return [_pool(geometry, x)] if fits else None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=(0,))  # traced once for all layers of one shape, as those below
def _pool(geometry: Any, x: jax.Array) -> jax.Array:
    window, strides, padding = geometry
    if window[0] * window[1] <= SMALL_WINDOW:
        pixels = _window_pixels(geometry, x)
        largest = pixels[0]
        for pixel in pixels[1:]:
            largest = jnp.maximum(largest, pixel)
        return largest
    # A heuristic: a view for each pixel pays for small windows only.
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    sizes, steps, pads = (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, lowest, jax.lax.max, sizes, steps, pads)


def _window_pixels(geometry: Any, x: jax.Array) -> list[jax.Array]:
    """Collect the first pixel of every window, the second, …: each (N, rows, cols, C)."""
    window, strides, padding = geometry
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    # From the first window's first pixel to the last window's: (windows - 1) * s + 1.
    ends = [
        (n - w) // s * s + 1 for n, w, s in zip(padded.shape[1:3], window, strides, strict=True)
    ]
    return [
        padded[:, row : row + ends[0] : strides[0], col : col + ends[1] : strides[1]]
        for row, col in product(*map(range, window))
    ]


def _pool_forward(geometry: Any, x: jax.Array) -> tuple[Any, Any]:
    y: Any = _pool(geometry, x)
    return y, (x, y)


@partial(jax.jit, static_argnums=(0,))
def _pool_backward(geometry: Any, kept: Any, g: jax.Array) -> tuple[jax.Array]:
    """Give g to the first of the largest pixels of each window, as the usual gradient does.

    Instead of scattering from windows, gather for pixels. On one axis, window o holds the pixels
    o*s ... o*s + w - 1, and pixel p = q*s + r is number q of plane r. It is pixel i = r + t*s of
    window q - t, for every t that makes i < w, so with first[o] the place of the largest in o

        plane[r][q] = sum over t of g[q - t] where first[q - t] == r + t*s.

    For w = 3, s = 2:

        pixel p     0  1  2  3  4  5  6
        plane r     0  1  0  1  0  1  0
        number q    0  0  1  1  2  2  3
        window 0    [-----]
        window 1          [-----]
        window 2                [-----]

    Plane 0 takes from windows q (i = 0) and q - 1 (i = 2), plane 1 from q alone (i = 1).
    """
    window, strides, padding = geometry
    x, y = kept
    first = jnp.full(y.shape, -1, jnp.int32)
    pixels = _window_pixels(geometry, x)
    for number in reversed(range(len(pixels))):
        first = jnp.where(pixels[number] == y, number, first)
    whole = [n + sum(pads) for n, pads in zip(x.shape[1:3], padding, strict=True)]
    size = [-(-n // s) for n, s in zip(whole, strides, strict=True)]
    # As many windows in front as the largest t, so that q - t never lies off the array.
    before = [-(-w // s) - 1 for w, s in zip(window, strides, strict=True)]
    after = [n - m for n, m in zip(size, y.shape[1:3], strict=True)]
    border = ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0))
    first, g = jnp.pad(first, border, constant_values=-1), jnp.pad(g, border)
    # The planes hold whole tiles of `strides` pixels, of the padded image: cut off at the end.
    planes = []
    for row, col in product(*map(range, strides)):
        plane = jnp.zeros((x.shape[0], *size, x.shape[3]), x.dtype)
        for i, j in product(range(row, window[0], strides[0]), range(col, window[1], strides[1])):
            top, left = before[0] - i // strides[0], before[1] - j // strides[1]
            here = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
            given = jnp.where(first[here] == i * window[1] + j, g[here], jnp.zeros((), g.dtype))
            plane = plane + given
        planes.append(plane)
    (top, _), (left, _) = padding
    dx = _interleaved(planes, strides)
    return (dx[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _interleaved(planes: Sequence[jax.Array], tile: Pair) -> jax.Array:
    """Compose an image of its planes: the first pixel of every tile, the second, …."""
    batch, rows, cols, channels = planes[0].shape
    tiles = jnp.stack(planes, 3).reshape(batch, rows, cols, *tile, channels)
    # (row of tiles, column of tiles, row, column) -> (row of tiles, row, column of tiles, column)
    tiles = tiles.transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(batch, rows * tile[0], cols * tile[1], channels)


_pool.defvjp(_pool_forward, _pool_backward)


def _convolution_rule(
    preparing: float, equation: Equation, inputs: Sequence[jax.Array]
) -> list[jax.Array] | None:
    params = equation.params
    x, kernel = inputs
    strides, padding, dilation = (
        params[name] for name in ("window_strides", "padding", "rhs_dilation")
    )
    if is_depthwise(params, x, kernel):
        if kernel.shape[3] != x.shape[3]:  # several features of each channel
            return [depthwise(params, x, kernel)]
        return [_depthwise((strides, padding, dilation), x, kernel)]
    if params["feature_group_count"] != 1 or not is_plain(params, x, kernel):
        return None
    precision = params["precision"]
    if strides == (1, 1) and kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return [jnp.einsum("nhwi,io->nhwo", x, kernel[0, 0], precision=precision)]
    if strides != (1, 1):
        if x.shape[3] > FEW_CHANNELS or dilation != (1, 1):
            return None
        x = blocks_of_pixels(params, x, kernel.shape[:2])
        kernel = blocks_of_taps(strides, kernel)
        padding = ((0, 0), (0, 0))
    return [_convolution((padding, dilation), (precision, preparing), x, kernel)]


@partial(jax.jit, static_argnums=(0,))
def _by_views(geometry: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    strides, padding, dilation = geometry
    params = {"window_strides": strides, "padding": padding, "rhs_dilation": dilation}
    # Else XLA computes what x is made of for every tap, and the result for everyone who reads it.
    return optimization_barrier(depthwise(params, optimization_barrier(x), kernel))


_depthwise = jax.custom_vjp(_by_views, nondiff_argnums=(0,))


def _depthwise_forward(geometry: Any, x: jax.Array, kernel: jax.Array) -> Any:
    return _depthwise(geometry, x, kernel), (x, kernel)


def _depthwise_backward(geometry: Any, kept: Any, g: jax.Array) -> Any:
    """Convolve g, spread by the strides, with the kernel turned round: one loop, as forwards.

    The derivative of the views puts each tap's term back into an image of its own, and adds these.
    """
    x, kernel = kept
    strides, padding, dilation = geometry
    spread = [(0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0)]
    wide = jax.lax.pad(g, jnp.zeros((), g.dtype), spread)
    around = []
    for k, d, (low, _), n, m in zip(
        kernel.shape[:2], dilation, padding, x.shape[1:3], wide.shape[1:3], strict=True
    ):
        reach = (k - 1) * d
        around.append((reach - low, n - m + low))
    dx = _depthwise(((1, 1), tuple(around), dilation), wide, kernel[::-1, ::-1])

    def convolve(kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[3],
        )

    return dx, *jax.vjp(convolve, kernel)[1](g)  # as XLA has it: hardly anyone asks for it


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _convolve(geometry: Any, precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    padding, dilation = geometry
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _convolve_higher(geometry: Any, precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with more rows below, cut off again, so that the result is higher than x."""
    ((top, bottom), sides), dilation = geometry
    height = x.shape[1] + top + bottom - (kernel.shape[0] - 1) * dilation[0]
    more = max(0, x.shape[1] + 1 - height)
    # A heuristic: the quicker library makes up for no more than a quarter on top.
    if 4 * more > height:
        more = 0
    y = _convolve((((top, bottom + more), sides), dilation), precision, x, kernel)
    return y[:, :height]


def _convolve_by_form(geometry: Any, how: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by Winograd's tiles if they pay."""
    (padding, dilation), (precision, preparing) = geometry, how
    params = {
        "window_strides": (1, 1),
        "padding": padding,
        "lhs_dilation": (1, 1),
        "rhs_dilation": dilation,
        "dimension_numbers": CHANNELS_LAST,
        "feature_group_count": 1,
        "batch_group_count": 1,
        "precision": precision,
        "preferred_element_type": None,
    }
    form = choose(params, x, kernel, preparing=preparing, worth=WORTH_COMPILING)
    if form is None or not form.elements:
        return _convolve_higher(geometry, precision, x, kernel)
    return form.apply(x, form.prepare(kernel))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def _convolution(geometry: Any, how: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve_by_form(geometry, how, x, kernel)


def _convolution_forward(geometry: Any, how: Any, x: jax.Array, kernel: jax.Array) -> Any:
    return _convolution(geometry, how, x, kernel), (x, kernel)


@partial(jax.jit, static_argnums=(0, 1))
def _convolution_backward(geometry: Any, how: Any, kept: Any, g: jax.Array) -> Any:
    precision, _ = how
    x, kernel = kept
    padding, dilation = geometry
    # dx[p] = sum over k of g[p + low - k*d] * w[k]: a convolution of g with the kernel turned
    # round, padded by reach - low in front and reach - high behind.
    reach = [(k - 1) * d for k, d in zip(kernel.shape[:2], dilation, strict=True)]
    around = tuple((r - low, r - high) for r, (low, high) in zip(reach, padding, strict=True))
    _, pull = jax.vjp(partial(_convolve, geometry, precision), x, kernel)
    dx, dkernel = pull(g)
    if x.shape[3] <= FEW_BLOCK_CHANNELS:
        dx = _image_gradient_by_taps(geometry, precision, kept, g)
    elif min(map(min, around)) >= 0:
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        dx = _convolve_by_form((around, dilation), how, g, turned)
    return dx, dkernel


def _image_gradient_by_taps(geometry: Any, precision: Any, kept: Any, g: jax.Array) -> jax.Array:
    """Return dx = sum over taps of g · kernel[tap]ᵀ, each put back where its tap had read.

    One matrix product makes the terms of all taps. Output o read pixel o + t*d - low by tap t, so
    its term is shifted by as much; what falls into the padding is cut off. For 3 taps, low = 1:

        pixel          0 1 2 3 4
        tap 0, by -1   1 2 3 4        (of o = 0 ... 4, o = 0 is cut off)
        tap 1, by 0    0 1 2 3 4
        tap 2, by 1      0 1 2 3      (o = 4 is cut off)
    """
    x, kernel = kept
    rows, cols, channels, outputs = kernel.shape
    padding, dilation = geometry
    matrix = kernel.transpose(3, 0, 1, 2).reshape(outputs, -1)
    taps = jnp.matmul(g.reshape(-1, outputs), matrix, precision=precision)
    taps = taps.reshape(*g.shape[:3], rows * cols, channels)
    dx = jnp.zeros_like(x)
    for number, tap in enumerate(product(range(rows), range(cols))):
        border = [(0, 0, 0)]
        for t, d, (low, _), n, m in zip(
            tap, dilation, padding, x.shape[1:3], g.shape[1:3], strict=True
        ):
            border.append((t * d - low, n - m - t * d + low, 0))
        border.append((0, 0, 0))
        dx = dx + jax.lax.pad(taps[:, :, :, number], jnp.zeros((), x.dtype), border)
    return dx


_convolution.defvjp(_convolution_forward, _convolution_backward)
