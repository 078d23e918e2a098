"""What a plot accepts: images, maps, classes and titles, checked and in one form.

Images become (batch, height, width, 3) in 0…1, maps (batch, height, width) floats with NaN for "no
value"; the rules are those that the package `jaxviz.plot` states.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxviz.images.resize import resize
from jaxviz.plot._channels import MOST_CHANNELS, in_colour
from jaxviz.plot._page import INK, WRONG


def as_images(
    value: ArrayLike, name: str, batched: bool, like: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return the batch as (batch, height, width, 3) floats in 0…1."""
    array = as_array(value, f"`{name}`")
    full = array if batched else array[None]
    full = full[..., None] if full.ndim == 3 else full
    if full.ndim != 4 or full.shape[-1] > MOST_CHANNELS or 0 in full.shape:
        rule = "(batch, height, width)" if batched else "(height, width)"
        raise ValueError(
            f"`{name}` must be {rule}, with 1 to {MOST_CHANNELS} channels behind if any: got"
            f" {array.shape}."
        )
    if like is not None and full.shape[: len(like)] != like:
        raise ValueError(
            f"`{name}` must have as many images{' and pixels' * (len(like) > 1)} as the maps: got"
            f" {full.shape[: len(like)]} for maps of {like}."
        )
    floats = _as_floats(full, f"`{name}`")
    bad = int(np.count_nonzero(~np.isfinite(floats)))
    if bad:
        raise ValueError(f"`{name}` must be finite: got {bad} NaN or infinite values.")
    low, high = display_range(full)
    return in_colour((floats - low) / (high - low))


def fitted(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return maps (batch, h, w) in another size, bilinear; NaN stays where most of it was."""
    if maps.shape[1:] == tuple(shape):
        return maps
    size = shape[0], shape[1]
    known = ~np.isnan(maps)
    weights = np.stack([resize(k.astype(np.float32), size) for k in known])
    values = np.stack([resize(np.nan_to_num(m).astype(np.float32), size) for m in maps])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights >= 0.5, values / weights, np.nan).astype(np.float64)


def maps_of(value: Any) -> Any:
    """Return the maps that a result, anything with `heatmap()`, makes by default; or the value."""
    return value.heatmap() if hasattr(value, "heatmap") else value


def display_range(images: np.ndarray) -> tuple[float, float]:
    """Return which values of images are drawn black and white, low < high."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    return low, high if low < high else low + 1.0


def as_maps(value: ArrayLike, name: str) -> np.ndarray:
    array = _as_floats(value, f"`{name}`")
    full = array[None] if array.ndim == 2 else array
    if full.ndim != 3 or 0 in full.shape:
        raise ValueError(
            f"`{name}` must be (height, width) or (batch, height, width): got {array.shape}."
        )
    return full


def as_array(value: ArrayLike, where: str) -> np.ndarray:
    """Return an array of real numbers, of any dtype."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{where} must be one array: got parts of unequal shapes.") from error
    if array.dtype.kind == "c":
        raise TypeError(f"{where} must hold real numbers: got complex ones.")
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:  # bfloat16 is a "V"
        raise TypeError(f"{where} must hold numbers: got a {type(value).__name__}.")
    return array


def _as_floats(value: ArrayLike, where: str) -> np.ndarray:
    return as_array(value, where).astype(np.float64)


def _refuse_infinity(array: np.ndarray, where: str) -> None:
    bad = int(np.count_nonzero(np.isinf(array)))
    if bad:
        raise ValueError(
            f"{where} must hold numbers or NaN (drawn grey): got {bad} infinite values."
        )


def as_integers(value: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold integers: got {array.dtype}.")
    return array


def as_feature_maps(value: ArrayLike, name: str) -> np.ndarray:
    where = f"`maps[{name!r}]`" if name else "`maps`"
    array = _as_floats(value, where)
    if array.ndim in (2, 4) and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (1, 3) or 0 in array.shape:
        raise ValueError(
            f"{where} must hold one image's (height, width, channel) or (unit,): got the shape "
            f"{np.shape(value)}; pick one image, array[0]."
        )
    _refuse_infinity(array, where)
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array[:, None, None]


def title_lines(titles: Sequence[str] | None, count: int) -> list[list[tuple[str, str]]]:
    if titles is None:
        return [[] for _ in range(count)]
    if isinstance(titles, str) or len(titles) != count:
        raise ValueError(f"`titles` must hold one title per image: got {titles!r} for {count}.")
    return [[(str(title), INK)] for title in titles]


def class_lines(
    true: ArrayLike | None, predicted: ArrayLike | None, names: Sequence[str] | None, count: int
) -> list[list[tuple[str, str]]]:
    lines: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    columns = {}
    for name, value in (("true", true), ("predicted", predicted)):
        if value is None:
            continue
        classes = np.atleast_1d(as_integers(value, name))
        if classes.shape != (count,):
            raise ValueError(
                f"`{name}` must hold one class per image: got {classes.shape} for {count} images."
            )
        columns[name] = classes
        for i, c in enumerate(classes):
            wrong = name == "predicted" and "true" in columns and c != columns["true"][i]
            lines[i].append((f"{name}: {class_name(c, names)}", WRONG if wrong else INK))
    return lines


def class_name(number: int, names: Sequence[str] | None) -> str:
    return str(number) if names is None or not 0 <= number < len(names) else str(names[number])
