"""Images from files: one picture whatever the file, refused where it is none."""

import numpy as np
import pytest
from PIL import Image

from jaxviz.images import Preprocessing, read_pictures
from jaxviz.images.files import fit_picture


@pytest.fixture
def bytes_image(rng) -> np.ndarray:
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_a_file_and_an_array_give_the_same_picture(tmp_path, bytes_image, suffix):
    file = tmp_path / f"image.{suffix}"
    Image.fromarray(bytes_image).save(file)
    np.save(tmp_path / "bytes.npy", bytes_image)
    np.savez(tmp_path / "floats.npz", images=(bytes_image / np.float32(255))[None])
    for source in (file, tmp_path / "bytes.npy", tmp_path / "floats.npz"):
        read = read_pictures([source], (6, 9, 3))
        np.testing.assert_allclose(read.values[0], bytes_image / 255, atol=1e-7)
        assert read.values.dtype == np.float32 and read.labels is None


def test_a_folder_is_read_in_the_order_of_its_names_and_up_to_the_limit(tmp_path):
    for name, grey in (("b.PNG", 100), ("a.png", 50), ("c.jpg", 150)):
        Image.new("L", (4, 4), grey).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    read = read_pictures([tmp_path], (4, 4, 1))
    assert read.names == ["a.png", "b.PNG", "c.jpg"]
    np.testing.assert_allclose(read.values[:, 0, 0, 0] * 255, [50, 100, 150], atol=1.5)
    assert read_pictures([tmp_path, tmp_path], (4, 4, 1), limit=5).names[3:] == ["a.png", "b.PNG"]


def test_colour_becomes_grey_by_luma_and_grey_is_repeated(tmp_path):
    Image.new("RGB", (3, 3), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (3, 3), 51).save(tmp_path / "grey.png")
    red = read_pictures([tmp_path / "red.png"], (3, 3, 1)).values
    np.testing.assert_allclose(red, 0.299, atol=1e-6)
    grey = read_pictures([tmp_path / "grey.png"], (3, 3, 3)).values
    np.testing.assert_allclose(grey, np.full((1, 3, 3, 3), 0.2), atol=1e-6)


def test_pictures_are_stretched_to_the_model(tmp_path):
    image = np.zeros((8, 4), np.uint8)
    image[:4] = 255
    np.save(tmp_path / "half.npy", image)
    read = read_pictures([tmp_path / "half.npy"], (16, 6, 1)).values[0, ..., 0]
    assert read.shape == (16, 6)
    np.testing.assert_array_equal(read[:7], 1)
    np.testing.assert_array_equal(read[9:], 0)


def test_labels_come_along_from_the_keys_of_mnist(tmp_path):
    images = np.zeros((3, 5, 5), np.uint8)
    np.savez(tmp_path / "m.npz", x_test=images, y_test=np.uint8([4, 0, 9]), x_train=images)
    read = read_pictures([tmp_path / "m.npz"], (5, 5, 1), limit=2)
    assert read.names == ["m.npz[0]", "m.npz[1]"]
    np.testing.assert_array_equal(read.labels, [4, 0])


def test_preprocessing_is_the_stated_formula(rng):
    pictures = rng.random((2, 3, 3, 3)).astype(np.float32)
    prepare = Preprocessing(255, True, True, (1.0, 2.0, 3.0), (4.0,))
    expected = ((1 - pictures[..., ::-1]) * 255 - [1, 2, 3]) / 4
    np.testing.assert_allclose(prepare(pictures), expected, rtol=1e-5)
    assert prepare(pictures).dtype == np.float32
    assert prepare.describe() == "(BGR of 1 − x · 255 − (1, 2, 3)) / 4"
    assert Preprocessing().describe() == "x"
    with pytest.raises(ValueError, match="`mean` must be one number or one per channel: got 2"):
        Preprocessing(mean=(1.0, 2.0))(pictures)


