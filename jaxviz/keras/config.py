"""Configuration to architecture: Sequential and Functional, of Keras 1 to 3, become one kind of graph.

A `Model` has layers, each with its configuration in today's spelling, and calls in an order in which each
follows the calls it reads from. Nothing here knows what a layer computes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.fields import MAX_SIZE, is_integer
from jaxviz.keras.legacy import modernise

MAX_LAYERS = 20_000
MAX_CALLS = 100_000
MODELS = ("Functional", "Model", "Sequential")


class Ref(NamedTuple):
    """Output number `tensor` of call number `node` of a layer."""

    layer: str
    node: int
    tensor: int


class Call(NamedTuple):
    """One use of a layer; `args` and `kwargs` are nested tuples whose leaves are constants and Refs."""

    layer: str
    node: int
    args: tuple
    kwargs: tuple[tuple[str, Any], ...] = ()


class Input(NamedTuple):
    """A placeholder; `shape` is without the batch, None where any size is allowed."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


@dataclass
class Layer:
    """One layer of the architecture; `model` is set when the layer is itself a model."""

    name: str
    class_name: str
    config: dict[str, Any]
    model: "Model | None" = None


@dataclass
class Model:
    """An architecture."""

    name: str
    class_name: str
    layers: list[Layer] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: Any = ()
    input_structure: Any = None

    @property
    def size(self) -> int:
        """The number of calls that one evaluation makes, nested models included."""
        nested = {layer.name: layer.model.size for layer in self.layers if layer.model}
        return sum(1 + nested.get(call.layer, 0) for call in self.calls)


def parse_model(config: Mapping[str, Any], input_shape: tuple | None = None) -> Model:
    """An architecture from `{"class_name": ..., "config": ...}`."""
    try:
        model = _parse(config, input_shape)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise KerasFileError(f"The architecture is damaged: {error!r}.") from error
    except RecursionError as error:
        raise KerasFileError("The architecture is nested too deeply to be one.") from error
    return model


def _parse(config: Mapping[str, Any], input_shape: tuple | None) -> Model:
    class_name, inner = config.get("class_name"), config.get("config")
    if class_name not in MODELS:
        raise KerasFileError(
            f"The model is a {str(class_name)[:60]!r}, a class of its author's own; only Sequential and "
            "Functional models say what they compute."
        )
    if isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), list):
        raise KerasFileError(f"The {class_name} model has no list of layers.")
    if len(inner["layers"]) > MAX_LAYERS:
        raise KerasFileError(
            f"The model has {len(inner['layers'])} layers; {MAX_LAYERS} is the limit."
        )
    model = Model(str(inner.get("name", "model")), class_name)
    if class_name == "Sequential" or "input_layers" not in inner:
        shape = input_shape or _built_shape(config, inner)
        _parse_sequential(model, inner, shape)
    else:
        _parse_functional(model, inner)
    names = [layer.name for layer in model.layers]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise KerasFileError(f'Two layers of the model have the same name, "{twice}".')
    if model.size > MAX_CALLS:
        raise KerasFileError(
            f"The model calls its layers {model.size} times; {MAX_CALLS} is the limit."
        )
    return model


def _built_shape(config: Mapping, inner: Mapping) -> tuple | None:
    built = inner.get("build_input_shape")
    if built is None and isinstance(config.get("build_config"), Mapping):
        built = config["build_config"].get("input_shape")
    return tuple(built[1:]) if isinstance(built, list) and built else None


def _parse_layer(entry: Mapping[str, Any]) -> Layer:
    class_name, config = entry["class_name"], entry.get("config")
    if not isinstance(class_name, str):
        raise KerasFileError("A layer of the model has no class name.")
    if class_name in MODELS:
        model = _parse(entry, None)
        if isinstance(config, Mapping):
            name = config.get("name", entry.get("name", model.name))
        else:
            name = entry.get("name", model.name)
        return Layer(_name(name), class_name, {}, model)
    if not isinstance(config, Mapping):
        raise KerasFileError(f"A layer of class {class_name[:60]} has no configuration.")
    name = _name(entry.get("name", config.get("name")))
    modern_class, modern = modernise(class_name, config)
    return Layer(name, modern_class, modern)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise KerasFileError("A layer of the model has no name.")
    return name


def _shape(value: Any) -> tuple[int | None, ...]:
    """A declared shape, checked: whole numbers in range or None."""
    if not isinstance(value, list | tuple) or len(value) > 16:
        raise KerasFileError(f"An input's shape must be a list of sizes, got {str(value)[:60]}.")
    for size in value:
        if size is not None and not (is_integer(size) and 1 <= size <= MAX_SIZE):
            raise KerasFileError(
                f"An input's shape must hold sizes up to {MAX_SIZE}, got {size!r}."
            )
    return tuple(value)


