"""What `occlude` and its kin demand of their arguments: each check returns it, made plain.

Every error names the argument, the rule, and what was got.
"""

import re
from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.jaxpr.split import as_model
from jaxviz.scoring.scorer import image_shape_of

UNITS = ("", "K", "M", "G", "T")  # powers of 1000, or of 1024 with an i
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*")


def as_pixels(images: Any, name: str) -> Any:
    """Return an array of real numbers, traced or not, or the shape of one, as it is; of a list one.

    Raises:
        TypeError: it is something else.
    """
    array = _stacked(images, name) if isinstance(images, list | tuple) else images
    dtype = getattr(array, "dtype", None)
    text = isinstance(images, str | PathLike) or getattr(dtype, "kind", "") == "U"
    hint = "; `jaxviz.images.preprocess` reads files" if text else ""
    if dtype is None or np.ndim(array) == 0:
        got = type(images).__name__
        raise TypeError(f"`{name}` must be an array of pixels: got a {got}{hint}.")
    kinds = jnp.bool_, jnp.integer, jnp.floating
    if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise TypeError(f"`{name}` must be real numbers: got {dtype}{hint}.")
    return array


def _stacked(images: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(images)
    except ValueError as error:
        message = f"`{name}` must be one array of pixels: got parts of unequal shapes."
        raise ValueError(message) from error


def checked_image_shape(f: Any, image_shape: Any = None) -> tuple[int, int, int]:
    """Return the (height, width, channels) of a scorer's images, as given or as it tells them."""
    shape = image_shape_of(f) if image_shape is None else image_shape
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes)
    if len(sizes) != 3 or not whole or min(sizes) < 1:
        raise ValueError(
            "`image_shape` must be three positive integers (height, width, channels): got "
            f"{shape}; give it where the model does not fix it."
        )
    given = jax.ShapeDtypeStruct(tuple(map(int, sizes)), jnp.float32)
    height, width, channels = with_channels_last(f, given, "image_shape").shape
    return height, width, channels


def check_rank(images: jax.Array | np.ndarray, name: str, *ranks: int, f: Any = None) -> None:
    """Raise ValueError unless the array has one of the ranks; TypeError if it is none.

    A scorer `f` that tells that it takes signals is named with what to give it.
    """
    as_pixels(images, name)
    if images.ndim not in ranks:
        hint = f"; add a channel axis: {name}[..., None]" if images.ndim == 2 else ""
        model = as_model(f)
        row = getattr(model, "image_shape", None)
        if row is not None and len(getattr(model, "input_shape", ())) < 3:
            one = "length, channel" if None in row else ", ".join(map(str, row[1:]))
            hint = f"; a signal is an image of one row: {name}.reshape(-1, 1, {one})"
        wanted = "(H, W, C)" if ranks == (3,) else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"`{name}` must be {wanted}: got an array of shape {images.shape}{hint}.")


def checked_images(images: jax.Array | np.ndarray, f: Any = None) -> tuple[np.ndarray, bool]:
    """Return the images as floats (N, H, W, C), and whether it was a single one.

    Args:
        images: (N, H, W, C) or (H, W, C), or as the scorer takes them, see `with_channels_last`.
        f: the scorer, if there is one.

    Raises:
        TypeError: they are no real numbers, or traced.
        ValueError: they are of another rank, empty or not finite, or look channels first.
    """
    if isinstance(images, jax.core.Tracer):
        raise TypeError(
            "`images` must be concrete: got a traced array; inside `jit`, `vmap` or `grad` call"
            " `jaxviz.occlusion_scores`, one image at a time."
        )
    array = _stacked(images, "images")
    as_pixels(images if array.ndim == 0 else array, "images")
    check_rank(array, "images", 3, 4, f=f)
    if array.size == 0:
        raise ValueError(f"`images` must hold at least one pixel: got shape {array.shape}.")
    if array.dtype.kind in "biu":
        array = array.astype(np.float32)
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"`images` must be finite: got {array[where]} at index {where}.")
    array = array if f is None else with_channels_last(f, array)
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


def checked_refinement(
    refine: tuple[int, float] | tuple[int, float, float],
) -> tuple[int, float, float | None]:
    """Return the factor, the share and the error, if any, of `refine`, see `occlude`."""
    given: Any = refine if isinstance(refine, tuple | list) and len(refine) in (2, 3) else (0, 0)
    numbers = int | float | np.integer | np.floating
    if any(isinstance(n, bool) or not isinstance(n, numbers) for n in given):
        given = (0, 0)
    factor, *shares = given
    if factor < 2 or factor % 1 != 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(
            "`refine` must be (factor, share) or (factor, share, error), a whole number from 2 and"
            f" shares in [0, 1]: got {refine!r}."
        )
    return int(factor), float(shares[0]), float(shares[1]) if len(shares) > 1 else None
