"""What a configuration may not say, and what is said in return: layer, field and rule."""

import zipfile

import h5py
import jax
import numpy as np
import pytest

from jaxviz.keras import KerasFileError, convert_keras, load_keras
from jaxviz.keras.architecture import config as configs
from jaxviz.keras.build import Overrides
from jaxviz.keras.files import archive as archives
from jaxviz.keras.files.archive import archive_from_config, parse_json
from jaxviz.keras.load import from_arrays

ONE = np.ones((), np.float32)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def one_layer(kind: str, shape: tuple = (6, 6, 4), *, module=None, arrays=(), **config):
    """A model of one layer with the given arrays."""
    entry = {"class_name": kind, "config": {"name": "l", "batch_input_shape": [None, *shape],
             **config}}  # fmt: skip
    if module is not None:
        entry["module"] = module
    model = {"class_name": "Sequential", "config": [entry]}
    return from_arrays(archive_from_config(model), lambda path: list(arrays), Overrides({}))


def operation(kind: str, *args, **config):
    """A model of one Keras 3 operation on an input "x" of shape (4, 4, 8)."""
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
    node = {"args": [tensor, *args], "kwargs": {}}
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_shape": [None, 4, 4, 8]}},
        {"class_name": kind, "module": "keras.src.ops.numpy", "name": "op",
         "config": {"name": "op", **config}, "inbound_nodes": [node]},
    ]  # fmt: skip
    config = {"layers": layers, "input_layers": ["x", 0, 0], "output_layers": ["op", 0, 0]}
    return load_keras({"class_name": "Functional", "config": config})


NORM = {"arrays": [ones(4)] * 4}
LAYERS = {
    "softmax's axis": (lambda: one_layer("Softmax", axis="x"), "`axis` must be a whole number"),
    "shared axes": (lambda: one_layer("PReLU", arrays=[ones(1, 1, 4)], shared_axes=[0]),
                    "`shared_axes` must be a list of axes"),
    "alpha's shape": (lambda: one_layer("PReLU", arrays=[ones(1, 6, 4)], shared_axes=[1, 2]),
                      "alpha of shape .* does not fit"),
    "groups of filters": (lambda: one_layer("Conv2D", arrays=[ones(1, 1, 2, 3)], filters=3,
        kernel_size=1, groups=2, use_bias=False), "`groups` must be a divisor of the 3 filters"),
    "groups of a transpose": (lambda: one_layer("Conv2DTranspose", arrays=[ones(1, 1, 3, 4)],
        filters=3, kernel_size=1, groups=2, use_bias=False), "`groups` must be 1"),
    "the scale": (lambda: one_layer("Rescaling", scale=[]), "`scale` must be a number or a list"),
    "concatenation's axis": (lambda: one_layer("Concatenate", axis=0), "`axis` must be an axis"),
    "dot's axes": (lambda: one_layer("Dot", axes=[0, 1]), "`axes` must be one axis, or two"),
    "dropout's rate": (lambda: one_layer("Dropout", rate=1.5), r"`rate` must be in \[0, 1\)"),
    "norm over the batch": (lambda: one_layer("LayerNormalization", arrays=[ones(4)] * 2, axis=0),
                            "`axis` must be axes other than the batch"),
    "norm over two axes": (lambda: one_layer("BatchNormalization", **NORM, axis=[1, 2]),
                           "`axis` must be one axis"),
    "renormalisation": (lambda: one_layer("BatchNormalization", **NORM, renorm=True),
                        "`renorm` must be false"),
    "rms scaling": (lambda: one_layer("LayerNormalization", arrays=[ones(4)] * 2,
        rms_scaling=True), "`rms_scaling` must be false"),
    "no groups": (lambda: one_layer("GroupNormalization", arrays=[ones(4)] * 2, groups=0),
                  "`groups` must be at least 1"),
    "a mean of words": (lambda: one_layer("Normalization", mean="x", variance=1.0),
                        "`mean` must be a number or a list of finite"),
    "an infinite mean": (lambda: one_layer("Normalization", mean=1e60, variance=1.0),
                         "`mean` must be a number or a list of finite"),
    "channels of a norm": (lambda: one_layer("LayerNormalization", arrays=[ones(1)] * 2),
                           "1 values do not fit the 4 of axis 3"),
    "a shape with two open sizes": (lambda: one_layer("Reshape", target_shape=[-1, -1]),
                                    "`target_shape` must be a list of sizes"),
    "an axis twice": (lambda: one_layer("Permute", dims=[1, 1, 2]), "`dims` must be the axes"),
    "too much cropping": (lambda: one_layer("Cropping2D", cropping=3), "leaves nothing of 6"),
    "attention over space": (lambda: one_layer("MultiHeadAttention", (6, 4), num_heads=1, key_dim=2,
        attention_axes=[1, 2], use_bias=False, arrays=[ones(4, 1, 2)] * 3 + [ones(1, 2, 4)]),
        "`attention_axes` must be the axis of positions"),
    "bias of attention": (lambda: one_layer("MultiHeadAttention", (6, 4), num_heads=1, key_dim=2,
        arrays=[ones(4, 1, 2), ones(2)] * 3 + [ones(1, 2, 4), ones(4)]), "query_dense bias must"),
    "data format": (lambda: one_layer("MaxPooling2D", data_format="sideways"),
                    "`data_format` must be channels_first or"),
    "a number for a truth": (lambda: one_layer("GlobalMaxPooling2D", keepdims=3),
                             "`keepdims` must be true or false"),
    "a damaged configuration": (lambda: one_layer("Rescaling", scale={"class_name": "__numpy__",
        "config": 3}), "has a damaged configuration"),
    "too few arrays": (lambda: one_layer("Dense", units=2, arrays=[ones(4, 2)]),
                       "needs 2 arrays: got 1"),
    "arrays of words": (lambda: one_layer("Dense", units=2, use_bias=False,
        arrays=[np.array([["a", "b"]])]), "has an array of <U1, not of numbers"),
    "too large between layers": (lambda: one_layer("ZeroPadding2D", padding=2**16),
                                 "would give an array of shape"),
}  # fmt: skip
OPERATIONS = {
    "an index": (lambda: operation("GetItem", "x"), "an index must be a number or a slice"),
    "padding": (lambda: operation("Pad", pad_width=[[0, 2**30]] * 4), "padding must be at most"),
    "padding's mode": (lambda: operation("Pad", pad_width=[[0, 1]] * 4, mode="wrap"),
                       "padding mode 'wrap' is not handled"),
    "a cast": (lambda: operation("Cast", dtype="complex64"), "a cast to an unknown type"),
    "an order": (lambda: operation("Normalize", order=1), "order 1 is not handled"),
    "a size": (lambda: operation("Resize", size=[2**30, 2]), "a size must be two numbers"),
    "depth to space": (lambda: operation("DepthToSpace", block_size=2,
        data_format="channels_first"), "depth_to_space is handled for channels last"),
    "space to depth": (lambda: operation("SpaceToDepth", block_size=2,
        data_format="channels_first"), "space_to_depth is handled for channels last"),
    "repeats": (lambda: operation("Tile", repeats=[2**30, 1]), "repeats must be at most"),
    "an object": (lambda: operation("Mean", axis={"a": 1}), "must be a number, a word or a list"),
    "an unknown operation": (lambda: operation("Cholesky"), r'ops.Cholesky \(1 layer: "op"\)'),
}  # fmt: skip


