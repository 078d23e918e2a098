"""Architectures: shared layers, nested models, several inputs, operations, old files."""

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers, ops

from jaxviz.keras import KerasFileError, KerasModel, from_keras, inspect_keras, load_keras, logits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def lenient():
    return jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")


def keras_output(model, images):
    first, second = lenient()
    with first, second:
        return jax.tree.map(np.asarray, jax.jit(lambda x: model(x, training=False))(images))


def built(build):
    first, second = lenient()
    with first, second:
        return build()


def branchy() -> "keras.Model":
    """Two inputs, a shared layer, and a nested model with batch norm that is used twice."""
    keras.utils.set_random_seed(1)
    image, number = keras.Input((6, 6, 2), name="image"), keras.Input((3,), name="number")
    shared = layers.Conv2D(2, 3, padding="same", name="shared")
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="c"),
            layers.BatchNormalization(name="b"),
        ],
        name="inner",
    )
    x = shared(shared(image))
    twice = layers.Add(name="sum")([inner(x), inner(image)])
    y = layers.Flatten(name="flat")(twice)
    z = layers.Concatenate(name="join")([y, layers.Dense(4, name="d")(number)])
    out = layers.Dense(3, activation="softmax", name="preds")(z)
    model = keras.Model({"image": image, "number": number}, [out, twice], name="branchy")
    inner.get_layer("b").moving_variance.assign([0.5, 2.0, 1.0, 3.0])
    inner.get_layer("b").moving_mean.assign([0.5, -2.0, 1.0, 0.1])
    return model


@pytest.fixture
def data(rng):
    return {
        "image": rng.normal(size=(2, 6, 6, 2)).astype(np.float32),
        "number": rng.normal(size=(2, 3)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def theirs():
    return built(branchy)


@pytest.fixture(params=["keras", "h5", "memory", "json + weights.h5", "json + weights h5"])
def both(request, theirs, tmp_path):
    """A Keras model and ours, by every way that there is."""
    model = theirs
    first, second = lenient()
    with first, second:
        weights = tmp_path / "model.weights.h5"
        match request.param:
            case "memory":
                return model, from_keras(model)
            case "keras" | "h5":
                model.save(tmp_path / f"model.{request.param}")
                return model, load_keras(tmp_path / f"model.{request.param}")
            case "json + weights.h5":
                model.save_weights(weights)
                return model, load_keras((json.loads(model.to_json()), weights))
            case _:
                model.save(tmp_path / "model.h5")
                (tmp_path / "model.json").write_text(model.to_json())
                return model, load_keras((tmp_path / "model.json", tmp_path / "model.h5"))


@pytest.mark.slow
def test_graphs_equal_keras(both, data):
    model, ours = both
    expected = keras_output(model, data)
    for given in (data, [data["image"], data["number"]]):
        for y, z in zip(ours(given), expected, strict=True):
            np.testing.assert_allclose(y, z, atol=1e-5)
    assert ours.input_shape == ((6, 6, 2), (3,)) and ours.output_shape == ((3,), (4, 4, 4))


def test_nested_and_shared_layers_can_be_addressed(theirs, data):
    ours = from_keras(theirs)
    assert isinstance(ours.inner, KerasModel) and ours.layer("inner/c") is ours.inner.c
    names = ["shared", "shared#2", "inner/c", "inner#2/c"]
    assert ours.layer("inner#2/c") is ours.inner.c
    found = ours.activations(data, names)
    assert list(found) == names and set(ours.activations(data)) == set(ours.layer_names)
    np.testing.assert_allclose(ours.shared(found["shared"]), found["shared#2"], atol=1e-6)
    on = [ours.inner.c(x) for x in (jnp.asarray(data["image"]), found["shared#2"])]
    pairs = [(found["inner/c"], found["inner#2/c"]), (found["inner#2/c"], found["inner/c"])]
    assert any(np.allclose(a, on[0], atol=1e-5) and np.allclose(b, on[1], atol=1e-5)
               for a, b in pairs)  # fmt: skip


@pytest.mark.slow
def test_logits_look_through_nested_models_and_reshapes(rng):
    def build():
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Activation("softmax")])
        x = keras.Input((4,))
        return keras.Model(x, layers.Reshape((3, 1))(layers.Dropout(0.5)(inner(x))))

    ours = from_keras(built(build))
    x = rng.normal(size=(2, 4)).astype(np.float32)
    scores = logits(ours)(x)
    np.testing.assert_allclose(jax.nn.softmax(scores, axis=1), ours(x), atol=1e-6)
    assert np.abs(scores.sum(axis=1) - 1).max() > 0.01


