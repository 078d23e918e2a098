"""What an operation costs: its floating-point operations, and a model of its time on the CPU.

The model only weighs windows against whole arrays, so only ratios of its constants matter. They
were measured on two cores of an AMD EPYC (Zen 5).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]

PRODUCTS_PER_SECOND = 2e11
DEPTHWISE_PER_SECOND = 1e10
OTHERS_PER_SECOND = 5e9
MOVES_PER_SECOND = 1e9
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
    """Count operations: two for a multiply-add, one an element for the rest, none for moving."""
    if name == "conv_general_dilated":
        kernel = operands[1]
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * prod(result) * prod(kernel) // features
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * prod(result) * prod(operands[0][a] for a in contracted)
    if name.startswith("reduce_window"):
        return prod(result) * prod(params["window_dimensions"])
    return 0 if name in FREE else max(map(prod, (result, *operands)))


def seconds(name: str, params: dict[str, Any], operations: int, moved: int) -> float:
    """Estimate the time of so many operations, with so many elements cut from saved arrays."""
    rate = OTHERS_PER_SECOND
    if name == "conv_general_dilated":
        one = params["feature_group_count"] == 1
        rate = PRODUCTS_PER_SECOND if one else DEPTHWISE_PER_SECOND
    elif name == "dot_general":
        rate = PRODUCTS_PER_SECOND
    return operations / rate + moved / MOVES_PER_SECOND
