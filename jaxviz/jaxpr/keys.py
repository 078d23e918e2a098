"""Random keys that callers give: checked, and as seeds of what is drawn on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_key(key: Any) -> None:
    """Raise TypeError unless it is one random key, of the new or the old kind."""
    array = isinstance(key, jax.Array | np.ndarray)
    typed = array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = array and key.dtype == np.uint32
    if not array or key.ndim != (0 if typed else 1) or not (typed or raw):
        raise TypeError(f"`key` must be a random key, such as `jax.random.key(0)`: got {key!r}.")


def checked_key(key: Any) -> jax.Array:
    """Return the random key; None is `jax.random.key(0)`."""
    if key is None:
        with jax.ensure_compile_time_eval():  # known also inside `jit`
            return jax.random.key(0)
    check_key(key)
    return key


def generator(key: Any) -> np.random.Generator:
    """Return NumPy's generator for a random key, None being `jax.random.key(0)`.

    Raises:
        TypeError: it is no key, or traced.
    """
    known = checked_key(key)
    if isinstance(known, jax.core.Tracer):
        raise TypeError(
            "`key` must be known, not traced: what is drawn decides which images are scored; of the"
            " methods by sampling rise alone takes a traced one."
        )
    with jax.ensure_compile_time_eval():  # also inside `jit`
        typed = jnp.issubdtype(known.dtype, jax.dtypes.prng_key)
        words = jax.random.key_data(known) if typed else known
        return np.random.default_rng(np.asarray(words).tolist())
