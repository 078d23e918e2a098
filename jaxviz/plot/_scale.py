"""The colour scale of a figure's maps: its limits, its bar, and its blend over an image.

One scale for all maps; or each map is drawn as a share of its own, whose end stands in its corner.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.ticker import MaxNLocator

from jaxviz._choices import Scaling
from jaxviz.plot._page import FAINT, INK, MISSING, Page, text_width, wrap

ROUNDING = 1e-6  # of the scale: values beyond its limits by less are not told of


class Scale(NamedTuple):
    norm: Normalize
    cmap: Colormap
    extend: str
    label: str
    note: str
    signed: bool


class Scaled(NamedTuple):
    """Maps as they are drawn: on one scale, what stands in each map's corner, and what is flat."""

    maps: np.ndarray
    scale: Scale
    corners: list[str]
    flat: list[str]


def scaled(
    maps: np.ndarray,
    signed: bool | None,
    robust: float | None,
    limits: tuple[float, float] | None,
    label: str,
    *,
    scaling: Scaling = "shared",
    cmap: str | Colormap | None = None,
) -> Scaled:
    """Return maps (batch, height, width) with the scale that they are drawn on."""
    if scaling not in get_args(Scaling):
        raise ValueError(f'`scaling` must be "image" or "shared": got {scaling!r}.')
    flat = [flat_note(one) for one in maps]
    if scaling == "shared" or len(maps) == 1:
        scale = common_scale(maps, signed, robust, limits, label, cmap)
        note = "one scale for all" if len(maps) > 1 else ""
        scale = scale._replace(note="; ".join(filter(None, (note, scale.note))))
        return Scaled(maps, scale, [""] * len(maps), flat)
    if limits is not None:
        raise ValueError('`limits` are those of one scale for all: leave out `scaling="image"`.')
    finite = maps[np.isfinite(maps)]
    signed = bool(np.min(finite, initial=0.0) < 0) if signed is None else signed
    own = [common_scale(one, signed, robust, None, "", cmap) for one in maps]
    shares = np.stack([_share(one, scale, signed) for one, scale in zip(maps, own, strict=True)])
    ends = (-1.0, 1.0) if signed else (0.0, 1.0)
    scale = common_scale(shares, signed, None, ends, label, cmap)
    told = "share of the value in each corner" if signed else "share of the range in each corner"
    scale = scale._replace(note="; ".join(filter(None, (told, scale.note))))
    return Scaled(shares, scale, [_corner(one, signed) for one in own], flat)


def _share(values: np.ndarray, scale: Scale, signed: bool) -> np.ndarray:
    low, high = float(scale.norm.vmin or 0.0), float(scale.norm.vmax or 0.0)
    return values / high if signed else (values - low) / (high - low)


def _corner(scale: Scale, signed: bool) -> str:
    low, high = scale.norm.vmin, scale.norm.vmax
    return plain(f"±{high:.2g}" if signed else f"{low:.2g} … {high:.2g}")


def flat_note(values: np.ndarray) -> str:
    """Return what to write on a map that shows nothing; "" if it has two values or more."""
    known = values[~np.isnan(values)]
    if not known.size:
        return "no value"
    low, high = float(known.min()), float(known.max())
    if low != high:
        return ""
    return "zero everywhere" if low == 0 else plain(f"{low:.3g} everywhere")


def plain(number: str) -> str:
    """Return a number with a true minus sign."""
    return number.replace("-", "\N{MINUS SIGN}")


def common_scale(
    values: np.ndarray,
    signed: bool | None,
    robust: float | None,
    limits: tuple[float, float] | None,
    label: str,
    cmap: str | Colormap | None = None,
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
    colours = _colour_map(cmap, signed).with_extremes(bad=MISSING)
    note = "grey: no value" if known.size < values.size else ""
    ends = extend.get((below, above), "both")
    return Scale(Normalize(low, high), colours, ends, label, note, signed)


def _colour_map(cmap: str | Colormap | None, signed: bool) -> Colormap:
    if isinstance(cmap, Colormap):
        return cmap
    name = cmap or ("RdBu_r" if signed else "viridis")
    if name not in matplotlib.colormaps:
        raise ValueError(
            f"`cmap` must be a colour map of matplotlib, or its name, such as 'magma' or 'PuOr':"
            f" got {cmap!r}."
        )
    return matplotlib.colormaps[name]


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
    names = [plain(f"{0.0 if abs(t) <= slack else t:.3g}") for t in ticks]
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


def strength(maps: np.ndarray, scale: Scale) -> np.ndarray:
    """Return how far values are from zero (signed) or from the lower limit, in 0…1; NaN is 0."""
    position = np.asarray(scale.norm(np.nan_to_num(maps)))
    share = np.clip(np.abs(2 * position - 1) if scale.signed else position, 0, 1)
    return np.where(np.isnan(maps), 0.0, share)


def blend(ground: np.ndarray, maps: np.ndarray, scale: Scale, alpha: float) -> np.ndarray:
    """Return pictures (batch, height, width, 3) under the colours of maps, denser where strong."""
    colours = scale.cmap(scale.norm(np.ma.masked_where(np.isnan(maps), maps)))[..., :3]
    weight = np.where(np.isnan(maps), 1.0, strength(maps, scale))
    weight = alpha * weight[..., None]
    return (1 - weight) * ground + weight * colours
