"""Every architecture of `keras.applications`, with random weights and odd statistics, equals Keras.

Batch-norm statistics are those of the batch times a random factor: with others the signal dies in
deep networks, and any two networks would agree.
"""

import functools
import gc
import inspect

import jax
import keras
import numpy as np
import pytest
from flax import nnx
from keras import applications
from keras.src.applications import (
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    inception_resnet_v2,
    nasnet,
    resnet,
    xception,
)

from jaxviz.keras import from_keras, load_keras

# Keras converts its variables in a way that NumPy 2 frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WHOLE = [name for name in dir(applications) if inspect.isfunction(getattr(applications, name))]
LEAST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
COMMON = {"weights": None, "classes": 10, "classifier_activation": None}


def shape_of(name: str) -> dict:
    size = LEAST.get(name, 32)
    return {"input_shape": (size, size, 3)}


# The smallest network of each family (InceptionResNetV2 has InceptionV3's layers). Of QUICK every
# run of the tests has some; the slow ones have all, whole and through files.
QUICK = ("MobileNetV2", "MobileNetV3Small", "ResNet50V2")
FAMILIES = [
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2",
    "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2",
    "VGG16", "Xception",
]  # fmt: skip

# Compiling takes as long as there are layers. Of each series of equal blocks the first ones hold
# every layer and connection: one block, or two where the first has no shortcut.
SERIES = {
    "DenseNet121": (densenet, 1),
    "EfficientNetB0": (efficientnet, 2),
    "EfficientNetV2B0": (efficientnet_v2, 2),
    "InceptionResNetV2": (inception_resnet_v2, 1),
    "NASNetMobile": (nasnet, 1),
    "ResNet50": (resnet, 1),
    "ResNet50V2": (resnet, 1),
    "Xception": (xception, 1),
}

# Each program runs once: compiling it takes far longer than that.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def no_initial_weights(monkeypatch):
    """Keras compiles a random number generator for each shape of weights: minutes, for nothing."""

    def zeros(self, shape, dtype=None, **options):
        return np.zeros(shape, np.float32)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)


def randomise(model: "keras.Model", rng: np.random.Generator) -> None:
    """Kernels that keep the size of the signal, and odd statistics."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        own = [v for v in layer.weights if not getattr(layer, "_layers", None)]
        layer_is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        for variable in own:
            kind, shape = variable.name, tuple(variable.shape)
            if kind.endswith("kernel"):
                depthwise = layer_is_depthwise or kind.startswith("depthwise")
                fan = np.prod(shape[:2]) if depthwise else np.prod(shape[:-1])
                value = rng.normal(0, np.sqrt(2 / fan), shape)
            elif kind == "gamma" and "layer_scale" not in variable.path or "variance" in kind:
                value = rng.uniform(0.5, 1.5, shape)
            elif kind in ("beta", "bias", "moving_mean", "mean"):
                value = rng.normal(0, 0.2, shape)
            else:
                continue
            variable.assign(value.astype(np.float32))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def calibrate(model: "keras.Model", images: np.ndarray, rng: np.random.Generator) -> None:
    """Set every batch norm's statistics to the batch's own, a little off.

    A channel that hardly varies in four images would amplify rounding, so it gets a least variance.
    """
    ours = from_keras(model)
    ours.train()

    @compiled
    def statistics(ours, images):
        before = nnx.state(ours, nnx.BatchStat)
        ours(images, rngs=nnx.Rngs(0))
        return before, nnx.state(ours, nnx.BatchStat)

    before, after = (nnx.to_pure_dict(state) for state in statistics(ours, images))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            name, keep = ours._graph.attributes[layer.name], layer.momentum
            batch = jax.tree.map(
                lambda new, old, k=keep: (new - k * old) / (1 - k), after[name], before[name]
            )
            layer.moving_mean.assign(batch["mean"] + rng.normal(0, 0.1, batch["mean"].shape))
            odd = rng.uniform(0.5, 1.5, batch["var"].shape)
            least = 0.1 * batch["var"].mean() + 1e-6
            layer.moving_variance.assign(np.maximum(batch["var"], least) * odd)


def assert_equals_keras(model: "keras.Model", ours, images: np.ndarray) -> None:
    variables = [[v.value for v in vs] for vs in (model.trainable_variables,
                                                  model.non_trainable_variables)]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        call = compiled(lambda v, x: model.stateless_call(*v, x, training=False)[0])
        theirs = np.asarray(call(variables, images))
    scores = np.asarray(compiled(lambda m, x: m(x))(ours, images))
    size = np.abs(theirs).max()
    assert np.std(theirs, axis=0).max() > 1e-3 * size, "the network ignores its input"
    assert np.abs(scores - theirs).max() <= 1e-4 * size


def check(name: str, rng: np.random.Generator, convert) -> None:
    """Build a network, give it weights, convert it, and compare what both predict."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = getattr(applications, name)(**COMMON, **shape_of(name))
        randomise(model, rng)
    images = rng.uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    calibrate(model, images, rng)
    assert_equals_keras(model, convert(model), images)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_one_network_of_each_family_equals_keras(name, rng, monkeypatch):
    if name in SERIES:
        module, most = SERIES[name]
        monkeypatch.setattr(module, "range", lambda *ends: range(*ends)[:most], raising=False)
    monkeypatch.setitem(convnext.MODEL_CONFIGS["tiny"], "depths", [1, 1, 2, 1])
    check(name, rng, from_keras)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_network_equals_keras_through_its_file(name, rng, tmp_path):
    def through_file(model):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            model.save(tmp_path / "model.keras")
        return load_keras(tmp_path / "model.keras")

    check(name, rng, through_file)
    keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
