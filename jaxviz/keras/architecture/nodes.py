"""Who calls whom: the connections of a functional model, of any Keras, as one kind of call.

Arguments are nested tuples whose leaves are constants and `Ref`s, so that a call is hashable.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxviz.keras.architecture.fields import is_integer
from jaxviz.keras.errors import KerasFileError


class Ref(NamedTuple):
    """Output number `tensor` of call number `node` of a layer."""

    layer: str
    node: int
    tensor: int


class Call(NamedTuple):
    """One use of a layer; `kwargs` are pairs."""

    layer: str
    node: int
    args: tuple
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Slice:
    """start:stop:step, hashable on every Python."""

    start: int | None
    stop: int | None
    step: int | None


def structure(value: Any) -> Any:
    """Return the inputs or outputs of a model: a Ref, a tuple of them, or (key, Ref) pairs."""
    if _is_ref(value):
        return Ref(*value[:3])
    if isinstance(value, Mapping):
        return tuple((str(key), structure(item)) for key, item in value.items())
    items = tuple(structure(item) for item in value)
    return items[0] if len(items) == 1 and isinstance(items[0], Ref) else items


def _is_ref(value: Any) -> bool:
    """Return whether a value is ["layer", 0, 0], perhaps with Keras 2's keyword arguments."""
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and is_integer(value[1])
        and is_integer(value[2])
        and (len(value) == 3 or isinstance(value[3], Mapping))
    )


def _is_constant(value: Any) -> bool:
    """Return whether a value is ["_CONSTANT_VALUE", -1, 1.0, {...}], the 1 of Keras 2's `1 - x`."""
    return isinstance(value, list) and len(value) > 2 and value[0] == "_CONSTANT_VALUE"


def parse_node(node: Any) -> tuple[tuple, dict[str, Any]]:
    """Return the (args, kwargs) of an entry of `inbound_nodes`, with Refs at the leaves."""
    if isinstance(node, Mapping):
        kwargs = _keywords(node.get("kwargs", {}), old=False)
        return tuple(freeze(arg) for arg in node["args"]), kwargs
    items = [node] if _is_ref(node) or _is_constant(node) else node
    keywords: dict[str, Any] = {}
    values = []
    for item in items:
        if not _is_ref(item) and not _is_constant(item):
            raise KerasFileError(f"A connection of the model is unreadable: {str(item)[:60]}.")
        values.append(freeze(item, old=True))
        if len(item) == 4:
            keywords.update(item[3])
    args = (values[0],) if len(values) == 1 else (tuple(values),)
    return args, _keywords(keywords, old=True)


