"""Real files of ten years of Keras, each against outputs that were computed independently."""

import json

import jax
import numpy as np
import pytest

from jaxviz.keras import from_keras, inspect_keras, load_keras


def layer(kind: str, name: str, **config) -> dict:
    return {"class_name": kind, "config": {"name": name, **config}}


def sequential(*layers: dict) -> dict:
    return {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}


def lenet(first: int, second: int, dense: list[int]) -> dict:
    """The published LeNets of DeepXplore, as their author's code builds them."""
    conv = {"kernel_size": [5, 5], "padding": "same", "activation": "relu"}
    names = ["fc1", "fc2"][: len(dense)]
    return sequential(
        layer("InputLayer", "in", batch_shape=[None, 28, 28, 1]),
        layer("Conv2D", "block1_conv1", filters=first, **conv),
        layer("MaxPooling2D", "block1_pool1", pool_size=[2, 2]),
        layer("Conv2D", "block2_conv1", filters=second, **conv),
        layer("MaxPooling2D", "block2_pool1", pool_size=[2, 2]),
        layer("Flatten", "flatten"),
        *(layer("Dense", n, units=u, activation="relu") for n, u in zip(names, dense, strict=True)),
        layer("Dense", "before_softmax", units=10),
        layer("Activation", "predictions", activation="softmax"),
    )


# Today's spelling, with the channels-first Flatten that today would move the channels.
OCR = sequential(
    layer("InputLayer", "in", batch_shape=[None, 1, 56, 56]),
    layer("Conv2D", "conv2d_1", filters=32, kernel_size=5, activation="relu",
          data_format="channels_first"),
    layer("MaxPooling2D", "max_pooling2d_1", data_format="channels_first"),
    layer("Conv2D", "conv2d_2", filters=16, kernel_size=3, activation="relu",
          data_format="channels_first"),
    layer("MaxPooling2D", "max_pooling2d_2", data_format="channels_first"),
    layer("Dropout", "dropout_1", rate=0.2),
    layer("Flatten", "flatten_1", data_format="channels_first"),
    layer("Dense", "dense_1", units=128, activation="relu"),
    layer("Dense", "dense_2", units=64, activation="relu"),
    layer("Dense", "dense_3", units=10, activation="softmax"),
)  # fmt: skip


def squeezenet() -> dict:
    """SqueezeNet 1.1 without its classifier; layer names hold slashes."""
    layers = []

    def add(kind, name, inbound, **config):
        nodes = [[[source, 0, 0, {}] for source in inbound]] if inbound else []
        layers.append({**layer(kind, name, **config), "name": name, "inbound_nodes": nodes})
        return name

    x = add("InputLayer", "input_4", [], batch_input_shape=[None, 227, 227, 3])
    x = add("Conv2D", "conv1", [x], filters=64, kernel_size=3, strides=2, activation="relu")
    for number, (small, large) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)], 2
    ):
        if number in (2, 4, 6):
            x = add("MaxPooling2D", f"pool{number}", [x], pool_size=3, strides=2)
        fire = f"fire{number}/"
        relu = {"activation": "relu"}
        x = add("Conv2D", f"{fire}squeeze1x1", [x], filters=small, kernel_size=1, **relu)
        one = add("Conv2D", f"{fire}expand1x1", [x], filters=large, kernel_size=1, **relu)
        three = add("Conv2D", f"{fire}expand3x3", [x], filters=large, kernel_size=3,
                    padding="same", **relu)  # fmt: skip
        x = add("Concatenate", f"{fire}concat", [one, three], axis=3)
    config = {"layers": layers, "input_layers": [["input_4", 0, 0]], "output_layers": [[x, 0, 0]]}
    return {"class_name": "Model", "config": config, "keras_version": "2.0.0"}


