"""Normalisation layers. Out of training, batch normalisation is one multiply-add per channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxviz.keras.converter import Converter, Weights, check_shape, parameter
from jaxviz.keras.fields import Fields, is_integer


@dataclass(frozen=True)
class NormSpec:
    """The constants of a normalisation."""

    axis: int
    epsilon: float
    momentum: float


class BatchNorm(nnx.Module):
    """scale · (x − mean) / √(var + ε) + bias; `train()` uses and updates the batch's statistics."""

    def __init__(self, scale: Any, bias: Any, mean: Any, var: Any, spec: NormSpec):
        self.scale, self.bias = parameter(scale), parameter(bias)
        self.mean, self.var = nnx.BatchStat(mean), nnx.BatchStat(var)
        self.spec, self.use_running_average = spec, True

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise along the channel axis; statistics are float32 whatever x is."""
        axis = self.spec.axis % x.ndim
        shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(x, axis)
        factor = lax.rsqrt(var + self.spec.epsilon)
        if self.scale is not None:
            factor = factor * self.scale[...].astype(factor.dtype)
        offset = -mean * factor
        if self.bias is not None:
            offset = offset + self.bias[...].astype(offset.dtype)
        return x * factor.astype(x.dtype).reshape(shape) + offset.astype(x.dtype).reshape(shape)

    def _batch_statistics(self, x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
        axes = tuple(i for i in range(x.ndim) if i != axis)
        x = x.astype(self.mean[...].dtype)
        mean, var = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
        keep = self.spec.momentum
        self.mean[...] = keep * self.mean[...] + (1 - keep) * lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + (1 - keep) * lax.stop_gradient(var)
        return mean, var


def _batch_norm_weights(fields: Fields) -> Sequence[str]:
    scale = ("gamma",) if fields.boolean("scale", True) else ()
    center = ("beta",) if fields.boolean("center", True) else ()
    return (*scale, *center, "moving_mean", "moving_variance")


def _batch_norm(fields: Fields, weights: Weights) -> BatchNorm:
    axis = fields.raw("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not is_integer(axis) or axis == 0:
        raise fields.wrong("axis", "one axis, not the batch")
    if fields.raw("mode", 0) != 0:
        raise fields.wrong("mode", "0, normalisation of each channel")
    for name in weights:
        check_shape(name, weights[name], weights["moving_mean"].shape[:1])
    spec = NormSpec(axis, fields.number("epsilon", 1e-3), fields.number("momentum", 0.99))
    mean, var = weights["moving_mean"], weights["moving_variance"]
    return BatchNorm(weights.get("gamma"), weights.get("beta"), mean, var, spec)


TABLE = {"BatchNormalization": Converter(_batch_norm, _batch_norm_weights)}
