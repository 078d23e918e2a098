"""What a file holds, told without reading its weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxviz.keras.architecture.config import connect
from jaxviz.keras.build import Overrides, build_model, find_slots, refusal, walk, with_shapes
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.files.archive import Archive
from jaxviz.keras.files.weights import Era, assign, is_by_class, named_or_by_class, without_content
from jaxviz.keras.load import Source, find_era, read_architecture, read_sources


@dataclass(frozen=True)
class Inspection:
    """What `inspect_keras` found; what the file does not tell is None.

    `format` is "keras", "hdf5 model", "hdf5 weights", "sharded weights" or "json"; `layers` are
    (name, class) pairs, nested ones as "model/layer"; `problem` says why the file cannot be loaded,
    None if it can.
    """

    format: str
    keras_version: str | None
    backend: str | None
    layers: tuple[tuple[str, str], ...]
    parameters: int | None
    input_shape: Any
    output_shape: Any
    kernels: str
    problem: str | None

    @property
    def loadable(self) -> bool:
        """Whether `load_keras` will read the file."""
        return self.problem is None

    def __str__(self) -> str:
        """Return the findings as a table of a line each."""
        kinds: dict[str, int] = {}
        for _, kind in self.layers:
            kinds[kind] = kinds.get(kind, 0) + 1
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        parameters = "unknown" if self.parameters is None else f"{self.parameters:,}"
        rows = {
            "format": self.format,
            "Keras": self.keras_version or "not stated",
            "backend": self.backend or "not stated",
            "kernels": self.kernels,
            "layers": f"{len(self.layers)} ({counted})" if self.layers else "unknown",
            "parameters": parameters,
            "input": self.input_shape or "unknown",
            "output": self.output_shape or "unknown",
            "loadable": "yes" if self.loadable else f"no: {self.problem}",
        }
        return "\n".join(f"{name:<11} {value}" for name, value in rows.items())


def inspect_keras(
    path: Source | Sequence[Source], *, custom_layers: Mapping[str, Any] | None = None
) -> Inspection:
    """Tell what a Keras file holds and whether it can be loaded, without reading its weights.

    Args:
        path: as for `load_keras`; a file of weights alone may be given too.
        custom_layers: as for `load_keras`.

    Returns:
        The findings; printed, they are a short table.

    Raises:
        KerasFileError: the file is missing, or so damaged that nothing can be told.

    Example:
        >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
        >>> found = inspect_keras({"class_name": "Sequential", "config": [relu]})
        >>> found.layers, found.parameters, found.input_shape, found.loadable
        ((('r', 'ReLU'),), 0, (2,), True)
    """
    architecture, weights = read_sources(path, needs_architecture=False)
    stored = named_or_by_class(weights.weights) if weights.weights is not None else {}
    era = find_era(architecture, weights, "auto")
    facts: dict[str, Any] = {
        "format": architecture.format,
        "keras_version": architecture.keras_version or weights.keras_version,
        "backend": weights.backend or architecture.backend,
        "layers": tuple((name, "unknown") for name in stored),
        "parameters": sum(math.prod(a.shape) for arrays in stored.values() for _, a in arrays),
        "input_shape": None,
        "output_shape": None,
        "kernels": _kernels(architecture, weights, era),
        "problem": "It holds weights but no architecture: give both as a pair.",
    }
    if architecture.config is not None:
        try:
            _fill(facts, architecture, weights, era, Overrides(custom_layers or {}))
            facts["problem"] = None
        except KerasFileError as error:
            facts["problem"] = str(error)
    if weights.weights is None:
        facts["parameters"] = 0 if facts["problem"] is None else None
    return Inspection(**facts)


def _kernels(architecture: Archive, weights: Archive, era: Era) -> str:
    """Return how kernels are stored, where the file tells; Keras 1 says it in the architecture."""
    unstated = weights.keras_version is None and weights.backend is None
    if weights.weights is None or (
        architecture.config is None and unstated and not is_by_class(weights.weights)
    ):
        return "unknown"
    return "rotated by 180 degrees (Theano)" if era.rotate else "as stored"


def _fill(
    facts: dict[str, Any], architecture: Archive, weights: Archive, era: Era, overrides: Overrides
) -> None:
    """Put into `facts` what the file tells, as far as the first error."""
    model = read_architecture(architecture, weights)
    facts["layers"] = tuple(("/".join(path), layer.class_name) for path, layer in walk(model))
    problem = refusal(model, overrides.custom)
    try:
        connect(model)
    except KerasFileError:
        if problem is None:
            raise
    inputs = tuple(entry.shape for entry in model.inputs)
    if inputs:
        facts["input_shape"] = inputs[0] if len(inputs) == 1 else inputs
    if problem is not None:
        raise KerasFileError(problem)
    slots = find_slots(model, overrides.custom)
    if weights.weights is not None:
        assign(model, slots, weights.weights)
    elif any(slot.names for slot in slots):
        raise KerasFileError("It holds an architecture but no weights: give both as a pair.")
    if not overrides.custom:
        arrays = {slot.path: without_content(slot, era) for slot in slots}
        facts["output_shape"] = with_shapes(build_model(model, arrays, overrides)).output_shape
