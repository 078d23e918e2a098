"""How an attribution is read unless it is said otherwise: the defaults of `Attribution.heatmap`."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from jaxviz._choices import Channels, Normalize, Upsample


@dataclass(frozen=True)
class MapReading:
    """What `Attribution.heatmap` takes where an argument is not given; a value.

    Attributes:
        channels: how the channels of a pixel become one number.
        normalize: how a map is scaled; None: it is not.
        upsample: how a map of a layer's size becomes one of the image's; None: it stays as it is.
        epsilon: added to the divisor of a scaled map, as some libraries do; with 0, a map without
            any range is all zeros.
        before: whether a map is also scaled before it is enlarged.
        rectify: whether negative values become 0 before all else.

    Raises:
        ValueError: a word is unknown.

    Example:
        >>> MapReading(normalize="min_max").channels
        'sum'
    """

    channels: Channels = "sum"
    normalize: Normalize | None = None
    upsample: Upsample | None = "bilinear"
    epsilon: float = 0.0
    before: bool = False
    rectify: bool = False

    def __post_init__(self) -> None:
        for name, kind in (
            ("channels", Channels),
            ("normalize", Normalize),
            ("upsample", Upsample),
        ):
            value, known = getattr(self, name), get_args(kind)
            if value not in known and not (value is None and name != "channels"):
                words = ", ".join(f'"{word}"' for word in known)
                raise ValueError(f"`{name}` must be one of {words}: got {value!r}.")


def reduce_channels(values: np.ndarray, channels: Channels) -> np.ndarray:
    """Reduce the last axis: Σ v, Σ |v|, max |v| or √Σ v²; float64."""
    wide = values.astype(np.float64)
    how: dict[str, Any] = {
        "sum": lambda v: v.sum(-1),
        "abs_sum": lambda v: np.abs(v).sum(-1),
        "max_abs": lambda v: np.abs(v).max(-1),
        "norm": lambda v: np.sqrt(np.square(v).sum(-1)),
    }
    return how[channels](wide)


def normalized(maps: np.ndarray, how: Normalize | None, epsilon: float = 0.0) -> np.ndarray:
    """Scale maps (N, H, W), each by itself: v / max |v|, or (v − min) / (max − min)."""
    if how is None:
        return maps
    if how == "min_max":
        maps = maps - maps.min((-2, -1), keepdims=True)
    largest = np.abs(maps).max((-2, -1), keepdims=True) + epsilon
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest != 0)
