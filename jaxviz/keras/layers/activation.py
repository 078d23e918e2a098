"""Activations, as functions of an array and as layers of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz.keras.architecture.fields import Fields, is_integer
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.layers.converter import Converter, Weight, Weights, parameter


def linear(x: jax.Array) -> jax.Array:
    """Return x."""
    return x


def softmax(x: jax.Array) -> jax.Array:
    """Return softmax over the last axis."""
    return jax.nn.softmax(x, axis=-1)


def hard_sigmoid_legacy(x: jax.Array) -> jax.Array:
    """Return max(0, min(1, 0.2·x + 0.5)), which Keras 1 and 2 called hard sigmoid."""
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Return relu6(x + 3) / 6, which Keras 3 calls hard sigmoid."""
    return jax.nn.relu6(x + 3.0) / 6.0


def hard_silu(x: jax.Array) -> jax.Array:
    """Return x · relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


def exponential(x: jax.Array) -> jax.Array:
    """Return exp(x)."""
    return jnp.exp(x)


def gelu(x: jax.Array) -> jax.Array:
    """Return x · Φ(x), with the normal distribution function itself, not its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


def log_softmax(x: jax.Array) -> jax.Array:
    """Return the logarithm of softmax over the last axis."""
    return jax.nn.log_softmax(x, axis=-1)


def leaky_relu(x: jax.Array) -> jax.Array:
    """Return max(x, 0.2·x), the slope of Keras 3's function of that name."""
    return jax.nn.leaky_relu(x, 0.2)


def tanh_shrink(x: jax.Array) -> jax.Array:
    """Return x − tanh(x)."""
    return x - jnp.tanh(x)


def hard_tanh(x: jax.Array) -> jax.Array:
    """Return x clipped to [−1, 1]."""
    return jnp.clip(x, -1.0, 1.0)


def hard_shrink(x: jax.Array) -> jax.Array:
    """Return x where |x| > 0.5, else 0."""
    return jnp.where(jnp.abs(x) > 0.5, x, jnp.zeros_like(x))


def soft_shrink(x: jax.Array) -> jax.Array:
    """Return x − 0.5 above 0.5, x + 0.5 below −0.5, 0 between."""
    return x - jnp.clip(x, -0.5, 0.5)


FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": linear,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_legacy": hard_sigmoid_legacy,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "gelu": gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "hard_tanh": hard_tanh,
    "mish": jax.nn.mish,
    "exponential": exponential,
    "leaky_relu": leaky_relu,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tanh_shrink": tanh_shrink,
    "hard_shrink": hard_shrink,
    "soft_shrink": soft_shrink,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "squareplus": jax.nn.squareplus,
    "glu": jax.nn.glu,
}


@dataclass(frozen=True)
class Relu:
    """The general ReLU: `slope`·(x − threshold) below the threshold, x above, at most `ceiling`."""

    slope: float = 0.0
    ceiling: float | None = None
    threshold: float = 0.0

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        if self.threshold == 0.0 and self.ceiling is None:
            return jax.nn.relu(x) if self.slope == 0.0 else jax.nn.leaky_relu(x, self.slope)
        if (self.threshold, self.slope, self.ceiling) == (0.0, 0.0, 6.0):
            return jax.nn.relu6(x)  # by its name, so that guided backpropagation knows it
        below = self.slope * (x - self.threshold)
        above = x if self.ceiling is None else jnp.minimum(x, self.ceiling)
        return jnp.where(x >= self.threshold, above, below)


@dataclass(frozen=True)
class Elu:
    """x above 0, alpha·(exp(x) − 1) below."""

    alpha: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        return jax.nn.elu(x, self.alpha)


@dataclass(frozen=True)
class ThresholdedRelu:
    """x where x > theta, else 0."""

    theta: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        return jnp.where(x > self.theta, x, jnp.zeros_like(x))


@dataclass(frozen=True)
class Softmax:
    """Softmax over one axis or several."""

    axis: int | tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        return jax.nn.softmax(x, axis=self.axis)


@dataclass(frozen=True)
class Activation:
    """A layer that only applies a function."""

    activation: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        return self.activation(x)


class PRelu(nnx.Module):
    """x above 0, alpha·x below; alpha is learnt, and shared along some axes."""

    def __init__(self, alpha: Weight, shared_axes: tuple[int, ...]):
        self.alpha, self.shared_axes = parameter(alpha), shared_axes

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the activation to an array of any shape."""
        alpha = self.alpha[...].astype(x.dtype)[None]
        shape = tuple(1 if axis in self.shared_axes else n for axis, n in enumerate(x.shape))
        if alpha.shape[1:] != shape[1:]:
            raise ValueError(f"alpha of shape {alpha.shape[1:]} does not fit {x.shape}")
        return jax.nn.relu(x) - alpha * jax.nn.relu(-x)


def resolve(value: Any) -> Callable[[jax.Array], jax.Array]:
    """Return the activation that a configuration gives: by name, or a layer described in full."""
    if value is None:
        return linear
    if isinstance(value, Mapping):
        kind, config = value.get("class_name"), value.get("config")
        if kind == "function" and isinstance(config, str):
            value = config
        elif kind in TABLE and kind != "PReLU" and isinstance(config, Mapping):
            fields = Fields(config)
            layer = TABLE[kind].build(fields, {})
            fields.finish()
            return layer
        else:
            value = kind
    if not isinstance(value, str) or value not in FUNCTIONS:
        raise KerasFileError(f"activation {str(value)[:60]!r} is not known")
    return FUNCTIONS[value]


def _activation(fields: Fields, weights: Weights) -> Activation:
    return Activation(resolve(fields.raw("activation")))


def _relu(fields: Fields, weights: Weights) -> Relu:
    ceiling = fields.number("max_value") if fields.has("max_value") else None
    slope = "negative_slope" if fields.has("negative_slope") else "alpha"
    threshold = fields.number("threshold", 0.0) if fields.has("threshold") else 0.0
    return Relu(fields.number(slope, 0.0) if fields.has(slope) else 0.0, ceiling, threshold)


def _leaky_relu(fields: Fields, weights: Weights) -> Relu:
    return Relu(fields.number("negative_slope" if fields.has("negative_slope") else "alpha", 0.3))


def _softmax(fields: Fields, weights: Weights) -> Softmax:
    axis = fields.raw("axis", -1)
    axis = tuple(axis) if isinstance(axis, list) else axis
    if not all(is_integer(a) for a in (axis if isinstance(axis, tuple) else (axis,))):
        raise fields.wrong("axis", "a whole number or a list of them")
    return Softmax(axis)


def _elu(fields: Fields, weights: Weights) -> Elu:
    return Elu(fields.number("alpha", 1.0))


def _thresholded(fields: Fields, weights: Weights) -> ThresholdedRelu:
    return ThresholdedRelu(fields.number("theta", 1.0))


def _prelu(fields: Fields, weights: Weights) -> PRelu:
    shared = fields.raw("shared_axes") or []
    if not isinstance(shared, list) or not all(is_integer(axis) and axis > 0 for axis in shared):
        raise fields.wrong("shared_axes", "a list of axes, counted from 1")
    return PRelu(weights["alpha"], tuple(shared))


TABLE = {
    "Activation": Converter(_activation),
    "ReLU": Converter(_relu),
    "LeakyReLU": Converter(_leaky_relu),
    "ELU": Converter(_elu),
    "Softmax": Converter(_softmax),
    "ThresholdedReLU": Converter(_thresholded),
    "PReLU": Converter(_prelu, lambda fields: ("alpha",)),
}
