"""Score changed images by the package's block engine; some with arrays of their own beside them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz.layers import ScorerLike, as_scorer
from jaxviz.perturbation.filters import wide
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import check_progress
from jaxviz.scoring.execute import execute
from jaxviz.scoring.targets import Picked, Target, select
from jaxviz.scoring.task import make_task


class InterruptedWarning(UserWarning):
    """Ctrl-C ended a run: what was not scored is NaN."""


class Run(NamedTuple):
    """How a run is carried out; see `jaxviz.occlude`."""

    batch_size: int | Literal["auto"] = "auto"
    memory: int | str | None = None
    mesh: Mesh | None = None
    progress: Progress = False


@dataclass(frozen=True)
class PixelsOnly:
    """A scorer's structure, for images with further channels, which the scorer does not see.

    Attributes:
        skeleton: of the scorer.
        channels: how many of them are pixels.
        dtype: of the pixels.
    """

    skeleton: Any
    channels: int
    dtype: str

    def fill(self, arrays: Sequence[jax.Array]) -> Callable[[jax.Array], jax.Array]:
        """Return the scorer of images (N, H, W, C + more)."""
        f = self.skeleton.fill(arrays)
        return lambda images: f(images[..., : self.channels].astype(self.dtype))


def target_scores(
    f: ScorerLike,
    images: np.ndarray,
    occluder: Any,
    positions: np.ndarray,
    *,
    target: Target,
    run: Run,
    beside: np.ndarray | None = None,
) -> Picked:
    """Return the target's scores of every position (N, P) and of the clean images (N,), float64.

    Args:
        f: scorer; or (Linen module, variables).
        images: float (N, H, W, C).
        occluder: how one position changes an image, an `Occluder`.
        positions: int32 (P, d).
        target: see `select`.
        run: how it is carried out.
        beside: (N, H, W, M), what the occluder is given as further channels of each image; they are
            float32 at least, and what `hide` makes of them is not used.

    Raises:
        ValueError, TypeError: see `occlude`.
    """
    check_progress(run.progress)
    if run.batch_size != "auto":
        whole_number(run.batch_size, "batch_size", choices='"auto"')
    task = make_task(as_scorer(f), images, occluder, positions, mesh=run.mesh, memory=run.memory)
    if beside is not None:
        dtype = wide(images.dtype)
        together = np.concatenate([images.astype(dtype), beside.astype(dtype)], -1)
        skeleton: Any = PixelsOnly(task.scorer.call.skeleton, images.shape[-1], str(images.dtype))
        scorer = replace(task.scorer, call=replace(task.scorer.call, skeleton=skeleton))
        task = replace(task, scorer=scorer, images=together)
    found = execute(task, batch_size=run.batch_size, progress=run.progress)
    if found.partial:
        message = "interrupted: what was not scored is NaN."
        warnings.warn(message, InterruptedWarning, stacklevel=4)
    elif np.isnan(found.values).any():
        warnings.warn("`f` gave NaN: so are the numbers made of it.", stacklevel=4)
    picked, clean = select(found.values[:, 1:], found.values[:, 0], target)
    return picked.astype(np.float64), clean.astype(np.float64)


def numbers(count: int) -> np.ndarray:
    """Return the positions 0 … count − 1 as int32 (count, 1)."""
    return np.arange(count, dtype=np.int32)[:, None]
