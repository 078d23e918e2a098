"""What runs over many images demand of the options that say where and how they compute."""

from typing import Any

import jax
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
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
    return None if workers is None else whole_number(workers, "workers", choices="None")
