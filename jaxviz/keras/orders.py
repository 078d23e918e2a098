"""Where the arrays of a Keras model have their channels: in front, (N, C, H, W), or behind.

Layers say it ("channels_first"), but for those that work on any array, as an activation: these keep
the order that they are given.
"""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp

from jaxviz.keras.layers.shape import Flatten, Permute, Reshape

TURNING = ((2, 3, 1), (3, 1, 2))  # what brings channels from the front to the back, and back again
_twins: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def says(layer: Any) -> bool | None:
    """Return whether a layer wants its channels in front; None: it takes any array."""
    if hasattr(layer, "layers_in_order"):
        return takes_in_front(layer.layers_in_order)
    if isinstance(layer, Flatten):  # it takes any: what it says is how it lays them out
        return None
    return getattr(getattr(layer, "spec", layer), "channels_first", None)


def takes_in_front(layers: Iterable[Any]) -> bool | None:
    """Return whether the first of some layers takes channels in front; None: none of them says."""
    turned = False
    for layer in layers:
        turned ^= isinstance(layer, Permute) and layer.order in TURNING
        told = says(layer)
        if told is not None:
            return told != turned
    return None


def gives_in_front(layer: Any, given: bool) -> bool:
    """Return whether a layer's output has channels in front, given where those of its input are."""
    if hasattr(layer, "layers_in_order"):
        for inner in layer.layers_in_order:
            given = gives_in_front(inner, given)
        return given
    if isinstance(layer, Permute):
        return given != (layer.order in TURNING)
    told = says(layer)
    return (given if told is None else told) and not isinstance(layer, Reshape)


def behind(value: Any) -> Any:
    """Return an array (N, C, ...) as (N, ..., C); what has no sites as it is."""
    return jnp.moveaxis(value, 1, -1) if _has_sites(value) else value


def in_front(value: Any) -> Any:
    """Return an array (N, ..., C) as (N, C, ...); what has no sites as it is."""
    return jnp.moveaxis(value, -1, 1) if _has_sites(value) else value


def _has_sites(value: Any) -> bool:
    return isinstance(value, jax.Array) and value.ndim >= 3


def channels_last(model: Any) -> Any:
    """Return a model of the same layers, shared, whose images and maps have their channels behind.

    It is kept for as long as the model has these layers.
    """
    twin = _twins.get(model)
    if twin is None or not _same(model.layers_in_order, twin.layers_in_order):
        twin = _twins[model] = model.with_channels_last()
    return twin


def _same(first: Iterable[Any], second: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(first, second, strict=True))
