"""Loading, evaluating and addressing: the adapter's surface, on real files."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz.keras import KerasFileError, KerasModel, load_keras, logits

LENETS = "keras/DeepImportance__deepimportance_code_release"
REAL = {
    "mnist h5": "keras/Moonflower2022__MNIST-models/mnist_model.h5",
    "mnist keras": "keras/Moonflower2022__MNIST-models/mnist_model.keras",
    "resnet": "keras/mlcommons__tiny/pretrainedResnet.h5",
    "emotion": "keras/PatientWolfx__fer-api/emotion_model.keras",
    "squeezenet": "imagenet/squeezenet_v1.0_derived.keras",
    "lenet 1": (f"{LENETS}/LeNet1.json", f"{LENETS}/LeNet1.h5"),
    "lenet 4": (f"{LENETS}/LeNet4.json", f"{LENETS}/LeNet4.h5"),
    "lenet 5": (f"{LENETS}/LeNet5.json", f"{LENETS}/LeNet5.h5"),
}


def stored_reference(data_folder: Path, path: str | tuple[str, str]) -> dict[str, np.ndarray]:
    """Inputs and outputs that Keras computed for a file."""
    name = path if isinstance(path, str) else path[0] + "+h5"
    name = name.removeprefix("keras/").removesuffix(".keras" if "imagenet" in name else "-")
    with np.load(data_folder / "refs" / (name.replace("/", "__") + ".npz")) as archive:
        return dict(archive)


def located(data_folder: Path, path: str | tuple[str, str]) -> Path | list[Path]:
    """A file of the data folder, or a pair of them."""
    if isinstance(path, str):
        return data_folder / path
    return [data_folder / part for part in path]


@pytest.fixture(scope="module")
def mnist(data_folder):
    return load_keras(data_folder / REAL["mnist h5"])


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_keras_with_and_without_their_softmax(data_folder, name):
    model = load_keras(located(data_folder, REAL[name]))
    reference = stored_reference(data_folder, REAL[name])
    probabilities, scores = jax.jit(lambda model, x: (model(x), logits(model)(x)))(
        model, reference["x0"]
    )
    np.testing.assert_allclose(probabilities, reference["y0"], atol=1e-5)
    assert probabilities.shape[1:] == model.output_shape
    assert np.abs(scores).max() > 1
    np.testing.assert_allclose(jax.nn.softmax(scores), reference["y0"], atol=1e-5)


def test_names_and_shapes_are_those_of_the_file(mnist):
    assert mnist.layer_names == [
        "conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1", "flatten", "dropout", "dense",
    ]  # fmt: skip
    assert (mnist.input_shape, mnist.output_shape) == ((28, 28, 1), (10,))
    assert mnist.conv2d.kernel[...].shape == (3, 3, 1, 32)
    assert mnist.layer(-1) is mnist.dense and mnist.layer("dense") is mnist.dense


def test_one_compilation_serves_two_loads_of_a_file(data_folder):
    traces = []

    @jax.jit
    def scores(model, images):
        traces.append(1)
        return model(images)

    for _ in range(2):
        model = load_keras(data_folder / REAL["mnist h5"])
        scores(model, jnp.zeros((1, 28, 28, 1)))
    scores(jax.tree.map(lambda x: x + 1, model), jnp.zeros((1, 28, 28, 1)))
    assert len(traces) == 1


@pytest.mark.slow
def test_split_and_merge_keep_the_function(mnist, rng):
    images = rng.uniform(size=(2, 28, 28, 1)).astype(np.float32)
    graph, state = nnx.split(mnist)
    np.testing.assert_array_equal(nnx.merge(graph, state)(images), mnist(images))
    assert sum(x.size for x in jax.tree.leaves(state)) == 34826


def test_logits_share_arrays_and_are_idempotent(mnist):
    linear = logits(mnist)
    assert linear.dense.kernel is mnist.dense.kernel and linear is not mnist
    assert logits(linear) is linear


def test_logits_are_those_of_a_keras_model():
    with pytest.raises(TypeError, match="`model` must be a model of Keras.*got a function"):
        logits(lambda images: images.mean((1, 2)))


@pytest.mark.slow
def test_vmap_and_grad_compose(mnist, rng):
    images = rng.uniform(size=(3, 28, 28, 1)).astype(np.float32)
    one_by_one = jax.vmap(lambda image: mnist(image[None])[0])(images)
    np.testing.assert_allclose(one_by_one, mnist(images), atol=1e-6)
    gradient = jax.grad(lambda x: logits(mnist)(x)[0, 3])(images)
    assert np.abs(gradient[0]).max() > 0 and np.abs(gradient[1:]).max() == 0


def test_activations_are_the_intermediate_arrays(mnist, rng):
    images = rng.uniform(size=(2, 28, 28, 1)).astype(np.float32)
    found = mnist.activations(images)
    assert list(found) == mnist.layer_names
    np.testing.assert_array_equal(found["conv2d"], mnist.conv2d(jnp.asarray(images)))
    np.testing.assert_array_equal(found["dense"], mnist(images))
    np.testing.assert_array_equal(mnist.activations(images, -1)["dense"], found["dense"])


def test_activations_evaluate_only_what_they_need(mnist):
    def work(images):
        return mnist.activations(images, ["conv2d"])

    program = str(jax.make_jaxpr(work)(jnp.zeros((1, 28, 28, 1))))
    assert program.count("conv_general_dilated[") == 1 and "dot_general" not in program


@pytest.mark.slow
def test_integer_images_are_cast_not_wrapped(data_folder):
    model = load_keras(data_folder / REAL["resnet"])
    images = stored_reference(data_folder, REAL["resnet"])["x0"].round()
    scores = model(images.astype(np.uint8))
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, model(images))


@pytest.mark.parametrize(
    ("layers", "message"),
    [("conv2", 'no layer "conv2"; the nearest name is "conv2d"'), (7, "indices of the 7 layers")],
)
def test_unknown_layers_are_told_with_the_nearest(mnist, layers, message):
    with pytest.raises(ValueError, match=message):
        mnist.activations(np.zeros((1, 28, 28, 1), np.float32), layers)


def test_images_of_another_shape_are_refused(mnist):
    with pytest.raises(ValueError, match=r"`images` must have shape \(batch, 28, 28, 1\)"):
        mnist(np.zeros((28, 28, 1), np.float32))
    with pytest.raises(ValueError, match="`images` must hold 1 arrays: got 2"):
        mnist([np.zeros((1, 28, 28, 1), np.float32)] * 2)


def sequential(*layers: dict, shape=(4, 4, 1)) -> dict:
    """A Sequential architecture without weights."""
    entries = [
        {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, *shape]}}
    ]
    for number, layer in enumerate(layers):
        kind = layer.pop("kind")
        entries.append({"class_name": kind, "config": {"name": f"layer{number}", **layer}})
    return {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}


def test_a_layer_name_that_is_no_attribute_gets_one():
    model = load_keras(
        sequential({"kind": "ReLU", "name": "a/b"}, {"kind": "ReLU", "name": "train"})
    )
    assert model.layer_names == ["a/b", "train"]
    assert model.a_b is model.layer("a/b") and callable(model.train) and model.train_ is not None
    assert list(model.activations(jnp.ones((1, 4, 4, 1)))) == ["a/b", "train"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"kind": "FancyLayer"}, r'FancyLayer \(1 layer: "layer0"\)'),
        (lambda: {"kind": "ReLU", "surprise": 3}, r'"layer0" \(ReLU\): field `surprise` = 3'),
        (lambda: {"kind": "Activation", "activation": "wild"}, "activation 'wild' is not known"),
        (
            lambda: {"kind": "MaxPooling2D", "padding": "odd"},
            "field `padding` must be one of valid",
        ),
        (lambda: {"kind": "MaxPooling2D", "pool_size": [2, 2, 2]}, "`pool_size` must be 2 whole"),
        (lambda: {"kind": "Reshape", "target_shape": [5, -1]}, "do not fit together"),
    ],
)
def test_what_is_not_handled_is_named(make, message):
    with pytest.raises(KerasFileError, match=message):
        load_keras(sequential(make()))


def test_bad_files_are_one_sentence(tmp_path, data_folder):
    with pytest.raises(KerasFileError, match=r"missing\.h5.*cannot be read: No such file"):
        load_keras(tmp_path / "missing.h5")
    with pytest.raises(KerasFileError, match="is a folder"):
        load_keras(tmp_path)
    whole = (data_folder / REAL["mnist h5"]).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KerasFileError, match="truncated: 223584 bytes of 447168"):
        load_keras(tmp_path / "cut.h5")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(KerasFileError, match="neither a zip archive nor HDF5 nor JSON"):
        load_keras(tmp_path / "text.keras")
    (tmp_path / "a.json").write_text(json.dumps(sequential({"kind": "Dense", "units": 2})))
    with pytest.raises(KerasFileError, match="architecture but no weights"):
        load_keras(tmp_path / "a.json")


def test_weights_alone_ask_for_an_architecture(data_folder):
    with pytest.raises(KerasFileError, match="weights but no architecture"):
        load_keras(data_folder / LENETS / "LeNet1.h5")


@pytest.mark.slow
def test_a_lambda_is_refused_by_name(data_folder):
    with pytest.raises(KerasFileError, match=r'Lambda \(1 layer: "lambda_1"\)'):
        load_keras(data_folder / "keras/naokishibuya__car-behavioral-cloning/model.h5")


@pytest.mark.slow
def test_theano_kernels_are_rotated(data_folder):
    folder = data_folder / "keras/pplonski__keras2cpp"
    pair = (folder / "my_nn_arch.json", folder / "my_nn_weights.h5")
    with np.load(data_folder / "mnist.npz") as mnist:
        images = mnist["x_test"][:2000, None].astype(np.float32) / 255
        labels = mnist["y_test"][:2000].astype(np.int32)
    for kernels, low, high in (("auto", 0.85, 0.87), ("as stored", 0.2, 0.4)):
        model = load_keras(pair, kernels=kernels)
        assert model.input_shape == (1, 28, 28)
        accuracy = np.mean(np.argmax(model(images), axis=-1) == labels)
        assert low < accuracy < high


@pytest.mark.slow
def test_a_model_is_a_keras_model(mnist):
    assert isinstance(mnist, KerasModel) and isinstance(mnist, nnx.Module)
