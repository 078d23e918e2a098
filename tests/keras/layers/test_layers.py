"""Every layer against Keras: today's, through files and memory, and Keras 2's stored outputs."""

import functools
import inspect

import jax
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.activations import ALL_OBJECTS_DICT

from jaxviz.keras import KerasFileError, from_keras, load_keras

FIRST = {"data_format": "channels_first"}
# Each program runs once: compiling it takes far longer than that.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def keras_numerics():
    """Keras itself mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def randomised(model: "keras.Model", rng: np.random.Generator) -> "keras.Model":
    """Weights of ordinary size, positive variances included, so that no error can hide."""
    pairs = zip(model.get_weights(), model.weights, strict=True)
    model.set_weights([_like(value, variable.path, rng) for value, variable in pairs])
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return model


def _like(value, path, rng):
    if np.asarray(value).dtype.kind != "f":
        return value
    if "variance" in path:
        return rng.uniform(0.5, 1.5, np.shape(value)).astype(np.float32)
    fan = max(int(np.prod(np.shape(value)[:-1])), 1) if np.ndim(value) > 1 else 4
    return (rng.normal(size=np.shape(value)) / np.sqrt(fan)).astype(np.float32)


def strict(function, *args):
    """Ours runs under the strictest rules."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return function(*args)


def assert_same(ours, theirs, tolerance=1e-5):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


