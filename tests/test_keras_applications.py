"""Every architecture of `keras.applications`, with random weights and odd statistics, equals Keras.

Batch-norm statistics are those of the batch times a random factor: with others the signal dies in
deep networks, and any two networks would agree.
"""

import gc
import inspect

import jax
import keras
import numpy as np
import pytest
from flax import nnx
from keras import applications
from keras.src.applications import convnext, densenet, efficientnet, efficientnet_v2, nasnet, resnet

from jaxviz.keras import from_keras, load_keras

# Keras converts its variables in a way that NumPy 2 frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WHOLE = [name for name in dir(applications) if inspect.isfunction(getattr(applications, name))]
LEAST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
COMMON = {"weights": None, "classes": 10, "classifier_activation": None}


def shape_of(name: str) -> dict:
    size = LEAST.get(name, 32)
    return {"input_shape": (size, size, 3)}


# The families' own constructors, made shallow.
SHALLOW = {
    "ConvNeXt": lambda: convnext.ConvNeXt(
        depths=[1, 2, 1, 1], projection_dims=[8, 16, 24, 32], drop_path_rate=0.1, **COMMON,
        name="convnext", **shape_of("")),
    "DenseNet": lambda: densenet.DenseNet([1, 2, 1, 1], **COMMON, name="d", **shape_of("")),
    "EfficientNet": lambda: efficientnet.EfficientNet(
        0.25, 0.2, 32, name="e", **COMMON, **shape_of("")),
    "EfficientNetV2": lambda: efficientnet_v2.EfficientNetV2(
        0.25, 0.2, 32, name="efficientnetv2-b0", **COMMON, **shape_of("")),
    "MobileNet": lambda: applications.MobileNet(alpha=0.25, **COMMON, **shape_of("")),
    "MobileNetV2": lambda: applications.MobileNetV2(alpha=0.35, **COMMON, **shape_of("")),
    "MobileNetV3": lambda: applications.MobileNetV3Small(
        alpha=0.75, dropout_rate=0.1, **COMMON, **shape_of("")),
    "NASNet": lambda: nasnet.NASNet(
        penultimate_filters=96, num_blocks=1, stem_block_filters=8, skip_reduction=False,
        default_size=32, **COMMON, name="n", **shape_of("")),
    "ResNet": lambda: resnet.ResNet(
        lambda x: resnet.stack_residual_blocks_v1(x, 8, 2, stride1=1, name="conv2"), False, True,
        **COMMON, name="resnet", **shape_of("")),
    "ResNetV2": lambda: resnet.ResNet(
        lambda x: resnet.stack_residual_blocks_v2(x, 8, 2, stride1=2, name="conv2"), True, True,
        **COMMON, name="resnetv2", **shape_of("")),
    "VGG": lambda: applications.VGG16(**COMMON, **shape_of("")),
    "Xception": lambda: applications.Xception(**COMMON, **shape_of("Xception")),
    "InceptionV3": lambda: applications.InceptionV3(**COMMON, **shape_of("InceptionV3")),
}  # fmt: skip


# Keras takes ten seconds to build each of the others.
QUICK = ("ConvNeXt", "DenseNet", "MobileNetV3", "ResNet", "ResNetV2", "Xception")


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

    @jax.jit
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
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = model.predict(images, verbose=0)
    scores = np.asarray(jax.jit(lambda m, x: m(x))(ours, images))
    size = np.abs(theirs).max()
    assert np.std(theirs, axis=0).max() > 1e-3 * size, "the network ignores its input"
    assert np.abs(scores - theirs).max() <= 1e-4 * size


def prepared(build, rng: np.random.Generator, *, deep: bool) -> tuple["keras.Model", np.ndarray]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = build()
        randomise(model, rng)
    images = rng.uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    if deep:
        calibrate(model, images, rng)
    return model, images


@pytest.mark.parametrize(
    "family",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHALLOW],
)
def test_one_network_of_each_family_equals_keras(family, rng):
    model, images = prepared(SHALLOW[family], rng, deep=family not in QUICK)
    assert_equals_keras(model, from_keras(model), images)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_network_equals_keras_through_its_file(name, rng, tmp_path):
    build = getattr(applications, name)
    model, images = prepared(lambda: build(**COMMON, **shape_of(name)), rng, deep=True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model.save(tmp_path / "model.keras")
    assert_equals_keras(model, load_keras(tmp_path / "model.keras"), images)
    del model
    keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
