"""XLA's convolution, with its result kept higher than its input.

XLA hands a convolution on a CPU to one of two libraries, of which the slower takes those whose
result is not higher than their input: with a row more below, cut off again, the faster takes it.
"""

from collections.abc import Sequence

import jax
from jax import lax

from jaxviz.jaxpr.convolution.shapes import Pair, Params

MOST_ADDED = 4  # at most one row for four: the faster library makes up for no more


def rows_added(height: int, result: int) -> int:
    """Return how many rows keep a result higher than its input; 0 if that does not pay."""
    more = max(0, height + 1 - result)
    return more if MOST_ADDED * more <= result else 0


def convolve_higher(
    padding: Sequence[Pair], params: Params, x: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Convolve by stride 1, with more rows below, cut off again."""
    (top, bottom), sides = padding
    dilation = params["rhs_dilation"]
    height = x.shape[1] + top + bottom - (kernel.shape[0] - 1) * dilation[0]
    more = rows_added(x.shape[1], height)
    y = convolve(((top, bottom + more), sides), params, x, kernel)
    return y[:, :height] if more else y


def convolve(padding: Sequence[Pair], params: Params, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by stride 1, as XLA has it."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=params["feature_group_count"],
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
