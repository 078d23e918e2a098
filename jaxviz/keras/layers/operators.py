"""Operations that a functional model calls without a layer: `x * 2`, `ops.mean(x)`, `x[:, 1:]`.

A safe list by name: nothing outside it is ever looked up. Names and arguments are those of Keras
3's operations; TensorFlow's are translated to them in `operators_tf`. Constants take the dtype of
the array that they meet, and ranks are raised as NumPy does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.keras.architecture.fields import MAX_SIZE, Fields
from jaxviz.keras.architecture.nodes import Slice
from jaxviz.keras.layers.activation import FUNCTIONS
from jaxviz.keras.layers.converter import Converter, Weights, unit
from jaxviz.keras.layers.image import Resizing

Axis = int | tuple[int, ...] | None
_DTYPES = ("float16", "bfloat16", "float32", "int32", "uint8", "bool")


@dataclass(frozen=True)
class Operator:
    """One operation with its constant arguments."""

    name: str
    constants: tuple[tuple[str, Any], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the operation; arguments of the call win over the constants."""
        given = {key: value for key, value in kwargs.items() if value is not None}
        return OPERATIONS[self.name](*args, **{**dict(self.constants), **given})


def _pair(x1: Any, x2: Any) -> tuple[jax.Array, jax.Array]:
    """Return both operands as arrays of one dtype and rank."""
    arrays = [x for x in (x1, x2) if isinstance(x, jax.Array)]
    dtypes = {x.dtype for x in arrays}
    # A constant takes its array's dtype; arrays that differ, or 0.5 beside integers: float32.
    dtype = dtypes.pop() if len(dtypes) == 1 else jnp.dtype("float32")
    if not jnp.issubdtype(dtype, jnp.floating) and _has_fraction((x1, x2)):
        dtype = jnp.dtype("float32")
    first, second = (jnp.asarray(x).astype(dtype) for x in (x1, x2))
    rank = max(first.ndim, second.ndim)
    first, second = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (first, second))
    return first, second


def _has_fraction(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_has_fraction(item) for item in value)
    return isinstance(value, float) and not value.is_integer()


def _binary(function: Callable) -> Callable:
    def apply(x1: Any, x2: Any) -> jax.Array:
        return function(*_pair(x1, x2))

    return apply


def _reduction(function: Callable) -> Callable:
    def apply(x: jax.Array, axis: Axis = None, keepdims: bool = False) -> jax.Array:
        return function(x, axis=axis, keepdims=bool(keepdims))

    return apply


def _clip(x: jax.Array, x_min: Any, x_max: Any) -> jax.Array:
    return jnp.minimum(*_pair(jnp.maximum(*_pair(x, x_min)), x_max))


def _reshape(x: jax.Array, newshape: tuple[int, ...]) -> jax.Array:
    """Reshape to a shape that keeps the batch: its first size is −1, open or the batch's own."""
    sizes = [-1 if size is None else size for size in newshape]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known:
        sizes[sizes.index(-1)] = x.size // known
    return x.reshape(sizes)


def _transpose(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    return jnp.transpose(x, axes)


def _concatenate(xs: tuple, axis: int = -1) -> jax.Array:
    return jnp.concatenate([jnp.asarray(x) for x in xs], axis=axis)


def _stack(x: tuple, axis: int = 0) -> jax.Array:
    return jnp.stack([jnp.asarray(item) for item in x], axis=axis)


def _split(
    x: jax.Array, indices_or_sections: int | tuple[int, ...], axis: int = 0
) -> tuple[jax.Array, ...]:
    parts = indices_or_sections
    return tuple(jnp.split(x, parts if isinstance(parts, int) else list(parts), axis=axis))


def _get_item(x: jax.Array, key: Any) -> jax.Array:
    keys = key if isinstance(key, tuple) else (key,)
    found = tuple(slice(k.start, k.stop, k.step) if isinstance(k, Slice) else k for k in keys)
    if not all(k is None or k is Ellipsis or isinstance(k, int | slice) for k in found):
        raise ValueError(f"an index must be a number or a slice: got {key!r}")
    return x[found]


def _pad(x: Any, pad_width: tuple, mode: str = "constant", constant_values: Any = 0) -> jax.Array:
    edges = [tuple(edge) for edge in pad_width]
    if max(max(edge) for edge in edges) > MAX_SIZE:
        raise ValueError(f"padding must be at most {MAX_SIZE}")
    if mode == "constant":
        return jnp.pad(x, edges, constant_values=constant_values)
    if mode not in ("reflect", "symmetric"):
        raise ValueError(f"padding mode {mode!r} is not handled")
    return jnp.pad(x, edges, mode=mode)


def _cast(x: Any, dtype: Any) -> jax.Array:
    if dtype not in _DTYPES:
        dtype = {"float64": "float32", "int64": "int32"}.get(dtype)
    if dtype is None:
        raise ValueError("a cast to an unknown type is not handled")
    return jnp.asarray(x).astype(dtype)


def _gelu(x: jax.Array, approximate: bool = False) -> jax.Array:
    return jax.nn.gelu(x, approximate=bool(approximate))


def _leaky_relu(x: jax.Array, negative_slope: float = 0.2) -> jax.Array:
    return jax.nn.leaky_relu(x, negative_slope)


def _softmax(x: jax.Array, axis: Axis = -1) -> jax.Array:
    return jax.nn.softmax(x, axis=axis)


def _log_softmax(x: jax.Array, axis: Axis = -1) -> jax.Array:
    return jax.nn.log_softmax(x, axis=axis)


def _elu(x: jax.Array, alpha: float = 1.0) -> jax.Array:
    return jax.nn.elu(x, alpha)


def _expand_dims(x: jax.Array, axis: int) -> jax.Array:
    return jnp.expand_dims(x, axis)


def _squeeze(x: jax.Array, axis: Axis = None) -> jax.Array:
    return jnp.squeeze(x, axis)


def _matmul(x1: jax.Array, x2: jax.Array) -> jax.Array:
    return jnp.matmul(x1, x2)


def _l2_normalize(x: jax.Array, axis: Axis = -1, epsilon: float = 1e-12) -> jax.Array:
    return unit(x, axis, epsilon)


def _normalize(x: jax.Array, axis: Axis = -1, order: Any = 2, epsilon: float = 1e-7) -> jax.Array:
    if order != 2:
        raise ValueError(f"normalisation of order {order!r} is not handled")
    return _l2_normalize(x, axis, epsilon**2)  # max(‖x‖, ε)² = max(Σx², ε²)


def _resize(
    images: jax.Array,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str = "channels_last",
) -> jax.Array:
    if len(size) != 2 or max(size) > MAX_SIZE or fill_mode != "constant":
        raise ValueError(f"a size must be two numbers up to {MAX_SIZE}: got {size}")
    fit = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    first = data_format == "channels_first"
    layer = Resizing((size[0], size[1]), interpolation, bool(antialias), fit, fill_value, first)
    return layer(images)


def _depth_to_space(x: jax.Array, block_size: int, data_format: str = "channels_last") -> jax.Array:
    if data_format != "channels_last":
        raise ValueError("depth_to_space is handled for channels last only")
    n, height, width, channels = x.shape
    depth = channels // block_size**2
    x = x.reshape(n, height, width, block_size, block_size, depth)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height * block_size, width * block_size, depth)


