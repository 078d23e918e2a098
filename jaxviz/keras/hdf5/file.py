"""Read-only HDF5 in plain Python, for the part of the format that Keras files use.

The C library trusts what it reads: a few flipped bytes make it crash or loop. Here nothing is
trusted, and what could reach outside the file (external links and storage, virtual datasets, filter
plug-ins) is refused because no code to follow it exists.

Source: HDF5 File Format Specification, version 3.0 (The HDF Group).
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.bytes import SIGNATURE, Bytes, text
from jaxviz.keras.hdf5.data import decode_attribute, parse_storage, read_storage
from jaxviz.keras.hdf5.tree import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    DATASPACE,
    DATATYPE,
    ELSEWHERE,
    FILTERS,
    LAYOUT,
    Message,
    read_links,
    read_messages,
    refuse_dense,
    root_address,
)
from jaxviz.keras.hdf5.types import parse_datatype

_MAX_RANK, _MAX_EXTENT = 16, 1 << 40


class Dataset:
    """An array in the file: its shape and dtype are known, its content is read on demand."""

    def __init__(self, file: "Hdf5File", messages: list[Message]):
        bodies = dict(reversed(messages))
        if not {DATASPACE, DATATYPE} <= set(bodies):
            raise KerasFileError("The HDF5 file is damaged: an array has no shape or type.")
        kind = parse_datatype(bodies[DATATYPE])
        if kind.kind == "opaque" and _attributes(file, messages).get("dtype") == "bfloat16":
            kind = kind._replace(numpy=np.dtype(ml_dtypes.bfloat16))
        if kind.numpy is None or kind.numpy.itemsize != kind.size:
            raise KerasFileError(f"An array of the HDF5 file holds {kind.kind}, not numbers.")
        self.file, self.dtype = file, kind.numpy
        self.shape = _parse_shape(file, bodies[DATASPACE])
        self.storage = parse_storage(
            file, bodies[LAYOUT], bodies.get(FILTERS), self.shape, kind.size
        )

    def read(self) -> np.ndarray:
        """Read the array."""
        return read_storage(self.file, self.storage, self.shape, self.dtype)


class Group(Mapping):
    """A group of the file: names to groups and datasets; the path "a/b" descends."""

    def __init__(self, file: "Hdf5File", messages: list[Message]):
        self.file = file
        self.messages = messages

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes: numbers, text, lists of text or arrays."""
        return _attributes(self.file, self.messages)

    @cached_property
    def links(self) -> dict[str, int]:
        """The names of the group's objects, with the addresses of their headers."""
        return read_links(self.file, self.messages)

    def __getitem__(self, path: str) -> "Group | Dataset":
        node: Group | Dataset = self
        for name in path.split("/"):
            if not isinstance(node, Group) or name not in node.links:
                raise KeyError(path)
            address = node.links[name]
            if address == ELSEWHERE:
                raise KerasFileError(
                    f'"{name}" in the HDF5 file is a link to another place or file: only data that '
                    "lies in the file itself is read."
                )
            node = self.file.open(address)
        return node

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)


class Hdf5File(Bytes):
    """An HDF5 file in memory.

    Example:
        >>> Hdf5File(b"not HDF5")
        Traceback (most recent call last):
        jaxviz.keras.errors.KerasFileError: This is not an HDF5 file.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.opened: dict[int, Group | Dataset] = {}
        if data[:8] != SIGNATURE:
            raise KerasFileError("This is not an HDF5 file.")
        root = self.open(root_address(self))
        if not isinstance(root, Group):
            raise KerasFileError("The HDF5 file is damaged: its root is not a group.")
        self.root = root

    def open(self, address: int) -> Group | Dataset:
        """Return the group or dataset whose header lies at `address`; each is parsed once."""
        if address not in self.opened:
            messages = list(read_messages(self, address))
            is_array = any(kind == LAYOUT for kind, _ in messages)
            self.opened[address] = (Dataset if is_array else Group)(self, messages)
        return self.opened[address]


def _parse_shape(source: Bytes, body: bytes) -> tuple[int, ...]:
    """Return the shape that a dataspace message describes."""
    # IV.A.2.b: | version 1 | rank 1 | flags 1 | version 1: reserved 5; 2: type 1 | sizes 8 each |
    cursor = source.within(body)
    version, rank, _ = cursor.integer(1), cursor.integer(1), cursor.integer(1)
    if version == 1:
        cursor.take(5)
    elif version != 2 or cursor.integer(1) == 2:
        raise KerasFileError("The HDF5 file is damaged: an array has no shape.")
    shape = tuple(cursor.integer(8) for _ in range(rank))
    if rank > _MAX_RANK or any(size > _MAX_EXTENT for size in shape):
        raise KerasFileError("The HDF5 file is damaged: an array has an impossible shape.")
    return shape


def _attributes(source: Bytes, messages: list[Message]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, body in messages:
        if kind == ATTRIBUTE_INFO:
            refuse_dense(body, 2, "more attributes than fit a header")
        if kind != ATTRIBUTE:
            continue
        # IV.A.2.m: | version 1 | flags 1 | sizes of name, type and shape 2 each | charset 1, in
        # version 3 | name | type | shape | value |; in version 1 the parts are padded to 8 bytes.
        cursor = source.within(body)
        version, flags = cursor.integer(1), cursor.integer(1)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise KerasFileError("The HDF5 file is damaged: an attribute is unreadable.")
        sizes = [cursor.integer(2) for _ in range(3)]
        cursor.take(1 if version == 3 else 0)
        padded = [-(-size // 8) * 8 if version == 1 else size for size in sizes]
        name, datatype, space = (cursor.take(n)[:m] for n, m in zip(padded, sizes, strict=True))
        key = text(name.split(b"\0")[0])
        if key in found:
            raise KerasFileError(f'The HDF5 file is damaged: attribute "{key}" is given twice.')
        shape = _parse_shape(source, space)
        value = cursor.take(cursor.left)
        found[key] = decode_attribute(source, parse_datatype(datatype), shape, value)
    return found
