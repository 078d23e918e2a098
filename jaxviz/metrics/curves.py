"""Curves: the target's score while an image's parts are removed, or put in, in a map's order.

The parts (pixels, cells or segments; all channels together) are ranked by the mean of the map over
each. Parts of equal value go in the order of their numbers, row by row for pixels and cells, in
both orders, so that a constant map has a symmetric gain of exactly 0; with a `key` they go in a
random order, the same in both. Step k of n has changed round(k·P / n) of P parts, halves up. The
area is taken by the trapezoid over the fraction of parts changed, the unchanged image included, of
the scorer's own score: nothing is made a probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Order
from jaxviz.jaxpr.keys import generator
from jaxviz.layers import ScorerLike
from jaxviz.metrics.maps import Maps, as_given, maps_of
from jaxviz.metrics.parts import By, means, parts_of
from jaxviz.metrics.run import Run, target_scores
from jaxviz.perturbation.fills import FillLike, checked_fill
from jaxviz.perturbation.ranked import LEAST_FIRST, MOST_FIRST, RankedOccluder, changed
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import checked_images
from jaxviz.scoring.targets import Target

MOST_PARTS = 2**24  # float32 tells so many whole numbers apart
static: dict[str, Any] = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class Curve:
    """The target's score at every step from an image to its fill, or back. A pytree.

    Attributes:
        scores: float64 (N, steps + 1); (steps + 1,) for a single image.
        fraction: the share of parts that was changed, of the same shape, from 0 to 1.
        kind: "deletion" or "insertion".
        order: "most_first" or "least_first".
        config: how it was made, as (name, value) pairs of strings.

    Example:
        >>> Curve(np.asarray([1.0, 0.4, 0.0]), np.asarray([0.0, 0.5, 1.0]))
        Curve(deletion, most first, 1 image, 2 steps, area 0.45)
    """

    scores: np.ndarray
    fraction: np.ndarray
    kind: str = field(default="deletion", metadata=static)
    order: str = field(default="most_first", metadata=static)
    config: tuple[tuple[str, str], ...] = field(default=(), metadata=static)

    @property
    def auc(self) -> np.ndarray:
        """The area under each curve, (N,); () for a single image."""
        return np.trapezoid(self.scores, self.fraction, axis=-1)

    def plot(self, *, title: str = "", label: str = "score") -> Any:
        """Draw the curve, the mean over images; see `jaxviz.plot.curves`."""
        from jaxviz.plot._metrics import curves

        name = f"{self.kind}, {self.order.replace('_', ' ')}"
        return curves({name: self}, title=title, label=label)

    def __repr__(self) -> str:
        what, steps = self.order.replace("_", " "), self.scores.shape[-1] - 1
        return (
            f"Curve({self.kind}, {what}, {_count(self.scores)}, {steps} steps,"
            f" area {_mean(self.auc)})"
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class SymmetricGain:
    """By how much the score lasts longer if what a map calls unimportant goes first. A pytree.

    Attributes:
        least_first: the curve of the least important parts first.
        most_first: that of the most important ones first.
    """

    least_first: Curve
    most_first: Curve

    @property
    def value(self) -> np.ndarray:
        """AUC(least first) − AUC(most first), (N,); () for a single image."""
        return self.least_first.auc - self.most_first.auc

    def plot(self, *, title: str = "", label: str = "score") -> Any:
        """Draw both curves, their means over images; see `jaxviz.plot.curves`."""
        from jaxviz.plot._metrics import curves

        both = {"least first": self.least_first, "most first": self.most_first}
        return curves(both, title=title, label=label)

    def __repr__(self) -> str:
        scores = self.most_first.scores
        steps = scores.shape[-1] - 1
        return f"SymmetricGain({_count(scores)}, {steps} steps, gain {_mean(self.value)})"


def _count(scores: np.ndarray) -> str:
    count = 1 if scores.ndim == 1 else len(scores)
    return f"{count} image{'s' * (count != 1)}"


def _mean(values: np.ndarray) -> str:
    values = np.asarray(values)
    return f"{np.mean(values):.4g}" + " on average" * (values.size > 1)


def deletion(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    steps: int = 50,
    fill: FillLike = "mean",
    by: By = None,
    order: Order = "most_first",
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> Curve:
    """Remove the parts of each image in the order of its map, and follow the target's score.

    scores[n, k] = s(image n with its first round(k·P / steps) parts replaced by the fill).

    Args:
        f: scorer, see `jaxviz.occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        maps: (N, H, W), or a result of `occlude` or `attribution`, which is asked for `target`.
        target: whose score it is, see `jaxviz.Occlusion.heatmap`; None: the class with the largest
            clean score of each image.
        steps: how many steps lead from nothing removed to all removed, from 1.
        fill: what a part becomes, see `jaxviz.occlude`; a function is given the whole image.
        by: the parts: None, pixels; a number of pixels or a (rows, cols) pair, cells; or integer
            labels (H, W) or (N, H, W), segments.
        order: "most_first" (MIF), or "least_first" (LIF).
        key: random key for the order of parts of equal value; None: by number, see the module.
        batch_size: see `jaxviz.occlude`.
        memory: see `jaxviz.occlude`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`.

    Returns:
        The curve; with most first, a small area is good.

    Raises:
        ValueError: an argument breaks its rule, or a map holds NaN.

    Example:
        >>> f = lambda images: images.sum((1, 2))
        >>> image = np.asarray([[0.4, 0.3], [0.2, 0.1]], np.float32)[..., None]
        >>> deletion(f, image, image[..., 0], steps=2, fill=0.0).auc.round(6).item()
        0.4

    Source: V. Petsiuk, A. Das and K. Saenko, RISE, 2018, arXiv:1806.07421.
    """
    ranked = Ranked(f, images, maps, target, steps, fill, by, key)
    return ranked.curves([(_code(order), 0)], Run(batch_size, memory, mesh, progress))[0]


def insertion(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    steps: int = 50,
    fill: FillLike = "mean",
    by: By = None,
    order: Order = "most_first",
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> Curve:
    """Put the parts of each image into its fill in the order of its map; follow the score.

    scores[n, k] = s(the fill of image n with the first round(k·P / steps) parts of the image). The
    target of None is the class with the largest score of the whole image.

    Args:
        f: scorer, see `deletion`.
        images: see `deletion`.
        maps: see `deletion`.
        target: see `deletion`.
        steps: see `deletion`.
        fill: what is there at first, see `deletion`; `jaxviz.fills.blur` is usual.
        by: see `deletion`.
        order: see `deletion`.
        key: see `deletion`.
        batch_size: see `deletion`.
        memory: see `deletion`.
        mesh: see `deletion`.
        progress: see `deletion`.

    Returns:
        The curve; with most first, a large area is good.

    Raises:
        ValueError: see `deletion`.

    Example:
        >>> f = lambda images: images.sum((1, 2))
        >>> image = np.asarray([[0.4, 0.3], [0.2, 0.1]], np.float32)[..., None]
        >>> insertion(f, image, image[..., 0], steps=2, fill=0.0).auc.round(6).item()
        0.6

    Source: V. Petsiuk, A. Das and K. Saenko, RISE, 2018, arXiv:1806.07421.
    """
    ranked = Ranked(f, images, maps, target, steps, fill, by, key)
    return ranked.curves([(_code(order), 1)], Run(batch_size, memory, mesh, progress))[0]


def srg(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    steps: int = 50,
    fill: FillLike = "mean",
    by: By = None,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> SymmetricGain:
    """Symmetric relevance gain: the area with the least important first minus the most first.

    A map without information has 0 on average whatever the fill does to the network, as that
    moves both curves alike; how methods are ordered still depends on the fill.

    Args:
        f: scorer, see `deletion`.
        images: see `deletion`.
        maps: see `deletion`.
        target: see `deletion`.
        steps: see `deletion`.
        fill: see `deletion`.
        by: see `deletion`.
        key: see `deletion`.
        batch_size: see `deletion`.
        memory: see `deletion`.
        mesh: see `deletion`.
        progress: see `deletion`.

    Returns:
        Both curves and their difference, `value` (N,); large is good.

    Raises:
        ValueError: see `deletion`.

    Example:
        >>> f = lambda images: images.sum((1, 2))
        >>> image = np.asarray([[0.4, 0.3], [0.2, 0.1]], np.float32)[..., None]
        >>> srg(f, image, image[..., 0], steps=2, fill=0.0).value.round(6).item()
        0.2

    Source: S. Blücher, J. Vielhaben and N. Strodthoff, Decoupling Pixel Flipping and Occlusion
    Strategy for Consistent XAI Benchmarks, 2024, arXiv:2401.06654.
    """
    ranked = Ranked(f, images, maps, target, steps, fill, by, key)
    run = Run(batch_size, memory, mesh, progress)
    return SymmetricGain(*ranked.curves([(LEAST_FIRST, 0), (MOST_FIRST, 0)], run))


def _code(order: str) -> int:
    if order not in get_args(Order):
        raise ValueError(f'`order` must be "most_first" or "least_first": got {order!r}.')
    return MOST_FIRST if order == "most_first" else LEAST_FIRST


class _Prepared(NamedTuple):
    pixels: np.ndarray
    beside: np.ndarray
    parts: np.ndarray  # how many each image has, (N,)
    single: bool


class Ranked:
    """Images and the order of their parts, checked."""

    def __init__(self, f, images, maps, target, steps, fill, by, key):
        self.f, self.target, self.steps = f, target, whole_number(steps, "steps")
        self.given = _prepared(f, images, maps, target, by, key)
        self.fill = checked_fill(fill, self.given.pixels, complement=False, stacklevel=4)
        what = "pixel" if by is None else "segment" if np.ndim(by) > 1 else f"cells of {by}"
        self.config = (("fill", str(self.fill)), ("by", what), ("steps", str(steps)))

    def scores(
        self, curves: Sequence[tuple[int, int]], steps: Sequence[int], run: Run
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (N, curves, steps) of (order, inserting) at some steps, and clean ones."""
        rows = [(order, step, inserting) for order, inserting in curves for step in steps]
        given, occluder = self.given, RankedOccluder(self.fill, self.steps)
        picked, clean = target_scores(
            self.f, given.pixels, occluder, np.asarray(rows, np.int32),
            target=self.target, run=run, beside=given.beside,
        )  # fmt: skip
        return picked.reshape(len(picked), len(curves), -1), clean

    def curves(self, wanted: list[tuple[int, int]], run: Run) -> list[Curve]:
        """Return the curves of some (order, inserting), all of one kind."""
        # A curve has one end that is the clean image, which the run scores anyway.
        inserting = wanted[0][1]
        steps = range(self.steps) if inserting else range(1, self.steps + 1)
        scores, clean = self.scores(wanted, steps, run)
        ends = np.broadcast_to(clean[:, None, None], (*scores.shape[:2], 1))
        scores = np.concatenate([scores, ends] if inserting else [ends, scores], -1)
        parts = self.given.parts[:, None]
        fraction = changed(parts, np.arange(self.steps + 1)[None], self.steps) / parts
        single = self.given.single
        return [
            Curve(
                as_given(scores[:, i], single), as_given(fraction, single),
                "insertion" if inserting else "deletion",
                "most_first" if order == MOST_FIRST else "least_first", self.config,
            )
            for i, (order, _) in enumerate(wanted)
        ]  # fmt: skip


def _prepared(f, images, maps, target, by, key) -> _Prepared:
    pixels, single = checked_images(images, f)
    parts = parts_of(by, pixels.shape[:3])
    counts = parts.reshape(len(parts), -1).max(1).astype(np.int64) + 1
    if counts.max() > MOST_PARTS:
        raise ValueError(f"`by` must make at most {MOST_PARTS} parts: got {counts.max()}.")
    values = means(maps_of(maps, pixels, target=target), parts)
    largest = np.abs(values).max((1, 2), keepdims=True)
    values = values / np.where(largest > 0, largest, 1)  # so that float32 keeps them apart
    if key is not None:
        order = generator(key).permutation(int(counts.max())).astype(np.int32)
        parts = order[parts]
    return _Prepared(pixels, np.stack([values, parts], -1), counts, single)
