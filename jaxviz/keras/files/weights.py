"""Which arrays of a file belong to which layer: each is used exactly once, or the file is refused.

Two layouts exist, both with nested models: named (Keras 1 to 3, `layer_names` and `weight_names`
attributes) and by class (Keras 3, `layers/conv2d_1/vars/0`). Arrays come out in Keras's order.
"""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxviz.keras.architecture.config import Layer, Model
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.file import Dataset, Group

Path = tuple[str, ...]

_ROTATED = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose")


class Era(NamedTuple):
    """What a file's age means for its arrays: kernels that Theano rotated, layouts of Keras 1."""

    rotate: bool
    keras_1: bool


@dataclass
class Slot:
    """A layer that may have weights: their names (None: whatever the file has) and their arrays."""

    path: Path
    layer: Layer
    names: Sequence[str] | None
    arrays: list[Any] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How the layer is called in messages."""
        return f'"{"/".join(self.path)}" ({self.layer.class_name})'


_FROZEN = {"moving_mean", "moving_variance", "mean", "variance", "count", "vector_u"}


def is_by_class(group: Group) -> bool:
    """Return whether the file is of Keras 3's layout rather than the named one."""
    return "layer_names" not in group.attributes and "layer_names0" not in group.attributes


def assign(model: Model, slots: Sequence[Slot], group: Group) -> None:
    """Fill every slot with its arrays, or say which are missing or left over."""
    if is_by_class(group):
        _assign_by_class(model, slots, group)
    else:
        _assign_named(model, slots, group)


def snake_case(class_name: str) -> str:
    """Return a class name as Keras 3 writes it in paths.

    Example:
        >>> snake_case("SeparableConv2D"), snake_case("PReLU"), snake_case("own>LeakyReLU")
        ('separable_conv2d', 'p_re_lu', 'leaky_re_lu')
    """
    plain = re.sub(r"\W", "", class_name.rpartition(">")[2].removeprefix("ops."))
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", plain)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# Where Keras 2.12 and 2.13 keep the layers of a model. There a layer with weights counts twice in
# the numbers of its class: conv2d, conv2d_2, conv2d_4.
_DEPENDENCIES = "_layer_checkpoint_dependencies"


class _ByClass:
    """The arrays of a file of Keras 3's layout by their paths, and which of them were used.

    Keras on Windows wrote "layers\\dense" as the name of one group: here it is "layers/dense".
    """

    def __init__(self, root: Group):
        self.arrays: dict[str, Dataset] = {}
        self.used: set[str] = set()
        for path in _datasets(root):
            plain = path.replace("\\", "/")
            if plain in self.arrays:
                raise KerasFileError(f'The file holds two arrays of the name "{plain}".')
            node = root[path]
            if isinstance(node, Dataset):
                self.arrays[plain] = node
        parts = {path.partition("/")[0] for path in self.arrays}
        self.layers = _DEPENDENCIES if _DEPENDENCIES in parts else "layers"

    def take(self, path: str) -> Dataset | None:
        """Return an array, which is then used, None if there is none."""
        self.used.add(path)
        return self.arrays.get(path)

    def take_all(self, group: str) -> list[Dataset]:
        """Return all arrays of a group, which are then used."""
        paths = self.below(group)
        self.used.update(paths)
        return [self.arrays[path] for path in paths]

    def below(self, group: str) -> list[str]:
        """Return the paths of all arrays in a group, in order."""
        return sorted((p for p in self.arrays if p.startswith(group + "/")), key=_natural)

    @cached_property
    def numbered(self) -> dict[tuple[str, str], list[str]]:
        """(group, class in snake case) to the layers of that class in it, in numeric order."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for path in sorted(self.arrays, key=_natural):
            parts = path.split("/")
            for depth in range(1, len(parts)):
                stem = re.sub(r"_\d+$", "", parts[depth])
                place = "/".join(parts[: depth + 1])
                found.setdefault(("/".join(parts[:depth]), stem), {})[place] = None
        return {key: list(places) for key, places in found.items()}


def _assign_by_class(model: Model, slots: Sequence[Slot], root: Group) -> None:
    stored, by_path = _ByClass(root), {slot.path: slot for slot in slots}
    having = [slot.path for slot in slots if slot.names is None or slot.names]
    weighted = {path[:n] for path in having for n in range(1, len(path) + 1)}
    for path, place in _places(model, (), stored.layers, stored, weighted):
        if path in by_path:
            _fill_by_class(by_path[path], place, stored)
    for path in stored.arrays:
        if path not in stored.used and path.partition("/")[0] in (stored.layers, "vars"):
            raise KerasFileError(
                f'The file holds an array "{path}" that no layer of the architecture uses.'
            )


def _places(
    model: Model, outer: Path, base: str, stored: _ByClass, weighted: Set[Path]
) -> Iterator[tuple[Path, str]]:
    """Yield each layer's path with the group of its arrays; `weighted` paths have some."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        path = (*outer, layer.name)
        if stored.layers == _DEPENDENCIES and path not in weighted:
            continue
        stem = snake_case("Functional" if layer.class_name == "Model" else layer.class_name)
        number = counts.get(stem, 0)
        counts[stem] = number + 1
        place = f"{base}/{stem}_{number}" if number else f"{base}/{stem}"
        if stored.layers == _DEPENDENCIES:
            places = stored.numbered.get((base, stem), [])
            place = places[number] if number < len(places) else place
        yield path, place
        if layer.model is not None:
            inner = f"{place}/layer" if layer.wraps else place
            if layer.model.lone:
                yield (*path, layer.model.layers[0].name), inner
            else:
                below = f"{inner}/{stored.layers}"
                yield from _places(layer.model, path, below, stored, weighted)


