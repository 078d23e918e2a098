"""The bytes of HDF5 arrays and attributes: contiguous, compact and chunked storage, text heaps."""

import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.bytes import UNDEFINED, Bytes
from jaxviz.keras.hdf5.tree import walk_tree
from jaxviz.keras.hdf5.types import Datatype

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3


class Storage(NamedTuple):
    """How an array is stored: "here", "contiguous" or "chunked"."""

    kind: str
    address: int = 0
    body: bytes = b""
    chunk: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()


def parse_storage(
    source: Bytes, layout: bytes, filters: bytes | None, shape: tuple[int, ...], itemsize: int
) -> Storage:
    """Parse a data layout message and check it against the array's size; no array data are read."""
    # IV.A.2.i, version 3: | version 1 | class 1 |, then by class
    # 0, compact:    | size 2 | data |
    # 1, contiguous: | address 8 | size 8 |
    # 2, chunked:    | rank + 1: 1 | address of its tree 8 | chunk's sizes 4 each | element's 4 |
    cursor = source.within(layout)
    version, kind = cursor.integer(1), cursor.integer(1)
    size = math.prod(shape) * itemsize
    if version not in (3, 4):
        raise KerasFileError(f"The HDF5 file stores an array in an unknown layout ({version}).")
    if kind == 0:
        return Storage("here", body=_exactly(cursor.take(cursor.integer(2)), size))
    if kind == 1:
        address, stored = cursor.integer(8), cursor.integer(8)
        if size and (address == UNDEFINED or stored != size):
            raise KerasFileError("An array of the HDF5 file was declared but never written.")
        if size and address + size > len(source.data):
            raise KerasFileError("The HDF5 file is truncated or damaged: an array lies outside it.")
        return Storage("contiguous", address)
    if kind == 2 and version == 3:
        rank, address = cursor.integer(1), cursor.integer(8)
        chunk = tuple(cursor.integer(4) for _ in range(rank))
        if len(chunk) != len(shape) + 1 or not all(chunk) or chunk[-1] != itemsize:
            raise KerasFileError("The HDF5 file is damaged: an array is cut into odd chunks.")
        source.inflate(size)
        return Storage("chunked", address, b"", chunk[:-1], _filter_ids(source, filters))
    raise KerasFileError(
        "The HDF5 file builds an array from other files, or stores it in a layout that Keras does "
        "not write: save it again from Keras."
    )


