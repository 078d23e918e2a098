"""Approximate updates: windows that stop growing, as far as a tolerance on the scores allows.

The influence of a patch fades towards the rim of its window. With `field` cells to follow it
(`make_plan(..., field=...)`), the window of a layer whose cells are S pixels apart holds the cells
within `field`·S/2 pixels of the patch, and what lies beyond keeps the clean image's values. This is
the projective-field thresholding of Krypton (Nakandala, Kumar, Papakonstantinou, SIGMOD 2019), with
a threshold for each scale, on which all branches of a network agree; how large it must be is
measured, not guessed. Counted in pixels, the same for all layers, it errs more at equal cost:
a convolution weighs what is a cell or two away, on each scale anew.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental.choose import make_plan
from jaxviz.incremental.interpret import base_from_arrays, update
from jaxviz.incremental.plan import Plan
from jaxviz.jaxpr.split import split_arrays

FIELDS = (*range(9), 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 192)


class Calibration(NamedTuple):
    """What `calibrate` found.

    Attributes:
        field: cells for `make_plan(..., field=...)`; None: no field keeps the tolerance.
        checked_error: the largest difference from exact scores at the checked positions; at
            others it may be larger, and mostly is: see `jaxviz.occlusion.tolerance`.
        checked: the number of positions.
    """

    field: int | None
    checked_error: float
    checked: int


def calibrate(
    f: Callable,
    image: jax.Array,
    patches: jax.Array,
    starts: jax.Array,
    *,
    tolerance: float,
    step: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
) -> Calibration:
    """Find the smallest field whose scores at some positions stay within a tolerance of exact ones.

    Every field tried is checked at all the positions given; the search halves `FIELDS`.

    Args:
        f: a scorer, images (N, H, W, C) -> any tree of arrays (N, ...).
        image: (H, W, C).
        patches: one (n, ph, pw, C) for each start.
        starts: (n, 2) integers, on the grid: a sample of the positions to be evaluated.
        tolerance: largest allowed |approximate - exact| of any score, at least 0.
        step: as `make_plan`.
        offset: as `make_plan`.

    Returns:
        A `Calibration`; its `checked_error` is at most `tolerance`.

    Raises:
        ValueError: the tolerance is negative, or there is not one patch for each start.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxviz.incremental import calibrate
        >>> patches, starts = jnp.ones((1, 2, 2, 1)), jnp.array([[3, 3]])
        >>> calibrate(jnp.tanh, jnp.zeros((8, 8, 1)), patches, starts, tolerance=0.0)
        Calibration(field=0, checked_error=0.0, checked=1)
    """
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0: got {tolerance}.")
    if len(patches) != len(starts) or len(starts) == 0:
        raise ValueError(
            "`patches` must hold one patch for each of at least one start: "
            f"got {len(patches)} for {len(starts)}."
        )
    shape = (patches.shape[1], patches.shape[2])
    arrays = split_arrays(f)[0]

    def scores(field: int | None) -> Any:
        plan = make_plan(f, image, shape, step=step, offset=offset, field=field)
        return _evaluate(replace(plan, written=None), arrays, image, patches, starts)

    exact = scores(None)
    found = narrowest(lambda field: _largest_difference(scores(field), exact), tolerance)
    return Calibration(*found, len(starts))


def narrowest(
    error_of: Callable[[int], float], tolerance: float
) -> tuple[int, float] | tuple[None, float]:
    """Halve `FIELDS` for the smallest field whose error keeps a tolerance.

    Args:
        error_of: field -> error, taken to fall as the field grows; every field that is returned
            has been asked for.
        tolerance: largest error allowed.

    Returns:
        The field and its error; None and 0 if no field keeps the tolerance.
    """
    found, fields = (None, 0.0), FIELDS
    while fields:
        middle = len(fields) // 2
        error = error_of(fields[middle])
        if error <= tolerance:
            found, fields = (fields[middle], error), fields[:middle]
        else:
            fields = fields[middle + 1 :]
    return found


@jax.jit
def _evaluate(
    plan: Plan, arrays: list[Any], image: jax.Array, patches: jax.Array, starts: jax.Array
) -> Any:
    clean = base_from_arrays(plan, arrays, image)
    pairs = (patches, jnp.asarray(starts, jnp.int32))
    return lax.map(lambda pair: update(plan, clean, *pair), pairs, batch_size=8)


def _largest_difference(scores: Any, exact: Any) -> float:
    """Return max |scores - exact| over all leaves, in float64; NaN counts as infinite."""
    pairs = zip(jax.tree.leaves(scores), jax.tree.leaves(exact), strict=True)
    largest = [np.abs(np.float64(a) - np.float64(b)).max(initial=0) for a, b in pairs]
    return float(np.nan_to_num(max(largest, default=0.0), nan=np.inf))
