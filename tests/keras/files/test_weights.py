"""Arrays of Keras 3's layout, under the names that other releases and systems gave them."""

import io
import re
import zipfile

import h5py
import jax
import keras
import numpy as np
import pytest
from flax import nnx
from keras import layers

from jaxviz.keras import KerasFileError, load_keras, load_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
HELD = "_layer_checkpoint_dependencies"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with several layers of a class, a nested one, and one without weights; its output."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras.utils.set_random_seed(0)
        inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
        bare = keras.Sequential([keras.Input((3,)), layers.ReLU()])
        model = keras.Sequential(
            [keras.Input((3,)), layers.Dense(3), bare, layers.Dense(3), inner, layers.Dense(3)]
        )
        path = tmp_path_factory.mktemp("weights") / "model.keras"
        model.save(path)
        x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
        return path, x, np.asarray(model(x))


def rewritten(path, out, rename, drop=None):
    """The file with its arrays under other paths."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, renamed(data, rename, drop) if name.endswith(".h5") else data)
    return out


def renamed(data: bytes, rename, drop) -> bytes:
    buffer, arrays = io.BytesIO(), {}
    with h5py.File(io.BytesIO(data)) as source, h5py.File(buffer, "w") as target:
        source.visititems(
            lambda n, o: arrays.update({rename(n): o[()]}) if isinstance(o, h5py.Dataset) else None
        )
        for path, array in arrays.items():
            if path != drop:
                group, _, last = path.rpartition("/")
                put(target, group).create_dataset(last, data=array)
    return buffer.getvalue()


def put(root, group):
    for name in group.split("/"):
        root = root.require_group(name)
    return root


def of_2_13(path: str) -> str:
    """Layers with weights count twice, others are not there: dense, dense_2, dense_4."""
    path = path.replace("sequential_1", "sequential").replace("layers", HELD)
    return re.sub(r"dense_(\d)", lambda m: f"dense_{2 * int(m[1])}", path)


def of_windows(path: str) -> str:
    first, second, rest = path.split("/", 2)
    return f"{first}\\{second}/{rest}"


@pytest.mark.parametrize("rename", [of_2_13, of_windows, lambda path: path])
def test_arrays_are_found_by_class(rename, saved, tmp_path):
    path, x, expected = saved
    out = rewritten(path, tmp_path / "model.keras", rename)
    np.testing.assert_allclose(load_keras(out)(x), expected, atol=1e-6)


@pytest.mark.slow
def test_an_array_that_is_missing_or_there_twice_is_named(saved, tmp_path):
    path, _, _ = saved
    gone = rewritten(path, tmp_path / "gone.keras", of_2_13, f"{HELD}/dense_4/vars/0")
    with pytest.raises(KerasFileError, match='no array ".*dense_4/vars/0" for the kernel of layer'):
        load_keras(gone)
    twice = rewritten(path, tmp_path / "twice.keras", lambda p: p.replace("dense_1", "dense\\x"))
    with pytest.raises(
        KerasFileError, match='array "layers/dense/x/vars/0" that no layer|no array'
    ):
        load_keras(twice)


@pytest.mark.slow
def test_the_eleventh_layer_of_a_class_follows_the_tenth(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for n in range(12):
            name = f"layers/dense_{n}" if n else "layers/dense"
            file[f"{name}/vars/0"] = np.full((1, 1), n, np.float32)

    class Own(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.d = nnx.List([nnx.Linear(1, 1, use_bias=False, rngs=rngs) for _ in range(12)])

    found = load_weights(Own(), tmp_path / "m.weights.h5")
    assert [int(layer.kernel[...].item()) for layer in found.d] == list(range(12))
