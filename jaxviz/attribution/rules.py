"""Rules of layer-wise relevance propagation: how a linear operation shares R among its inputs.

z = Σ x·w + b is one number of the operation's output, R its relevance, a⁺ and a⁻ the positive and
negative part of a, st(z) = z + ε·sign(z), sign(0) = +1. What a bias gets is lost to the inputs, and
counted in the result's `delta`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.attribution.linear import Linear, times

__all__ = [
    "Rule",
    "RulesLike",
    "Shares",
    "alpha_beta",
    "epsilon",
    "epsilon_gamma_box",
    "epsilon_plus",
    "flat",
    "gamma",
    "w_square",
    "z_box",
    "z_plus",
]
EPSILON = 1e-6


class Shares(NamedTuple):
    """What an operation's inputs get, each in its shape, and its bias, a number."""

    inputs: list[jax.Array]
    bias: jax.Array


class Rule(Protocol):
    """How one linear operation shares relevance."""

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        """Share the relevance of the operation's output among its inputs and its bias."""
        ...


RulesLike = Rule | Mapping[str | int, Rule]


@dataclass(frozen=True)
class _Epsilon:
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        rho = r / _stabilized(unit.output, self.size)
        return Shares(times(unit.inputs, unit.back("whole", rho)), _biased(unit.bias, rho))


def epsilon(size: float = EPSILON) -> Rule:
    """Share in proportion to x·w: R·x·w / st(z).

    Args:
        size: ε, above 0; a large one takes up what is weak or contradicts itself.

    Returns:
        The rule.

    Raises:
        ValueError: `size` is not above 0.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[2.0], [3.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=epsilon()).values[0].round(3).tolist()
        [[2.0], [3.0]]

    Source: S. Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
    Layer-Wise Relevance Propagation, 2015, doi:10.1371/journal.pone.0130140.
    """
    return _Epsilon(_above("size", size))


@dataclass(frozen=True)
class _Gamma:
    factor: float
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
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


def gamma(factor: float = 0.25, *, size: float = EPSILON) -> Rule:
    """Favour contributions of the sign of z: where z ≥ 0, x·w + γ·(x·w)⁺ in place of x·w.

    Where z < 0, x·w + γ·(x·w)⁻. For x ≥ 0 and z ≥ 0 this is w + γ·w⁺, the rule as it was published;
    in four parts it also holds for inputs below 0, as of standardised images.

    Args:
        factor: γ, at least 0; 0 is `epsilon`, ∞ would be `z_plus`.
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=gamma(1.0)).values[0, 0].round(3)
        array([2.4], dtype=float32)

    Source: G. Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019,
    doi:10.1007/978-3-030-28954-6_10; four parts as in C. Anders et al., Zennit, 2021,
    arXiv:2106.13200.
    """
    if not factor >= 0:
        raise ValueError(f"`factor` must be at least 0: got {factor!r}.")
    return _Gamma(float(factor), _above("size", size))


@dataclass(frozen=True)
class _AlphaBeta:
    alpha: float
    beta: float
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
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


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, *, size: float = EPSILON) -> Rule:
    """Share α·R among positive contributions and −β·R among negative ones.

    R·(α·(x·w)⁺ / Σ(x·w)⁺ − β·(x·w)⁻ / Σ(x·w)⁻), the bias counted with its sign. Where one of the
    sums is 0, its part of R goes to nobody.

    Args:
        alpha: α.
        beta: β, at least 0; α − β = 1.
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: α − β is not 1, or an argument is out of its range.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=alpha_beta(2, 1)).values[0, 1].round(3)
        array([-2.], dtype=float32)

    Source: S. Bach et al., 2015, doi:10.1371/journal.pone.0130140.
    """
    if not beta >= 0 or not np.isclose(alpha - beta, 1):
        raise ValueError(
            f"`alpha` - `beta` must be 1, and `beta` at least 0: got {alpha!r} and {beta!r}."
        )
    return _AlphaBeta(float(alpha), float(beta), _above("size", size))


def z_plus(*, size: float = EPSILON) -> Rule:
    """Share among positive contributions alone: `alpha_beta` with α = 1, β = 0.

    Args:
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: `size` is not above 0.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=z_plus()).values[0].round(3).tolist()
        [[2.0], [0.0]]

    Source: G. Montavon et al., Explaining nonlinear classification decisions with deep Taylor
    decomposition, 2017, arXiv:1512.02479.
    """
    return alpha_beta(1.0, 0.0, size=size)


