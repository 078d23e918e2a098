"""One colour scale per figure: its limits, its bar, and its blend over an image."""

import math
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.ticker import MaxNLocator

from jaxviz.plot._page import FAINT, INK, MISSING, Page, text_width, wrap

ROUNDING = 1e-6  # of the scale: values beyond its limits by less are not told of


class Scale(NamedTuple):
    norm: Normalize
    cmap: Colormap
    extend: str
    label: str
    note: str


def common_scale(
    values: np.ndarray,
    signed: bool | None,
    robust: float | None,
    limits: tuple[float, float] | None,
    label: str,
) -> Scale:
    check_robust(robust)
    known = values[~np.isnan(values)]
    finite = known[np.isfinite(known)]  # infinite values lie beyond the limits, and say so
    finite = finite if finite.size else np.zeros(1)
    if limits is not None:
        signed = _signed_by(limits, signed)
    signed = bool(np.min(known, initial=0.0) < 0) if signed is None else signed
    low, high = limits if limits is not None else _extremes(finite, signed, robust or 100.0)
    slack = ROUNDING * (high - low)
    below, above = bool(np.any(known < low - slack)), bool(np.any(known > high + slack))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    cmap = matplotlib.colormaps["RdBu_r" if signed else "viridis"]
    cmap = cmap.with_extremes(bad=MISSING)
    note = "grey: no value" if known.size < values.size else ""
    return Scale(Normalize(low, high), cmap, extend.get((below, above), "both"), label, note)


def check_robust(robust: float | None) -> None:
    number = isinstance(robust, int | float | np.number)
    if robust is not None and not (number and 50 < robust <= 100):
        raise ValueError(f"`robust` must be a percentage in (50, 100]: got {robust!r}.")


def _signed_by(limits: tuple[float, float], signed: bool | None) -> bool:
    """Return whether a scale of these limits is signed: as asked, or if zero lies between them."""
    numbers = np.ravel(np.asarray(limits, dtype=object)).tolist()
    real = len(numbers) == 2 and all(isinstance(n, int | float | np.number) for n in numbers)
    low, high = numbers if real else (0.0, 0.0)
    signed = low < 0 < high if signed is None else signed
    if not -math.inf < low < high < math.inf or (signed and low != -high):
        rule = "(-bound, bound) on a signed scale" if signed else "(low, high) with low < high"
        raise ValueError(f"`limits` must be {rule}: got {limits}.")
    return bool(signed)


def _extremes(known: np.ndarray, signed: bool, robust: float) -> tuple[float, float]:
    if signed:
        bound = float(np.percentile(np.abs(known), robust)) or float(np.abs(known).max()) or 1.0
        return -bound, bound
    low, high = (float(np.percentile(known, q)) for q in (100 - robust, robust))
    if low == high:
        low, high = float(known.min()), float(known.max())
    spread = 0.0 if low < high else max(abs(low), 1.0) / 2
    return low - spread, high + spread


def colour_bar(
    scale: Scale, least: float
) -> tuple[Callable[[Page, float, float, float], None], float]:
    """Return how to draw the bar at (left, top, height ≥ least), and the width that it takes."""
    low, high = float(scale.norm.vmin or 0.0), float(scale.norm.vmax or 0.0)
    slack = 1e-9 * (high - low)
    ticks = [low, high]
    if least >= 0.5:
        ticks = [
            t for t in MaxNLocator(4).tick_values(low, high) if low <= t + slack <= high + slack
        ]
    names = [f"{0.0 if abs(t) <= slack else t:.3g}".replace("-", "\N{MINUS SIGN}") for t in ticks]
    lines = wrap(scale.label, least, 8, 2) + wrap(scale.note, least, 8, 2)
    room = 0.11 + 0.1 + max(text_width(name, 8) for name in names) + 0.04

    def draw(page: Page, left: float, top: float, height: float) -> None:
        axes = page.axes(left, top, 0.11, height)
        mappable = ScalarMappable(scale.norm, scale.cmap)
        bar = page.figure.colorbar(mappable, cax=axes, extend=scale.extend)
        bar.set_ticks(ticks, labels=names)
        bar.outline.set(linewidth=0.5, edgecolor=FAINT)  # type: ignore[operator]
        axes.tick_params(labelsize=8, width=0.5, length=2, color=FAINT, labelcolor=INK, pad=2)
        x = left + room + 0.14 * len(lines) / 2
        page.text(x, top + height / 2, "\n".join(lines), rotation=90, ha="center", fontsize=8)

    return draw, room + 0.14 * len(lines)


def blend(images: np.ndarray, maps: np.ndarray, scale: Scale, alpha: float) -> np.ndarray:
    # Rec. 601 luma, lifted off black: the dark ends of a diverging map vanish on a black ground.
    grey = 0.3 + 0.7 * (images @ np.array([0.299, 0.587, 0.114]))
    colours = scale.cmap(scale.norm(np.ma.masked_where(np.isnan(maps), maps)))[..., :3]
    signed = scale.norm.vmin == -(scale.norm.vmax or 0.0)
    position = np.asarray(scale.norm(np.nan_to_num(maps)))
    weight = np.clip(np.abs(2 * position - 1) if signed else position, 0, 1)
    weight = alpha * np.where(np.isnan(maps), 1.0, weight)[..., None]
    return (1 - weight) * grey[..., None] + weight * colours
