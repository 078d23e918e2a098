"""The course of a maximisation as a file: a GIF that moves, or a PNG strip of the snapshots."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxviz._files import whole


def save_strip(
    snapshots: Mapping[int, jax.Array],
    path: str | os.PathLike[str],
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    zoom: int = 1,
    seconds: float = 0.1,
) -> None:
    """Write the snapshots of a maximisation as a picture.

    Args:
        snapshots: {step: images (N, H, W, C)} with 1 or 3 channels, `maximize(…).snapshots`.
        path: a `.gif`, one frame a step with the images side by side; or a `.png`, a row for each
            image and a column for each step.
        value_range: the (lowest, highest) pixel value, shown as black and white.
        zoom: how often each pixel is repeated, ≥ 1.
        seconds: how long a frame of the GIF stays.

    Raises:
        ValueError: there are no snapshots, of 1 or 3 channels, or the path has another suffix.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp
        >>> from jaxviz import save_strip
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "strip.png"
        >>> save_strip({1: jnp.zeros((2, 4, 4, 1)), 2: jnp.ones((2, 4, 4, 1))}, path)
        >>> path.exists()
        True
    """
    path = Path(path)
    if not snapshots:
        raise ValueError("`snapshots` must not be empty: ask `maximize` for `snapshot_every`.")
    if path.suffix not in (".gif", ".png"):
        raise ValueError(f"`path` must end in .gif or .png: got {path.name!r}.")
    steps = np.stack([_pixels(snapshots[step], value_range, zoom) for step in sorted(snapshots)])
    with whole(path) as part:
        if path.suffix == ".gif":
            frames = [_picture(stitch(list(images), margin=2, columns=8)) for images in steps]
            length = round(1000 * seconds)
            frames[0].save(part, save_all=True, append_images=frames[1:], duration=length, loop=0)
        else:
            rows = list(steps.swapaxes(0, 1).reshape(-1, *steps.shape[2:]))
            _picture(stitch(rows, margin=2, columns=len(steps))).save(part)


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"`snapshots` must have 1 or 3 channels: got {channels}.")


def _pixels(images: jax.Array, value_range: tuple[float, float], zoom: int) -> np.ndarray:
    low, high = value_range
    _check_channels(images.shape[-1])
    unit = (np.asarray(images, np.float32) - low) / (high - low)
    whole = np.round(255 * np.clip(unit, 0, 1)).astype(np.uint8)
    return whole.repeat(zoom, 1).repeat(zoom, 2)


def _picture(sheet: np.ndarray) -> Image.Image:
    return Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)


def stitch(
    images: Sequence[np.ndarray], *, margin: int = 5, columns: int = 5, value: float = 0.0
) -> np.ndarray:
    """Lay several images out as one, row by row.

    Args:
        images: arrays (H, W, C) of one shape.
        margin: pixels between them, ≥ 0.
        columns: images a row, ≥ 1.
        value: what fills the margin and the last row.

    Returns:
        (rows·H + (rows − 1)·margin, columns·W + (columns − 1)·margin, C).

    Raises:
        ValueError: no images, or of several shapes.

    Example:
        >>> stitch([np.ones((4, 4, 3))] * 3, margin=1, columns=2).shape
        (9, 9, 3)
    """
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1:
        raise ValueError(f"`images` must have one shape: got {sorted(shapes) or 'no images'}.")
    height, width, channels = shapes.pop()
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (rows * (height + margin) - margin, columns * (width + margin) - margin, channels)
    canvas = np.full(size, value, np.asarray(images[0]).dtype)
    for number, image in enumerate(images):
        row, col = divmod(number, columns)
        top, left = row * (height + margin), col * (width + margin)
        canvas[top : top + height, left : left + width] = image
    return canvas
