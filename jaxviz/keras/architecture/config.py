"""Configuration to architecture: Sequential and Functional models of Keras 1 to 3, as one graph.

A `Model` has layers, each with its configuration in today's spelling, and calls in an order in
which each follows the calls that it reads from. `read_layers` reads the layers, which is enough to
tell which are not known; `connect` then the calls. Nothing here knows what a layer computes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from jaxviz.keras.architecture.fields import MAX_SIZE, MODELS, is_integer
from jaxviz.keras.architecture.legacy import modernise
from jaxviz.keras.architecture.nodes import (
    Call,
    Nodes,
    Ref,
    call_refs,
    in_order,
    parse_node,
    refs,
    shift_nested,
    structure,
)
from jaxviz.keras.architecture.operators_tf import (
    node_operation,
    translate_function,
    translate_node,
)
from jaxviz.keras.errors import KerasFileError

MAX_LAYERS = 20_000
MAX_NAME = 1000
MAX_CALLS = 5_000
MAX_READS = 20_000
# Layers that hold another layer, or a model, in their field `layer`.
WRAPPERS = ("SpectralNormalization", "TimeDistributed")


class Input(NamedTuple):
    """A placeholder; `shape` is without the batch, None where any size is allowed."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


@dataclass
class Layer:
    """One layer of the architecture.

    `model` is set when the layer is itself a model, or wraps one, or wraps a layer; `renames` and
    `constants` when it stands for a TensorFlow operation: new names of keyword arguments, and
    constant positional ones. `inbound` is what the file says of its calls.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    model: "Model | None" = None
    renames: dict[str, str] | None = None
    constants: dict[int, Any] | None = None
    inbound: Any = None

    @property
    def wraps(self) -> bool:
        """Whether the layer is not the model inside it, but does something with it."""
        return self.model is not None and self.class_name in WRAPPERS


@dataclass
class Model:
    """A model without its arrays: layers, inputs, and calls in an order of evaluation.

    `size` counts the calls, those inside nested models included. A `lone` model is made for the one
    layer that another layer wraps. `source` is what it is read from.
    """

    name: str
    class_name: str
    layers: list[Layer] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: Any = ()
    input_structure: Any = None
    size: int = 0
    lone: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)
    built_shape: tuple | None = None


def read_layers(config: Mapping[str, Any]) -> Model:
    """Return the layers that `{"class_name": ..., "config": ...}` describes, not connected yet."""
    with _told():
        return _read(config)


def connect(model: Model, input_shape: tuple | None = None) -> None:
    """Add, in place, the inputs, calls and outputs to a model of `read_layers`."""
    with _told():
        _connect(model, input_shape)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what a damaged architecture runs into into an error that says so."""
    try:
        yield
    except KerasFileError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise KerasFileError(f"The architecture is damaged: {error!r}.") from error
    except RecursionError as error:
        raise KerasFileError("The architecture is nested too deeply to be one.") from error


def _read(config: Mapping[str, Any]) -> Model:
    class_name, inner = config.get("class_name"), config.get("config")
    if not isinstance(class_name, str) or class_name not in MODELS:
        raise KerasFileError(
            f"The model is of class {str(class_name)[:60]!r}, its author's own; only Sequential "
            "and Functional models say what they compute: build it again as one of these, as "
            "`keras.Model(inputs, outputs)` with the same weights, and give that to `from_keras`."
        )
    if isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), list):
        raise KerasFileError(f"The {class_name} model has no list of layers.")
    if len(inner["layers"]) > MAX_LAYERS:
        raise KerasFileError(
            f"The model has {len(inner['layers'])} layers; {MAX_LAYERS} is the limit."
        )
    shape = _built_shape(config, inner)
    name = _name(inner.get("name") or "model")
    model = Model(name, class_name, source=inner, built_shape=shape)
    for entry in inner["layers"]:
        layer = _read_layer(entry)
        layer.inbound = entry.get("inbound_nodes")
        model.layers.append(layer)
    return model


def _connect(model: Model, input_shape: tuple | None) -> None:
    for layer in model.layers:
        if layer.model is not None:
            _connect(layer.model, None)
    if model.class_name == "Sequential" or "input_layers" not in model.source:
        _connect_sequential(model, input_shape or model.built_shape)
    else:
        _connect_functional(model)
    _check_size(model)


def _check_names(layers: list[Layer], inputs: Iterable[str]) -> None:
    seen = set(inputs)
    for layer in layers:
        if layer.name in seen:
            raise KerasFileError(f'Two layers of the model have the same name, "{layer.name}".')
        seen.add(layer.name)


