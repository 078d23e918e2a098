"""What each operation reads: one table, from which windows, reads and FLOPs all follow.

A rule says, for every operand and each of its axes, which axis of the result follows it and
through which `Stencil`; None marks an axis that any element of the result may read as a whole.
All results of an operation have the same layout. The second entry of a rule adapts the
parameters to a window. An operation without a rule, or whose rule returns None, reads everything:
it is evaluated as it stands, on whole arrays.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from jaxviz.incremental.reach import POINT, Stencil
from jaxviz.jaxpr.neutral import NEUTRAL, greatest, least, zero
from jaxviz.jaxpr.walk import Constant, Operand

Params = dict[str, Any]


class Follow(NamedTuple):
    """This axis of an operand is read by axis `axis` of the result through `stencil`."""

    axis: int
    stencil: Stencil = POINT


class Access(NamedTuple):
    """Per operand, per axis: what follows it; and what an operand holds beyond its border."""

    follows: tuple[tuple[Follow | None, ...], ...]
    fill: Operand | None = None


class Site(NamedTuple):
    """An equation as rules see it: parameters, operands and the shapes around it.

    `value` gives an operand that follows from the program alone, such as the weights of a bilinear
    enlargement; None for others.
    """

    params: Params
    operands: tuple[Operand, ...]
    shapes: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    dtype: Any
    value: Callable[[Operand], np.ndarray | None]


class Resize(NamedTuple):
    """What a window changes: the size of each windowed axis of the result; the operands' shapes."""

    sizes: dict[int, int]
    shapes: tuple[tuple[int, ...], ...]

    def shape(self, full: tuple[int, ...]) -> tuple[int, ...]:
        """Return the result's shape with its windowed axes cut down."""
        return tuple(self.sizes.get(axis, dim) for axis, dim in enumerate(full))


class Rule(NamedTuple):
    """How to read, and how to adapt the parameters to a window."""

    access: Callable[[Site], Access | None]
    adapt: Callable[[Site, Resize], Params] = lambda site, resize: site.params


