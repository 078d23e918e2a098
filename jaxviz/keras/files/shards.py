"""Weights that Keras 3 spread over several HDF5 files, seen as one.

The index is JSON, `NAME.weights.json`; it may list nothing but `NAME_00000.weights.h5` and so on,
which lie beside it. A path that it names is compared with those, never followed.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.file import Dataset, Group, Hdf5File

MAX_SHARDS = 1000


class MergedGroup(Group):
    """The union of groups of several files; an array lies in exactly one of them."""

    def __init__(self, parts: Sequence[Group]):
        self.file, self.parts = parts[0].file, parts
        self.links = {name: 0 for part in parts for name in part.links}
        self.attributes = {}

    def __getitem__(self, path: str) -> Group | Dataset:
        first, _, rest = path.partition("/")
        found = [part[first] for part in self.parts if first in part.links]
        if not found:
            raise KeyError(path)
        groups = [node for node in found if isinstance(node, Group)]
        if len(groups) < len(found) and len(found) > 1:
            raise KerasFileError(f'Two shards of the weights hold an array "{first}".')
        node = MergedGroup(groups) if groups else found[0]
        if not rest:
            return node
        if not isinstance(node, Group):
            raise KeyError(path)
        return node[rest]

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)


def is_index(config: Mapping[str, Any]) -> bool:
    """Return whether JSON is the index of sharded weights rather than an architecture."""
    return "weight_map" in config and "class_name" not in config


def read_shards(path: Path, index: Mapping[str, Any]) -> Group:
    """Read the weights that the index at `path` spreads over its shards."""
    stem = path.name.removesuffix(".json").removesuffix(".weights")
    names = _listed(index["weight_map"])
    expected = [f"{stem}_{number:05}.weights.h5" for number in range(len(names))]
    if not names or names != set(expected):
        other = sorted(names - set(expected))[:1]
        raise KerasFileError(
            f"An index of weights may list {expected[0] if expected else 'shards'} and so on, of "
            f"its own name: got {other[0][:60] if other else 'none'!r}; rename them alike."
        )
    return MergedGroup([_read(path.with_name(name)) for name in expected])


def _listed(weight_map: Any) -> set[str]:
    values = list(weight_map.values()) if isinstance(weight_map, Mapping) else [None]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    texts = {name for name in names if isinstance(name, str)}
    if not all(isinstance(name, str) for name in names):
        raise KerasFileError("`weight_map` of an index of weights must hold names of files.")
    if len(texts) > MAX_SHARDS:
        raise KerasFileError(f"An index of weights may list up to {MAX_SHARDS} shards.")
    return texts


def _read(path: Path) -> Group:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise KerasFileError(f'The shard "{path.name}" must be a regular file, no link.')
        return Hdf5File(path.read_bytes()).root
    except OSError as error:
        raise KerasFileError(
            f'The shard "{path.name}" cannot be read: {error.strerror}.'
        ) from error
