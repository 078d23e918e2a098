"""The order of an image's axes: (height, width, channel) everywhere, whatever a scorer takes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxviz.jaxpr.split import as_callable, as_model, as_node

LEAST_SIDE = 8  # fewer columns than this may well be channels
MOST_APART = 2  # sides of a photograph are less unequal; a signal's length and channels are more


def channels_last(f: Any) -> Partial:
    """Return a scorer of images (N, H, W, C), given one of images (N, C, H, W).

    channels_last(f)(images) = f(images with the channels in front). One way for all of the package:
    images are given, patches laid and maps returned as (height, width, channel).

    Args:
        f: a scorer whose images are (N, C, H, W), such as an Equinox model under `jax.vmap`.

    Returns:
        The scorer, a pytree that holds the arrays of `f`.

    Example:
        >>> f = channels_last(lambda images: images.mean((2, 3)))
        >>> f(jnp.ones((5, 8, 9, 3))).shape
        (5, 3)
    """
    return Partial(_call, as_node(as_callable(f)))


def _call(f: Any, images: jax.Array) -> jax.Array:
    return f(jnp.moveaxis(images, -1, 1))


def check_channels_last(f: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError if images (..., H, W, C) look as if they were (..., C, H, W).

    That is: one or three rows, and two further axes of a photograph's sides. A scorer whose
    `input_shape` is just this is taken at its word, unless it is a model of Keras that says
    itself that its channels come first.
    """
    rows, *sides = shape[-3:]
    known = getattr(f, "input_shape", None)
    fits = isinstance(known, tuple) and known[-3:] == tuple(shape[-3:])
    if fits and getattr(as_model(f), "data_format", None) == "channels_first":
        raise ValueError(
            "`f` must take images (height, width, channel): got a model whose channels come first,"
            f" {tuple(shape[-3:])}; give jaxviz.channels_last(f) and images with channels last."
        )
    if fits:
        return
    if rows in (1, 3) and min(sides) >= LEAST_SIDE and max(sides) <= MOST_APART * min(sides):
        back = (1, 2, 0) if len(shape) == 3 else (0, 2, 3, 1)
        raise ValueError(
            f"`images` must be (..., height, width, channel): got shape {shape}, which looks like"
            f" channels first; give images.transpose{back}, and jaxviz.channels_last(f), which is"
            " lambda images: f(images.transpose(0, 3, 1, 2)). If it is right, set f.input_shape ="
            f" {tuple(shape[-3:])}."
        )
