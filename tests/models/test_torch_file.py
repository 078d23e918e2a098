"""Legacy files of torch, written by hand: sound ones are read, hostile ones end in one error."""

import os
import pickle
import struct
import sys
import tracemalloc

import numpy as np
import pytest

from jaxviz.models.torch_file import MAGIC, STORAGES, WeightsFileError, read_torch

DICTIONARY = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="1", kind="FloatStorage", length=6, view=b"N") -> bytes:
    parts = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + parts + number(length) + view + b"tQ"


def tensor(place=None, offset=0, shape=(2, 3), strides=(3, 1), hooks=DICTIONARY) -> bytes:
    place = storage() if place is None else place
    where = place + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + where + b"tR"


def state(*items: bytes) -> bytes:
    """A state dictionary as torch pickles it: with a state of its own."""
    entries = b"(" + b"".join(items) + b"u"
    own = b"}(" + text("_metadata") + DICTIONARY + b"ub"
    return b"\x80\x02" + DICTIONARY + entries + own + b"."


SIX = np.arange(6, dtype="<f4")


def file(found: bytes, data=(("1", SIX),), *, machine=None, magic=MAGIC):
    machine = {"little_endian": True} if machine is None else machine
    parts = [pickle.dumps(value, 2) for value in (magic, 1001, machine)]
    keys = pickle.dumps([key for key, _ in data], 2)
    values = [struct.pack("<q", len(array)) + array.tobytes() for _, array in data]
    return b"".join([*parts, found, keys, *values])


SOUND = file(state(text("w"), tensor()))


@pytest.fixture
def read(tmp_path):
    def read(content: bytes):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_torch(path)

    return read


