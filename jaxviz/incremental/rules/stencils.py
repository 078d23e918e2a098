"""Operations that read a stencil: convolutions, pools, padding, strided slices."""

from collections.abc import Callable
from typing import Any

from jaxviz.incremental.reach import Stencil
from jaxviz.incremental.rules.access import Access, Follow, Params, Resize, Site
from jaxviz.jaxpr.neutral import NEUTRAL, zero
from jaxviz.jaxpr.walk import Constant, Operand


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


def identity_of(neutral: Callable[[Any], Any]) -> Callable[[Site], Operand]:
    """Return the operand beyond the border of a pool: a neutral element of the pool's dtype."""
    return lambda site: Constant(neutral(site.dtype))


def neutral_initial(site: Site) -> Operand | None:
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
