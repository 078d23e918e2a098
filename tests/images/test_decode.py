"""Image files as people see them: upright, on white, with all their bits."""

import numpy as np
import pytest
from PIL import Image

from jaxviz.images.decode import read_image
from jaxviz.images.files import read_pictures
from jaxviz.scale.sources import open_source

# Orientation: how the pixels of the file make the image that is shown (Exif 2.3, tag 0x0112).
SHOWN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def tagged(pixels, file, orientation):
    """Save pixels with a word on how they are to be shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, exif=exif)
    return file


@pytest.fixture
def colours(rng):
    return rng.integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_what_is_tagged_is_shown_upright(tmp_path, colours, orientation, suffix):
    file = tagged(colours, tmp_path / f"x.{suffix}", orientation)
    if suffix == "jpg":  # which is lossy: it is what Pillow makes of the pixels
        with Image.open(file) as image:
            colours = np.asarray(image.convert("RGB"))
    shown = SHOWN[orientation](colours)
    np.testing.assert_array_equal(read_image(file), shown)
    Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / "upright.png")
    copies = [read_pictures([f], (5, 4, 3)).values for f in (file, tmp_path / "upright.png")]
    np.testing.assert_array_equal(*copies)


def test_sources_of_many_images_read_the_same(tmp_path, colours):
    file = tagged(colours, tmp_path / "x.png", 6)
    wanted = read_pictures([file], (5, 4, 1)).values[0]
    np.testing.assert_array_equal(open_source(tmp_path, image_shape=(5, 4, 1))[0], wanted)


def test_grey_of_sixteen_bits_is_turned_too(tmp_path):
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2731
    np.testing.assert_array_equal(
        read_image(tagged(pixels, tmp_path / "x.png", 8)), pixels.swapaxes(0, 1)[::-1]
    )


def test_a_damaged_record_turns_nothing(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "x.png", exif=b"Exif\0\0no record")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), colours)


def on_white(pixels, alpha):
    """α·x + (1 − α)·white."""
    share = alpha[..., None] / 255.0
    return share * pixels + (1 - share) * 255.0


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_what_is_transparent_lies_on_white(tmp_path, colours, rng, suffix):
    alpha = rng.integers(0, 256, colours.shape[:2], np.uint8)
    alpha[0, :2] = 0, 255
    both = np.concatenate([colours, alpha[..., None]], -1)
    Image.fromarray(both).save(tmp_path / f"x.{suffix}", lossless=True, exact=True)
    read = read_image(tmp_path / f"x.{suffix}")
    assert read.dtype == np.uint8 and read.shape == colours.shape
    assert np.abs(read - on_white(colours.astype(float), alpha)).max() <= 1
    np.testing.assert_array_equal(read[0, :2], [[255] * 3, colours[0, 1]])


def test_every_kind_of_transparency_counts(tmp_path):
    ink = Image.new("LA", (4, 4), (10, 0))
    ink.putpixel((1, 2), (10, 255))
    ink.save(tmp_path / "grey.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 10, 10, 10])
    palette.putpixel((1, 2), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "palette.gif", transparency=0)
    key = Image.new("RGB", (4, 4), (1, 2, 3))
    key.putpixel((1, 2), (10, 10, 10))
    key.save(tmp_path / "key.png", transparency=(1, 2, 3))
    wanted = np.full((4, 4), 255)
    wanted[2, 1] = 10
    for name in ("grey.png", "palette.png", "palette.gif", "key.png"):
        read = read_image(tmp_path / name)
        assert read.ndim == (2 if name == "grey.png" else 3)
        np.testing.assert_array_equal(read.reshape(4, 4, -1)[..., 0], wanted, err_msg=name)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits_keeps_them(tmp_path, rng, suffix):
    pixels = rng.integers(0, 65536, (6, 9), np.uint16)
    pixels[0, :2] = 0, 65535
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}")
    values = read_pictures([tmp_path / f"x.{suffix}"], (6, 9, 3)).values[0]
    np.testing.assert_allclose(values, np.repeat(pixels[..., None] / 65535, 3, -1), atol=1e-7)


def test_portable_grey_maps_of_sixteen_bits_are_on_their_scale(tmp_path):
    pixels = np.array([[0, 32768, 65535]], ">u2")
    (tmp_path / "x.ppm").write_bytes(b"P5 3 1 65535\n" + pixels.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "x.ppm"), pixels)
