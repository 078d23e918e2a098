"""Inputs of a Keras model: checked, cast, and in the order of axes that its layers take."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz.keras.architecture.config import Input
from jaxviz.keras.architecture.nodes import Ref
from jaxviz.keras.layers.converter import cast

Shape = tuple[int | None, ...]


def placed(graph: Any, images: Any, first: bool) -> dict[tuple[str, int], Any]:
    """Return checked and cast inputs, under the names of their placeholders.

    Args:
        graph: of the model.
        images: an array; several in order, or by name.
        first: whether layers take channels in front, so that images which have them behind, as
            their shape tells, are turned. Those of a graph `channels_last` always are.
    """
    inputs = graph.inputs
    if len(inputs) == 1 and not isinstance(images, Mapping | list | tuple):
        images = (images,)
    if isinstance(images, Mapping):
        images = [images[key] for key in _input_keys(graph, images)]
    if len(images) != len(inputs):
        raise ValueError(f"`images` must hold {len(inputs)} arrays: got {len(images)}.")
    return {
        (entry.name, 0): _as_input(entry, x, first and len(inputs) == 1, graph.channels_last)
        for entry, x in zip(inputs, images, strict=True)
    }


def moved(shape: Shape) -> Shape:
    """Return a shape (C, ...) as (..., C)."""
    return (*shape[1:], *shape[:1])


def _input_keys(graph: Any, images: Mapping) -> list[str]:
    keys = [entry.name for entry in graph.inputs]
    structure = graph.input_structure
    if isinstance(structure, tuple) and not isinstance(structure, Ref):
        named = {item[1].layer: item[0] for item in structure if not isinstance(item, Ref)}
        if set(named.values()) == set(images):
            keys = [named[key] for key in keys]
    if set(keys) != set(images):
        raise ValueError(f"`images` must have the keys {keys}: got {sorted(map(str, images))}.")
    return keys


def _as_input(entry: Input, x: Any, first: bool, last: bool) -> jax.Array:
    x = jnp.asarray(x)
    if entry.shape is not None:
        shape = moved(entry.shape) if last else entry.shape
        x = _from_one_row(x, shape)
        turned = last or (first and not _fits(shape, x) and _fits(moved(shape), x))
        if not turned or last:
            _check_shape(shape, x)
        x = jnp.moveaxis(x, -1, 1) if turned else x
    if entry.dtype.startswith(("int", "uint")) and entry.dtype != "uint8":
        return cast(x, jnp.dtype("int32"))
    return cast(x, jnp.dtype("float32"))


def _fits(shape: Shape, x: jax.Array) -> bool:
    known = zip(shape, x.shape[1:], strict=False)
    return x.ndim == len(shape) + 1 and all(s in (None, n) for s, n in known)


def _check_shape(shape: Shape, x: jax.Array) -> None:
    if _fits(shape, x):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    row = {1: "(batch, 1, length, 1)", 2: "(batch, 1, length, channel)"}.get(len(shape))
    cure = f"images of one row are {row}" if row else "a single image needs a leading axis of 1"
    if shape[-1] == 1 and x.shape[-2:] == tuple(shape[:-1]):
        cure = "an axis of channels is missing: `images[..., None]`"
    raise ValueError(f"`images` must have shape (batch, {wanted}): got {x.shape}; {cure}.")


def _from_one_row(x: jax.Array, shape: Shape) -> jax.Array:
    """Return images (N, 1, length, channel) as the sequences or vectors that the model takes."""
    if x.ndim != 4 or x.shape[1] != 1 or len(shape) > 2:
        return x
    x = x[:, 0]
    return x[..., 0] if len(shape) == 1 and x.shape[-1] == 1 else x
