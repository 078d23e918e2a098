"""What each filter of a layer sees."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxviz._arguments import whole_number
from jaxviz.plot._inputs import as_images
from jaxviz.plot._layers import APART, BAR, NUMBERS, ROOM, layer_block, picture_block, rows_of
from jaxviz.plot._page import BOLD, MARGIN, Page, wrap, write_heading


def activations(
    maps: ArrayLike | Mapping[str, ArrayLike],
    *,
    image: ArrayLike | None = None,
    max_maps: int = 64,
    columns: int = 16,
    title: str = "",
) -> Figure:
    """Draw what each filter sees: the feature maps of one image, layer by layer.

    The maps of a layer share one scale: sequential where none is negative, else diverging around
    zero. A layer with more than `max_maps` maps shows those of the greatest absolute mean. Maps
    that are zero everywhere are grey, with a cross. Narrow layers stand beside each other.

    Args:
        maps: {layer: array} as `jaxviz.activations` returns it for one image, or one array; each
            (1, height, width, channel), (height, width, channel), (1, unit) or (unit,).
        image: the image itself, (height, width) with any channels behind, drawn first if given.
        max_maps: the most maps shown of one layer.
        columns: maps in a row.
        title: of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: if there is no layer, an array has another shape or holds several images, a
            value is infinite, or an option is below 1.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> figure = jaxviz.plot.activations({"conv": np.zeros((1, 6, 6, 8)), "preds": np.ones(10)})
    """
    max_maps, columns = whole_number(max_maps, "max_maps"), whole_number(columns, "columns")
    layers = maps if isinstance(maps, Mapping) else {"": maps}
    if not layers:
        raise ValueError("`maps` must hold at least one layer: got an empty mapping.")
    blocks = []
    if image is not None:
        single = np.asarray(image)
        single = single[0] if single.ndim == 4 and len(single) == 1 else single
        blocks.append(picture_block(as_images(single, "image", False)[0]))
    for name, value in layers.items():
        # The first layer stands beside the image.
        room = ROOM - blocks[0].width - APART if len(blocks) == 1 and image is not None else ROOM
        blocks.append(layer_block(name, value, max_maps, columns, room))
    rows = rows_of(blocks, NUMBERS + ROOM + BAR)
    width = max(sum(block.width + APART for block in row) - APART for row in rows) + 2 * MARGIN
    width = max(width, 2.5)
    heading = wrap(title, width - 2 * MARGIN, 12 * BOLD)
    top = MARGIN + 0.24 * len(heading)
    page = Page(width, top + sum(max(block.height for block in row) for row in rows) + MARGIN)
    write_heading(page, heading)
    for row in rows:
        left = MARGIN
        for block in row:
            block.draw(page, left, top)
            left += block.width + APART
        top += max(block.height for block in row)
    return page.figure
