"""Architecture and arrays to a `KerasModel`: every converter is run, every shape is checked once.

Building happens in NumPy; `concrete` moves the arrays to the device at the end. `inspect_keras`
goes the same way with arrays that have a shape and no content, and stops before.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.keras.architecture.config import Layer, Model
from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.architecture.graph import Graph
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.files.weights import Slot
from jaxviz.keras.layers.converter import Converter
from jaxviz.keras.layers.table import TABLE
from jaxviz.keras.model import KerasModel, attribute_names

# Two sizes stand for an axis of any size; where results differ, the output's size is open too.
_PROBES = (288, 352)
_FLOATS = ("float16", "bfloat16", "float32")
# No array between two layers may have more elements for one image.
MAX_ELEMENTS = 1 << 31

_MASK_READERS = ("GlobalAveragePooling1D", "MultiHeadAttention", "Softmax")

Path = tuple[str, ...]
Custom = Mapping[str, Callable[..., Any]]


class Overrides(NamedTuple):
    """What the caller sets: converters of their own, and a dtype for all layers, or None."""

    custom: Custom
    dtype: str | None = None


def walk(model: Model, outer: Path = ()) -> list[tuple[Path, Layer]]:
    """Return every layer but inputs with its path of names, outer ones before their contents."""
    found: list[tuple[Path, Layer]] = []
    for layer in model.layers:
        if layer.class_name == "InputLayer":
            continue
        found.append(((*outer, layer.name), layer))
        if layer.model is not None:
            found.extend(walk(layer.model, (*outer, layer.name)))
    return found


def find_custom(layer: Layer, custom: Custom) -> Callable[..., Any] | None:
    """Return the caller's converter for a layer: by its name, else by its class or bare class."""
    for key in (layer.name, layer.class_name, layer.class_name.rpartition(">")[2]):
        if key in custom:
            return custom[key]
    return None


def refusal(model: Model, custom: Custom) -> str | None:
    """Return what to tell of the layers that are not known, None if there are none.

    Wrappers for which the caller has a converter are left to it, with what is inside them.
    """
    _leave_wrappers(model, custom)
    unknown: dict[str, list[str]] = {}
    for path, layer in walk(model):
        known = layer.class_name in TABLE and not _is_quantised(layer)
        inner = layer.model is not None and not layer.wraps
        if not known and not inner and find_custom(layer, custom) is None:
            kind = layer.class_name + (", quantised" if _is_quantised(layer) else "")
            unknown.setdefault(kind, []).append("/".join(path))
    return _refusal(unknown) if unknown else None


def _leave_wrappers(model: Model, custom: Custom) -> None:
    for layer in model.layers:
        if layer.wraps and find_custom(layer, custom) is not None:
            layer.model = None
        if layer.model is not None:
            _leave_wrappers(layer.model, custom)


def _refusal(unknown: Mapping[str, Sequence[str]]) -> str:
    """Return the sentence that names each class once, with the number of its layers."""
    kinds = [f"{kind} ({_counted(names)})" for kind, names in unknown.items()]
    more = f" and {len(kinds) - 20} other classes" if len(kinds) > 20 else ""
    listed = ", ".join(kinds[:20]) + more
    if any(kind.rpartition(">")[2] == "Lambda" for kind in unknown):
        cure = '`custom_layers={"Lambda": function}` (the code in the file is never run)'
    else:
        cure = '`custom_layers={"ClassName": converter}`'
    return f"The model has layers that cannot be read: {listed}. Supply them: {cure}."


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:2]) + (" ..." if len(names) > 2 else "")
    return f"{len(names)} layer{'s' if len(names) > 1 else ''}: {shown}"


def find_slots(model: Model, custom: Custom) -> list[Slot]:
    """Return the weights that an architecture needs, all of whose layers are known."""
    layers = [(path, layer) for path, layer in walk(model) if layer.model is None or layer.wraps]
    _refuse_masks([layer for _, layer in layers])
    slots = []
    for path, layer in layers:
        if find_custom(layer, custom) is not None:
            slots.append(Slot(path, layer, None))
        else:
            slots.append(Slot(path, layer, _guard(layer, TABLE[layer.class_name].weights)))
    return slots


def _is_quantised(layer: Layer) -> bool:
    """Return whether the dtype policy is of quantisation, such as "int8_from_float32"."""
    policy = str(layer.config.get("dtype"))
    return "_from_" in policy or "Quantized" in policy