def _check_size(model: Model) -> None:
    reads = sum(len(call_refs(call)) for call in model.calls) + len(list(refs(model.outputs)))
    if reads > MAX_READS:
        raise KerasFileError(
            f"The layers of the model read {reads} arrays; {MAX_READS} is the limit."
        )
    nested = {layer.name: layer.model.size for layer in model.layers if layer.model}
    model.size = sum(1 + nested.get(call.layer, 0) for call in model.calls)
    if model.size > MAX_CALLS:
        raise KerasFileError(
            f"The model calls its layers {model.size} times; {MAX_CALLS} is the limit."
        )


def _built_shape(config: Mapping, inner: Mapping) -> tuple | None:
    built = inner.get("build_input_shape")
    if built is None and isinstance(config.get("build_config"), Mapping):
        built = config["build_config"].get("input_shape")
    return tuple(built[1:]) if isinstance(built, list) and built else None


def _read_layer(entry: Mapping[str, Any]) -> Layer:
    class_name, config = entry["class_name"], entry.get("config")
    if not isinstance(class_name, str) or not class_name.isprintable():
        raise KerasFileError(f"A layer of the model has no class name, but {class_name!r}.")
    if class_name in MODELS and _origin(entry) != "own":
        model = _read(entry)
        inner = config.get("name") if isinstance(config, Mapping) else None
        return Layer(_name(inner or entry.get("name")), class_name, {}, model)
    if not isinstance(config, Mapping):
        raise KerasFileError(f"A layer of class {class_name[:60]} has no configuration.")
    name = _name(entry.get("name") or config.get("name"))
    origin = _origin(entry)
    if origin == "operation":
        return Layer(name, f"ops.{class_name}", dict(config))
    if origin == "own":
        return Layer(name, f"{entry.get('module') or 'own'}>{class_name}", dict(config))
    if class_name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        return _operation(name, class_name, config)
    modern_class, modern = modernise(class_name, config)
    wrapped = modern.get("layer") if modern_class in WRAPPERS else None
    model = None if wrapped is None else _wrapped(name, _read_layer(wrapped))
    return Layer(name, modern_class, modern, model)


def _wrapped(outer: str, inner: Layer) -> Model:
    """Return the model inside a wrapper: the one that it wraps, or one of the layer alone."""
    if inner.model is not None and not inner.wraps:
        return inner.model
    return Model(outer, "Sequential", [inner], lone=True)


def _origin(entry: Mapping[str, Any]) -> str:
    """Where a class comes from: "keras", "operation", or "own" for a class of the author's.

    A class of the author's may well be called Conv2D.
    """
    module, registered = entry.get("module"), entry.get("registered_name")
    if isinstance(module, str):
        if module.startswith(("keras.src.ops", "keras.ops")):
            return "operation"
        family = module.split(".")[0]
        return "keras" if family in ("keras", "tensorflow", "tf_keras") else "own"
    if registered is not None:
        return "own"
    return "operation" if _is_bare(entry) else "keras"


