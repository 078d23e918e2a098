"""`KerasModel`: an architecture and its layers as one Flax module, evaluated call by call.

The module is a pytree: its arrays are leaves, everything else is hashable and compares by value, so
that it can be passed to `jax.jit`, and two loads of one file share a compiled program.
"""

import difflib
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz.keras.architecture.config import Input
from jaxviz.keras.architecture.nodes import Call, Ref, call_refs, refs
from jaxviz.keras.layers.converter import cast

Array = jax.Array | np.ndarray
# One input; several, in order or by name.
Images = Array | Sequence[Array] | Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Graph:
    """The constants of a `KerasModel`: who calls whom, in order.

    `layers` holds (Keras name, attribute, class, compute dtype or None) for each layer.
    """

    name: str
    inputs: tuple[Input, ...]
    input_structure: Any
    layers: tuple[tuple[str, str, str, str | None], ...]
    calls: tuple[Call, ...]
    outputs: Any
    output_shape: Any = None
    class_names: tuple[str, ...] | None = None

    def _key(self) -> tuple:
        shapes = (self.inputs, self.output_shape, self.class_names)
        return (self.name, self.layers, self.calls, self.outputs, *shapes)

    @cached_property
    def _hash(self) -> int:
        return hash(self._key())

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Graph) or self._hash != other._hash:
            return False
        return self._key() == other._key()

    @cached_property
    def attributes(self) -> dict[str, str]:
        """Keras name to attribute."""
        return {name: attribute for name, attribute, _, _ in self.layers}

    @cached_property
    def dtypes(self) -> dict[str, str | None]:
        """Keras name to the dtype in which the layer computes; None leaves its input as it is."""
        return {name: dtype for name, _, _, dtype in self.layers}

    def needed(self, wanted: Iterable[tuple[str, int]]) -> list[Call]:
        """Return the calls on which the wanted ones depend, themselves included, in order."""
        reads = {(call.layer, call.node): call_refs(call) for call in self.calls}
        waiting, seen = list(wanted), set()
        while waiting:
            key = waiting.pop()
            if key in seen or key not in reads:
                continue
            seen.add(key)
            waiting.extend((ref.layer, ref.node) for ref in reads[key])
        return [call for call in self.calls if (call.layer, call.node) in seen]