def _refuse_masks(layers: Sequence[Layer]) -> None:
    """Refuse an embedding that masks positions where a layer would heed the mask."""
    if any(layer.config.get("mask_zero") for layer in layers):
        for layer in layers:
            if layer.class_name in _MASK_READERS:
                raise KerasFileError(
                    f'Layer "{layer.name}" ({layer.class_name}) reads the mask of an embedding, '
                    "which is not handled."
                )


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
    model: Model,
    weights: Mapping[Path, Mapping[str, np.ndarray]],
    overrides: Overrides,
    outer: Path = (),
) -> KerasModel:
    """Return the module of an architecture, its arrays in NumPy, its output shape not known yet."""
    layers: dict[str, Any] = {}
    for layer in model.layers:
        path = (*outer, layer.name)
        if layer.model is not None:
            inner = build_model(layer.model, weights, overrides, path)
            layers[layer.name] = _wrap(layer, inner) if layer.wraps else inner
        else:
            layers[layer.name] = _build_layer(layer, weights.get(path, {}), overrides.custom)
    attributes = attribute_names([layer.name for layer in model.layers])
    rows = tuple(
        (layer.name, attribute, layer.class_name, _compute_dtype(layer, overrides.dtype))
        for layer, attribute in zip(model.layers, attributes, strict=True)
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


def _build_layer(layer: Layer, weights: Mapping[str, np.ndarray], custom: Custom) -> Any:
    own = find_custom(layer, custom)
    if own is not None:
        built = own if layer.class_name == "Lambda" else own(layer.config, list(weights.values()))
        if not callable(built):
            raise ValueError(
                f"`custom_layers` must give a callable for {layer.class_name}: got {built!r}."
            )
        return built
    converter = TABLE[layer.class_name]

    def work(fields: Fields) -> Any:
        converter.weights(fields)
        built = converter.build(fields, weights)
        fields.finish()
        return built

    return _guard(layer, work)


def _wrap(layer: Layer, inner: KerasModel) -> Any:
    """Return a wrapper around what it wraps; its own arrays serve training only."""

    def work(fields: Fields) -> Any:
        fields.raw("layer")
        built = TABLE[layer.class_name].build(fields, {})
        fields.finish()
        return built(inner)

    return _guard(layer, work)


def _compute_dtype(layer: Layer, override: str | None) -> str | None:
    """Return the dtype in which a layer computes, from a dtype or a policy of any Keras."""
    converter: Converter | None = TABLE.get(layer.class_name)
    if layer.model is not None or (converter is not None and converter.keeps_integers):
        return None
    policy: Any = layer.config.get("dtype") or "float32"
    if isinstance(policy, Mapping):
        config = policy.get("config")
        policy = config.get("name") if isinstance(config, Mapping) else None
    policy = policy if isinstance(policy, str) else "float32"
    if override is not None:
        return override
    policy = policy.removeprefix("mixed_")
    return policy if policy in _FLOATS else "float32"


def with_shapes(model: KerasModel) -> KerasModel:
    """Return the model with its output shape; a layer that does not fit its input is an error.

    A model that would need an array beyond all measure between two layers is refused too.
    """
    graph = model._graph
    if any(entry.shape is None for entry in graph.inputs):
        raise KerasFileError(
            "The file does not say the shape of its input: "
            "give `input_shape=(height, width, channel)`."
        )
    outputs, each = open_shapes(model, lambda m, x: m._everything(x))
    for name, shape in each.items():
        for item in jax.tree.leaves(shape, is_leaf=lambda x: isinstance(x, _Shape)):
            if not 0 < math.prod(1 if size is None else size for size in item) <= MAX_ELEMENTS:
                raise KerasFileError(
                    f'Layer "{name}" would give an array of shape {tuple(item)} for each image.'
                )
    return model.with_graph(replace(graph, output_shape=_plain(outputs)))


def _plain(shapes: Any) -> Any:
    """Return ordinary tuples in place of `_Shape`s."""
    return jax.tree.map(tuple, shapes, is_leaf=lambda x: isinstance(x, _Shape))


def open_shapes(model: KerasModel, function: Callable[[KerasModel, Any], Any]) -> Any:
    """Return the shapes, without the batch, of what a function of (model, inputs) gives.

    A size that depends on an open size of the input is None.
    """
    is_open = any(size is None for entry in model._graph.inputs for size in entry.shape or ())
    results = [_shapes(model, function, probe) for probe in _PROBES[: 2 if is_open else 1]]
    first, last = results[0], results[-1]
    return jax.tree.map(
        lambda a, b: _Shape(m if m == n else None for m, n in zip(a, b, strict=True)),
        first,
        last,
        is_leaf=lambda x: isinstance(x, _Shape),
    )


class _Shape(tuple):
    """A shape, told apart from a tuple of outputs."""


def _shapes(model: KerasModel, function: Callable, probe: int) -> Any:
    inputs = [
        jax.ShapeDtypeStruct(
            (1, *(probe if size is None else size for size in entry.shape or ())), jnp.float32
        )
        for entry in model._graph.inputs
    ]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model)
    try:
        outputs = jax.eval_shape(function, abstract, inputs)
    except Exception as error:
        where = "".join(getattr(error, "__notes__", [])[:1])
        reason = " ".join(str(error).split("\n")[0].split())[:200]
        raise KerasFileError(
            f"The layers of the model do not fit together. {where}: {reason}"
        ) from error
    return jax.tree.map(lambda x: _Shape(x.shape[1:]), outputs)


def concrete(model: KerasModel) -> KerasModel:
    """Return the model with its arrays on the device."""
    return jax.tree.map(jnp.asarray, model)
