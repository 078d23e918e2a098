"""What each operation reads: one table, from which windows, reads and FLOPs all follow.

An operation without a rule, or whose rule returns None, reads everything: it is evaluated as it
stands, on whole arrays. `access` says how rules are written.
"""

from jaxviz.incremental.rules.access import Access, Follow, Places, Resize, Rule, Site
from jaxviz.incremental.rules.axes import ELEMENTWISE, REDUCTIONS, along, elementwise, reduce
from jaxviz.incremental.rules.indexed import (
    adapt_slice_sizes,
    dynamic_slice,
    dynamic_update_slice,
    gather,
    scatter,
)
from jaxviz.incremental.rules.products import dot_general
from jaxviz.incremental.rules.shapes import (
    adapt_shape,
    broadcast,
    concatenate,
    reshape,
    reverse,
    squeeze,
    stack,
    transpose,
    turn,
    unstack,
)
from jaxviz.incremental.rules.stencils import (
    adapt_convolution,
    adapt_pad,
    adapt_pooling,
    adapt_slice,
    convolution,
    identity_of,
    neutral_initial,
    pad,
    pooling,
    strided_slice,
)
from jaxviz.jaxpr.neutral import greatest, least, zero

__all__ = ["ELEMENTWISE", "RULES", "Access", "Follow", "Places", "Resize", "Rule", "Site"]

SCATTERS = ("", "-add", "-mul", "-min", "-max", "_add", "_mul", "_min", "_max", "_sub")

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, Rule(elementwise)),
    **dict.fromkeys(REDUCTIONS, Rule(reduce)),
    "conv_general_dilated": Rule(convolution, adapt_convolution),
    "reduce_window_max": Rule(pooling(identity_of(least)), adapt_pooling),
    "reduce_window_min": Rule(pooling(identity_of(greatest)), adapt_pooling),
    "reduce_window_sum": Rule(pooling(identity_of(zero)), adapt_pooling),
    "reduce_window": Rule(pooling(neutral_initial), adapt_pooling),
    "pad": Rule(pad, adapt_pad),
    "slice": Rule(strided_slice, adapt_slice),
    "transpose": Rule(transpose),
    "reshape": Rule(reshape, adapt_shape("new_sizes")),
    "squeeze": Rule(squeeze),
    "expand_dims": Rule(broadcast, adapt_shape("shape")),
    "broadcast_in_dim": Rule(broadcast, adapt_shape("shape")),
    "concatenate": Rule(concatenate),
    "turn": Rule(turn),
    "stack": Rule(stack),
    "unstack": Rule(unstack),
    "dot_general": Rule(dot_general),
    "dynamic_slice": Rule(dynamic_slice, adapt_slice_sizes),
    "dynamic_update_slice": Rule(dynamic_update_slice),
    "gather": Rule(gather),
    **dict.fromkeys((f"scatter{kind}" for kind in SCATTERS), Rule(scatter)),
    "rev": Rule(reverse),
    "split": Rule(along("axis")),
    "sort": Rule(along("dimension")),
    "cumsum": Rule(along("axis")),
    "cumprod": Rule(along("axis")),
    "cummax": Rule(along("axis")),
    "cummin": Rule(along("axis")),
    "cumlogsumexp": Rule(along("axis")),
}
