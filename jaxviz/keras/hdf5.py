"""Read-only HDF5 in plain Python, for the part of the format that Keras files use.

The C library trusts what it reads: a few flipped bytes make it crash or loop. Here every address is checked
against the length of the file, every walk is counted, and what could reach outside the file (external links
and storage, virtual datasets, filter plug-ins) is refused because no code to follow it exists. Nothing is
allocated that is larger than the file, except inflated chunks, whose total is bounded.

Source: HDF5 File Format Specification, version 3.0 (The HDF Group).
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5_types import Datatype, parse_datatype

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 0xFFFFFFFFFFFFFFFF
MAX_STEPS = 2_000_000
MAX_RANK = 32

_DATASPACE, _LINK_INFO, _DATATYPE, _EXTERNAL = 0x01, 0x02, 0x03, 0x07
_LINK, _LAYOUT, _FILTERS, _ATTRIBUTE = 0x06, 0x08, 0x0B, 0x0C
_CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x10, 0x11, 0x15


class Cursor:
    """A position in the file; every read is checked and counted."""

    def __init__(self, file: "Hdf5File", address: int, end: int | None = None):
        self.file = file
        self.at = address
        self.end = len(file.data) if end is None else end
        if not 0 <= address <= self.end <= len(file.data):
            raise KerasFileError(
                "The HDF5 file is truncated or damaged: an address lies outside it."
            )

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.file.count()
        if size < 0 or self.at + size > self.end:
            raise KerasFileError("The HDF5 file is truncated or damaged: a record ends too early.")
        self.at += size
        return self.file.data[self.at - size : self.at]

    def integer(self, size: int) -> int:
        """The next `size` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(size), "little")

    def expect(self, magic: bytes) -> None:
        """Check a record's signature."""
        if self.take(len(magic)) != magic:
            raise KerasFileError(
                f"The HDF5 file is damaged: no {magic.decode()} where one belongs."
            )


@dataclass(frozen=True)
class Dataset:
    """An array in the file: its shape and type are known, its bytes are read on demand."""

    file: "Hdf5File"
    shape: tuple[int, ...]
    datatype: Datatype
    layout: bytes
    filters: bytes | None
    attributes: Mapping[str, Any]

    @property
    def dtype(self) -> np.dtype:
        """The element type, bfloat16 included."""
        if self.datatype.kind == "opaque" and self.attributes.get("dtype") == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        if self.datatype.numpy is None:
            raise KerasFileError(
                f"An array of the HDF5 file holds {self.datatype.kind}, not numbers."
            )
        return self.datatype.numpy

    def read(self) -> np.ndarray:
        """The array itself."""
        from jaxviz.keras.hdf5_data import read_layout

        size = math.prod(self.shape) * self.dtype.itemsize
        buffer = read_layout(self, size)
        return np.frombuffer(buffer, self.dtype).reshape(self.shape)


