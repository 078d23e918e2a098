"""The forms of a convolution: which one suits, what it makes of the kernel, what it costs.

A form is made of the parameters; `prepare` is called once a run, `apply` for each batch. They give
the same sums of the same products, in another order, or by Winograd's tiles of other products of
the same bilinear form. The seconds are those of one image among a batch of eight. (A strided stem
in blocks of pixels, which a gradient gains by, is not faster than XLA's own forwards.)
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz.jaxpr.convolution import model, winograd
from jaxviz.jaxpr.convolution.higher import convolve_higher, rows_added
from jaxviz.jaxpr.convolution.shapes import (
    FEW_CHANNELS,
    FULL,
    Params,
    Sizes,
    asks_for_the_highest,
    has_unit,
    is_depthwise,
    is_plain,
)
from jaxviz.jaxpr.convolution.views import depthwise, grouped_products, products

# Relative to the largest result, of one layer, as measured; a bound for what `error` allows.
ERROR_OF_FOUR_ALONG_WIDTH = 3e-6
ERROR_OF_FOUR_ALONG_BOTH = 2e-5
# A heuristic: a second or so of compiling is made up for within some thousand images.
LEAST_SAVED_BY_TILES = 1e-4


def _itself(kernel: jax.Array) -> jax.Array:
    return kernel


class Form(NamedTuple):
    """One way to convolve.

    Attributes:
        name: of the form.
        apply: (image, prepared kernel) -> result.
        seconds: of one image, by the model.
        prepare: kernel -> what `apply` reads of it.
        elements: how many elements `prepare` makes of one tap of one channel and feature.
    """

    name: str
    apply: Callable[[jax.Array, Any], jax.Array]
    seconds: float
    prepare: Callable[[jax.Array], Any] = _itself
    elements: float = 0.0


def choose(
    params: Params,
    image: Any,
    kernel: Any,
    error: float = 0.0,
    *,
    preparing: float = 0.0,
    worth: float | None = None,
) -> Form | None:
    """Return the fastest form by the model; None: the convolution as it stands.

    The batch does not count: every batch of a run is convolved by the same form.

    Args:
        params: of `conv_general_dilated`.
        image: (N, H, W, C), an array or its shape and dtype.
        kernel: (rows, columns, C, F), likewise.
        error: what one convolution may deviate, relative to its largest result; 0: rounding alone.
        preparing: how often a kernel is prepared, for each image: 0, once for all of a long run;
            1, anew for each; infinity, too seldom used for a form that prepares it.
        worth: the least seconds that such a form must save for each image; None: 0.1 ms.
    """
    if not is_plain(params, image, kernel) or image.dtype not in FULL:
        return None
    if 0 in image.shape or 0 in kernel.shape:
        return None
    if is_depthwise(params, image, kernel):
        return Form("depthwise", partial(depthwise, params), 0.0)
    sizes = Sizes.of(params, image, kernel)
    best = min(_forms(params, sizes), key=_seconds)
    tiled = [
        form._replace(seconds=form.seconds + preparing * model.preparing(sizes, form.elements))
        for form in (_tiles(params, image, kernel, error) if preparing < inf else ())
    ]
    fastest = min(tiled, key=_seconds, default=best)
    least = LEAST_SAVED_BY_TILES if worth is None else worth
    if fastest.seconds + least < best.seconds:
        return fastest
    return None if best.name == "as it stands" else best


def candidates(params: Params, image: Any, kernel: Any, error: float = 0.0) -> list[Form]:
    """Return all forms among which `choose` chooses, the convolution as it stands first."""
    sizes = Sizes.of(params, image, kernel)
    if not is_depthwise(params, image, kernel):
        return [*_forms(params, sizes), *_tiles(params, image, kernel, error)]
    whole = Form("as it stands", partial(_as_it_stands, params), model.as_it_stands(sizes))
    return [whole, Form("depthwise", partial(depthwise, params), 0.0)]


def _seconds(form: Form) -> float:
    return form.seconds


def _as_it_stands(params: Params, image: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated_p.bind(image, kernel, **params)


def _forms(params: Params, sizes: Sizes) -> Iterator[Form]:
    yield Form("as it stands", partial(_as_it_stands, params), model.as_it_stands(sizes))
    if sizes.groups > 1:
        form = partial(grouped_products, params)
        yield Form("grouped products", form, model.grouped_products(sizes))
        return
    if sizes.channels <= FEW_CHANNELS:
        return  # XLA's own is the fastest of them
    yield Form("products", partial(products, params), model.products(sizes))
    if has_unit(params, "window_strides"):
        rows = rows_added(sizes.image[0], sizes.result[0])
        if rows or sizes.result[0] > sizes.image[0]:
            seconds = model.higher(sizes, rows)
            yield Form("higher", partial(convolve_higher, params["padding"], params), seconds)


def _tiles(params: Params, image: Any, kernel: Any, error: float) -> Iterator[Form]:
    sizes = Sizes.of(params, image, kernel)
    if (
        sizes.kernel != (3, 3)
        or image.dtype != jnp.float32
        or asks_for_the_highest(params)
        or sizes.groups > 1
        or not has_unit(params, "window_strides", "rhs_dilation")
    ):
        return
    pairs = [(winograd.TWO, 0.0, 0.0)]
    pairs.append((winograd.FOUR, ERROR_OF_FOUR_ALONG_WIDTH, ERROR_OF_FOUR_ALONG_BOTH))
    for constants, width_error, both_error in pairs:
        m = constants.tile
        if width_error <= error:
            yield Form(
                f"tiles of {m} along the width",
                partial(winograd.along_width, constants, params),
                model.tiles_along_width(sizes, m),
                partial(winograd.along_width_taps, constants),
                (m + 2) / 3,
            )
        if both_error <= error:
            yield Form(
                f"tiles of {m}×{m}",
                partial(winograd.along_both, constants, params),
                model.tiles_along_both(sizes, m),
                partial(winograd.along_both_taps, constants),
                (m + 2) ** 2 / 9,
            )
