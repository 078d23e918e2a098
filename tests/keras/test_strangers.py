"""Files of strangers that are no attack: mistaken for models, or named to confuse a terminal."""

import sys

import h5py
import numpy as np
import pytest

from jaxviz.keras import KerasFileError, inspect_keras, load_keras, summary
from jaxviz.keras.model import attribute_names


def sequential(*layers: tuple[str, str], shape=(4, 4, 2), **config) -> dict:
    """Layers of (class, name)."""
    entries = [{"class_name": kind, "config": {"name": name, **config}} for kind, name in layers]
    entries[0]["config"]["batch_input_shape"] = [None, *shape]
    return {"class_name": "Sequential", "config": entries}


MISTAKEN = {
    b"": "it is empty",
    b"  \n": "it is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9": "pointer of Git LFS",
    b"<!DOCTYPE html><html>": "it is a web page or XML",
    b"\x1f\x8b\x08\x00": "it is compressed; unpack it",
    b"\x93NUMPY\x01\x00": "it is an array of NumPy",
    b"\x80\x04\x95": "it is a pickle, which is not read",
    b"\x1c\x00\x00\x00TFL3\x14\x00": "it is a model of TensorFlow Lite",
    b"hello": "it is neither a zip archive nor HDF5 nor JSON",
    b'{"accuracy": 0.9}': "must be a JSON object with `class_name` and `config`",
    b'{"config": {}, "x": [1]}': "must be a JSON object with `class_name` and `config`",
}


@pytest.mark.parametrize("content", MISTAKEN)
def test_what_is_mistaken_for_a_model_is_told(content, tmp_path):
    (tmp_path / "model.h5").write_bytes(content)
    for read in (load_keras, inspect_keras):
        with pytest.raises(KerasFileError, match=MISTAKEN[content]):
            read(tmp_path / "model.h5")


def test_a_saved_model_is_told(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(KerasFileError, match="is a SavedModel of TensorFlow; save the model again"):
        load_keras(tmp_path)


@pytest.mark.parametrize(
    "name", ["a\x1b[31mred", "two\nlines", "turn\u202eed", "half\ud800", "x" * 1001]
)
def test_names_that_steer_a_terminal_are_refused(name):
    for model in (sequential(("ReLU", name)), sequential(("ReLU", "r")) | {"config": {
            "name": name, "layers": sequential(("ReLU", "r"))["config"]}}):  # fmt: skip
        with pytest.raises(KerasFileError, match="must be printable text of up to 1000") as error:
            load_keras(model)
        assert str(error.value).isprintable()
    with pytest.raises(KerasFileError, match="has no class name, but|cannot be read") as error:
        load_keras(sequential((name, "r")))
    assert str(error.value).isprintable()


@pytest.mark.slow
def test_messages_are_short_and_printable_whatever_the_file_says():
    for kind in ("Odd" * 10**6, "\x1b]0;title\x07"):
        with pytest.raises(KerasFileError) as error:
            load_keras(sequential(*((kind, f"{'l' * 990}{i}") for i in range(100))))
        assert len(str(error.value)) < 1500 and str(error.value).isprintable()
    with pytest.raises(KerasFileError, match=r"field `a\\x1bb` = c\\x1bd is not handled"):
        load_keras(sequential(("ReLU", "r"), **{"a\x1bb": "c\x1bd"}))


def test_names_in_hdf5_must_be_printable(tmp_path):
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"a"])
        file.create_group("a\x1b[2J")
    with h5py.File(tmp_path / "list.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"a\x1b[2J"])
    with pytest.raises(KerasFileError, match="a name is not text"):
        inspect_keras(tmp_path / "link.h5")
    with pytest.raises(KerasFileError, match="`layer_names` of the HDF5 file must be a list of na"):
        inspect_keras(tmp_path / "list.h5")


def test_what_a_file_says_of_itself_is_printable(tmp_path, capsys):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = np.zeros(0)
        file.attrs["keras_version"], file.attrs["backend"] = "2.\x1b[2J", "t" * 1000
        file.attrs["labels"] = np.array([b"a\x1b", b"b"])
    pair = (sequential(("ReLU", "r"), shape=(2,)), tmp_path / "w.h5")
    found = inspect_keras(pair)
    assert (found.keras_version, found.backend) == (None, None)
    model = load_keras(pair)
    summary(model)
    assert model.class_names is None and all(
        line.isprintable() for line in (str(found) + capsys.readouterr().out).splitlines()
    )


def test_a_layer_that_leaves_nothing_is_refused():
    with pytest.raises(KerasFileError, match=r'Layer "pool" would give an array of shape \(0, 0,'):
        load_keras(sequential(("MaxPooling2D", "pool"), pool_size=5))


def test_many_names_alike_take_no_more_steps_each():
    names = [f"a{mark}b{number:b}".translate({48: "!", 49: "?"}) for mark in "!?*" for number in
             range(4000)]  # fmt: skip
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count if frame.f_code is attribute_names.__code__ else None

    found = attribute_names(names)
    before = sys.gettrace()
    sys.settrace(count)
    try:
        attribute_names(names)
    finally:
        sys.settrace(before)
    assert len(set(found)) == len(names) and all(name.isidentifier() for name in found)
    assert lines < 20 * len(names)


@pytest.mark.slow
def test_how_kernels_are_stored_is_told_only_where_it_is_known(data_folder):
    folder = data_folder / "keras/pplonski__keras2cpp"
    pair = (folder / "my_nn_arch.json", folder / "my_nn_weights.h5")
    assert [inspect_keras(path).kernels for path in pair] == ["unknown", "unknown"]
    assert inspect_keras(pair).kernels == "rotated by 180 degrees (Theano)"
