"""What white is to a model, as far as its first layers tell: 255 if they rescale bytes, or 1."""

from typing import Any

import numpy as np

from jaxviz.keras.architecture.nodes import Ref, call_refs, refs
from jaxviz.keras.layers.image import Rescaling
from jaxviz.keras.layers.norm import Normalization

# Layers before which the range of the pixels is the same as after them.
KEEPS = {
    *("CenterCrop", "Cropping2D", "Resizing", "ZeroPadding2D", "Dropout", "GaussianNoise"),
    *("RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip", "RandomRotation"),
    *("RandomTranslation", "RandomZoom"),
}
BYTES_BELOW = 0.1  # a layer that multiplies by less expects bytes: 255 · 0.1 is far from 1


def white_of(model: Any) -> float | None:
    """Return what white is to a `KerasModel`; None: its first layers do not tell.

    They tell if one that rescales comes first: Rescaling or Normalization, perhaps after layers
    that only crop, pad or resize, or inside a model that is the first layer.
    """
    graph = model._graph
    if len(graph.inputs) != 1:
        return None
    at: Any = Ref(graph.inputs[0].name, 0, 0)
    classes = {name: kind for name, _, kind, _ in graph.layers}
    for _ in graph.calls:
        users = [call for call in graph.calls if at in call_refs(call)]
        if len(users) != 1:
            return None
        (call,) = users
        layer = model.layer(call.layer)
        if hasattr(layer, "white") and list(refs(call.args)) == [at]:
            return layer.white
        factor = _factor(layer)
        if factor is not None:
            return 255.0 if factor < BYTES_BELOW else 1.0
        if classes[call.layer] not in KEEPS:
            return None
        at = Ref(call.layer, call.node, 0)
    return None


def _factor(layer: Any) -> float | None:
    """Return what a layer multiplies pixels by, of several channels the mean."""
    if isinstance(layer, Rescaling):
        return float(np.mean(np.abs(layer.scale)))
    if isinstance(layer, Normalization) and not layer.invert:
        return float(np.mean(1 / np.maximum(np.sqrt(layer.variance[...]), 1e-7)))
    return None
