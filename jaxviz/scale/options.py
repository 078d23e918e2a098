"""What runs over many images demand of the options that say where and how they compute."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh


def check_memory(memory: Any) -> int | None:
    """Return how many bytes a block may take, None for the default.

    Raises:
        ValueError: it is no number of bytes.
    """
    if memory is None or _is_count(memory):
        return memory
    raise ValueError(
        f"`memory` must be a whole number of bytes from 1, such as 2**30: got {memory!r}."
    )


def check_dtype(dtype: Any) -> Any:
    """Return the dtype of the forward pass, None for that of the images.

    Raises:
        ValueError: it is no floating dtype.
    """
    if dtype is None:
        return None
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(
            f'`dtype` must be a floating dtype, such as "bfloat16" or "float32": got {dtype!r}.'
        )
    return kind


def check_mesh(mesh: Any) -> Mesh | None:
    """Return the devices to spread over, None for the default.

    Raises:
        ValueError: it is no mesh, or other processes have some of its devices.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise ValueError(
            '`mesh` must be a jax.sharding.Mesh, such as jax.make_mesh((2,), ("images",)): got a'
            f" {type(mesh).__name__}."
        )
    if any(device.process_index != jax.process_index() for device in mesh.devices.flat):
        raise ValueError(
            "`mesh` must hold devices of this process only, as jax.local_devices() gives them: got"
            " some of other processes, which have meshes, and shares of the images, of their own."
        )
    return mesh


def check_workers(workers: Any) -> int | None:
    """Return how many threads read images, None for the default.

    Raises:
        ValueError: it is no whole number from 1.
    """
    if workers is None or _is_count(workers):
        return workers
    raise ValueError(f"`workers` must be a whole number from 1: got {workers!r}.")


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and int(value) >= 1
