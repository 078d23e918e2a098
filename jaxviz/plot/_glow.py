"""Maps over photographs: as light, as contours, or as colours over a photograph without colours.

As light, warm where the value is positive and cold where it is negative, on the photograph in its
colours, darker and paler, so that light shows on any of them; the opacity follows the strength. As
contours, the photograph as it is where the map is strong, between warm and cold lines. Orange
against blue is told apart by every common kind of sight.
"""

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from jaxviz.plot._page import INK

WARM = LinearSegmentedColormap.from_list("warm", ["#b3164a", "#ff5a1f", "#ffd84a", "#fffbd6"])
COLD = LinearSegmentedColormap.from_list("cold", ["#1450a8", "#2aa5f5", "#a6ecff", "#effdff"])
# Cold to warm through the dark of a dimmed photograph, for the key of signed maps.
BOTH = LinearSegmentedColormap.from_list(
    "cold to warm", [*COLD(np.linspace(1, 0, 65)), "#2b2b2b", *WARM(np.linspace(0, 1, 65))]
)
LUMA = np.array([0.299, 0.587, 0.114])
DARK, PALE, OPAQUE = 0.62, 0.3, 0.9  # by eye
FOR, AGAINST = "#ff8a1f", "#38b0ff"  # lines
HALF = 0.5  # of the end of the scale: where the lines run


def dimmed(images: np.ndarray) -> np.ndarray:
    """(…, 3) in 0…1 -> the same, darker and paler."""
    grey = (images @ LUMA)[..., None]
    return DARK * ((1 - PALE) * images + PALE * grey)


def light(shares: np.ndarray) -> np.ndarray:
    """Values in [−1, 1] (…) -> colours (…, 3)."""
    strength = np.clip(np.abs(shares), 0, 1)
    return np.where((shares >= 0)[..., None], WARM(strength)[..., :3], COLD(strength)[..., :3])


def glow(images: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return photographs (…, 3) under the light of maps in [−1, 1] (…); NaN sheds none."""
    known = np.nan_to_num(shares)
    weight = OPAQUE * np.clip(np.abs(known), 0, 1)[..., None] ** 0.9
    return (1 - weight) * dimmed(images) + weight * light(known)


def grey(images: np.ndarray) -> np.ndarray:
    """(…, 3) in 0…1 -> the same without colours, so that every colour is a map's."""
    # Rec. 601 luma, lifted off black: the dark ends of a diverging map vanish on a black ground.
    return np.repeat((0.3 + 0.7 * (images @ LUMA))[..., None], 3, -1)


def show_contours(axes: Axes, picture: np.ndarray, shares: np.ndarray) -> None:
    """Draw a photograph, dimmed where a map of shares in [−1, 1] is weak, and lines between."""
    known = np.clip(np.nan_to_num(shares), -1, 1)
    strong = (np.abs(known) >= HALF)[..., None]
    drawn = np.where(strong, picture, dimmed(picture))
    axes.imshow(np.clip(drawn, 0, 1), aspect="auto", interpolation="antialiased")
    height, width = known.shape
    # A rim of zeros on the very border closes the lines of regions that reach it.
    rows = np.clip(np.arange(-1, height + 1), -0.5, height - 0.5)
    columns = np.clip(np.arange(-1, width + 1), -0.5, width - 0.5)
    for sign, colour in ((1, FOR), (-1, AGAINST)):
        padded = np.pad(sign * known, 1)
        if padded.max() > HALF:
            lines = axes.contour(columns, rows, padded, [HALF], colors=[colour], linewidths=1.4)
            lines.set_path_effects([effects.withStroke(linewidth=2.6, foreground=INK)])
