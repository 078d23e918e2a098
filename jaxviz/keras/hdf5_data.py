"""The bytes of HDF5 arrays and attributes: contiguous, compact and chunked storage, heaps of text."""

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5_types import Datatype

if TYPE_CHECKING:
    from jaxviz.keras.hdf5 import Dataset, Hdf5File

# Trained weights hardly compress; more than this is a bomb, not a model.
MAX_INFLATION, FREE_BYTES = 20, 64 << 20

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3


def read_layout(dataset: "Dataset", size: int) -> Any:
    """The `size` bytes of one array, as a buffer."""
    from jaxviz.keras.hdf5 import UNDEFINED, _Body

    cursor = _Body(dataset.file, dataset.layout)
    version, kind = cursor.integer(1), cursor.integer(1)
    if version not in (3, 4):
        raise KerasFileError(f"The HDF5 file stores an array in an unknown layout ({version}).")
    if kind == 0:
        body = cursor.take(cursor.integer(2))
        return _exactly(body, size)
    if kind == 1:
        address, stored = cursor.integer(8), cursor.integer(8)
        if not size:
            return b""
        if address == UNDEFINED or stored != size:
            raise KerasFileError("An array of the HDF5 file was declared but never written.")
        return _span(dataset.file, address, size)
    if kind == 2 and version == 3:
        rank, tree = cursor.integer(1), cursor.integer(8)
        chunk = tuple(cursor.integer(4) for _ in range(rank))
        return _read_chunks(dataset, tree, chunk, size)
    raise KerasFileError(
        "The HDF5 file builds an array from other files, or stores it in a layout that Keras does "
        "not write; save it again from Keras."
    )


def _span(file: "Hdf5File", address: int, size: int) -> memoryview:
    """A view of the file; all views together may not exceed it, so no byte serves two weights."""
    file.read_bytes += size
    if address + size > len(file.data) or file.read_bytes > len(file.data):
        raise KerasFileError("The HDF5 file is truncated or damaged: an array lies outside it.")
    return memoryview(file.data)[address : address + size]


def _exactly(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise KerasFileError(f"An array of the HDF5 file has {len(body)} bytes instead of {size}.")
    return body


def _read_chunks(dataset: "Dataset", tree: int, chunk: tuple[int, ...], size: int) -> Any:
    file, shape, itemsize = dataset.file, dataset.shape, dataset.dtype.itemsize
    if len(chunk) != len(shape) + 1 or not all(chunk) or chunk[-1] != itemsize:
        raise KerasFileError("The HDF5 file is damaged: an array is cut into impossible chunks.")
    chunk_bytes = math.prod(chunk)
    file.inflated_bytes += size + chunk_bytes
    if file.inflated_bytes > FREE_BYTES + MAX_INFLATION * len(file.data):
        raise KerasFileError("The HDF5 file declares far more data than it holds.")
    out = np.empty(shape, dataset.dtype)
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk[:-1], strict=True))
    filled = set()
    for offset, raw, mask in _chunks(file, tree, len(shape)):
        block = np.frombuffer(_unfilter(dataset, raw, mask, chunk_bytes), dataset.dtype)
        block = block.reshape(chunk[:-1])
        inside = all(o % c == 0 and o < n for o, c, n in zip(offset, chunk, shape, strict=False))
        if not inside or offset in filled:
            raise KerasFileError("The HDF5 file is damaged: a chunk has no place in its array.")
        filled.add(offset)
        place = tuple(slice(o, o + c) for o, c in zip(offset, chunk[:-1], strict=True))
        out[place] = block[tuple(slice(0, n - o) for o, n in zip(offset, shape, strict=True))]
    if len(filled) != expected:
        raise KerasFileError(f"An array of the HDF5 file has {len(filled)} of {expected} chunks.")
    return out.reshape(-1).view(np.uint8)


