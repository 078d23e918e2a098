"""Neutral elements of reductions: what lies beyond the border of a pool, for every dtype."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def least(dtype: Any) -> Any:
    """The neutral element of max."""
    return _extreme(dtype, "min", -np.inf)


def greatest(dtype: Any) -> Any:
    """The neutral element of min."""
    return _extreme(dtype, "max", np.inf)


def zero(dtype: Any) -> Any:
    """The neutral element of a sum."""
    return dtype.type(0)


def one(dtype: Any) -> Any:
    """The neutral element of a product."""
    return dtype.type(1)


def ones(dtype: Any) -> Any:
    """The neutral element of a bitwise and: all bits are set."""
    return dtype.type(True) if dtype.kind == "b" else ~dtype.type(0)


def _extreme(dtype: Any, end: str, infinite: float) -> Any:
    if jnp.issubdtype(dtype, jnp.integer):
        return np.asarray(getattr(jnp.iinfo(dtype), end), dtype)[()]
    return np.asarray(infinite > 0 if dtype.kind == "b" else infinite, dtype)[()]


# By the primitive that a reduction consists of.
NEUTRAL = {"add": zero, "mul": one, "max": least, "min": greatest, "or": zero, "and": ones}
