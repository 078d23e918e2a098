"""Photographs and what several methods say of them, a row for each photograph."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt

from jaxviz._choices import Overlay, Scaling
from jaxviz.plot._channels import channels_note, channels_of
from jaxviz.plot._glow import AGAINST, FOR, dimmed, glow, show_contours
from jaxviz.plot._inputs import (
    as_array,
    as_images,
    as_integers,
    as_maps,
    class_name,
    fitted,
    maps_of,
    title_lines,
)
from jaxviz.plot._page import (
    BOLD,
    GAP,
    LINE,
    MARGIN,
    TEXT,
    Page,
    shorten,
    text_width,
    wrap,
    write_corner,
    write_heading,
    write_on,
)
from jaxviz.plot._panels import PALETTE
from jaxviz.plot._scale import check_robust, flat_note

SIDE, FOOT = 1.9, 0.42  # inches
LEAST_REGION = 0.03  # of a class map's pixels: smaller regions get no name
ENDS = "colours end at the value in the corner"
Panel = Callable[[Axes, int], object]
Key = Callable[[Page, float, float], None]


def compare(
    images: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    class_maps: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    scaling: Scaling = "image",
    style: Overlay = "light",
    robust: float | None = None,
    titles: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw what several methods, or targets, say of the same images: a row each, in colour.

    Args:
        images: (batch, height, width), with any channels behind; or one image.
        maps: {name of the column: maps (batch, h, w), drawn over the images as light, warm where
            positive and cold where negative; or pictures (batch, h, w, 3), drawn as they are}. Maps
            of another size than the images' are enlarged (bilinear). NaN sheds no light,
            and what is infinite as much as the strongest.
        class_maps: (batch, height, width) integers, as `Occlusion.class_map` returns them: the
            last column, in which the image shows where the class stays `predicted`.
        predicted: (batch,) integers, the classes of the clean images; None: the commonest ones of
            the class maps.
        class_names: the name of each class; None writes the number.
        scaling: "image": colours end at each map's own strongest value; "shared": at that of the
            column. It stands in the panel's corner.
        style: "light", or "contour": lines at half of that value, between which the image stays as
            it is.
        robust: a percentage in (50, 100]: of the absolute values, in place of the strongest.
        titles: one per image.
        title: of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if shapes disagree, or an option is out of its range.
        TypeError: if something else than numbers is given, or `maps` is no dictionary.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> photos, drops = np.ones((2, 8, 8, 3)) / 2, np.ones((2, 8, 8))
        >>> figure = jaxviz.plot.compare(photos, {"occlusion": drops, "Grad-CAM": drops[:, ::4]})
    """
    check_robust(robust)
    if scaling not in get_args(Scaling):
        raise ValueError(f'`scaling` must be "image" or "shared": got {scaling!r}.')
    if not isinstance(maps, Mapping):
        raise TypeError(f"`maps` must be a dictionary, name -> maps: got a {type(maps).__name__}.")
    if style not in (known := get_args(Overlay)[1:]):
        raise ValueError(f"`style` must be one of {', '.join(known)}: got {style!r}.")
    images = as_array(images, "`images`")
    batched = _is_batch(images, maps)
    pictures = as_images(images, "images", batched)
    note = channels_note(channels_of(images, batched))
    columns: dict[str, Panel] = {"": lambda axes, i: _picture(axes, pictures[i], note * (i == 0))}
    for name, value in maps.items():
        columns[name] = _panel(name, value, pictures, batched, scaling, style, robust or 100.0)
    if class_maps is not None:
        classes = np.asarray(class_maps) if batched else np.asarray(class_maps)[None]
        columns["class when covered"] = _classes(classes, pictures, predicted, class_names)
    lines = [" ".join(text for text, _ in line) for line in title_lines(titles, len(pictures))]
    lines = lines if titles is not None else []
    return _table(
        columns, pictures.shape, lines, title, partial(_key, style=style, scaling=scaling)
    )


