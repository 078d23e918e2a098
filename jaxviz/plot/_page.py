"""Layout in inches from the top left corner: panels, keys and text that never leave the page.

A band is one kind of panel (image, heatmap, class map) with one key; bands times images make a
figure. Text is measured before the page is made, so its size follows from what is written.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import product
from typing import Any, NamedTuple

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from jaxviz._arguments import whole_number

INK, FAINT, WRONG, MISSING = "#222222", "#8a8a8a", "#c0262d", "#bdbdbd"
MARGIN, GAP, LINE = 0.16, 0.09, 0.17  # inches
TEXT, BOLD = 9.0, 1.17  # points; how much wider bold text runs


class Picture(Figure):
    """A Figure that a notebook draws by itself, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float):
        self.size = (width, height)
        self.figure = Picture(figsize=self.size, dpi=160, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        x, y = self.size
        axes = self.figure.add_axes((left / x, 1 - (top + height) / y, width / x, height / y))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(linewidth=0.5, color=FAINT)
        return axes

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"fontsize": TEXT, "color": INK, "va": "center", "parse_math": False} | style
        self.figure.text(x / self.size[0], 1 - y / self.size[1], text, **style)


def write_on(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Write on a panel, at shares of it, in white with a dark rim; smaller if it would not fit."""
    wide = axes.get_position().width * axes.figure.get_figwidth()  # pyright: ignore
    size = min(size, 0.92 * size * wide / max(text_width(text, size), 1e-6))
    axes.text(
        x,
        y,
        text,
        color="white",
        fontsize=size,
        transform=axes.transAxes,
        path_effects=[effects.withStroke(linewidth=1.8, foreground=INK)],
        parse_math=False,
        **style,
    )


def write_corner(axes: Axes, text: str) -> None:
    """Write in the lower right corner of a panel."""
    if text:
        write_on(axes, 0.97, 0.04, text, 7.0, ha="right", va="bottom")


def write_middle(axes: Axes, text: str) -> None:
    """Write in the middle of a panel that shows nothing else."""
    if text:
        write_on(axes, 0.5, 0.5, text, 8.0, ha="center", va="center")


class Band(NamedTuple):
    """One row of panels: how to draw panel i, and how to draw the key beside the row."""

    label: str
    draw: Callable[[Axes, int], object]
    key: Callable[["Page", float, float, float], object] | None = None
    key_width: float = 0.0


def panel_size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the (height, width) in inches of a panel: a few are large, many still fit.

    Panels keep the pixels square up to an aspect of 5; the shorter side is 0.8 inches or more.
    """
    count, height, width = shape
    ratio = min(max(height / width, 0.2), 5.0)
    size = 2.6 if count == 1 else 1.9 if count <= 4 else 1.3
    wide = max(size / max(ratio, 1.0), 0.8 / min(ratio, 1.0))
    return wide * ratio, wide


def compose(
    bands: Sequence[Band],
    shape: tuple[int, ...],
    lines: Sequence[Sequence[tuple[str, str]]],
    title: str,
    columns: int | None,
) -> Figure:
    """Lay out bands × images: below one another, or beside one another for a single image."""
    count = shape[0]
    if columns is not None:
        columns = whole_number(columns, "columns", choices="None")
    tall, wide = panel_size(shape)
    if count == 1 and len(bands) > 1:
        return _compose_row(bands, tall, wide, lines[0], title)
    most = min(5 if len(bands) == 1 and count <= 16 else 8, max(1, int(11.2 / (wide + GAP))))
    columns = min(columns or math.ceil(count / math.ceil(count / most)), count)
    blocks = math.ceil(count / columns)
    above = LINE * max(map(len, lines)) + 0.04
    block = above + len(bands) * (tall + GAP) + 0.08
    label_room = 0.38 if len(bands) > 1 else 0.0
    left = MARGIN + label_room
    key_left = left + columns * (wide + GAP)
    key_room = max(band.key_width for band in bands)
    heading = wrap(title, max(key_left + key_room - MARGIN, 2.0), 12 * BOLD)
    start = MARGIN + 0.24 * len(heading)
    page = Page(
        max(key_left + key_room + MARGIN, 2.0 + 2 * MARGIN), start + blocks * block + MARGIN - GAP
    )
    write_heading(page, heading)
    for i in range(count):
        r, c = divmod(i, columns)
        x, y = left + c * (wide + GAP), start + r * block
        _write_lines(page, x + wide / 2, y, lines[i], wide + GAP * 0.5)
        for b, band in enumerate(bands):
            band.draw(page.axes(x, y + above + b * (tall + GAP), wide, tall), i)
    rows = range(blocks) if len(bands) > 1 else range(1)
    reach = tall if len(bands) > 1 else min((blocks - 1) * block + tall, 3.0)
    for r, (b, band) in product(rows, enumerate(bands)):
        y = start + r * block + above + b * (tall + GAP)
        if label_room:
            text = "\n".join(wrap(band.label, tall, TEXT, 2))
            page.text(MARGIN + 0.12, y + tall / 2, text, rotation=90, ha="center")
        if band.key:
            band.key(page, key_left, y, reach)
    return page.figure


def _compose_row(
    bands: Sequence[Band],
    tall: float,
    wide: float,
    lines: Sequence[tuple[str, str]],
    title: str,
) -> Figure:
    total = sum(wide + band.key_width + 3 * GAP for band in bands) - 3 * GAP
    heading = wrap(title, total, 12 * BOLD)
    above = 0.24 * len(heading) + (LINE + 0.06) * bool(lines) + LINE + 0.06
    page = Page(total + 2 * MARGIN, 2 * MARGIN + above + tall)
    write_heading(page, heading)
    x, y = MARGIN, MARGIN + 0.24 * len(heading) + LINE / 2
    for text, colour in lines:
        text = shorten(text, total / len(lines) - 0.2, TEXT)
        page.text(x, y, text, color=colour)
        x += text_width(text, TEXT) + 0.2
    x, top = MARGIN, MARGIN + above
    for band in bands:
        page.text(x + wide / 2, top - LINE / 2 - 0.03, band.label, ha="center", weight="bold")
        band.draw(page.axes(x, top, wide, tall), 0)
        if band.key:
            band.key(page, x + wide + GAP, top, tall)
        x += wide + band.key_width + 3 * GAP
    return page.figure


def write_heading(page: Page, lines: Sequence[str]) -> None:
    for row, line in enumerate(lines):
        page.text(MARGIN, MARGIN + 0.08 + 0.24 * row, line, fontsize=12, weight="bold")


def _write_lines(
    page: Page, x: float, top: float, lines: Sequence[tuple[str, str]], width: float
) -> None:
    for row, (text, colour) in enumerate(lines):
        style = {"color": colour, "ha": "center"}
        page.text(x, top + (row + 0.5) * LINE, shorten(text, width, TEXT), **style)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Return the text's width in inches, without a renderer."""
    if not text.strip():
        return 0.0
    path = TextPath((0, 0), text.replace("$", "S"), size=size)
    # Glyphs have points at their extremes, so that curves need not be followed, which takes long.
    drawn = path.vertices[np.asarray(path.codes) != Path.CLOSEPOLY, 0]
    return float(np.ptp(drawn)) / 72 * 1.04


def shorten(text: str, width: float, size: float) -> str:
    """Return the text if it fits, else as much of its beginning as fits with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    some = range(len(text))
    fit = bisect_right(some, width, key=lambda kept: text_width(text[:kept] + "…", size))
    return text[: max(fit - 1, 0)].rstrip() + "…"


def wrap(text: str, width: float, size: float, most: int = 99) -> list[str]:
    """Return `text` in lines of this width; what exceeds `most` lines ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, size))
    if len(lines) > most:
        lines[most - 1 :] = [shorten(" ".join(lines[most - 1 :]), width, size)]
    return lines
