"""Choosing a plan: windows are given up where that is cheaper, scans written out where that pays.

`make_plan` plans for a few shares of an array above which windows are given up, with short scans as
they are and written out, with axes merged as they are and kept apart, and keeps the plan that the
cost model finds fastest.
"""

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from jaxviz._arguments import pair
from jaxviz.incremental.plan import Body, Plan
from jaxviz.incremental.planner import Planner, plan_by
from jaxviz.incremental.program import Known, Program, trace_scorer
from jaxviz.incremental.reach import FARTHEST, Positions
from jaxviz.incremental.rules import RULES
from jaxviz.incremental.unmerge import unmerged
from jaxviz.incremental.unroll import unrolled
from jaxviz.jaxpr._jax import platform_of, settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.split import as_callable

# A window of 70 % of its array costs about what the array does, since it has to be cut out and
# pasted; where exactly it stops paying depends on what follows, so a few limits are planned.
SHARES = (0.5, 0.7, 0.85, 1.0)
# Scans are written out, which takes long to compile, where that leaves so much of the time.
UNROLLED_PAYS = 0.8


class Freedom(NamedTuple):
    """What a plan depends on besides the function and the shapes; see `make_plan`."""

    patch_shape: tuple[int, int]
    step: tuple[int, int]
    offset: tuple[int, int]
    dense_above: float | None
    field: int | None


_BODIES = Cache[Body](1 << 28, lambda body: body.bytes)
_unknown = count()


def make_plan(
    f: Callable,
    image: Any,
    patch_shape: int | tuple[int, int],
    *,
    step: int | tuple[int, int] = (1, 1),
    offset: int | tuple[int, int] = (0, 0),
    dense_above: float | None = None,
    field: int | None = None,
) -> Plan:
    """Plan on shapes alone how `f` is evaluated again after a patch.

    `f` is traced at every call, so that a plan is never out of date; its `body` is the same object
    for the same content, so that what was compiled for it is found again.

    Args:
        f: a scorer, images (1, H, W, C) -> any tree of arrays (1, ...).
        image: an array or `jax.ShapeDtypeStruct` of shape (H, W, C); only shape and dtype matter.
        patch_shape: side or (rows, columns) of the patch, in pixels.
        step: rows and columns between the starts that updates will get; (1, 1) allows every start.
        offset: one such start; the others differ from it by multiples of `step`.
        dense_above: share of an array above which its window is given up, in [0, 1]; None: what
            the cost model finds fastest.
        field: approximate: how many cells of each layer beyond the patch its effect is followed,
            along each axis, both sides together; convolutions may then take Winograd's larger tiles
            on a CPU. None: all of them, exact.

    Returns:
        A `Plan`, for `base` and `update`.

    Raises:
        TypeError: `f` cannot be called, `image` is no array, or `patch_shape`, `step` or `offset`
            are no whole numbers.
        ValueError: the image is not (H, W, C), a patch or step is smaller than 1, or `f` does not
            return one row per image.
    """
    check_scorer(f, image)
    patch, step = pair(patch_shape, "patch_shape", least=1), pair(step, "step", least=1)
    scored = trace_scorer(f, image)
    first = pair(offset, "offset", least=-FARTHEST)
    freedom = Freedom(patch, step, first, dense_above, field)
    platform = platform_of(f, scored.captured, image)
    try:
        key = content(scored.flat)
    except UnknownContentError:  # a callback: it may be another one each time
        key = next(_unknown)

    def make() -> Body:
        return _choose(scored.program, image.shape, freedom, platform)

    body = _BODIES.get((key, freedom, settings(), platform), make)
    return Plan(scored.captured, body, scored.tree, scored.written)


def _choose(program: Program, shape: tuple[int, ...], freedom: Freedom, platform: str) -> Body:
    """Plan for several shares, keep what is fastest by the cost model."""
    (rows, columns), step, offset = freedom.patch_shape, freedom.step, freedom.offset
    positions = (
        Positions.on_grid(shape[0], rows, step[0], offset[0]),
        Positions.on_grid(shape[1], columns, step[1], offset[1]),
    )
    shares = SHARES if freedom.dense_above is None else (freedom.dense_above,)

    def best(program: Program) -> Body:
        known = Known(program, {*RULES, "iota"})
        bodies = [
            plan_by(Planner(program, known, positions, share, freedom.field, platform))
            for share in shares
        ]
        return min(bodies, key=_seconds)

    body, apart, written_out = best(program), unmerged(program), unrolled(program)
    if apart is not None:
        body = min(body, best(apart), key=_seconds)
    if written_out is not None:
        other = best(written_out)
        body = other if other.seconds < UNROLLED_PAYS * body.seconds else body
    return body


def _seconds(body: Body) -> float:
    return body.seconds


def check_scorer(f: Any, image: Any) -> None:
    """Raise unless a scorer can be called, and an image is (H, W, C)."""
    if not callable(as_callable(f)):
        raise TypeError(f"`f` must be callable, images to scores: got {type(f).__name__}.")
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        raise TypeError(
            "`image` must be an array (height, width, channel), or its jax.ShapeDtypeStruct: got a"
            f" {type(image).__name__}."
        )
    if len(image.shape) != 3:
        raise ValueError(f"`image` must be (height, width, channel): got shape {image.shape}.")
