"""Architecture and arrays to a `KerasModel`: every converter is run, every shape is checked once.

Building happens in NumPy; `concrete` moves the arrays to the device at the end. Building from the shapes
alone (`inspect_keras`) goes the same way and stops before.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz.keras.config import Layer, Model, refs
from jaxviz.keras.converter import Converter
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.fields import Fields
from jaxviz.keras.layers import TABLE
from jaxviz.keras.model import MAX_ELEMENTS, Graph, KerasModel, attribute_names
from jaxviz.keras.weights import Slot

# Two sizes stand for an axis of any size; where results differ, the output's size is open too.
_PROBES = (288, 352)
_FLOATS = ("float16", "bfloat16", "float32")

Path = tuple[str, ...]


def find_slots(model: Model, outer: Path = ()) -> list[Slot]:
    """The weights that an architecture needs, layer by layer; unknown layers are refused together."""
    unknown = [
        layer for _, layer in walk(model) if layer.model is None and layer.class_name not in TABLE
    ]
    if unknown:
        names = "; ".join(f'"{layer.name}" ({layer.class_name})' for layer in unknown[:20])
        raise KerasFileError(f"The model has layers that are not known: {names}.")
    slots = []
    for path, layer in walk(model):
        if layer.model is None:
            names = _guard(
                layer, lambda fields, table=TABLE[layer.class_name]: table.weights(fields)
            )
            slots.append(Slot(path, layer, names))
    return slots


def walk(model: Model, outer: Path = ()) -> list[tuple[Path, Layer]]:
    """Every layer with its path, nested models before their contents."""
    found: list[tuple[Path, Layer]] = []
    for layer in model.layers:
        found.append(((*outer, layer.name), layer))
        if layer.model is not None:
            found.extend(walk(layer.model, (*outer, layer.name)))
    return found


def _guard(layer: Layer, work: Callable[[Fields], Any]) -> Any:
    """Run a converter; whatever it finds wrong is told with the layer's name."""
    try:
        return work(Fields(layer.config))
    except KerasFileError as error:
        raise KerasFileError(f'Layer "{layer.name}" ({layer.class_name}): {error}.') from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise KerasFileError(
            f'Layer "{layer.name}" ({layer.class_name}) has a damaged configuration: {error!r}.'
        ) from error


def build_model(
    model: Model, weights: Mapping[Path, Mapping[str, np.ndarray]], outer: Path = ()
) -> KerasModel:
    """The module of an architecture, its arrays still in NumPy."""
    layers: dict[str, Any] = {}
    for layer in model.layers:
        path = (*outer, layer.name)
        if layer.model is not None:
            layers[layer.name] = build_model(layer.model, weights, path)
        else:
            layers[layer.name] = _build_layer(layer, TABLE[layer.class_name], weights.get(path, {}))
    names = [layer.name for layer in model.layers]
    rows = tuple(
        (layer.name, attribute, layer.class_name, _compute_dtype(layer))
        for layer, attribute in zip(model.layers, attribute_names(names), strict=True)
    )
    graph = Graph(
        model.name,
        tuple(model.inputs),
        model.input_structure,
        rows,
        tuple(model.calls),
        model.outputs,
    )
    return KerasModel(graph, layers)


def _build_layer(layer: Layer, converter: Converter, weights: Mapping[str, np.ndarray]) -> Any:
    def work(fields: Fields) -> Any:
        converter.weights(fields)
        built = converter.build(fields, weights)
        fields.finish()
        return built

    return _guard(layer, work)


def _compute_dtype(layer: Layer) -> str | None:
    """The dtype in which a layer computes, from a dtype or a policy of any Keras."""
    if layer.model is not None or TABLE[layer.class_name].keeps_integers:
        return None
    policy = layer.config.get("dtype") or "float32"
    if isinstance(policy, Mapping):
        policy = policy.get("config", {}).get("name") or "float32"
    if not isinstance(policy, str):
        policy = "float32"
    if policy.startswith("mixed_"):
        policy = policy[len("mixed_") :]
    if "_from_" in policy:
        raise KerasFileError(f'Layer "{layer.name}" is quantised ("{policy}"), which is not read.')
    return policy if policy in _FLOATS else "float32"


def with_shapes(model: KerasModel) -> KerasModel:
    """The same model with its output shape; a layer that does not fit its input is an error."""
    if any(entry.shape is None for entry in model._graph.inputs):
        raise KerasFileError(
            "The file does not say the shape of its input: give `input_shape=(height, width, channel)`."
        )
    shapes = [_output_shapes(model, probe) for probe in _PROBES]
    merged = jax.tree.map(
        lambda a, b: tuple(m if m == n else None for m, n in zip(a, b, strict=True)),
        *shapes,
        is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x),
    )
    graph = replace(model._graph, output_shape=merged)
    return KerasModel(graph, {n: getattr(model, a) for n, a in graph.attributes.items()})


def _output_shapes(model: KerasModel, probe: int) -> Any:
    inputs = [
        jax.ShapeDtypeStruct(
            (1, *(probe if s is None else s for s in entry.shape or ())), jnp.float32
        )
        for entry in model._graph.inputs
    ]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model)
    try:
        outputs = jax.eval_shape(lambda m, x: m(x), abstract, inputs)
    except Exception as error:
        where = " ".join(getattr(error, "__notes__", [])[:1])
        reason = str(error).split("\n")[0][:300]
        raise KerasFileError(
            f"The layers of the model do not fit together. {where} {reason}"
        ) from error
    return jax.tree.map(lambda x: tuple(x.shape[1:]), outputs)


def concrete(model: KerasModel) -> KerasModel:
    """The same model with its arrays on the device."""
    return jax.tree.map(jnp.asarray, model)
