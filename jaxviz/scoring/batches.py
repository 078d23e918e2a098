"""How many images are evaluated at once, as shapes and the platform have it.

XLA's convolutions on a CPU run fastest at some small batch, which depends on the network, and
mostly is smaller for large images: what lies between two layers then stays in the cache. The first
of each is what is taken; the others are tried where a trial is asked for. Not 32: at just that size
some products run at a quarter of their speed. Convolutions of few channels want more small images
at once since JAX 0.12, as do their windows; before, they ran at less than half of their speed on 48
images, and at two thirds on 128 windows.
"""

from math import prod
from typing import Literal

import jax

from jaxviz.jaxpr.convolution.model import NEW

ON_ACCELERATORS = (256,)
SINCE_NEW = jax.__version_info__[:2] >= NEW
SMALL = {
    "whole": (64, 16, 128) if SINCE_NEW else (16, 48, 8),
    "depthwise": (16, 48, 8),
    "windows": (128, 16, 64) if SINCE_NEW else (64, 16, 128),
    "gradients": (16, 48, 8),
    "depthwise gradients": (16, 48, 8),
}
LARGE = {
    "whole": (4, 2, 8),
    "depthwise": (2, 4, 8),
    "windows": (8, 16, 4),
    "gradients": (2, 4, 1),
    "depthwise gradients": (1, 2, 4),
}
FEW = 16
Evaluated = Literal["whole", "depthwise", "windows", "gradients", "depthwise gradients"]
LARGE_IMAGE = 128 * 128  # pixels


def usual_batches(
    image_shape: tuple[int, ...],
    platform: str,
    what: Evaluated = "whole",
) -> tuple[int, ...]:
    """Return batches, the usual one first, as many whatever is evaluated.

    Args:
        image_shape: (height, width, …).
        platform: of the device, such as "cpu".
        what: whole images, or windows, or gradients by whole images; depthwise is what a network
            with depthwise convolutions is.

    Example:
        >>> usual_batches((28, 28, 1), "cpu", "depthwise"), usual_batches((224, 224, 3), "cpu")
        ((16, 48, 8), (4, 2, 8))
    """
    if platform != "cpu":
        return ON_ACCELERATORS
    return (SMALL if prod(image_shape[:2]) < LARGE_IMAGE else LARGE)[what]


def of_whole_images(batch: int, rows: int) -> int:
    """Return a batch for images of so many rows, of which several may be evaluated at once.

    One program serves any number of images, so that a single one waits for as many as a batch
    holds: on a CPU no more than 16 rows of them.

    Example:
        >>> of_whole_images(48, 577), of_whole_images(48, 20), of_whole_images(48, 5)
        (48, 20, 16)
    """
    return batch if batch in ON_ACCELERATORS else min(batch, max(rows, FEW))
