"""Weights that Keras 3 spreads over several files: read as one, and nothing else is opened."""

import json

import jax
import keras
import numpy as np
import pytest
from keras import layers

from jaxviz.keras import KerasFileError, inspect_keras, load_keras, load_weights
from jaxviz.keras.files import shards as sharded

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, its architecture and the index of its weights in several shards."""
    folder = tmp_path_factory.mktemp("shards")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        inner = keras.Sequential([keras.Input((8,)), layers.Dense(9, name="wide")], name="inner")
        model = keras.Sequential(
            [keras.Input((8,)), inner, layers.BatchNormalization(name="norm"),
             layers.Dense(40, name="preds")]
        )  # fmt: skip
        model.save_weights(folder / "model.weights.json", max_shard_size=1450 / 2**30)
    return model, json.loads(model.to_json()), folder


def copied(folder, tmp_path, change=lambda index: None):
    """The files again, the index changed."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((folder / "model.weights.json").read_text())
    change(index)
    (tmp_path / "model.weights.json").write_text(json.dumps(index))
    return tmp_path / "model.weights.json"


@pytest.mark.slow
def test_shards_are_read_as_one_file(saved, rng):
    model, config, folder = saved
    assert len(list(folder.glob("*.h5"))) > 2
    images = rng.normal(size=(3, 8)).astype(np.float32)
    ours = load_keras((config, folder / "model.weights.json"))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = np.asarray(model(images))
    np.testing.assert_allclose(ours(images), expected, atol=1e-5)
    found = inspect_keras((config, folder / "model.weights.json"))
    assert found.loadable and found.parameters == model.count_params()
    alone = inspect_keras(folder / "model.weights.json")
    assert alone.format == "sharded weights" and alone.parameters == model.count_params()


@pytest.mark.slow
def test_shards_go_into_a_module_of_ones_own(saved):
    model, _, folder = saved
    variables = {
        "inner": {"wide": {"kernel": np.zeros((8, 9)), "bias": np.zeros(9)}},
        "norm": dict.fromkeys(("scale", "bias", "mean", "var"), np.zeros(9)),
        "preds": {"kernel": np.zeros((9, 40)), "bias": np.zeros(40)},
    }
    loaded = load_weights({"params": variables}, folder / "model.weights.json")["params"]
    np.testing.assert_array_equal(loaded["preds"]["kernel"], model.get_layer("preds").kernel)


@pytest.mark.parametrize("name", ["/etc/passwd", "../model_00000.weights.h5", "other.h5", ""])
def test_other_files_are_not_opened(name, saved, tmp_path):
    _, config, folder = saved

    def change(index):
        index["weight_map"][next(iter(index["weight_map"]))] = name

    with pytest.raises(KerasFileError, match="may list model_00000.weights.h5 and so on"):
        load_keras((config, copied(folder, tmp_path, change)))


def test_links_and_missing_shards_are_refused(saved, tmp_path):
    _, config, folder = saved
    path = copied(folder, tmp_path)
    shard = tmp_path / "model_00001.weights.h5"
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(KerasFileError, match='shard "model_00001.weights.h5" cannot be read: No'):
        load_keras((config, path))
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KerasFileError, match='"model_00001.weights.h5" must be a regular file'):
        load_keras((config, path))


def test_an_array_in_two_shards_is_refused(saved, tmp_path):
    _, config, folder = saved
    path = copied(folder, tmp_path)
    first = (tmp_path / "model_00000.weights.h5").read_bytes()
    (tmp_path / "model_00001.weights.h5").write_bytes(first)
    with pytest.raises(KerasFileError, match="Two shards of the weights hold an array"):
        load_keras((config, path))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "got 'none'"),
        ([], "must hold names of files"),
        ({"a": 3}, "must hold names of files"),
        ({"a": ["model_00000.weights.h5", None]}, "must hold names of files"),
        ({"a": [str(i) for i in range(5)]}, "may list up to 4 shards"),
    ],
)
def test_an_index_of_anything_else_is_refused(weight_map, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "MAX_SHARDS", 4)
    (tmp_path / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(KerasFileError, match=message):
        inspect_keras(tmp_path / "model.weights.json")
