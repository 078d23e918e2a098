"""Give `maximize` its defaults, by the kind of picture.

An image of one channel is taken for a drawing: strokes on a ground of the lowest value, such as a
digit. It starts empty and pays for its ink, so that what the network does not ask for stays empty;
its pixels move. Any other image is taken for a photograph: it starts grey, and its spectrum moves,
in colours that natural images leave uncorrelated. Both are shown shifted at random and pay for
total variation. The weights were chosen by eye on MNIST and ImageNet networks and assume an
objective of the size of a logit; they are scaled to the value range.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from jaxviz.maximization import transforms as tf
from jaxviz.maximization.parametrize import Parametrization, decorrelated, fourier, pixels
from jaxviz.maximization.regularize import Penalty, Tidy, ink, penalty, total_variation


class Defaults(NamedTuple):
    """Hold what is not given to `maximize`; `start` is the pixel value that noise is added to."""

    parametrization: Parametrization
    bounds: str
    transforms: tuple[tf.Transform, ...]
    regularizers: tuple[Penalty | Tidy, ...]
    start: float


def defaults(shape: tuple[int, int, int], value_range: tuple[float, float]) -> Defaults:
    """Return the defaults for images of a shape (H, W, C)."""
    make: Callable[..., Defaults] = _drawing if shape[2] == 1 else _photograph
    return make(shape, *map(float, value_range))


@cache
def _drawing(shape: tuple[int, int, int], low: float, high: float) -> Defaults:
    height, width, _ = shape
    span = high - low
    reach = max(1, min(height, width) // 9)
    ground = {"ground": low}
    return Defaults(
        parametrization=pixels(),
        bounds="project",
        # Not a roll: strokes that leave on one side must not be counted on the other.
        transforms=(tf.pad(reach, value=low), tf.crop(height, width)),
        regularizers=(
            penalty(total_variation, 100 / span**2),
            penalty(ink, 20 / span, options=ground),
        ),
        start=low,
    )


@cache
def _photograph(shape: tuple[int, int, int], low: float, high: float) -> Defaults:
    span = high - low
    size = min(shape[:2])
    reach = max(1, size // 28)
    middle = (low + high) / 2
    return Defaults(
        parametrization=decorrelated(fourier()) if shape[2] == 3 else fourier(),
        bounds="sigmoid",
        transforms=(
            tf.pad(reach, value=middle),
            tf.jitter(reach),
            tf.scale(0.9, 1.1),
            tf.crop(*shape[:2]),
        ),
        regularizers=(penalty(total_variation, 10 / span**2),),
        start=middle,
    )
