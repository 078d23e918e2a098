"""The kinds of panel: an image, a heatmap, a class map with the legend of its classes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from jaxviz.plot._inputs import class_name
from jaxviz.plot._page import (
    INK,
    LINE,
    MISSING,
    Band,
    Page,
    panel_size,
    shorten,
    text_width,
    write_corner,
    write_middle,
    write_on,
)
from jaxviz.plot._scale import Scaled, colour_bar

PALETTE = (
    *("#6f94c0", "#f4a582", "#64ab70", "#d9665a", "#ab8fcb"),
    *("#d3c45e", "#f2b6d8", "#94dbf2", "#a98175", "#77d1b8"),
)


def image_band(images: np.ndarray, note: str = "") -> Band:
    """Images; the first one says what its colours stand for, if it needs saying."""

    def draw(axes: Axes, i: int) -> None:
        axes.imshow(images[i], aspect="auto")
        if i == 0 and note:
            write_on(axes, 0.03, 0.04, note, 7.0, ha="left", va="bottom")

    return Band("image", draw)


def heat_band(found: Scaled, edges: np.ndarray | None = None) -> Band:
    maps, scale = found.maps, found.scale
    # Infinite values lie at the ends of the scale: Matplotlib would draw them as missing.
    ends = np.clip(maps, scale.norm.vmin, scale.norm.vmax)
    drawn = np.where(np.isinf(maps), ends, maps)

    def draw(axes: Axes, i: int) -> None:
        axes.imshow(
            drawn[i], norm=scale.norm, cmap=scale.cmap, interpolation="nearest", aspect="auto"
        )
        _contour(axes, edges, i)
        write_corner(axes, "" if found.flat[i] else found.corners[i])
        write_middle(axes, found.flat[i])

    return Band("heatmap", draw, *colour_bar(scale, panel_size(maps.shape)[0]))


def class_band(
    maps: np.ndarray, names: Sequence[str] | None, edges: np.ndarray | None = None
) -> Band:
    """Classes below 10 keep their colour in every figure; others by how often they occur."""
    found, counts = np.unique(maps, return_counts=True)
    ranked = [int(c) for c in found[np.argsort(-counts, kind="stable")] if c >= 0]
    fixed = max(ranked, default=0) < len(PALETTE)
    shown = sorted(ranked) if fixed else ranked[: len(PALETTE)]
    hues = {c: PALETTE[c if fixed else i] for i, c in enumerate(shown)}
    lookup = np.array([to_rgb(hues.get(int(c), MISSING)) for c in found])
    colours = lookup[np.searchsorted(found, maps)]
    entries = [(class_name(c, names), hue) for c, hue in hues.items()]
    if len(ranked) > len(shown):
        entries.append((f"{len(ranked) - len(shown)} others", MISSING))
    if found[0] < 0:
        entries.append(("not covered", MISSING))

    def draw(axes: Axes, i: int) -> None:
        axes.imshow(colours[i], interpolation="nearest", aspect="auto")
        _contour(axes, edges, i)

    return Band("class when covered", draw, *legend(entries))


def _contour(axes: Axes, edges: np.ndarray | None, i: int) -> None:
    if edges is None:
        return
    grey = edges[i].mean(-1)
    if grey.min() < 0.5 < grey.max():
        axes.contour(grey, levels=[0.5], colors=[INK], linewidths=0.8, alpha=0.75)


def legend(
    entries: Sequence[tuple[str, str]],
) -> tuple[Callable[[Page, float, float, float], None], float]:
    names = [shorten(name, 1.5, 8) for name, _ in entries]
    pitch = 0.22 + max(text_width(name, 8) for name in names) + 0.1

    def draw(page: Page, left: float, top: float, height: float) -> None:
        rows = max(math.ceil(len(entries) / 2), 1) if pitch < 0.6 else len(entries)
        step = min(LINE, height / rows)
        top += (height - step * rows) / 2
        for slot, (name, (_, colour)) in enumerate(zip(names, entries, strict=True)):
            column, row = divmod(slot, rows)
            x, y = left + column * pitch, top + (row + 0.5) * step
            size = min(0.11, 0.8 * step)
            axes = page.axes(x, y - size / 2, size, size)
            axes.add_patch(Rectangle((0, 0), 1, 1, color=colour))
            page.text(x + 0.17, y, name, fontsize=min(8.0, 60 * step))

    return draw, pitch * (2 if pitch < 0.6 and len(entries) > 1 else 1)