@pytest.mark.parametrize("case", [*LAYERS, *OPERATIONS])
def test_a_field_out_of_bounds_is_named(case):
    make, message = {**LAYERS, **OPERATIONS}[case]
    with pytest.raises(KerasFileError, match=message):
        make()


@pytest.mark.parametrize("name", ["DepthToSpace", "SpaceToDepth"])
def test_pixels_and_channels_are_exchanged_both_ways(name, rng):
    there, back = operation("SpaceToDepth", block_size=2), operation("DepthToSpace", block_size=2)
    x = rng.normal(size=(1, 4, 4, 8)).astype(np.float32)
    if name == "DepthToSpace":
        found = np.asarray(back(x))
        assert found.shape == (1, 8, 8, 2) and (found[0, 1, 0] == x[0, 0, 0, 4:6]).all()
    else:
        found = np.asarray(there(x))
        assert found.shape == (1, 2, 2, 32) and (found[0, 0, 0, 8:16] == x[0, 0, 1]).all()


ENTRY = {"class_name": "ReLU", "name": "r", "config": {"name": "r", "trainable": True},
         "inbound_nodes": []}  # fmt: skip
FIRST = {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_shape": [None, 2]}}  # fmt: skip


def functional(*layers: dict, inputs=("x",)) -> dict:
    config = {"layers": list(layers), "input_layers": [[name, 0, 0] for name in inputs],
              "output_layers": [["r", 0, 0]]}  # fmt: skip
    return {"class_name": "Functional", "config": config}


def node_op(constants: dict) -> dict:
    config = {"name": "r", "node_def": {"op": "Add"}, "constants": constants}
    return {"class_name": "TensorFlowOpLayer", "name": "r", "config": config,
            "inbound_nodes": [[["x", 0, 0, {}]]]}  # fmt: skip


def lambda_op(**kwargs) -> dict:
    return {"class_name": "TFOpLambda", "name": "r", "inbound_nodes": [["x", 0, 0, kwargs]],
            "config": {"name": "r", "function": "math.add"}}  # fmt: skip


def read(**config) -> dict:
    tensor = {"class_name": "__keras_tensor__", "config": config}
    return {**ENTRY, "inbound_nodes": [{"args": [tensor], "kwargs": {}}]}


MODELS = {
    "no class name": (functional(FIRST, {**ENTRY, "class_name": 3}), "has no class name"),
    "no configuration": (functional(FIRST, {**ENTRY, "config": 3}), "has no configuration"),
    "a shape that is none": (functional({**FIRST, "config": {"name": "x", "batch_shape": 3}},
                             read(keras_history=["x", 0, 0])), "must be a list of sizes"),
    "inputs that are none": (functional(FIRST, read(keras_history=["x", 0, 0]), inputs=("r",)),
                             "are not those of its input layers"),
    "two inputs of one name": (functional(FIRST, FIRST, ENTRY), "have the same name"),
    "a history of words": (functional(FIRST, read(keras_history=["x", "0", 0])), "is unreadable"),
    "misplaced constants": (functional(FIRST, node_op({"7": 1.0})), "misplaced constants"),
    "an argument": (functional(FIRST, lambda_op(y=1.0, out=3)), "an argument `out`, not handled"),
    "a second input": ({"class_name": "Sequential", "config": [
        {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}, FIRST]},
        "is a second input"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_an_architecture_out_of_bounds_is_refused(case):
    model, message = MODELS[case]
    with pytest.raises(KerasFileError, match=message):
        load_keras(model)


def test_depth_and_size_are_bounded(monkeypatch):
    model: dict = {**ENTRY, "config": {"name": "r", "batch_input_shape": [None, 2]}}
    for level in range(400):
        model = {"class_name": "Sequential", "config": {"name": f"m{level}", "layers": [model]}}
    with pytest.raises(KerasFileError, match="nested too deeply"):
        load_keras(model)
    monkeypatch.setattr(configs, "MAX_LAYERS", 2)
    relu = {"class_name": "ReLU", "config": {"name": "r"}}
    with pytest.raises(KerasFileError, match="The model has 3 layers; 2 is the limit"):
        load_keras({"class_name": "Sequential", "config": [relu] * 3})
    monkeypatch.setattr(archives, "MAX_JSON", 10)
    with pytest.raises(KerasFileError, match="12 bytes of JSON; 10 is the limit"):
        parse_json(b'{"a": [1,2]}')


def test_arrays_between_layers_are_counted():
    many = {"class_name": "Add", "name": "r", "config": {"name": "r"},
            "inbound_nodes": [[["x", 0, 0, {}]] * 20_000]}  # fmt: skip
    with pytest.raises(KerasFileError, match="read 20001 arrays; 20000 is the limit"):
        load_keras(functional(FIRST, many))


def test_entries_of_another_length_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: b"")
    with pytest.raises(KerasFileError, match="config.json is not as long as the zip archive says"):
        load_keras(tmp_path / "m.keras")


def test_architectures_and_groups_of_hdf5_are_checked(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = "[1]"
        file.attrs["layer_names"] = np.array([b"a"])
    with pytest.raises(
        KerasFileError, match="`model_config` of the HDF5 file must be a JSON object"
    ):
        load_keras(tmp_path / "m.h5")
    with h5py.File(tmp_path / "circle.weights.h5", "w") as file:
        group = file.create_group("layers")
        group["again"] = file
    relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
    model = {"class_name": "Sequential", "config": [relu]}
    with pytest.raises(KerasFileError, match="nested in a circle"):
        load_keras((model, tmp_path / "circle.weights.h5"))


def test_inputs_are_named_rightly():
    other = {**FIRST, "name": "y", "config": {"name": "y", "batch_shape": [None, 2]}}
    add = {"class_name": "Add", "name": "r", "config": {"name": "r"},
           "inbound_nodes": [[["x", 0, 0, {}], ["y", 0, 0, {}]]]}  # fmt: skip
    model = load_keras(functional(FIRST, other, add, inputs=("x", "y")))
    x = ones(1, 2)
    assert model({"y": x, "x": x}).tolist() == [[2, 2]]
    with pytest.raises(ValueError, match=r"`images` must have the keys \['x', 'y'\]: got \['x'\]"):
        model({"x": x})


def test_converting_says_what_is_in_the_way(tmp_path, monkeypatch):
    relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
    model = {"class_name": "Sequential", "config": [relu]}
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(ValueError, match="`out` must end in .npz.*safetensors is not installed"):
        convert_keras(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(
        ValueError, match="`out` must be a place that can be written: got .*, Permission denied"
    ):
        convert_keras(model, tmp_path / "m.npz")


def test_arrays_of_every_float_become_float32():
    for dtype in ("float16", "float64", "int32"):
        dense = one_layer("Dense", (4,), units=2, use_bias=False, arrays=[ones(4, 2).astype(dtype)])
        assert jax.tree.leaves(dense)[0].dtype == np.float32