def test_a_tensor_is_read(read):
    (array,) = read(SOUND).values()
    np.testing.assert_array_equal(array, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert array.flags.owndata and array.flags.writeable


@pytest.mark.parametrize("kind", STORAGES)
def test_every_kind_of_number_is_read(read, kind):
    dtype = STORAGES[kind]
    values = np.arange(6).astype(dtype)
    found = state(text("w"), tensor(storage(kind=kind.split()[1])))
    np.testing.assert_array_equal(read(file(found, [("1", values)]))["w"].ravel(), values)


def test_strides_and_offsets_are_followed(read):
    turned = tensor(offset=1, shape=(2, 2), strides=(1, 2))
    np.testing.assert_array_equal(read(file(state(text("w"), turned)))["w"], [[1, 3], [2, 4]])
    scalar = tensor(offset=5, shape=(), strides=())
    assert read(file(state(text("w"), scalar)))["w"].item() == 5
    assert read(file(state(text("w"), tensor(shape=(0, 3)))))["w"].shape == (0, 3)


HOSTILE = {
    "a call of the system": (b"cos\nsystem\n(" + text("touch /tmp/owned") + b"tR.", "'os system'"),
    "a call of eval": (b"cbuiltins\neval\n(" + text("1") + b"tR.", "'builtins eval'"),
    "a torch function": (b"ctorch.hub\nload\n.", "'torch.hub load'"),
    "protocol 4": (pickle.dumps({"w": os.system}, 4), "tensors only: got"),
    "an object": (b"ctorch\nFloatStorage\n)\x81.", "tensors only: got NEWOBJ"),
    "an extension": (b"\x82\x01.", "tensors only: got EXT1"),
    "an instance": (b"(ios\nsystem\n.", "tensors only: got INST"),
    "a storage called": (b"ctorch\nFloatStorage\n)R.", "got another call"),
    "a dictionary of arguments": (b"ccollections\nOrderedDict\n(NtR.", "got another call"),
    "bare numbers": (pickle.dumps({"w": 1}, 2), "'w' is none"),
    "no names": (pickle.dumps([], 2), "tensors by name"),
    "a number as a name": (pickle.dumps({1: 2, 3: 4}, 2), "tensors by name"),
    "appended to a tuple": (b")(K\x01e.", "appends to what is no list"),
    "an empty stack": (b"0.", "tensors only: got POP"),
    "a mark that is missing": (b"t.", "is"),
    "a value that is missing": (b"K\x01\x86.", "a tuple lacks"),
    "an empty memo": (b"h\x05.", "sound"),
    "no end": (b"\x80\x02}", "not a sound file"),
    "a string without end": (b"X\xff\xff\xff\x7fabc.", "not a sound file"),
    "no storage": (state(text("w"), tensor(b"N")), "without a storage"),
    "a storage's view": (state(text("w"), tensor(storage(view=b"K\x01"))), "no storage"),
    "hooks": (state(text("w"), tensor(hooks=b"}" + text("a") + b"K\x01s")), "without a storage"),
    "no such number": (state(text("w"), tensor(storage(kind="ComplexStorage"))), "ComplexStorage"),
    "another storage": (state(text("w"), tensor(storage(key="2"))), "not a sound file"),
    "a longer storage": (state(text("w"), tensor(storage(length=7))), "cut off"),
    "a negative length": (state(text("w"), tensor(storage(length=-1))), "whole number"),
    "beyond the end": (state(text("w"), tensor(offset=1)), "exceeds its storage"),
    "before the start": (state(text("w"), tensor(offset=-1)), "whole number"),
    "backwards": (state(text("w"), tensor(strides=(-1, 1))), "whole number"),
    "another rank": (state(text("w"), tensor(strides=(1,))), "disagree"),
    "a repeated value": (
        state(text("w"), tensor(shape=(30000, 30000), strides=(0, 0))),
        "are shared",
    ),
    "a shared storage": (state(text("w"), tensor(), text("v"), tensor()), "are shared"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(read, name):
    content, message = HOSTILE[name]
    tracemalloc.start()
    with pytest.raises(WeightsFileError, match=message) as caught:
        read(file(content))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000 and len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_tuples_of_tuples_are_never_written_out(read):
    """2⁶⁰ elements, of which two hundred bytes are on the disk."""
    bomb = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60
    for found in (
        state(text("w"), tensor(offset=0, hooks=bomb)),
        state(text("w"), tensor(storage(view=bomb))),
        state(text("w"), bomb),
        state(bomb, tensor()),
        b"\x80\x02" + bomb + b".",
        state(text("w"), b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + bomb + b"tR"),
        state(text("w"), tensor(shape=()).replace(numbers(()), b"(" + bomb + b"t", 1)),
    ):
        with pytest.raises(WeightsFileError):
            read(file(found))
    keys = b"\x80\x02](" + bomb + b"e."
    with pytest.raises(WeightsFileError, match="the keys of its storages"):
        read(SOUND.replace(pickle.dumps(["1"], 2), keys))


def test_nothing_is_imported_or_run(read, monkeypatch):
    events = []
    watching = [True]

    def hook(event, args):
        if watching[0] and event in ("import", "os.system", "exec", "pickle.find_class"):
            events.append((event, args))

    sys.addaudithook(hook)
    try:
        for content, _ in HOSTILE.values():
            with pytest.raises(WeightsFileError):
                read(file(content))
        read(SOUND)
    finally:
        watching[0] = False
    assert not events


def test_every_cut_and_every_changed_byte_is_an_error_or_harmless(read):
    for end in range(0, len(SOUND), 7):
        with pytest.raises(WeightsFileError):
            read(SOUND[:end])
    for at in range(len(SOUND)):
        for change in (0x28, 0xFF):
            try:
                arrays = read(SOUND[:at] + bytes([change]) + SOUND[at + 1 :])
            except WeightsFileError:
                continue
            assert all(array.nbytes <= 64 for array in arrays.values())


def test_other_formats_are_refused(read):
    for content in (b"", b"PK\x03\x04", SOUND.replace(b"\x8a", b"\x8b"), file(b"N.", magic=1)):
        with pytest.raises(WeightsFileError):
            read(content)
    with pytest.raises(WeightsFileError, match="little-endian"):
        read(file(state(), machine={"little_endian": False}))
    with pytest.raises(WeightsFileError, match="before its zip format"):
        read(file(state(), magic=MAGIC + 1))


def test_a_pickle_without_an_end_is_told(read):
    with pytest.raises(WeightsFileError, match="not a sound file of torch: pickle exhausted"):
        read(b"\x80\x02")
