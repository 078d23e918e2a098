"""Keras weights into a Flax module of the user's own: by name, then by order and shape."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.files.archive import read_archive
from jaxviz.keras.files.weights import named_or_by_class

T = TypeVar("T")

# Keras's names for arrays, as Flax calls them; both orders are those in which they are stored.
_FLAX = {
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
    "running_mean": "mean",
    "running_std": "var",
    "embeddings": "embedding",
    "depthwise_kernel": "kernel",
    "W": "kernel",
    "b": "bias",
}
_ORDER = ("kernel", "embedding", "scale", "bias", "mean", "var")


class Stored(NamedTuple):
    """The arrays of one Keras layer, under Flax names where the file tells any."""

    name: str
    arrays: list[tuple[str, np.ndarray]]


def load_weights(module: T, path: str | os.PathLike[str]) -> T:
    """Put the weights of a Keras file into a Flax module of your own.

    Layers are matched by name (the module's path joined by "/", or its last part), the others by
    order among those of the same shapes; within a layer arrays are matched by name (gamma is
    scale, moving_variance is var), or by order and shape.

    Args:
        module: an `nnx.Module`, or the variables of a Linen module as nested dictionaries.
        path: a `.weights.h5`, `.h5` or `.keras` file of any Keras.

    Returns:
        The same kind of thing with the file's weights; what was given is not changed.

    Raises:
        KerasFileError: the file cannot be read, or does not match; every mismatch is listed.

    Example:
        >>> load_weights({"params": {}}, "missing.h5")
        Traceback (most recent call last):
        jaxviz.keras.errors.KerasFileError: "missing.h5" cannot be read: No such file or directory.
    """
    stored = _read(path)
    if isinstance(module, nnx.Module):
        graph, state = nnx.split(module)
        pure = _placed(nnx.to_pure_dict(state), stored)
        nnx.replace_by_pure_dict(state, pure)
        return nnx.merge(graph, state)
    return _placed(module, stored)  # type: ignore[return-value, arg-type]


def _read(path: str | os.PathLike[str]) -> list[Stored]:
    archive = read_archive(path)
    if archive.weights is None:
        raise KerasFileError("The file holds no weights.")
    layers = []
    for name, arrays in named_or_by_class(archive.weights).items():
        pairs = [(_flax_name(weight, name), array.read()) for weight, array in arrays]
        layers.append(Stored(name, pairs))
    return layers


def _flax_name(weight: str, layer: str) -> str:
    """Return Flax's name for a weight: "conv/conv_W:0" of layer "conv" is "kernel"."""
    last = weight.split("/")[-1].split(":")[0].removeprefix(layer.split("/")[-1] + "_")
    return _FLAX.get(last, last)


Leaf = tuple[tuple[Any, ...], Any]


def _placed(tree: Any, stored: Sequence[Stored]) -> Any:
    """Return the tree with its leaves replaced; its collections ("params") are no layers' names."""
    groups = _groups(tree)
    pairs, problems = _matched(groups, stored)
    values: dict[tuple, Any] = {}
    for layer, name in pairs:
        problems += _fill(name, groups[name], layer, values)
    if problems:
        listed = "; ".join(problems[:40]) + (" ..." if len(problems) > 40 else "")
        raise KerasFileError(f"The file does not match the module: {listed}.")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: values[_keys(path)], tree)


def _keys(path: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(getattr(key, "key", getattr(key, "idx", None)) for key in path)


def _groups(tree: Any) -> dict[str, list[Leaf]]:
    """Return the leaves by the layer that they belong to, in the tree's order."""
    groups: dict[str, list[Leaf]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys = _keys(path)
        layer = keys[1:-1] if keys[0] in ("params", "batch_stats") else keys[:-1]
        groups.setdefault("/".join(map(str, layer)), []).append((keys, leaf))
    return groups


def _matched(
    groups: Mapping[str, list[Leaf]], stored: Sequence[Stored]
) -> tuple[list[tuple[Stored, str]], list[str]]:
    """Pair stored layers with groups, by name, then by sizes; also tell what found no partner."""
    free = list(groups)
    pairs, rest = [], []
    for layer in stored:
        same = [n for n in free if n == layer.name or n.split("/")[-1] == layer.name.split("/")[-1]]
        if len(same) == 1:
            pairs.append((layer, same[0]))
            free.remove(same[0])
        else:
            rest.append(layer)
    problems = []
    for layer in rest:
        sizes = sorted(array.size for _, array in layer.arrays)
        fitting = [n for n in free if sorted(np.size(leaf) for _, leaf in groups[n]) == sizes]
        if fitting:
            pairs.append((layer, fitting[0]))
            free.remove(fitting[0])
        else:
            shapes = ", ".join(str(array.shape) for _, array in layer.arrays)
            problems.append(f'the file\'s layer "{layer.name}" ({shapes}) has no place')
    problems += [f'the module\'s "{name}" has no weights in the file' for name in free]
    return pairs, problems


def _fill(name: str, leaves: list[Leaf], layer: Stored, values: dict) -> list[str]:
    """Put each leaf's array into `values`; return what does not fit, as sentences."""
    known = dict(layer.arrays)
    by_name = set(known) == {keys[-1] for keys, _ in leaves} and len(known) == len(layer.arrays)
    if not by_name and len(layer.arrays) != len(leaves):
        return [f'"{name}" has {len(leaves)} arrays, the file {len(layer.arrays)}']
    ordered = sorted(leaves, key=lambda leaf: _rank(leaf[0][-1]))
    problems = []
    for (keys, leaf), (_, array) in zip(ordered, layer.arrays, strict=True):
        array = known[keys[-1]] if by_name else array
        if array.shape != leaf.shape and _is_depthwise(array.shape, leaf.shape):
            array = array.reshape(leaf.shape)
        if array.shape != leaf.shape:
            problems.append(
                f'"{name}/{keys[-1]}" has shape {tuple(leaf.shape)}, the file {array.shape}'
            )
        values[keys] = jnp.asarray(array).astype(leaf.dtype)
    return problems


def _rank(name: Any) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _is_depthwise(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether Keras's (*window, in, multiplier) is Flax's (*window, 1, in · multiplier)."""
    if len(stored) != len(wanted) or len(stored) < 3:
        return False
    flat = (*stored[:-2], 1, stored[-2] * stored[-1])
    return flat == tuple(wanted)