def _is_batch(images: ArrayLike, maps: Mapping[str, ArrayLike]) -> bool:
    """Whether images are several; of three axes, the last may be channels, as the maps tell."""
    if np.ndim(images) != 3 or np.shape(images)[-1] in (1, 3):
        return np.ndim(images) == 4
    return all(np.ndim(maps_of(value)) != 2 for value in maps.values())


def _table(
    columns: Mapping[str, Panel],
    shape: tuple[int, ...],
    lines: Sequence[str],
    title: str,
    make_key: Callable[[float], tuple[Key, float]],
) -> Figure:
    count, height, width = shape[:3]
    tall, wide = SIDE, SIDE * min(max(width / height, 0.3), 3.0)
    label = 0.24 * bool(lines)
    across = MARGIN + label + len(columns) * (wide + GAP) - GAP + MARGIN
    heading = wrap(title, across - 2 * MARGIN, 12 * BOLD)
    heads = (LINE + 0.05) * (len(columns) > 1)
    top = MARGIN + 0.24 * len(heading) + heads
    key, foot = make_key(across)
    page = Page(across, top + count * (tall + GAP) - GAP + foot)
    write_heading(page, heading)
    for c, (name, draw) in enumerate(columns.items()):
        x = MARGIN + label + c * (wide + GAP)
        text = shorten(name, wide, TEXT * BOLD)
        page.text(x + wide / 2, top - heads / 2 - 0.01, text, ha="center", weight="bold")
        for i in range(count):
            draw(page.axes(x, top + i * (tall + GAP), wide, tall), i)
    for i, line in enumerate(lines):
        y = top + i * (tall + GAP) + tall / 2
        page.text(MARGIN + 0.1, y, shorten(line, tall, TEXT), rotation=90, ha="center")
    if len(columns) > 1:
        roomy = across > 8 and foot == FOOT
        y = page.size[1] - foot + FOOT / 2
        key(page, MARGIN + (label + wide + GAP) * roomy, y)
    return page.figure


def _key(across: float, style: Overlay, scaling: Scaling) -> tuple[Key, float]:
    """Return how to draw the colours and to say where they end, and the height of it."""
    end = "each map's own" if scaling == "image" else "one for a column"
    what = "lines at half of the value in the corner" if style == "contour" else ENDS
    used = MARGIN + (text_width("for the class against", 8) + 0.95 if style == "contour" else 2.6)
    beside = used + text_width(f"{what}, {end}", 8) + MARGIN <= across
    lines = wrap(f"{what}, {end}", across - 2 * MARGIN, 8)

    def draw(page: Page, left: float, y: float) -> None:
        if style == "contour":
            for text, colour in (("for the class", FOR), ("against", AGAINST)):
                page.axes(left, y - 0.02, 0.22, 0.04).set_facecolor(colour)
                page.text(left + 0.28, y, text, fontsize=8)
                left += 0.28 + text_width(text, 8) + 0.16
        else:
            page.text(left, y, "against", fontsize=8)
            bar = page.axes(left + 0.52, y - 0.055, 1.1, 0.11)
            shares = np.linspace(-1, 1, 201)[None]
            bar.imshow(glow(np.full((1, 201, 3), 0.3), shares), aspect="auto")
            page.text(left + 1.7, y, "for the class", fontsize=8)
            left += 1.7 + text_width("for the class", 8) + 0.16
        for row, line in enumerate(lines):
            at = (left, y) if beside else (MARGIN, y + 0.19 + 0.15 * row)
            page.text(*at, line, fontsize=8)

    return draw, FOOT + (0.0 if beside else 0.04 + 0.15 * len(lines))


