"""Heatmaps, overlays, galleries and occlusion results."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxviz.plot._inputs import (
    as_images,
    as_integers,
    as_maps,
    class_lines,
    maps_of,
    title_lines,
)
from jaxviz.plot._page import Band, compose, panel_size
from jaxviz.plot._panels import class_band, heat_band, image_band
from jaxviz.plot._scale import blend, colour_bar, common_scale

SHOWN = 16  # maps in the picture that a notebook shows of a result


def heatmap(
    heatmap: ArrayLike,
    *,
    image: ArrayLike | None = None,
    signed: bool | None = None,
    robust: float | None = None,
    limits: tuple[float, float] | None = None,
    label: str = "",
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw one heatmap or a grid of them on one shared scale, beside their images if given.

    Args:
        heatmap: (height, width) or (batch, height, width), in any unit; NaN is drawn grey,
            infinite values at the ends of the scale, whose limits are those of the finite ones; or
            a result, such as an `Occlusion` or `Attribution`, whose `heatmap()` is drawn.
        image: the image or batch that the heatmaps belong to.
        signed: True for a diverging scale around zero, False for a sequential one, None for
            diverging where a value is negative or, with `limits`, where zero lies between them.
        robust: a percentage in (50, 100]: the limits are this percentile (of the absolute values
            if signed) in place of the extremes; None is 100.
        limits: (low, high) of the scale; symmetric around zero if signed.
        label: what the values are, written beside the colour bar.
        titles: one per map.
        title: of the figure.
        columns: maps in a row; None chooses.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if shapes disagree, or an option is out of its range.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> figure = jaxviz.plot.heatmap(np.eye(4) - 0.5, label="drop", title="An example")
        >>> figure.savefig("/dev/null", format="png")
    """
    heatmap = maps_of(heatmap)
    maps = as_maps(heatmap, "heatmap")
    scale = common_scale(maps, signed, robust, limits, label)
    bands = [heat_band(maps, scale)]
    if image is not None:
        bands.insert(0, image_band(as_images(image, "image", np.ndim(heatmap) == 3, maps.shape)))
    return compose(bands, maps.shape, title_lines(titles, len(maps)), title, columns)


def overlay(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    alpha: float = 0.85,
    signed: bool | None = None,
    robust: float | None = None,
    limits: tuple[float, float] | None = None,
    label: str = "",
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw heatmaps over their images, which turn grey so that every colour is the map's.

    The opacity is `alpha` at the end of the scale and falls with the value to 0 at zero (signed)
    or at the lower limit: a pixel that counts for nothing shows the image alone.

    Args:
        image: (height, width), with 1 or 3 channels, or a batch of such.
        heatmap: (height, width) or (batch, height, width), or a result.
        alpha: opacity at the end of the scale, in (0, 1].
        signed: as in `heatmap`, like all further options.
        robust: see `heatmap`.
        limits: see `heatmap`.
        label: see `heatmap`.
        titles: see `heatmap`.
        title: see `heatmap`.
        columns: see `heatmap`.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: as `heatmap`, or if `alpha` is out of its range.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> photo, drops = np.ones((4, 6, 3)) / 2, np.ones((4, 6))
        >>> figure = jaxviz.plot.overlay(photo, drops, signed=True, label="drop")
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"`alpha` must lie in (0, 1]: got {alpha}.")
    heatmap = maps_of(heatmap)
    maps = as_maps(heatmap, "heatmap")
    images = as_images(image, "image", np.ndim(heatmap) == 3, maps.shape)
    scale = common_scale(maps, signed, robust, limits, label)
    blends = blend(images, maps, scale, alpha)
    bar = colour_bar(scale, panel_size(maps.shape)[0])
    band = Band("", lambda axes, i: axes.imshow(blends[i], aspect="auto"), *bar)
    return compose([band], maps.shape, title_lines(titles, len(maps)), title, columns)


def gallery(
    images: ArrayLike,
    *,
    titles: Sequence[str] | None = None,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw a batch of images in a grid, each under its title.

    Args:
        images: (batch, height, width), with 1 or 3 channels.
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
    return compose([image_band(pictures)], pictures.shape[:3], lines, title, columns)


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
    label: str = "drop in score",
    outline: bool = False,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw each image, its heatmap and its class map below one another, on shared scales.

    Args:
        images: (batch, height, width), with 1 or 3 channels; or one image.
        heatmaps: (batch, height, width), as `Occlusion.heatmap` returns them.
        class_maps: (batch, height, width) integers, as `Occlusion.class_map` returns them.
        true: (batch,) integers, the true classes.
        predicted: (batch,) integers, the classes of the clean images; red where not the true one.
        class_names: the name of each class; None writes the number.
        signed: as in `heatmap`.
        robust: as in `heatmap`.
        limits: as in `heatmap`.
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
    scale = common_scale(maps, signed, robust, limits, label)
    bands = [image_band(pictures), heat_band(maps, scale, edges)]
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