class KerasModel(nnx.Module):
    """A Keras model as a Flax module: `model(images)` gives what Keras's `predict` gives.

    Each layer is an attribute under its Keras name; characters that Python does not allow are "_".

    Example:
        >>> from jaxviz.keras import load_keras
        >>> flat = {"class_name": "Flatten", "config": {"name": "flat", "input_shape": [2, 3]}}
        >>> model = load_keras({"class_name": "Sequential", "config": [flat]})
        >>> model.layer_names, model.input_shape, model.output_shape
        (['flat'], (2, 3), (6,))
    """

    def __init__(self, graph: Graph, layers: Mapping[str, Any]):
        self._graph = graph
        for name, attribute in graph.attributes.items():
            setattr(self, attribute, _as_attribute(layers[name]))

    needs_rngs = True

    @property
    def layer_names(self) -> list[str]:
        """The names of the layers as Keras gave them, in Keras's order, without inputs."""
        return list(self._graph.attributes)

    @property
    def input_shape(self) -> Any:
        """The shape of the input without the batch; a tuple of shapes when there are several."""
        shapes = tuple(entry.shape for entry in self._graph.inputs)
        return shapes if len(shapes) != 1 else shapes[0]

    @property
    def output_shape(self) -> Any:
        """The shape of the output without the batch; a tuple of shapes when there are several."""
        return self._graph.output_shape

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if they are known."""
        return self._graph.class_names

    @property
    def white(self) -> float | None:
        """What white is to the model, 255 or 1, where its first layers rescale; else None."""
        from jaxviz.keras.white import white_of  # which knows layers, as this module does not

        return white_of(self)

    def layer(self, name: str | int) -> Any:
        """Return the layer of a Keras name or index.

        Args:
            name: a name of `layer_names`, "model/layer" inside a nested model, or an index.

        Returns:
            The layer: an `nnx.Module`, or a callable without weights.

        Raises:
            ValueError: there is no such layer.

        Example:
            >>> from jaxviz.keras import load_keras
            >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_shape": [None, 2]}}
            >>> model = load_keras({"class_name": "Sequential", "config": [relu]})
            >>> model.layer(-1)
            Relu(slope=0.0, ceiling=None, threshold=0.0)
        """
        node: Any = self
        for part in self._resolve(name):
            node = getattr(node, node._graph.attributes[part])
        return node

    def with_graph(self, graph: Graph) -> "KerasModel":
        """Return a model of the same layers, shared, under other constants."""
        return KerasModel(graph, {n: getattr(self, a) for n, a in graph.attributes.items()})

    def __call__(self, images: Images, *, rngs: nnx.Rngs | None = None) -> Any:
        """Evaluate the model.

        Args:
            images: (N, *input_shape), any real dtype; a list or dictionary for several inputs.
            rngs: random streams, needed only in training mode and with dropout.

        Returns:
            (N, *output_shape); a tuple or dictionary of arrays when there are several outputs.
        """
        wanted = [(ref.layer, ref.node) for ref in refs(self._graph.outputs)]
        values, _ = self._evaluate(images, wanted, rngs=rngs)
        return _gather(self._graph.outputs, values)

    def activations(
        self, images: Images, layers: Sequence[str | int] | str | int | None = None
    ) -> dict[str, jax.Array]:
        """Return the outputs of named layers, evaluating only what they need.

        Args:
            images: (N, *input_shape), any real dtype.
            layers: names or indices of layers ("model/layer" inside a nested model); None for all.

        Returns:
            Layer name to (N, *shape); the second call of a shared layer is under "name:1".

        Raises:
            ValueError: there is no such layer.
        """
        if layers is None:
            layers = self.layer_names
        if isinstance(layers, str | int):
            layers = [layers]
        paths = [self._resolve(layer) for layer in layers]
        nested: dict[str, list[str]] = {}
        for outer, *inner in paths:
            if inner:
                nested.setdefault(outer, []).append("/".join(inner))
        names = {path[0] for path in paths}
        wanted = [(call.layer, call.node) for call in self._graph.calls if call.layer in names]
        values, inside = self._evaluate(images, wanted, nested=nested)
        found: dict[str, jax.Array] = {}
        for outer, *inner in paths:
            if inner:
                name = "/".join([outer, *inner])
                found[name] = inside[name]
                continue
            found |= {_call_name(key): values[key] for key in wanted if key[0] == outer}
        return found

    def _everything(self, images: Images) -> tuple[Any, dict[str, Any]]:
        """Return the output, and the outputs of all layers, from one evaluation."""
        wanted = [(call.layer, call.node) for call in self._graph.calls]
        values, _ = self._evaluate(images, wanted)
        each = {_call_name(key): values[key] for key in wanted}
        return _gather(self._graph.outputs, values), each

    def _resolve(self, name: str | int) -> tuple[str, ...]:
        """Return a layer's path: its name, or the names that lead into nested models."""
        names = self.layer_names
        if isinstance(name, int):
            if not -len(names) <= name < len(names):
                raise ValueError(
                    f"`layers` must hold indices of the {len(names)} layers: got {name}."
                )
            return (names[name],)
        if name in self._graph.attributes:
            return (name,)
        for outer in names:
            layer = getattr(self, self._graph.attributes[outer])
            if isinstance(layer, KerasModel) and name.startswith(outer + "/"):
                return (outer, *layer._resolve(name[len(outer) + 1 :]))
        near = difflib.get_close_matches(name, names, 1, 0.0) or ["none"]
        raise ValueError(f'There is no layer "{name}"; the nearest name is "{near[0]}".')

    def _evaluate(
        self,
        images: Images,
        wanted: Sequence[tuple[str, int]],
        *,
        rngs: nnx.Rngs | None = None,
        nested: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[dict[tuple[str, int], Any], dict[str, jax.Array]]:
        """Evaluate the wanted calls and what they need.

        Returns the output of each (layer, node) evaluated, and, as "model/layer", those of the
        layers that `nested` lists for a nested model: of its last call, if there are several.
        """
        values, inside = self._place_inputs(images), {}
        for call in self._graph.needed(wanted):
            layer = getattr(self, self._graph.attributes[call.layer])
            dtype = self._graph.dtypes[call.layer]
            args = _gather(call.args, values, dtype)
            kwargs = {key: _gather(value, values, dtype) for key, value in call.kwargs}
            if getattr(layer, "needs_rngs", False):
                kwargs["rngs"] = rngs
            try:
                if nested and call.layer in nested:
                    # What this repeats of the call below, jit finds to be common.
                    inner = layer.activations(*args, layers=nested[call.layer])
                    inside |= {f"{call.layer}/{name}": array for name, array in inner.items()}
                values[call.layer, call.node] = layer(*args, **kwargs)
            except Exception as error:
                error.add_note(f'In layer "{call.layer}"')
                raise
        return values, inside

    def _place_inputs(self, images: Images) -> dict[tuple[str, int], Any]:
        """Return checked and cast inputs, under the names of their placeholders."""
        inputs = self._graph.inputs
        if len(inputs) == 1 and not isinstance(images, Mapping | list | tuple):
            images = (images,)
        if isinstance(images, Mapping):
            images = [images[key] for key in _input_keys(self._graph, images)]
        if len(images) != len(inputs):
            raise ValueError(f"`images` must hold {len(inputs)} arrays: got {len(images)}.")
        return {
            (entry.name, 0): _as_input(entry, x) for entry, x in zip(inputs, images, strict=True)
        }


def _call_name(call: tuple[str, int]) -> str:
    """Return the name of a call's output: "layer", and "layer:1" for its second call."""
    layer, node = call
    return f"{layer}:{node}" if node else layer


def _as_attribute(layer: Any) -> Any:
    """Return a layer as an attribute; arrays of a user's own pytree become leaves of the model."""
    if isinstance(layer, nnx.Module):
        return layer
    has_arrays = any(isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves(layer))
    return nnx.data(layer) if has_arrays else layer


def _input_keys(graph: Graph, images: Mapping) -> list[str]:
    keys = [entry.name for entry in graph.inputs]
    structure = graph.input_structure
    if isinstance(structure, tuple) and not isinstance(structure, Ref):
        named = {item[1].layer: item[0] for item in structure if not isinstance(item, Ref)}
        if set(named.values()) == set(images):
            keys = [named[key] for key in keys]
    if set(keys) != set(images):
        raise ValueError(f"`images` must have the keys {keys}: got {sorted(map(str, images))}.")
    return keys


def _as_input(entry: Input, x: Any) -> jax.Array:
    x = jnp.asarray(x)
    shape = entry.shape
    if shape is not None:
        same = x.ndim == len(shape) + 1
        if not same or any(s not in (None, n) for s, n in zip(shape, x.shape[1:], strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(
                f"`images` must have shape (batch, {wanted}): got {x.shape}; a single image needs "
                "a leading axis of 1."
            )
    if entry.dtype.startswith(("int", "uint")) and entry.dtype != "uint8":
        return cast(x, jnp.dtype("int32"))
    return cast(x, jnp.dtype("float32"))


def _gather(structure: Any, values: Mapping, dtype: str | None = None) -> Any:
    """Return a nested structure with its Refs replaced by arrays, cast to the layer's dtype."""
    if isinstance(structure, Ref):
        value = values[structure.layer, structure.node]
        if isinstance(value, tuple | list):
            value = value[structure.tensor]
        return value if dtype is None else cast(value, jnp.dtype(dtype))
    if isinstance(structure, tuple):
        return tuple(_gather(item, values, dtype) for item in structure)
    return structure


def attribute_names(names: Sequence[str]) -> list[str]:
    """Return distinct attributes for Keras names: letters, digits, "_"; none that a module has.

    Example:
        >>> attribute_names(["fire2/squeeze", "train", "1x1", "fire2_squeeze"])
        ['fire2_squeeze_1', 'train_', 'layer_1x1', 'fire2_squeeze']
    """
    exact = {name for name in names if _is_free(name)}
    taken, found = set(exact), []
    numbers: dict[str, int] = {}
    for name in names:
        if name in exact:
            found.append(name)
            continue
        stem = re.sub(r"\W", "_", name)
        if not stem.isidentifier() or stem.startswith("_"):
            stem = "layer_" + stem
        if not _is_free(stem):
            stem += "_"
        number = numbers.get(stem, 0)
        choice = f"{stem}_{number}" if number else stem
        while choice in taken:
            number += 1
            choice = f"{stem}_{number}"
        numbers[stem] = number
        taken.add(choice)
        found.append(choice)
    return found


def _is_free(name: str) -> bool:
    plain = name.isidentifier() and name.isascii() and not name.startswith("_")
    return plain and not keyword.iskeyword(name) and not hasattr(KerasModel, name)
