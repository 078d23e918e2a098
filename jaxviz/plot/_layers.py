"""The section that one layer gets in the picture of activations."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxviz.plot._inputs import as_feature_maps
from jaxviz.plot._page import BOLD, FAINT, Page, text_width
from jaxviz.plot._scale import colour_bar, common_scale, flat_note

APART = 0.35  # inches between blocks of a row

ROOM, NUMBERS, BAR = 9.6, 0.3, 0.8  # inches: of all maps of a row, the numbers before, the bar
DEAD = "#e9e9e6"


class Block(NamedTuple):
    """One layer's section of the activations figure: its size, and how to draw it at a corner."""

    width: float
    height: float
    draw: Callable[[Page, float, float], None]


def picture_block(image: np.ndarray) -> Block:
    """Return the section of the image itself, (height, width, 3) in 0…1."""
    height, width = image.shape[:2]
    tall = min(1.2 * height / width, 2.4)

    def draw(page: Page, left: float, top: float) -> None:
        page.text(left, top + 0.16, "image", fontsize=10, weight="bold")
        page.axes(left, top + 0.32, 1.2, tall).imshow(image, aspect="auto")

    return Block(1.2, 0.32 + tall + 0.2, draw)


def rows_of(blocks: Sequence[Block], room: float) -> list[list[Block]]:
    """Lay blocks beside each other as far as they fit, in their order."""
    rows: list[list[Block]] = []
    left = 0.0
    for block in blocks:
        left -= block.width + APART
        if not rows or left < -APART - 1e-9:
            rows.append([])
            left = room - block.width
        rows[-1].append(block)
    return rows


def layer_block(
    name: str, value: ArrayLike, max_maps: int, columns: int, room: float = ROOM
) -> Block:
    """Return the section of one layer, with its strongest maps in a grid as wide as `room`."""
    stack = as_feature_maps(value, name)
    total, height, width = stack.shape
    vector = (height, width) == (1, 1)
    kept = np.arange(total)
    if total > max_maps and not vector:
        strength = np.abs(np.nan_to_num(stack)).mean((1, 2))
        kept = np.sort(np.argsort(-strength, kind="stable")[:max_maps])
    columns = min(columns, len(kept)) if not vector else min(64 if total > 16 else 16, total)
    rows = math.ceil(len(kept) / columns)
    columns = math.ceil(len(kept) / rows)  # as many in each row, but for the last
    tile = min(room / columns, 1.2)
    tall = min(tile * height / width, 2.4) if not vector else min(tile, 0.3)
    scale = common_scale(stack, None, None, None, "")
    plural = "s" * (total != 1)
    what = f"{total} unit{plural}" if vector else f"{total} map{plural} of {height} × {width}"
    what += f", the {len(kept)} strongest shown" if len(kept) < total else ""
    dead = [] if vector else [i for i in kept if flat_note(stack[i]) == "zero everywhere"]
    what += f", {len(dead)} zero everywhere (×)" if dead else ""
    numbered = vector and total <= 16
    bar_draw, bar_width = colour_bar(scale, max(rows * tall - 0.04, 0.26))
    told = (text_width(name, 10 * BOLD) + 0.1 if name else 0.0) + text_width(what, 9)

    def draw(page: Page, left: float, top: float) -> None:
        left += NUMBERS
        page.text(left, top + 0.16, name, fontsize=10, weight="bold")
        offset = text_width(name, 10 * BOLD) + 0.1 if name else 0.0
        page.text(left + offset, top + 0.16, what, color=FAINT)
        top += 0.32
        for row in range(rows if not numbered else 0):
            first = kept[row * columns]
            page.text(left - 0.06, top + (row + 0.5) * tall, str(first), ha="right", fontsize=7)
        for slot, index in enumerate(kept):
            row, column = divmod(slot, columns)
            box = (left + column * tile, top + row * tall, tile - 0.04, tall - 0.04)
            axes = page.axes(*box)
            axes.spines[:].set_visible(False)
            if index in dead:
                _cross(axes)
            else:
                axes.imshow(stack[index], norm=scale.norm, cmap=scale.cmap, aspect="auto")
            if numbered:
                page.text(
                    box[0] + box[2] / 2, top + tall + 0.04, str(index), ha="center", fontsize=7
                )
        bar = max(rows * tall - 0.04, 0.26)
        bar_draw(page, left + columns * tile + 0.06, top, bar)

    width = NUMBERS + max(columns * tile + 0.06 + bar_width, told)
    return Block(width, 0.32 + rows * tall + 0.2 + 0.1 * numbered, draw)


def _cross(axes: Axes) -> None:
    """Mark a map that sees nothing: no colour of the scale, and a small cross."""
    axes.set_facecolor(DEAD)
    axes.plot([0.5], [0.5], "x", color=FAINT, markersize=4, transform=axes.transAxes)
