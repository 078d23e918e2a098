"""Layers that join several arrays into one."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.keras.architecture.fields import Fields, is_integer
from jaxviz.keras.layers.converter import Converter, Weights, unit


def _add(values: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, values)


def _multiply(values: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.multiply, values)


def _average(values: Sequence[jax.Array]) -> jax.Array:
    return _add(values) / len(values)


def _maximum(values: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.maximum, values)


def _minimum(values: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.minimum, values)


def _subtract(values: Sequence[jax.Array]) -> jax.Array:
    first, second = values
    return first - second


@dataclass(frozen=True)
class Merge:
    """A function of several arrays; lower ranks and sizes of 1 are broadcast."""

    join: Callable[[Sequence[jax.Array]], jax.Array]

    def __call__(self, values: Sequence[jax.Array]) -> jax.Array:
        """Join."""
        rank = max(value.ndim for value in values)
        return self.join([_raise_rank(value, rank) for value in values])


def _raise_rank(x: jax.Array, rank: int) -> jax.Array:
    """Insert axes of 1 after the batch, as Keras does, until there are `rank`."""
    return x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) if x.ndim < rank else x


@dataclass(frozen=True)
class Concatenate:
    """Arrays one after the other along an axis."""

    axis: int

    def __call__(self, values: Sequence[jax.Array]) -> jax.Array:
        """Join."""
        return jnp.concatenate(values, axis=self.axis)


@dataclass(frozen=True)
class Dot:
    """The product of two arrays summed over one axis of each; unit vectors if `normalize`."""

    axes: tuple[int, int]
    normalize: bool

    def __call__(self, values: Sequence[jax.Array]) -> jax.Array:
        """Join."""
        first, second = values
        axes = [a % v.ndim for a, v in zip(self.axes, values, strict=True)]
        if self.normalize:
            first, second = (unit(v, a) for v, a in zip(values, axes, strict=True))
        contract = ((axes[0],), (axes[1],))
        product = lax.dot_general(first, second, (contract, ((0,), (0,))))
        return product[:, None] if product.ndim == 1 else product


@dataclass(frozen=True)
class ScaledResidual:
    """first + scale · second (of InceptionResNet)."""

    scale: float

    def __call__(self, values: Sequence[jax.Array]) -> jax.Array:
        """Join."""
        first, second = values
        return first + second * self.scale


def _merge(join: Callable[[Sequence[jax.Array]], jax.Array]) -> Converter:
    return Converter(lambda fields, weights: Merge(join))


def _concatenate(fields: Fields, weights: Weights) -> Concatenate:
    axis = fields.raw("axis", -1)
    if not is_integer(axis) or axis == 0:
        raise fields.wrong("axis", "an axis, not the batch")
    return Concatenate(axis)


def _dot(fields: Fields, weights: Weights) -> Dot:
    given = fields.raw("axes")
    pair = list(given) if isinstance(given, list | tuple) else [given, given]
    axes = [a[0] if isinstance(a, list) and len(a) == 1 else a for a in pair]
    sound = [axis for axis in axes if is_integer(axis) and axis != 0 and abs(axis) < 16]
    if len(axes) != 2 or len(sound) != 2:
        raise fields.wrong("axes", "one axis, or two, other than the batch")
    return Dot((sound[0], sound[1]), bool(fields.raw("normalize", False)))


def _scaled_residual(fields: Fields, weights: Weights) -> ScaledResidual:
    return ScaledResidual(fields.number("scale"))


TABLE = {
    "Add": _merge(_add),
    "Subtract": _merge(_subtract),
    "Multiply": _merge(_multiply),
    "Average": _merge(_average),
    "Maximum": _merge(_maximum),
    "Minimum": _merge(_minimum),
    "Concatenate": Converter(_concatenate),
    "CustomScaleLayer": Converter(_scaled_residual),
    "Dot": Converter(_dot),
}