def _is_bare(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is an operation in an HDF5 file of Keras 3, which leaves the module out.

    The layers of that time have a field `trainable`, or `seed`; operations have neither.
    """
    config, inbound = entry.get("config"), entry.get("inbound_nodes")
    of_keras_3 = isinstance(inbound, list) and inbound and isinstance(inbound[0], Mapping)
    if not of_keras_3 or not isinstance(config, Mapping):
        return False
    return "trainable" not in config and "seed" not in config


def _operation(name: str, class_name: str, config: Mapping[str, Any]) -> Layer:
    """A TensorFlow operation as one of Keras 3's."""
    if class_name == "TensorFlowOpLayer":
        node = translate_node(config)
        if node is not None:
            return Layer(name, f"ops.{node[0]}", {}, constants=node[1])
    else:
        function = translate_function(config)
        if function is not None:
            return Layer(name, f"ops.{function[0]}", {}, renames=function[1])
    what = config.get("function", config.get("symbol")) or node_operation(config)
    return Layer(name, f"{class_name} of {str(what or 'an unknown operation')[:60]}", {})


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise KerasFileError("A layer of the model has no name.")
    if not name.isprintable() or len(name) > MAX_NAME:
        raise KerasFileError(
            f'A layer\'s name must be printable text of up to {MAX_NAME} characters: got "{name}".'
        )
    return name


def _shape(value: Any) -> tuple[int | None, ...]:
    """Return a declared shape as a tuple of sizes in range, None where a size is open."""
    if not isinstance(value, list | tuple) or len(value) > 16:
        raise KerasFileError(f"An input's shape must be a list of sizes: got {str(value)[:60]}.")
    for size in value:
        if size is not None and not (is_integer(size) and 1 <= size <= MAX_SIZE):
            raise KerasFileError(
                f"An input's shape must hold sizes up to {MAX_SIZE}: got {str(size)[:60]}."
            )
    return tuple(value)


def _declared_input(layer: Layer) -> tuple[int | None, ...] | None:
    """The input shape that a layer's own configuration declares, without the batch."""
    config = layer.config
    if layer.model is not None and not layer.wraps:
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


def _connect_sequential(model: Model, built_shape: tuple | None) -> None:
    layers = model.layers
    if not layers:
        raise KerasFileError("The Sequential model has no layers.")
    if layers[0].class_name == "InputLayer":
        entry = _input(layers[0])
        layers = layers[1:]
    else:
        shape = _declared_input(layers[0]) if not model.lone else None
        if shape is None and built_shape is not None:
            shape = _shape(built_shape)
        dtype = "int32" if layers[0].class_name == "Embedding" else "float32"
        entry = Input(f"{layers[0].name}_input", shape, dtype)
    if entry.shape is None and built_shape is not None:
        entry = entry._replace(shape=_shape(built_shape))
    here = Ref(entry.name, 0, 0)
    model.inputs, model.input_structure = [entry], here
    for layer in layers:
        if layer.class_name == "InputLayer":
            raise KerasFileError(f'Layer "{layer.name}" of the Sequential model is a second input.')
        model.calls.append(Call(layer.name, 0, (here,)))
        here = Ref(layer.name, 0, 0)
    _check_names(layers, [entry.name])
    model.layers, model.outputs = layers, here


def _connect_functional(model: Model) -> None:
    nodes: Nodes = {}
    inputs: dict[str, Input] = {}
    for layer in model.layers:
        if layer.class_name == "InputLayer":
            if layer.name in inputs:
                raise KerasFileError(f'Two layers of the model have the same name, "{layer.name}".')
            inputs[layer.name] = _input(layer)
            continue
        if not isinstance(layer.inbound, list) or not layer.inbound:
            raise KerasFileError(f'Layer "{layer.name}" is not connected to anything.')
        for number, described in enumerate(layer.inbound):
            nodes[layer.name, number] = _call(layer, number, described)
    model.layers = [layer for layer in model.layers if layer.class_name != "InputLayer"]
    _check_names(model.layers, inputs)
    nodes, model.outputs = shift_nested(nodes, structure(model.source["output_layers"]))
    model.input_structure = structure(model.source["input_layers"])
    names = [ref.layer for ref in refs(model.input_structure)]
    if sorted(names) != sorted(inputs):
        raise KerasFileError("The inputs of the model are not those of its input layers.")
    model.inputs = [inputs[name] for name in names]
    model.calls = in_order(nodes, set(inputs), model.outputs)


def _call(layer: Layer, number: int, described: Any) -> Call:
    args, kwargs = parse_node(described)
    if layer.renames is not None:
        kwargs = _renamed(layer, kwargs)
    if layer.constants:
        args = _with_constants(args, layer.constants)
    return Call(layer.name, number, args, tuple(kwargs.items()))


def _renamed(layer: Layer, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return TensorFlow's keyword arguments under our names.

    `tf.split` takes the sizes of the parts, NumPy the places of the cuts: (2, 3, 4) is (2, 5).
    """
    renames, renamed = layer.renames or {}, {}
    for key, value in kwargs.items():
        if value is None or key == "name":
            continue
        if key not in renames:
            raise KerasFileError(f'Layer "{layer.name}" has an argument `{key}`, not handled.')
        if key == "num_or_size_splits" and isinstance(value, tuple):
            value = tuple(accumulate(value[:-1]))
        renamed[renames[key]] = value
    return renamed


def _with_constants(args: tuple, constants: Mapping[int, Any]) -> tuple:
    tensors = list(args[0] if isinstance(args[0], tuple) and not isinstance(args[0], Ref) else args)
    total = len(tensors) + len(constants)
    if not all(0 <= position < total for position in constants):
        raise KerasFileError("A TensorFlow operation of the model has misplaced constants.")
    rest = iter(tensors)
    return tuple(constants[i] if i in constants else next(rest) for i in range(total))