def _fill_by_class(slot: Slot, place: str, stored: _ByClass) -> None:
    if slot.names is None:
        slot.arrays = stored.take_all(place)
        return
    if slot.layer.wraps:  # it also stores the kernel of what it wraps, before its own
        slot.arrays = stored.take_all(place + "/vars")[-len(slot.names) :]
        return
    counts: dict[str, int] = {}
    for name in slot.names:
        part = name.rpartition("/")[0]
        number = counts.get(part, 0)
        counts[part] = number + 1
        array, where = None, ""
        for spelling in (part, "_" + part) if part else ("",):
            where = "/".join(filter(None, (place, spelling, "vars", str(number))))
            array = stored.take(where)
            if array is not None:
                break
        if array is None:
            raise KerasFileError(
                f'The file has no array "{where}" for the {name} of layer {slot.label}.'
            )
        slot.arrays.append(array)


def _natural(path: str) -> list[tuple[int, str]]:
    """Return a sorting key that puts "vars/10" after "vars/9", "dense_10" after "dense_9"."""
    return [(len(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", path)]


def _lookup(root: Group, path: str) -> Any:
    try:
        return root[path]
    except KeyError:
        return None


def _datasets(root: Group) -> Iterator[str]:
    """Yield the path of every array of layers, the states of random generators left out."""
    starts = ("layers", _DEPENDENCIES, "vars")
    waiting = [name for name in root.links if re.split(r"[/\\]", name)[0] in starts]
    while waiting:
        path = waiting.pop()
        root.file.count()
        if path.count("/") > 200:
            raise KerasFileError("The groups of the HDF5 file are nested in a circle.")
        node = _lookup(root, path)
        if isinstance(node, Dataset):
            if not re.search(r"seed_generator[/\\]", path):
                yield path
        elif isinstance(node, Group):
            waiting.extend(f"{path}/{name}" for name in node.links)


def _attribute_list(group: Group, name: str) -> list[str]:
    """Return a list of names, which Keras splits over `name`0, `name`1, … when it is long."""
    parts = [group.attributes[name]] if name in group.attributes else []
    while f"{name}{len(parts)}" in group.attributes:
        parts.append(group.attributes[f"{name}{len(parts)}"])
    names: list[str] = []
    for part in parts:
        if isinstance(part, np.ndarray) and part.size == 0:
            continue
        if not isinstance(part, list) or not all(_is_name(item) for item in part):
            raise KerasFileError(f"`{name}` of the HDF5 file must be a list of names.")
        names.extend(part)
    return names


def _is_name(item: Any) -> bool:
    return isinstance(item, str) and item.isprintable()


def named_arrays(group: Group) -> dict[str, list[tuple[str, Dataset]]]:
    """Return each layer's (weight name, array) pairs, of a file with `layer_names`."""
    found: dict[str, list[tuple[str, Dataset]]] = {}
    seen: set[str] = set()
    top = _lookup(group, "top_level_model_weights")
    if isinstance(top, Group) and _attribute_list(top, "weight_names"):
        raise KerasFileError("The model has weights of its own, outside its layers: not handled.")
    for name in _attribute_list(group, "layer_names"):
        node = _lookup(group, name)
        if not isinstance(node, Group) or name in seen:
            raise KerasFileError(f'The file lists a layer "{name}" that it lacks or lists twice.')
        seen.add(name)
        arrays = []
        for weight in _attribute_list(node, "weight_names"):
            array = _lookup(node, weight)
            if not isinstance(array, Dataset):
                raise KerasFileError(f'The file lists an array "{weight}" that it does not hold.')
            if not weight.endswith("seed_generator_state"):
                arrays.append((weight, array))
        if arrays:
            found[name] = arrays
    return found


def named_or_by_class(group: Group) -> dict[str, list[tuple[str, Dataset]]]:
    """Return each layer's (weight, array) pairs, of either layout; by-class layers are paths."""
    if not is_by_class(group):
        return named_arrays(group)
    stored = _ByClass(group)
    found: dict[str, list[tuple[str, Dataset]]] = {}
    for path in stored.below(stored.layers):
        layer, _, number = path.removeprefix(stored.layers + "/").rpartition("/vars/")
        found.setdefault(layer, []).append((number, stored.arrays[path]))
    return found


def _assign_named(model: Model, slots: Sequence[Slot], group: Group) -> None:
    stored = named_arrays(group)
    owners: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.names is None and slot.path[0] in stored or slot.names:
            owners.setdefault(slot.path[0], []).append(slot)
    # A model built again has other numbers in its layers' names; order then decides, as in Keras.
    if set(stored) != set(owners) and len(stored) == len(owners):
        order = [layer.name for layer in model.layers if layer.name in owners]
        stored = dict(zip(order, stored.values(), strict=True))
    missing, extra = sorted(set(owners) - set(stored)), sorted(set(stored) - set(owners))
    if missing or extra:
        raise KerasFileError(
            "The arrays of the file do not belong to this architecture: it lacks "
            f"{_listed(missing)}, and holds {_listed(extra)} besides."
        )
    for name, arrays in stored.items():
        _deal(owners[name], arrays)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:5])
    return shown + (" ..." if len(names) > 5 else "") if names else "nothing"


def _deal(slots: Sequence[Slot], arrays: Sequence[tuple[str, Dataset]]) -> None:
    """Share out a layer's arrays; a nested model stores all trainable ones first, then the rest."""
    if len(slots) == 1 and slots[0].names is None:
        slots[0].arrays = [array for _, array in arrays]
        return
    order = [(slot, name) for slot in slots for name in slot.names or ()]
    if len(slots) > 1:
        order.sort(key=lambda item: not _is_trainable(*item))
    if len(order) != len(arrays):
        raise KerasFileError(
            f"Layer {slots[0].label} needs {len(order)} arrays, and the file holds "
            f"{len(arrays)} for it."
        )
    pairs = zip(order, arrays, strict=True)
    found = {(slot.path, name): array for (slot, name), (_, array) in pairs}
    for slot in slots:
        slot.arrays = [found[slot.path, name] for name in slot.names or ()]


def _is_trainable(slot: Slot, name: str) -> bool:
    frozen = slot.layer.config.get("trainable") in (False, 0)
    return not frozen and name not in _FROZEN


def to_modern(slot: Slot, era: Era) -> dict[str, np.ndarray]:
    """Return a slot's arrays by name, in today's layout, checked to be finite numbers."""
    return in_layout(slot, era, [_numbers(slot, array) for array in slot.arrays])


def without_content(slot: Slot, era: Era) -> dict[str, np.ndarray]:
    """Return arrays of the right shapes and dtypes that take no memory: nothing is read."""
    zeros = [np.broadcast_to(np.zeros((), np.float32), array.shape) for array in slot.arrays]
    return in_layout(slot, era, zeros)


def in_layout(slot: Slot, era: Era, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays by name, kernels of older files turned into today's layout."""
    names = slot.names if slot.names is not None else [str(i) for i in range(len(values))]
    arrays = dict(zip(names, values, strict=True))
    kernel = arrays.get("kernel")
    if kernel is not None and slot.layer.class_name in _ROTATED:
        if era.keras_1:
            kernel = _keras_1_kernel(slot.layer, kernel)
        # Theano convolves, Σ x[i − a]·k[a]; TensorFlow and XLA correlate, Σ x[i + a]·k[a]. The same
        # numbers need the window turned by 180 degrees: k[a, b] becomes k[h − 1 − a, w − 1 − b].
        if era.rotate and kernel.ndim > 2:
            kernel = kernel[(slice(None, None, -1),) * (kernel.ndim - 2)]
        arrays["kernel"] = kernel
    return arrays


def _numbers(slot: Slot, array: Any) -> np.ndarray:
    values = array.read() if isinstance(array, Dataset) else np.asarray(array)
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise KerasFileError(f"Layer {slot.label} has an array of {values.dtype}, not of numbers.")
    if values.dtype != np.float32:
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise KerasFileError(f"Layer {slot.label} holds weights that are not finite numbers.")
    return values


def _keras_1_kernel(layer: Layer, kernel: np.ndarray) -> np.ndarray:
    """Return a kernel of Keras 1 as (*window, in, out); transposed ones as (*window, out, in)."""
    # Keras 1's "th" kernels are (out, in, *window), its "tf" ones (*window, in, out). Conv1D was a
    # Conv2D with a window of (length, 1): (out, in, length, 1), or (length, 1, in, out).
    first = layer.config.get("data_format") == "channels_first"
    kind = layer.class_name
    if kind == "Conv1D" and kernel.ndim == 4:
        if kernel.shape[1] != 1:
            kernel = kernel.transpose(2, 3, 1, 0)
        return kernel[:, 0]
    if kind == "Conv2D" and first and kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if kind == "Conv3D" and first and kernel.ndim == 5:
        return kernel.transpose(2, 3, 4, 1, 0)
    if kind == "Conv2DTranspose" and kernel.ndim == 4:
        return kernel.transpose((2, 3, 0, 1) if first else (0, 1, 3, 2))
    return kernel
