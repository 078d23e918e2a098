"""Occlusion of segments: pixels of any shape, on windows where their boxes are small."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Method
from jaxviz.occlusion.found import Found, described, make_result
from jaxviz.occlusion.reading import Reading, checked_reading
from jaxviz.occlusion.result import Occlusion
from jaxviz.perturbation.fill import Fill
from jaxviz.perturbation.fills import FillLike, checked_fill
from jaxviz.perturbation.occluders import LabelOccluder, checked_channels
from jaxviz.perturbation.segmentations import Segmentations, as_segments
from jaxviz.perturbation.segments import Segments
from jaxviz.progress import Progress, track
from jaxviz.scoring.arguments import check_progress, checked_images
from jaxviz.scoring.choice import seconds_of
from jaxviz.scoring.evaluators import Dense, Incremental, check_method
from jaxviz.scoring.execute import execute_each
from jaxviz.scoring.scorer import Scorer
from jaxviz.scoring.size_classes import Seconds, Window, assign_windows
from jaxviz.scoring.task import Task, make_task

LabelsLike = np.ndarray | Segments | Sequence[Segments]


def occlude_segments(
    f: Scorer,
    images: jax.Array | np.ndarray,
    labels: LabelsLike,
    *,
    groups: Sequence[int | Sequence[int]] | None = None,
    fill: FillLike = 0.0,
    channels: Sequence[int] | None = None,
    complement: bool = False,
    method: Method = "auto",
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    dtype: Any = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    reading: Reading | None = None,
    class_names: Sequence[str] | None = None,
) -> Occlusion:
    """Hide the pixels of one label after another, such as superpixels, or of groups of labels.

    scores[n, g] = f(image n with the pixels of group g replaced by the fill).

    Args:
        f: scorer, see `occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        labels: integers (H, W), the label of every pixel, for all images; (N, H, W), each image's
            own; `jaxviz.Segments`, which hold groups too; or one of these for each image, of as
            many groups as it has.
        groups: what each position hides: a label, or a list of labels at once; None: each label.
        fill: see `occlude`; a function is given the whole image. Or (N, H, W, C), an image for
            each.
        channels: see `occlude`.
        complement: keep the group and hide everything else.
        method: "dense" runs the whole network for every group; "incremental" runs it once per
            image, and again only on what a window reaches that holds the group, with the same
            result up to the order of sums. Windows are of a few sizes. "auto" takes for each
            group what the cost model finds faster; the result's config tells, as `windows`.
        batch_size: see `occlude`.
        memory: see `occlude`.
        dtype: see `occlude`.
        mesh: see `occlude`.
        progress: see `occlude`.
        reading: see `occlude`.
        class_names: see `occlude`.

    Returns:
        The scores, (N, groups, K) or (groups, K), and what can be made of them. Where images have
        different numbers of groups, NaN behind those of an image.

    Raises:
        ValueError: an argument breaks its rule.

    Example:
        >>> left_right = np.repeat([[0, 1]], 4, axis=0)
        >>> occ = occlude_segments(lambda x: x.sum((1, 2)), np.ones((4, 2, 1)), left_right)
        >>> occ.scores[..., 0].tolist()
        [4.0, 4.0]
    """
    check_progress(progress)
    check_method(method)
    if batch_size != "auto":
        whole_number(batch_size, "batch_size", choices='"auto"')
    batch, single = checked_images(images, f)
    segments = as_segments(labels, groups)
    _check_sizes(segments, batch)
    reading = checked_reading(reading)
    each = segments.each if isinstance(segments, Segmentations) else (segments,)
    scenes = _scenes(each, _fills(fill, batch, complement), len(batch))
    picked = checked_channels(channels, batch)
    occluder = scenes[0].occluder(picked, complement)
    positions = np.zeros((1, 3), np.int32)
    task = make_task(f, batch, occluder, positions, dtype=dtype, mesh=mesh, memory=memory)
    assigned = [_assign(method, scene.segments, task) for scene in scenes]
    found = _score(task, scenes, assigned, segments, batch_size, progress)
    config = {"windows": _tell(Counter(window for windows in assigned for window in windows))}
    result = make_result(task, segments, found, single, config, reading)
    return described(result, f, batch, class_names)


@dataclass(frozen=True)
class _Scene:
    """Images with the same segments and fill.

    Attributes:
        images: which of the batch.
        segments: theirs.
        fill: theirs.
        most: (groups, labels) of the scene with most of either, so that all have one program.
    """

    images: slice
    segments: Segments
    fill: Fill
    most: tuple[int, int]

    def occluder(
        self, channels: tuple[int, ...] | None, complement: bool, window: Window = None
    ) -> LabelOccluder:
        """Return what hides the groups."""
        table = np.zeros(self.most, bool)
        known = self.segments.table
        table[: known.shape[0], : known.shape[1]] = known
        labels = jnp.asarray(self.segments.indices)
        return LabelOccluder(self.fill, labels, jnp.asarray(table), complement, channels, window)

    def positions(self, some: np.ndarray, window: Window) -> np.ndarray:
        """Return groups with the starts of their windows, int32 (P, 3), inside the image."""
        size = self.segments.image_shape if window is None else window
        last = np.array(self.segments.image_shape) - size
        starts = np.minimum(self.segments.boxes[some, :2], last)
        return np.concatenate([some[:, None], starts], 1).astype(np.int32)


def _scenes(each: Sequence[Segments], fills: Sequence[Fill], count: int) -> list[_Scene]:
    """Cut the batch into scenes: one, or one for each image."""
    most = (max(len(one.groups) for one in each), max(one.table.shape[1] for one in each))
    if len(each) == len(fills) == 1:
        return [_Scene(slice(0, count), each[0], fills[0], most)]
    pairs = [(each[n % len(each)], fills[n % len(fills)]) for n in range(count)]
    return [_Scene(slice(n, n + 1), *pair, most) for n, pair in enumerate(pairs)]


def _fills(fill: Any, images: np.ndarray, complement: bool) -> list[Fill]:
    """Return the one fill, or those of each image."""
    if not isinstance(fill, np.ndarray | jax.Array) or fill.ndim != 4:
        return [checked_fill(fill, images, complement, stacklevel=4)]
    if len(fill) != len(images):
        raise ValueError(
            f"`fill` must have one image for each of {len(images)}: got {len(fill)} of shape"
            f" {fill.shape[1:]}."
        )
    pairs = zip(fill, images, strict=True)
    return [checked_fill(one, image[None], complement, stacklevel=4) for one, image in pairs]


def _check_sizes(segments: Segments | Segmentations, images: np.ndarray) -> None:
    if segments.image_shape != images.shape[1:3]:
        raise ValueError(
            f"`labels` must have the image's size {images.shape[1:3]}: got {segments.image_shape}."
        )
    if isinstance(segments, Segmentations) and len(segments.each) != len(images):
        raise ValueError(
            f"`labels` must be one image for all, or one for each of {len(images)}: got"
            f" {len(segments.each)}."
        )


def _assign(method: Method, segments: Segments, task: Task) -> list[Window]:
    """Return the window of every group; None: it runs dense."""
    if method == "dense":
        return [None] * len(segments.groups)
    platform = task.device.platform

    def seconds(window: tuple[int, int]) -> Seconds:
        return seconds_of(task.costs(Incremental.anywhere(window)), platform)

    sizes = [(int(rows), int(cols)) for _, _, rows, cols in segments.boxes]
    count, dense = len(task.images), method == "auto"
    return assign_windows(sizes, segments.image_shape, seconds, images=count, dense=dense)


def _tell(counts: Counter[Window]) -> str:
    """Say how many groups have windows of which size."""
    some = sorted((window, count) for window, count in counts.items() if window is not None)
    told = [f"{count} of {window[0]}×{window[1]}" for window, count in some]
    return ", ".join([*told, f"{counts[None]} dense"] if counts[None] else told)


class _Part(NamedTuple):
    """The groups of one scene that have windows of one size: which, and the task."""

    scene: _Scene
    groups: np.ndarray
    task: Task


def _parts(
    task: Task, scenes: Sequence[_Scene], assigned: Sequence[Sequence[Window]]
) -> Iterator[list[_Part]]:
    """Yield what one program scores, for each size of window."""
    occluder = task.occluder
    known = {window for windows in assigned for window in windows}
    for window in sorted(known, key=lambda window: window or (0, 0)):
        evaluator = Dense() if window is None else Incremental.anywhere(window)
        parts = []
        for scene, windows in zip(scenes, assigned, strict=True):
            groups = np.array([g for g, own in enumerate(windows) if own == window], int)
            if len(groups):
                part = replace(
                    task,
                    evaluators=(evaluator,),
                    occluder=scene.occluder(occluder.channels, occluder.complement, window),
                    images=task.images[scene.images],
                    positions=scene.positions(groups, window),
                )
                parts.append(_Part(scene, groups, part))
        yield parts


def _score(
    task: Task,
    scenes: Sequence[_Scene],
    assigned: Sequence[Sequence[Window]],
    segments: Segments | Segmentations,
    batch_size: Any,
    progress: Progress,
) -> Found:
    """Score all groups, those of one size after those of another."""
    everything = list(_parts(task, scenes, assigned))
    count = sum(len(part.task.images) * len(part.groups) for part in chain(*everything))
    done: list[np.ndarray] = []
    interrupted = False
    with track(progress, count, "positions") as advance:
        for parts in everything:
            try:
                tasks = [part.task for part in parts]
                values, interrupted = execute_each(tasks, advance, batch_size=batch_size)
                done += values
            except KeyboardInterrupt:  # while a program was compiled
                interrupted = True
            if interrupted:
                break
    if not done:
        raise KeyboardInterrupt
    tail, kind = done[0].shape[2:], done[0].dtype
    scores = np.full((len(task.images), *segments.shape, *tail), np.nan, kind)
    base = np.full((len(task.images), *tail), np.nan, kind)
    asked = []
    for part, values in zip_longest(chain(*everything), done):
        where = part.scene.images
        if values is None:
            shape = (len(part.task.images), part.task.rows, *tail)
            values = np.full(shape, np.nan, kind)
        scores[where, part.groups] = values[:, 1:]
        base[where] = np.where(np.isnan(base[where]), values[:, 0], base[where])
        asked.append(values)
    return Found(scores, base, asked, interrupted)
