"""What a convolution is like, from the shapes of its arrays: all that choosing a form looks at."""

from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

Params = dict[str, Any]
Pair = tuple[int, int]
CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
FULL = (jnp.float32, jnp.float64)
FEW_CHANNELS = 4  # as many as an image has that comes from a file
MOST_TAPS = 128  # a heuristic: every tap is an operation that has to be compiled


class Sizes(NamedTuple):
    """The sizes of a convolution of one image, channels last.

    Attributes:
        image: rows and columns, without padding.
        result: rows and columns.
        kernel: rows and columns, in taps.
        channels: of the image.
        features: of the result.
        groups: how many parts the channels are in, convolved apart.
    """

    image: Pair
    result: Pair
    kernel: Pair
    channels: int
    features: int
    groups: int

    @classmethod
    def of(cls, params: Params, image: Any, kernel: Any) -> "Sizes":
        """Return the sizes of a plain convolution."""
        result = [
            (n + low + high - (k - 1) * gap - 1) // stride + 1
            for n, k, (low, high), stride, gap in zip(
                image.shape[1:3],
                kernel.shape[:2],
                params["padding"],
                params["window_strides"],
                params["rhs_dilation"],
                strict=True,
            )
        ]
        rows, columns, _, features = kernel.shape
        groups = params["feature_group_count"]
        (height, width), channels = image.shape[1:3], image.shape[3]
        pair = (result[0], result[1])
        return cls((height, width), pair, (rows, columns), channels, features, groups)

    @property
    def sites(self) -> int:
        """How many sites the result has."""
        return prod(self.result)

    @property
    def operations(self) -> int:
        """Floating-point operations of the sums as they stand."""
        return 2 * self.sites * prod(self.kernel) * self.channels * self.features // self.groups


def is_plain(params: Params, image: Any, kernel: Any) -> bool:
    """Say whether it is a convolution of images, channels last, of one dtype, with a result."""
    wanted = params["preferred_element_type"]
    return (
        tuple(params["dimension_numbers"]) == CHANNELS_LAST
        and params["batch_group_count"] == 1
        and image.dtype == kernel.dtype
        and (wanted is None or wanted == image.dtype)  # NumPy takes None for float64: no `in`
        and set(params["lhs_dilation"]) == {1}
        and all(
            min(low, high) >= 0 and image.shape[1 + i] + low + high > (kernel.shape[i] - 1) * gap
            for i, ((low, high), gap) in enumerate(
                zip(params["padding"], params["rhs_dilation"], strict=True)
            )
        )
    )


def is_depthwise(params: Params, image: Any, kernel: Any) -> bool:
    """Say whether each channel is convolved on its own, by not too many taps."""
    return (
        is_plain(params, image, kernel)
        and image.dtype in FULL
        and 1 < params["feature_group_count"] == image.shape[3]
        and kernel.shape[0] * kernel.shape[1] <= MOST_TAPS
    )


def asks_for_the_highest(params: Params) -> bool:
    """Say whether the function wants its products as precise as can be: then as they stand."""
    asked = params["precision"]
    asked = asked if isinstance(asked, tuple) else (asked,)
    return lax.Precision.HIGHEST in asked


def has_unit(params: Params, *names: str) -> bool:
    """Say whether strides or dilations are all 1."""
    return all(set(params[name]) == {1} for name in names)
