"""What runs over many images demand of the options that say where and how they compute."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz.scoring.arguments import checked_mesh


def check_mesh(mesh: Any) -> Mesh | None:
    """Return the devices to spread over, None for the default.

    Raises:
        TypeError: it is no mesh.
        ValueError: other processes have some of its devices.
    """
    checked = checked_mesh(mesh)
    if checked is None:
        return None
    if any(device.process_index != jax.process_index() for device in checked.devices.flat):
        raise ValueError(
            "`mesh` must hold devices of this process only, as jax.local_devices() gives them: got"
            " some of other processes, which have meshes, and shares of the images, of their own."
        )
    return checked


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