SQUEEZENET = "rcmalli__keras-squeezenet/squeezenet"
FILES = {
    "peikexin9__deepxplore/Model1.h5": None,
    "peikexin9__deepxplore/Model2.h5": None,
    "peikexin9__deepxplore/Model3.h5": None,
    "prasunroy__ocr/en_numbers.h5": OCR,
    f"{SQUEEZENET}_weights_tf_dim_ordering_tf_kernels_notop.h5": squeezenet(),
    "mlcommons__tiny/vww_96.h5": None,
    "oarriaga__face_classification/fer2013_mini_XCEPTION.102-0.66.hdf5": None,
}
LENETS = {"Model1": (4, 12, []), "Model2": (6, 16, [84]), "Model3": (6, 16, [120, 84])}


def load(data_folder, name: str):
    path = data_folder / "keras" / name
    stem = path.stem
    if stem in LENETS:
        return load_keras((lenet(*LENETS[stem]), path))
    return load_keras(path if FILES[name] is None else (FILES[name], path))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_real_files_equal_their_references(data_folder, name):
    model = load(data_folder, name)
    with np.load(data_folder / "refs" / f"{name.replace('/', '__')}.npz") as reference:
        images, expected = reference["x0"], reference["y0"]
    found = jax.jit(lambda m, x: m(x))(model, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_slashes_in_names_become_attributes(data_folder):
    model = load(data_folder, next(name for name in FILES if "squeeze" in name))
    assert "fire2/squeeze1x1" in model.layer_names
    assert model.fire2_squeeze1x1 is model.layer("fire2/squeeze1x1")


def test_kernels_must_be_named():
    with pytest.raises(ValueError, match='`kernels` must be "auto", "rotated" or "as stored"'):
        load_keras(sequential(layer("ReLU", "r", batch_input_shape=[None, 2])), kernels="odd")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mlcommons__tiny", "Moonflower2022__MNIST-models"])
def test_inspection_tells_what_loading_finds(data_folder, folder):
    for path in sorted((data_folder / "keras" / folder).iterdir()):
        found, model = inspect_keras(path), load_keras(path)
        assert found.loadable and found.input_shape == model.input_shape
        assert found.output_shape == model.output_shape
        assert found.parameters == sum(x.size for x in jax.tree.leaves(model))
        assert [name for name, _ in found.layers] == model.layer_names


def test_inspection_reads_no_weights(data_folder, monkeypatch):
    def refuse(self):
        raise AssertionError("an array was read")

    monkeypatch.setattr("jaxviz.keras.hdf5.file.Dataset.read", refuse)
    for name in ("mlcommons__tiny/vww_96.h5", "Moonflower2022__MNIST-models/mnist_model.keras"):
        assert inspect_keras(data_folder / "keras" / name).loadable
    with pytest.raises(AssertionError, match="an array was read"):
        load_keras(data_folder / "keras/mlcommons__tiny/vww_96.h5")


def test_inspection_says_why_not(data_folder):
    folder = data_folder / "keras"
    found = inspect_keras(folder / "naokishibuya__car-behavioral-cloning/model.h5")
    assert not found.loadable and 'Lambda (1 layer: "lambda_1")' in found.problem
    assert (found.keras_version, found.parameters) == ("1.2.1", 252219)
    found = inspect_keras(folder / "prasunroy__ocr/en_numbers.h5")
    assert (found.backend, found.kernels) == ("theano", "rotated by 180 degrees (Theano)")
    assert "no architecture" in found.problem and found.parameters == 309402
    text = str(inspect_keras(folder / "DeepImportance__deepimportance_code_release/LeNet1.json"))
    assert "no: It holds an architecture but no weights" in text and "(28, 28, 1)" in text


@pytest.mark.slow
def test_configurations_as_keras_gives_them_are_accepted():
    import keras

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
        described = (model.get_config(), json.loads(model.to_json()))
    for config in described:
        assert load_keras(config).output_shape == (16,)
    assert from_keras(model).input_shape == (4, 4, 1)
