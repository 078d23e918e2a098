"""What a loaded model is good for: training, saving, summaries, proofs, other people's modules."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from keras import layers

from jaxviz.cli.main import main
from jaxviz.keras import (
    KerasFileError,
    convert_keras,
    from_keras,
    load_keras,
    load_weights,
    summary,
    to_linen_params,
    verify_keras,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
MNIST = "keras/Moonflower2022__MNIST-models/mnist_model.h5"


def keras_model() -> "keras.Model":
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, name="conv", activation="relu"),
            layers.BatchNormalization(name="norm", momentum=0.9),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.3, name="drop"),
            layers.Dense(10, activation="softmax", name="preds"),
        ], name="small")  # fmt: skip
        model.get_layer("norm").moving_variance.assign([0.5, 1.0, 2.0, 3.0])
    return model


@pytest.fixture(scope="module")
def theirs():
    return keras_model()


@pytest.fixture
def ours(theirs):
    return from_keras(theirs)


@pytest.fixture
def images(rng):
    return rng.uniform(size=(16, 8, 8, 1)).astype(np.float32)


def saved(theirs, path):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs.save(path)
    return path


@pytest.mark.slow
def test_a_training_step_lowers_the_loss_and_updates_statistics(data_folder):
    with np.load(data_folder / "mnist.npz") as mnist:
        digits = mnist["x_train"][:64, ::4, ::4, None].astype(np.float32)[:, :7, :7] / 255
        labels = mnist["y_train"][:64].astype(np.int32)
    digits = np.pad(digits, ((0, 0), (0, 1), (0, 1), (0, 0)))
    model = from_keras(keras_model())
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    before = np.asarray(model.norm.mean[...])

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            scores = jnp.log(model(digits, rngs=nnx.Rngs(0)) + 1e-9)
            return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=-1))

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    model.train()
    with jax.numpy_dtype_promotion("standard"):
        first, second = float(step(model, optimizer)), float(step(model, optimizer))
    assert second < first
    assert np.abs(np.asarray(model.norm.mean[...]) - before).max() > 1e-3


@pytest.mark.slow
def test_training_statistics_are_kerass(theirs, ours, images):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        inputs = ours.conv(jnp.asarray(images))
        twin = layers.BatchNormalization(momentum=0.9)
        twin.build(inputs.shape)
        twin.set_weights(theirs.get_layer("norm").get_weights())
        expected = np.asarray(twin(inputs, training=True))
    ours.train()
    np.testing.assert_allclose(ours.norm(inputs), expected, atol=1e-5)
    np.testing.assert_allclose(ours.norm.mean[...], twin.moving_mean, atol=1e-6)
    np.testing.assert_allclose(ours.norm.var[...], twin.moving_variance, atol=1e-6)


@pytest.mark.slow
def test_dropout_needs_rngs_in_training_and_scales(ours, images):
    ours.train()
    with pytest.raises(ValueError, match="`rngs` must be given in training mode"):
        ours(images)
    ones = jnp.ones((4, 5000))
    dropped = np.asarray(ours.drop(ones, rngs=nnx.Rngs(0)))
    assert set(np.unique(dropped.round(4))) == {0.0, np.float32(1 / 0.7).round(4)}
    assert abs(dropped.mean() - 1) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "mean", "deviation"),
    [
        (layers.GaussianNoise(0.5), 1.0, 0.5),
        (layers.GaussianDropout(0.2), 1.0, 0.5),
        (layers.AlphaDropout(0.3), None, None),
        (layers.SpatialDropout1D(0.5), 1.0, 1.0),
    ],
)
def test_noise_has_its_moments_in_training(layer, mean, deviation):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        noise = from_keras(keras.Sequential([keras.Input((5, 4000)), layer])).layer(0)
    noise.train()
    x = jnp.ones((8, 5, 4000))
    if mean is None:
        x, mean, deviation = jax.random.normal(jax.random.key(0), x.shape), 0.0, 1.0
    drawn = np.asarray(noise(x, rngs=nnx.Rngs(1)))
    assert abs(drawn.mean() - mean) < 0.02 and abs(drawn.std() - deviation) < 0.02


@pytest.mark.slow
def test_orbax_restores_what_was_saved(ours, images, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        graph, state = nnx.split(ours)
        checkpointer.save(tmp_path / "model", state)
        checkpointer.wait_until_finished()
        blank = jax.tree.map(jnp.zeros_like, state)
        restored = checkpointer.restore(tmp_path / "model", blank)
    np.testing.assert_array_equal(nnx.merge(graph, restored)(images), ours(images))


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors", "out"])
def test_conversion_writes_every_array(name, theirs, ours, images, tmp_path):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    source = saved(theirs, tmp_path / "model.keras")
    out = convert_keras(source, tmp_path / name)
    if name.endswith("npz"):
        with np.load(out) as archive:
            arrays = dict(archive)
    elif name.endswith("safetensors"):
        arrays = pytest.importorskip("safetensors.numpy").load_file(out)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(out, nnx.to_pure_dict(nnx.state(ours)))
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        arrays = {"/".join(k.key for k in path): np.asarray(leaf) for path, leaf in leaves}
    assert set(arrays) == {
        "conv/kernel", "conv/bias", "norm/scale", "norm/bias", "norm/mean", "norm/var",
        "depth/kernel", "depth/bias", "preds/kernel", "preds/bias",
    }  # fmt: skip
    np.testing.assert_array_equal(arrays["norm/var"], ours.norm.var[...])
    with pytest.raises(ValueError, match="`out` must not exist yet"):
        convert_keras(source, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["model.keras", name])


def test_conversion_leaves_nothing_behind(theirs, tmp_path):
    source = saved(theirs, tmp_path / "model.keras")
    with pytest.raises(ValueError, match="folder that exists"):
        convert_keras(source, tmp_path / "nowhere" / "out.npz")
    with pytest.raises(KerasFileError):
        convert_keras(tmp_path / "missing.keras", tmp_path / "out.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_the_command_line_inspects_and_converts(theirs, data_folder, tmp_path, capsys):
    source, out = saved(theirs, tmp_path / "model.keras"), tmp_path / "out.npz"
    assert main(["inspect", str(source)]) == 0
    printed = capsys.readouterr().out
    assert "depth" in printed and f"{theirs.count_params():,}" in printed and "yes" in printed
    assert main(["convert", str(source), str(out)]) == 0
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["preds/bias"], theirs.get_layer("preds").bias)
    refused = data_folder / "keras/naokishibuya__car-behavioral-cloning/model.h5"
    assert main(["inspect", str(refused)]) == 1
    assert (
        'no: The model has layers that cannot be read: Lambda (1 layer: "lambda_1")'
        in capsys.readouterr().out
    )
    assert main(["convert", str(refused), str(tmp_path / "refused.npz")]) == 2
    assert not (tmp_path / "refused.npz").exists()


def test_summary_counts_as_keras_does(theirs, ours, capsys):
    summary(ours)
    text = capsys.readouterr().out
    total, trainable = theirs.count_params(), sum(w.numpy().size for w in theirs.trainable_weights)
    assert f"Parameters: {total:,} in all, {trainable:,} trainable" in text
    assert "preds (Dense)" in text and "(batch, 6, 6, 4)" in text


@pytest.mark.slow
def test_verification_agrees_with_keras(theirs, images, tmp_path, capsys):
    path = saved(theirs, tmp_path / "model.keras")
    found = verify_keras(path, images)
    assert found.same and [row.layer for row in found.layers][-2:] == ["preds", "output"]
    assert "All 7 layers agree" in capsys.readouterr().out
    assert verify_keras(theirs, images).same
    (tmp_path / "model.json").write_text(theirs.to_json())
    with jax.numpy_dtype_promotion("standard"):
        theirs.save_weights(tmp_path / "model.weights.h5")
    assert verify_keras((tmp_path / "model.json", tmp_path / "model.weights.h5"), images).same


def test_verification_names_the_first_layer_that_differs(theirs, ours, images, capsys):
    ours.norm.mean[...] = ours.norm.mean[...] + 0.1
    found = verify_keras(ours, images, reference=theirs)
    assert not found.same and found.first_difference.layer == "norm"
    assert 'The first layer that differs is "norm"' in capsys.readouterr().out


@pytest.mark.parametrize(
    "mine, reference, same",
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (np.nan, 1, False),
        (1, np.nan, False),
        (np.inf, 1, False),
        (1, np.inf, False),
    ],
)
def test_verification_takes_nan_and_infinity_for_themselves_alone(mine, reference, same):
    relu = {"class_name": "ReLU", "config": {"name": "r", "batch_shape": [None, 2]}}
    relu = {"class_name": "Sequential", "config": [relu]}
    images, wanted = (np.array([[x, 2.0]], np.float32) for x in (mine, reference))
    assert verify_keras(relu, images, reference={"r": wanted}).same == same


@pytest.mark.slow
def test_verification_takes_stored_outputs(data_folder):
    name = MNIST.removeprefix("keras/").replace("/", "__") + ".npz"
    with np.load(data_folder / "refs" / name) as stored:
        inputs, expected = stored["x0"], stored["y0"]
    assert verify_keras(data_folder / MNIST, inputs, reference=expected).same
    assert not verify_keras(data_folder / MNIST, inputs, reference=expected * 1.01).same
    with pytest.raises(ValueError, match=r"`reference` must name layers .*'conv'"):
        verify_keras(data_folder / MNIST, inputs, reference={"conv": expected})
    with pytest.raises(ValueError, match=r"`reference` must have shape \(4, 10\)"):
        verify_keras(data_folder / MNIST, inputs, reference=expected[:2])
    with pytest.raises(ValueError, match="`reference` must be given for a model"):
        verify_keras(load_keras(data_folder / MNIST), inputs)
    lambda_file = data_folder / "keras/naokishibuya__car-behavioral-cloning/model.h5"
    with pytest.raises(ValueError, match="`reference` must be given, Keras cannot load this"):
        verify_keras(lambda_file, inputs, custom_layers={"Lambda": lambda x: x})


def test_verification_needs_keras_or_a_reference(data_folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    with pytest.raises(ValueError, match="given where Keras is not installed"):
        verify_keras(data_folder / MNIST, np.zeros((1, 28, 28, 1), np.float32))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="VALID", name="conv")(x))
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)
        depth = nn.Conv(8, (3, 3), padding="VALID", feature_group_count=4, name="depth")
        x = depth(x).reshape(x.shape[0], -1)
        return nn.softmax(nn.Dense(10, name="preds")(x))


@pytest.mark.slow
def test_linen_params_serve_a_linen_module(ours, images):
    variables = to_linen_params(ours)
    with jax.numpy_rank_promotion("allow"):
        found = Linen().apply(variables, images)
    np.testing.assert_allclose(found, ours(images), atol=1e-6)


class Own(nnx.Module):
    """The same network, under other names where `rename` says so."""

    def __init__(self, rename: bool = False, units: int = 10):
        rngs = nnx.Rngs(0)
        first, last = ("stem", "head") if rename else ("conv", "preds")
        setattr(self, first, nnx.Conv(1, 4, (3, 3), padding="VALID", rngs=rngs))
        self.norm = nnx.BatchNorm(4, epsilon=1e-3, use_running_average=True, rngs=rngs)
        self.depth = nnx.Conv(4, 8, (3, 3), padding="VALID", feature_group_count=4, rngs=rngs)
        setattr(self, last, nnx.Linear(128, units, rngs=rngs))
        self.first, self.last = first, last

    def __call__(self, x):
        x = self.depth(self.norm(nnx.relu(getattr(self, self.first)(x))))
        return nnx.softmax(getattr(self, self.last)(x.reshape(x.shape[0], -1)))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5", "weights.h5"])
@pytest.mark.parametrize("rename", [False, True])
def test_weights_go_into_a_module_of_ones_own(suffix, rename, theirs, ours, images, tmp_path):
    path = tmp_path / f"model.{suffix}"
    with jax.numpy_dtype_promotion("standard"):
        (theirs.save_weights if "weights" in suffix else theirs.save)(path)
    module = Own(rename)
    loaded = load_weights(module, path)
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(loaded(images), ours(images), atol=1e-6)
        assert np.abs(module(images) - ours(images)).max() > 1e-3
        variables = Linen().init(jax.random.key(0), images)
        found = Linen().apply(load_weights(variables, path), images)
    np.testing.assert_allclose(found, ours(images), atol=1e-6)


@pytest.mark.slow
def test_every_mismatch_of_weights_is_listed(theirs, tmp_path):
    path = saved(theirs, tmp_path / "model.h5")
    with pytest.raises(KerasFileError, match=r'"preds/kernel" has shape \(128, 9\), the file') as e:
        load_weights(Own(units=9), path)
    assert '"preds/bias" has shape (9,)' in str(e.value)
    module = Own()
    module.extra = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(KerasFileError, match='module\'s "extra" has no weights in the file'):
        load_weights(module, path)
    del module.extra, module.preds
    with pytest.raises(KerasFileError, match='file\'s layer "preds" .* has no place'):
        load_weights(module, path)
    (tmp_path / "a.json").write_text(json.dumps({"class_name": "Sequential", "config": []}))
    with pytest.raises(KerasFileError, match="The file holds no weights"):
        load_weights(module, tmp_path / "a.json")
