"""Files to models: the public readers."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxviz.keras.archive import Archive, archive_from_config, read_archive
from jaxviz.keras.build import build_model, concrete, find_slots, with_shapes
from jaxviz.keras.config import parse_model
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.legacy import is_older, rotates_kernels
from jaxviz.keras.model import KerasModel
from jaxviz.keras.weights import Era, assign, is_by_class, to_modern

Source = str | os.PathLike[str] | Mapping[str, Any]


def load_keras(
    path: Source | Sequence[Source],
    *,
    input_shape: tuple[int | None, ...] | None = None,
    kernels: str = "auto",
) -> KerasModel:
    """Read a Keras model into a Flax module, without Keras.

    Args:
        path: A `.keras` or HDF5 file with the whole model; or a pair of an architecture (a JSON file, or the
            same as a dictionary) and a file with its weights. The content decides, not the suffix.
        input_shape: Shape of the input without the batch, for a Sequential file that does not say it.
        kernels: "rotated" when the convolution kernels were stored by Theano, which turns them by 180
            degrees, "as stored" when not, "auto" to believe the file.

    Returns:
        The model; `model(images)` equals Keras's `predict`.

    Raises:
        KerasFileError: The file is missing, damaged, or holds a layer that is not known.

    Example:
        >>> model = load_keras({"class_name": "Sequential", "config": [
        ...     {"class_name": "Flatten", "config": {"batch_input_shape": [None, 2, 3], "name": "flat"}}]})
        >>> model(jax.numpy.ones((5, 2, 3))).shape
        (5, 6)
    """
    architecture, weights = _sources(path)
    model = parse_model(architecture.config or {}, input_shape)
    slots = find_slots(model)
    era = _era(architecture, weights, kernels)
    if weights.weights is not None:
        assign(model, slots, weights.weights)
    elif any(slot.names for slot in slots):
        raise KerasFileError(
            "There is an architecture but no weights: give both, `load_keras((architecture, weights))`."
        )
    arrays = {slot.path: to_modern(slot, era) for slot in slots}
    return concrete(with_shapes(build_model(model, arrays)))


def _sources(path: Source | Sequence[Source]) -> tuple[Archive, Archive]:
    """The archives that hold the architecture and the weights; often the same one."""
    single = isinstance(path, str | os.PathLike | Mapping)
    paths = [path] if single else list(path)
    if len(paths) not in (1, 2):
        raise ValueError(f"`path` must be one file or a pair of them, got {len(paths)}.")
    archives = [
        archive_from_config(dict(p)) if isinstance(p, Mapping) else read_archive(p)  # type: ignore[arg-type]
        for p in paths
    ]
    if archives[0].config is None:
        raise KerasFileError(
            "The file holds weights but no architecture: give both, `load_keras((architecture, weights))`."
        )
    if len(archives) == 2 and archives[1].weights is None:
        raise KerasFileError("The second file of the pair must hold weights, and holds none.")
    return archives[0], archives[-1]


def _era(architecture: Archive, weights: Archive, kernels: str) -> Era:
    if kernels not in ("auto", "rotated", "as stored"):
        raise ValueError(f'`kernels` must be "auto", "rotated" or "as stored", got {kernels!r}.')
    group = weights.weights
    named = group is not None and not is_by_class(group)
    rotate = kernels == "rotated" or (
        kernels == "auto"
        and named
        and rotates_kernels(weights.keras_version, weights.backend, architecture.config)
    )
    return Era(rotate, named and is_older(weights.keras_version, (2, 0)))