@dataclass(frozen=True)
class _Regardless:
    """What does not look at the inputs."""

    part: str
    size: float

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        ones = [jnp.ones_like(x) for x in unit.inputs]
        rho = r / _stabilized(unit.apply(ones, self.part), self.size)
        return Shares(unit.back(self.part, rho), _biased(None, rho))


def flat(*, size: float = EPSILON) -> Rule:
    """Share equally among all inputs that an output reads.

    Args:
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: `size` is not above 0.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=flat()).values.round(3).tolist()
        [[[1.0], [1.0]]]

    Source: S. Lapuschkin et al., Unmasking Clever Hans predictors, 2019,
    doi:10.1038/s41467-019-08987-4.
    """
    return _Regardless("ones", _above("size", size))


def w_square(*, size: float = EPSILON) -> Rule:
    """Share in proportion to w², whatever the inputs.

    Args:
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: `size` is not above 0.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=w_square()).values[0, 0].round(2)
        array([1.8], dtype=float32)

    Source: G. Montavon et al., 2017, arXiv:1512.02479.
    """
    return _Regardless("square", _above("size", size))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _ZBox:
    low: Any
    high: Any
    size: float = field(metadata={"static": True})

    def share(self, unit: Linear, r: jax.Array) -> Shares:
        low, high = ([_bound(end, x) for x in unit.inputs] for end in (self.low, self.high))
        below, above = unit.apply(low, "positive"), unit.apply(high, "negative")
        rho = r / _stabilized(unit.apply(unit.inputs, "whole") - below - above, self.size)
        whole = times(unit.inputs, unit.back("whole", rho))
        down = times(low, unit.back("positive", rho))
        up = times(high, unit.back("negative", rho))
        shares = [a - b - c for a, b, c in zip(whole, down, up, strict=True)]
        return Shares(shares, _biased(None, rho))


def z_box(low: Any, high: Any, *, size: float = EPSILON) -> Rule:
    """Share in proportion to x·w − low·w⁺ − high·w⁻: for the operation that reads the pixels.

    Args:
        low: the least value that a pixel can have, on the scale that the operation reads: a number,
            one per channel, or an image (H, W, C).
        high: the largest.
        size: ε, see `epsilon`.

    Returns:
        The rule.

    Raises:
        ValueError: `low` is not below `high`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: x.reshape(len(x), -1) @ jnp.array([[3.0], [-1.0]])
        >>> given = {"first": z_box(0, 2)}
        >>> jv.attribution.lrp(f, jnp.ones((1, 2, 1)), rules=given).values[0].round(3).tolist()
        [[1.5], [0.5]]

    Source: G. Montavon et al., 2017, arXiv:1512.02479.
    """
    if not np.all(np.asarray(low) < np.asarray(high)):
        raise ValueError(f"`low` must be below `high`: got {low!r} and {high!r}.")
    first, second = (end if np.ndim(end) == 0 else jnp.asarray(end) for end in (low, high))
    return _ZBox(first, second, _above("size", size))


def epsilon_plus(*, size: float = EPSILON) -> dict[str | int, Rule]:
    """Compose: convolutions by `z_plus`, dense layers by `epsilon`.

    Args:
        size: ε of the dense layers.

    Returns:
        What `lrp` takes as `rules`; add entries of your own.

    Raises:
        ValueError: `size` is not above 0.

    Example:
        >>> sorted(epsilon_plus())
        ['convolution', 'dense']
    """
    return {"convolution": z_plus(), "dense": epsilon(size)}


def epsilon_gamma_box(
    low: Any, high: Any, *, factor: float = 0.25, size: float = EPSILON
) -> dict[str | int, Rule]:
    """Compose: the first operation by `z_box`, convolutions by `gamma`, dense layers by `epsilon`.

    Args:
        low: see `z_box`.
        high: see `z_box`.
        factor: γ.
        size: ε of the dense layers.

    Returns:
        What `lrp` takes as `rules`; add entries of your own.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sorted(epsilon_gamma_box(0, 1))
        ['convolution', 'dense', 'first']
    """
    return {"first": z_box(low, high), "convolution": gamma(factor), "dense": epsilon(size)}


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


def _above(name: str, size: float) -> float:
    if not size > 0:
        raise ValueError(f"`{name}` must be above 0: got {size!r}.")
    return float(size)
