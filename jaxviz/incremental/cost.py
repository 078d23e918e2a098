"""What an operation costs: its floating-point operations, and a model of its time on the CPU.

The model weighs windows against whole arrays, for which only ratios of its constants matter, and
says whether compiling pays. They were measured on two cores of an AMD EPYC (Zen 5), on batches of
eight. What does little with an element, all but products, runs several times faster on arrays that
stay in the cache. A scan costs its body as often as it runs; a while, whose count is not known,
once; a conditional, the dearest of its branches.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr

from jaxviz.jaxpr.loops import bodies
from jaxviz.jaxpr.walk import flatten, jaxprs_in

Shape = tuple[int, ...]

PRODUCTS_PER_SECOND = 2e11
# What a convolution spends on each tap of each site, however few channels it multiplies there: at 4
# channels it runs at a fiftieth of the rate above.
SECONDS_A_TAP = 8e-9
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
    "stack",
    "transpose",
    "turn",
    "unstack",
}
# Their jaxpr says what is done with one element, which counting elements covers.
BY_ELEMENT = ("reduce", "scatter", "select_and_scatter", "sort", "custom_linear_solve")


class Cost(NamedTuple):
    """Floating-point operations, and seconds on a CPU."""

    flops: int
    seconds: float

    def times(self, count: int) -> "Cost":
        """Return the cost of doing it so many times."""
        return Cost(self.flops * count, self.seconds * count)


def cost(
    name: str,
    params: dict[str, Any],
    operands: Sequence[Shape],
    result: Shape,
    *,
    moved: int = 0,
) -> Cost:
    """Return what an operation costs.

    Args:
        name: the primitive.
        params: its parameters.
        operands: their shapes.
        result: its shape, of the first one if there are several.
        moved: elements cut from saved arrays to make the operands.
    """
    moving = Cost(0, moved / MOVES_PER_SECOND)
    loop = [_of_jaxpr(body) for body in bodies(name, params)]
    if name == "cond":
        return _sum([max(loop, key=lambda branch: branch.seconds), moving])
    if loop:
        return _sum([_sum(loop).times(params.get("length", 1)), moving])
    inner = () if name.startswith(BY_ELEMENT) else jaxprs_in(params)
    if inner:  # a call that is not inlined
        return _sum([*map(_of_jaxpr, inner), moving])
    operations = flops(name, params, operands, result)
    elements = max(map(prod, (*operands, result)))
    seconds = _seconds(name, params, operations, elements) + _taps(name, params, operands, result)
    return _sum([Cost(operations, seconds), moving])


def _of_jaxpr(jaxpr: ClosedJaxpr) -> Cost:
    flat, _ = flatten(jaxpr, open_derivatives=True)
    costs = []
    for equation in flat.equations:
        shapes = [getattr(flat.aval(x), "shape", ()) for x in equation.operands]
        results = [getattr(flat.avals[number], "shape", ()) for number in equation.results]
        result = results[0] if results else ()
        costs.append(cost(equation.primitive.name, equation.params, shapes, result))
    return _sum(costs)


def _sum(costs: Sequence[Cost]) -> Cost:
    return Cost(sum(c.flops for c in costs), sum(c.seconds for c in costs))


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


def _taps(name: str, params: dict[str, Any], operands: Sequence[Shape], result: Shape) -> float:
    """Estimate what the taps of a convolution cost beside its products."""
    if name != "conv_general_dilated" or params["feature_group_count"] > 1:
        return 0.0
    _, kernel, out = params["dimension_numbers"]
    features, inputs = (operands[1][axis] for axis in kernel[:2])
    sites = prod(result) // max(1, result[out[1]])
    return sites * prod(operands[1]) / max(1, features * inputs) * SECONDS_A_TAP


def _seconds(name: str, params: dict[str, Any], operations: int, elements: int) -> float:
    """Estimate the time of an operation whose largest array has so many elements."""
    depthwise = params.get("feature_group_count", 1) > 1
    if name in ("conv_general_dilated", "dot_general") and not depthwise:
        return operations / PRODUCTS_PER_SECOND
    rate = DEPTHWISE_PER_SECOND if depthwise else OTHERS_PER_SECOND
    return operations / (rate * (UNCACHED if elements > CACHED_ELEMENTS else 1))