def _declared_input(layer: Layer) -> tuple[int | None, ...] | None:
    """The input shape that a layer's own configuration declares, without the batch."""
    config = layer.config
    if layer.model is not None:
        return layer.model.inputs[0].shape if len(layer.model.inputs) == 1 else None
    for key in ("batch_shape", "batch_input_shape"):
        if config.get(key) is not None:
            return _shape(config[key])[1:]
    if config.get("input_shape") is not None:
        return _shape(config["input_shape"])
    if config.get("input_dim") is not None and layer.class_name != "Embedding":
        return _shape([config["input_dim"]])
    return None


def _input(layer: Layer) -> Input:
    dtype = layer.config.get("dtype", "float32")
    shape = _declared_input(layer)
    return Input(layer.name, shape, dtype if isinstance(dtype, str) else "float32")


def _parse_sequential(model: Model, inner: Mapping, built_shape: tuple | None) -> None:
    layers = [_parse_layer(entry) for entry in inner["layers"]]
    if layers and layers[0].class_name == "InputLayer":
        model.inputs = [_input(layers[0])]
        layers = layers[1:]
    elif layers:
        shape = _declared_input(layers[0])
        if shape is None and built_shape is not None:
            shape = _shape(built_shape)
        dtype = "int32" if layers[0].class_name == "Embedding" else "float32"
        model.inputs = [Input("input", shape, dtype)]
    if not layers:
        raise KerasFileError("The Sequential model has no layers.")
    here = Ref(model.inputs[0].name, 0, 0)
    for layer in layers:
        if layer.class_name == "InputLayer" or layer.name == model.inputs[0].name:
            raise KerasFileError(f'Layer "{layer.name}" of the Sequential model is a second input.')
        model.calls.append(Call(layer.name, 0, (here,)))
        here = Ref(layer.name, 0, 0)
    model.layers = layers
    model.outputs = here
    model.input_structure = Ref(model.inputs[0].name, 0, 0)


def _parse_functional(model: Model, inner: Mapping) -> None:
    nodes: dict[tuple[str, int], Call] = {}
    inputs: dict[str, Input] = {}
    for entry in inner["layers"]:
        layer = _parse_layer(entry)
        if layer.class_name == "InputLayer":
            if layer.name in inputs:
                raise KerasFileError(f'Two layers of the model have the same name, "{layer.name}".')
            inputs[layer.name] = _input(layer)
            continue
        model.layers.append(layer)
        inbound = entry.get("inbound_nodes")
        if not isinstance(inbound, list) or not inbound:
            raise KerasFileError(f'Layer "{layer.name}" is not connected to anything.')
        for node, described in enumerate(inbound):
            args, kwargs = parse_node(described)
            nodes[layer.name, node] = Call(layer.name, node, args, kwargs)
    if inputs.keys() & {layer.name for layer in model.layers}:
        raise KerasFileError("An input and a layer of the model have the same name.")
    outputs = _structure(inner["output_layers"])
    offsets = _node_offsets(nodes, outputs)
    nodes = {key: _shifted(call, offsets) for key, call in nodes.items()}
    model.outputs = _shifted_refs(outputs, offsets)
    model.input_structure = _structure(inner["input_layers"])
    model.inputs = [_lookup_input(inputs, ref) for ref in refs(model.input_structure)]
    if len(model.inputs) != len(inputs):
        raise KerasFileError("An input layer of the model is not among its inputs.")
    model.calls = _in_order(nodes, set(inputs), model.outputs)


def _lookup_input(inputs: Mapping[str, Input], ref: Ref) -> Input:
    if ref.layer not in inputs:
        raise KerasFileError(
            f'The model names "{ref.layer}" as an input, which is not an InputLayer.'
        )
    return inputs[ref.layer]


def _is_ref(value: Any) -> bool:
    """["layer", 0, 0], with Keras 2's keyword arguments as a possible fourth item."""
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and is_integer(value[1])
        and is_integer(value[2])
        and (len(value) == 3 or isinstance(value[3], Mapping))
    )


def _structure(value: Any) -> Any:
    """The inputs or outputs of a model: a Ref, or a tuple or dictionary of them."""
    if _is_ref(value):
        return Ref(*value[:3])
    if isinstance(value, Mapping):
        return tuple((str(key), _structure(item)) for key, item in value.items())
    items = tuple(_structure(item) for item in value)
    return items[0] if len(items) == 1 and isinstance(items[0], Ref) else items


