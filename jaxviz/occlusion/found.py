"""From the scores of a run to its `Occlusion`: warnings, the record, the names of the classes."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.result import Approximation, Occlusion
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.segmentations import Segmentations
from jaxviz.perturbation.segments import Segments
from jaxviz.scoring.scorer import Scorer
from jaxviz.scoring.targets import class_names_of
from jaxviz.scoring.task import Task


class Found(NamedTuple):
    """What a run gave.

    Attributes:
        scores: (N, *grid, ..., K).
        base: (N, ..., K), of the clean images.
        values: everything that was asked for, arrays (n, 1 + P, ..., K), the clean image first.
        interrupted: whether Ctrl-C ended the run.
        exact: which positions are exact, bool (N, *grid); None: all.
        errors: what interpolation was off by where it was checked, (N,); None: none was.
    """

    scores: np.ndarray
    base: np.ndarray
    values: Sequence[np.ndarray]
    interrupted: bool
    exact: np.ndarray | None = None
    errors: np.ndarray | None = None


def make_result(
    task: Task,
    grid: Grid | Segments | Segmentations,
    found: Found,
    single: bool,
    config: dict[str, Any],
    reading: Reading | None,
    approximation: Approximation | None = None,
) -> Occlusion:
    """Return the result of a run; warn of what it lacks."""
    unknown = [np.isnan(values.reshape(*values.shape[:2], -1)) for values in found.values]
    if found.interrupted:
        done = sum(int(np.sum(~each[:, 1:].all(-1))) for each in unknown)
        count = sum(each[:, 1:, 0].size for each in unknown)
        rest = "the rest is NaN" if found.exact is None else "others are interpolated or NaN"
        message = f"interrupted: {done} of {count} positions are scored; {rest}."
        warnings.warn(message, stacklevel=3)
    elif any(each.any() for each in unknown):
        warnings.warn("`f` gave NaN for some positions: maps leave them out.", stacklevel=3)
    occluder = task.occluder
    record = {
        "model": task.scorer.name,
        "dtype": str(task.images.dtype),
        "fill": occluder.fill,
        "channels": occluder.channels,
        "complement": occluder.complement or None,
        **config,
    }
    pairs = tuple((key, str(value)) for key, value in record.items() if value is not None)
    scores, base, exact, errors = found.scores, found.base, found.exact, found.errors
    if single:
        scores, base = scores[0], base[0]
        exact, errors = (None if array is None else array[0] for array in (exact, errors))
    return Occlusion(
        scores,
        base,
        grid,
        single,
        found.interrupted,
        pairs,
        exact,
        approximation,
        reading,
        interpolation_error=errors,
    )


def described(
    result: Occlusion, f: Scorer, images: np.ndarray, class_names: Sequence[str] | None
) -> Occlusion:
    """Add the names of the classes, and what `notes` needs to know of the images."""
    from jaxviz.images.preprocessing import preprocessing_of

    names = class_names_of(f, np.shape(result.base)[-1], class_names)
    about = [("images", f"{images.min():.3g} to {images.max():.3g}")]
    known = preprocessing_of(f)
    if known is not None:
        ends = known(np.stack([np.zeros(images.shape[-3:]), np.ones(images.shape[-3:])]))
        about += [("takes", f"{ends.min():.3g} to {ends.max():.3g}")]
    return replace(result, class_names=names, config=(*result.config, *about))
