"""Operations that move elements: axes permuted, merged, split, stretched, joined, turned round."""

from collections.abc import Callable
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental.reach import POINT, Stencil, Table, Turn
from jaxviz.incremental.rules.access import (
    Access,
    Follow,
    Params,
    Places,
    Resize,
    Site,
    points,
    without,
)
from jaxviz.incremental.turn import turned


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
    return Access((without(rank, gone),))


def broadcast(site: Site) -> Access:
    """Follow each axis to where it is sent; stretched ones are read whole."""
    sent = zip(site.params["broadcast_dimensions"], site.shapes[0], strict=True)
    return Access((tuple(Follow(to) if site.result[to] == dim else None for to, dim in sent),))


def stack(site: Site) -> Access:
    """Read element by element, beside a new axis."""
    axis = site.params["axis"]
    axes = tuple(Follow(a + (a >= axis)) for a in range(len(site.shapes[0])))
    return Access((axes,) * len(site.shapes))


def unstack(site: Site) -> Access:
    """Read element by element, without the axis along which the results lay."""
    rank = len(site.shapes[0])
    return Access((without(rank, {site.params["axis"] % rank}),))


def reverse(site: Site) -> Access:
    """Read input dim - 1 - o for output o of the axes that are turned round.

    A window of the result is the region that it reads, turned round.
    """
    axes = site.params["dimensions"]
    follows = []
    for axis, dim in enumerate(site.result):
        back = np.arange(dim)[::-1]
        follows.append(Follow(axis, Table(back, back)) if axis in axes else Follow(axis))
    return Access((tuple(follows),))


def turn(site: Site) -> Access:
    """Read an axis at a shift, counted on round it: a window is the region that it reads."""
    axis, shift = site.params["axis"], site.params["shift"]
    follows = (Follow(a, Turn(shift) if a == axis else POINT) for a in range(len(site.result)))

    def run(resize: Resize, pieces: list, places: Places) -> list:
        return pieces if axis in resize.sizes else [turned(*pieces, **site.params)]

    return Access((tuple(follows),), run=run)


def concatenate(site: Site) -> Access:
    """Read, along the axis of concatenation, of each piece what lies at its place.

    Of every piece a region as long as the window is read, of which the window takes what the piece
    holds. For pieces of 2 and 6, as in padding by reflection, and a window of 4:

        result       a a x x x x x x
        window         [-----]           of the first piece:  a . . .    1 and what is beyond
                                         of the second piece: . x x x    beyond, then 0, 1, 2
    """
    axis = site.params["dimension"]
    lengths = [shape[axis] for shape in site.shapes]
    ends = [int(end) for end in np.cumsum(lengths)]
    follows = []
    for shape, end in zip(site.shapes, ends, strict=True):
        line: list[Follow | None] = list(points(shape, shape))
        line[axis] = Follow(axis, Stencil(low=end - shape[axis])) if shape[axis] else None
        follows.append(tuple(line))

    def run(resize: Resize, pieces: list, places: Places) -> list:
        if axis not in resize.sizes:
            return [lax.concatenate(pieces, axis)]
        at = places[0][axis] + lax.broadcasted_iota(jnp.int32, resize.shape(site.result), axis)
        held = [(piece, end) for piece, end in zip(pieces, ends, strict=True) if piece.shape[axis]]
        result, _ = held[-1]
        for piece, end in held[-2::-1]:
            result = lax.select(at < end, piece, result)
        return [result]

    return Access(tuple(follows), run=run)
