"""Derivatives with respect to an image: other rules for ReLU, and faster ones that change nothing.

Each entry is a set of rules for `replay`. `relu_rules` change what passes backwards through ReLU:
guided and rectified backpropagation, and the redirection that wakes a dead start. `quick_rules`
compute the very same derivative by a shorter way: on a CPU the gradient of a max pool and of a
convolution over few input channels cost more than all the rest of a small network. ReLU is
recognised as `jax.nn.relu`, `relu6`, or a maximum with the number 0.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.replay import Rule, equations, evaluate

FEW_CHANNELS = 4


def relu_rules(backprop: str) -> Mapping[str, Rule]:
    """Rules that replace the backward pass of ReLU; y = max(x, 0), g = ∂/∂y.

    - "plain": g where x > 0 (no rule at all);
    - "guided": g where x > 0 and g > 0 (Springenberg et al. 2015, arXiv:1412.6806);
    - "rectified": g where g > 0 (Zeiler, Fergus 2014, arXiv:1311.2901);
    - "redirected": plain, but where that is nothing at all for an image: g, except where x < 0 and
      g < 0.

    Raises:
        ValueError: another name.
    """
    if backprop == "plain":
        return {}
    if backprop not in _BACKWARD:
        names = ", ".join(["plain", *_BACKWARD])
        raise ValueError(f"`backprop` must be one of {names}: got {backprop!r}.")
    rules: dict[str, Rule] = {"max": partial(_max_rule, backprop)}
    rules["custom_jvp_call"] = partial(_open_relu, rules)
    return rules


def quick_rules() -> Mapping[str, Rule]:
    """Rules for max pools and for convolutions over few channels."""
    return {"reduce_window_max": _pool_rule, "conv_general_dilated": _convolution_rule}


def _is_zero(atom: Any) -> bool:
    return hasattr(atom, "val") and np.ndim(atom.val) == 0 and atom.val == 0


def _max_rule(backprop: str, equation: Any, inputs: Sequence[jax.Array]) -> list[jax.Array] | None:
    left, right = equation.invars
    if _is_zero(right):
        return [_relu(backprop, inputs[0])]
    return [_relu(backprop, inputs[1])] if _is_zero(left) else None


def _open_relu(rules: Mapping[str, Rule], equation: Any, inputs: Sequence[Any]) -> Any:
    """`jax.nn.relu` and `relu6` carry their own derivative; look inside them, only them."""
    inner = equation.params["call_jaxpr"]
    names = [inside.primitive.name for inside in equations(inner.jaxpr)]
    if names not in (["max"], ["max", "min"]):
        return None
    return evaluate(inner.jaxpr, inner.consts, inputs, rules)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relu(backprop: str, x: jax.Array) -> jax.Array:
    del backprop
    return jnp.maximum(x, jnp.zeros((), x.dtype))


def _relu_forward(backprop: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _relu(backprop, x), x


def _relu_backward(backprop: str, x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    passes = _BACKWARD[backprop](x, g)
    return (jnp.where(passes, g, jnp.zeros_like(g)),)


_relu.defvjp(_relu_forward, _relu_backward)


def _redirected(x: jax.Array, g: jax.Array) -> jax.Array:
    plain = x > 0
    some = ((g != 0) & plain).any(tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(some, plain, (x > 0) | (g > 0))


_BACKWARD: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "guided": lambda x, g: (x > 0) & (g > 0),
    "rectified": lambda x, g: g > 0,
    "redirected": _redirected,
}


def _pool_rule(equation: Any, inputs: Sequence[jax.Array]) -> list[jax.Array] | None:
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
def _pool(geometry: Any, x: jax.Array) -> jax.Array:
    window, strides, padding = geometry
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    sizes, steps, pads = (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, lowest, jax.lax.max, sizes, steps, pads)


def _pool_forward(geometry: Any, x: jax.Array) -> tuple[Any, Any]:
    y: Any = _pool(geometry, x)
    return y, (x, y)


def _pool_backward(geometry: Any, kept: Any, g: jax.Array) -> tuple[jax.Array]:
    """g goes to the first of the largest pixels of each window, as the usual gradient has it."""
    window, strides, padding = geometry
    x, y = kept
    border = ((0, 0), *padding, (0, 0))
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    high, wide = ((n - 1) * step + 1 for n, step in zip(y.shape[1:3], strides, strict=True))
    taken = jnp.zeros(y.shape, bool)
    parts = []
    for row, col in product(*map(range, window)):
        pixels = padded[:, row : row + high : strides[0], col : col + wide : strides[1]]
        here = (pixels == y) & ~taken
        taken = taken | here
        parts.append(jnp.where(here, g, jnp.zeros_like(g)))
    spread = _tiled(parts, window) if window == strides else _overlapped(parts, geometry, padded)
    rest = [(0, n - m) for n, m in zip(padded.shape[1:3], spread.shape[1:3], strict=True)]
    spread = jnp.pad(spread, ((0, 0), *rest, (0, 0)))
    (top, _), (left, _) = padding
    return (spread[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _tiled(parts: Sequence[jax.Array], tile: tuple[int, int]) -> jax.Array:
    """The pixels of tiles side by side, from the first pixel of every tile, the second, …"""
    batch, rows, cols, channels = parts[0].shape
    tiles = jnp.stack(parts, 3).reshape(batch, rows, cols, *tile, channels)
    tiles = tiles.transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(batch, rows * tile[0], cols * tile[1], channels)


def _overlapped(parts: Sequence[jax.Array], geometry: Any, padded: jax.Array) -> jax.Array:
    """The same where windows share pixels or leave some out: a sum."""
    window, strides, _ = geometry
    total = jnp.zeros_like(padded)
    for part, tap in zip(parts, product(*map(range, window)), strict=True):
        total = total + _put_back(part, tap, strides, padded.shape[1:3])
    return total


def _put_back(
    part: jax.Array, starts: Sequence[int], strides: Sequence[int], size: Sequence[int]
) -> jax.Array:
    """An array of `size` with `part` at every stride from `starts`, cut where it overhangs."""
    border = [(0, 0, 0)]
    for start, stride, extent, whole in zip(starts, strides, part.shape[1:3], size, strict=True):
        border.append((start, whole - start - (extent - 1) * stride - 1, stride - 1))
    border.append((0, 0, 0))
    return jax.lax.pad(part, jnp.zeros((), part.dtype), border)


_pool.defvjp(_pool_forward, _pool_backward)


def _convolution_rule(equation: Any, inputs: Sequence[jax.Array]) -> list[jax.Array] | None:
    params = dict(equation.params)
    x, kernel = inputs
    numbers = params["dimension_numbers"]
    layout = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    fits = (
        layout == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
        and x.shape[3] <= FEW_CHANNELS
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and params["lhs_dilation"] == params["window_strides"] == (1, 1)
        and x.dtype == kernel.dtype
    )
    if not fits:
        return None
    geometry = (params["padding"], params["rhs_dilation"])
    return [_thin_convolution(geometry, params["precision"], x, kernel)]


def _convolution(geometry: Any, precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
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


_thin_convolution = jax.custom_vjp(_convolution, nondiff_argnums=(0, 1))


def _thin_forward(geometry: Any, precision: Any, x: jax.Array, kernel: jax.Array) -> Any:
    return _thin_convolution(geometry, precision, x, kernel), (x, kernel)


def _thin_backward(geometry: Any, precision: Any, kept: Any, g: jax.Array) -> Any:
    """∂x = Σ over taps of g · kernel[tap]ᵀ, put back where the tap read: a product, then shifts."""
    x, kernel = kept
    rows, cols, channels, outputs = kernel.shape
    padding, dilation = geometry
    matrix = kernel.transpose(3, 0, 1, 2).reshape(outputs, -1)
    taps = jnp.matmul(g.reshape(-1, outputs), matrix, precision=precision)
    taps = taps.reshape(*g.shape[:3], rows * cols, channels)
    dx = jnp.zeros_like(x)
    for number, tap in enumerate(product(range(rows), range(cols))):
        starts = [t * d - low for t, d, (low, _) in zip(tap, dilation, padding, strict=True)]
        dx = dx + _put_back(taps[:, :, :, number], starts, (1, 1), x.shape[1:3])
    _, pull = jax.vjp(partial(_convolution, geometry, precision, x), kernel)
    return dx, pull(g)[0]


_thin_convolution.defvjp(_thin_forward, _thin_backward)
