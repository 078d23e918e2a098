"""Which one number of an image's scores is explained: a sum over classes, or a function of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.cpu_gradient import quick_rules
from jaxviz.jaxpr.walk import replay
from jaxviz.scoring.scorer import split
from jaxviz.scoring.targets import by_name, resolve

ALL = "all"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Goal:
    """What is explained of one image's scores (..., K); a pytree, so that it can be an argument.

    Attributes:
        weights: (K,) of a sum over classes; None: the class with the largest clean score. Of many
            images, (N, K), for `vmap`.
        function: scores (M, ..., K) -> (M,), in place of a sum; None: a sum.
    """

    weights: jax.Array | None
    function: Callable[[jax.Array], jax.Array] | None = field(
        default=None, metadata={"static": True}
    )

    def fix(self, base: jax.Array) -> "Goal":
        """Return the goal with its class named: the one with the largest of the clean scores."""
        if self.function is not None or self.weights is not None:
            return self
        if base.ndim != 1:
            raise ValueError(
                "`target` must be a function for scores of shape"
                f" {base.shape} per image: such as lambda scores: scores[..., 3].mean((1, 2))."
            )
        known = jnp.where(jnp.isnan(base), -jnp.inf, base)
        return Goal(jax.nn.one_hot(jnp.argmax(known), base.size, dtype=jnp.float32))

    def __call__(self, scores: jax.Array) -> jax.Array:
        """Reduce scores (M, ..., K) to (M,), in float32 at least; weight 0 does not count."""
        wide = jnp.float64 if scores.dtype == jnp.float64 else jnp.float32
        if self.function is not None:
            return _by_function(self.function, scores).astype(wide)
        assert self.weights is not None, "the goal must be fixed first"
        weights = self.weights.astype(wide)[None]
        counted = jnp.where(weights == 0, jnp.zeros((), wide), scores.astype(wide))
        return (weights * counted).sum(-1)


def _by_function(function: Callable[[jax.Array], jax.Array], scores: jax.Array) -> jax.Array:
    try:
        picked = jnp.asarray(function(scores))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            "`target` must be made of JAX operations, but turns the scores into NumPy arrays: use"
            " jax.numpy."
        ) from error
    if picked.shape != scores.shape[:1]:
        raise ValueError(
            f"`target` must reduce scores of shape {scores.shape} to {scores.shape[:1]}:"
            f" got {picked.shape}."
        )
    return picked


def make_goal(target: Any, f: Any, count: int, scores: tuple[int, ...]) -> Goal:
    """Return the goal that a target stands for.

    Args:
        target: None, a class, one per image, weights, a function, or names of classes; traced
            arrays are classes where they are whole numbers, weights where they are not.
        f: the scorer, which may know names of classes.
        count: how many images there are.
        scores: shape of one image's scores.

    Raises:
        ValueError: a class is out of range or unknown, or the target's shape is wrong.
    """
    if target is None or callable(target):
        return Goal(None, target)
    if isinstance(target, str) and target == ALL:
        raise ValueError(
            '`target` "all" is for methods that explain every class in one run, such as rise and'
            " kernel_shap: name a class here."
        )
    if len(scores) != 1:
        raise ValueError(
            f"`target` must be a function for scores of shape {scores} per image: got {target!r}."
        )
    classes = scores[0]
    if isinstance(target, jax.core.Tracer):
        return Goal(_traced_weights(target, count, classes))
    numbers = resolve(named(target, f), count, classes)
    if numbers.ndim == 1:
        numbers = np.float32(numbers[:, None] == np.arange(classes))
    return Goal(jnp.asarray(numbers, jnp.float32))


def _traced_weights(target: jax.Array, count: int, classes: int) -> jax.Array:
    if jnp.issubdtype(target.dtype, jnp.integer):
        target = jax.nn.one_hot(target, classes, dtype=jnp.float32)
    if target.shape not in ((classes,), (count, classes)):
        raise ValueError(
            f"`target` must be a class, one per image ({count}) or weights of {classes} classes:"
            f" got shape {target.shape}."
        )
    return jnp.broadcast_to(target[None] if target.ndim == 1 else target, (count, classes))


def named(target: Any, f: Any) -> Any:
    """Return a target with its names of classes, one or one per image, as their numbers."""
    return by_name(target, getattr(f, "class_names", None))


def score(f: Any, images: jax.Array) -> jax.Array:
    """Score images (N, H, W, C) -> (N, ..., K), checked."""
    parts = split(f)
    return parts.call(parts.arrays, images)


def quick_score(f: Any, images: jax.Array) -> jax.Array:
    """Do what `score` does, by quicker ways on a CPU."""
    return replay(partial(score, f), images, rules=quick_rules(platform_of(images)))
