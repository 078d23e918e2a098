"""Exact re-inference after a local change, for any JAX function.

    y, update = incremental(f, image, patch_shape)
    update(patch, start)        # == f(the image with the patch pasted at start), at less work

A patch changes a window of each layer, and the window can be told in advance: it follows from the
patch's position by receptive-field arithmetic (`reach`). So `f` is traced once into a flat list of
equations (`program`), a rule for each primitive says what its result reads (`rules`), and a plan
says, per equation, which window is computed again and which region of which saved array it reads
(`window`). Updates walk the plan (`interpret`). An equation that no rule covers, that reads an
axis whole, or whose window is nearly everything, is evaluated as it stands: always right.

Three functions below `incremental` let a driver keep what is saved as an argument of its own:

    plan = make_plan(f, image, patch_shape, step=(8, 8), offset=(0, 0))   # static, shapes only
    clean = base(plan, f, image)                  # a pytree of arrays; clean.scores are f's
    vmap(update, (None, None, 0, 0))(plan, clean, patches, starts)

`plan` is a pytree too (static but for arrays that closures of `f` captured), so all three go
through `jit` as they are. `calibrate` finds how far windows may be cut for a tolerance on the
scores (`approximate`); without it all is exact. Exact means: the same sums of the same products, of
which the compiler may choose the order, but for products with the zeros of a known matrix (a
resize), which are left out, also where the other factor is not finite. The method is Krypton's
(Nakandala, Kumar, Papakonstantinou: Incremental and Approximate Inference for Faster Occlusion-
based Deep CNN Explanations, SIGMOD 2019), as a transformation.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxviz.incremental.approximate import Calibration, calibrate
from jaxviz.incremental.choose import check_scorer, make_plan
from jaxviz.incremental.describe import describe
from jaxviz.incremental.interpret import (
    Base,
    base,
    prepared,
    run_base,
    run_update,
    update,
    update_by,
)
from jaxviz.incremental.plan import Body, Plan
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.jaxpr.split import split_arrays

__all__ = [
    "Base",
    "Calibration",
    "Plan",
    "base",
    "calibrate",
    "describe",
    "incremental",
    "make_plan",
    "prepared",
    "update",
    "warn_of_effects",
]


class _Jitted(NamedTuple):
    """The parts of one plan, compiled when they are first called."""

    base: Callable[..., Any]
    prepared: Callable[..., Any]
    update: Callable[..., Any]
    bytes: int


_JITTED = Cache[_Jitted](1 << 29, lambda jitted: jitted.bytes)


def _jitted(body: Body) -> _Jitted:
    def make() -> _Jitted:
        first, second, third = (
            jax.jit(partial(run, body)) for run in (run_base, prepared, run_update)
        )
        return _Jitted(first, second, third, body.bytes)

    return _JITTED.get(body, make)


def warn_of_effects(plan: Plan, *, stacklevel: int = 3) -> None:
    """Say that windows leave out what the scorer prints, if it prints."""
    program = plan.body.program
    if len(program.equations) > len(program.read):
        message = "`f` prints or calls back: for the clean image alone, windows leave it out."
        warnings.warn(message, stacklevel=stacklevel)


def _update(plan: Plan, clean: Base, patch: jax.Array, start: jax.Array) -> Any:
    def run(body: Body, *inputs: Any) -> Any:
        return _jitted(body).update(*inputs)

    return update_by(run, plan, clean, patch, start)


def incremental(
    f: Callable,
    image: jax.Array,
    patch_shape: int | tuple[int, int],
    *,
    step: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
) -> tuple[Any, Callable[[jax.Array, jax.Array], Any]]:
    """Evaluate `f` on an image, and return a function that evaluates it again after a patch.

    Like `jax.linearize`: the work for the unmodified image is done once. `update` composes with
    jit, vmap, lax.map and grad; it is a pytree, whose leaves are the saved arrays. `f` is traced
    for one image, and must treat the images of a batch independently. Gradients go through the
    windows; a function with derivative rules of its own (`jax.custom_jvp`, `jax.custom_vjp`) is
    differentiated as it is written, densely.

    Args:
        f: a scorer, images (N, H, W, C) -> any tree of arrays (N, ...). The arrays of a pytree
            (`nnx.Module`, `jax.tree_util.Partial`) stay arguments when a caller compiles.
        image: (H, W, C), of any dtype.
        patch_shape: side or (rows, columns) of the patch, in pixels; may exceed the image.
        step: what all starts are known to be multiples of, apart from `offset`. Windows
            are smaller where the starts are known to lie on a grid.
        offset: the (row, column) from which `step` counts.

    Returns:
        `y`, the scores f(image[None])[0], and `update(patch, start)`: the scores of the image with
        `patch` (rows, columns, C) pasted at the integers `start` (2,), clipped at the border. Off
        the grid scores are NaN; integers the least of their dtype, unsigned ones the largest.
        What `f` prints or calls back for debugging it does for the unmodified image alone.

    Raises:
        ValueError: the image is not (H, W, C), `patch_shape` or `step` is smaller than 1, or `f`
            does not return one row per image.
        TypeError: `f` cannot be called, `image` is no array, or `patch_shape`, `step` or `offset`
            are no whole numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxviz.incremental import incremental
        >>> y, update = incremental(lambda x: x.max((1, 2)), jnp.zeros((8, 8, 1)), (2, 2))
        >>> update(jnp.ones((2, 2, 1)), jnp.array([3, -1]))
        Array([1.], dtype=float32)
    """
    check_scorer(f, image)
    image = with_channels_last(f, image, "image")
    plan = make_plan(f, image, patch_shape, step=step, offset=offset)
    warn_of_effects(plan)
    arrays = [*split_arrays(f)[0], *plan.captured]
    jitted = _jitted(plan.body)
    with jax.debug_infs(False):  # what lies beyond the border of a pool is -∞
        scores, saved = jitted.base(arrays, image)
    clean = Base(plan.tree.unflatten(scores), saved, arrays, image, jitted.prepared(arrays))
    return clean.scores, jax.tree_util.Partial(_update, plan, clean)
