"""Which arrays of a file belong to which layer: each is used exactly once, or the file is refused.

Two layouts exist, both with nested models: named (Keras 1 to 3, `layer_names` and `weight_names`
attributes) and by class (Keras 3, `layers/conv2d_1/vars/0`). Arrays come out in Keras's order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxviz.keras.architecture.config import Layer, Model
from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.file import Dataset, Group

_ROTATED = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose")


class Era(NamedTuple):
    """What a file's age means for its arrays: kernels that Theano rotated, layouts of Keras 1."""

    rotate: bool
    keras_1: bool


@dataclass
class Slot:
    """A layer that may have weights: their names (None: whatever the file has) and their arrays."""

    path: tuple[str, ...]
    layer: Layer
    names: Sequence[str] | None
    arrays: list[Any] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How the layer is called in messages."""
        return f'"{"/".join(self.path)}" ({self.layer.class_name})'


_FROZEN = {"moving_mean", "moving_variance", "mean", "variance", "count"}


def is_by_class(group: Group) -> bool:
    """Return whether the file is of Keras 3's layout rather than the named one."""
    return "layer_names" not in group.attributes and "layer_names0" not in group.attributes


def assign(model: Model, slots: Sequence[Slot], group: Group) -> None:
    """Fill every slot with its arrays, or say which are missing or left over."""
    if is_by_class(group):
        _assign_by_class(model, {slot.path: slot for slot in slots}, group)
    else:
        _assign_named(model, slots, group)


def _first_group(root: Group) -> str:
    """Return the group of a by-class file's layers, which some releases call otherwise."""
    other = "_layer_checkpoint_dependencies"
    return other if other in root.links else "layers"


def snake_case(class_name: str) -> str:
    """Return a class name as Keras 3 writes it in paths.

    Example:
        >>> snake_case("SeparableConv2D"), snake_case("PReLU"), snake_case("own>LeakyReLU")
        ('separable_conv2d', 'p_re_lu', 'leaky_re_lu')
    """
    plain = re.sub(r"\W", "", class_name.rpartition(">")[2].removeprefix("ops."))
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", plain)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _assign_by_class(model: Model, slots: Mapping[tuple, Slot], root: Group) -> None:
    used: set[str] = set()
    start = _first_group(root)
    _walk_by_class(model, (), start, slots, root, used)
    for path in [*_datasets(root, start), *_datasets(root, "vars")]:
        if path not in used:
            raise KerasFileError(
                f'The file holds an array "{path}" that no layer of the architecture uses.'
            )


def _walk_by_class(
    model: Model, outer: tuple, base: str, slots: Mapping, root: Group, used: set[str]
) -> None:
    counts: dict[str, int] = {}
    for layer in model.layers:
        stem = snake_case("Functional" if layer.class_name == "Model" else layer.class_name)
        number = counts.get(stem, 0)
        counts[stem] = number + 1
        place = f"{base}/{stem}_{number}" if number else f"{base}/{stem}"
        path = (*outer, layer.name)
        if layer.model is not None:
            _walk_by_class(layer.model, path, place + "/layers", slots, root, used)
        elif path in slots:
            _fill_by_class(slots[path], place, root, used)


def _fill_by_class(slot: Slot, place: str, root: Group, used: set[str]) -> None:
    if slot.names is None:
        places = sorted(_datasets(root, place), key=_natural)
        slot.arrays = [root[where] for where in places]
        used.update(places)
        return
    counts: dict[str, int] = {}
    for name in slot.names:
        part = name.rpartition("/")[0]
        number = counts.get(part, 0)
        counts[part] = number + 1
        node, where = None, ""
        for spelling in (part, "_" + part) if part else ("",):
            where = "/".join(filter(None, (place, spelling, "vars", str(number))))
            node = _lookup(root, where)
            if node is not None:
                break
        if not isinstance(node, Dataset):
            raise KerasFileError(
                f'The file has no array "{where}" for the {name} of layer {slot.label}.'
            )
        used.add(where)
        slot.arrays.append(node)


def _natural(path: str) -> list:
    """Return a sorting key that puts "vars/10" after "vars/9"."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in path.split("/")]


def _lookup(root: Group, path: str) -> Any:
    try:
        return root[path]
    except KeyError:
        return None


def _datasets(root: Group, start: str) -> Iterator[str]:
    """Yield the path of every array under a group, the states of random generators left out."""
    waiting = [start] if _lookup(root, start) is not None else []
    while waiting:
        path = waiting.pop()
        root.file.count()
        if path.count("/") > 200:
            raise KerasFileError("The groups of the HDF5 file are nested in a circle.")
        node = _lookup(root, path)
        if isinstance(node, Dataset):
            if "seed_generator/" not in path:
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
    start = _first_group(group)
    found: dict[str, list[tuple[str, Dataset]]] = {}
    for path in sorted(_datasets(group, start), key=_natural):
        layer, _, number = path.removeprefix(start + "/").rpartition("/vars/")
        array = group[path]
        if isinstance(array, Dataset):
            found.setdefault(layer, []).append((number, array))
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
    return slot.layer.config.get("trainable", True) is not False and name not in _FROZEN


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
