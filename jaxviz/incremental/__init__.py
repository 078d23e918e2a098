"""Exact re-inference after a local change, for any JAX function."""

from collections.abc import Callable
from typing import Any

import jax

from jaxviz.incremental.interpret import Base, Plan, base, base_from_arrays, make_plan, update
from jaxviz.incremental.program import split_arrays

__all__ = ["Base", "Plan", "base", "incremental", "make_plan", "update"]

_base = jax.jit(base_from_arrays)
_update = jax.jit(update)


def incremental(
    f: Callable,
    image: jax.Array,
    patch_shape: tuple[int, int],
    *,
    step: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
) -> tuple[Any, Callable[[jax.Array, jax.Array], Any]]:
    """Evaluate `f` once on an image, and give a function that evaluates it again after a patch.

    update(patch, start) = f(the image with the patch pasted at start), up to the order of sums.

    Args:
      f: images (1, H, W, C) -> scores (1, ...), or a tree of them; any function that JAX can trace.
      image: (H, W, C).
      patch_shape: (rows, cols) of the patches.
      step: (rows, cols) that divide the distance between any two starts; a coarse step saves work.
      offset: one of the starts.

    Returns:
      The scores of the image, without their leading axis; and update(patch (rows, cols, C), start
      (2,) int) -> scores. The patch is clipped at the border.

    Example:
      >>> y, update = incremental(lambda x: x.sum((1, 2)), jax.numpy.ones((4, 4, 1)), (2, 2))
      >>> update(jax.numpy.zeros((2, 2, 1)), jax.numpy.array([1, 1])).tolist(), y.tolist()
      ([12.0], [16.0])
    """
    plan = make_plan(f, image, patch_shape, step=step, offset=offset)
    clean = _base(plan, split_arrays(f)[0], image)
    return clean.scores, jax.tree_util.Partial(_update, plan, clean)