def gated(act: Any) -> "keras.Model":
    """An activation, or a Dense of one, that gates the features, and ends the model."""
    x = keras.Input((4,))
    gate = act(layers.Dense(4)(x))
    return keras.Model(x, act(layers.Multiply()([gate, layers.Dense(4)(x)])))


def read_again() -> "keras.Model":
    """Probabilities, reshaped, that come out and are read by another head, too."""
    x = keras.Input((4,))
    y = layers.Reshape((3, 1))(layers.Dense(3, activation="softmax")(x))
    return keras.Model(x, {"y": y, "z": layers.Dense(2)(layers.Flatten()(y))})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_logits_leave_a_gate_of_the_same_layer(rng, kind):
    ours = from_keras(built(lambda: gated(layers.Activation(kind, name="act"))))
    x = rng.normal(size=(2, 4)).astype(np.float32)
    scores = logits(ours)(x)
    squash = jax.nn.sigmoid if kind == "sigmoid" else jax.nn.softmax
    np.testing.assert_allclose(squash(scores), ours(x), atol=1e-6)
    assert np.abs(scores - ours(x)).max() > 0.01
    assert logits(ours).layer_names == [*ours.layer_names, "act (logits)"]
    assert logits(logits(ours)).layer_names == logits(ours).layer_names


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_outputs_by_name_are_a_dictionary_also_of_a_nested_model(tmp_path, rng, suffix):
    def outer():
        x, inner = keras.Input((4,)), read_again()
        named = inner(x)
        return keras.Model(x, layers.Concatenate()([named["z"], layers.Flatten()(named["y"])]))

    x = rng.normal(size=(2, 4)).astype(np.float32)
    for build, shape in (read_again, {"y": (3, 1), "z": (2,)}), (outer, (5,)):
        theirs = built(build)
        built(lambda: theirs.save(tmp_path / f"model{suffix}"))  # noqa: B023, called at once
        ours = load_keras(tmp_path / f"model{suffix}")
        assert ours.output_shape == shape and inspect_keras(tmp_path / f"model{suffix}").loadable
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            jax.jit(lambda model, x: model(x))(ours, x),
            keras_output(theirs, x),
        )


@pytest.mark.slow
def test_logits_leave_what_another_head_reads(rng):
    ours = from_keras(built(read_again))
    x = rng.normal(size=(2, 4)).astype(np.float32)
    scores, wanted = logits(ours)(x), ours(x)
    np.testing.assert_allclose(jax.nn.softmax(scores["y"], axis=1), wanted["y"], atol=1e-6)
    np.testing.assert_array_equal(scores["z"], wanted["z"])
    assert np.abs(scores["y"] - wanted["y"]).max() > 0.01
    jax.jit(lambda model, x: model(x))(logits(ours), x)  # it is a module as any


def operations() -> "keras.Model":
    x = keras.Input((4, 6, 4))
    y = 1.0 - ops.clip(x * 2.0 + 1, -1, 1) / 3
    y = ops.concatenate([y, ops.maximum(x, 0.1)], axis=-1)[:, 1:, ..., ::2]
    y = ops.pad(ops.transpose(y, (0, 2, 1, 3)), [[0, 0], [1, 2], [0, 0], [0, 0]])
    pieces = ops.split(ops.relu(y) - ops.sigmoid(y), 2, axis=-1)
    y = ops.stack([pieces[0], ops.square(pieces[1])], axis=1)
    y = ops.mean(y, axis=(2,), keepdims=True) ** 2
    y = ops.reshape(y, (-1, 12))
    y = ops.matmul(ops.expand_dims(y, 1), ops.expand_dims(ops.softmax(y), -1))
    z = ops.image.resize(ops.leaky_relu(x, 0.1) + np.float32(3), (8, 3))
    return keras.Model(x, [ops.squeeze(y, axis=-1), ops.max(z, axis=[1, 2]), ops.gelu(-x)])


