"""The tutorial's loop, restated in NumPy with a real Keras model as scorer, equals one pass."""

from pathlib import Path

import jax
import numpy as np
import pytest
from oracles import slow_seed_loop

from jaxviz import models, presets
from jaxviz.datasets import load_mnist
from jaxviz.keras import load_keras
from jaxviz.occlusion.occlude import occlude

MNIST_CNN = Path(models.__file__).with_name("mnist_cnn.keras")
SIZES = [2, 4, 7, 14, 3, 5]  # the last two do not divide 28: there the published loop crashes


@pytest.fixture(scope="module")
def model():
    return load_keras(MNIST_CNN)


@pytest.fixture(scope="module")
def predict():
    """The same model, loaded and run by Keras itself."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend than JAX: set KERAS_BACKEND=jax")
    model = keras.saving.load_model(MNIST_CNN)
    call = jax.jit(lambda images: model(images, training=False))

    def predict(images):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return call(images.astype(np.float32))

    return predict


@pytest.fixture(scope="module")
def digits(data_folder):
    images, labels = load_mnist(data_folder / "mnist.npz", "test")
    return images[:50], labels[:50]


SLOW = pytest.mark.slow  # thousands of forward passes by Keras, one by one


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, count",
    [(4, 20), (7, 20), (14, 20), (5, 20), (2, 5), (3, 5)]
    + [pytest.param(size, 50, marks=SLOW) for size in (2, 3, 4, 5)],
)
def test_the_loop_equals_one_pass(model, predict, digits, size, count):
    """Heatmap to 1e-5, class_pixels and counters equal, on each of the digits."""
    images, labels = digits[0][:count], digits[1][:count]
    preset = presets.seed(size)
    occ = occlude(model, images, **preset.occlude)
    heatmaps = occ.heatmap(target=labels, **preset.heatmap)
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        heatmap, class_pixels, counters = slow_seed_loop(predict, image, size, label)
        np.testing.assert_allclose(heatmaps[n], heatmap, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(occ.class_map()[n], class_pixels)
        assert occ.class_counts()[n] == counters


@pytest.mark.parametrize("size", SIZES)
def test_there_is_one_position_per_cell(model, digits, size):
    images, _ = digits
    occ = occlude(model, images[0], **presets.seed(size).occlude)
    assert occ.grid.shape == (-(-28 // size),) * 2
    assert sum(occ.class_counts().values()) == occ.grid.size
    assert not np.isnan(occ.heatmap(reduce="cell")).any()
