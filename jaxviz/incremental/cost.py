"""What an operation costs: multiply-adds counted twice, everything else once an element."""

from collections.abc import Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]

FREE = {
    "broadcast_in_dim",
    "concatenate",
    "expand_dims",
    "gather",
    "iota",
    "pad",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
}


def flops(name: str, params: dict[str, Any], operands: Sequence[Shape], result: Shape) -> int:
    """Count the floating-point operations of one primitive on operands of these shapes."""
    if name == "conv_general_dilated":
        kernel = operands[1]
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * prod(result) * prod(kernel) // features
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * prod(result) * prod(operands[0][a] for a in contracted)
    if name.startswith("reduce_window"):
        return prod(result) * prod(params["window_dimensions"])
    if name in FREE:
        return 0
    return max(prod(result), *(prod(shape) for shape in operands), 0)
