"""Penalise an image, or tidy it after some steps, in `maximize`.

A penalty is a number computed from one image (height, width, channel) that `maximize` subtracts
from the objective; images are in the units of `value_range`. Every derivative is finite, on flat
and on zero images too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp

from jaxviz._arguments import whole_number
from jaxviz.perturbation import filters

WeightSchedule = Callable[[jax.Array], jax.Array]


def total_variation(image: jax.Array, *, beta: float = 2.0) -> jax.Array:
    """Penalise how much neighbouring pixels differ.

    Σ [(x[h+1,w] − x[h,w])² + (x[h,w+1] − x[h,w])²]^(β/2) / N over the (H−1)×(W−1) anchors and all
    channels, N = H·W·C. β = 1 is the L1 form (of gradient lengths), β = 2 the L2 form. Where a
    patch is flat the derivative is 0.

    Args:
        image: (H, W, C).
        beta: the power β > 0.

    Returns:
        A number ≥ 0.

    Example:
        >>> import numpy as np, jaxviz as jv
        >>> x = np.arange(18, dtype=np.float32).reshape(3, 3, 2) % 7
        >>> round(float(jv.regularize.total_variation(x)), 4)
        7.2778

    Source:
        Mahendran, Vedaldi, CVPR 2015, doi:10.1109/CVPR.2015.7299155.
    """
    down = image[1:, :-1] - image[:-1, :-1]
    right = image[:-1, 1:] - image[:-1, :-1]
    squares = jnp.square(down) + jnp.square(right)
    return _power(squares, beta / 2).sum() / image.size


def lp_norm(image: jax.Array, *, p: float = 6.0) -> jax.Array:
    """Penalise the Lp norm, divided by the number of values: (Σ|x|^p)^(1/p) / N, N = H·W·C.

    The derivative by a pixel of 0 is 0, so that what costs nothing stays.

    Args:
        image: (H, W, C).
        p: the power, p ≥ 1.

    Returns:
        A number ≥ 0.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> float(jv.regularize.lp_norm(jnp.full((1, 4, 1), 2.0), p=2))
        1.0
    """
    # Scaled by the largest value, so that the power neither overflows nor underflows in float32.
    largest = jax.lax.stop_gradient(jnp.abs(image).max())
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return scale * _power(_power(_absolute(image) / scale, p).sum(), 1 / p) / image.size


def ink(image: jax.Array, *, ground: float = 0.0) -> jax.Array:
    """Penalise how far pixels are from an empty ground: Σ|x − ground| / N, N = H·W·C.

    It keeps a drawing on its ground, such as white strokes on black. The derivative by a pixel on
    the ground is 0, so that what costs nothing stays.

    Args:
        image: (H, W, C).
        ground: the pixel value that costs nothing.

    Returns:
        A number ≥ 0.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> float(jv.regularize.ink(jnp.ones((2, 2, 1)), ground=0.25))
        0.75
    """
    return _absolute(image - ground).sum() / image.size


@dataclass(frozen=True)
class Penalty:
    """Hold what is subtracted from the objective, weight · function(image); see `penalty`.

    Attributes:
        function: from an image (H, W, C) to a number.
        weight: a number, or a schedule from the step to a number.
        name: what `history` calls it.
        options: of the function, sorted, so that equal penalties compile once.
    """

    function: Callable[[jax.Array], jax.Array]
    weight: float | WeightSchedule
    name: str
    options: tuple[tuple[str, float], ...] = ()

    def __call__(self, image: jax.Array, step: jax.Array) -> jax.Array:
        """Return the weighted penalty of one image at a step."""
        value = self.function(image, **dict(self.options))
        if not callable(self.weight):
            return self.weight * value
        # Schedules, optax's too, mix the step's integers with floats.
        with jax.numpy_dtype_promotion("standard"):
            return self.weight(step) * value


def penalty(
    function: Callable[..., jax.Array],
    weight: float | WeightSchedule,
    *,
    name: str | None = None,
    options: dict[str, float] | None = None,
) -> Penalty:
    """Make a penalty for `maximize`: weight(step) · function(image).

    Args:
        function: from an image (H, W, C) to a number: `total_variation`, `lp_norm` or your own.
        weight: a number, or a schedule from the step to a number (any of optax's).
        name: what `history` calls it; None for the function's own name.
        options: options of the function, such as {"beta": 1.0}.

    Returns:
        A penalty.

    Example:
        >>> import jaxviz as jv
        >>> jv.regularize.penalty(jv.regularize.total_variation, 0.1, options={"beta": 1.0}).name
        'total_variation'
    """
    own = getattr(function, "__name__", type(function).__name__)
    return Penalty(function, weight, name or own, tuple(sorted((options or {}).items())))


@dataclass(frozen=True)
class Tidy:
    """Hold a `function(image)` that replaces the image after every `every`-th step."""

    function: Callable[[jax.Array], jax.Array]
    every: int


def blur_steps(*, every: int = 4, sigma: float = 0.5) -> Tidy:
    """Blur the image with a Gaussian after every `every`-th step.

    Args:
        every: how often, in steps, ≥ 1.
        sigma: the Gaussian's standard deviation in pixels, > 0; it is cut at 4 sigma, rounded up to
            whole pixels.

    Returns:
        A step for `maximize(regularizers=…)`.

    Raises:
        ValueError: `every` or `sigma` is too small.

    Example:
        >>> import jaxviz as jv
        >>> jv.regularize.blur_steps(every=8).every
        8

    Source:
        Yosinski et al., "Understanding Neural Networks Through Deep Visualization", 2015,
        arXiv:1506.06579.
    """
    every = whole_number(every, "every")
    if not sigma > 0:
        raise ValueError(f"`sigma` must be above 0 pixels: got {sigma}.")
    return Tidy(_blur(float(sigma)), every)


def _absolute(x: jax.Array) -> jax.Array:
    """Return |x| with derivative sign(x), 0 at 0, where that of `jnp.abs` is 1."""
    return x * jnp.sign(x)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """Return base ** exponent for base ≥ 0, with derivative 0 at 0."""
    if exponent == 1.0:
        return base
    # The untaken branch must be differentiable too: 0 · ∞ is NaN, so its base is 1 where base is 0.
    positive = base > 0
    safe = jnp.where(positive, base, jnp.ones_like(base))
    return jnp.where(positive, safe**exponent, jnp.zeros_like(base))


@cache
def _blur(sigma: float) -> Callable[[jax.Array], jax.Array]:
    # One function a width, so that the compiled step is found again.
    return partial(filters.blur, sigma=sigma, radius=filters.reach(sigma))
