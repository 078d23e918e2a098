"""Layers that resize, crop and rescale images, sampling at pixel centres as TensorFlow 2 does."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.keras.architecture.fields import Fields, without_wrapping
from jaxviz.keras.layers.converter import Converter, Weights, spatial_axes
from jaxviz.keras.layers.shape import Identity

_METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


def resize(x: jax.Array, space: tuple, method: str, antialias: bool, first: bool) -> jax.Array:
    """Resize images to `space`, (height, width); `first`: channels come before them."""
    shape = list(x.shape)
    for axis, size in zip(spatial_axes(x.ndim, channels_first=first), space, strict=True):
        shape[axis] = size
    return jax.image.resize(x, shape, method, antialias=antialias)


def _repeat(x: jax.Array, factor: int, axis: int) -> jax.Array:
    return jnp.repeat(x, factor, axis=axis)


def _from_corners(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Interpolate an axis: y[i] = (1 − t)·x[⌊i/f⌋] + t·x[⌊i/f⌋ + 1] with t = (i mod f)/f.

    Beyond the last value it is repeated.
    """
    size = x.shape[axis]
    following = jnp.concatenate(
        [lax.slice_in_dim(x, 1, size, axis=axis), lax.slice_in_dim(x, size - 1, size, axis=axis)],
        axis=axis,
    )
    shape = [1] * x.ndim
    shape[axis] = size * factor
    place = jnp.tile(jnp.arange(factor, dtype=x.dtype) / factor, size).reshape(shape)
    here, there = _repeat(x, factor, axis), _repeat(following, factor, axis)
    return here + (there - here) * place


_ALONG_AXES = {"nearest": _repeat, "bilinear_legacy": _from_corners}


@dataclass(frozen=True)
class UpSampling:
    """Each pixel repeated along the spatial axes, or images enlarged by interpolation.

    "bilinear_legacy" is TensorFlow 1's way, which lays the pixels' corners on each other instead
    of their centres.
    """

    factors: tuple[int, ...]
    method: str
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge the spatial axes."""
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        if self.method in _ALONG_AXES:
            for axis, factor in zip(axes, self.factors, strict=True):
                x = _ALONG_AXES[self.method](x, factor, axis)
            return x
        space = tuple(x.shape[axis] * f for axis, f in zip(axes, self.factors, strict=True))
        return resize(x, space, self.method, False, self.channels_first)


@dataclass(frozen=True)
class Resizing:
    """Images at a fixed size; `fit` is "stretch", or "crop" or "pad" to keep the aspect."""

    space: tuple[int, int]
    method: str
    antialias: bool
    fit: str
    fill: float
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Resize images, cut or padded to the aspect first if so asked."""
        if self.fit != "stretch":
            x = self._fitted(x)
        return resize(x, self.space, self.method, self.antialias, self.channels_first)

    def _fitted(self, x: jax.Array) -> jax.Array:
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        height, width = (x.shape[axis] for axis in axes)
        # The height that the image's width has at the target's aspect, and the other way round.
        tall = int(width * self.space[0] / self.space[1])
        wide = int(height * self.space[1] / self.space[0])
        if self.fit == "crop":
            wanted = (max(min(height, tall), 1), max(min(width, wide), 1))
            return _centred(x, wanted, axes)
        edges = [(0, 0)] * x.ndim
        for axis, size, target in zip(axes, (height, width), (tall, wide), strict=True):
            edge = max(target - size, 0) // 2
            edges[axis] = (edge, edge)
        return jnp.pad(x, edges, constant_values=self.fill)