def bad_sources(folder):
    Image.new("L", (40, 40), 7).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty").mkdir()
    (folder / "deeper" / "cats").mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "deeper" / "cats" / "a.png")
    Image.fromarray(np.zeros((4, 4), np.int32)).save(folder / "deep.tif")
    (folder / "bytes.jpg").touch()
    np.save(folder / "large.npy", np.full((4, 4), 3.0))
    np.save(folder / "nan.npy", np.full((4, 4), np.nan))
    np.save(folder / "ints.npy", np.zeros((4, 4), np.int32))
    np.save(folder / "rank.npy", np.zeros((2, 2, 2, 2, 2)))
    np.save(folder / "none.npy", np.zeros((0, 4, 4), np.uint8))
    np.save(folder / "object.npy", np.array([{}], object), allow_pickle=True)
    np.savez(folder / "keys.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(folder / "labels.npz", images=np.zeros((2, 4, 4)), labels=np.zeros(3, int))
    (folder / "cut.npz").write_bytes((folder / "keys.npz").read_bytes()[:100])


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("missing.png", "there is no file or folder .*missing.png"),
        ("cut.png", "cut.png cannot be read as an image"),
        ("text.jpg", "text.jpg is not an image"),
        ("empty", r"empty holds no image \(looked for .*\)\.$"),
        ("deeper", "deeper holds no image .*; there are 1 in its subfolders: name one of these"),
        ("deep.tif", "deep.tif has pixels of mode I, .* save it with 8 or 16 bits"),
        ("bytes.jpg", "bytes.jpg is empty, 0 bytes long"),
        (
            "large.npy",
            r"large.npy\[0\] must hold bytes, or floats in \[0, 1\]: got float64 from 3 to 3",
        ),
        ("nan.npy", r"must hold bytes, or floats in \[0, 1\]: got float64 from nan"),
        ("ints.npy", r"must hold bytes, or floats in \[0, 1\]: got int32 from 0 to 0"),
        ("rank.npy", r"must hold images \(N, height, width\) with 1 or 3 channels"),
        ("none.npy", "there is no image in"),
        ("object.npy", "object.npy cannot be read as a NumPy file"),
        (
            "keys.npz",
            "keys.npz must hold `images`, `x_test`, `x`, `x_train`, or one array: got a, b",
        ),
        ("labels.npz", "must hold one whole number per image as labels: got int64"),
        ("cut.npz", "cut.npz cannot be read as a NumPy file"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, source, match):
    bad_sources(tmp_path)
    with pytest.raises(ValueError, match=match):
        read_pictures([tmp_path / source], (4, 4, 1))


def test_a_folder_leaves_out_what_cannot_be_read_and_counts_it(tmp_path):
    for name in ("a.png", "b.png", "z.png"):
        Image.new("L", (4, 4), 51).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves")
    (tmp_path / "sub.png").mkdir()
    assert read_pictures([tmp_path], (4, 4, 1)).names == ["a.png", "b.png", "z.png"]
    (tmp_path / "c.jpg").touch()
    (tmp_path / "d.png").write_text("no image")
    with pytest.warns(
        UserWarning, match="2 of 5 images are left out: .*c.jpg is empty.* and 1 more"
    ):
        assert read_pictures([tmp_path], (4, 4, 1)).names == ["a.png", "b.png", "z.png"]
    with pytest.raises(ValueError, match="c.jpg is empty"):
        read_pictures([tmp_path / "a.png", tmp_path / "c.jpg"], (4, 4, 1))
    for name in ("a.png", "b.png", "z.png"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="no image in .* that can be read: .*c.jpg is empty"):
        read_pictures([tmp_path], (4, 4, 1))


def test_a_model_without_image_channels_is_refused():
    with pytest.raises(ValueError, match="the model must take 1 or 3 channels"):
        read_pictures([], (4, 4, 2))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_picture_is_not_shown_to_a_model_of_other_channels(channels):
    with pytest.raises(ValueError, match="the model must take 1 or 3 channels"):
        fit_picture(np.zeros((4, 4, 3), np.uint8), (4, 4, channels))
