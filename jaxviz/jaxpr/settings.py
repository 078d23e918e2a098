"""The numerical settings of JAX under which a function is traced: a part of every cache's key."""

import jax


def settings() -> tuple:
    """Return what decides, besides shapes, which program a function becomes; hashable."""
    return (
        jax.config.jax_enable_x64,  # pyright: ignore
        jax.config.jax_default_matmul_precision,  # pyright: ignore
        jax.config.jax_numpy_dtype_promotion,  # pyright: ignore
        jax.config.jax_numpy_rank_promotion,  # pyright: ignore
    )
