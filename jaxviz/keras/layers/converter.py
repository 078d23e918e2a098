"""What a converter is: from a layer's configuration and arrays to something that can be called.

A layer with weights becomes an `nnx.Module`; one without becomes a frozen dataclass, which is
hashable and compares by value, so that two loads of one file share their compiled programs. Layers
compute in the dtype of their input; the graph has cast it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.errors import KerasFileError

Weights = Mapping[str, np.ndarray]
# An array, or the variable of a layer that shares its arrays.
Weight = np.ndarray | jax.Array | nnx.Variable


def no_weights(fields: Fields) -> Sequence[str]:
    """Return no weight names: for a layer without arrays."""
    return ()


@dataclass(frozen=True)
class Converter:
    """How one class of layers is read.

    `build` gets the configuration and the arrays; `weights` names the arrays in the order in which
    Keras stores them, "part/kernel" for the kernel of a sub-layer. With `keeps_integers` the input
    is not cast to the layer's dtype.
    """

    build: Callable[[Fields, Weights], Any]
    weights: Callable[[Fields], Sequence[str]] = no_weights
    keeps_integers: bool = False


def spatial_axes(rank: int, *, channels_first: bool) -> tuple[int, ...]:
    """Return the axes of an array (N, *space, C) or (N, C, *space) that are neither N nor C."""
    return tuple(range(2, rank)) if channels_first else tuple(range(1, rank - 1))


def on_every_axis(values: tuple, other: Any, *, channels_first: bool) -> tuple:
    """Return one value per axis: `values` on the spatial axes, `other` on batch and channel."""
    return (other, other, *values) if channels_first else (other, *values, other)


def unit(x: jax.Array, axes: int | tuple[int, ...] | None, epsilon: float = 1e-12) -> jax.Array:
    """Return x / √max(Σx², ε), the sum over `axes`."""
    power = jnp.sum(jnp.square(x), axis=axes, keepdims=True)
    return x * lax.rsqrt(jnp.maximum(power, epsilon))


def bias_shape(bias: jax.Array, rank: int, *, channels_first: bool) -> jax.Array:
    """Return a per-channel vector shaped to broadcast against an array of `rank` axes."""
    axis = 1 if channels_first else rank - 1
    return bias.reshape(tuple(-1 if i == axis else 1 for i in range(rank)))


def affine_bias(
    y: jax.Array, bias: nnx.Variable | None, *, channels_first: bool = False
) -> jax.Array:
    """Add a per-channel bias, if there is one."""
    if bias is None:
        return y
    return y + bias_shape(bias[...].astype(y.dtype), y.ndim, channels_first=channels_first)


def parameter(value: Weight | None) -> Any:
    """Return a trainable weight; None and existing variables pass through."""
    return value if value is None or isinstance(value, nnx.Variable) else nnx.Param(value)


def check_shape(name: str, array: np.ndarray, shape: Sequence[int | None]) -> None:
    """Refuse an array whose shape is not what the configuration implies (None: any size)."""
    same_rank = len(array.shape) == len(shape)
    if not same_rank or any(s not in (None, n) for n, s in zip(array.shape, shape, strict=True)):
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise KerasFileError(f"its {name} must have shape {wanted}: got {tuple(array.shape)}")


def cast(value: Any, dtype: Any) -> Any:
    """Return an array in another dtype, without an operation when it already has it."""
    return value if value.dtype == dtype else jnp.asarray(value).astype(dtype)