def read_storage(
    source: Bytes, storage: Storage, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """Read an array from where its layout says that it lies."""
    if storage.kind == "chunked":
        return _read_chunks(source, storage, shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    buffer = storage.body
    if storage.kind == "contiguous" and size:
        buffer = source.span(storage.address, size)
    return np.frombuffer(buffer, dtype).reshape(shape)


def _exactly(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise KerasFileError(f"An array of the HDF5 file has {len(body)} bytes instead of {size}.")
    return body


def _read_chunks(
    source: Bytes, storage: Storage, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    chunk, rank = storage.chunk, len(shape)
    size = math.prod(chunk) * dtype.itemsize
    source.inflate(size)
    out = np.empty(shape, dtype)
    filled: set[tuple[int, ...]] = set()
    # A key of the tree (III.A.1): | bytes stored 4 | filters skipped 4 | offset 8 an axis | 0: 8 |.
    # Chunks at the far edges are stored whole; what sticks out is cut off:
    #     axis of 10, chunks of 4:  | 0 1 2 3 | 4 5 6 7 | 8 9 . . |
    for key, address in walk_tree(source, storage.address, 1, 8 * (rank + 2)):
        stored, mask, *offset = struct.unpack(f"<II{rank + 1}Q", key)
        offset = tuple(offset[:rank])
        inside = all(o % c == 0 and o < n for o, c, n in zip(offset, chunk, shape, strict=True))
        if not inside or offset in filled:
            raise KerasFileError("The HDF5 file is damaged: a chunk has no place in its array.")
        filled.add(offset)
        source.inflate(size)
        raw = _unfilter(source.span(address, stored), storage.filters, mask, size, dtype.itemsize)
        block = np.frombuffer(raw, dtype).reshape(chunk)
        place = tuple(slice(o, o + c) for o, c in zip(offset, chunk, strict=True))
        out[place] = block[tuple(slice(0, n - o) for o, n in zip(offset, shape, strict=True))]
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if len(filled) != expected:
        raise KerasFileError(f"An array of the HDF5 file has {len(filled)} of {expected} chunks.")
    return out


def _filter_ids(source: Bytes, body: bytes | None) -> tuple[int, ...]:
    if body is None:
        return ()
    # IV.A.2.l: | version 1 | count 1 | reserved 6, in version 1 |, then of each filter
    # | id 2 | length of name 2 | flags 2 | count 2 | name | values 4 each |; version 2 leaves the
    # length out for ids below 256, version 1 pads the name and the values to 8 bytes.
    cursor = source.within(body)
    version, count = cursor.integer(1), cursor.integer(1)
    cursor.take(6 if version == 1 else 0)
    ids = []
    for _ in range(count):
        ids.append(cursor.integer(2))
        length = cursor.integer(2) if version == 1 or ids[-1] >= 256 else 0
        cursor.take(2)
        values = cursor.integer(2)
        padded = -(-length // 8) * 8 if version == 1 else length
        cursor.take(padded + 4 * values + (4 if version == 1 and values % 2 else 0))
    for code in ids:
        if code not in (_DEFLATE, _SHUFFLE, _FLETCHER):
            raise KerasFileError(
                f"The HDF5 file is compressed by filter {code}, which is not read: save it again "
                "with gzip, or without compression."
            )
    return tuple(ids)


def _unfilter(raw: memoryview, ids: tuple[int, ...], mask: int, size: int, width: int) -> bytes:
    data = bytes(raw)
    # Filters were applied first to last when writing; bit i of the mask says that i was skipped.
    for position, code in reversed(list(enumerate(ids))):
        if mask >> position & 1:
            continue
        if code == _DEFLATE:
            data = _inflate(data, size + 4)  # a checksum may have been added before
        elif code == _SHUFFLE:
            # Stored: byte 0 of every element, then byte 1 of every element, ...
            data = np.frombuffer(_exactly(data, size), np.uint8).reshape(width, -1).T.tobytes()
        else:
            data = data[:-4]  # a Fletcher-32 checksum
    return _exactly(data, size)


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error as error:
        raise KerasFileError(f"The HDF5 file is damaged: {error}.") from error


def decode_attribute(source: Bytes, kind: Datatype, shape: tuple[int, ...], raw: bytes) -> Any:
    """Return an attribute's value: a number or a text, or an array or a list of texts."""
    count = math.prod(shape)
    if count * kind.size > len(raw):
        raise KerasFileError("The HDF5 file is damaged: an attribute is cut short.")
    raw = raw[: count * kind.size]
    if kind.numpy is not None:
        array = np.frombuffer(raw, kind.numpy).reshape(shape)
        return array if shape else array.item()
    pieces = [raw[i * kind.size : (i + 1) * kind.size] for i in range(count)]
    if kind.kind == "variable text":
        pieces = [_heap_object(source, piece) for piece in pieces]
    texts = [piece.rstrip(b"\0").decode("utf-8", "replace") for piece in pieces]
    return texts if shape else texts[0]


def _heap_object(source: Bytes, reference: bytes) -> bytes:
    """Read a text of variable length, which lies in a global heap."""
    # III.E: a reference is | length 4 | address of the collection 8 | index 4 |; a collection
    # | GCOL | version 4 | size 8 |, then objects | index 2 | references 2 | - 4 | size 8 | data |,
    # each padded to 8 bytes; index 0 is the free space at the end.
    length, address, wanted = struct.unpack("<IQI", reference)
    if not length:
        return b""
    source.claim("texts", length)
    cursor = source.at(address)
    cursor.expect(b"GCOL")
    cursor.take(4)
    total = cursor.integer(8)
    cursor = source.at(cursor.position, address + max(total, 16))
    while cursor.left >= 16:
        index = cursor.integer(2)
        cursor.take(6)
        size = cursor.integer(8)
        if index == wanted and index:
            return cursor.take(size)[:length]
        if not index:
            break
        padded = -(-size // 8) * 8
        cursor = source.at(cursor.position + padded, cursor.end)
    raise KerasFileError("The HDF5 file is damaged: a text is missing.")