class Group(Mapping):
    """A folder of the file: names to groups and datasets; "a/b" descends."""

    def __init__(self, file: "Hdf5File", address: int):
        self.file = file
        self.messages = list(_messages(file, address))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes as numbers, text, lists of text or arrays."""
        return _attributes(self.file, self.messages)

    @cached_property
    def links(self) -> dict[str, int]:
        """Names to addresses."""
        links: dict[str, int] = {}
        for kind, body in self.messages:
            if kind == _SYMBOL_TABLE:
                links.update(_symbol_table(self.file, body))
            elif kind == _LINK:
                name, address = _link(self.file, body)
                links[name] = address
            elif kind == _LINK_INFO:
                _refuse_dense(body, 8, "a group with more links than fit its header")
        return links

    def __getitem__(self, path: str) -> "Group | Dataset":
        node: Group | Dataset = self
        for name in path.split("/"):
            if not isinstance(node, Group) or name not in node.links:
                raise KeyError(path)
            address = node.links[name]
            if address < 0:
                raise KerasFileError(
                    f'"{name}" in the HDF5 file is a link to another place or file; only data that '
                    "lies in the file itself is read."
                )
            node = self.file.open(address)
        return node

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)


class Hdf5File:
    """An HDF5 file in memory.

    Example:
        >>> Hdf5File(b"not HDF5")
        Traceback (most recent call last):
        jaxviz.keras.errors.KerasFileError: This is not an HDF5 file.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.steps = 0
        self.read_bytes = 0
        self.inflated_bytes = 0
        self.opened: dict[int, Group | Dataset] = {}
        if data[:8] != SIGNATURE:
            raise KerasFileError("This is not an HDF5 file.")
        root = self.open(_root_address(self))
        if not isinstance(root, Group):
            raise KerasFileError("The HDF5 file is damaged: its root is not a group.")
        self.root = root

    def count(self) -> None:
        """Bound the work that one file can ask for."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise KerasFileError(
                "The HDF5 file is damaged or far too large: reading it does not end."
            )

    def open(self, address: int) -> Group | Dataset:
        """The group or dataset whose header lies at `address`."""
        if address not in self.opened:
            group = Group(self, address)
            kinds = {kind for kind, _ in group.messages}
            self.opened[address] = _dataset(self, group) if _LAYOUT in kinds else group
        return self.opened[address]


def _root_address(file: Hdf5File) -> int:
    cursor = Cursor(file, 8)
    version = cursor.integer(1)
    if version in (0, 1):
        cursor.take(4)
        sizes = cursor.take(2)
        cursor.take(9 if version == 0 else 13)
        base, _, end, _ = (cursor.integer(8) for _ in range(4))
        cursor.integer(8)
    elif version in (2, 3):
        sizes = cursor.take(2)
        cursor.take(1)
        base, _, end = (cursor.integer(8) for _ in range(3))
    else:
        raise KerasFileError(
            f"The HDF5 file has a superblock of version {version}, which is unknown."
        )
    if sizes != b"\x08\x08" or base != 0:
        raise KerasFileError("The HDF5 file is damaged, or made with unusual address sizes.")
    if end > len(file.data):
        raise KerasFileError(
            f"The HDF5 file is truncated: {len(file.data)} bytes of {end} are there."
        )
    return cursor.integer(8)


def _messages(file: Hdf5File, address: int) -> Iterator[tuple[int, bytes]]:
    """The header messages of one object: (type, body)."""
    cursor = Cursor(file, address)
    if file.data[address : address + 4] == b"OHDR":
        yield from _messages_v2(file, cursor)
        return
    if cursor.integer(1) != 1:
        raise KerasFileError("The HDF5 file is damaged: an object header is unreadable.")
    cursor.take(1)
    total = cursor.integer(2)
    cursor.take(4)
    size = cursor.integer(4)
    blocks, seen = [(cursor.at + 4, size)], 0
    while blocks and seen < total:
        start, length = blocks.pop(0)
        cursor = Cursor(file, start, start + length)
        while seen < total and cursor.end - cursor.at >= 8:
            kind, length, flags = cursor.integer(2), cursor.integer(2), cursor.integer(4) & 0xFF
            body = cursor.take(length)
            seen += 1
            yield from _message(kind, flags, body, blocks)


def _messages_v2(file: Hdf5File, cursor: Cursor) -> Iterator[tuple[int, bytes]]:
    cursor.expect(b"OHDR")
    cursor.take(1)
    flags = cursor.integer(1)
    cursor.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    size = cursor.integer(1 << (flags & 3))
    blocks, header = [(cursor.at, size)], 6 if flags & 4 else 4
    first = True
    while blocks:
        start, length = blocks.pop(0)
        cursor = Cursor(file, start, start + length)
        if not first:
            cursor.expect(b"OCHK")
            cursor.end -= 4
        first = False
        while cursor.end - cursor.at >= header:
            kind, length, mark = cursor.integer(1), cursor.integer(2), cursor.integer(1)
            cursor.take(header - 4)
            yield from _message(kind, mark, cursor.take(length), blocks)


def _message(kind: int, flags: int, body: bytes, blocks: list) -> Iterator[tuple[int, bytes]]:
    if flags & 2 and kind in (_DATASPACE, _DATATYPE, _FILTERS, _ATTRIBUTE):
        raise KerasFileError(
            "The HDF5 file shares types between objects, which Keras files do not."
        )
    if kind == _CONTINUATION:
        if len(body) < 16:
            raise KerasFileError("The HDF5 file is damaged: a header continues nowhere.")
        blocks.append(struct.unpack("<QQ", body[:16]))
    elif kind == _EXTERNAL:
        raise KerasFileError("The HDF5 file keeps its data in other files, which are not opened.")
    else:
        yield kind, body


def _refuse_dense(body: bytes, index_size: int, what: str) -> None:
    """Link and attribute info: a defined heap address means the dense form."""
    start = 2 + (index_size if len(body) > 1 and body[1] & 1 else 0)
    heap = int.from_bytes(body[start : start + 8], "little")
    if len(body) < start + 8 or heap != UNDEFINED:
        raise KerasFileError(
            f"The HDF5 file has {what}, a layout that Keras does not write: save it again from Keras."
        )


def _symbol_table(file: Hdf5File, body: bytes) -> dict[str, int]:
    if len(body) < 16:
        raise KerasFileError("The HDF5 file is damaged: a group has no table of names.")
    tree, heap = struct.unpack("<QQ", body[:16])
    cursor = Cursor(file, heap)
    cursor.expect(b"HEAP")
    cursor.take(4)
    size, _, start = (cursor.integer(8) for _ in range(3))
    names = Cursor(file, start, start + size).take(size)
    links: dict[str, int] = {}
    for node in tree_leaves(file, tree):
        cursor = Cursor(file, node)
        cursor.expect(b"SNOD")
        cursor.take(2)
        for _ in range(cursor.integer(2)):
            offset, address, kind = cursor.integer(8), cursor.integer(8), cursor.integer(4)
            cursor.take(20)
            name = _text(names[offset : names.find(b"\0", offset)] if offset < size else b"")
            if not name or name in links:
                raise KerasFileError("The HDF5 file is damaged: a name is missing or given twice.")
            links[name] = -1 if kind == 2 else address
    return links


def tree_leaves(file: Hdf5File, address: int) -> Iterator[int]:
    """The leaf addresses of a group's B-tree."""
    waiting, seen = [address], set()
    while waiting:
        at = waiting.pop(0)
        if at in seen:
            raise KerasFileError("The HDF5 file is damaged: an index contains itself.")
        seen.add(at)
        cursor = Cursor(file, at)
        cursor.expect(b"TREE")
        kind, level, used = cursor.integer(1), cursor.integer(1), cursor.integer(2)
        if kind != 0:
            raise KerasFileError("The HDF5 file is damaged: an index is of the wrong kind.")
        cursor.take(16)
        for _ in range(used):
            cursor.take(8)
            child = cursor.integer(8)
            if level:
                waiting.append(child)
            else:
                yield child


