"""Heatmaps, overlays, galleries and occlusion results."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxviz._choices import Overlay, Scaling
from jaxviz.plot._axes import draw_in
from jaxviz.plot._channels import channels_note, channels_of
from jaxviz.plot._inputs import (
    as_images,
    as_integers,
    as_maps,
    class_lines,
    maps_of,
    title_lines,
)
from jaxviz.plot._overlays import contour_note, overlay_band, overlay_style, with_colours
from jaxviz.plot._page import INK, Band, compose
from jaxviz.plot._panels import class_band, heat_band, image_band
from jaxviz.plot._scale import scaled

SHOWN = 16  # maps in the picture that a notebook shows of a result


def heatmap(
    heatmap: ArrayLike,
    *,
    image: ArrayLike | None = None,
    signed: bool | None = None,
    robust: float | None = None,
    limits: tuple[float, float] | None = None,
    scaling: Scaling = "shared",
    cmap: str | Colormap | None = None,
    label: str = "",
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw one heatmap or a grid of them, beside their images if given.

    A map of one value only says so.

    Args:
        heatmap: (height, width) or (batch, height, width), in any unit; NaN is drawn grey,
            infinite values at the ends of the scale, whose limits are those of the finite ones; or
            a result, such as an `Occlusion` or `Attribution`, whose `heatmap()` is drawn.
        image: the image or batch that the heatmaps belong to, of any size.
        signed: True for a diverging scale around zero, False for a sequential one, None for
            diverging where a value is negative or, with `limits`, where zero lies between them.
        robust: a percentage in (50, 100]: the limits are this percentile (of the absolute values
            if signed) in place of the extremes; None is 100.
        limits: (low, high) of the scale; symmetric around zero if signed.
        scaling: "shared", one scale for all maps; or "image", each map has its own, whose end
            stands in its corner. The colour bar says which it is.
        cmap: a colour map of matplotlib, or its name; None: "RdBu_r" if signed, else "viridis".
        label: what the values are, written beside the colour bar.
        titles: one per map.
        title: of the figure.
        columns: maps in a row; None chooses.
        ax: axes of your own to draw a single map in, with a colour bar beside; None: a new figure.

    Returns:
        A matplotlib Figure, that of `ax` if given.

    Raises:
        ValueError: if shapes disagree, or an option is out of its range.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> figure = jaxviz.plot.heatmap(np.eye(4) - 0.5, label="drop", title="An example")
        >>> figure.savefig("/dev/null", format="png")
    """
    heatmap = maps_of(heatmap)
    maps = as_maps(heatmap, "heatmap")
    found = scaled(maps, signed, robust, limits, label, scaling=scaling, cmap=cmap)
    lines = title_lines(titles, len(maps))
    bands = [heat_band(found)]
    if ax is not None:
        if image is not None:
            raise ValueError("`ax` has no room for `image` beside the map: see `plot.overlay`.")
        return draw_in(ax, bands[0], found, [*lines[0], *_as_line(title)])
    if image is not None:
        bands.insert(0, _images(image, np.ndim(heatmap) == 3, maps.shape[:1])[1])
    return compose(bands, maps.shape, lines, title, columns)


def overlay(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    style: Overlay | None = None,
    alpha: float = 0.85,
    signed: bool | None = None,
    robust: float | None = None,
    limits: tuple[float, float] | None = None,
    scaling: Scaling = "shared",
    cmap: str | Colormap | None = None,
    label: str = "",
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw heatmaps over their images, which may be larger: the originals of what was explained.

    The opacity is `alpha` at the end of the scale and falls with the value to 0 at zero (signed)
    or at the lower limit: a pixel that counts for nothing shows the image alone.

    Args:
        image: (height, width), with any channels behind, or a batch of such; maps of another size
            are stretched over it (bilinear).
        heatmap: (height, width) or (batch, height, width), or a result.
        style: "light", warm for positive and cold for negative values, over the image in its
            colours, dimmed; "tint", the map's colours over the image without its own; "contour",
            lines at half of the scale's end, between which the image stays as it is; None: "light"
            over images in colour, else "tint".
        alpha: opacity at the end of the scale, in (0, 1]; "contour" has none.
        signed: as in `heatmap`, like all further options.
        robust: see `heatmap`.
        limits: see `heatmap`.
        scaling: see `heatmap`.
        cmap: see `heatmap`; None: that of the style.
        label: see `heatmap`.
        titles: see `heatmap`.
        title: see `heatmap`.
        columns: see `heatmap`.
        ax: see `heatmap`.

    Returns:
        A matplotlib Figure, that of `ax` if given.

    Raises:
        ValueError: as `heatmap`, or if `alpha` or `style` is out of its range.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> photo, drops = np.ones((40, 60, 3)) / 2, np.ones((4, 6))
        >>> figure = jaxviz.plot.overlay(photo, drops, style="contour", label="drop")
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"`alpha` must lie in (0, 1]: got {alpha}.")
    heatmap = maps_of(heatmap)
    maps = as_maps(heatmap, "heatmap")
    images, _ = _images(image, np.ndim(heatmap) == 3, maps.shape[:1])
    style = overlay_style(style, images)
    found = scaled(maps, signed, robust, limits, label, scaling=scaling, cmap=cmap)
    found = with_colours(found, style, cmap is not None)
    band = overlay_band(images, found, style, alpha)
    lines = title_lines(titles, len(maps))
    if ax is not None:
        told = contour_note(found) if style == "contour" else ""
        return draw_in(ax, band, found, [*lines[0], *_as_line(title)], told)
    return compose([band], images.shape[:3], lines, title, columns)


