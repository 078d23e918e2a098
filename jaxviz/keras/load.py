"""Files to models: the public readers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import jax
import numpy as np

from jaxviz.keras.architecture.config import Model, connect, read_layers
from jaxviz.keras.architecture.legacy import (
    adapt_to_era,
    flatten_as_stored,
    is_older,
    rotates_kernels,
)
from jaxviz.keras.architecture.refuse import refuse_foreign_objects
from jaxviz.keras.build import (
    Custom,
    Overrides,
    build_model,
    concrete,
    find_slots,
    refusal,
    with_shapes,
)
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.files.archive import Archive, archive_from_config, parse_json, read_archive
from jaxviz.keras.files.weights import Era, Slot, assign, is_by_class, to_modern
from jaxviz.keras.model import KerasModel

Kernels = Literal["auto", "rotated", "as stored"]
Source = str | os.PathLike[str] | Mapping[str, Any]
_DTYPES = (None, "float32", "bfloat16", "float16")


def load_keras(
    path: Source | Sequence[Source],
    *,
    input_shape: tuple[int | None, ...] | None = None,
    kernels: Kernels = "auto",
    dtype: str | None = None,
    custom_layers: Mapping[str, Callable[..., Any]] | None = None,
    class_names: Sequence[str] | None = None,
) -> KerasModel:
    """Read a Keras model into a Flax module, without Keras.

    Args:
        path: a `.keras` or HDF5 file with the whole model; or a pair of an architecture (a JSON
            file or a dictionary) and a file with its weights, or the `.weights.json` of their
            shards. Content decides, not the suffix.
        input_shape: shape of the input without the batch, for a Sequential file that lacks it.
        kernels: "rotated" when the convolution kernels were stored by Theano, which turns them by
            180 degrees, "as stored" when not, "auto" to believe the file.
        dtype: what every layer computes in, "float32", "bfloat16" or "float16"; None for what the
            file says.
        custom_layers: class or layer name to `converter(config, weights) -> callable`, for layers
            that are not known; for a Lambda the function itself.
        class_names: names of the classes, for `model.class_names`; None for those in the file, if
            any.

    Returns:
        The model; `model(images)` equals Keras's `predict`.

    Raises:
        KerasFileError: the file is missing or damaged, or holds a layer that is not known.
        ValueError: an argument is out of range.
        TypeError: `path` is no path.

    Example:
        >>> import jax.numpy as jnp
        >>> flat = {"class_name": "Flatten", "config": {"name": "flat"}}
        >>> flat["config"]["batch_input_shape"] = [None, 2, 3]
        >>> model = load_keras({"class_name": "Sequential", "config": [flat]})
        >>> model(jnp.ones((5, 2, 3))).shape
        (5, 6)
    """
    if dtype not in _DTYPES:
        raise ValueError(f"`dtype` must be one of {_DTYPES}: got {dtype!r}.")
    overrides = Overrides(custom_layers or {}, dtype)
    architecture, weights = read_sources(path)
    model = read_architecture(architecture, weights)
    connect_known(model, overrides.custom, input_shape)
    slots = find_slots(model, overrides.custom)
    era = find_era(architecture, weights, kernels)
    if weights.weights is not None:
        assign(model, slots, weights.weights)
    elif any(slot.names for slot in slots):
        raise KerasFileError(
            "There is an architecture but no weights: "
            "give both, `load_keras((architecture, weights))`."
        )
    built = _finished(model, slots, era, overrides)
    own = weights.class_names or architecture.class_names
    named = tuple(class_names) if class_names is not None else own
    return built if named is None else _named(built, named, given=class_names is not None)


def _named(model: KerasModel, names: tuple[str, ...], *, given: bool) -> KerasModel:
    """Return the model with names for its classes; a file's names that do not fit are left out."""
    shape = model.output_shape
    count = shape[-1] if shape and isinstance(shape[-1], int) else None
    if count != len(names):
        if given:
            raise ValueError(f"`class_names` must name {count} classes: got {len(names)} names.")
        return model
    return model.with_graph(replace(model._graph, class_names=names))


def _finished(model: Model, slots: Sequence[Slot], era: Era, overrides: Overrides) -> KerasModel:
    arrays = {slot.path: to_modern(slot, era) for slot in slots}
    return concrete(with_shapes(build_model(model, arrays, overrides)))


