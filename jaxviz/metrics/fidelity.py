"""Whether what a map gives to some pixels is what the score loses without them, at random.

What is removed is drawn once, from the key, and is the same for all images, so that neither the
batch nor the other images change a result. A correlation is undefined where the map or the drop is
constant: it is NaN there, never 0.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import Pair, pair, whole_number
from jaxviz.jaxpr.keys import generator
from jaxviz.layers import ScorerLike
from jaxviz.metrics.maps import Maps, as_given, maps_of
from jaxviz.metrics.parts import By, cells, evenly, parts_of, sums
from jaxviz.metrics.run import Run, numbers, target_scores
from jaxviz.metrics.statistics import pearson, spearman
from jaxviz.perturbation.fills import FillLike, checked_fill
from jaxviz.perturbation.occluders import LabelOccluder
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import checked_images
from jaxviz.scoring.targets import Target


def mu_fidelity(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    grid: int | Pair = 9,
    share: float = 0.2,
    samples: int = 200,
    fill: FillLike = "mean",
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> np.ndarray:
    """Rank correlation of what a map gives to random cells and what the score loses without them.

    Over masks m that remove each cell of a grid with probability `share`: Spearman's ρ of
    Σ_{removed} map and s(x) − s(x without m).

    Args:
        f: scorer, see `jaxviz.occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        maps: (N, H, W), or a result of `occlude` or `attribution`.
        target: whose score it is, see `deletion`.
        grid: cells along both axes, or (rows, cols); pixel r lies in row r·rows // H.
        share: the probability that a cell is removed, in (0, 1).
        samples: how many masks, from 2.
        fill: what is put in, see `deletion`.
        key: random key for the masks; None: `jax.random.key(0)`.
        batch_size: see `jaxviz.occlude`.
        memory: see `jaxviz.occlude`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`.

    Returns:
        float64 (N,), in [−1, 1]; () for a single image; NaN where the map or the drop is constant.

    Raises:
        ValueError: an argument breaks its rule, or a map holds NaN.

    Example:
        >>> image = np.arange(16.0).reshape(4, 4, 1)
        >>> mu_fidelity(lambda x: x.sum((1, 2)), image, image[..., 0], grid=4, fill=0.0).item()
        1.0

    Source: U. Bhatt, A. Weller and J. Moura, Evaluating and Aggregating Feature-based Model
    Explanations, 2020, arXiv:2005.00631.
    """
    pixels, single = checked_images(images, f)
    array = maps_of(maps, pixels, target=target)
    rows, cols = pair(grid, "grid", least=1)
    if rows > pixels.shape[1] or cols > pixels.shape[2]:
        raise ValueError(
            f"`grid` must not have more cells than pixels: got {(rows, cols)} for"
            f" {pixels.shape[1:3]}."
        )
    if not 0 < share < 1:
        raise ValueError(f"`share` must lie between 0 and 1: got {share}.")
    samples = whole_number(samples, "samples", least=2)
    labels = cells(evenly(pixels.shape[1], rows), evenly(pixels.shape[2], cols))
    removed = generator(key).random((samples, rows * cols)) < share
    run = Run(batch_size, memory, mesh, progress)
    drops = _drops(f, pixels, labels, removed, fill, target, run)
    return as_given(spearman(sums(array, labels) @ removed.T, drops), single)


def sensitivity_n(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    by: By = None,
    samples: int = 100,
    fill: FillLike = "mean",
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> np.ndarray:
    """Correlation, within each image, of a map's sum over n random parts and the drop without them.

    For each share, n = round(share · P) of P parts, from 1 to P − 1: Pearson's r over random sets
    of n parts. Of a linear scorer, x·gradient has 1 at every n.

    Args:
        f: scorer, see `jaxviz.occlude`.
        images: see `mu_fidelity`.
        maps: see `mu_fidelity`.
        target: see `mu_fidelity`.
        shares: which shares of the parts are removed, in (0, 1).
        by: the parts, see `deletion`; labels (H, W) for all images.
        samples: how many sets of each size, from 2.
        fill: see `mu_fidelity`.
        key: see `mu_fidelity`.
        batch_size: see `jaxviz.occlude`.
        memory: see `jaxviz.occlude`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`.

    Returns:
        float64 (N, shares), in [−1, 1]; (shares,) for a single image; NaN where the map's sum or
        the drop is constant.

    Raises:
        ValueError: an argument breaks its rule, or a map holds NaN.

    Example:
        >>> image = np.arange(16.0).reshape(4, 4, 1)
        >>> sensitivity_n(lambda x: x.sum((1, 2)), image, image[..., 0], fill=0.0).round(5).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]

    Source: M. Ancona et al., Towards Better Understanding of Gradient-based Attribution Methods,
    2018, arXiv:1711.06104.
    """
    pixels, single = checked_images(images, f)
    array = maps_of(maps, pixels, target=target)
    if len(np.shape(by)) == 3:  # pyright: ignore
        raise ValueError("`by` must be labels (H, W) for all images: got labels of each image.")
    labels = parts_of(by, (1, *pixels.shape[1:3]))[0]
    samples = whole_number(samples, "samples", least=2)
    wide = np.asarray(shares, np.float64)
    if wide.ndim != 1 or not wide.size or not (wide.min() > 0 and wide.max() < 1):
        raise ValueError(f"`shares` must be numbers between 0 and 1: got {shares}.")
    parts = int(labels.max()) + 1
    if parts < 2:
        raise ValueError("`by` must make at least 2 parts: got 1.")
    draw = generator(key)
    sizes = np.clip(np.floor(wide * parts + 0.5).astype(int), 1, parts - 1)
    chosen = draw.permuted(np.tile(np.arange(parts), (len(sizes) * samples, 1)), axis=1)
    removed = chosen < np.repeat(sizes, samples)[:, None]
    drops = _drops(
        f, pixels, labels, removed, fill, target, Run(batch_size, memory, mesh, progress)
    )
    shape = (len(pixels), len(sizes), samples)
    given = sums(array, labels) @ removed.T
    return as_given(pearson(given.reshape(shape), drops.reshape(shape)), single)


def _drops(f, pixels, labels, removed, fill, target, run: Run) -> np.ndarray:
    """s(x) − s(x without the parts removed), (N, samples)."""
    filled = checked_fill(fill, pixels, complement=False, stacklevel=4)
    table = jnp.asarray(removed)
    occluder = LabelOccluder(filled, jnp.asarray(labels, np.int32), table)
    at = numbers(len(removed))
    picked, clean = target_scores(f, pixels, occluder, at, target=target, run=run)
    return clean[:, None] - picked