def _link(file: Hdf5File, body: bytes) -> tuple[str, int]:
    cursor = _Body(file, body)
    cursor.take(1)
    flags = cursor.integer(1)
    kind = cursor.integer(1) if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = _text(cursor.take(cursor.integer(1 << (flags & 3))))
    return name, (cursor.integer(8) if kind == 0 else -1)


class _Body(Cursor):
    """A cursor over the bytes of one message."""

    def __init__(self, file: Hdf5File, body: bytes):
        self.file, self.body, self.at, self.end = file, body, 0, len(body)

    def take(self, size: int) -> bytes:
        self.file.count()
        if size < 0 or self.at + size > self.end:
            raise KerasFileError("The HDF5 file is truncated or damaged: a record ends too early.")
        self.at += size
        return self.body[self.at - size : self.at]


def parse_shape(file: Hdf5File, body: bytes) -> tuple[int, ...]:
    """The shape in a dataspace message."""
    cursor = _Body(file, body)
    version, rank, _ = cursor.integer(1), cursor.integer(1), cursor.integer(1)
    if version == 1:
        cursor.take(5)
    elif version != 2 or cursor.integer(1) == 2:
        raise KerasFileError("The HDF5 file is damaged: an array has no shape.")
    if rank > MAX_RANK:
        raise KerasFileError(f"The HDF5 file is damaged: an array has {rank} axes.")
    return tuple(cursor.integer(8) for _ in range(rank))


def _attributes(file: Hdf5File, messages: list[tuple[int, bytes]]) -> dict[str, Any]:
    from jaxviz.keras.hdf5_data import decode_attribute

    found: dict[str, Any] = {}
    for kind, body in messages:
        if kind == _ATTRIBUTE_INFO:
            _refuse_dense(body, 2, "more attributes than fit a header")
        if kind != _ATTRIBUTE:
            continue
        cursor = _Body(file, body)
        version, flags = cursor.integer(1), cursor.integer(1)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise KerasFileError("The HDF5 file is damaged: an attribute is unreadable.")
        sizes = [cursor.integer(2) for _ in range(3)]
        cursor.take(1 if version == 3 else 0)
        padded = [-(-size // 8) * 8 if version == 1 else size for size in sizes]
        name, datatype, space = (cursor.take(n)[:m] for n, m in zip(padded, sizes, strict=True))
        key = _text(name.split(b"\0")[0])
        if key in found:
            raise KerasFileError(f'The HDF5 file is damaged: attribute "{key}" is given twice.')
        shape = parse_shape(file, space)
        found[key] = decode_attribute(file, parse_datatype(datatype), shape, body[cursor.at :])
    return found


def _dataset(file: Hdf5File, node: Group) -> Dataset:
    bodies = dict(reversed(node.messages))
    if not {_DATASPACE, _DATATYPE} <= set(bodies):
        raise KerasFileError("The HDF5 file is damaged: an array has no shape or type.")
    return Dataset(
        file,
        parse_shape(file, bodies[_DATASPACE]),
        parse_datatype(bodies[_DATATYPE]),
        bodies[_LAYOUT],
        bodies.get(_FILTERS),
        node.attributes,
    )


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KerasFileError("The HDF5 file is damaged: a name is not text.") from error
