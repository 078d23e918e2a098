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
    """Evaluate `f` once on an image, and give a function that evaluates it again after a patch."""
    plan = make_plan(f, image, patch_shape, step=step, offset=offset)
    clean = _base(plan, split_arrays(f)[0], image)
    return clean.scores, jax.tree_util.Partial(_update, plan, clean)
