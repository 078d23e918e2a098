"""The order of an image's axes: (height, width, channel) everywhere, whatever a scorer takes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def with_channels_last(f: Any, images: Any, name: str = "images") -> Any:
    """Return images (..., H, W, C), given so, or as a model whose channels come first takes them.

    Such a model tells what it takes, (C, H, W): images of that shape are turned, and it is given
    them as it takes them, see `as_model`. Of other scorers nothing is known, so that images which
    look as if they were (..., C, H, W) are refused.

    Args:
        f: the scorer.
        images: of rank 3 or 4; an array, traced or not, or its shape as `jax.ShapeDtypeStruct`.
        name: of the argument, for the error.

    Raises:
        ValueError: the images look as if their channels came first, and `f` does not say so.
    """
    if getattr(as_model(f), "own_shape", None) is None:
        check_channels_last(f, images.shape, name)
    return turned(f, images)


def turned(f: Any, images: Any) -> Any:
    """Return images (..., H, W, C), given so or, where a model takes these, as (..., C, H, W)."""
    own = getattr(as_model(f), "own_shape", None)
    if own is None or not _is_of(images.shape, own):
        return images
    if isinstance(images, jax.ShapeDtypeStruct):
        channel, *sides = images.shape[-3:]
        shape = (*images.shape[:-3], *sides, channel)
        return jax.ShapeDtypeStruct(shape, images.dtype)
    move = np.moveaxis if isinstance(images, np.ndarray) else jnp.moveaxis
    return move(images, -3, -1)


def _is_of(shape: tuple[int, ...], known: Any) -> bool:
    """Whether images are of the shape (C, H, W) that a model tells, None where it is open."""
    ends = zip(shape[-3:], known, strict=True) if len(known) == 3 <= len(shape) else [(0, 1)]
    return all(size is None or side == size for side, size in ends)


def check_channels_last(f: Any, shape: tuple[int, ...], name: str = "images") -> None:
    """Raise ValueError if images (..., H, W, C) look as if they were (..., C, H, W).

    That is: one or three rows, and two further axes of a photograph's sides. A scorer whose
    `input_shape` is just this is taken at its word, unless it is a model of Keras with a layer
    that says that its channels come first.
    """
    rows, *sides = shape[-3:]
    known = getattr(f, "input_shape", None)
    fits = isinstance(known, tuple) and known[-3:] == tuple(shape[-3:])
    layers = f.layers if hasattr(f, "stateless_call") else ()
    if fits and any(getattr(layer, "data_format", "") == "channels_first" for layer in layers):
        raise ValueError(
            "`f` must take images (height, width, channel): got a model whose channels come first,"
            f" {tuple(shape[-3:])}; give jaxviz.channels_last(f) and images with channels last."
        )
    if fits:
        return
    if rows in (1, 3) and min(sides) >= LEAST_SIDE and max(sides) <= MOST_APART * min(sides):
        back = (1, 2, 0) if len(shape) == 3 else (0, 2, 3, 1)
        turned = f"{name}.transpose{back}"
        if name == "image_shape":
            turned = str(tuple(shape[i] for i in back))
        if known is not None and _is_of(tuple(shape[i] for i in back), known):
            raise ValueError(
                f"`{name}` must be (..., height, width, channel), as `f` takes them: got shape"
                f" {shape}, which looks like channels first; give {turned}."
            )
        raise ValueError(
            f"`{name}` must be (..., height, width, channel): got shape {shape}, which looks like"
            f" channels first; give {turned}, and jaxviz.channels_last(f), which is"
            " lambda images: f(images.transpose(0, 3, 1, 2)). If it is right, set f.input_shape ="
            f" {tuple(shape[-3:])}."
        )
