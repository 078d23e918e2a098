"""What `occlude` and its kin demand of their arguments: each check returns it, made plain.

Every error names the argument, the rule, and what was got.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

UNITS = ("", "K", "M", "G", "T")  # powers of 1000, or of 1024 with an i
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*")


def check_batch_size(batch_size: int, default: str) -> None:
    """Raise ValueError unless it is a whole number from 1; `default` is what else is allowed."""
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be {default} or a whole number from 1: got {batch_size!r}."
        )


def check_rank(images: jax.Array | np.ndarray, name: str, *ranks: int) -> None:
    """Raise ValueError unless the array has one of the ranks."""
    if not hasattr(images, "ndim"):
        raise TypeError(f"`{name}` must be an array of pixels: got a {type(images).__name__}.")
    if images.ndim not in ranks:
        hint = f"; add a channel axis: {name}[..., None]" if images.ndim == 2 else ""
        wanted = "(H, W, C)" if ranks == (3,) else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"`{name}` must be {wanted}: got an array of shape {images.shape}{hint}.")


def checked_images(images: jax.Array | np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the images as floats (N, H, W, C), and whether it was a single one."""
    if isinstance(images, jax.core.Tracer):
        raise TypeError(
            "`images` must be concrete: got a traced array; inside `jit`, `vmap` or `grad` call"
            " `jaxviz.occlusion_scores`, one image at a time."
        )
    try:
        array = np.asarray(images)
    except ValueError as error:
        message = "`images` must be (N, H, W, C) or (H, W, C): got parts of unequal shapes."
        raise ValueError(message) from error
    if array.ndim == 0:
        raise TypeError(f"`images` must be an array of pixels: got a {type(images).__name__}.")
    check_rank(array, "images", 3, 4)
    if array.size == 0:
        raise ValueError(f"`images` must hold at least one pixel: got shape {array.shape}.")
    if array.dtype.kind in "biu":
        array = array.astype(np.float32)
    elif not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"`images` must be real numbers: got {array.dtype}.")
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"`images` must be finite: got {array[where]} at index {where}.")
    return (array[None], True) if array.ndim == 3 else (array, False)


def check_progress(progress: Any) -> None:
    """Raise TypeError unless it is a bool or a function."""
    if not (isinstance(progress, bool | np.bool_) or progress is None or callable(progress)):
        raise TypeError(
            f"`progress` must be True, False or a function (done, total): got {progress!r}."
        )


def check_tolerance(tolerance: Any) -> None:
    """Raise TypeError unless it is a number or None."""
    number = isinstance(tolerance, int | float | np.integer | np.floating)
    if tolerance is not None and (not number or isinstance(tolerance, bool)):
        raise TypeError(f"`tolerance` must be a number from 0 to 1, or None: got {tolerance!r}.")


def checked_memory(memory: int | str | None) -> int | None:
    """Return the bytes; a text is a number with a unit, as "512MB" (10⁶) or "1.5GiB" (2³⁰).

    None, and "auto", are left to the run: a share of what is free.
    """
    if memory is None or memory == "auto":
        return None
    size: Any = memory
    if isinstance(memory, str) and (match := SIZE.fullmatch(memory.upper())):
        number, unit, binary = match.groups()
        size = int(float(number) * (1024 if binary else 1000) ** UNITS.index(unit))
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(
            '`memory` must be a whole number of bytes from 1, a text such as "512MB" or "2GiB", or'
            f' "auto": got {memory!r}.'
        )
    return int(size)


def checked_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return the mesh; TypeError if it is something else, such as a list of devices.

    Of the axes only names and sizes count: how arrays lie is up to the run, so a mesh with Explicit
    axes, as `jax.make_mesh` makes, is the same as one with Auto axes.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(
            '`mesh` must be a jax.sharding.Mesh, such as jax.make_mesh((8,), ("images",)):'
            f" got {type(mesh).__name__}."
        )
    return Mesh(mesh.devices, mesh.axis_names)


def checked_dtype(dtype: Any) -> Any:
    """Return the floating dtype of a forward pass."""
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or not jnp.issubdtype(kind, jnp.floating):
        got = repr(dtype) if kind is None else kind
        raise ValueError(f'`dtype` must be a floating dtype: got {got}; try "bfloat16".')
    if kind == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore
        raise ValueError('`dtype` float64 needs jax.config.update("jax_enable_x64", True) first.')
    return kind


def checked_refinement(refine: tuple[int, float]) -> tuple[int, float]:
    """Return the factor and the share of `refine`, see `occlude`."""
    both: Any = refine if isinstance(refine, tuple | list) and len(refine) == 2 else (None, None)
    numbers = int | float | np.integer | np.floating
    if any(isinstance(n, bool) or not isinstance(n, numbers) for n in both):
        both = (0, 0)
    factor, share = both
    if factor < 2 or factor % 1 != 0 or not 0 <= share <= 1:
        raise ValueError(
            "`refine` must be (factor, share), a whole number from 2 and a share in [0, 1]:"
            f" got {refine!r}."
        )
    return int(factor), float(share)