def _panel(
    name: str,
    value: ArrayLike,
    pictures: np.ndarray,
    batched: bool,
    scaling: Scaling,
    style: Overlay,
    robust: float,
) -> Panel:
    if np.ndim(value) == (4 if batched else 3):
        drawn = as_images(value, name, batched)
        _check_count(name, drawn, pictures)
        return lambda axes, i: _show(axes, drawn[i])
    maps = as_maps(maps_of(value), name)
    _check_count(name, maps, pictures)
    ends = np.array([_end(one, robust) for one in maps])
    ends = ends if scaling == "image" else np.full_like(ends, ends.max())
    flat = [flat_note(one) for one in maps]
    finite = np.where(np.isinf(maps), np.sign(maps) * ends[:, None, None], maps)
    shown = fitted(finite, pictures.shape[1:3])

    def draw(axes: Axes, i: int) -> None:
        shares = shown[i] / (ends[i] or 1.0)
        if style == "contour":
            show_contours(axes, pictures[i], shares * (not flat[i]))
        else:
            _show(axes, glow(pictures[i], shares))
        write_corner(axes, flat[i] or f"{ends[i]:.2g}")

    return draw


def _check_count(name: str, value: np.ndarray, pictures: np.ndarray) -> None:
    if len(value) != len(pictures):
        raise ValueError(
            f"`maps` must hold one map per image: got {len(value)} of {name!r} for"
            f" {len(pictures)} images."
        )


def _end(values: np.ndarray, robust: float) -> float:
    known = np.abs(values[np.isfinite(values)])
    if not known.size:
        return 0.0
    return float(np.percentile(known, robust)) or float(known.max())


def _classes(
    maps: np.ndarray, pictures: np.ndarray, predicted: Any, names: Sequence[str] | None
) -> Panel:
    if maps.shape != pictures.shape[:3]:
        raise ValueError(
            f"`class_maps` must be as large as `images`: got {maps.shape} for {pictures.shape[:3]}."
        )
    maps = as_integers(maps, "class_maps")
    own = [_commonest(one) for one in maps] if predicted is None else np.ravel(predicted).tolist()
    if len(own) != len(maps):
        raise ValueError(f"`predicted` must hold {len(maps)} classes: got {len(own)}.")

    def draw(axes: Axes, i: int) -> None:
        found, counts = np.unique(maps[i], return_counts=True)
        others = [int(c) for c in found[np.argsort(-counts)] if c >= 0 and c != own[i]]
        picture = np.where((maps[i] == own[i])[..., None], pictures[i], dimmed(pictures[i]))
        for number, c in enumerate(others):
            here = (maps[i] == c)[..., None]
            hue = np.array(to_rgb(PALETTE[number % len(PALETTE)]))
            picture = np.where(here, 0.45 * picture + 0.55 * hue, picture)
        _show(axes, picture)
        for c in [own[i], *others]:
            _name_region(axes, maps[i] == c, class_name(c, names))

    return draw


def _commonest(classes: np.ndarray) -> int:
    found, counts = np.unique(classes, return_counts=True)
    return int(found[np.argmax(counts)])


def _name_region(axes: Axes, region: np.ndarray, name: str) -> None:
    """Write a class's name where its region is widest."""
    if region.mean() < LEAST_REGION:
        return
    depth = np.asarray(distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
    row, col = np.unravel_index(np.argmax(depth), region.shape)
    height, width = region.shape
    text = shorten(name, 0.9 * SIDE * width / height, 8)
    # Half of the name, as a share of the panel: it must not leave it.
    half = min(0.5, 0.062 * len(text) / 2 / (SIDE * width / height) + 0.03)
    x = min(max((col + 0.5) / width, half), 1 - half)
    write_on(axes, x, 1 - (row + 0.5) / height, text, 8, ha="center", va="center")


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(np.clip(picture, 0, 1), aspect="auto", interpolation="antialiased")


def _picture(axes: Axes, picture: np.ndarray, note: str) -> None:
    _show(axes, picture)
    if note:
        write_on(axes, 0.03, 0.04, note, 7, ha="left", va="bottom")
