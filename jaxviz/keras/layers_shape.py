"""Layers that move, drop, pad or repeat values, and those that do nothing at inference."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxviz.keras.converter import Converter, Weights
from jaxviz.keras.fields import MAX_SIZE, Fields, is_integer


@dataclass(frozen=True)
class Flatten:
    """All axes but the batch made one; `channels_last` first moves the channels to the end."""

    moves_channels: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Flatten."""
        if self.moves_channels and x.ndim > 2:
            x = jnp.moveaxis(x, 1, -1)
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@dataclass(frozen=True)
class Reshape:
    """Another shape for each item of the batch; one size may be −1."""

    shape: tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Reshape."""
        known = math.prod(size for size in self.shape if size != -1)
        total = math.prod(x.shape[1:])
        return x.reshape(x.shape[0], *(total // known if s == -1 else s for s in self.shape))


@dataclass(frozen=True)
class Pad:
    """Zeros around the spatial axes; `amounts` are (before, after) per axis."""

    amounts: tuple[tuple[int, int], ...]
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pad."""
        none = ((0, 0),)
        edges = none * 2 + self.amounts if self.channels_first else none + self.amounts + none
        return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in edges])


@dataclass(frozen=True)
class Identity:
    """What regularising and augmenting layers do at inference."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return x."""
        return x


class Dropout(nnx.Module):
    """Zero some values and scale up the rest while training, with `rngs` given; else the identity.

    `shared_axes` are those along which values are dropped together.
    """

    needs_rngs = True

    def __init__(self, rate: float, noise_shape: tuple[int | None, ...] | None):
        self.rate, self.noise_shape, self.deterministic = rate, noise_shape, True

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Drop."""
        if self.deterministic or self.rate == 0:
            return x
        if rngs is None:
            raise ValueError("`rngs` must be given to a model with dropout in training mode.")
        if self.noise_shape is None:
            shape = x.shape
        else:
            shape = tuple(
                n if s is None else s for s, n in zip(self.noise_shape, x.shape, strict=True)
            )
        kept = jax.random.bernoulli(rngs.dropout(), 1 - self.rate, shape)
        kept = jnp.broadcast_to(kept, x.shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


@dataclass(frozen=True)
class Rescaling:
    """x · scale + offset; per channel when they are tuples."""

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rescale."""
        return x * _constant(self.scale, x) + _constant(self.offset, x)


def _constant(value: Any, x: jax.Array) -> Any:
    if isinstance(value, tuple):
        return jnp.asarray(value, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return value


def _flatten(fields: Fields, weights: Weights) -> Flatten:
    return Flatten(fields.channels_first())


def _reshape(fields: Fields, weights: Weights) -> Reshape:
    shape = fields.raw("target_shape")
    valid = isinstance(shape, list | tuple) and list(shape).count(-1) <= 1
    if not valid or not all(is_integer(s) and (s == -1 or 1 <= s <= MAX_SIZE) for s in shape):
        raise fields.wrong("target_shape", "a list of sizes, one of them perhaps -1")
    return Reshape(tuple(shape))


def amounts(fields: Fields, name: str, rank: int) -> tuple[tuple[int, int], ...]:
    """Padding or cropping in any of Keras's spellings, as (before, after) per axis."""
    value: Any = fields.raw(name, 1)
    if isinstance(value, dict):
        keys = ("left_pad", "right_pad", "top_pad", "bottom_pad")
        value = (
            value.get(keys[2], 0),
            value.get(keys[3], 0),
            value.get(keys[0], 0),
            value.get(keys[1], 0),
        )
    if is_integer(value):
        value = (value,) * rank
    value = list(value) if isinstance(value, list | tuple) else []
    if rank == 1 and len(value) == 2:
        value = [value]
    if rank == 2 and len(value) == 4:
        value = [value[:2], value[2:]]
    pairs = [
        (v, v) if is_integer(v) else tuple(v) if isinstance(v, list | tuple) else () for v in value
    ]
    sound = all(len(p) == 2 and all(is_integer(n) and 0 <= n <= MAX_SIZE for n in p) for p in pairs)
    if len(pairs) != rank or not sound:
        raise fields.wrong(name, f"amounts for {rank} axes")
    return tuple((before, after) for before, after in pairs)


def _pad(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Pad:
        return Pad(amounts(fields, "padding", rank), fields.channels_first())

    return Converter(build)


def _dropout(fields: Fields, weights: Weights) -> Dropout:
    rate = fields.number("rate")
    if not 0 <= rate < 1:
        raise fields.wrong("rate", "in [0, 1)")
    noise = fields.raw("noise_shape")
    return Dropout(rate, tuple(noise) if isinstance(noise, list) else None)


def _spatial_dropout(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Dropout:
        rate = fields.number("rate")
        if not 0 <= rate < 1:
            raise fields.wrong("rate", "in [0, 1)")
        ones = (1,) * rank
        return Dropout(
            rate, (None, None, *ones) if fields.channels_first() else (None, *ones, None)
        )

    return Converter(build)


def _identity(fields: Fields, weights: Weights) -> Identity:
    return Identity()


def _rescaling(fields: Fields, weights: Weights) -> Rescaling:
    return Rescaling(_factor(fields, "scale", 1.0), _factor(fields, "offset", 0.0))


def _factor(fields: Fields, name: str, default: float) -> float | tuple[float, ...]:
    value = fields.raw(name, default)
    if isinstance(value, list):
        if not value or len(value) > 65536 or not all(isinstance(v, int | float) for v in value):
            raise fields.wrong(name, "a number or a list of numbers")
        return tuple(float(v) for v in value)
    return fields.number(name, default)


TABLE = {
    "Flatten": Converter(_flatten),
    "Reshape": Converter(_reshape),
    "ZeroPadding1D": _pad(1),
    "ZeroPadding2D": _pad(2),
    "ZeroPadding3D": _pad(3),
    "Dropout": Converter(_dropout),
    "SpatialDropout1D": _spatial_dropout(1),
    "SpatialDropout2D": _spatial_dropout(2),
    "SpatialDropout3D": _spatial_dropout(3),
    "ActivityRegularization": Converter(_identity),
    "Rescaling": Converter(_rescaling),
}
