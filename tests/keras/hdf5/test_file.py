"""Our HDF5 reader against h5py, which is the oracle here, and against bytes that are wrong."""

import io
import struct

import h5py
import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.keras.errors import KerasFileError
from jaxviz.keras.hdf5.bytes import Bytes
from jaxviz.keras.hdf5.data import decode_attribute, parse_storage
from jaxviz.keras.hdf5.file import Dataset, Group, Hdf5File
from jaxviz.keras.hdf5.tree import read_links, read_messages
from jaxviz.keras.hdf5.types import Datatype, parse_datatype

DTYPES = ["<f4", ">f4", "<f8", "<f2", "<i4", ">i2", "<u1", "<i8", "bool"]


def written(fill, **options) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_arrays_are_those_that_h5py_wrote(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    array = data.draw(
        hnp.arrays(dtype, shape, elements={"allow_nan": False} if dtype.kind == "f" else {})
    )
    kind = data.draw(st.sampled_from(["plain", "chunked", "gzip", "everything"]))
    storage = {}
    if kind != "plain" and array.ndim and array.size:
        storage["chunks"] = tuple(data.draw(st.integers(1, n)) for n in array.shape)
        storage["compression"] = None if kind == "chunked" else "gzip"
        storage["shuffle"] = storage["fletcher32"] = kind == "everything"
    track = data.draw(st.booleans())
    content = written(lambda f: f.create_dataset("a/b", data=array, **storage), track_order=track)
    found = Hdf5File(content).root["a/b"]
    assert found.shape == array.shape and found.dtype == dtype
    np.testing.assert_array_equal(found.read(), array)


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
def test_groups_and_attributes_are_those_that_h5py_wrote(libver):
    def fill(file):
        for i in range(60 if libver == "earliest" else 7):
            file.create_group(f"group_{i}").attrs["number"] = i
        file.attrs["names"] = np.array([b"one", b"three"])
        file.attrs["texts"] = ["eins", "drei"]
        file.attrs["long"] = "x" * 60_000
        file.attrs["bytes"] = b"text"
        file.attrs["array"] = np.arange(3.0)

    root = Hdf5File(written(fill, libver=libver)).root
    assert {name: root[name].attributes["number"] for name in root} == {
        f"group_{i}": i for i in range(len(root))
    }
    assert root.attributes["names"] == ["one", "three"]
    assert root.attributes["texts"] == ["eins", "drei"]
    assert root.attributes["long"] == "x" * 60_000 and root.attributes["bytes"] == "text"
    np.testing.assert_array_equal(root.attributes["array"], np.arange(3.0))
    assert len(root) == (60 if libver == "earliest" else 7) and "nothing" not in root


def test_bfloat16_is_read_as_keras_writes_it():
    array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)

    def fill(file):
        file.create_dataset("a", data=array).attrs["dtype"] = "bfloat16"
        file.create_dataset("b", data=array)

    root = Hdf5File(written(fill)).root
    np.testing.assert_array_equal(root["a"].read(), array)
    with pytest.raises(KerasFileError, match="holds opaque, not numbers"):
        root["b"]


def simple() -> bytes:
    def fill(file):
        file.create_dataset("d", data=np.arange(6, dtype="<f4").reshape(2, 3))
        file.attrs["n"] = 5

    return written(fill)


def patched(data: bytes, position: int, value: bytes) -> bytes:
    return data[:position] + value + data[position + len(value) :]


def find(data: bytes, magic: bytes) -> int:
    position = data.find(magic)
    assert position >= 0
    return position


def header_of(data: bytes, kind: int, body: bytes) -> int:
    """Where the body of a message of version-1 headers lies."""
    place = data.find(struct.pack("<H", kind) + struct.pack("<H", len(body)))
    while data[place + 8 : place + 8 + 2] != body[:2]:
        place = data.find(struct.pack("<H", kind) + struct.pack("<H", len(body)), place + 1)
        assert place >= 0
    return place + 8


def read_everything(data: bytes) -> None:
    root = Hdf5File(data).root
    assert root.attributes is not None
    for name in root:
        root[name].read()


