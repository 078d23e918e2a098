"""A map over its photograph, in one of three ways, and the key beside it."""

from collections.abc import Callable
from typing import get_args

import numpy as np
from matplotlib.axes import Axes

from jaxviz._choices import Overlay
from jaxviz.plot._glow import AGAINST, BOTH, FOR, HALF, WARM, dimmed, grey, show_contours
from jaxviz.plot._inputs import fitted
from jaxviz.plot._page import Band, panel_size, write_corner, write_middle
from jaxviz.plot._panels import legend
from jaxviz.plot._scale import Scaled, blend, colour_bar, plain, strength


def overlay_style(style: Overlay | None, images: np.ndarray) -> Overlay:
    """Return the style asked for; None: "light" over colours, "tint" over what has none."""
    if style is None:
        return "light" if np.ptp(images, axis=-1).max() > 1e-3 else "tint"
    if style not in get_args(Overlay):
        words = ", ".join(f'"{word}"' for word in get_args(Overlay))
        raise ValueError(f"`style` must be one of {words}: got {style!r}.")
    return style


def with_colours(found: Scaled, style: Overlay, own: bool) -> Scaled:
    """Return maps on a scale in the colours of a style, unless they are the caller's own."""
    if style != "light" or own:
        return found
    cmap = BOTH if _signed(found) else WARM
    bad = found.scale.cmap.get_bad()
    return found._replace(scale=found.scale._replace(cmap=cmap.with_extremes(bad=bad)))


def overlay_band(images: np.ndarray, found: Scaled, style: Overlay, alpha: float) -> Band:
    """Return panels of images (batch, height, width, 3) under maps of any size."""
    scale, maps = found.scale, found.maps
    low, high = float(scale.norm.vmin or 0.0), float(scale.norm.vmax or 0.0)
    maps = fitted(np.where(np.isinf(maps), np.clip(maps, low, high), maps), images.shape[1:3])
    if style == "contour":
        shares = strength(maps, scale) * np.where(_signed(found) & (maps < 0), -1, 1)

        def show(axes: Axes, i: int) -> None:
            show_contours(axes, images[i], shares[i] * (not found.flat[i]))

        key = legend(_lines(found))
    else:
        ground = dimmed(images) if style == "light" else grey(images)
        blends = np.clip(blend(ground, maps, scale, alpha), 0, 1)

        def show(axes: Axes, i: int) -> None:
            axes.imshow(blends[i], aspect="auto", interpolation="antialiased")

        key = colour_bar(scale, panel_size(images.shape[:3])[0])
    return Band("", _with_notes(show, found), *key)


def _with_notes(show: Callable[[Axes, int], None], found: Scaled) -> Callable[[Axes, int], None]:
    def draw(axes: Axes, i: int) -> None:
        show(axes, i)
        write_corner(axes, "" if found.flat[i] else found.corners[i])
        write_middle(axes, found.flat[i])

    return draw


def contour_note(found: Scaled) -> str:
    """Return in words where the lines run."""
    return "lines: " + ", ".join(text for text, _ in _lines(found))


def _lines(found: Scaled) -> list[tuple[str, str]]:
    """Return what the lines stand for, and their colours."""
    scale, signed = found.scale, _signed(found)
    low, high = float(scale.norm.vmin or 0.0), float(scale.norm.vmax or 0.0)
    level = HALF * high if signed else low + HALF * (high - low)
    own, name = any(found.corners), f" {scale.label}" if scale.label else ""
    entries = [("≥ half of the corner's" if own else f"≥ {level:.2g}{name}", FOR)]
    if signed and np.any(found.maps < 0):
        text = "≤ minus half of it" if own else plain(f"≤ {-level:.2g}") + name
        entries.append((text, AGAINST))
    return entries


def _signed(found: Scaled) -> bool:
    return found.scale.signed
