"""Resizing of pictures, as Pillow does it: anti-aliased where they shrink."""

from typing import Literal

import numpy as np
from PIL import Image

Way = Literal["bilinear", "bicubic"]


def resize(plane: np.ndarray, size: tuple[int, int], way: Way = "bilinear") -> np.ndarray:
    """Return one channel in another size.

    Args:
        plane: float32 (height, width).
        size: the (height, width) wanted.
        way: the filter; bicubic may leave the range of the values.

    Returns:
        float32, of that size.

    Example:
        >>> resize(np.ones((2, 2), np.float32), (3, 5)).shape
        (3, 5)
    """
    height, width = size
    picture = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(picture.resize((width, height), Image.Resampling[way.upper()]))
