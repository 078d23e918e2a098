"""What an operation costs: its floating-point operations, and a model of its time on the CPU.

The model weighs windows against whole arrays, for which only ratios of its constants matter, and
says whether compiling pays. They were measured on two cores of an AMD EPYC (Zen 5), on batches of
eight. What does little with an element, all but products, runs several times faster on arrays that
stay in the cache.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]

PRODUCTS_PER_SECOND = 2e11
DEPTHWISE_PER_SECOND = 3e10
OTHERS_PER_SECOND = 1e10
MOVES_PER_SECOND = 1e9
CACHED_ELEMENTS = 4e5
UNCACHED = 0.25
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


def seconds(name: str, params: dict[str, Any], operations: int, elements: int, moved: int) -> float:
    """Estimate the time of an operation.

    Args:
        name: the primitive.
        params: its parameters.
        operations: how many, see `flops`.
        elements: of the largest array it reads or writes.
        moved: elements cut from saved arrays.
    """
    depthwise = params.get("feature_group_count", 1) > 1
    if name in ("conv_general_dilated", "dot_general") and not depthwise:
        rate = PRODUCTS_PER_SECOND
    else:
        rate = DEPTHWISE_PER_SECOND if depthwise else OTHERS_PER_SECOND
        rate *= UNCACHED if elements > CACHED_ELEMENTS else 1
    return operations / rate + moved / MOVES_PER_SECOND
