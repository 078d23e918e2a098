"""Integrated gradients: the gradient averaged on the way from a baseline to the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import PathRule
from jaxviz.attribution.baseline import BaselineLike, backgrounds, describe, make_baselines
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal, quick_score
from jaxviz.attribution.gradients import gradient
from jaxviz.attribution.kernel import Found, Steps
from jaxviz.attribution.result import Attribution
from jaxviz.layers import ScorerLike
from jaxviz.perturbation.fill import Fill
from jaxviz.progress import Progress


def integrated_gradients(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    baseline: BaselineLike = 0.0,
    points: int = 50,
    rule: PathRule = "gauss_legendre",
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Integrate the gradient on the straight way from a baseline to the image.

    values = (x − b) · ∫₀¹ g(b + t·(x − b)) dt, with g = ∂s/∂x. They add up to s(x) − s(b), up to
    what the quadrature misses: `delta` = Σ values − (s(x) − s(b)) is always returned. Memory does
    not grow with the points.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`; of the image, also on the way.
        baseline: what the way begins with: a number, one per channel, an image, "mean" or one of
            `jaxviz.fills`; several of them, in a list or as images (B, H, W, C), are averaged.
        points: at how many points the gradient is taken, for each baseline.
        rule: "gauss_legendre"; "trapezoid"; "mean", the plain mean over both ends and all between;
            "right", without the baseline; "midpoint". The points are evenly spaced but for the
            first, whose error falls fastest.
        batch_size: gradients that a device takes at once, of images or points, see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image, and `delta` (N,).

    Raises:
        ValueError: `points` is below 1, the baseline does not suit the images; see `saliency`.

    Example:
        >>> image = np.full((2, 2, 1), 3.0, np.float32)
        >>> att = integrated_gradients(lambda x: (x**2).sum((1, 2)), image)
        >>> att.heatmap().round(3).tolist(), abs(att.delta.round(3)).tolist()
        ([[9.0, 9.0], [9.0, 9.0]], 0.0)

    Source: M. Sundararajan, A. Taly, Q. Yan, Axiomatic Attribution for Deep Networks, 2017,
    arXiv:1703.01365.
    """
    nodes, fills = quadrature(points, rule), make_baselines(baseline)
    config = {"points": points, "rule": rule, "baseline": describe(fills)}
    return attribute(
        "integrated gradients",
        path_integral(fills, *nodes),
        f,
        images,
        target,
        Run(batch_size, memory, mesh, progress, dtype),
        config=config,
    )


def quadrature(points: int, rule: PathRule) -> tuple[np.ndarray, np.ndarray]:
    """Return the points in [0, 1] and their weights, which add up to 1.

    Raises:
        ValueError: fewer than one point, or two of the trapezoid; or another rule.
    """
    least = 2 if rule == "trapezoid" else 1
    points = whole_number(points, "points", least=least)
    if rule == "gauss_legendre":
        at, weights = np.polynomial.legendre.leggauss(points)
        return (at + 1) / 2, weights / 2
    even = np.full(points, 1 / points)
    if rule == "right":
        return np.arange(1, points + 1) / points, even
    if rule == "midpoint":
        return (np.arange(points) + 0.5) / points, even
    if rule == "mean":
        return np.linspace(0, 1, points), even
    if rule == "trapezoid":
        ends = np.ones(points)
        ends[[0, -1]] = 0.5
        return np.linspace(0, 1, points), ends / (points - 1)
    known = ", ".join(f'"{word}"' for word in get_args(PathRule))
    raise ValueError(f"`rule` must be one of {known}: got {rule!r}.")


class _Carry(NamedTuple):
    """Goal, clean scores, baselines (B, H, W, C), the sum so far, and what it should add up to."""

    goal: Goal
    base: jax.Array
    starts: jax.Array
    total: jax.Array
    expected: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Path:
    fills: list[Fill]
    at: np.ndarray
    weights: np.ndarray

    def begin(self, f: Any, image: jax.Array, goal: Goal) -> _Carry:
        starts = backgrounds(self.fills, image)
        # One at a time: the scorer is never given images of which another's score could depend.
        ends = jnp.concatenate([image[None], starts])
        scores = jax.vmap(lambda end: quick_score(f, end[None])[0])(ends)
        goal = goal.fix(scores[0])
        expected = goal(scores[:1])[0] - goal(scores[1:]).mean()
        total = jnp.zeros(image.shape, expected.dtype)
        return _Carry(goal, scores[0], starts, total, expected)

    def items(self, carry: Any) -> Any:
        count = len(self.fills)
        at, weights = (np.tile(x, count).astype(np.float32) for x in (self.at, self.weights))
        return at, weights / count, np.repeat(np.arange(count, dtype=np.int32), len(self.at))

    def step(
        self, f: Any, image: jax.Array, goal: Goal, carry: _Carry, items: Any, live: jax.Array
    ) -> _Carry:
        def one(at: jax.Array, weight: jax.Array, number: jax.Array) -> jax.Array:
            start = carry.starts[number]
            way = image - start
            here = start + at.astype(image.dtype) * way
            g, _ = gradient(f, here, carry.goal, preparing=0.0)
            return (weight * (way * g).astype(weight.dtype)).astype(carry.total.dtype)

        at, weights, numbers = items
        parts = jax.vmap(one)(at, weights * live, numbers)
        return carry._replace(total=carry.total + parts.sum(0))

    def end(self, f: Any, image: jax.Array, goal: Goal, carry: _Carry) -> Found:
        return Found(carry.total, carry.base, carry.total.sum() - carry.expected)


def path_integral(fills: Sequence[Fill], at: np.ndarray, weights: np.ndarray) -> Steps:
    """Return the kernel: a sum over points and baselines."""
    return Steps(_Path(list(fills), at, weights))
