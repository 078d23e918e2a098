"""Layers that move, drop, pad or repeat values, and those that do nothing at inference."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.keras.architecture.fields import MAX_SIZE, Fields, is_integer
from jaxviz.keras.layers.converter import Converter, Weights, on_every_axis, spatial_axes


@dataclass(frozen=True)
class Flatten:
    """All axes but the batch made one; `moves_channels`: the channels, first, go last before."""

    moves_channels: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Flatten."""
        # Keras flattens in channels-last order whatever the layout, so that the Dense layer behind
        # serves both: (N, C, H, W) to (N, H, W, C) to (N, H·W·C). It does so since the layer has a
        # field for it: where the file has none, nothing is moved.
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
        edges = on_every_axis(self.amounts, (0, 0), channels_first=self.channels_first)
        return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in edges])


@dataclass(frozen=True)
class Identity:
    """What regularising and augmenting layers do at inference."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return x."""
        return x


@dataclass(frozen=True)
class Crop:
    """Pixels taken off the spatial axes; `amounts` are (before, after) per axis."""

    amounts: tuple[tuple[int, int], ...]
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Crop."""
        place = [slice(None)] * x.ndim
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        for axis, (low, high) in zip(axes, self.amounts, strict=True):
            if low + high >= x.shape[axis]:
                raise ValueError(f"cropping ({low}, {high}) leaves nothing of {x.shape[axis]}")
            place[axis] = slice(low, x.shape[axis] - high)
        return x[tuple(place)]


@dataclass(frozen=True)
class Permute:
    """The axes of each item of the batch in another order, counted from 1."""

    order: tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Permute."""
        return jnp.transpose(x, (0, *self.order))


@dataclass(frozen=True)
class Repeat:
    """A vector repeated along a new axis."""

    times: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """Repeat."""
        return jnp.broadcast_to(x[:, None], (x.shape[0], self.times, *x.shape[1:]))


def _flatten(fields: Fields, weights: Weights) -> Flatten:
    return Flatten(fields.channels_first())


def _reshape(fields: Fields, weights: Weights) -> Reshape:
    shape = fields.raw("target_shape")
    valid = isinstance(shape, list | tuple) and list(shape).count(-1) <= 1
    if not valid or not all(is_integer(s) and (s == -1 or 1 <= s <= MAX_SIZE) for s in shape):
        raise fields.wrong("target_shape", "a list of sizes, one of them perhaps -1")
    return Reshape(tuple(shape))


def amounts(fields: Fields, name: str, rank: int) -> tuple[tuple[int, int], ...]:
    """Return padding or cropping, in any of Keras's spellings, as (before, after) per axis."""
    value: Any = fields.raw(name, 1)
    if isinstance(value, dict):
        keys = ("left_pad", "right_pad", "top_pad", "bottom_pad")
        # Keras 1's dictionary lists the width first; here it is (top, bottom, left, right).
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
    pairs = [_pair(v) for v in value]
    if len(pairs) != rank or None in pairs:
        raise fields.wrong(name, f"amounts for {rank} axes")
    return tuple(pair for pair in pairs if pair is not None)


def _pair(value: Any) -> tuple[int, int] | None:
    """Return (before, after) from one number or two, None if they are out of range."""
    given = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    low, high = given
    if not is_integer(low) or not is_integer(high) or not 0 <= min(low, high) <= MAX_SIZE:
        return None
    return (low, high) if max(low, high) <= MAX_SIZE else None


def _pad(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Pad:
        return Pad(amounts(fields, "padding", rank), fields.channels_first())

    return Converter(build)


def _crop(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Crop:
        return Crop(amounts(fields, "cropping", rank), fields.channels_first())

    return Converter(build)


def _permute(fields: Fields, weights: Weights) -> Permute:
    order = fields.raw("dims")
    if not isinstance(order, list | tuple) or sorted(map(str, order)) != sorted(
        str(i + 1) for i in range(len(order))
    ):
        raise fields.wrong("dims", "the axes from 1 on, each once")
    return Permute(tuple(int(axis) for axis in order))


def _repeat(fields: Fields, weights: Weights) -> Repeat:
    return Repeat(fields.integer("n"))


def _identity(fields: Fields, weights: Weights) -> Identity:
    fields.raw("l1")
    fields.raw("l2")
    return Identity()


TABLE = {
    "ActivityRegularization": Converter(_identity),
    "Flatten": Converter(_flatten),
    "Identity": Converter(_identity),
    "Permute": Converter(_permute),
    "RepeatVector": Converter(_repeat),
    "Reshape": Converter(_reshape),
    **{f"ZeroPadding{rank}D": _pad(rank) for rank in (1, 2, 3)},
    **{f"Cropping{rank}D": _crop(rank) for rank in (1, 2, 3)},
}