@pytest.mark.slow
def test_operations_equal_keras(tmp_path, rng):
    model = built(operations)
    built(lambda: model.save(tmp_path / "model.keras"))
    images = rng.normal(size=(3, 4, 6, 4)).astype(np.float32)
    ours = load_keras(tmp_path / "model.keras")
    for y, z in zip(ours(images), keras_output(model, images), strict=True):
        np.testing.assert_allclose(y, z, atol=1e-5)


def functional(*entries: dict, outputs: list) -> dict:
    """A Keras 2 functional model on an input "x" of shape (4, 4, 2)."""
    first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
             "config": {"name": "x", "batch_input_shape": [None, 4, 4, 2]}}  # fmt: skip
    config = {"name": "m", "layers": [first, *entries], "input_layers": [["x", 0, 0]],
              "output_layers": outputs}  # fmt: skip
    return {"class_name": "Functional", "config": config, "keras_version": "2.9.0"}


def operation(name: str, function: str, inbound: list, kind: str = "TFOpLambda") -> dict:
    return {"class_name": kind, "name": name, "inbound_nodes": inbound,
            "config": {"name": name, "trainable": True, "function": function}}  # fmt: skip


def test_tensorflow_operations_are_translated(rng):
    last = {"start": None, "stop": None, "step": None}
    model = load_keras(functional(
        operation("mul", "math.multiply", [["x", 0, 0, {"y": 2.0, "name": None}]]),
        operation("sub", "math.subtract", [["_CONSTANT_VALUE", -1, 1.0, {"y": ["mul", 0, 0]}]]),
        operation("join", "concat", [[["mul", 0, 0, {"axis": -1}], ["sub", 0, 0, {"axis": -1}]]]),
        operation("cut", "__operators__.getitem", [["join", 0, 0, {"slice_spec": [
            last, {"start": 1, "stop": 3, "step": None}, {"class_name": "__ellipsis__"}]}]],
            "SlicingOpLambda"),
        operation("mean", "math.reduce_mean", [["cut", 0, 0, {"axis": [1, 2], "keepdims": False}]]),
        outputs=[["mean", 0, 0]],
    ))  # fmt: skip
    x = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    expected = np.concatenate([2 * x, 1 - 2 * x], -1)[:, 1:3].mean(axis=(1, 2))
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def operation_node(node) -> dict:
    return {"class_name": "TensorFlowOpLayer", "name": "op", "inbound_nodes": [[["x", 0, 0, {}]]],
            "config": {"name": "op", "node_def": node, "constants": {"0": 3.0}}}  # fmt: skip


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"op": "Mean"}, "Mean"),
        ('{"op": "ResizeBilinear"}', "ResizeBilinear"),
        ("{", "an unknown operation"),
        ([], "an unknown operation"),
    ],
)
def test_an_operation_node_that_is_refused_is_named(node, told):
    with pytest.raises(KerasFileError, match=f'TensorFlowOpLayer of {told} .1 layer: "op"'):
        load_keras(functional(operation_node(node), outputs=[["op", 0, 0]]))


