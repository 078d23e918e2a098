"""How many images are evaluated at once, as shapes and the platform have it.

XLA's convolutions on a CPU run fastest at some small batch, which depends on the network, and
mostly is smaller for large images: what lies between two layers then stays in the cache. The first
of each is what is taken; the others are tried where a trial is asked for. Not 32: at just that size
some products run at a quarter of their speed.
"""

from math import prod
from typing import Literal

ON_ACCELERATORS = (256,)
SMALL = (16, 48, 8)
LARGE = {
    "whole": (4, 2, 8),
    "depthwise": (2, 4, 8),
    "windows": (8, 16, 4),
    "gradients": (4, 2, 8),
    "depthwise gradients": (1, 2, 4),
}
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
        >>> usual_batches((28, 28, 1), "cpu"), usual_batches((224, 224, 3), "cpu")
        ((16, 48, 8), (4, 2, 8))
    """
    if platform != "cpu":
        return ON_ACCELERATORS
    return SMALL if prod(image_shape[:2]) < LARGE_IMAGE else LARGE[what]
