"""Layers that join several arrays into one."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxviz.keras.converter import Converter, Weights
from jaxviz.keras.fields import Fields, is_integer


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
    """New axes go after the batch, as in Keras."""
    return x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) if x.ndim < rank else x


@dataclass(frozen=True)
class Concatenate:
    """Arrays one after the other along an axis."""

    axis: int

    def __call__(self, values: Sequence[jax.Array]) -> jax.Array:
        """Join."""
        return jnp.concatenate(values, axis=self.axis)


def _merge(join: Callable[[Sequence[jax.Array]], jax.Array]) -> Converter:
    return Converter(lambda fields, weights: Merge(join))


def _concatenate(fields: Fields, weights: Weights) -> Concatenate:
    axis = fields.raw("axis", -1)
    if not is_integer(axis) or axis == 0:
        raise fields.wrong("axis", "an axis, not the batch")
    return Concatenate(axis)


TABLE = {
    "Add": _merge(_add),
    "Subtract": _merge(_subtract),
    "Multiply": _merge(_multiply),
    "Average": _merge(_average),
    "Maximum": _merge(_maximum),
    "Minimum": _merge(_minimum),
    "Concatenate": Converter(_concatenate),
}
