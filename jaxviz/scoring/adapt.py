"""Functions of another shape as scorers: images (N, H, W, C) -> scores (N, K).

Both results are pytrees, so their arrays are arguments of a program and never constants in it.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.tree_util.register_dataclass, data_fields=["f"], meta_fields=["key"])
@dataclass(frozen=True)
class Picked:
    """One output of a function that returns several."""

    f: Callable[..., Any]
    key: Hashable

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the picked output."""
        outputs = self.f(images)
        try:
            return outputs[self.key]
        except (KeyError, IndexError, TypeError):
            held = getattr(outputs, str(self.key), None)
            if held is None:
                raise ValueError(
                    f"`key` must be one of the outputs of `f`: got {self.key!r}, it returns"
                    f" {_outputs(outputs)}."
                ) from None
            return held


def pick(f: Callable[..., Any], key: Hashable) -> Picked:
    """Take one output of a function that returns a tuple, a dict, or an object with fields.

    Args:
        f: images (N, H, W, C) -> several outputs; a module, or a plain function.
        key: index, dictionary key or attribute of the output that holds the scores (N, K).

    Returns:
        A scorer.

    Raises:
        ValueError: when it is called, if `f` has no such output.

    Example:
        >>> def f(images):
        ...     return {"logits": images.mean((1, 2)), "features": images}
        >>> pick(f, "logits")(jnp.ones((1, 4, 4, 3))).shape
        (1, 3)
    """
    return Picked(f, key)


def _outputs(outputs: Any) -> str:
    if isinstance(outputs, dict):
        return "a dict with " + ", ".join(map(repr, outputs))
    if isinstance(outputs, tuple | list):
        return f"{len(outputs)} outputs, 0 to {len(outputs) - 1}"
    return f"a {type(outputs).__name__}"


@partial(jax.tree_util.register_dataclass, data_fields=["model", "state", "key"], meta_fields=[])
@dataclass(frozen=True)
class OneImageModule:
    """An Equinox module, which takes one image (C, H, W), as a scorer of images (N, H, W, C)."""

    model: Any
    state: Any
    key: jax.Array | None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Score each image (H, W, C) by itself."""
        return jax.vmap(self._score)(images)

    def _score(self, image: jax.Array) -> jax.Array:
        rest = () if self.state is None else (self.state,)
        options = {} if self.key is None else {"key": self.key}
        scores = self.model(jnp.moveaxis(image, -1, 0), *rest, **options)
        return scores if self.state is None else scores[0]


def from_equinox(model: Any, *, state: Any = None, key: jax.Array | None = None) -> OneImageModule:
    """Turn an Equinox module of one image (C, H, W) into a scorer of images (N, H, W, C).

    Dropout and batch normalisation are put into inference mode (`equinox.nn.inference_mode`); the
    module itself stays as it is.

    Args:
        model: a callable Equinox module, image (C, H, W) -> scores (K,).
        state: its `equinox.nn.State`, if it is called as `model(image, state)` and returns
            `(scores, state)`.
        key: random key, if it is called as `model(image, key=key)`.

    Returns:
        A scorer; a pytree with the arrays of `model`.

    Raises:
        TypeError: `model` cannot be called.

    Example:
        >>> import equinox as eqx
        >>> model = eqx.nn.Sequential([eqx.nn.AdaptiveAvgPool2d(1), eqx.nn.Lambda(jnp.ravel)])
        >>> from_equinox(model)(jnp.ones((2, 8, 8, 3))).shape
        (2, 3)
    """
    import equinox

    if not callable(model):
        raise TypeError(f"`model` must be an Equinox module: got a {type(model).__name__}.")
    return OneImageModule(equinox.nn.inference_mode(model), state, key)