def _chunks(file: "Hdf5File", tree: int, rank: int):
    from jaxviz.keras.hdf5 import Cursor

    waiting, seen = [tree], set()
    while waiting:
        at = waiting.pop(0)
        if at in seen:
            raise KerasFileError("The HDF5 file is damaged: an index contains itself.")
        seen.add(at)
        cursor = Cursor(file, at)
        cursor.expect(b"TREE")
        cursor.take(1)
        level, used = cursor.integer(1), cursor.integer(2)
        cursor.take(16)
        for _ in range(used):
            stored, mask = cursor.integer(4), cursor.integer(4)
            offset = tuple(cursor.integer(8) for _ in range(rank + 1))[:-1]
            child = cursor.integer(8)
            if level:
                waiting.append(child)
            else:
                yield offset, _span(file, child, stored), mask


def _filter_ids(file: "Hdf5File", body: bytes) -> list[int]:
    from jaxviz.keras.hdf5 import _Body

    cursor = _Body(file, body)
    version, count = cursor.integer(1), cursor.integer(1)
    cursor.take(6 if version == 1 else 0)
    ids = []
    for _ in range(count):
        ids.append(cursor.integer(2))
        named = version == 1 or ids[-1] >= 256
        length = cursor.integer(2) if named else 0
        cursor.take(2)
        values = cursor.integer(2)
        padded = -(-length // 8) * 8 if version == 1 else length
        cursor.take(padded + 4 * values + (4 if version == 1 and values % 2 else 0))
    return ids


def _unfilter(dataset: "Dataset", raw: Any, mask: int, size: int) -> bytes:
    ids = _filter_ids(dataset.file, dataset.filters) if dataset.filters else []
    data = bytes(raw)
    for position, code in reversed(list(enumerate(ids))):
        if mask >> position & 1:
            continue
        if code == _DEFLATE:
            data = _inflate(data, size + 4)
        elif code == _SHUFFLE:
            width = dataset.dtype.itemsize
            data = _exactly(data, size)
            data = np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
        elif code == _FLETCHER:
            data = data[:-4]
        else:
            raise KerasFileError(
                f"The HDF5 file is compressed by filter {code}, which is not read; save it again with "
                "gzip or without compression."
            )
    return _exactly(data, size)


def _inflate(data: bytes, limit: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(data, limit)
    except zlib.error as error:
        raise KerasFileError(f"The HDF5 file is damaged: {error}.") from error
    return out


def decode_attribute(file: "Hdf5File", kind: Datatype, shape: tuple[int, ...], raw: bytes) -> Any:
    """An attribute's value: a number or text for a scalar, else a list of text or an array."""
    count = math.prod(shape)
    if count * kind.size > len(raw):
        raise KerasFileError("The HDF5 file is damaged: an attribute is cut short.")
    raw = raw[: count * kind.size]
    if kind.kind == "number":
        assert kind.numpy is not None
        array = np.frombuffer(raw, kind.numpy).reshape(shape)
        return array.item() if not shape else array
    pieces = [raw[i * kind.size : (i + 1) * kind.size] for i in range(count)]
    if kind.kind == "variable text":
        pieces = [_heap_object(file, piece) for piece in pieces]
    texts = [piece.rstrip(b"\0").decode("utf-8", "replace") for piece in pieces]
    return texts[0] if not shape else texts


def _heap_object(file: "Hdf5File", reference: bytes) -> bytes:
    """Text in a global heap: (length, address of the collection, index)."""
    from jaxviz.keras.hdf5 import Cursor

    length = int.from_bytes(reference[:4], "little")
    address = int.from_bytes(reference[4:12], "little")
    wanted = int.from_bytes(reference[12:16], "little")
    if not length:
        return b""
    cursor = Cursor(file, address)
    cursor.expect(b"GCOL")
    cursor.take(4)
    cursor = Cursor(file, cursor.at + 8, address + max(cursor.integer(8), 16))
    while cursor.end - cursor.at >= 16:
        index = cursor.integer(2)
        cursor.take(6)
        size = cursor.integer(8)
        if index == wanted and index:
            return cursor.take(size)[:length]
        if not index:
            break
        cursor.take(-(-size // 8) * 8)
    raise KerasFileError("The HDF5 file is damaged: a text is missing.")
