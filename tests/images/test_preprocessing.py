"""Photographs in a model's size and units, by formula, by name, and as the model says."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxviz.images import NAMED, Preprocessing, named_preprocessing, preprocess

SHAPE = (4, 4, 3)


def model(shape=SHAPE, **said):
    return SimpleNamespace(input_shape=shape, **said)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("unit", [0.2, 0.4, 1.0]),
        ("raw", [51, 102, 255]),
        ("tf", [-0.6, -0.2, 1.0]),
        ("torch", [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("caffe", [255 - 103.939, 102 - 116.779, 51 - 123.68]),
    ],
)
def test_names_are_the_well_known_formulas(name, wanted):
    photo = np.zeros((4, 4, 3), np.uint8) + np.array([51, 102, 255], np.uint8)
    image = preprocess(photo, model(), preprocessing=name)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[1, 2], wanted, rtol=1e-5)
    np.testing.assert_allclose(NAMED[name].undo(image[None])[0, 0, 0], [0.2, 0.4, 1], atol=1e-6)


def test_the_model_says_what_it_takes(tmp_path, rng):
    photo = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    own = Preprocessing(scale=255, mean=(127.0,), std=(128.0,))
    asked = preprocess(photo, model(preprocessing=own))
    np.testing.assert_array_equal(asked, preprocess(photo, model(), preprocessing=own))
    np.testing.assert_array_equal(
        preprocess(photo, model(white=255.0)), preprocess(photo, model(), preprocessing="raw")
    )
    Image.fromarray(photo).save(tmp_path / "photo.png")
    from_file = preprocess(tmp_path / "photo.png", model(), preprocessing="raw")
    np.testing.assert_array_equal(from_file, preprocess(photo, model(), preprocessing="raw"))
    with pytest.raises(ValueError, match='"model" needs a model that says what it takes'):
        preprocess(photo, model())


def test_crop_keeps_the_aspect_and_batches_are_images(rng):
    photos = rng.integers(0, 256, (2, 4, 8, 3), dtype=np.uint8)
    cropped = preprocess(photos, model(), preprocessing="raw", fit="crop")
    np.testing.assert_allclose(cropped, photos[:, :, 2:6], atol=1e-4)
    one = preprocess(photos[1], model(), preprocessing="raw", fit="crop")
    np.testing.assert_array_equal(one, cropped[1])


def test_grey_becomes_the_model_s_channels():
    grey = np.full((4, 4), 51, np.uint8)
    assert preprocess(grey, model(), preprocessing="raw").shape == SHAPE


@pytest.mark.parametrize(
    ("photo", "options", "message"),
    [
        (np.zeros((4, 4, 2)), {}, "`photo` must be"),
        (np.zeros((4, 4, 3)) - 1, {}, r"`photo` must hold bytes, or floats in \[0, 1\]"),
        (np.zeros((4, 4, 3)), {"fit": "pad"}, '`fit` must be "stretch" or "crop"'),
        (np.zeros((4, 4, 3)), {"preprocessing": "keras"}, "`preprocessing` must be one of"),
    ],
)
def test_what_is_wrong_is_told(photo, options, message):
    with pytest.raises(ValueError, match=message):
        preprocess(photo, model(), **{"preprocessing": "unit", **options})


def test_an_open_size_is_told():
    with pytest.raises(ValueError, match="`model` must have an `input_shape`"):
        preprocess(np.zeros((4, 4, 3)), model((None, None, 3)), preprocessing="unit")


@pytest.mark.slow
def test_a_formula_is_told_with_its_name():
    assert named_preprocessing("tf").describe() == "tf: (x · 255 − 127.5) / 127.5"
    assert Preprocessing().describe() == "x"
    assert Preprocessing(scale=2).describe() == "x · 2"
