"""Maps of a layer's size made as large as the image, one axis at a time.

Pixel i of H lies at (i + ½)·h/H − ½ among h sites, half-pixel centres, clamped at the edge: what
Pillow, OpenCV, PyTorch (`align_corners=False`) and TensorFlow do where they enlarge.
"""

from typing import get_args

import numpy as np

from jaxviz._choices import Upsample
from jaxviz.perturbation.filters import bilinear


def resize(maps: np.ndarray, size: tuple[int, int], way: Upsample) -> np.ndarray:
    """Resize maps (..., h, w) to (..., H, W), by interpolation, without a filter where they shrink.

    Args:
        maps: real numbers.
        size: (H, W).
        way: "bilinear"; "nearest", the site whose cell holds the pixel's centre; "bicubic", Keys's
            with a = −½, whose taps off the map are left out; "corners", bilinear with the corners'
            centres kept in place, i·(h − 1)/(H − 1), as `scipy.ndimage.zoom` has it; "floor", site
            ⌊i·h/H⌋, as "nearest" is in PyTorch.

    Returns:
        float64.

    Raises:
        ValueError: another way.
    """
    if way not in get_args(Upsample):
        known = ", ".join(f'"{word}"' for word in get_args(Upsample))
        raise ValueError(f"`upsample` must be one of {known}, or None: got {way!r}.")
    rows, cols = (axis_weights(n, m, way) for n, m in zip(maps.shape[-2:], size, strict=True))
    return np.einsum("ij,...jk,lk->...il", rows, maps.astype(np.float64), cols, optimize=True)


def axis_weights(sites: int, pixels: int, way: Upsample) -> np.ndarray:
    """What each pixel takes of each site, (pixels, sites)."""
    pixel = np.arange(pixels)
    centre = (pixel + 0.5) * sites / pixels - 0.5
    if way == "floor":
        return np.eye(sites)[pixel * sites // pixels]
    if way == "nearest":
        return np.eye(sites)[(2 * pixel + 1) * sites // (2 * pixels)]
    if way == "corners":
        return np.asarray(bilinear(pixel * (sites - 1) / max(pixels - 1, 1), sites))
    if way == "bilinear":
        return np.asarray(bilinear(centre, sites))
    weights = _cubic(np.abs(centre[:, None] - np.arange(sites)[None]))
    return weights / weights.sum(1, keepdims=True)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys's kernel, a = −½: 1.5x³ − 2.5x² + 1 below 1, −0.5x³ + 2.5x² − 4x + 2 below 2."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
