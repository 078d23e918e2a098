"""Hold an objective as a value that composes with + - * and numbers.

An objective maps named activations {layer: (S, …)} of S images to S numbers, one an image. The
catalogue is `objectives`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.layers import Layer

Activations = Mapping[Layer, jax.Array]
Shapes = Mapping[Layer, tuple[int, ...]]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values"],
    meta_fields=["evaluate", "layers", "check"],
)
@dataclass(frozen=True)
class Objective:
    """A number for each image, made of layer outputs: `evaluate(activations, *values)`.

    Args:
        evaluate: from {layer: (S, …)} and the values to (S,) numbers.
        layers: the layers it reads.
        values: arrays, numbers or objectives; these may differ without compiling again.
        check: `check(shapes, layers, *values)` raises ValueError where a layer's shape (without the
            batch axis) does not suit the values.

    Example:
        >>> import jaxviz as jv
        >>> both = jv.objectives.channel("conv1", 3) + 2 * jv.objectives.unit(7)
        >>> both.layers
        ('conv1', None)
    """

    evaluate: Callable[..., jax.Array]
    layers: tuple[Layer, ...]
    values: tuple[Any, ...] = ()
    check: Callable[..., None] | None = field(default=None)

    def __call__(self, activations: Activations) -> jax.Array:
        """Return the S numbers for the activations of S images."""
        own = {layer: activations[layer] for layer in self.layers}
        return self.evaluate(own, *self.values)

    def __add__(self, other: "Objective | float") -> "Objective":
        return _combine(_add, self, other)

    def __radd__(self, other: float) -> "Objective":
        return _combine(_add, other, self)

    def __sub__(self, other: "Objective | float") -> "Objective":
        return _combine(_subtract, self, other)

    def __rsub__(self, other: float) -> "Objective":
        return _combine(_subtract, other, self)

    def __mul__(self, other: "Objective | float") -> "Objective":
        return _combine(_multiply, self, other)

    def __rmul__(self, other: float) -> "Objective":
        return _combine(_multiply, other, self)

    def __neg__(self) -> "Objective":
        return _combine(_multiply, -1.0, self)


def objective(function: Callable[[Activations], jax.Array], layers: Sequence[Layer]) -> Objective:
    """Maximise any function of named activations.

    Args:
        function: from {layer: (S, …)} to (S,) numbers, in JAX.
        layers: the layers it reads.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> peak = jv.objectives.objective(lambda acts: acts["conv"].max((1, 2, 3)), ["conv"])
        >>> peak({"conv": jnp.ones((2, 4, 4, 3))}).tolist()
        [1.0, 1.0]
    """
    return Objective(function, tuple(layers))


def check(objective: Objective, shapes: Shapes) -> None:
    """Raise ValueError where an objective does not fit the layers' shapes, without the batch."""
    if objective.check is not None:
        objective.check(shapes, objective.layers, *objective.values)
    for value in objective.values:
        if isinstance(value, Objective):
            check(value, shapes)


def _combine(evaluate: Callable[..., Any], left: Any, right: Any) -> Objective:
    parts = (_operand(left), _operand(right))
    layers = [name for part in parts if isinstance(part, Objective) for name in part.layers]
    return Objective(evaluate, tuple(dict.fromkeys(layers)), parts)


def _operand(value: Any) -> Any:
    if isinstance(value, Objective):
        return value
    if np.ndim(value) != 0:
        raise ValueError(
            f"an objective composes with objectives and numbers: got shape {np.shape(value)}."
        )
    return np.asarray(value, np.float32)


def _value(part: Any, acts: Activations) -> jax.Array:
    return part(acts) if isinstance(part, Objective) else jnp.asarray(part)


def _add(acts: Activations, left: Any, right: Any) -> jax.Array:
    return _value(left, acts) + _value(right, acts)


def _subtract(acts: Activations, left: Any, right: Any) -> jax.Array:
    return _value(left, acts) - _value(right, acts)


def _multiply(acts: Activations, left: Any, right: Any) -> jax.Array:
    return _value(left, acts) * _value(right, acts)