LAST_2D = [
    layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
    layers.Conv2D(6, (2, 3), dilation_rate=2, groups=2, use_bias=False),
    layers.Conv2D(3, 4, strides=(3, 2), padding="valid", activation="gelu"),
    layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    layers.Conv2DTranspose(3, (2, 4), strides=(1, 3), padding="valid", activation="tanh"),
    layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1),
    layers.Conv2DTranspose(2, 3, padding="same", dilation_rate=2),
    layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
    layers.DepthwiseConv2D(2, use_bias=False, activation="silu"),
    layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=3),
    layers.SeparableConv2D(5, (3, 2), activation="elu", use_bias=False),
    layers.Dense(7, activation="softmax"),
    layers.EinsumDense("abcd,de->abce", (9, 8, 3), bias_axes="e", activation="relu"),
    layers.EinsumDense("abcd,cde->ace", (8, 3), bias_axes="ce"),
    layers.EinsumDense("...x,xy->...y", 2),
    layers.SpectralNormalization(layers.Conv2D(3, 3)),
    layers.TimeDistributed(layers.Conv1D(3, 2)),
    layers.TimeDistributed(
        keras.Sequential([keras.Input((8, 4)), layers.Conv1D(2, 3), layers.BatchNormalization()])
    ),
    layers.MaxPooling2D(2),
    layers.MaxPooling2D(3, strides=2, padding="same"),
    layers.AveragePooling2D((2, 3)),
    layers.AveragePooling2D(3, strides=(1, 2), padding="same"),
    layers.GlobalAveragePooling2D(),
    layers.GlobalMaxPooling2D(keepdims=True),
    layers.BatchNormalization(),
    layers.BatchNormalization(axis=1, center=False, scale=False),
    layers.LayerNormalization(),
    layers.LayerNormalization(axis=[1, 2, 3], center=False),
    layers.LayerNormalization(axis=(1, 3), scale=False),
    layers.GroupNormalization(groups=2),
    layers.GroupNormalization(groups=-1, epsilon=0.1),
    layers.RMSNormalization(),
    layers.UnitNormalization(axis=-1),
    layers.Normalization(axis=-1),
    layers.Normalization(axis=None, mean=0.3, variance=2.0),
    layers.Normalization(axis=-1, mean=[1.0, 2, 3, 4], variance=[1.0, 2, 1, 2], invert=True),
    layers.LeakyReLU(negative_slope=0.1),
    layers.PReLU(shared_axes=[1, 2]),
    layers.PReLU(),
    layers.ELU(alpha=0.7),
    layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2),
    layers.ReLU(negative_slope=0.2),
    layers.Softmax(axis=1),
    layers.Conv2D(2, 1, activation=layers.LeakyReLU(0.3)),
    layers.Flatten(),
    layers.Reshape((4, -1)),
    layers.Permute((3, 1, 2)),
    layers.ZeroPadding2D(((1, 2), (0, 3))),
    layers.Cropping2D(((1, 2), (0, 3))),
    layers.UpSampling2D((2, 3)),
    layers.UpSampling2D(2, interpolation="bilinear"),
    layers.UpSampling2D((3, 2), interpolation="bicubic"),
    layers.Resizing(5, 13),
    layers.Resizing(20, 7, interpolation="nearest"),
    layers.Resizing(4, 4, crop_to_aspect_ratio=True),
    layers.Resizing(6, 12, pad_to_aspect_ratio=True, antialias=True),
    layers.Rescaling(1 / 3, offset=-1),
    layers.CenterCrop(4, 5),
    layers.CenterCrop(14, 5),
    layers.Dropout(0.5),
    layers.SpatialDropout2D(0.5),
    layers.AlphaDropout(0.5),
    layers.GaussianNoise(1.0),
    layers.GaussianDropout(0.5),
    layers.ActivityRegularization(l2=0.1),
    layers.Identity(),
    layers.AdaptiveAveragePooling2D((4, 8)),
    layers.AdaptiveMaxPooling2D((9, 3)),
    layers.AdaptiveAveragePooling2D((2, 11)),
]
# One needs arguments, which no file can give it; what Keras calls sparsemax does not sum to one.
REFUSED = {"threshold", "sparsemax"}
ACTIVATIONS = sorted({*dir(keras.activations)} & {*ALL_OBJECTS_DICT} - REFUSED)
FIRST_2D = [
    layers.Conv2D(3, 3, strides=2, padding="same", activation="relu", **FIRST),
    layers.Conv2DTranspose(3, 3, strides=2, padding="same", **FIRST),
    layers.SeparableConv2D(5, 3, **FIRST),
    layers.MaxPooling2D(3, strides=2, padding="same", **FIRST),
    layers.GlobalAveragePooling2D(**FIRST),
    layers.BatchNormalization(axis=1),
    layers.GroupNormalization(groups=3, axis=1),
    layers.Flatten(**FIRST),
    layers.ZeroPadding2D(1, **FIRST),
    layers.Cropping2D(1, **FIRST),
    layers.UpSampling2D(2, **FIRST),
    layers.AdaptiveMaxPooling2D((2, 5), **FIRST),
    layers.Resizing(5, 5, **FIRST),
    layers.SpatialDropout2D(0.2, **FIRST),
]
LAST_1D = [
    layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
    layers.Conv1D(4, 2, strides=2, padding="same", groups=2),
    layers.Conv1DTranspose(3, 4, strides=3),
    layers.DepthwiseConv1D(3, depth_multiplier=2),
    layers.SeparableConv1D(3, 3, strides=2, padding="same"),
    layers.MaxPooling1D(2),
    layers.AveragePooling1D(3, strides=2, padding="same"),
    layers.GlobalMaxPooling1D(),
    layers.GlobalAveragePooling1D(),
    layers.ZeroPadding1D((1, 2)),
    layers.Cropping1D((2, 1)),
    layers.AdaptiveMaxPooling1D(3),
    layers.UpSampling1D(3),
    layers.SpatialDropout1D(0.2),
    layers.MultiHeadAttention(2, 3),
]
LAST_3D = [
    layers.Conv3D(3, (2, 3, 1), strides=(1, 2, 1), padding="same"),
    layers.Conv3DTranspose(2, 2, strides=2),
    layers.MaxPooling3D(2, padding="same"),
    layers.AveragePooling3D((1, 2, 3), padding="same"),
    layers.GlobalAveragePooling3D(),
    layers.ZeroPadding3D((1, 0, 2)),
    layers.Cropping3D(1),
    layers.AdaptiveAveragePooling3D((3, 2, 4)),
    layers.UpSampling3D((1, 2, 1)),
]


