"""`KerasModel`: an architecture and its layers as one Flax module, evaluated call by call.

The module is a pytree: its arrays are leaves, everything else is hashable and compares by value, so
that it can be passed to `jax.jit`, and two loads of one file share a compiled program.
"""

import difflib
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz.keras.architecture.graph import Graph, Key
from jaxviz.keras.architecture.nodes import Call, Ref, call_refs, refs
from jaxviz.keras.inputs import moved, placed
from jaxviz.keras.layers.converter import cast
from jaxviz.keras.orders import behind, gives_in_front, in_front, takes_in_front

Array = jax.Array | np.ndarray
# One input; several, in order or by name.
Images = Array | Sequence[Array] | Mapping[str, Array]


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
    compares_by_value = True  # whether one of equal structure computes the same: see the module

    @property
    def layer_names(self) -> list[str]:
        """The names of the layers as Keras gave them, in order of evaluation, without inputs.

        Those inside a nested model stand before it as "model/layer"; a layer that is called again
        is "layer#2" there, and a nested model's layers then are "model#2/layer".
        """
        found: list[str] = []
        for name, (layer, _) in self._graph.called.items():
            inner = getattr(self, self._graph.attributes[layer])
            if isinstance(inner, KerasModel):
                found += [f"{name}/{below}" for below in inner.layer_names]
            found.append(name)
        return found

    @property
    def input_shape(self) -> Any:
        """The shape of the input without the batch; a tuple of shapes when there are several."""
        shapes = tuple(entry.shape for entry in self._graph.inputs)
        if len(shapes) != 1:
            return shapes
        return moved(shapes[0]) if self._graph.channels_last and shapes[0] else shapes[0]

    @property
    def own_shape(self) -> tuple[int | None, ...] | None:
        """The shape that the layers take where `input_shape` has it with its channels behind."""
        return self._graph.inputs[0].shape if self._graph.channels_last else None

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
        """What white is to the model, 255 or 1, where that is known or its first layers rescale."""
        from jaxviz.keras.white import white_of  # which knows layers, as this module does not

        return white_of(self) if self._graph.white is None else self._graph.white

    @property
    def layers_in_order(self) -> list[Any]:
        """The layers in order of evaluation, one that is called again each time."""
        return [getattr(self, self._graph.attributes[call.layer]) for call in self._graph.calls]

    @property
    def data_format(self) -> str | None:
        """Where its images have channels, "channels_first" or "channels_last"; None: none says."""
        first = takes_in_front(self.layers_in_order) and not self._graph.channels_last
        return {True: "channels_first", False: "channels_last", None: None}[first]

    def with_channels_last(self) -> "KerasModel":
        """Return a model of the same layers, shared, that takes images (N, H, W, C).

        What it returns, maps of layers included, has its channels behind as well.
        """
        return self.with_graph(replace(self._graph, channels_last=True))

    @property
    def image_shape(self) -> tuple[int | None, ...] | None:
        """(height, width, channel) of the images that the model takes; None if it takes none.

        So it is told of a model whose channels come first too. A sequence (length, channel) is an
        image of one row, a vector (length) one of one channel.
        """
        shape = self._graph.inputs[0].shape if len(self._graph.inputs) == 1 else None
        if shape is None or not 1 <= len(shape) <= 3:
            return None
        if self.data_format == "channels_first" or self._graph.channels_last:
            shape = moved(shape)
        return {1: (1, *shape, 1), 2: (1, *shape), 3: shape}[len(shape)]

    def layer(self, name: str | int) -> Any:
        """Return the layer of a Keras name or index.

        Args:
            name: a name of `layer_names`, or an index in it.

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
        (layer, _), inner = self._resolve(name)
        found = getattr(self, self._graph.attributes[layer])
        return found if inner is None else found.layer(inner)

    def with_graph(self, graph: Graph) -> "KerasModel":
        """Return a model of the same layers, shared, under other constants."""
        return KerasModel(graph, {n: getattr(self, a) for n, a in graph.attributes.items()})

    def __call__(self, images: Images, *, rngs: nnx.Rngs | None = None) -> Any:
        """Evaluate the model.

        Args:
            images: (N, *input_shape), any real dtype; a list or dictionary for several inputs. A
                model of sequences (length, channel) or vectors (length) also takes them as images
                of one row, (N, 1, length, channel); one of images (C, H, W) also takes (N, H, W,
                C), if their shape tells them apart.
            rngs: random streams, needed only in training mode and with dropout.

        Returns:
            (N, *output_shape); a tuple or dictionary of arrays when there are several outputs.
        """
        return self._read(images, (), rngs=rngs)[0]

    def activations(
        self, images: Images, layers: Sequence[str | int] | str | int | None = None
    ) -> dict[str, jax.Array]:
        """Return the outputs of named layers, evaluating only what they need.

        Args:
            images: (N, *input_shape), any real dtype.
            layers: names or indices of `layer_names`; None for all.

        Returns:
            Layer name to (N, *shape).

        Raises:
            ValueError: there is no such layer.
        """
        known = self.layer_names
        asked = [layers] if isinstance(layers, str | int) else known if layers is None else layers
        names = [known[n] if isinstance(n, int) and n in _indices(known) else n for n in asked]
        return self._read(images, names, output=False)[1]

    def with_activations(
        self, images: Images, layers: Sequence[str | int]
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Return the output and the outputs of named layers, all from one evaluation.

        Args:
            images: (N, *input_shape), any real dtype.
            layers: names or indices of `layer_names`.

        Returns:
            (N, *output_shape), and layer as asked to (N, *shape).

        Raises:
            ValueError: there is no such layer.
        """
        return self._read(images, layers)

    def _everything(self, images: Images) -> tuple[Any, dict[str, Any]]:
        """Return the output, and the outputs of all layers, from one evaluation."""
        return self._read(images, list(self._graph.called))

    def _resolve(self, name: str | int) -> tuple[Key, str | None]:
        """Return the call of a name, and the name inside it where it is of a nested model's."""
        names = self.layer_names
        if isinstance(name, int):
            if name not in _indices(names):
                raise ValueError(
                    f"`layers` must hold indices of the {len(names)} layers: got {name}."
                )
            name = names[name]
        if name in self._graph.called:
            return self._graph.called[name], None
        for outer, key in self._graph.called.items():
            if name in names and name.startswith(outer + "/"):
                inner = getattr(self, self._graph.attributes[key[0]])
                rest = name[len(outer) + 1 :]
                if isinstance(inner, KerasModel) and rest in inner.layer_names:
                    return key, rest
        near = difflib.get_close_matches(name, names, 1, 0.0) or ["none"]
        raise ValueError(f'There is no layer "{name}"; the nearest name is "{near[0]}".')

    def _read(
        self,
        images: Images,
        names: Sequence[str | int],
        *,
        output: bool = True,
        rngs: nnx.Rngs | None = None,
        first: bool | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the output, None where it is not asked for, and those of named layers.

        Each call that these need is evaluated once. Where it is known whether the images have
        channels first, and not None, what layers return is given with its channels behind.
        """
        last, places = self._graph.channels_last, {str(n): self._resolve(n) for n in names}
        nested: dict[Key, list[str]] = {}
        for key, inner in places.values():
            if inner is not None:
                nested.setdefault(key, []).append(inner)
        named = {key for key, inner in places.values() if inner is None}
        wanted = [(ref.layer, ref.node) for ref in refs(self._graph.outputs)] if output else []
        calls = self._graph.needed([*wanted, *(key for key, _ in places.values())])
        values, inside = self._place_inputs(images), {}
        orders: dict[Key, bool | None] = dict.fromkeys(values, True if last else first)
        seen: dict[Key, Any] = {}
        for call in calls:
            key = (call.layer, call.node)
            try:
                given = next((orders[ref.layer, ref.node] for ref in call_refs(call)), None)
                told = nested.get(key, ()), given
                values[key], inside[key] = self._call(call, values, *told, rngs)
            except Exception as error:
                error.add_note(f'In layer "{call.layer}"')
                raise
            layer = getattr(self, self._graph.attributes[call.layer])
            orders[key] = None if given is None else gives_in_front(layer, given)
            seen[key] = values[key]
            if orders[key] and key in named:
                # What follows reads it from here, so that it can be differentiated by.
                seen[key] = behind(values[key])
                values[key] = in_front(seen[key])
        found = {
            name: seen[key] if inner is None else inside[key][inner]
            for name, (key, inner) in places.items()
        }
        if not output:
            return None, found
        if last:
            values = {k: behind(v) if orders[k] else v for k, v in values.items()}
        return _by_name(self._graph.outputs, values), found

    def _call(
        self,
        call: Call,
        values: Mapping,
        names: Sequence[str],
        first: bool | None,
        rngs: nnx.Rngs | None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return what a call gives, and the outputs of named layers of the nested model called."""
        layer = getattr(self, self._graph.attributes[call.layer])
        dtype = self._graph.dtypes[call.layer]
        args = _gather(call.args, values, dtype)
        kwargs = {key: _gather(value, values, dtype) for key, value in call.kwargs}
        if getattr(layer, "needs_rngs", False):
            kwargs["rngs"] = rngs
        if names:
            return layer._read(*args, names, first=first, **kwargs)
        return layer(*args, **kwargs), {}

    def _place_inputs(self, images: Images) -> dict[tuple[str, int], Any]:
        """Return checked and cast inputs, under the names of their placeholders."""
        return placed(self._graph, images, self.data_format == "channels_first")


def _indices(names: Sequence[str]) -> range:
    return range(-len(names), len(names))


def _as_attribute(layer: Any) -> Any:
    """Return a layer as an attribute; arrays of a user's own pytree become leaves of the model."""
    if isinstance(layer, nnx.Module):
        return layer
    has_arrays = any(isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves(layer))
    return nnx.data(layer) if has_arrays else layer


def _by_name(outputs: Any, values: Mapping) -> Any:
    """Return the outputs in their structure; (key, output) pairs as a dictionary."""
    if isinstance(outputs, Ref):
        return _gather(outputs, values)
    if outputs and all(isinstance(part, tuple) and isinstance(part[0], str) for part in outputs):
        if not any(isinstance(part, Ref) for part in outputs):
            return {key: _by_name(part, values) for key, part in outputs}
    return tuple(_by_name(part, values) for part in outputs)


def _gather(structure: Any, values: Mapping, dtype: str | None = None) -> Any:
    """Return a nested structure with its Refs replaced by arrays, cast to the layer's dtype."""
    if isinstance(structure, Ref):
        value = values[structure.layer, structure.node]
        if isinstance(value, dict):  # Keras numbers them in the order of their sorted keys
            value = [value[key] for key in sorted(value)]
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
