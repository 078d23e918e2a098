"""Shares of segments: KernelSHAP, LIME, and Shapley values by random orders.

A coalition keeps some segments of the image; the others become the baseline. v(z) is the explained
score of coalition z, so v(1) = s(x), v(0) = s(baseline). Each pixel of a result holds the share of
its segment.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from math import comb
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Distance
from jaxviz.attribution.baseline import BaselineLike
from jaxviz.attribution.driver import Run
from jaxviz.attribution.result import Attribution
from jaxviz.attribution.sampled import Sampling, feature_labels, make_sampling
from jaxviz.attribution.sampled_kernel import Masked, Shares, Traced
from jaxviz.jaxpr.keys import generator
from jaxviz.layers import ScorerLike
from jaxviz.perturbation.masks import Coalitions
from jaxviz.perturbation.segments import Segments
from jaxviz.perturbation.traced import least_squares, namespace
from jaxviz.progress import Progress

SegmentsLike = Segments | np.ndarray | int


def kernel_shap(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    segments: SegmentsLike = 8,
    samples: int = 2048,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Fit segments' shares to the scores of coalitions, with Shapley's weights: KernelSHAP.

    φ minimises Σ_z w(z)·(v(z) − v(0) − z·φ)², w(z) = (M − 1) / (C(M, k)·k·(M − k)) for k of M
    segments kept, under the constraint Σ φ = v(1) − v(0). With all 2^M − 2 coalitions, where
    `samples` allows that, φ are the Shapley values. Otherwise coalitions are drawn as w says, each
    with its complement.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        segments: which pixels belong together, for all images: labels (H, W), as of a
            segmentation, `jaxviz.Segments`, or a whole number n for a grid of n×n cells.
        samples: how many coalitions, apart from all and none.
        baseline: what hidden pixels become, as `fill` of `occlude`.
        key: of the draws; None: `jax.random.key(0)`.
        batch_size: masked images that a device evaluates at once, see `jaxviz.occlude`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`; in coalitions.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image; with "all" (N, H, W, 1, K). `delta`,
        Σ φ − (v(1) − v(0)), is 0 but for rounding.

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind; `key` is traced.

    Example:
        >>> halves = np.repeat([[0, 1]], 2, axis=0)
        >>> f = lambda x: x.sum((1, 2))
        >>> kernel_shap(f, np.ones((2, 2, 1)), segments=halves).heatmap().round(3).tolist()
        [[2.0, 2.0], [2.0, 2.0]]

    Source: S. Lundberg and S.-I. Lee, A Unified Approach to Interpreting Model Predictions, 2017,
    arXiv:1705.07874; I. Covert and S.-I. Lee, Improving KernelSHAP, 2021, arXiv:2012.01536.
    """
    samples = whole_number(samples, "samples")
    run = Run(batch_size, memory, mesh, progress, dtype)

    def draw(count: int) -> np.ndarray:
        return np.concatenate([np.zeros((1, count), int), shapley_coalitions(count, samples, key)])

    def solve(z: np.ndarray, v: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, Any]:
        return shapley_fit(z[1:], v[1:], v[0], whole), None

    config = {"samples": samples}
    return _explain("KernelSHAP", f, images, target, segments, baseline, draw, solve, run, config)


