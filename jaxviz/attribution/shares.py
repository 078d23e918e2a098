"""How a linear operation shares R among its inputs, rule by rule; `rules` makes them.

z = Σ x·w + b is one number of the operation's output, R its relevance, a⁺ and a⁻ the positive and
negative part of a, st(z) = z + ε·sign(z), sign(0) = +1. What a bias gets is lost to the inputs, and
counted in the result's `delta`.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.attribution.linear import Linear, times


class Shares(NamedTuple):
    """What an operation's inputs get, each in its shape, and its bias, a number."""

    inputs: list[jax.Array]
    bias: jax.Array


class Rule(Protocol):
    """How one linear operation shares relevance."""

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """Share the relevance of the operation's output among its inputs and its bias."""
        ...


@dataclass(frozen=True)
class Epsilon:
    """In proportion to x·w."""

    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """See `Rule`."""
        rho = r / _stabilized(unit.output, self.size)
        return Shares(times(unit.inputs, unit.back("whole", rho)), _biased(unit.bias, rho))


@dataclass(frozen=True)
class Gamma:
    """In proportion to x·w, what has the sign of z counted more."""

    factor: float
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """See `Rule`."""
        up = self.one(unit, jnp.where(unit.output >= 0, r, jnp.zeros_like(r)), 1)
        down = self.one(unit, jnp.where(unit.output >= 0, jnp.zeros_like(r), r), -1)
        return Shares([a + b for a, b in zip(up.inputs, down.inputs, strict=True)], _sum(up, down))

    def one(self, unit: Linear, r: jax.Array, sign: int) -> Shares:
        """Favour what has one sign."""
        plus, minus = _parts(unit.inputs)
        same, other = ("positive", "negative") if sign > 0 else ("negative", "positive")
        favoured = unit.apply(plus, same) + unit.apply(minus, other)
        bias = None if unit.bias is None else unit.bias + self.factor * _part(unit.bias, sign)
        z = unit.output + self.factor * favoured
        z = z if bias is None or unit.bias is None else z + (bias - unit.bias)
        rho = r / _stabilized(z, self.size)
        gained = self.factor * rho
        shares = [
            times(unit.inputs, unit.back("whole", rho)),
            times(plus, unit.back(same, gained)),
            times(minus, unit.back(other, gained)),
        ]
        return Shares([sum(each) for each in zip(*shares, strict=True)], _biased(bias, rho))


@dataclass(frozen=True)
class AlphaBeta:
    """Among positive and negative contributions apart."""

    alpha: float
    beta: float
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """See `Rule`."""
        up = self.one(unit, r * self.alpha, 1)
        if self.beta == 0:
            return up
        down = self.one(unit, r * self.beta, -1)
        inputs = [a - b for a, b in zip(up.inputs, down.inputs, strict=True)]
        return Shares(inputs, up.bias - down.bias)

    def one(self, unit: Linear, r: jax.Array, sign: int) -> Shares:
        """Share among contributions of one sign."""
        plus, minus = _parts(unit.inputs)
        same, other = ("positive", "negative") if sign > 0 else ("negative", "positive")
        bias = None if unit.bias is None else _part(unit.bias, sign)
        z = unit.apply(plus, same) + unit.apply(minus, other)
        rho = r / _stabilized(z if bias is None else z + bias, self.size)
        some, others = times(plus, unit.back(same, rho)), times(minus, unit.back(other, rho))
        return Shares([a + b for a, b in zip(some, others, strict=True)], _biased(bias, rho))


@dataclass(frozen=True)
class Regardless:
    """What does not look at the inputs."""

    part: str
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """See `Rule`."""
        ones = [jnp.ones_like(x) for x in unit.inputs]
        rho = r / _stabilized(unit.apply(ones, self.part), self.size)
        return Shares(unit.back(self.part, rho), _biased(None, rho))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ZBox:
    """In proportion to x·w − low·w⁺ − high·w⁻."""

    low: Any
    high: Any
    size: float = field(metadata={"static": True})

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """See `Rule`."""
        low, high = ([_bound(end, x) for x in unit.inputs] for end in (self.low, self.high))
        below, above = unit.apply(low, "positive"), unit.apply(high, "negative")
        rho = r / _stabilized(unit.apply(unit.inputs, "whole") - below - above, self.size)
        whole = times(unit.inputs, unit.back("whole", rho))
        down = times(low, unit.back("positive", rho))
        up = times(high, unit.back("negative", rho))
        shares = [a - b - c for a, b, c in zip(whole, down, up, strict=True)]
        return Shares(shares, _biased(None, rho))


def _stabilized(z: jax.Array, size: float) -> jax.Array:
    """Return z + ε·sign(z), with sign(0) = +1."""
    small = jnp.asarray(size, z.dtype)
    return z + jnp.where(z >= 0, small, -small)


def _parts(inputs: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the positive and the negative parts of the inputs."""
    return [_part(x, 1) for x in inputs], [_part(x, -1) for x in inputs]


def _part(x: jax.Array, sign: int) -> jax.Array:
    zero = jnp.zeros((), x.dtype)
    return jnp.maximum(x, zero) if sign > 0 else jnp.minimum(x, zero)


def _bound(end: Any, x: jax.Array) -> jax.Array:
    """A bound for every number that an operation reads."""
    try:
        return jnp.broadcast_to(jnp.asarray(end, x.dtype), x.shape)
    except ValueError as error:
        raise ValueError(
            f"`low` and `high` must suit what the operation reads, of shape {x.shape[1:]}: got"
            f" bounds of shape {np.shape(end)}."
        ) from error


def _biased(bias: jax.Array | None, rho: jax.Array) -> jax.Array:
    return jnp.zeros((), rho.dtype) if bias is None else (rho * bias).sum()


def _sum(*shares: Shares) -> jax.Array:
    return jnp.stack([each.bias for each in shares]).sum()