def _images(value: ArrayLike, batched: bool, like: tuple[int, ...]) -> tuple[np.ndarray, Band]:
    """Return images in colour, and how they are drawn by themselves."""
    images = as_images(value, "image", batched, like)
    return images, image_band(images, channels_note(channels_of(value, batched)))


def _as_line(title: str) -> list[tuple[str, str]]:
    return [(title, INK)] if title else []


def gallery(
    images: ArrayLike,
    *,
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw a batch of images in a grid, each under its title.

    Args:
        images: (batch, height, width), with any channels behind.
        titles: one per image.
        title: of the figure.
        columns: images in a row; None chooses.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if `images` is no batch of finite images or `titles` does not fit it.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> figure = jaxviz.plot.gallery(np.zeros((2, 8, 8, 1)), titles=["0", "1"])
    """
    pictures = as_images(images, "images", True)
    lines = title_lines(titles, len(pictures))
    band = image_band(pictures, channels_note(channels_of(images, True)))
    return compose([band], pictures.shape[:3], lines, title, columns)


def occlusion(
    images: ArrayLike,
    heatmaps: ArrayLike,
    class_maps: ArrayLike | None = None,
    *,
    true: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    signed: bool | None = None,
    robust: float | None = None,
    limits: tuple[float, float] | None = None,
    scaling: Scaling = "shared",
    cmap: str | Colormap | None = None,
    label: str = "drop in score",
    outline: bool = False,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw each image, its heatmap and its class map below one another.

    Args:
        images: (batch, height, width), with any channels behind; or one image.
        heatmaps: (batch, height, width), as `Occlusion.heatmap` returns them.
        class_maps: (batch, height, width) integers, as `Occlusion.class_map` returns them.
        true: (batch,) integers, the true classes.
        predicted: (batch,) integers, the classes of the clean images; red where not the true one.
        class_names: the name of each class; None writes the number.
        signed: as in `heatmap`.
        robust: as in `heatmap`.
        limits: as in `heatmap`.
        scaling: as in `heatmap`.
        cmap: as in `heatmap`.
        label: what the heatmap's values are.
        outline: draw the contour of the image over its maps; for digits and other plain shapes.
        title: of the figure.
        columns: images in a row; None chooses.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if shapes disagree, or an option is out of its range.
        TypeError: if classes are not integers.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> images, drops = np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8))
        >>> figure = jaxviz.plot.occlusion(images, drops, drops.astype(int), true=[0, 1])
    """
    heatmaps = maps_of(heatmaps)
    maps = as_maps(heatmaps, "heatmaps")
    batched = np.ndim(heatmaps) == 3
    pictures = as_images(images, "images", batched, maps.shape)
    edges = pictures if outline else None
    found = scaled(maps, signed, robust, limits, label, scaling=scaling, cmap=cmap)
    note = channels_note(channels_of(images, batched))
    bands = [image_band(pictures, note), heat_band(found, edges)]
    if class_maps is not None:
        classes = np.asarray(class_maps) if batched else np.asarray(class_maps)[None]
        if classes.shape != maps.shape:
            raise ValueError(
                "`class_maps` must have the shape of `heatmaps`: got "
                f"{np.shape(class_maps)} for {np.shape(heatmaps)}."
            )
        bands.append(class_band(as_integers(classes, "class_maps"), class_names, edges))
    lines = class_lines(true, predicted, class_names, len(maps))
    return compose(bands, maps.shape, lines, title, columns)


def occlusion_png(result: Any) -> bytes | None:
    """Draw what a notebook shows of a result: the heatmaps of the clean images' classes.

    Args:
        result: an `Occlusion` or `Attribution`; the first 16 images of it are drawn.

    Returns:
        A PNG, or None where the scores have no class by default (dense outputs).

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> from jaxviz.occlusion.occlude import occlude
        >>> occ = occlude(lambda x: x.mean((1, 2)), np.ones((4, 4, 1), np.float32), patch=2)
        >>> jaxviz.plot.occlusion_png(occ)[1:4]
        b'PNG'
    """
    try:
        maps = result.heatmap()
    except ValueError:
        return None
    maps = maps if maps.ndim == 2 else maps[:SHOWN]
    signed, label = _said_of(result)
    buffer = BytesIO()
    heatmap(maps, signed=signed, label=label).savefig(buffer, format="png")
    return buffer.getvalue()


def _said_of(result: Any) -> tuple[bool | None, str]:
    """Return whether a result's maps are signed, None where they tell, and what they are."""
    method = getattr(result, "method", None)
    if method is not None:
        return None, method
    reading = getattr(result, "reading", None)
    score = "drop" if reading is None else reading.score
    label = score.replace("_", " ") + " in score" * (score == "drop")
    return score.endswith("drop") or None, label