def _space_to_depth(x: jax.Array, block_size: int, data_format: str = "channels_last") -> jax.Array:
    if data_format != "channels_last":
        raise ValueError("space_to_depth is handled for channels last only")
    n, height, width, channels = x.shape
    height, width = height // block_size, width // block_size
    x = x.reshape(n, height, block_size, width, block_size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, block_size**2 * channels)


def _identity(x: Any) -> Any:
    return x


def _tile(x: jax.Array, repeats: tuple[int, ...]) -> jax.Array:
    if max(repeats) > MAX_SIZE:
        raise ValueError(f"repeats must be at most {MAX_SIZE}")
    return jnp.tile(x, repeats)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": _binary(jnp.add),
    "Subtract": _binary(jnp.subtract),
    "Multiply": _binary(jnp.multiply),
    "Divide": _binary(jnp.divide),
    "TrueDivide": _binary(jnp.divide),
    "FloorDivide": _binary(jnp.floor_divide),
    "Mod": _binary(jnp.mod),
    "Power": _binary(jnp.power),
    "Maximum": _binary(jnp.maximum),
    "Minimum": _binary(jnp.minimum),
    "Negative": jnp.negative,
    "Absolute": jnp.abs,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Log1p": jnp.log1p,
    "Sqrt": jnp.sqrt,
    "Rsqrt": lax.rsqrt,
    "Square": jnp.square,
    "Reciprocal": jnp.reciprocal,
    "Sin": jnp.sin,
    "Cos": jnp.cos,
    "Erf": lax.erf,
    "Floor": jnp.floor,
    "Ceil": jnp.ceil,
    "Round": jnp.round,
    "Sign": jnp.sign,
    "Tanh": jnp.tanh,
    "Relu": jax.nn.relu,
    "Relu6": jax.nn.relu6,
    "Sigmoid": jax.nn.sigmoid,
    "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign,
    "Silu": jax.nn.silu,
    "Selu": jax.nn.selu,
    "HardSigmoid": FUNCTIONS["hard_sigmoid"],
    "HardSilu": FUNCTIONS["hard_silu"],
    "LogSigmoid": jax.nn.log_sigmoid,
    "Elu": _elu,
    "Gelu": _gelu,
    "LeakyRelu": _leaky_relu,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Mean": _reduction(jnp.mean),
    "Sum": _reduction(jnp.sum),
    "Max": _reduction(jnp.max),
    "Min": _reduction(jnp.min),
    "Amax": _reduction(jnp.max),
    "Amin": _reduction(jnp.min),
    "Prod": _reduction(jnp.prod),
    "Var": _reduction(jnp.var),
    "Std": _reduction(jnp.std),
    "Clip": _clip,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Concatenate": _concatenate,
    "Stack": _stack,
    "Split": _split,
    "GetItem": _get_item,
    "Pad": _pad,
    "Tile": _tile,
    "Matmul": _matmul,
    "Cast": _cast,
    "L2Normalize": _l2_normalize,
    "Normalize": _normalize,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Identity": _identity,
    "StopGradient": lax.stop_gradient,
}


def _operator(name: str) -> Converter:
    def build(fields: Fields, weights: Weights) -> Operator:
        skipped = ("name", "dtype") if name != "Cast" else ("name",)
        constants = {key: _constant(fields.raw(key)) for key in fields.config if key not in skipped}
        given = {key: value for key, value in constants.items() if value is not None}
        return Operator(name, tuple(given.items()))

    return Converter(build, keeps_integers=True)


def _constant(value: Any) -> Any:
    """Return JSON lists as tuples; other structures are refused."""
    if isinstance(value, list | tuple):
        return tuple(_constant(item) for item in value)
    if isinstance(value, dict):
        raise TypeError("an argument of an operation must be a number, a word or a list")
    return value


TABLE = {f"ops.{name}": _operator(name) for name in OPERATIONS}
