"""`Graph`: a model's calls of its layers, in order, hashable and compared by value."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxviz._names import numbered
from jaxviz.keras.architecture.config import Input
from jaxviz.keras.architecture.nodes import Call, call_refs

Key = tuple[str, int]  # a layer, and which call of it


@dataclass(frozen=True, eq=False)
class Graph:
    """The constants of a `KerasModel`: who calls whom, in order.

    `layers` holds (Keras name, attribute, class, compute dtype or None) for each layer. With
    `channels_last`, images and outputs with sites have their channels behind, whereas the layers
    have them in front. `white` is what white is to the model, where its layers do not tell.
    """

    name: str
    inputs: tuple[Input, ...]
    input_structure: Any
    layers: tuple[tuple[str, str, str, str | None], ...]
    calls: tuple[Call, ...]
    outputs: Any
    output_shape: Any = None
    class_names: tuple[str, ...] | None = None
    white: float | None = None
    channels_last: bool = False

    def _key(self) -> tuple:
        shapes = (
            self.inputs,
            self.input_structure,
            str(self.output_shape),  # which may be a dictionary
            self.class_names,
            self.white,
        )
        return (self.name, self.layers, self.calls, self.outputs, *shapes, self.channels_last)

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
    def called(self) -> dict[str, Key]:
        """The names of all calls, in order, with their (layer, node): "r", then "r#2"."""
        keys = [(call.layer, call.node) for call in self.calls]
        return dict(zip(numbered(layer for layer, _ in keys), keys, strict=True))

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
