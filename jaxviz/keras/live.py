"""Keras models in memory, taken as they are wherever a model of ours is."""

from typing import Any
from weakref import WeakKeyDictionary

import jax

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.load import from_keras
from jaxviz.keras.model import KerasModel

_converted: WeakKeyDictionary[Any, tuple[str, list[Any], KerasModel]] = WeakKeyDictionary()


def is_live(model: Any) -> bool:
    """Return whether something is a model of Keras 2 or 3 itself."""
    parts = ("to_json", "get_layer", "get_weights", "weights")
    return not isinstance(model, KerasModel) and all(hasattr(type(model), part) for part in parts)


def converted(model: Any) -> KerasModel | None:
    """Return the conversion of a Keras model, None where a layer of it is not known.

    It is kept for as long as the model's architecture and its arrays are the same.
    """
    try:
        text = model.to_json()
        arrays = [getattr(weight, "value", None) for weight in model.weights]
        kept = _converted.get(model)
        if kept is not None and kept[0] == text and _same(kept[1], arrays):
            return kept[2]
        made = from_keras(model)
    except (KerasFileError, NotImplementedError):  # a layer of the author's, a subclassed model
        return None
    # Only JAX's arrays cannot change in place.
    if all(isinstance(array, jax.Array) for array in arrays):
        _converted[model] = text, arrays, made
    return made


def _same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
