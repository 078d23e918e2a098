"""Maps over photographs in colour: warm light where the value is positive, cold where negative.

The photograph stays in its colours, darker and paler, so that light shows on any of them; the
opacity follows the strength. Orange against blue is told apart by every common kind of sight.
"""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

WARM = LinearSegmentedColormap.from_list("warm", ["#b3164a", "#ff5a1f", "#ffd84a", "#fffbd6"])
COLD = LinearSegmentedColormap.from_list("cold", ["#1450a8", "#2aa5f5", "#a6ecff", "#effdff"])
LUMA = np.array([0.299, 0.587, 0.114])
DARK, PALE, OPAQUE = 0.62, 0.3, 0.9  # by eye


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
