"""Any method, averaged over noisy copies of the image: SmoothGrad, SquareGrad, VarGrad."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Noise, Smoothed
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal, quick_score
from jaxviz.attribution.gradients import saliency
from jaxviz.attribution.kernel import Found, Seen, Steps
from jaxviz.attribution.result import Attribution
from jaxviz.jaxpr.keys import checked_key
from jaxviz.layers import ScorerLike
from jaxviz.progress import Progress


def smooth(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    method: Callable[..., Attribution] = saliency,
    target: Any = None,
    samples: int = 25,
    noise: float = 0.15,
    scale: Noise = "range",
    reduce: Smoothed = "mean",
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Average what a method makes of the image with noise: SmoothGrad, of any method.

    values = mean over ε of method(x + ε), ε normal with σ = noise · (max x − min x) of each image.
    The target is that of the clean image. Every image gets the same draws, so that no result
    depends on its neighbours. Memory does not grow with the samples.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        method: what is averaged: a function of this package that runs on traced images, or
            `functools.partial(integrated_gradients, points=10)`, or one of your own that returns an
            `Attribution` from (f, image (H, W, C), *, target).
        target: what is explained, see `saliency`.
        samples: how many noisy copies.
        noise: σ, in the unit that `scale` names.
        scale: "range", of each image's own range, max − min over all its channels; "absolute", on
            the scale of the pixels.
        reduce: "mean" (SmoothGrad), "square", the mean of squares (SquareGrad), or "variance", the
            mean squared distance from the mean (VarGrad), divided by `samples`.
        key: of the noise; None: `jax.random.key(0)`.
        batch_size: copies that a device explains at once, see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values as the method's.

    Raises:
        ValueError: `samples` or `noise` is out of its range, a word is unknown; see `saliency`.

    Example:
        >>> image = np.eye(4, dtype=np.float32)[..., None]
        >>> smooth(lambda x: x.sum((1, 2)), image, samples=4).heatmap()[0].tolist()
        [1.0, 1.0, 1.0, 1.0]

    Source: D. Smilkov et al., SmoothGrad, 2017, arXiv:1706.03825; J. Adebayo et al., Local
    Explanation Methods, 2018, arXiv:1810.03307 (VarGrad); S. Hooker et al., A Benchmark for
    Interpretability Methods, 2018, arXiv:1806.10758 (SquareGrad).
    """
    samples = whole_number(samples, "samples")
    if not callable(method):
        raise TypeError(
            f"`method` must be a function, such as `jaxviz.attribution.saliency`: got {method!r}."
        )
    if not noise >= 0:
        raise ValueError(f"`noise` must be at least 0: got {noise!r}.")
    for name, value, kind in (("scale", scale, Noise), ("reduce", reduce, Smoothed)):
        if value not in get_args(kind):
            known = ", ".join(f'"{word}"' for word in get_args(kind))
            raise ValueError(f"`{name}` must be one of {known}: got {value!r}.")
    smoothing = _Smoothing(
        jnp.float32(noise),
        checked_key(key),
        method,
        samples,
        scale == "range",
        reduce,
    )
    run = Run(batch_size, memory, mesh, progress, dtype)
    config = {"samples": samples, "noise": noise, "scale": scale, "reduce": reduce}
    seen = smoothing.seen
    found = attribute("smooth", Steps(smoothing), f, images, target, run, config=config, seen=seen)
    return smoothing.named(found)


class _Carry(NamedTuple):
    """Goal, clean scores, and count, mean and Σ (v − mean)² so far."""

    goal: Goal
    base: jax.Array
    count: jax.Array
    mean: jax.Array
    spread: jax.Array


static: Any = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Smoothing:
    """The kernel of `smooth`; `seen` takes note of what the method's results look like."""

    noise: jax.Array
    key: jax.Array
    method: Callable[..., Attribution] = field(metadata=static)
    samples: int = field(metadata=static)
    relative: bool = field(metadata=static)
    reduce: Smoothed = field(metadata=static)
    seen: Seen = field(default_factory=Seen, metadata=static)

    def explain(self, f: Any, image: jax.Array, goal: Goal) -> Attribution:
        target = goal.weights if goal.function is None else goal.function
        return self.method(f, image, target=target)

    def begin(self, f: Any, image: jax.Array, goal: Goal) -> _Carry:
        base = quick_score(f, image[None])[0]
        goal = goal.fix(base)
        like = jax.eval_shape(lambda x: self.explain(f, x, goal), image)
        self.seen.notes[:] = [like]
        zero = jnp.zeros(like.values.shape, like.values.dtype)
        return _Carry(goal, base, jnp.zeros((), zero.dtype), zero, zero)

    def items(self, carry: Any) -> np.ndarray:
        return np.arange(self.samples, dtype=np.int32)

    def step(
        self, f: Any, image: jax.Array, goal: Goal, carry: _Carry, items: Any, live: jax.Array
    ) -> _Carry:
        sigma = self.noise.astype(image.dtype)
        if self.relative:
            sigma = sigma * (image.max() - image.min())

        def one(number: jax.Array) -> jax.Array:
            drawn = jax.random.normal(
                jax.random.fold_in(self.key, number), image.shape, image.dtype
            )
            return self.explain(f, image + sigma * drawn, carry.goal).values

        values = jax.vmap(one)(items)
        live = live.astype(values.dtype).reshape(-1, *[1] * carry.mean.ndim)
        # Two groups joined (Chan et al. 1979): their sums of squares do not cancel.
        new = live.sum()
        mean = (live * values).sum(0) / new
        spread = (live * jnp.square(values - mean[None])).sum(0)
        count, step = carry.count + new, mean - carry.mean
        return carry._replace(
            count=count,
            mean=carry.mean + step * (new / count),
            spread=carry.spread + spread + jnp.square(step) * (carry.count * new / count),
        )

    def end(self, f: Any, image: jax.Array, goal: Goal, carry: _Carry) -> Found:
        variance = carry.spread / carry.count
        values = {
            "mean": carry.mean,
            "square": variance + jnp.square(carry.mean),
            "variance": variance,
        }
        return Found(values[self.reduce], carry.base)

    def named(self, result: Attribution) -> Attribution:
        """Return the result, read as those of the method are."""
        (like,) = self.seen.notes
        method = f"smooth {like.method}"
        return replace(result, method=method, reading=like.reading, every=like.every)
