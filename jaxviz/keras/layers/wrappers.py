"""Layers that hold another layer, or a model: each is built, then called with what it holds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.converter import Converter, Weights


class TimeDistributed(nnx.Module):
    """y[:, t] = layer(x[:, t]) for every t."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(self, x: jax.Array) -> Any:
        """Apply the layer to arrays (N, T, ...) at each t: (N, T, ...)."""
        return jax.vmap(self.layer, in_axes=1, out_axes=1)(x)


def _time_distributed(fields: Fields, weights: Weights) -> Callable[[Any], Any]:
    return TimeDistributed


def _spectral_normalization(fields: Fields, weights: Weights) -> Callable[[Any], Any]:
    fields.integer("power_iterations", 1)
    return _itself


def _itself(inner: Any) -> Any:
    """Return what is wrapped: its kernel was divided by its largest singular value in training."""
    return inner


def _left_singular_vector(fields: Fields) -> Sequence[str]:
    return ("vector_u",)


TABLE = {
    "SpectralNormalization": Converter(_spectral_normalization, _left_singular_vector),
    "TimeDistributed": Converter(_time_distributed),
}
