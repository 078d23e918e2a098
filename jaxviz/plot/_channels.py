"""Images of any number of channels as colours: grey, RGB, or what stands for more and fewer.

Two channels are orange and blue, which every common kind of sight tells apart, and white where both
are full. Of four, the first three are red, green and blue: the fourth is an alpha channel or lies
beyond the visible. Of more, the three directions in which the pixels differ most are lightness,
red against green, and yellow against blue. What stands for what is written on the picture.
"""

import numpy as np
from numpy.typing import ArrayLike

MOST_CHANNELS = 32  # more are no image: feature maps, or channels that stand first
PAIR = np.array([[1.0, 0.55, 0.1], [0.0, 0.45, 0.9]])  # orange and blue, which add up to white
# Lightness, red against green, yellow against blue: the axes along which sight separates colours.
AXES = np.array([[1.0, 1.0, 1.0], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])
SPREAD = 0.3  # of lightness and colours around mid grey, for one standard deviation of the first


def in_colour(images: np.ndarray) -> np.ndarray:
    """Return images (batch, height, width, C) in 0…1 as colours (batch, height, width, 3)."""
    channels = images.shape[-1]
    if channels == 2:
        return np.clip(images @ PAIR, 0, 1)
    if channels in (1, 3):
        return np.broadcast_to(images, (*images.shape[:3], 3))
    return images[..., :3] if channels == 4 else _main_colours(images)


def channels_note(channels: int) -> str:
    """Return what stands for the channels of an image, "" where it goes without saying."""
    known = {1: "", 3: "", 2: "channel 0 orange, 1 blue", 4: "channels 0 to 2 of 4 as RGB"}
    return known.get(channels, f"{channels} channels as 3 main colours")


def channels_of(value: ArrayLike, batched: bool) -> int:
    """Return how many channels images have, as `as_images` counts them."""
    shape = np.shape(value)
    return shape[-1] if len(shape) == 3 + batched else 1


def _main_colours(images: np.ndarray) -> np.ndarray:
    """Project on the three principal directions of all pixels of the batch."""
    flat = images.reshape(-1, images.shape[-1])
    centred = flat - flat.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    first = directions[:, :-4:-1]
    # Of two opposite directions, the one in which the channels grow on the whole.
    first = first * np.where(first.sum(0) < 0, -1, 1)
    parts = centred @ first
    deviation = parts[:, 0].std()
    colours = 0.5 + SPREAD * parts / (deviation or 1.0) @ AXES
    return np.clip(colours, 0, 1).reshape(*images.shape[:3], 3)
