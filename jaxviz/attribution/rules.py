"""Rules of layer-wise relevance propagation, by name: each is made with its constants.

See `jaxviz.attribution.shares` for what z, R, a⁺, a⁻ and st are, and how each rule is carried out.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxviz.attribution.shares import AlphaBeta, Epsilon, Gamma, Regardless, Rule, Shares, ZBox

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
RulesLike = Rule | Mapping[str | int, Rule]


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
    return Epsilon(_above("size", size))


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
    return Gamma(float(factor), _above("size", size))


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
    return AlphaBeta(float(alpha), float(beta), _above("size", size))


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
    return Regardless("ones", _above("size", size))


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
    return Regardless("square", _above("size", size))


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
    return ZBox(first, second, _above("size", size))


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


def _above(name: str, size: float) -> float:
    if not size > 0:
        raise ValueError(f"`{name}` must be above 0: got {size!r}.")
    return float(size)
