"""Normalisation layers. Out of training, batch normalisation is one multiply-add per channel.

Statistics are computed in float32 whatever the input is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxviz.keras.architecture.fields import Fields, is_integer
from jaxviz.keras.layers.converter import Converter, Weight, Weights, check_shape, parameter, unit


@dataclass(frozen=True)
class NormSpec:
    """The constants of a normalisation."""

    axes: tuple[int, ...]
    epsilon: float
    momentum: float = 0.0
    groups: int = 0
    centred: bool = True


def _along(vector: jax.Array, x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Return an array over `axes` of x, in that order, shaped to broadcast against x."""
    axes = [axis % x.ndim for axis in axes]
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [1] * x.ndim
    for axis, size in zip(axes, vector.shape, strict=True):
        if size != x.shape[axis]:
            raise ValueError(f"{size} values do not fit the {x.shape[axis]} of axis {axis}")
        shape[axis] = size
    return vector.transpose(order).reshape(shape)


class BatchNorm(nnx.Module):
    """scale · (x − mean) / √(var + ε) + bias; `train()` uses and updates batch statistics."""

    def __init__(
        self, scale: Weight | None, bias: Weight | None, mean: Weight, var: Weight, spec: NormSpec
    ):
        self.scale, self.bias = parameter(scale), parameter(bias)
        self.mean, self.var = nnx.BatchStat(mean), nnx.BatchStat(var)
        self.spec, self.use_running_average = spec, True

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise along the channel axis."""
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(x)
        # scale·(x − mean)/√(var + ε) + bias = x·factor + (bias − mean·factor)
        factor = lax.rsqrt(var + self.spec.epsilon)
        if self.scale is not None:
            factor = factor * self.scale[...].astype(factor.dtype)
        offset = -mean * factor
        if self.bias is not None:
            offset = offset + self.bias[...].astype(offset.dtype)
        factor, offset = (_along(v, x, self.spec.axes).astype(x.dtype) for v in (factor, offset))
        return x * factor + offset

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(i for i in range(x.ndim) if i != self.spec.axes[0] % x.ndim)
        x = x.astype(self.mean[...].dtype)
        mean, var = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
        keep = self.spec.momentum
        self.mean[...] = keep * self.mean[...] + (1 - keep) * lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + (1 - keep) * lax.stop_gradient(var)
        return mean, var


class LayerNorm(nnx.Module):
    """scale · (x − mean) / √(var + ε) + bias, with each item's own statistics over `axes`.

    With `groups`, channels are split into groups that have statistics of their own, over all
    positions; not `centred`, the mean is left in (root mean square normalisation).
    """

    def __init__(self, scale: Weight | None, bias: Weight | None, spec: NormSpec):
        self.scale, self.bias, self.spec = parameter(scale), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise."""
        y = x.astype(jnp.float32)
        y = self._grouped(y) if self.spec.groups else self._normal(y, self.spec.axes)
        if self.scale is not None:
            y = y * _along(self.scale[...].astype(y.dtype), x, self.spec.axes)
        if self.bias is not None:
            y = y + _along(self.bias[...].astype(y.dtype), x, self.spec.axes)
        return y.astype(x.dtype)

    def _normal(self, y: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        if not self.spec.centred:
            power = jnp.mean(jnp.square(y), axis=axes, keepdims=True)
            return y * lax.rsqrt(power + self.spec.epsilon)
        mean, var = jnp.mean(y, axis=axes, keepdims=True), jnp.var(y, axis=axes, keepdims=True)
        return (y - mean) * lax.rsqrt(var + self.spec.epsilon)

    def _grouped(self, y: jax.Array) -> jax.Array:
        # (N, H, W, C) to (N, H, W, groups, C / groups); statistics over all axes but N and groups.
        axis = self.spec.axes[0] % y.ndim
        groups = y.shape[axis] if self.spec.groups == -1 else self.spec.groups
        split = (*y.shape[:axis], groups, y.shape[axis] // groups, *y.shape[axis + 1 :])
        axes = tuple(i for i in range(1, len(split)) if i != axis)
        return self._normal(y.reshape(split), axes).reshape(y.shape)


class Normalization(nnx.Module):
    """(x − mean) / max(√variance, 1e-7): statistics measured once, not trained; or its inverse."""

    def __init__(
        self,
        mean: Weight,
        variance: Weight,
        count: Weight | None,
        axes: tuple[int, ...],
        invert: bool,
    ):
        self.mean, self.variance = nnx.BatchStat(mean), nnx.BatchStat(variance)
        self.count = None if count is None else nnx.BatchStat(count)
        self.axes, self.invert = axes, invert

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise."""
        mean, variance = self.mean[...].astype(x.dtype), self.variance[...].astype(x.dtype)
        if self.axes:
            mean, variance = _along(mean, x, self.axes), _along(variance, x, self.axes)
        deviation = jnp.maximum(jnp.sqrt(variance), 1e-7)
        return x * deviation + mean if self.invert else (x - mean) / deviation


class LayerScale(nnx.Module):
    """x · scale, a factor for each channel (of ConvNeXt)."""

    def __init__(self, scale: Weight):
        self.scale = parameter(scale)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scale."""
        return x * _along(self.scale[...].astype(x.dtype), x, (-1,))


@dataclass(frozen=True)
class UnitNorm:
    """x / √Σx² over `axes`."""

    axes: tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise."""
        return unit(x, self.axes)


def _axes(fields: Fields, default: Any = -1) -> tuple[int, ...]:
    value = fields.raw("axis", default)
    axes = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not axes or not all(is_integer(a) and a != 0 and abs(a) < 16 for a in axes):
        raise fields.wrong("axis", "axes other than the batch")
    return axes


def _scale_and_center(fields: Fields) -> tuple[str, ...]:
    scale = ("gamma",) if fields.boolean("scale", True) else ()
    return scale + (("beta",) if fields.boolean("center", True) else ())


def _batch_norm_weights(fields: Fields) -> Sequence[str]:
    return (*_scale_and_center(fields), "moving_mean", "moving_variance")


def _batch_norm(fields: Fields, weights: Weights) -> BatchNorm:
    axes = _axes(fields)
    if len(axes) != 1:
        raise fields.wrong("axis", "one axis")
    if fields.raw("mode", 0) != 0:
        raise fields.wrong("mode", "0, normalisation of each channel")
    for name, array in weights.items():
        check_shape(name, array, weights["moving_mean"].shape[:1])
    if fields.raw("renorm"):
        raise fields.wrong("renorm", "false")
    for name in ("fused", "synchronized", "virtual_batch_size", "renorm_clipping", "adjustment"):
        fields.raw(name)
    fields.raw("renorm_momentum")
    spec = NormSpec(axes, fields.number("epsilon", 1e-3), fields.number("momentum", 0.99))
    mean, var = weights["moving_mean"], weights["moving_variance"]
    return BatchNorm(weights.get("gamma"), weights.get("beta"), mean, var, spec)


def _layer_norm(fields: Fields, weights: Weights) -> LayerNorm:
    axes = _axes(fields)
    if fields.raw("rms_scaling"):
        raise fields.wrong("rms_scaling", "false: what it computes differs between Keras versions")
    for name, array in weights.items():
        check_shape(name, array, (None,) * len(axes))
    spec = NormSpec(axes, fields.number("epsilon", 1e-3))
    return LayerNorm(weights.get("gamma"), weights.get("beta"), spec)


def _group_norm(fields: Fields, weights: Weights) -> LayerNorm:
    axes = _axes(fields)
    groups = fields.integer("groups", 32, low=-1)
    if groups == 0 or len(axes) != 1:
        raise fields.wrong("groups", "at least 1, or -1 for a group for each channel")
    for name, array in weights.items():
        check_shape(name, array, (None,))
    spec = NormSpec(axes, fields.number("epsilon", 1e-3), groups=groups)
    return LayerNorm(weights.get("gamma"), weights.get("beta"), spec)


def _rms_norm(fields: Fields, weights: Weights) -> LayerNorm:
    spec = NormSpec(_axes(fields), fields.number("epsilon", 1e-6), centred=False)
    return LayerNorm(weights["scale"], None, spec)


def _normalization_weights(fields: Fields) -> Sequence[str]:
    return () if fields.has("mean") else ("mean", "variance", "count")


def _normalization(fields: Fields, weights: Weights) -> Normalization:
    whole = "axis" in fields.config and fields.raw("axis") in (None, [])
    axes = () if whole else _axes(fields)
    invert = bool(fields.raw("invert", False))
    if weights:
        for name in ("mean", "variance"):
            check_shape(name, weights[name], (None,) * len(axes))
        check_shape("count", weights["count"], ())
        count = weights["count"].astype(np.float32)
        return Normalization(weights["mean"], weights["variance"], count, axes, invert)
    mean, variance = (_statistics(fields, name, axes) for name in ("mean", "variance"))
    return Normalization(mean, variance, None, axes, invert)


def _statistics(fields: Fields, name: str, axes: tuple[int, ...]) -> np.ndarray:
    """Return a mean or variance that the configuration gives: a number or (nested) lists."""
    rule = "a number or a list of finite numbers"
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(fields.raw(name), np.float32).squeeze()
    except (ValueError, TypeError, OverflowError) as error:
        raise fields.wrong(name, rule) from error
    if not np.isfinite(values).all():
        raise fields.wrong(name, rule)
    if not axes:
        return values.reshape(()) if values.size == 1 else values
    return values.reshape(-1) if len(axes) == 1 else values


def _layer_scale(fields: Fields, weights: Weights) -> LayerScale:
    check_shape("gamma", weights["gamma"], (fields.integer("projection_dim"),))
    fields.raw("init_values")
    return LayerScale(weights["gamma"])


def _unit_norm(fields: Fields, weights: Weights) -> UnitNorm:
    return UnitNorm(_axes(fields))


TABLE = {
    "BatchNormalization": Converter(_batch_norm, _batch_norm_weights),
    "GroupNormalization": Converter(_group_norm, _scale_and_center),
    "LayerNormalization": Converter(_layer_norm, _scale_and_center),
    "LayerScale": Converter(_layer_scale, lambda fields: ("gamma",)),
    "Normalization": Converter(_normalization, _normalization_weights),
    "RMSNormalization": Converter(_rms_norm, lambda fields: ("scale",)),
    "UnitNormalization": Converter(_unit_norm),
}
