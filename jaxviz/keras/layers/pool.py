"""Pooling over windows and whole maps. Averages do not count padding, as in TensorFlow."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.converter import Converter, Weights, on_every_axis, spatial_axes


@dataclass(frozen=True)
class Pool:
    """The maximum or the mean of each window."""

    kind: str
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool."""
        window, strides = (
            on_every_axis(values, 1, channels_first=self.channels_first)
            for values in (self.window, self.strides)
        )
        padding = self.padding.upper()
        if self.kind == "max":
            return lax.reduce_window(
                x, np.array(-np.inf, x.dtype), lax.max, window, strides, padding
            )
        total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, window, strides, padding)
        return total / self._counts(x)

    def _counts(self, x: jax.Array) -> Any:
        """Return how many pixels of the image each window holds: a product over the axes."""
        if self.padding == "valid":
            return float(np.prod(self.window))
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        counts: Any = jnp.ones((1,) * x.ndim, x.dtype)
        for axis, window, stride in zip(axes, self.window, self.strides, strict=True):
            size = x.shape[axis]
            # "same": ⌈size / stride⌉ windows, the padding split evenly, the odd pixel at the end.
            outputs = -(-size // stride)
            low = max((outputs - 1) * stride + window - size, 0) // 2
            start = np.arange(outputs) * stride - low
            inside = np.minimum(start + window, size) - np.maximum(start, 0)
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            counts = counts * jnp.asarray(inside, x.dtype).reshape(shape)
        return counts


@dataclass(frozen=True)
class GlobalPool:
    """The maximum or the mean of each channel."""

    kind: str
    channels_first: bool
    keepdims: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool."""
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        reduce = jnp.max if self.kind == "max" else jnp.mean
        return reduce(x, axis=axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class AdaptivePool:
    """The maximum or the mean over bins: output i covers [⌊i·n/m⌋, ⌈(i + 1)·n/m⌉) of n pixels."""

    kind: str
    space: tuple[int, ...]
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool."""
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        for axis, bins in zip(axes, self.space, strict=True):
            x = self._along(x, bins, axis)
        return x

    def _along(self, x: jax.Array, bins: int, axis: int) -> jax.Array:
        # Bins differ in length: each is gathered at the longest, and what lies beyond it is masked.
        size = x.shape[axis]
        start = np.arange(bins) * size // bins
        length = -(-(np.arange(bins) + 1) * size // bins) - start
        steps = np.arange(length.max())
        place = np.minimum(start[:, None] + steps, size - 1)
        shape = (bins, len(steps), *(1,) * (x.ndim - axis - 1))
        inside = jnp.asarray(steps < length[:, None]).reshape((1,) * axis + shape)
        values = jnp.take(x, place, axis=axis)
        other = jnp.asarray(-np.inf if self.kind == "max" else 0, x.dtype)
        values = jnp.where(inside, values, other.reshape((1,) * values.ndim))
        if self.kind == "max":
            return jnp.max(values, axis=axis + 1)
        count = jnp.asarray(length, x.dtype).reshape((1,) * axis + (bins, *shape[2:]))
        return jnp.sum(values, axis=axis + 1) / count


def _pool(kind: str, rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Pool:
        window = fields.sizes("pool_size", rank, 2)
        strides = fields.sizes("strides", rank, window)
        padding = fields.choice("padding", ("valid", "same"), "valid")
        return Pool(kind, window, strides, padding, fields.channels_first())

    return Converter(build)


def _global_pool(kind: str) -> Converter:
    def build(fields: Fields, weights: Weights) -> GlobalPool:
        return GlobalPool(kind, fields.channels_first(), fields.boolean("keepdims", False))

    return Converter(build)


def _adaptive_pool(kind: str, rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> AdaptivePool:
        return AdaptivePool(kind, fields.sizes("output_size", rank), fields.channels_first())

    return Converter(build)


TABLE = {
    f"{name}{rank}D": make
    for kind, word in (("max", "Max"), ("mean", "Average"))
    for rank in (1, 2, 3)
    for name, make in (
        (f"{word}Pooling", _pool(kind, rank)),
        (f"Global{word}Pooling", _global_pool(kind)),
        (f"Adaptive{word}Pooling", _adaptive_pool(kind, rank)),
    )
}