SIMPLE = simple()
LAYOUT = find(SIMPLE, b"\x08\x00\x18\x00") + 8
SPACE = find(SIMPLE, b"\x01\x00\x28\x00") + 8
TREE = find(SIMPLE, b"TREE")
DAMAGE = {
    "superblock": (8, b"\x09", "superblock of unknown version 9"),
    "address size": (13, b"\x04", "unusual address sizes"),
    "base address": (24, b"\x01", "unusual address sizes"),
    "end of the file": (40, struct.pack("<Q", 1 << 40), "is truncated: .* bytes of 1099511627776"),
    "root address": (64, struct.pack("<Q", 1 << 40), "an address is outside it"),
    "tree": (TREE, b"XXXX", "no TREE where one belongs"),
    "kind of a tree": (TREE + 4, b"\x01", "an index is of the wrong kind"),
    "circle": (TREE + 5, b"\x01" + SIMPLE[TREE + 6 : TREE + 32] + struct.pack("<Q", TREE),
               "contains itself"),
    "heap": (find(SIMPLE, b"HEAP"), b"XXXX", "no HEAP where one belongs"),
    "heap's size": (find(SIMPLE, b"HEAP") + 8, b"\xff" * 8, "an address is outside it"),
    "node": (find(SIMPLE, b"SNOD"), b"XXXX", "no SNOD where one belongs"),
    "name's place": (find(SIMPLE, b"SNOD") + 8, b"\xff" * 8, "a name is missing or given twice"),
    "layout version": (LAYOUT, b"\x01", r"unknown layout \(1\)"),
    "layout class": (LAYOUT + 1, b"\x09", "builds an array from other files"),
    "array's place": (LAYOUT + 2, struct.pack("<Q", len(SIMPLE) - 4), "an array lies outside it"),
    "array's size": (LAYOUT + 10, struct.pack("<Q", 20), "declared but never written"),
    "rank": (SPACE + 1, b"\x21", "ends too early|impossible shape"),
    "extent": (SPACE + 8, struct.pack("<Q", 1 << 50), "impossible shape"),
    "shape version": (SPACE, b"\x07", "an array has no shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told(case):
    position, value, message = DAMAGE[case]
    with pytest.raises(KerasFileError, match=message):
        read_everything(patched(SIMPLE, position, value))


def test_a_root_that_is_an_array_is_refused():
    node = find(SIMPLE, b"SNOD") + 8
    address = SIMPLE[node + 8 : node + 16]
    with pytest.raises(KerasFileError, match="its root is not a group"):
        read_everything(patched(SIMPLE, 64, address))


def test_one_array_twice_is_refused():
    def fill(file):
        for name in "ab":
            file.create_dataset(name, data=np.ones(5000, np.float32))

    data = written(fill)
    layouts = [i for i in range(len(data)) if data.startswith(b"\x08\x00\x18\x00", i)]
    first, second = (data[i + 10 : i + 18] for i in layouts)
    assert first != second
    with pytest.raises(KerasFileError, match="arrays overlap or lie outside"):
        root = Hdf5File(patched(data, layouts[1] + 10, first)).root
        for _ in range(2):
            root["a"].read(), root["b"].read()


def test_shapes_and_bytes_must_agree_in_chunks():
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    data = written(lambda f: f.create_dataset("d", data=array, chunks=(3, 2), compression="gzip"))
    layout = data.find(b"\x03\x02\x03", 200)
    with pytest.raises(KerasFileError, match="cut into odd chunks"):
        read_everything(patched(data, layout + 11, struct.pack("<I", 0)))
    tree = data.find(b"TREE\x01")
    with pytest.raises(KerasFileError, match="a chunk has no place"):
        read_everything(patched(data, tree + 24 + 8 + 8, struct.pack("<Q", 1)))
    stored = struct.unpack("<Q", data[tree + 24 + 32 : tree + 24 + 40])[0]
    with pytest.raises(KerasFileError, match="is damaged"):
        read_everything(patched(data, stored, b"\xff\xff\xff"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x10", "a type is cut short"),
        (bytes([0x12] + [0] * 20), r"unknown type \(class 2\)"),
        (bytes([0x11, 0, 0, 0, 4, 0, 0, 0] + [0] * 12), r"unknown type \(class 1\)"),
        (bytes([0x10, 0, 0, 0, 3, 0, 0, 0] + [0] * 12), r"unknown type \(class 0\)"),
    ],
)
def test_unknown_types_are_refused(body, message):
    with pytest.raises(KerasFileError, match=message):
        parse_datatype(body)


def test_names_that_are_no_text_are_refused():
    data = written(lambda f: f.create_group("abc"))
    with pytest.raises(KerasFileError, match="a name is not text"):
        list(Hdf5File(patched(data, data.find(b"abc\0"), b"\xff\xfe\xfd")).root)


def test_an_attribute_twice_is_refused():
    def fill(file):
        file.attrs["one"], file.attrs["two"] = 1, 2

    data = written(fill)
    with pytest.raises(KerasFileError, match='attribute "one" is given twice'):
        Hdf5File(patched(data, data.find(b"two\0"), b"one")).root.attributes.keys()


def header(kind: int, body: bytes, *, version: int = 1, total: int = 1) -> bytes:
    """An object header of one message."""
    message = struct.pack("<HHI", kind, len(body), 0) + body
    return struct.pack("<BBHIII", version, 0, total, 1, len(message), 0) + message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(0, b"", version=7), "an object header is unreadable"),
        (header(0, b"", total=2), "an object header is cut short"),
        (header(0x10, b"12345678"), "a header continues nowhere"),
        (header(0x11, b"12345678"), "a group has no table of names"),
        (header(0x07, b"12345678"), "in other files, which are not opened"),
        (header(0x0C, bytes(8)), "an attribute is unreadable"),
        (header(0x08, bytes(8)), "an array has no shape or type"),
    ],
)
def test_headers_that_are_wrong_are_refused(content, message):
    source = Bytes(content)
    with pytest.raises(KerasFileError, match=message):
        messages = list(read_messages(source, 0))
        read_links(source, messages)
        Group(source, messages).attributes.keys()
        Dataset(source, messages)


