"""Snapshots become whole pictures, or none."""

import numpy as np
import pytest
from PIL import Image

from jaxviz.images.filmstrip import save_strip

SNAPSHOTS = {
    10: np.full((3, 4, 5, 1), 1.0, np.float32),
    5: np.full((3, 4, 5, 1), -1.0, np.float32),
}


def test_a_png_has_a_row_for_each_image_and_a_column_for_each_step(tmp_path):
    path = tmp_path / "strip.png"
    save_strip(SNAPSHOTS, path, value_range=(-1.0, 1.0), zoom=2)
    with Image.open(path) as file:
        sheet = np.asarray(file)
    assert sheet.shape == (3 * 8 + 2 * 2, 2 * 10 + 2)
    assert (sheet[:8, :10] == 0).all() and (sheet[:8, 12:] == 255).all()


def test_a_gif_has_a_frame_for_each_step(tmp_path):
    path = tmp_path / "strip.gif"
    colour = {step: np.repeat(images, 3, -1) for step, images in SNAPSHOTS.items()}
    save_strip(colour, path, value_range=(-1.0, 1.0))
    with Image.open(path) as file:
        assert file.n_frames == 2 and file.size == (3 * 5 + 2 * 2, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["strip.gif"]


@pytest.mark.slow
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="`snapshots` must not be empty"):
        save_strip({}, tmp_path / "strip.png")
    with pytest.raises(ValueError, match=r"`path` must end in .gif or .png: got 'strip.mp4'"):
        save_strip(SNAPSHOTS, tmp_path / "strip.mp4")
    two_channels = {1: np.zeros((1, 4, 4, 2), np.float32)}
    with pytest.raises(ValueError, match="`snapshots` must have 1 or 3 channels: got 2"):
        save_strip(two_channels, tmp_path / "strip.png")
    assert list(tmp_path.iterdir()) == []