def from_keras(
    model: Any,
    *,
    dtype: str | None = None,
    custom_layers: Mapping[str, Callable[..., Any]] | None = None,
) -> KerasModel:
    """Turn a Keras model in memory, of Keras 2 or 3 and on any backend, into a Flax module.

    Args:
        model: a `keras.Model` or `tf_keras.Model`, Sequential or Functional, built.
        dtype: as for `load_keras`.
        custom_layers: as for `load_keras`.

    Returns:
        The model, with copies of the arrays.

    Raises:
        KerasFileError: the model holds a layer that is not known.

    Example:
        >>> class Model:  # stands for a keras.Model
        ...     def to_json(self):
        ...         return ('{"class_name": "Sequential", "config": [{"class_name": "ReLU", '
        ...                 '"config": {"name": "relu", "batch_input_shape": [null, 2]}}]}')
        >>> from_keras(Model()).layer_names
        ['relu']
    """
    architecture = archive_from_config(parse_json(model.to_json().encode()))

    def arrays(path: tuple[str, ...]) -> Sequence[Any]:
        layer = model
        for name in path:
            layer = _inner_layer(layer, name)
        return _weights(layer)

    overrides = Overrides(custom_layers or {}, dtype)
    return from_arrays(architecture, arrays, overrides)


def _weights(layer: Any) -> Sequence[Any]:
    """Return a layer's arrays; those of JAX directly, as Keras's way of copying them warns."""
    values = [getattr(weight, "value", None) for weight in getattr(layer, "weights", ())]
    if values and all(isinstance(value, jax.Array) for value in values):
        return [np.asarray(value) for value in values]
    return layer.get_weights()


def _inner_layer(layer: Any, name: str) -> Any:
    """Return a layer of a model of Keras's; a wrapper has one, or all those of the model in it."""
    if not hasattr(layer, "get_layer"):
        layer = layer.layer
        if not hasattr(layer, "get_layer"):
            return layer
    return layer.get_layer(name)


def from_arrays(
    architecture: Archive, arrays: Callable[[tuple[str, ...]], Sequence[Any]], overrides: Overrides
) -> KerasModel:
    """Build a model from an architecture and a function from a layer's path to its arrays."""
    model = read_architecture(architecture, architecture)
    connect_known(model, overrides.custom)
    slots = find_slots(model, overrides.custom)
    for slot in slots:
        if slot.layer.wraps:
            slot.names = ()  # its own arrays serve training only
        if slot.names is None or slot.names:
            slot.arrays = list(arrays(slot.path))
        if slot.names is not None and len(slot.arrays) != len(slot.names):
            raise KerasFileError(
                f"Layer {slot.label} needs {len(slot.names)} arrays: got {len(slot.arrays)}."
            )
    return _finished(model, slots, Era(False, False), overrides)


def read_sources(
    path: Source | Sequence[Source], *, needs_architecture: bool = True
) -> tuple[Archive, Archive]:
    """Read the archives of the architecture and of the weights, which often are the same one."""
    several = isinstance(path, Sequence) and not isinstance(path, str | bytes)
    paths: list[Any] = list(cast(Sequence, path)) if several else [path]
    if not all(isinstance(p, str | os.PathLike | Mapping) for p in paths):
        raise TypeError(f"`path` must be a file or a pair of them: got {path!r}.")
    if len(paths) not in (1, 2):
        raise ValueError(f"`path` must be one file or a pair of them: got {len(paths)}.")
    archives = [
        archive_from_config(dict(p)) if isinstance(p, Mapping) else read_archive(p) for p in paths
    ]
    if archives[0].config is None and needs_architecture:
        raise KerasFileError(
            "The file holds weights but no architecture: "
            "give both, `load_keras((architecture, weights))`."
        )
    if len(archives) == 2 and archives[1].weights is None:
        raise KerasFileError("The second file of the pair must hold weights, and holds none.")
    return archives[0], archives[-1]


def read_architecture(architecture: Archive, weights: Archive) -> Model:
    """Return the layers, adapted to the Keras that wrote the weights, not connected yet."""
    refuse_foreign_objects(architecture.config)
    model = read_layers(architecture.config or {})
    named = weights.weights is not None and not is_by_class(weights.weights)
    version = weights.keras_version if named else architecture.keras_version or "3"
    adapt_to_era(model, version, weights.backend or architecture.backend, architecture.config)
    pair = architecture is not weights and architecture.keras_version != weights.keras_version
    if named and pair and is_older(weights.keras_version, (2, 1, 6)):
        flatten_as_stored(model)
    return model


def connect_known(model: Model, custom: Custom, input_shape: tuple | None = None) -> None:
    """Connect the layers of an architecture, if all of them are known."""
    problem = refusal(model, custom)
    if problem is not None:
        raise KerasFileError(problem)
    connect(model, input_shape)


def find_era(architecture: Archive, weights: Archive, kernels: Kernels) -> Era:
    """Return how the kernels of the file are stored."""
    if kernels not in get_args(Kernels):
        raise ValueError(f'`kernels` must be "auto", "rotated" or "as stored": got {kernels!r}.')
    group = weights.weights
    named = group is not None and not is_by_class(group)
    believed = named and rotates_kernels(
        weights.keras_version, weights.backend, architecture.config
    )
    rotate = kernels == "rotated" or (kernels == "auto" and believed)
    return Era(rotate, named and is_older(weights.keras_version, (2, 0)))