def test_operation_nodes_of_tensorflow_2_0_are_translated(rng):
    node = operation_node({"name": "sub", "op": "Sub", "input": ["a", "x"]})
    model = load_keras(functional(node, outputs=[["op", 0, 0]]))
    x = rng.normal(size=(1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(model(x), 3 - x, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    ["os.system", "math.add_n", "numpy_function", "py_function", "compat.v1.image.resize"],
)
def test_operations_outside_the_list_are_refused_by_name(function):
    entry = operation("evil", function, [["x", 0, 0, {}]])
    with pytest.raises(KerasFileError, match=f'TFOpLambda of {function} .1 layer: "evil"'):
        load_keras(functional(entry, outputs=[["evil", 0, 0]]))


def plain(name: str, inbound: list, kind: str = "ReLU", **config) -> dict:
    return {"class_name": kind, "name": name, "config": {"name": name, **config},
            "inbound_nodes": inbound}  # fmt: skip


def test_a_nested_model_of_keras_2_counts_its_calls_from_one(rng):
    nested = functional(plain("r", [[["x", 0, 0, {}]]]), outputs=[["r", 0, 0]])
    nested |= {"name": "nested", "inbound_nodes": [[["y", 0, 0, {}]]]}
    nested["config"]["name"] = "nested"
    outer = functional(plain("y", [[["x", 0, 0, {}]]], "Activation", activation="tanh"), nested,
                       outputs=[["nested", 1, 0]])  # fmt: skip
    x = rng.normal(size=(1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(load_keras(outer)(x), np.maximum(np.tanh(x), 0), atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "outputs", "message"),
    [
        ([plain("a", [[["b", 0, 0, {}]]]), plain("b", [[["a", 0, 0, {}]]])], "b", "cyclic"),
        ([plain("a", [[["gone", 0, 0, {}]]])], "a", 'reads from "gone"'),
        ([plain("a", [[["x", 0, 0, {}]]])] * 2, "a", 'the same name, "a"'),
        ([plain("a", [[["x", 0, 0, {}]]]), plain("b", [[["x", 0, 0, {}]]])], "a", "not connected"),
        ([plain("a", [])], "a", "not connected to anything"),
        ([plain("a", [[["x", 0, 0, {"training": True}]]])], "a", "always in training"),
        ([plain("a", [[["x", 0, 0, {"mask": ["x", 0, 0]}]]])], "a", "`mask`, which is not"),
        ([plain("a", [[["x", 0]]])], "a", "connection of the model is unreadable"),
        ([plain("a", [[["x", 0, 0, {"b": {"c": 1}}]]])], "a", "argument of a layer is not handled"),
        ([plain("x", [[["x", 0, 0, {}]]])], "x", "the same name"),
    ],
)
def test_broken_graphs_are_refused(entries, outputs, message):
    with pytest.raises(KerasFileError, match=message):
        load_keras(functional(*entries, outputs=[[outputs, 0, 0]]))


@pytest.mark.parametrize("nothing", [None, [None, None], [None, [None]], []])
def test_a_mask_of_nothing_is_no_mask(nothing, rng):
    entry = plain("a", [[["x", 0, 0, {"mask": nothing}], ["x", 0, 0, {}]]], "Add", trainable=True)
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
    of_keras_3 = {"args": [[tensor, tensor]], "kwargs": {"mask": nothing}}
    x = rng.normal(size=(1, 4, 4, 2)).astype(np.float32)
    for inbound in (entry["inbound_nodes"], [of_keras_3]):
        model = load_keras(functional({**entry, "inbound_nodes": inbound}, outputs=[["a", 0, 0]]))
        np.testing.assert_array_equal(model(x), 2 * x)


def test_dictionaries_of_inputs_in_another_order_are_another_model():
    def named(first, second):
        inputs = [
            {"class_name": "InputLayer", "config": {"name": n, "batch_shape": [None, 2]}}
            for n in ("x", "y")
        ]
        layer = plain("d", [[["x", 0, 0, {}], ["y", 0, 0, {}]]], "Subtract")
        return load_keras({"class_name": "Functional", "config": {
            "name": "m", "layers": [*inputs, layer], "output_layers": [["d", 0, 0]],
            "input_layers": {"a": [first, 0, 0], "b": [second, 0, 0]}}})  # fmt: skip

    data = {"a": jnp.full((1, 2), 5.0), "b": jnp.ones((1, 2))}
    program = jax.jit(lambda model, data: model(data))
    one, other = named("x", "y"), named("y", "x")
    assert one._graph != other._graph and one._graph == named("x", "y")._graph
    np.testing.assert_array_equal(program(one, data), [[4.0, 4.0]])
    np.testing.assert_array_equal(program(other, data), [[-4.0, -4.0]])


def test_a_class_of_the_authors_own_is_not_taken_for_kerass():
    entry = plain("a", [[["x", 0, 0, {}]]])
    for own in ({"module": "my_layers"}, {"module": None, "registered_name": "ReLU"}):
        with pytest.raises(KerasFileError, match=r'(my_layers|own)>ReLU \(1 layer: "a"\)'):
            load_keras(functional({**entry, **own}, outputs=[["a", 0, 0]]))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_dtype_policies_are_followed(policy, tmp_path, rng):
    def build():
        model = keras.Sequential([
            keras.Input((6, 6, 2)), layers.Conv2D(4, 3, dtype=policy),
            layers.BatchNormalization(dtype=policy), layers.Flatten(dtype=policy),
            layers.Dense(3, dtype="float32"),
        ])  # fmt: skip
        model.save(tmp_path / "model.keras")
        return model

    model = built(build)
    ours = load_keras(tmp_path / "model.keras")
    x = rng.normal(size=(2, 6, 6, 2)).astype(np.float32)
    found = ours.activations(x)
    assert found["conv2d" if "conv2d" in found else ours.layer_names[0]].dtype == jnp.dtype(
        policy[-8:] if "bfloat" in policy else "float16"
    )
    assert ours(x).dtype == jnp.float32
    np.testing.assert_allclose(ours(x), keras_output(model, x), atol=0.03)
    whole = load_keras(tmp_path / "model.keras", dtype="float32").activations(x)
    assert all(y.dtype == jnp.float32 for y in whole.values())


@pytest.mark.slow
def test_quantised_layers_are_refused_with_all_others(tmp_path):
    def build():
        whole, small = layers.Dense(3, name="whole"), layers.Dense(2, name="small")
        model = keras.Sequential([keras.Input((4,)), whole, small, layers.ReLU(name="r")])
        model.get_layer("small").quantize("int8")
        model.save(tmp_path / "model.keras")

    built(build)
    with pytest.raises(KerasFileError, match=r'read: Dense, quantised \(1 layer: "small"\)\. Sup'):
        load_keras(tmp_path / "model.keras")
    mapped = {"class_name": "DTypePolicyMap", "config": {"default_policy": "float32",
              "policy_map": {"attention/query": "int4_from_float32"}}}  # fmt: skip
    entries = [
        plain("a", [[["x", 0, 0, {}]]], dtype=mapped),
        plain("b", [[["a", 0, 0, {}]]], "GRU"),
    ]
    with pytest.raises(KerasFileError, match=r'ReLU, quantised \(1 layer: "a"\), GRU \(1 layer'):
        load_keras(functional(*entries, outputs=[["b", 0, 0]]))


def test_unknown_layers_are_listed_together_and_can_be_supplied(rng):
    model = functional(
        plain("first", [[["x", 0, 0, {}]]], "Swirl", speed=3.0),
        plain("middle", [[["first", 0, 0, {}]]], "Lambda", function=["4wEAAA==", None, None]),
        plain("last", [[["middle", 0, 0, {}]]], "LSTM"),
        outputs=[["last", 0, 0]],
    )
    with pytest.raises(KerasFileError, match=r'Swirl .1 layer: "first".*Lambda .*LSTM .1 layer'):
        load_keras(model)
    supplied = {
        "Swirl": lambda config, weights: lambda x: x * config["speed"],
        "Lambda": lambda x: x / 2,
        "last": lambda config, weights: jnp.tanh,
    }
    x = rng.normal(size=(1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(
        load_keras(model, custom_layers=supplied)(x), np.tanh(x * 1.5), atol=1e-6
    )
    with pytest.raises(ValueError, match="`custom_layers` must give a callable for Swirl"):
        load_keras(model, custom_layers={**supplied, "Swirl": lambda config, weights: 3})


def test_each_unknown_class_is_told_once_before_anything_else_is_judged(tmp_path):
    def nested(*entries, name):
        inner = functional(*entries, outputs=[[entries[-1]["name"], 0, 0]])
        inner["config"]["name"] = name
        return {**inner, "name": name, "inbound_nodes": [[["x", 0, 0, {}]]]}

    masked = [[["x", 0, 0, {"mask": ["x", 0, 0]}]]]
    model = functional(
        plain("a", masked, "LSTM"),
        nested(plain("b", masked, "LSTM"), plain("c", [[["b", 0]]], "Swirl"), name="inner"),
        plain("d", [["unreadable"]], "LSTM", layer={"class_name": "Swirl"}),
        plain("e", [], "TimeDistributed", layer=plain("f", [], "Swirl")),
        plain("g", [], "Embedding", mask_zero=True),
        outputs=[["nowhere", 0, 0]],
    )
    with pytest.raises(KerasFileError) as error:
        load_keras(model)
    assert 'LSTM (3 layers: "a", "inner/b" ...), Swirl (2 layers: "inner/c", "e/f").' in str(
        error.value
    )
    found = inspect_keras(model)
    assert "LSTM (3 layers" in found.problem and ("inner/c", "Swirl") in found.layers
    many = [plain(f"l{i}", [[["x", 0, 0, {}]]], f"Kind{i}") for i in range(30)]
    with pytest.raises(KerasFileError, match='Kind19 .1 layer: "l19". and 10 other classes'):
        load_keras(functional(*many, outputs=[["l0", 0, 0]]))


def test_a_subclassed_model_says_what_to_do():
    model = {"module": "mine", "class_name": "MyNet", "config": {"units": 3}}
    with pytest.raises(KerasFileError, match=r"'MyNet'.*keras\.Model\(inp.*from_keras"):
        load_keras(model)


@pytest.mark.slow
def test_a_supplied_layer_gets_its_weights(tmp_path, rng):
    class Shift(layers.Layer):
        def build(self, shape):
            self.offset = self.add_weight(shape=(shape[-1],), initializer="random_normal")

        def call(self, x):
            return x + self.offset

    for suffix in ("keras", "h5"):

        def build(suffix=suffix):
            model = keras.Sequential([keras.Input((3,)), Shift(), layers.Dense(2)])
            model.save(tmp_path / f"model.{suffix}")
            return model

        model = built(build)

        def convert(config, weights):
            offset = jnp.asarray(weights[0])[None]
            return jax.tree_util.Partial(jnp.add, offset)

        ours = load_keras(tmp_path / f"model.{suffix}", custom_layers={"Shift": convert})
        x = rng.normal(size=(2, 3)).astype(np.float32)
        np.testing.assert_allclose(ours(x), keras_output(model, x), atol=1e-6)
        assert len(jax.tree.leaves(ours)) == 3
        with pytest.raises(KerasFileError, match="Shift"):
            load_keras(tmp_path / f"model.{suffix}")


@pytest.mark.slow
def test_the_lambda_of_a_keras_1_file_can_be_supplied(data_folder):
    path = data_folder / "keras/naokishibuya__car-behavioral-cloning/model.h5"
    name = "naokishibuya__car-behavioral-cloning__model.h5.npz"
    with np.load(data_folder / "refs" / name) as reference:
        model = load_keras(path, custom_layers={"Lambda": lambda x: x / 127.5 - 1})
        np.testing.assert_allclose(model(reference["x0"]), reference["y0"], atol=1e-5)
        assert model.layer_names[:2] == ["lambda_1", "convolution2d_1"]


@pytest.mark.slow
def test_open_sizes_stay_open(rng):
    def build():
        x = keras.Input((None, None, 2))
        y = layers.Conv2D(3, 3, strides=2, name="c")(x)
        return keras.Model(x, [layers.GlobalAveragePooling2D()(y), y])

    ours = from_keras(built(build))
    assert ours.input_shape == (None, None, 2)
    assert ours.output_shape == ((3,), (None, None, 3))
    assert ours(np.ones((1, 7, 9, 2), np.float32))[1].shape == (1, 3, 4, 3)


def test_a_sequential_without_an_input_asks_for_its_shape():
    model = {"class_name": "Sequential", "config": [plain("r", [])]}
    with pytest.raises(KerasFileError, match="does not say the shape of its input"):
        load_keras(model)
    assert load_keras(model, input_shape=(5, 2)).output_shape == (5, 2)
    model = {"class_name": "Sequential", "config": {"layers": [plain("r", [])],
             "build_input_shape": [None, 7]}}  # fmt: skip
    assert load_keras(model).input_shape == (7,)


def test_keras_1_merges_become_layers(rng):
    merge = plain("m", [[["x", 0, 0], ["r", 0, 0]]], "Merge", mode="concat", concat_axis=-1)
    model = load_keras(functional(plain("r", [[["x", 0, 0]]]), merge, outputs=[["m", 0, 0]]))
    x = rng.normal(size=(1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(model(x), np.concatenate([x, np.maximum(x, 0)], -1))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".json", ""])
def test_content_decides_whatever_the_suffix(suffix, data_folder, tmp_path):
    folder, path = data_folder / "keras/Moonflower2022__MNIST-models", tmp_path / f"model{suffix}"
    formats = {}
    for original in ("mnist_model.h5", "mnist_model.keras"):
        path.write_bytes((folder / original).read_bytes())
        assert load_keras(path).output_shape == (10,)
        formats[original] = inspect_keras(path).format
    path.write_text(json.dumps(functional(plain("r", [[["x", 0, 0, {}]]]), outputs=[["r", 0, 0]])))
    assert load_keras(path).output_shape == (4, 4, 2)
    formats["json"] = inspect_keras(path).format
    assert list(formats.values()) == ["hdf5 model", "keras", "json"]


BACKEND = """
import keras, numpy as np
from keras import layers
from jaxviz.keras import from_keras
model = keras.Sequential([
    keras.Input((7, 6, 2)), layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
    layers.BatchNormalization(), layers.DepthwiseConv2D(2), layers.GlobalAveragePooling2D(),
    layers.Dense(4, activation="softmax")])
x = np.random.default_rng(0).normal(size=(2, 7, 6, 2)).astype("float32")
np.testing.assert_allclose(from_keras(model)(x), model.predict(x, verbose=0), atol=1e-5)
print(keras.backend.backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", *(pytest.param(b, marks=pytest.mark.slow) for b in
                                                ("tensorflow", "torch"))])  # fmt: skip
def test_a_model_in_memory_may_be_of_any_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run([sys.executable, "-c", BACKEND], env=environment, capture_output=True)
    assert run.returncode == 0 and run.stdout.split()[-1].decode() == backend, run.stderr[-2000:]


@pytest.mark.slow
def test_the_order_of_layers_serves_where_names_differ(tmp_path, rng):
    def build(names):
        return keras.Sequential(
            [keras.Input((3,)), *(layers.Dense(3, name=name) for name in names)]
        )

    first, second = built(lambda: build(["a", "b"])), built(lambda: build(["c", "d"]))
    built(lambda: first.save(tmp_path / "first.h5"))
    ours = load_keras((json.loads(second.to_json()), tmp_path / "first.h5"))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(x), keras_output(first, x), atol=1e-6)


@pytest.mark.slow
def test_leftover_and_missing_weights_are_named(tmp_path):
    def build(units):
        return keras.Sequential(
            [keras.Input((3,)), *(layers.Dense(u, name=f"d{i}") for i, u in enumerate(units))]
        )

    built(lambda: build([3, 3, 3]).save(tmp_path / "model.h5"))
    built(lambda: build([3, 3, 3]).save_weights(tmp_path / "model.weights.h5"))
    small = json.loads(built(lambda: build([3, 3])).to_json())
    with pytest.raises(KerasFileError, match='it lacks nothing, and holds "d2" besides'):
        load_keras((small, tmp_path / "model.h5"))
    with pytest.raises(KerasFileError, match='array "layers/dense_2/vars/.*no layer'):
        load_keras((small, tmp_path / "model.weights.h5"))
    large = json.loads(built(lambda: build([3, 3, 3, 3])).to_json())
    with pytest.raises(KerasFileError, match='it lacks "d3", and holds nothing besides'):
        load_keras((large, tmp_path / "model.h5"))
    with pytest.raises(KerasFileError, match='no array "layers/dense_3/vars/0" for the kernel'):
        load_keras((large, tmp_path / "model.weights.h5"))
    wide = json.loads(built(lambda: build([3, 4, 3])).to_json())
    with pytest.raises(
        KerasFileError, match=r'"d1" \(Dense\): its kernel must have shape \(any, 4\)'
    ):
        load_keras((wide, tmp_path / "model.h5"))
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file["model_weights/d0"].visititems(
            lambda name, node: node.__setitem__(0, np.nan) if hasattr(node, "shape") else None
        )
    with pytest.raises(KerasFileError, match='"d0" .* not finite'):
        load_keras(tmp_path / "model.h5")
