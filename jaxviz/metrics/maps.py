"""Maps as a caller has them: arrays, or results of this package, which make their own."""

import inspect
from typing import Any

import numpy as np

from jaxviz.scoring.arguments import as_pixels
from jaxviz.scoring.targets import Target

Maps = Any  # an array (N, H, W), or what has `heatmap`


def read_maps(maps: Maps, *, target: Target = None, name: str = "maps") -> tuple[np.ndarray, bool]:
    """Return maps as float64 (N, H, W), and whether it was a single one (H, W).

    Args:
        maps: an array, or a result with `heatmap`, which is asked for the target if it can tell
            several.
        target: of the results that can tell several.
        name: of the argument, for the error.

    Raises:
        TypeError: they are no numbers.
        ValueError: they have another rank, or hold NaN or infinity.
    """
    read = getattr(maps, "heatmap", None)
    if read is not None:
        several = "target" in inspect.signature(read).parameters
        maps = read(target=target) if several else read()
    try:
        array = np.asarray(maps)
    except ValueError as error:
        message = f"`{name}` must be (N, H, W) or (H, W): got parts of unequal shapes."
        raise ValueError(message) from error
    if array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16":
        raise TypeError(
            f"`{name}` must be real numbers (N, H, W), or a result with `heatmap`: got"
            f" {type(maps).__name__ if array.ndim == 0 else array.dtype}."
        )
    if array.ndim not in (2, 3) or array.size == 0:
        hint = "; reduce the channels to one number per pixel" if array.ndim == 4 else ""
        raise ValueError(f"`{name}` must be (N, H, W) or (H, W): got shape {array.shape}{hint}.")
    array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"`{name}` must be finite, so that every pixel has a rank: got {array[where]} at"
            f" {where}; where no patch covers a pixel, give `heatmap` a value for `uncovered`."
        )
    return (array[None], True) if array.ndim == 2 else (array, False)


def maps_of(maps: Maps, images: np.ndarray, *, target: Target = None) -> np.ndarray:
    """Return the maps of images (N, H, W, C) as float64 (N, H, W).

    Raises:
        ValueError: there is not one map per image, of its size; see `read_maps`.
    """
    array, _ = read_maps(maps, target=target)
    if array.shape != images.shape[:3]:
        raise ValueError(
            f"`maps` must be one per image, {images.shape[:3]}: got shape {array.shape}."
        )
    return array


def read_values(values: Maps, images: np.ndarray, *, target: Target = None) -> np.ndarray:
    """Return signed numbers per pixel and channel as float64, of the shape of the images.

    Args:
        values: an array of that shape, a result with `values` of that shape or of one channel, or
            maps (N, H, W), which stand for every channel.
        images: (N, H, W, C).
        target: see `read_maps`.

    Raises:
        ValueError: they are of another shape, or hold NaN or infinity.
    """
    single = getattr(values, "single", len(images) == 1)
    array = getattr(values, "values", values)
    if not hasattr(values, "heatmap"):
        values = array = as_pixels(values, "values")
    shape = np.shape(array)[-3:]
    known = np.ndim(array) == 4 or (
        single and np.ndim(array) == 3 and shape[2] in (1, images.shape[3])
    )
    of_a_layer = hasattr(values, "heatmap") and shape[:2] != images.shape[1:3]
    if known and not of_a_layer:
        array = np.asarray(array, np.float64).reshape(-1, *shape)
    else:
        array = maps_of(values, images, target=target)[..., None]
    if array.shape[:3] != images.shape[:3] or array.shape[3] not in (1, images.shape[3]):
        raise ValueError(
            f"`values` must have the shape of the images, {images.shape}, or without channels:"
            f" got {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError("`values` must be finite: got NaN or infinity.")
    return np.broadcast_to(array, images.shape)


def as_given(values: np.ndarray, single: bool) -> Any:
    """Return values (N, ...) without the axis of images if there was a single one."""
    return values[0] if single else values
