"""How much of the score's variation each cell of a grid explains: Sobol' indices and HSIC."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz.attribution.baseline import BaselineLike
from jaxviz.attribution.coalitions import coalition_result
from jaxviz.attribution.driver import Run
from jaxviz.attribution.result import Attribution
from jaxviz.attribution.sampled import grid_labels, make_sampling
from jaxviz.jaxpr.keys import generator
from jaxviz.layers import ScorerLike
from jaxviz.perturbation.masks import Coalitions, Designs
from jaxviz.perturbation.traced import is_traced, namespace, product
from jaxviz.progress import Progress


def sobol(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    cells: int = 8,
    samples: int = 32,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Map total Sobol' indices: the share of the score's variance that a cell has a part in.

    Masks have levels in [0, 1] for each cell, from a scrambled Sobol' sequence: designs A and B,
    and C_i, A with column i of B. By Jansen's estimator index i is
    Σ_r (s(A_r) − s(C_i,r))² / (2·n·Var), Var the variance of s over A and B; 0 where that is 0.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        cells: rows and columns of the grid.
        samples: n, rows of a design, a power of 2 best; n·(cells² + 2) images are scored.
        baseline: what level 0 shows, as `fill` of `occlude`: x·M + baseline·(1 − M).
        key: of the scrambling; None: `jax.random.key(0)`.
        batch_size: masked images that a device evaluates at once, see `jaxviz.occlude`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`; in masks.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image, at least 0, the same for all pixels of
        a cell; with "all" (N, H, W, 1, K).

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind; `key` is traced.

    Example:
        >>> image = np.ones((4, 4, 1), np.float32)
        >>> sobol(lambda x: x[:, :2].sum((1, 2)), image, cells=2).heatmap()[2:].tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]

    Source: T. Fel et al., Look at the Variance!, 2021, arXiv:2111.04138; M. Jansen, Analysis of
    variance designs for model output, 1999, doi:10.1016/S0010-4655(98)00154-4.
    """
    cells = whole_number(cells, "cells")
    samples = whole_number(samples, "samples", least=2)
    labels = np.zeros((0, 0), np.int32)

    def masks(shape: tuple[int, int]) -> tuple[Designs, np.ndarray]:
        nonlocal labels
        labels = grid_labels(shape, cells)
        count = int(labels.max()) + 1
        designs = sobol_designs(count, samples, key)
        which = np.array([-1, -2, *range(count)], np.int32)
        rows = np.arange(samples, dtype=np.int32)
        positions = np.stack(np.meshgrid(rows, which, indexing="ij"), -1).reshape(-1, 2)
        return Designs(jnp.asarray(labels), jnp.asarray(designs, jnp.float32)), positions

    run = Run(batch_size, memory, mesh, progress, dtype)
    sampling = make_sampling(f, images, target, baseline, masks, run)
    config = {"samples": samples}
    solve = partial(_total_indices, samples)
    return coalition_result(sampling, "Sobol' indices", labels, solve, config, False)


def sobol_designs(count: int, samples: int, key: jax.Array | None) -> np.ndarray:
    """Two designs of levels in [0, 1), (2, samples, count), halves of one sequence."""
    from scipy.stats import qmc  # slow to import

    drawn = qmc.Sobol(2 * count, rng=generator(key)).random_base2((samples - 1).bit_length())
    return drawn[:samples].reshape(samples, 2, count).swapaxes(0, 1)


def _total_indices(
    samples: int, positions: np.ndarray, v: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, Any]:
    xp = namespace(v)
    rows = v.reshape(samples, -1, v.shape[1])
    a, b, c = rows[:, 0], rows[:, 1], rows[:, 2:]
    both = xp.concatenate([a, b])
    variance = both.var(0)
    moved = ((a[:, None] - c) ** 2).sum(0) / (2 * samples)
    # What rounding makes of a constant is no variance.
    still = (xp.sqrt(variance) <= 1e-6 * xp.abs(both).max(0))[None]
    return xp.where(still, 0, moved / xp.where(still, 1, variance[None])), None


def hsic(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    cells: int = 8,
    samples: int = 500,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Map how strongly the score depends on each cell being kept: HSIC.

    tr(K·H·L·H) / (n − 1)² over n random masks that keep each cell with probability ½, H centring,
    K = ½ − (m − m')² for a cell that is kept (1) or not (0), L = exp(−(s − s')² / (2σ²)), σ the
    median distance of two different scores; 0 where the scores are constant.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        cells: rows and columns of the grid.
        samples: n, how many masks.
        baseline: what hidden pixels become, as `fill` of `occlude`.
        key: of the masks; None: `jax.random.key(0)`.
        batch_size: see `sobol`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `sobol`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image, at least 0, the same for all pixels of
        a cell; with "all" (N, H, W, 1, K).

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind; `key` is traced.

    Example:
        >>> image = np.ones((4, 4, 1), np.float32)
        >>> found = hsic(lambda x: x[:, :2].sum((1, 2)), image, cells=2).heatmap()
        >>> bool(found[0, 0] > 5 * found[3, 3])
        True

    Source: P. Novello, T. Fel, D. Vigouroux, Making Sense of Dependence, 2022, arXiv:2206.06219.
    """
    cells = whole_number(cells, "cells")
    samples = whole_number(samples, "samples", least=2)
    labels = np.zeros((0, 0), np.int32)

    def masks(shape: tuple[int, int]) -> tuple[Coalitions, np.ndarray]:
        nonlocal labels
        labels = grid_labels(shape, cells)
        drawn = generator(key).integers(0, 2, (samples, int(labels.max()) + 1), np.int32)
        return Coalitions(jnp.asarray(labels)), drawn

    run = Run(batch_size, memory, mesh, progress, dtype)
    sampling = make_sampling(f, images, target, baseline, masks, run)
    config = {"samples": samples}
    return coalition_result(sampling, "HSIC", labels, _dependence, config, False)


def _dependence(z: np.ndarray, v: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, Any]:
    # Of 0 and 1, H·K·H = 2·z̃·z̃ᵀ with z̃ the centred column: (m − m')² = m + m' − 2·m·m'.
    centred = z - z.mean(0)
    if is_traced(v):
        known = jnp.asarray(centred, v.dtype)
        return jax.lax.map(partial(_of_scores, known), v.T).T, None
    return np.stack([_of_scores(centred, scores) for scores in v.T], 1), None


def _of_scores(centred: Any, scores: Any) -> Any:
    xp, count = namespace(scores), len(scores)
    apart = xp.abs(scores[:, None] - scores[None])
    pairs, least = apart[np.triu_indices(count, 1)], 1e-6 * xp.abs(scores).max()
    still = pairs.max() <= least
    # More than half of the scores may be equal, as behind a maximum: then of those that differ.
    differing = xp.where(pairs > least, pairs, xp.where(xp.any(pairs > least), xp.nan, 1))
    middle = xp.median(pairs)
    width = xp.where(middle > least, middle, xp.nanmedian(differing))
    near = xp.exp(-((apart / xp.where(still, 1, width)) ** 2) / 2)
    found = 2 * (centred * product(near, centred)).sum(0) / (count - 1) ** 2
    return xp.where(still, 0, found)
