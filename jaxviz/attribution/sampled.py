"""What the methods by sampling share: masked images, scored by the block engine, one by one.

Each image is explained by itself, so that neither memory nor a result depends on how many there
are.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxviz._arguments import whole_number
from jaxviz.attribution.baseline import BaselineLike, make_baselines
from jaxviz.attribution.driver import Run, make_result
from jaxviz.attribution.goal import ALL, named
from jaxviz.attribution.kernel import Found
from jaxviz.attribution.result import Attribution
from jaxviz.attribution.sampled_kernel import AT_ONCE, Traced, as_batch
from jaxviz.layers import ScorerLike, as_scorer
from jaxviz.perturbation.fill import ArrayLike, Fill, check_fill
from jaxviz.perturbation.masks import MaskMaker, MaskOccluder
from jaxviz.perturbation.segments import Segments, make_segments
from jaxviz.perturbation.traced import is_traced
from jaxviz.progress import Advance, track
from jaxviz.scoring.arguments import check_progress, checked_images
from jaxviz.scoring.execute import execute
from jaxviz.scoring.targets import resolve, select
from jaxviz.scoring.task import Task, make_task


@dataclass
class Sampling:
    """Masked images of a batch, scored image by image.

    Attributes:
        f: the scorer.
        target: what is explained, "all" for every class.
        images: (N, H, W, C).
        single: whether there was one image.
        task: of the first image; positions are those of the whole run.
        run: how.
        advance: is told how many positions are scored.
        interrupted: whether Ctrl-C ended it.
    """

    f: Any
    target: Any
    images: np.ndarray
    single: bool
    task: Task
    run: Run
    advance: Advance = lambda count: None
    interrupted: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def every(self) -> bool:
        """Whether all classes are explained."""
        return isinstance(self.target, str) and self.target == ALL

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Show the progress of all images together."""
        total = len(self.images) * len(self.task.positions)
        with track(self.run.progress, total, "positions") as self.advance:
            yield

    def score(self, number: int, positions: np.ndarray | None = None) -> np.ndarray | None:
        """Score an image and its masked ones: (1 + P, ..., K); None after an interruption."""
        positions = self.task.positions if positions is None else positions
        task = replace(self.task, images=self.task.images[number][None], positions=positions)
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal told
            told, new = done, done - told
            self.advance(new)

        try:
            scores = execute(task, batch_size=self.run.batch_size, progress=tell)
        except KeyboardInterrupt:
            self.interrupted = True
            return None
        self.interrupted = scores.partial
        return None if scores.partial else scores.values[0]

    def picked(self, number: int, scores: np.ndarray) -> np.ndarray:
        """The explained number, or every class, of scores (P, ..., K): float64 (P, T)."""
        if self.every:
            if scores.ndim != 2:
                raise ValueError(
                    f'`target` "all" needs scores (K,) per image: got {scores.shape[1:]}.'
                )
            return scores.astype(np.float64)
        found, _ = select(scores[None], scores[None, 0], self.target_of(number, scores))
        return np.asarray(found, np.float64)[0, :, None]

    def target_of(self, number: int, scores: np.ndarray) -> Any:
        """The target of one image."""
        target = self.target
        if target is None or callable(target) or scores.ndim != 2:
            return target
        return resolve(named(target, self.f), len(self.images), scores.shape[-1])[number, None]

    def explained(self, base: np.ndarray) -> np.ndarray | None:
        """What the target came to: classes (N,), weights (N, K), or None."""
        if self.every or callable(self.target):
            return None
        if self.target is None:
            return np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
        return np.asarray(resolve(named(self.target, self.f), *base.shape))

    def result(
        self,
        method: str,
        values: list[np.ndarray],
        base: list[np.ndarray],
        *,
        delta: list[np.ndarray] | None = None,
        error: list[np.ndarray] | None = None,
        config: Mapping[str, Any],
    ) -> Attribution:
        """Return the result of maps (H, W, T), T = K for every class and else 1.

        After an interruption, those that are missing are NaN.
        """
        if self.interrupted:
            message = f"interrupted: {len(values)} of {len(self.images)} images are explained."
            warnings.warn(f"{message[:-1]}; the rest is NaN.", stacklevel=4)
        count = len(self.images)
        maps, scores, gaps, errors = (_filled(x, count) for x in (values, base, delta, error))
        assert maps is not None and scores is not None
        if not self.every:
            maps = maps[..., :1]
            gaps, errors = (x if x is None else x[..., 0] for x in (gaps, errors))
        else:
            maps = maps[..., None, :]
        found = Found(maps, scores, gaps)  # pyright: ignore[reportArgumentType]
        record = {
            "model": self.task.scorer.name,
            "dtype": str(self.task.images.dtype),
            "baseline": self.task.occluder.fill,
            **config,
        }
        return make_result(
            method,
            found,
            self.shape,
            self.explained(scores),
            single=self.single,
            error=errors,
            partial=self.interrupted,
            every=self.every,
            config=record,
        )


