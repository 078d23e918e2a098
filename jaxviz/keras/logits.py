"""Models without their last softmax or sigmoid."""

from dataclasses import replace
from typing import Any

import jax

from jaxviz.keras.architecture.nodes import Ref
from jaxviz.keras.layers.activation import Activation, Softmax, linear, log_softmax, softmax
from jaxviz.keras.layers.noise import Noise
from jaxviz.keras.layers.shape import Flatten, Identity, Reshape
from jaxviz.keras.live import is_live
from jaxviz.keras.load import from_keras
from jaxviz.keras.model import KerasModel

_SQUASHING = (softmax, log_softmax, jax.nn.sigmoid)


def logits(model: KerasModel) -> KerasModel:
    """Return a model without its last softmax or sigmoid, its arrays shared.

    Args:
        model: a model from `load_keras`, or one of Keras; layers that only reshape after the
            softmax stay.

    Returns:
        The model whose outputs are the scores before it; the model itself if it ends otherwise.

    Raises:
        TypeError: `model` is neither.

    Example:
        >>> from jaxviz.keras import load_keras
        >>> out = {"class_name": "Softmax", "config": {"name": "out", "batch_shape": [None, 2]}}
        >>> model = load_keras({"class_name": "Sequential", "config": [out]})
        >>> logits(model)(jax.numpy.asarray([[3.0, 4.0]])).tolist()
        [[3.0, 4.0]]
    """
    model = from_keras(model) if is_live(model) else model
    if not isinstance(model, KerasModel):
        raise TypeError(
            f"`model` must be a model of Keras, whose last layer is known: got a"
            f" {type(model).__name__}; leave the softmax out where it is written, or read"
            ' `heatmap(score="log_odds_drop")`.'
        )
    graph = model._graph
    replaced: dict[str, Any] = {}
    outputs = graph.outputs if not isinstance(graph.outputs, Ref) else (graph.outputs,)
    calls = {(call.layer, call.node): call for call in graph.calls}
    for output in outputs:
        ref = output
        while isinstance(ref, Ref) and (ref.layer, ref.node) in calls:
            layer = getattr(model, graph.attributes[ref.layer])
            if not isinstance(layer, Identity | Noise | Flatten | Reshape):
                replaced[ref.layer] = _linear(layer)
                break
            ref = calls[ref.layer, ref.node].args[0]
    layers = {name: getattr(model, attribute) for name, attribute in graph.attributes.items()}
    if all(layers[name] is layer for name, layer in replaced.items()):
        return model
    return KerasModel(replace(graph), {**layers, **replaced})


def _linear(layer: Any) -> Any:
    if isinstance(layer, KerasModel):
        return logits(layer)
    if isinstance(layer, Softmax):
        return Activation(linear)
    if isinstance(layer, Activation):
        squashes = layer.activation in _SQUASHING or isinstance(layer.activation, Softmax)
        return Activation(linear) if squashes else layer
    activation = getattr(getattr(layer, "spec", None), "activation", None)
    if activation in _SQUASHING or isinstance(activation, Softmax):
        return layer.without_activation()
    return layer