def _points(shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[Follow | None, ...]:
    """Let axis follow axis; one of length 1 that is stretched is read as a whole."""
    return tuple(Follow(a) if dim == result[a] else None for a, dim in enumerate(shape))


def elementwise(site: Site) -> Access:
    """Read element by element; scalars and axes of length 1 are stretched."""
    return Access(tuple(_points(shape, site.result) for shape in site.shapes))


def along(*names: str) -> Callable[[Site], Access]:
    """Read whole the axes that a parameter names, the others element by element."""

    def access(site: Site) -> Access:
        axes = _named_axes(site.params, names)
        return Access(
            tuple(
                tuple(None if a in axes else Follow(a) for a in range(len(shape)))
                for shape in site.shapes
            )
        )

    return access


def reduce(site: Site) -> Access:
    """Read whole the reduced axes, which the result lacks, the others element by element."""
    axes = _named_axes(site.params, ("axes", "dimensions"))
    return Access(tuple(_without(len(shape), axes) for shape in site.shapes))


def _without(rank: int, axes: set[int]) -> tuple[Follow | None, ...]:
    kept = iter(range(rank))
    return tuple(None if a in axes else Follow(next(kept)) for a in range(rank))


def _named_axes(params: Params, names: tuple[str, ...]) -> set[int]:
    found = next(params[name] for name in names if name in params)
    return set(found) if np.ndim(found) else {int(found)}


def convolution(site: Site) -> Access | None:
    """Read through the kernel's stencil on the spatial axes, whole over the channels.

    Where the input is enlarged `up` times with zeros between (a transposed convolution), input i
    lies at i*up, and output o = a*up + b, b < up, reads o - low ... o - low + extent - 1 of that.
    For up = 2, extent = 3, low = 1:

        enlarged     x0 .  x1 .  x2
        o = 2           [-----]         a = 1, b = 0: x1
        o = 3              [-----]      a = 1, b = 1: x1 and x2
    """
    p, (image, kernel) = site.params, site.shapes
    if p["batch_group_count"] != 1:
        return None
    lhs, rhs, out = p["dimension_numbers"]
    follows: list[Follow | None] = [None] * len(image)
    follows[lhs[0]] = Follow(out[0])
    for i, (low, _) in enumerate(p["padding"]):
        extent = (kernel[rhs[2 + i]] - 1) * p["rhs_dilation"][i] + 1
        stride, up = p["window_strides"][i], p["lhs_dilation"][i]
        if up == 1:
            follows[lhs[2 + i]] = Follow(out[2 + i], Stencil(extent, stride, low))
        elif stride == 1 and site.result[out[2 + i]] % up == 0:
            # i - a goes from ceil((b - low)/up), least where b = 0, to
            # floor((b - low + extent - 1)/up), most where b = up - 1.
            first, last = -(low // up), (up - 2 - low + extent) // up
            stencil = Stencil(last - first + 1, 1, -first, up)
            follows[lhs[2 + i]] = Follow(out[2 + i], stencil)
    return Access((tuple(follows), (None,) * len(kernel)), Constant(zero(site.dtype)))


def adapt_convolution(site: Site, resize: Resize) -> Params:
    """Drop the padding, which a window brings with it, but for the zeros of an enlarged axis."""
    p, (lhs, rhs, out) = site.params, site.params["dimension_numbers"]
    image, kernel = resize.shapes
    padding = []
    for i, (low, high) in enumerate(p["padding"]):
        up, size = p["lhs_dilation"][i], resize.sizes.get(out[2 + i])
        if size is not None:
            wanted = size + (kernel[rhs[2 + i]] - 1) * p["rhs_dilation"][i]
            # The region's first input is a - low//up, at (a*up - low) + low % up: as many zeros lie
            # before it. Behind its last input `high` adds the zeros that are read, or drops some.
            low, held = low % up, (image[lhs[2 + i]] - 1) * up + 1
            high = wanted - low - held if up > 1 else 0
        padding.append((low, high))
    return {**p, "padding": tuple(padding)}


def pooling(fill: Callable[[Site], Operand | None]) -> Callable[[Site], Access | None]:
    """Read through a pool's windows; beyond the border lies the reduction's neutral element."""

    def access(site: Site) -> Access | None:
        p = site.params
        extents = zip(p["window_dimensions"], p["window_dilation"], strict=True)
        stencils = [
            Stencil((size - 1) * dilation + 1, stride, low)
            for (size, dilation), stride, (low, _) in zip(
                extents, p["window_strides"], p["padding"], strict=True
            )
        ]
        follows = tuple(
            Follow(a, stencil) if p["base_dilation"][a] == 1 else None
            for a, stencil in enumerate(stencils)
        )
        border = fill(site)
        scalars = ((),) * (len(site.shapes) - 1)
        return Access((follows, *scalars), border) if border is not None else None

    return access


def adapt_pooling(site: Site, resize: Resize) -> Params:
    """Drop the padding of windowed axes: a window brings it with it."""
    padding = [
        (0, 0) if axis in resize.sizes else tuple(pad)
        for axis, pad in enumerate(site.params["padding"])
    ]
    return {**site.params, "padding": tuple(padding)}


def _of(neutral: Callable[[Any], Any]) -> Callable[[Site], Operand]:
    return lambda site: Constant(neutral(site.dtype))


def _neutral_initial(site: Site) -> Operand | None:
    """Return the initial value of a reduction of any kind if it is known to change nothing.

    Beyond the border of a map a reduction meets its initial value never, but a window, which brings
    its border along, would meet it once for every element.
    """
    reducer = site.params["jaxpr"]
    if len(site.operands) != 2 or len(reducer.eqns) != 1:
        return None
    (equation,), initial = reducer.eqns, site.value(site.operands[1])
    neutral, inputs = NEUTRAL.get(equation.primitive.name), list(reducer.invars)
    plain = list(equation.invars) in (inputs, inputs[::-1]) and equation.outvars == reducer.outvars
    if neutral is None or initial is None or not plain:
        return None
    return site.operands[1] if initial == neutral(site.dtype) else None


def pad(site: Site) -> Access:
    """Read input o - low for output o; an axis with padding between elements is read whole."""
    config = site.params["padding_config"]
    follows = tuple(
        Follow(a, Stencil(low=low)) if inner == 0 else None
        for a, (low, _, inner) in enumerate(config)
    )
    return Access((follows, ()), site.operands[1])


def adapt_pad(site: Site, resize: Resize) -> Params:
    """Drop the padding of windowed axes: a window brings it with it."""
    config = [
        (0, 0, 0) if axis in resize.sizes else tuple(pad)
        for axis, pad in enumerate(site.params["padding_config"])
    ]
    return {**site.params, "padding_config": tuple(config)}


def strided_slice(site: Site) -> Access:
    """Read input start + o*stride for output o."""
    strides = site.params["strides"] or (1,) * len(site.result)
    follows = [
        Follow(a, Stencil(1, stride, -start))
        for a, (start, stride) in enumerate(zip(site.params["start_indices"], strides, strict=True))
    ]
    return Access((tuple(follows),))


def adapt_slice(site: Site, resize: Resize) -> Params:
    """Take every stride-th element of the region, from its first to its last."""
    p, whole = site.params, resize.shapes[0]
    start = [0 if a in resize.sizes else x for a, x in enumerate(p["start_indices"])]
    limit = [whole[a] if a in resize.sizes else x for a, x in enumerate(p["limit_indices"])]
    return {**p, "start_indices": tuple(start), "limit_indices": tuple(limit)}


def transpose(site: Site) -> Access:
    """Read element by element, axes permuted."""
    order = site.params["permutation"]
    return Access((tuple(Follow(order.index(a)) for a in range(len(order))),))


def reshape(site: Site) -> Access | None:
    """Follow an axis that keeps its place in the flat array, merged or split at its inner end."""
    if site.params.get("dimensions") is not None:
        return None
    shape, result = site.shapes[0], site.result
    return Access((tuple(_kept(shape, axis, result) for axis in range(len(shape))),))


def _kept(shape: tuple[int, ...], axis: int, result: tuple[int, ...]) -> Follow | None:
    """Find the axis of the result that spans, with those inside it, as much of the flat array.

    If it is longer, the axis was merged with those inside it, and each index is repeated, as where
    images are enlarged: (3, 2) -> (6,) reads i = o // 2. If it is shorter, each index stands for
    several, as in a pool by reshape: (6,) -> (3, 2) reads i = 2*o and 2*o + 1.
    """
    dim, span = shape[axis], prod(shape[axis:])
    for j, other in enumerate(result):
        if dim > 1 and other > 1 and span == prod(result[j:]):
            ratio, rest = divmod(max(dim, other), min(dim, other))
            stencil = Stencil(up=ratio) if other > dim else Stencil(ratio, ratio)
            return Follow(j, stencil) if rest == 0 else None
    return None


def adapt_shape(name: str) -> Callable[[Site, Resize], Params]:
    """Return an `adapt` for primitives whose parameter `name` is the result's shape."""
    return lambda site, resize: {**site.params, name: resize.shape(site.result)}


def squeeze(site: Site) -> Access:
    """Read element by element, without the unit axes that disappear."""
    rank = len(site.shapes[0])
    gone = {a % rank for a in site.params["dimensions"]}
    return Access((_without(rank, gone),))


def broadcast(site: Site) -> Access:
    """Follow each axis to where it is sent; stretched ones are read whole."""
    sent = zip(site.params["broadcast_dimensions"], site.shapes[0], strict=True)
    return Access((tuple(Follow(to) if site.result[to] == dim else None for to, dim in sent),))


def dot_general(site: Site) -> Access:
    """Read whole the contracted axes; the result holds batch, left free, right free axes.

    A product with a known band of weights, as in a bilinear enlargement, reads through a stencil.
    """
    contracted, batch = site.params["dimension_numbers"]
    count, follows = len(batch[0]), []
    for side, shape in enumerate(site.shapes):
        line: list[Follow | None] = [None] * len(shape)
        for out, axis in enumerate(batch[side]):
            line[axis] = Follow(out)
        for axis in range(len(shape)):
            if axis not in batch[side] and axis not in contracted[side]:
                line[axis] = Follow(count)
                count += 1
        follows.append(line)
    # y[o] = sum over i of M[i, o] * x[i]: a band of M reads x in a stencil. The region of M is then
    # the columns of the window and the rows that they read; beyond the borders both hold 0.
    for side, other in ((0, 1), (1, 0)):
        band = _band(site, side) if not batch[0] else None
        if band is not None:
            free = follows[side][1 - contracted[side][0]]
            follows[side][contracted[side][0]] = Follow(free.axis, band)
            follows[other][contracted[other][0]] = Follow(free.axis, band)
    return Access(tuple(map(tuple, follows)), Constant(zero(site.dtype)))


def _band(site: Site, side: int) -> Stencil | None:
    """Return the stencil of an operand that is a known matrix, which contracts one axis."""
    contracted, _ = site.params["dimension_numbers"]
    matrix = site.value(site.operands[side]) if len(site.shapes[side]) == 2 else None
    if matrix is None or len(contracted[side]) != 1:
        return None
    return Stencil.band(matrix if contracted[side] == (0,) else matrix.T)


def dynamic_slice(site: Site) -> Access:
    """Follow the axes taken whole; one that is cut at an index is read as a whole."""
    cut = zip(site.shapes[0], site.params["slice_sizes"], strict=True)
    follows = tuple(Follow(a) if dim == size else None for a, (dim, size) in enumerate(cut))
    return Access((follows, *((),) * (len(site.shapes) - 1)))


def gather(site: Site) -> Access:
    """Follow axes taken whole to their place among the offset axes; read the indices whole."""
    numbers, sizes = site.params["dimension_numbers"], site.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    places = iter(numbers.offset_dims)
    follows = []
    for axis, dim in enumerate(site.shapes[0]):
        place = next(places) if axis not in gone else None
        free = sizes[axis] == dim and axis not in numbers.start_index_map
        follows.append(Follow(place) if free and place is not None else None)
    return Access((tuple(follows), (None,) * len(site.shapes[1])))


def adapt_taken(site: Site, resize: Resize) -> Params:
    """Take from the axes taken whole as much as the region holds."""
    sizes = [
        new if size == old else size
        for size, old, new in zip(
            site.params["slice_sizes"], site.shapes[0], resize.shapes[0], strict=True
        )
    ]
    return {**site.params, "slice_sizes": tuple(sizes)}


def concatenate(site: Site) -> Access:
    """Read element by element, whole along the axis of concatenation."""
    along_axis = site.params["dimension"]
    axes = [None if a == along_axis else Follow(a) for a in range(len(site.result))]
    return Access((tuple(axes),) * len(site.shapes))


ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq eq_to erf
    erf_inv erfc exp exp2 expm1 floor ge ge_to gt gt_to igamma igamma_grad_a igammac imag
    integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul name ne neg
    nextafter not or polygamma population_count pow real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
""".split()
REDUCTIONS = """
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin
""".split()

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, Rule(elementwise)),
    **dict.fromkeys(REDUCTIONS, Rule(reduce)),
    "conv_general_dilated": Rule(convolution, adapt_convolution),
    "reduce_window_max": Rule(pooling(_of(least)), adapt_pooling),
    "reduce_window_min": Rule(pooling(_of(greatest)), adapt_pooling),
    "reduce_window_sum": Rule(pooling(_of(zero)), adapt_pooling),
    "reduce_window": Rule(pooling(_neutral_initial), adapt_pooling),
    "pad": Rule(pad, adapt_pad),
    "slice": Rule(strided_slice, adapt_slice),
    "transpose": Rule(transpose),
    "reshape": Rule(reshape, adapt_shape("new_sizes")),
    "squeeze": Rule(squeeze),
    "expand_dims": Rule(broadcast, adapt_shape("shape")),
    "broadcast_in_dim": Rule(broadcast, adapt_shape("shape")),
    "concatenate": Rule(concatenate),
    "dot_general": Rule(dot_general),
    "dynamic_slice": Rule(dynamic_slice, adapt_taken),
    "gather": Rule(gather, adapt_taken),
    "rev": Rule(along("dimensions")),
    "split": Rule(along("axis")),
    "sort": Rule(along("dimension")),
    "cumsum": Rule(along("axis")),
    "cumprod": Rule(along("axis")),
    "cummax": Rule(along("axis")),
    "cummin": Rule(along("axis")),
    "cumlogsumexp": Rule(along("axis")),
}
