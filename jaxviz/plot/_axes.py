"""A panel in axes of the caller's own, in place of a page of ours."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from jaxviz.plot._page import Band
from jaxviz.plot._scale import Scaled


def draw_in(
    axes: Any, band: Band, found: Scaled, lines: Sequence[tuple[str, str]], told: str = ""
) -> Figure:
    """Draw the only panel of a band in axes, with a colour bar beside; return their figure.

    Args:
        axes: those of the caller.
        band: a row of panels.
        found: the map, and its scale.
        lines: the title, as (text, colour).
        told: what stands below in place of the colour bar.

    Raises:
        TypeError: they are no axes.
        ValueError: there are several maps.
    """
    if not isinstance(axes, Axes):
        raise TypeError(f"`ax` must be axes of matplotlib: got a {type(axes).__name__}.")
    if len(found.maps) != 1:
        raise ValueError(
            f"`ax` is for a single map: got {len(found.maps)}; draw them one by one, or without"
            " `ax`."
        )
    axes.set(xticks=[], yticks=[])
    band.draw(axes, 0)
    height, width = axes.get_images()[0].get_size()
    axes.set_aspect(1.0)
    axes.set_box_aspect(height / width)
    axes.set_title("\n".join(text for text, _ in lines), parse_math=False)
    scale, figure = found.scale, axes.get_figure(root=True)
    if told:
        axes.set_xlabel(told, fontsize=8)
        return figure
    mappable = ScalarMappable(scale.norm, scale.cmap)
    beside = axes.inset_axes((1.04, 0.0, 0.05, 1.0))  # as high as the panel, whatever its shape
    label = ", ".join(filter(None, (scale.label, scale.note)))
    figure.colorbar(mappable, cax=beside, extend=scale.extend, label=label)
    return figure