def shapley_coalitions(count: int, samples: int, key: jax.Array | None) -> np.ndarray:
    """Coalitions of `count` features, 0 or 1 (n, count): all of them, or some in pairs."""
    rng, sizes = generator(key), np.arange(1, count)
    if count < 2:
        return np.zeros((0, count), int)
    if 2 ** min(count, 62) - 2 <= samples:
        return np.array(list(product((0, 1), repeat=count)))[1:-1]
    weights = 1 / (sizes * (count - sizes))
    half = -(-samples // 2)
    drawn = rng.choice(sizes, half, p=weights / weights.sum())
    ranks = rng.random((half, count)).argsort(1).argsort(1)
    some = (ranks < drawn[:, None]).astype(int)
    return np.stack([some, 1 - some], 1).reshape(-1, count)[:samples]


def shapley_fit(z: np.ndarray, v: np.ndarray, none: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Solve for φ (M, T): z (n, M), v (n, T), v(0) and v(1) (T,)."""
    count, change, xp = z.shape[1], whole - none, namespace(v)
    if count == 1:
        return change[None]
    sizes = z.sum(1).astype(int).tolist()
    every = len(z) == 2 ** min(count, 62) - 2
    # What was drawn by its weight counts once; where all are there, the weight itself counts.
    chance = [(count - 1) / (comb(count, k) * k * (count - k)) if every else 1.0 for k in sizes]
    root = np.sqrt(np.array(chance))[:, None]
    # The last φ is the rest of the sum: v − v(0) − z_M·Σφ = Σ_i (z_i − z_M)·φ_i.
    last, weights = xp.asarray(z[:, -1:], v.dtype), xp.asarray(root, v.dtype)
    rest = v - none[None] - last * change[None]
    fitted = least_squares(root * (z[:, :-1] - z[:, -1:]), weights * rest)
    return xp.concatenate([fitted, change[None] - fitted.sum(0, keepdims=True)])


def lime(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    segments: SegmentsLike = 8,
    samples: int = 1000,
    distance: Distance = "cosine",
    width: float | None = None,
    ridge: float = 1.0,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Fit a linear model of the segments to the scores near the image: LIME.

    φ, c minimise Σ_z w(z)·(v(z) − c − z·φ)² + ridge·|φ|², w = exp(−d² / width²), d the distance of
    coalition z from the whole image. Coalitions keep each segment with probability ½; the whole
    image is one of them.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        segments: see `kernel_shap`.
        samples: how many coalitions, the whole image not counted.
        distance: "cosine", 1 − cos(z, 1), 1 for the empty coalition; "l2", √(segments hidden).
        width: of the kernel; None: 0.25 for "cosine", 0.75·√M for "l2".
        ridge: weight of the penalty, at least 0.
        baseline: see `kernel_shap`.
        key: of the draws; None: `jax.random.key(0)`.
        batch_size: see `kernel_shap`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `kernel_shap`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image; with "all" (N, H, W, 1, K).

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind; `key` is traced.

    Example:
        >>> halves = np.repeat([[0, 1]], 2, axis=0)
        >>> f = lambda x: x.sum((1, 2))
        >>> found = lime(f, np.ones((2, 2, 1)), segments=halves, width=9.0, ridge=0.0)
        >>> found.heatmap().round(2).tolist()
        [[2.0, 2.0], [2.0, 2.0]]

    Source: M. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", 2016, arXiv:1602.04938.
    """
    samples = whole_number(samples, "samples")
    if distance not in get_args(Distance):
        raise ValueError(f'`distance` must be "cosine" or "l2": got {distance!r}.')
    if width is not None and not width > 0:
        raise ValueError(f"`width` must be above 0: got {width!r}.")
    if not ridge >= 0:
        raise ValueError(f"`ridge` must be at least 0: got {ridge!r}.")
    run = Run(batch_size, memory, mesh, progress, dtype)

    def draw(count: int) -> np.ndarray:
        return generator(key).integers(0, 2, (samples, count))

    def solve(z: np.ndarray, v: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, Any]:
        z = np.concatenate([np.ones((1, z.shape[1])), z])
        v = namespace(v).concatenate([whole[None], v])
        return ridge_fit(z, v, lime_weights(z, distance, width), ridge), None

    config = {"samples": samples, "distance": distance, "width": width, "ridge": ridge}
    return _explain("LIME", f, images, target, segments, baseline, draw, solve, run, config, False)


def lime_weights(z: np.ndarray, distance: Distance, width: float | None) -> np.ndarray:
    """exp(−d²/width²) of coalitions (n, M)."""
    count, kept = z.shape[1], z.sum(1)
    far = 1 - np.sqrt(kept / count) if distance == "cosine" else np.sqrt(count - kept)
    if width is None:
        width = 0.25 if distance == "cosine" else 0.75 * np.sqrt(count)
    return np.exp(-((far / width) ** 2))


def ridge_fit(z: np.ndarray, v: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression with an intercept that is not penalised: (M, T) of z (n, M), v (n, T)."""
    xp, count = namespace(v), z.shape[1]
    share, root = (weights / weights.sum())[:, None], np.sqrt(weights)[:, None]
    z0, v0 = z - (share * z).sum(0), v - (xp.asarray(share, v.dtype) * v).sum(0, keepdims=True)
    left = np.concatenate([root * z0, np.sqrt(ridge) * np.eye(count)])
    none = xp.zeros((count, v.shape[1]), v.dtype)
    right = xp.concatenate([xp.asarray(root, v.dtype) * v0, none])
    return least_squares(left, right)


def shapley_sampling(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    segments: SegmentsLike = 8,
    samples: int = 25,
    baseline: BaselineLike = 0.0,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Average what each segment adds, over random orders in which they appear: Shapley values.

    φ_i = mean over orders of v(those before i, and i) − v(those before i). They add up to
    v(1) − v(0) for any number of orders.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; "all": every class, in the same run.
        segments: see `kernel_shap`.
        samples: how many orders; each takes M − 1 evaluations.
        baseline: see `kernel_shap`.
        key: of the orders; None: `jax.random.key(0)`.
        batch_size: see `kernel_shap`.
        memory: see `saliency`.
        mesh: see `jaxviz.occlude`.
        progress: see `kernel_shap`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, 1), or (H, W, 1) for a single image; with "all" (N, H, W, 1, K). `delta` is
        0 but for rounding; `error` (N,), or (N, K), the largest standard error of a segment's
        share, on the scale of the scores; NaN of a single order.

    Raises:
        ValueError: an argument breaks its rule; see `saliency`.
        TypeError: an argument is of the wrong kind; `key` is traced.

    Example:
        >>> halves = np.repeat([[0, 1]], 2, axis=0)
        >>> f = lambda x: x.sum((1, 2))
        >>> shapley_sampling(f, np.ones((2, 2, 1)), segments=halves).heatmap().tolist()
        [[2.0, 2.0], [2.0, 2.0]]

    Source: E. Štrumbelj and I. Kononenko, An Efficient Explanation of Individual Classifications
    using Game Theory, 2010, JMLR 11.
    """
    samples = whole_number(samples, "samples")
    run = Run(batch_size, memory, mesh, progress, dtype)
    ranks: list[np.ndarray] = []

    def draw(count: int) -> np.ndarray:
        ranks[:] = [generator(key).random((samples, count)).argsort(1).argsort(1)]
        before = ranks[0][:, None] < np.arange(1, count)[None, :, None]
        return np.concatenate([np.zeros((1, count), int), before.reshape(-1, count)])

    def solve(z: np.ndarray, v: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, Any]:
        return shapley_means(ranks[0], v, whole)

    config = {"samples": samples}
    name = "Shapley sampling"
    return _explain(name, f, images, target, segments, baseline, draw, solve, run, config)


def shapley_means(
    ranks: np.ndarray, v: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean gains (M, T), and their largest standard error (T,).

    `ranks` (n, M) says when a feature appears; `v` is v(0), then of each order its M − 1 steps.
    """
    (orders, count), xp = ranks.shape, namespace(v)
    steps = v[1:].reshape(orders, count - 1, -1)
    ends = [xp.broadcast_to(end, (orders, 1, v.shape[1])) for end in (v[0], whole)]
    gains = xp.diff(xp.concatenate([ends[0], steps, ends[1]], 1), axis=1)
    at = np.broadcast_to(ranks[..., None], gains.shape)
    gains = xp.take_along_axis(gains, xp.asarray(at), 1)
    if orders == 1:
        return gains[0], xp.full(v.shape[1], np.nan, v.dtype)
    return gains.mean(0), (gains.std(0, ddof=1) / np.sqrt(orders)).max(0)


Draw = Callable[[int], np.ndarray]
Solve = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, Any]]


def _explain(
    method: str,
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    target: Any,
    segments: SegmentsLike,
    baseline: BaselineLike,
    draw: Draw,
    solve: Solve,
    run: Run,
    config: dict[str, Any],
    complete: bool = True,
) -> Attribution:
    """Draw coalitions, score them for each image, and solve for the shares.

    `solve` gets coalitions (P, M), v of them (P, T), and v(1) (T,). If the shares are complete, the
    first coalition is the empty one.
    """
    labels = np.zeros((0, 0), np.int32)

    def masks(shape: tuple[int, int]) -> tuple[Coalitions, np.ndarray]:
        nonlocal labels
        labels = feature_labels(segments, shape)
        return Coalitions(jnp.asarray(labels)), draw(int(labels.max()) + 1).astype(np.int32)

    sampling = make_sampling(f, images, target, baseline, masks, run)
    return coalition_result(sampling, method, labels, solve, config, complete)


def coalition_result(
    sampling: Sampling | Traced,
    method: str,
    labels: np.ndarray,
    solve: Solve,
    config: dict[str, Any],
    complete: bool,
) -> Attribution:
    """Solve for the shares of each image, and lay them out over the pixels."""
    config = {**config, "segments": int(labels.max()) + 1}
    if isinstance(sampling, Traced):
        kernel = partial(_shares, labels, solve, complete, sampling.positions)
        return sampling.result(method, kernel, config)
    z = sampling.task.positions.astype(np.float64)
    maps, bases, gaps, errors = [], [], [], []
    with sampling.tracking():
        for number in range(len(sampling.images)):
            scores = sampling.score(number)
            if scores is None:
                break
            v = sampling.picked(number, scores)
            shares, error = solve(z, v[1:], v[0])
            maps.append(_laid_out(shares, labels))
            bases.append(scores[0])
            gaps += [shares.sum(0) - (v[0] - v[1])] if complete else []
            errors += [] if error is None else [error]
    if not maps:
        raise KeyboardInterrupt
    return sampling.result(
        method, maps, bases, delta=gaps or None, error=errors or None, config=config
    )


def _shares(
    labels: np.ndarray, solve: Solve, complete: bool, positions: np.ndarray, masked: Masked
) -> Shares:
    """The kernel: coalitions of one image."""
    v, whole = masked.scores(positions), masked.whole
    shares, error = solve(positions.astype(np.float64), v, whole)
    gap = shares.sum(0) - (whole - v[0]) if complete else None
    return Shares(_laid_out(shares, labels), gap, error)


def _laid_out(shares: Any, labels: np.ndarray) -> Any:
    """The share of each pixel's segment, (H, W, T)."""
    xp = namespace(shares)
    outside = xp.zeros((1, shares.shape[1]), shares.dtype)  # a label of −1 reads the last row
    return xp.concatenate([shares, outside])[labels]
