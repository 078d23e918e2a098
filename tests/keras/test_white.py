"""What white is to a model is read off its first layers."""

import numpy as np
import pytest

from jaxviz.images import preprocess, preprocessing_of
from jaxviz.keras import load_keras


def chain(*layers, shape=(8, 8, 3)):
    configs = [
        {"class_name": kind, "config": {"name": f"layer{i}", **config}}
        for i, (kind, config) in enumerate(layers)
    ]
    configs[0]["config"]["batch_input_shape"] = [None, *shape]
    return {"class_name": "Sequential", "config": {"name": "chain", "layers": configs}}


PAD = ("ZeroPadding2D", {"padding": [[1, 1], [1, 1]]})
FLAT = ("Flatten", {})
RELU = ("ReLU", {})


@pytest.mark.parametrize(
    ("layers", "white"),
    [
        ([("Rescaling", {"scale": 1 / 255}), FLAT], 255.0),
        ([("Rescaling", {"scale": 1 / 127.5, "offset": -1}), FLAT], 255.0),
        ([("Rescaling", {"scale": 2.0, "offset": -1.0}), FLAT], 1.0),
        ([PAD, ("Rescaling", {"scale": 1 / 255}), FLAT], 255.0),
        ([FLAT], None),
        ([RELU, ("Rescaling", {"scale": 1 / 255})], None),
    ],
)
def test_rescaling_tells_it(layers, white):
    model = load_keras(chain(*layers))
    assert model.white == white
    own = preprocessing_of(model)
    assert own is None if white is None else own.scale == white


def normalization(mean, variance):
    config = {"axis": [-1], "mean": mean, "variance": variance}
    return load_keras(chain(("Normalization", config), FLAT))


def test_normalization_tells_it():
    assert normalization([123.7, 116.8, 103.9], [3409.0, 3262.0, 3291.0]).white == 255.0
    assert normalization([0.485, 0.456, 0.406], [0.0524, 0.0502, 0.0506]).white == 1.0


def test_a_photograph_comes_in_the_model_s_units():
    model = load_keras(chain(("Rescaling", {"scale": 1 / 255}), FLAT))
    image = preprocess(np.full((8, 8, 3), 51, np.uint8), model)
    np.testing.assert_allclose(image, 51, rtol=1e-6)