def parse_node(node: Any) -> tuple[tuple, tuple]:
    """One entry of `inbound_nodes`, of any Keras: (args, kwargs) with Refs at the leaves."""
    if isinstance(node, Mapping):
        args = tuple(freeze(arg) for arg in node["args"])
        return args, _keywords(node.get("kwargs", {}), old=False)
    if _is_ref(node):
        node = [node]
        flat = True
    else:
        flat = len(node) == 1
    kwargs: dict[str, Any] = {}
    tensors = []
    for item in node:
        if not _is_ref(item):
            raise KerasFileError(f"A connection of the model is unreadable: {str(item)[:60]}.")
        tensors.append(Ref(*item[:3]))
        if len(item) == 4:
            kwargs.update(item[3])
    args = (tensors[0],) if flat and len(tensors) == 1 else (tuple(tensors),)
    return args, _keywords(kwargs, old=True)


def _keywords(kwargs: Mapping[str, Any], *, old: bool) -> tuple[tuple[str, Any], ...]:
    """A call's keyword arguments; what only says "not in training, no mask" is left out."""
    if kwargs.get("training"):
        raise KerasFileError(
            "A layer of the model is always in training mode, which is not inference."
        )
    if kwargs.get("mask") is not None:
        raise KerasFileError("A layer of the model is given a mask, which is not handled.")
    return tuple(
        (key, freeze(value, old=old))
        for key, value in kwargs.items()
        if key not in ("training", "mask")
    )


def freeze(value: Any, *, old: bool = False) -> Any:
    """JSON as hashable constants, with Refs where a tensor stands; `old` is Keras 2's ["layer", 0, 0]."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return Ref(*value["config"]["keras_history"])
        return tuple(("__dict__" + str(k), freeze(v, old=old)) for k, v in value.items())
    if isinstance(value, list):
        if old and _is_ref(value):
            return Ref(*value[:3])
        return tuple(freeze(item, old=old) for item in value)
    return value


def refs(value: Any) -> Iterator[Ref]:
    """Every Ref in nested tuples, in order."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from refs(item)


def call_refs(call: Call) -> list[Ref]:
    """Everything a call reads."""
    return [*refs(call.args), *refs(call.kwargs)]


def _node_offsets(nodes: Mapping[tuple[str, int], Call], outputs: Any) -> dict[str, int]:
    """Keras 2 counts a nested model's calls from 1: its own construction was number 0."""
    highest: dict[str, int] = {}
    for ref in [*refs(outputs), *(r for call in nodes.values() for r in call_refs(call))]:
        highest[ref.layer] = max(ref.node, highest.get(ref.layer, 0))
    counts: dict[str, int] = {}
    for layer, _ in nodes:
        counts[layer] = counts.get(layer, 0) + 1
    return {layer: 1 for layer, count in counts.items() if highest.get(layer, 0) == count}


def _shifted_refs(value: Any, offsets: Mapping[str, int]) -> Any:
    if isinstance(value, Ref):
        return value._replace(node=value.node - offsets.get(value.layer, 0))
    if isinstance(value, tuple):
        return tuple(_shifted_refs(item, offsets) for item in value)
    return value


def _shifted(call: Call, offsets: Mapping[str, int]) -> Call:
    return call._replace(
        args=_shifted_refs(call.args, offsets), kwargs=_shifted_refs(call.kwargs, offsets)
    )


def _in_order(nodes: dict[tuple[str, int], Call], inputs: set[str], outputs: Any) -> list[Call]:
    """Calls sorted so that each follows what it reads; a cycle or a missing layer is an error."""
    reads = {}
    for key, call in nodes.items():
        reads[key] = {(r.layer, r.node) for r in call_refs(call) if r.layer not in inputs}
    readers: dict[tuple[str, int], list] = {key: [] for key in nodes}
    final = {(r.layer, r.node) for r in refs(outputs) if r.layer not in inputs}
    for key, sources in [*reads.items(), (None, final)]:
        for source in sources:
            if source not in readers:
                raise KerasFileError(f'The model reads from "{source[0]}", which it does not have.')
            readers[source].append(key)
    if not all(readers.values()):
        unread = next(key for key, value in readers.items() if not value)
        raise KerasFileError(f'Layer "{unread[0]}" is not connected to the output of the model.')
    waiting = {key: len(sources) for key, sources in reads.items()}
    ready = [key for key, count in waiting.items() if count == 0]
    ordered = []
    for key in ready:
        ordered.append(nodes[key])
        for reader in readers[key]:
            if reader is not None:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
    if len(ordered) != len(nodes):
        stuck = next(key for key, count in waiting.items() if count)
        raise KerasFileError(f'The model is cyclic: layer "{stuck[0]}" needs its own output.')
    return ordered