def _keywords(kwargs: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    """Return a call's keyword arguments without those that say "not in training" or "no mask".

    Keras 3's `predict` overrides `training=True`, Keras 2's did not.
    """
    if old and kwargs.get("training"):
        raise KerasFileError(
            "A layer of the model is always in training mode, which is not inference."
        )
    kept = {}
    for key, value in kwargs.items():
        if key.endswith("mask") and key != "use_causal_mask":
            if not _is_nothing(value):
                raise KerasFileError(
                    f"A layer of the model is given a `{key}`, which is not handled."
                )
        elif key != "training" and value is not None:
            kept[key] = freeze(value, old=old)
    return kept


def _is_nothing(value: Any) -> bool:
    """Return whether a value is null, or a list of nothing but nulls: a mask for no input."""
    return value is None or isinstance(value, list) and all(map(_is_nothing, value))


def freeze(value: Any, *, old: bool = False) -> Any:
    """Return JSON as hashable constants, with a Ref for each tensor; `old`: in Keras 2's lists."""
    if isinstance(value, Mapping):
        return _freeze_object(value)
    if isinstance(value, list):
        if old and _is_constant(value):
            return freeze(value[2], old=True)
        if old and _is_ref(value):
            return Ref(*value[:3])
        return tuple(freeze(item, old=old) for item in value)
    return value


def _freeze_object(value: Mapping[str, Any]) -> Any:
    kind, config = value.get("class_name"), value.get("config", {})
    if kind == "__keras_tensor__":
        name, node, tensor = config["keras_history"]
        if not isinstance(name, str) or not is_integer(node) or not is_integer(tensor):
            raise KerasFileError("A connection of the model is unreadable.")
        return Ref(name, node, tensor)
    if kind == "__ellipsis__":
        return Ellipsis
    if kind == "__slice__":
        value = config
    if set(value) == {"start", "stop", "step"}:
        ends = [value[key] for key in ("start", "stop", "step")]
        if all(end is None or is_integer(end) for end in ends):
            return Slice(*ends)
    raise KerasFileError(f"An argument of a layer is not handled: {str(dict(value))[:80]}.")


def refs(value: Any) -> Iterator[Ref]:
    """Yield every Ref in nested tuples, in order."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from refs(item)


def call_refs(call: Call) -> list[Ref]:
    """Return every output that a call reads, in its arguments' order."""
    return [*refs(call.args), *refs(call.kwargs)]


Nodes = dict[tuple[str, int], Call]


def shift_nested(nodes: Nodes, outputs: Any) -> tuple[Nodes, Any]:
    """Renumber the calls of nested models, which Keras 2 counts from 1: building one is call 0.

    A layer is of that kind when its highest number equals the count of its calls.
    """
    # Called twice, such a model is read as numbers 1 and 2, any other layer as 0 and 1.
    highest: dict[str, int] = {}
    for ref in [*refs(outputs), *(ref for call in nodes.values() for ref in call_refs(call))]:
        highest[ref.layer] = max(ref.node, highest.get(ref.layer, 0))
    counts: dict[str, int] = {}
    for layer, _ in nodes:
        counts[layer] = counts.get(layer, 0) + 1
    shifted = {layer for layer, count in counts.items() if highest.get(layer) == count}
    moved = {
        key: call._replace(args=_shift(call.args, shifted), kwargs=_shift(call.kwargs, shifted))
        for key, call in nodes.items()
    }
    return moved, _shift(outputs, shifted)


def _shift(value: Any, shifted: set[str]) -> Any:
    if isinstance(value, Ref):
        return value._replace(node=value.node - 1) if value.layer in shifted else value
    if isinstance(value, tuple):
        return tuple(_shift(item, shifted) for item in value)
    return value


def in_order(nodes: Nodes, inputs: set[str], outputs: Any) -> list[Call]:
    """Sort calls so that each follows what it reads; a cycle or a loose end is an error.

    The order is otherwise that of the file, which is Keras's.
    """
    reads: dict[Any, set] = {
        key: {(ref.layer, ref.node) for ref in call_refs(call) if ref.layer not in inputs}
        for key, call in nodes.items()
    }
    final = {(ref.layer, ref.node) for ref in refs(outputs) if ref.layer not in inputs}
    readers: dict[Any, list] = {key: [] for key in nodes}
    for key, sources in [*reads.items(), (None, final)]:
        for source in sources:
            if source not in readers:
                raise KerasFileError(f'The model reads from "{source[0]}", which it does not have.')
            readers[source].append(key)
    for (layer, _), users in readers.items():
        if not users:
            raise KerasFileError(f'Layer "{layer}" is not connected to the output of the model.')
    waiting = {key: len(sources) for key, sources in reads.items()}
    keys = list(nodes)
    rank = {key: number for number, key in enumerate(keys)}
    ready = [rank[key] for key, count in waiting.items() if count == 0]  # sorted: a heap
    ordered = []
    while ready:
        key = keys[heapq.heappop(ready)]
        ordered.append(nodes[key])
        for reader in readers[key]:
            if reader is not None:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    heapq.heappush(ready, rank[reader])
    if len(ordered) != len(nodes):
        stuck = next(key for key, count in waiting.items() if count)
        raise KerasFileError(f'The model is cyclic: layer "{stuck[0]}" needs its own output.')
    return ordered