@dataclass(frozen=True)
class CenterCrop:
    """The middle of each image; an image that is too small is resized instead."""

    space: tuple[int, int]
    channels_first: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Cut out the middle."""
        axes = spatial_axes(x.ndim, channels_first=self.channels_first)
        if all(x.shape[axis] >= size for axis, size in zip(axes, self.space, strict=True)):
            return _centred(x, self.space, axes)
        fitted = Resizing(self.space, "bilinear", False, "crop", 0.0, self.channels_first)
        return fitted(x)


def _centred(x: jax.Array, wanted: tuple[int, int], axes: tuple[int, ...]) -> jax.Array:
    place = [slice(None)] * x.ndim
    for axis, size in zip(axes, wanted, strict=True):
        start = (x.shape[axis] - size) // 2
        place[axis] = slice(start, start + size)
    return x[tuple(place)]


@dataclass(frozen=True)
class Rescaling:
    """x · scale + offset; per channel when they are tuples."""

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scale and shift."""
        return x * _constant(self.scale, x) + _constant(self.offset, x)


@dataclass(frozen=True)
class AutoContrast:
    """Each channel of each image stretched to fill the range; a constant one is left alone."""

    low: float
    high: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Stretch each channel of images (N, H, W, C)."""
        least = jnp.min(x, axis=(1, 2), keepdims=True)
        span = jnp.max(x, axis=(1, 2), keepdims=True) - least
        share = (x - least) / jnp.where(span > 0, span, jnp.ones_like(span))
        return jnp.where(span > 0, self.low + share * (self.high - self.low), x)


def _constant(value: Any, x: jax.Array) -> Any:
    if isinstance(value, tuple):
        return jnp.asarray(value, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return value


def _up_sampling(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> UpSampling:
        method = fields.choice("interpolation", (*_METHODS, "bilinear_legacy"), "nearest")
        return UpSampling(fields.sizes("size", rank, 2), method, fields.channels_first())

    return Converter(build)


def _resizing(fields: Fields, weights: Weights) -> Resizing:
    crop, pad = (bool(fields.raw(f"{name}_to_aspect_ratio", False)) for name in ("crop", "pad"))
    fields.choice("fill_mode", ("constant",), "constant")
    fields.raw("bounding_box_format")
    return Resizing(
        (fields.integer("height"), fields.integer("width")),
        fields.choice("interpolation", _METHODS, "bilinear"),
        bool(fields.raw("antialias", False)),
        "crop" if crop else "pad" if pad else "stretch",
        fields.number("fill_value", 0.0),
        fields.channels_first(),
    )


def _center_crop(fields: Fields, weights: Weights) -> CenterCrop:
    space = (fields.integer("height"), fields.integer("width"))
    return CenterCrop(space, fields.channels_first())


def _random_crop(fields: Fields, weights: Weights) -> Resizing | Identity:
    space = (fields.integer("height"), fields.integer("width"))
    first = fields.channels_first()
    if fields.choice("at_inference", ("fit", "nothing")) == "nothing":
        return Identity()
    return Resizing(space, "bilinear", False, "crop", 0.0, first)


def _auto_contrast(fields: Fields, weights: Weights) -> AutoContrast:
    for name in ("factor", "bounding_box_format"):
        fields.raw(name)
    value = fields.raw("value_range", [0, 255])
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if not numbers or len(value) != 2 or not 0 < abs(value[1] - value[0]) <= 1e38:
        raise fields.wrong("value_range", "two numbers")
    return AutoContrast(float(min(value)), float(max(value)))


def _rescaling(fields: Fields, weights: Weights) -> Rescaling:
    return Rescaling(_factor(fields, "scale", 1.0), _factor(fields, "offset", 0.0))


def _factor(fields: Fields, name: str, default: float) -> float | tuple[float, ...]:
    value = fields.raw(name, default)
    value = without_wrapping(value)
    if isinstance(value, list):
        if not 0 < len(value) <= 65536 or not all(type(v) in (int, float) for v in value):
            raise fields.wrong(name, "a number or a list of numbers")
        return tuple(float(v) for v in value)
    return fields.number(name, default)


TABLE = {
    "AutoContrast": Converter(_auto_contrast),
    "CenterCrop": Converter(_center_crop),
    "RandomCrop": Converter(_random_crop),
    "Rescaling": Converter(_rescaling),
    "Resizing": Converter(_resizing),
    **{f"UpSampling{rank}D": _up_sampling(rank) for rank in (1, 2, 3)},
}