def _filled(arrays: list[np.ndarray] | None, count: int) -> np.ndarray | None:
    if arrays is None:
        return None
    missing = [np.full_like(arrays[0], np.nan)] * (count - len(arrays))
    return np.stack([*arrays, *missing]).astype(np.float32)


def make_sampling(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    target: Any,
    baseline: BaselineLike,
    masks: Callable[[tuple[int, int]], tuple[MaskMaker, np.ndarray]],
    run: Run,
    key: jax.Array | None = None,
) -> Sampling | Traced:
    """Return the sampling of images; of traced ones, that of the bare kernel.

    Args:
        f: scorer.
        images: (N, H, W, C), or (H, W, C).
        target: see `saliency`, or "all".
        baseline: what hidden pixels become.
        masks: (H, W) -> what makes masks, and the positions, int32 (P, d).
        run: how.
        key: what masks are drawn from, which may be traced.

    Raises:
        ValueError, TypeError: an argument breaks its rule.
    """
    check_progress(run.progress)
    if run.batch_size != "auto":
        whole_number(run.batch_size, "batch_size", choices='"auto"')
    scorer = as_scorer(f)
    traced = is_traced(*jax.tree.leaves((scorer, images, target, key)))
    batch, single = as_batch(images) if traced else checked_images(images, scorer)
    maker, positions = masks((batch.shape[1], batch.shape[2]))
    occluder: Any = MaskOccluder(checked_baseline(baseline, batch), maker)
    if isinstance(batch, jax.Array):
        at_once = AT_ONCE if run.batch_size == "auto" else int(run.batch_size)
        return Traced(scorer, target, batch, single, occluder, positions, at_once)
    task = make_task(
        scorer, batch, occluder, positions, dtype=run.dtype, mesh=run.mesh, memory=run.memory
    )
    sampling = Sampling(scorer, target, batch, single, task, run)
    _check_target(sampling)
    return sampling


def _check_target(sampling: Sampling) -> None:
    """Raise before anything is scored."""
    task = sampling.task
    one = jax.ShapeDtypeStruct((1, *task.images.shape[1:]), task.images.dtype)
    scores = jax.eval_shape(task.scorer.call, task.scorer.arrays, one).shape
    sampling.picked(0, np.zeros(scores))


def checked_baseline(baseline: BaselineLike, images: ArrayLike) -> Fill:
    """Return the one fill that a baseline is."""
    fills = make_baselines(baseline)
    if len(fills) > 1:
        raise ValueError(f"`baseline` must be one image or value here: got {len(fills)}.")
    try:
        check_fill(fills[0], images)
    except ValueError as error:
        raise ValueError(str(error).replace("`fill`", "`baseline`")) from error
    return fills[0]


def grid_labels(shape: tuple[int, int], cells: int) -> np.ndarray:
    """The cell of every pixel, int32 (H, W), of a grid with so many rows and columns.

    Where an axis has fewer pixels than that, each of its lines is a cell.
    """
    rows, cols = (np.arange(n) * min(cells, n) // n for n in shape)
    return (rows[:, None] * min(cells, shape[1]) + cols[None]).astype(np.int32)


def feature_labels(segments: Segments | np.ndarray | int, shape: tuple[int, int]) -> np.ndarray:
    """The feature of every pixel, int32 (H, W), −1 where none.

    Raises:
        ValueError: the segments have another size than the images, or overlap.
    """
    if isinstance(segments, int | np.integer):
        whole_number(segments, "segments")
        return grid_labels(shape, int(segments))
    made = segments if isinstance(segments, Segments) else make_segments(np.asarray(segments))
    if made.image_shape != shape:
        raise ValueError(f"`segments` must have the image's size {shape}: got {made.image_shape}.")
    if made.table.sum(0).max() > 1:
        raise ValueError("`segments` must not overlap: a label belongs to several groups.")
    feature = np.where(made.table.any(0), made.table.argmax(0), -1)
    return feature[made.indices].astype(np.int32)
