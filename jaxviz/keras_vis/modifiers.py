"""Modify inputs and gradients as keras-vis does, and blend its pictures.

Modifiers work on image batches (1, height, width, channel); pictures are NumPy arrays.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

EPSILON = 1e-7

GRAD_MODIFIERS = {
    "negate": lambda gradient: -gradient,
    "absolute": abs,
    "invert": lambda gradient: 1.0 / (gradient + EPSILON),
    "relu": lambda gradient: gradient * (gradient > 0),
    "small_values": lambda gradient: abs(1.0 / (gradient + EPSILON)),
}

Modifier = str | Callable[[np.ndarray], Any] | None


def gradient_modifier(modifier: Modifier) -> Callable[[Any], Any]:
    """Return the function that a gradient modifier names."""
    if modifier is None or callable(modifier):
        return modifier or (lambda gradient: gradient)
    if modifier not in GRAD_MODIFIERS:
        known = ", ".join(GRAD_MODIFIERS)
        raise ValueError(f"`grad_modifier` must be one of {known}: got {modifier!r}.")
    return GRAD_MODIFIERS[modifier]


class InputModifier(Protocol):
    """Change the image before (`pre`) and after (`post`) each step."""

    def pre(self, image: Any) -> Any:
        """Return the image that the step starts from."""

    def post(self, image: Any) -> Any:
        """Return the image that the step ends with."""


class Jitter:
    """Shift at random as keras-vis does: the border wraps with a period one pixel too short.

    It is SciPy's `shift` of order 0 with mode "wrap": the first and the last pixel count as one.

    Args:
        jitter: the largest shift, a number or one per axis; below 1 it is a share of the size.
        seed: of the random shifts.

    Example:
        >>> import numpy as np, jaxviz.keras_vis.modifiers as kp
        >>> kp.Jitter(2).pre(np.ones((1, 8, 8, 3))).shape
        (1, 8, 8, 3)
    """

    def __init__(self, jitter: float | Sequence[float] = 0.05, *, seed: int = 0):
        self.jitter = np.atleast_1d(np.asarray(jitter, float))
        if (self.jitter < 0).any() or self.jitter.size > 2:
            raise ValueError(f"`jitter` must be one or two numbers of at least 0: got {jitter}.")
        self._random = np.random.default_rng(seed)

    def pre(self, image: Any) -> Any:
        """Return a shifted image."""
        sizes = np.asarray(image.shape[1:3])
        limits = np.broadcast_to(self.jitter, 2)
        limits = np.where(limits < 1, sizes * limits, limits).astype(int)
        down, right = (int(self._random.integers(-limit, limit + 1)) for limit in limits)
        return self.shifted(jnp.asarray(image), down, right)

    def post(self, image: Any) -> Any:
        """Return the same image."""
        return image

    @staticmethod
    def shifted(image: Any, down: int, right: int) -> Any:
        """Return the image moved by whole pixels."""
        rows = _short_wrap(np.arange(image.shape[1]) - down, image.shape[1])
        cols = _short_wrap(np.arange(image.shape[2]) - right, image.shape[2])
        return image[:, rows][:, :, cols]


class Roll(Jitter):
    """Roll at random: every pixel stays, moved.

    Args:
        jitter: the largest shift, a number or one per axis; below 1 it is a share of the size.
        seed: of the random shifts.

    Example:
        >>> import numpy as np, jaxviz.keras_vis.modifiers as kp
        >>> float(kp.Roll(2).pre(np.arange(64.0).reshape(1, 8, 8, 1)).sum())
        2016.0
    """

    @staticmethod
    def shifted(image: Any, down: int, right: int) -> Any:
        """Return the image rolled by whole pixels."""
        return jnp.roll(image, (down, right), (1, 2))


def print_losses(
    step: int, losses: dict[str, float], loss: float, gradient: np.ndarray, value: np.ndarray
) -> None:
    """Print the losses of a step: the callback that `verbose=True` adds, as keras-vis's Print."""
    del gradient, value
    terms = ", ".join(f"{name} {term:g}" for name, term in losses.items())
    print(f"step {step + 1}: loss {loss:g} ({terms})")


def normalize(array: np.ndarray) -> np.ndarray:
    """Scale an array to 0…1: (a − min) / (max − min + 1e-7)."""
    low, high = array.min(), array.max()
    return (array - low) / (high - low + EPSILON)


def find_layer(model: Any, name: str) -> int:
    """Return the index of a layer by name.

    Args:
        model: an adapter model, or anything with `layer_names`.
        name: the layer's name.

    Returns:
        Its index in `model.layer_names`.

    Raises:
        ValueError: there is no such layer; names the nearest.

    Example:
        >>> from types import SimpleNamespace
        >>> import jaxviz.keras_vis.modifiers as kp
        >>> kp.find_layer(SimpleNamespace(layer_names=["conv", "preds"]), "preds")
        1
    """
    names = list(model.layer_names)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.0) or ["none"]
        raise ValueError(f"`name` must be a layer: got {name!r}; the nearest is {near[0]!r}.")
    return names.index(name)


def overlay(first: np.ndarray, second: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
    """Blend two pictures: first·alpha + second·(1 − alpha).

    Args:
        first: the picture on top.
        second: the picture below, of the same shape.
        alpha: how much of the first, 0…1.

    Returns:
        An array of the shape and dtype of `first`.

    Raises:
        ValueError: alpha is out of range, or the shapes differ.

    Example:
        >>> import numpy as np, jaxviz.keras_vis.modifiers as kp
        >>> kp.overlay(np.full((1, 1), 10, np.uint8), np.full((1, 1), 20, np.uint8)).item()
        15
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must be in 0…1: got {alpha}.")
    if first.shape != second.shape:
        raise ValueError(f"`second` must have the shape of `first`: got {second.shape}.")
    return (first * alpha + second * (1.0 - alpha)).astype(first.dtype)


def _short_wrap(index: np.ndarray, size: int) -> np.ndarray:
    """Wrap indices as SciPy's mode "wrap" does: with period size − 1, the ends counting as one."""
    if size == 1:
        return np.zeros_like(index)
    period = size - 1
    low = index + period * (-index // period + 1)
    high = index - period * (index // period)
    return np.where(index < 0, low, np.where(index > period, high, index))
