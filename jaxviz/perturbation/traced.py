"""Arithmetic that serves numbers and traced arrays: NumPy in float64, and JAX in its own dtype.

What is traced has no values to check, so checks of values are for numbers only.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_traced(*arrays: Any) -> bool:
    """Say whether any of the arrays is traced, by `jit`, `grad` or `vmap`."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def namespace(*arrays: Any) -> Any:
    """Return `jax.numpy` if any of the arrays is traced, else `numpy`.

    Example:
        >>> namespace(np.zeros(3), jnp.zeros(3)).__name__
        'numpy'
    """
    return jnp if is_traced(*arrays) else np


def as_array(values: Any) -> Any:
    """Return what is traced as it is, anything else as a NumPy array."""
    return values if is_traced(values) else np.asarray(values)


def as_floats(values: Any, *others: Any) -> Any:
    """Return NumPy's float64, or floats of JAX's width if these or the others are traced."""
    if not is_traced(values, *others):
        return np.asarray(values, np.float64)
    wide = any(is_traced(array) and array.dtype == jnp.float64 for array in (values, *others))
    return jnp.asarray(values).astype(jnp.float64 if wide else jnp.float32)


def product(*matrices: Any) -> Any:
    """Return the product of matrices, exactly as wide as the traced one among them, if any is."""
    traced = [matrix for matrix in matrices if is_traced(matrix)]
    if not traced:
        return reduce(np.matmul, matrices)
    narrow = (jnp.asarray(matrix, traced[0].dtype) for matrix in matrices)
    return reduce(partial(jnp.matmul, precision="highest"), narrow)


def least_squares(matrix: np.ndarray, values: Any) -> Any:
    """Return x of least |matrix @ x − values|, of those the shortest; values may be traced.

    Example:
        >>> least_squares(np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]])).round(6).tolist()
        [[2.0]]
    """
    if not is_traced(values):
        return np.linalg.lstsq(matrix, values, rcond=None)[0]
    cut = np.finfo(np.float64).eps * max(matrix.shape)
    return product(np.linalg.pinv(matrix, rcond=cut), values)


def average(add_up: Any, values: Any, *, divide: bool) -> Any:
    """Return sums or averages of the values that are known; NaN is no value, infinity is one.

    Args:
        add_up: linear in (..., positions), with weights of at least 0.
        values: floats (..., positions).
        divide: by the weights, for an average.

    Returns:
        ±∞ where a value with a weight is; NaN where none has one, or both infinities have.
    """
    xp = namespace(values)
    finite = xp.isfinite(values)
    total = add_up(xp.where(finite, values, 0))
    weight = add_up((~xp.isnan(values)).astype(values.dtype))
    some = weight > 0
    # A divisor that is never 0, so that no gradient is NaN where nothing lies.
    found = xp.where(some, total / xp.where(some & divide, weight, 1), np.nan)
    if not is_traced(values) and not np.isinf(values).any():
        return found
    high, low = (add_up((values == end).astype(values.dtype)) > 0 for end in (np.inf, -np.inf))
    found = xp.where(high, np.inf, xp.where(low, -np.inf, found))
    return xp.where(high & low, np.nan, found)