def every_layer(shape: tuple, each: list) -> "keras.Model":
    """One model whose outputs are all the layers, side by side."""
    inputs = keras.Input(shape)
    two = {layer for layer in each if isinstance(layer, layers.MultiHeadAttention)}
    outputs = [layer(inputs, inputs) if layer in two else layer(inputs) for layer in each]
    return keras.Model(inputs, outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "each", "suffix"),
    [
        ((9, 8, 4), LAST_2D, ".keras"),
        ((6, 7, 8), FIRST_2D, ".h5"),
        ((10, 4), LAST_1D, ".keras"),
        ((4, 5, 6, 2), LAST_3D, ".h5"),
    ],
    ids=["2d", "2d channels first", "1d", "3d"],
)
@pytest.mark.filterwarnings("ignore")
def test_every_layer_equals_keras(shape, each, suffix, tmp_path, rng):
    model = randomised(every_layer(shape, each), rng)
    model.save(tmp_path / f"model{suffix}")
    images = rng.normal(size=(2, *shape)).astype(np.float32)
    theirs = compiled(lambda x: model(x, training=False))(images)
    loaded = load_keras(tmp_path / f"model{suffix}")
    ours = strict(compiled(lambda m, x: m(x)), loaded, images)
    assert loaded.output_shape == tuple(y.shape[1:] for y in theirs)
    for layer, mine, theirs_ in zip(each, ours, theirs, strict=True):
        try:
            assert_same(mine, theirs_, 2e-5)
        except AssertionError as error:
            raise AssertionError(f"{layer.name}: {error}") from error


def test_every_activation_equals_keras(rng):
    model = every_layer((8,), [layers.Activation(name) for name in ACTIVATIONS])
    assert len(ACTIVATIONS) > 25
    x = 2 * rng.normal(size=(50, 8)).astype(np.float32)
    for name, mine, theirs in zip(ACTIVATIONS, from_keras(model)(x), model(x), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6, err_msg=name)
    for name in REFUSED:
        entry = {"class_name": "Activation", "config": {"name": "a", "activation": name}}
        with pytest.raises(KerasFileError, match=f"activation '{name}' is not known"):
            load_keras({"class_name": "Sequential", "config": [entry]}, input_shape=(3,))


def augmentations() -> list:
    """Every layer of Keras that changes images at random, and those that only train with it."""
    needed = {"factor": 1, "height_factor": 0.2, "width_factor": 0.2, "max_x": 3}
    others = ("AutoContrast", "AugMix", "CutMix", "Equalization", "MixUp", "RandAugment",
              "Solarization")  # fmt: skip
    made = []
    for name in sorted({n for n in dir(layers) if n.startswith("Random")} | {*others}):
        if name == "RandomCrop":  # crops at inference too, and is refused
            continue
        kind = getattr(layers, name)
        parameters = inspect.signature(kind).parameters.items()
        made.append(kind(**{k: needed[k] for k, p in parameters if p.default is p.empty
                            and p.kind is p.POSITIONAL_OR_KEYWORD}))  # fmt: skip
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_augmentation_is_inference_as_keras_does_it(rng):
    x = rng.uniform(0, 255, (2, 6, 6, 3)).astype(np.float32)
    x[1, :, :, 2] = 7
    for layer in augmentations():
        entry = keras.saving.serialize_keras_object(layer)
        model = {"class_name": "Sequential", "config": {"layers": [entry]}}
        found = np.asarray(load_keras(model, input_shape=(6, 6, 3))(x))
        expected = np.asarray(layer(x, training=False))
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=layer.name)
        assert (found == x).all() != layer.name.startswith("auto_contrast")
