"""RISE: the mean of random masks, each weighed by the score of what it leaves of the image."""

from functools import partial
from math import ceil
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz.attribution.baseline import BaselineLike
from jaxviz.attribution.driver import Run
from jaxviz.attribution.result import Attribution
from jaxviz.attribution.sampled import Sampling, make_sampling
from jaxviz.attribution.sampled_kernel import Masked, Shares, Traced
from jaxviz.jaxpr.compiled import compiled
from jaxviz.jaxpr.keys import checked_key
from jaxviz.layers import ScorerLike
from jaxviz.perturbation.masks import RandomGrids
from jaxviz.perturbation.traced import namespace
from jaxviz.progress import Progress

ROUND = 250  # masks between two looks at the error
AT_ONCE = 25  # masks that are added up at once


def rise(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    samples: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    accuracy: float | None = None,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh random masks by the scores of what they leave: RISE.

    values = Σ_k s(x·M_k)·M_k / (n·p), M_k a grid of zeros and ones, enlarged bilinearly and shifted
    at random. Masks are made on the device when they are needed and never kept: memory does not
    grow with them. Every image gets the same masks.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        samples: n, how many masks at most.
        cells: rows and columns of the grid.
        keep: p, how likely a cell is kept, in (0, 1).
        accuracy: stop an image early, once its `error` is at most this; looked at every 250 masks.
            None: all masks.
        baseline: what hidden pixels become, as `fill` of `occlude`: x·M + baseline·(1 − M).
        key: of the masks; None: `jax.random.key(0)`.
        batch_size: masked images that a device evaluates at once, see `jaxviz.occlude`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`; in masks.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image; with "all" (N, H, W, 1, K).
        `error` (N,), or (N, K): the largest standard error of a pixel, as a share of the map's
        range, largest minus smallest value; 0 for a map without any.

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind.

    Example:
        >>> image = np.eye(8, dtype=np.float32)[..., None]
        >>> rise(lambda x: x.sum((1, 2)), image, samples=50, cells=2).heatmap().shape
        (8, 8)

    Source: V. Petsiuk, A. Das, K. Saenko, RISE, BMVC 2018, arXiv:1806.07421.
    """
    samples = whole_number(samples, "samples", least=2)
    cells = whole_number(cells, "cells")
    if not 0 < keep < 1:
        raise ValueError(f"`keep` must lie between 0 and 1: got {keep!r}.")
    if accuracy is not None and not accuracy > 0:
        raise ValueError(f"`accuracy` must be above 0, or None: got {accuracy!r}.")
    grids = RandomGrids(checked_key(key), np.float32(keep), int(cells))
    positions = np.arange(samples, dtype=np.int32)[:, None]
    run = Run(batch_size, memory, mesh, progress, dtype)
    config = {"samples": samples, "cells": cells, "keep": keep, "accuracy": accuracy}
    sampling = make_sampling(
        f, images, target, baseline, lambda shape: (grids, positions), run, grids.key
    )
    if isinstance(sampling, Traced):
        kernel = partial(rise_kernel, grids, positions, keep, accuracy)
        return sampling.result("RISE", kernel, config)
    found = []
    with sampling.tracking():
        for number in range(len(sampling.images)):
            one = _one(sampling, number, grids, accuracy)
            found += [] if one is None else [one]
            if sampling.interrupted:
                break
    if not found:
        raise KeyboardInterrupt
    config["used"] = ", ".join(str(one.count) for one in found)
    return sampling.result(
        "RISE",
        [one.mean for one in found],
        [one.base for one in found],
        error=[one.error for one in found],
        config=config,
    )


class _Map(NamedTuple):
    """A map (H, W, T), the error (T,), the clean scores, and how many masks gave them."""

    mean: Any
    error: Any
    base: Any
    count: Any


def _one(
    sampling: Sampling, number: int, grids: RandomGrids, accuracy: float | None
) -> _Map | None:
    """Add up rounds of masks until the map is known well enough."""
    positions, shape = sampling.task.positions, sampling.shape
    done, found, sums = 0, None, None
    while done < len(positions):
        some = positions[done : done + ROUND]
        scores = sampling.score(number, some)
        if scores is None:
            return found
        weights = sampling.picked(number, scores)[1:]
        sums = sums or _Sums(grids, shape, weights.shape[1])
        sums.add(some, weights)
        done += len(some)
        found = _estimate(*sums.totals, done, float(grids.keep), scores[0])
        if accuracy is not None and found.error.max() <= accuracy:
            sampling.advance(len(positions) - done)
            break
    return found


def _estimate(total: Any, squares: Any, count: Any, keep: float, base: Any) -> _Map:
    """The mean of s·M/p, and the standard error of that mean; of numbers or traced ones."""
    xp = namespace(total)
    mean = total / (count * keep)
    variance = xp.maximum(squares / (count * keep**2) - mean**2, 0) / xp.maximum(count - 1, 1)
    worst, span = xp.sqrt(variance).max((0, 1)), mean.max((0, 1)) - mean.min((0, 1))
    size = xp.abs(mean).max((0, 1))
    flat = span <= (1e-12 if mean.dtype == np.float64 else 1e-6) * size
    error = xp.where(flat, xp.where(worst > 0, np.inf, 0.0), worst / xp.where(flat, 1, span))
    return _Map(mean, error, base, count)


class _Sums:
    """Σ w·M and Σ (w·M)² over masks, (H, W, T): a few masks at a time, float64 between rounds."""

    def __init__(self, grids: RandomGrids, shape: tuple[int, int], count: int) -> None:
        self.grids, self.function = grids, partial(_sums, shape)
        self.shape = (*shape, count)
        self.totals = [np.zeros(self.shape) for _ in range(2)]
        zeros = jnp.zeros(self.shape, jnp.float32)
        like = (
            grids,
            np.zeros((AT_ONCE, 1), np.int32),
            np.zeros((AT_ONCE, count), np.float32),
            zeros,
            zeros,
        )
        self.program = compiled(self.function, *like, donated=(3, 4))

    def add(self, positions: np.ndarray, weights: np.ndarray) -> None:
        """Add a round of masks."""
        sums = [jnp.zeros(self.shape, jnp.float32) for _ in range(2)]
        for first in range(0, len(positions), AT_ONCE):
            rows = np.arange(first, first + AT_ONCE)
            live = (rows < len(positions))[:, None]
            rows = np.minimum(rows, len(positions) - 1)
            some = np.where(live, weights[rows], 0).astype(np.float32)
            sums = self.program(self.grids, positions[rows], some, *sums)
        self.totals = [
            a + np.asarray(b, np.float64) for a, b in zip(self.totals, sums, strict=True)
        ]


def rise_kernel(
    grids: RandomGrids,
    positions: np.ndarray,
    keep: float,
    accuracy: float | None,
    masked: Masked,
) -> Shares:
    """The kernel: rounds of masks, which do nothing once the map is known well enough."""
    shape, like = (masked.image.shape[0], masked.image.shape[1]), masked.whole
    chunks, live = _rounds(len(positions))
    zeros = jnp.zeros((*shape, len(like)), like.dtype)

    def step(sums: Any, chunk: Any) -> tuple[Any, None]:
        rows, known = chunk
        weights = masked.scores(rows[:, None]) * known[:, None].astype(like.dtype)
        return _sums(shape, grids, rows[:, None], weights, *sums), None

    def more(carry: Any, chunk: Any) -> Any:
        sums, used, _ = carry
        sums, _ = jax.lax.scan(step, sums, chunk)
        used = used + chunk[1].sum()
        error = _estimate(sums[0], sums[1], used, keep, None).error.max()
        return sums, used, jnp.asarray(False) if accuracy is None else error <= accuracy

    def round_of(carry: Any, chunk: Any) -> tuple[Any, None]:
        return jax.lax.cond(carry[-1], lambda carry, _: carry, more, carry, chunk), None

    first = ((zeros, zeros), jnp.zeros((), jnp.float32), jnp.asarray(False))
    (sums, used, _), _ = jax.lax.scan(round_of, first, (positions[chunks, 0], live))
    found = _estimate(sums[0], sums[1], used, keep, None)
    return Shares(found.mean, error=found.error)


def _rounds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut masks into rounds of chunks, (rounds, chunks, AT_ONCE); and which count, 1 or 0."""
    chunks = min(ROUND, ceil(count / AT_ONCE) * AT_ONCE) // AT_ONCE
    rounds = ceil(count / (chunks * AT_ONCE))
    index = np.arange(rounds * chunks * AT_ONCE).reshape(rounds, chunks, AT_ONCE)
    return np.minimum(index, count - 1), (index < count).astype(np.float32)


def _sums(
    shape: tuple[int, int],
    grids: RandomGrids,
    positions: jax.Array,
    weights: jax.Array,
    total: jax.Array,
    squares: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    masks = jax.vmap(lambda position: grids(position, shape))(positions)
    return (
        total + jnp.einsum("nt,nhw->hwt", weights, masks),
        squares + jnp.einsum("nt,nhw->hwt", weights**2, masks**2),
    )