def test_work_is_bounded(monkeypatch):
    monkeypatch.setattr("jaxviz.keras.hdf5.bytes.MAX_STEPS", 50)
    with pytest.raises(KerasFileError, match="reading it does not end"):
        read_everything(SIMPLE)


def test_chunks_must_fill_their_array_from_the_file():
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    data = written(lambda f: f.create_dataset("d", data=array, chunks=(3, 2)))
    tree = data.find(b"TREE\x01")
    with pytest.raises(KerasFileError, match="has 1 of 2 chunks"):
        read_everything(patched(data, tree + 6, b"\x01"))
    with pytest.raises(KerasFileError, match="an array lies outside it"):
        read_everything(patched(data, tree + 24 + 32, struct.pack("<Q", len(data) - 4)))


def test_sizes_and_texts_must_agree():
    body = bytes([3, 0]) + struct.pack("<H", 4) + bytes(4)
    with pytest.raises(KerasFileError, match="has 4 bytes instead of 8"):
        parse_storage(Bytes(b""), body, None, (2,), 4)
    with pytest.raises(KerasFileError, match="an attribute is cut short"):
        decode_attribute(Bytes(b""), Datatype("number", 4, np.dtype("<f4")), (3,), bytes(8))
    data = written(lambda f: f.attrs.__setitem__("t", "text"))
    with pytest.raises(KerasFileError, match="a text is missing"):
        Hdf5File(patched(data, data.find(b"GCOL") + 16, b"\x09")).root.attributes.keys()


def test_forms_that_keras_does_not_write_are_refused():
    def many(file):
        for i in range(20):
            file.create_group(f"g{i}")

    with pytest.raises(KerasFileError, match="more links than fit its header"):
        list(Hdf5File(written(many, libver="latest")).root)
    with pytest.raises(KerasFileError, match="that Keras does not write"):
        array = np.ones((4, 4), np.float32)
        data = written(lambda f: f.create_dataset("d", data=array, chunks=(2, 2)), libver="latest")
        Hdf5File(data).root["d"]
