"""Models without their last softmax or sigmoid."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from jaxviz.keras.architecture.graph import Graph
from jaxviz.keras.architecture.nodes import Call, Ref, call_refs, refs
from jaxviz.keras.layers.activation import Activation, Softmax, linear, log_softmax, softmax
from jaxviz.keras.layers.noise import Noise
from jaxviz.keras.layers.shape import Flatten, Identity, Reshape
from jaxviz.keras.live import is_live
from jaxviz.keras.load import from_keras
from jaxviz.keras.model import KerasModel, attribute_names

_SQUASHING = (softmax, log_softmax, jax.nn.sigmoid)


def logits(model: KerasModel) -> KerasModel:
    """Return a model without its last softmax or sigmoid, its arrays shared.

    Args:
        model: a model from `load_keras`, or one of Keras; layers that only reshape after the
            softmax stay.

    Returns:
        The model whose outputs are the scores before it; the model itself if it ends otherwise.
        Where something else reads the last layer too, or calls it, it stays for that, and a layer
        "name (logits)" stands beside it.

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
    layers = {name: getattr(model, attribute) for name, attribute in graph.attributes.items()}
    found = [_end(output, graph, layers) for output in refs(graph.outputs)]
    each = {end[-1].layer: _linear(layers[end[-1].layer]) for end in found if end}
    linear_ones = {name: layer for name, layer in each.items() if layer is not layers[name]}
    ends = [end for end in found if end and end[-1].layer in linear_ones]
    if not ends:
        return model
    changed = {_key(call) for end in ends for call in end}
    elsewhere = any(
        _key(call) not in changed
        and (call.layer in linear_ones or changed & set(map(_key, call_refs(call))))
        for call in graph.calls
    )
    if elsewhere:
        return _beside(graph, layers, linear_ones, ends)
    return KerasModel(replace(graph), {**layers, **linear_ones})


def _key(of: Call | Ref) -> tuple[str, int]:
    return of.layer, of.node


def _end(output: Ref, graph: Graph, layers: Mapping[str, Any]) -> list[Call]:
    """The calls from an output back to the layer that may squash it; none if there is no such."""
    calls, end, ref = {_key(call): call for call in graph.calls}, [], output
    while isinstance(ref, Ref) and _key(ref) in calls:
        end.append(calls[_key(ref)])
        if not isinstance(layers[ref.layer], Identity | Noise | Flatten | Reshape):
            return end
        ref = end[-1].args[0]
    return []


def _beside(
    graph: Graph, layers: Mapping[str, Any], linear_ones: Mapping[str, Any], ends: list[list[Call]]
) -> KerasModel:
    """Return the model with copies of its last calls, since others read what these give."""
    known = {name: (name, attribute, *rest) for name, attribute, *rest in graph.layers}
    again = {call.layer: f"{call.layer} (logits)" for end in ends for call in end}
    attributes = attribute_names([*known, *again.values()])[len(known) :]
    added = [
        (new, attribute, *known[old][2:])
        for (old, new), attribute in zip(again.items(), attributes, strict=True)
    ]
    copied = {_key(call) for end in ends for call in end}

    def moved(value: Any) -> Any:
        if isinstance(value, Ref):
            return value._replace(layer=again[value.layer]) if _key(value) in copied else value
        return tuple(map(moved, value)) if type(value) is tuple else value

    squashing = {_key(end[-1]) for end in ends}
    copies = [
        call._replace(
            layer=again[call.layer],
            args=call.args if _key(call) in squashing else moved(call.args),
        )
        for call in graph.calls
        if _key(call) in copied
    ]
    graph = replace(
        graph,
        layers=(*graph.layers, *added),
        calls=(*graph.calls, *copies),
        outputs=moved(graph.outputs),
    )
    new = {name: linear_ones.get(old, layers[old]) for old, name in again.items()}
    return KerasModel(graph, {**layers, **new})


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
