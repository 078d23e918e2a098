"""Class activation maps without gradients: what the score makes of one channel at a time.

A is a layer's output (H', W', C'). Channels are taken a few at a time, so that memory does not grow
with them.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Upsample
from jaxviz.attribution.cam_kernel import by_channel, enlarged, reading_of, rectified, wide
from jaxviz.attribution.cut import Cut, cut
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal, quick_score
from jaxviz.attribution.kernel import Found, Seen, Steps
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.layers import Layer, ScorerLike
from jaxviz.progress import Progress


def score_cam(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layer = None,
    channels: int | None = None,
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh each channel by the score of the image seen through it: Score-CAM.

    map = relu(Σ_c w_c·A_c), w = softmax over channels of s(x · M_c), M_c the channel enlarged to
    the image, bilinearly, and scaled to 0…1; 0 everywhere if it is constant.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: a layer's name or index, see `grad_cam`.
        channels: take only so many, those that vary most over sites; None: all.
        upsample: see `grad_cam`.
        reading: see `grad_cam`.
        batch_size: masked images that a device scores at once, see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: `channels` is below 1; see `grad_cam`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: jv.tag("a", x).sum((1, 2))
        >>> score_cam(f, np.arange(4.0).reshape(2, 2, 1)).values[..., 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]

    Source: H. Wang et al., "Score-CAM", CVPR Workshops 2020, arXiv:1910.01279.
    """
    if channels is not None:
        channels = whole_number(channels, "channels", choices="None")
    kernel = _ScoreCam(layer, channels)
    return attribute(
        "Score-CAM",
        Steps(kernel),
        f,
        images,
        target,
        Run(batch_size, memory, mesh, progress, dtype),
        reading=reading_of(reading, upsample),
        config={"layer": kernel.seen, "channels": channels},
        seen=kernel.seen,
    )


def ablation_cam(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layer = None,
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh each channel by what the score loses without it: Ablation-CAM.

    map = relu(Σ_c w_c·A_c), w_c = (s − s with A_c = 0) / |s|, 0 where s = 0. Only what lies behind
    the layer runs once a channel. Libraries divide by s itself: their map turns over where s < 0.

    Args:
        f: scorer, see `saliency`; it need not be differentiable.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: a layer's name or index, see `grad_cam`.
        upsample: see `grad_cam`.
        reading: see `grad_cam`.
        batch_size: ablated outputs that a device scores at once, see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: see `grad_cam`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: jv.tag("a", x).sum((1, 2))
        >>> ablation_cam(f, np.arange(4.0).reshape(2, 2, 1)).values[..., 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]

    Source: S. Desai and H. Ramaswamy, "Ablation-CAM", WACV 2020,
    doi:10.1109/WACV45572.2020.9093360.
    """
    kernel = _AblationCam(layer)
    return attribute(
        "Ablation-CAM",
        Steps(kernel),
        f,
        images,
        target,
        Run(batch_size, memory, mesh, progress, dtype),
        reading=reading_of(reading, upsample),
        config={"layer": kernel.seen},
        seen=kernel.seen,
    )


static: Any = {"static": True}


class _Carry(NamedTuple):
    """Goal, clean scores, A (H', W', C'), what the way behind it reads, the channels that are
    taken, and the score of each of them."""

    goal: Goal
    base: jax.Array
    output: jax.Array
    known: list[jax.Array]
    channels: jax.Array
    scores: jax.Array


def _begin(part: Cut, base: jax.Array, goal: Goal, channels: jax.Array) -> _Carry:
    goal = goal.fix(base)
    (like,) = wide(goal(base[None])[0])
    scores = jnp.zeros(channels.shape, like.dtype)
    return _Carry(goal, base, part.output, part.known, channels, scores)


def _channel(output: jax.Array, number: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(output, number, axis=2, keepdims=False)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _ScoreCam:
    layer: Layer = field(metadata=static)
    channels: int | None = field(metadata=static)
    seen: Seen = field(default_factory=Seen, metadata=static)

    def begin(self, f: Any, image: jax.Array, goal: Goal) -> _Carry:
        (part,), base = cut(f, image, (self.layer,), {})
        self.seen.notes[:] = [part.name]
        (output,) = wide(part.output)
        count = output.shape[2] if self.channels is None else min(self.channels, output.shape[2])
        order = jnp.argsort(-jnp.std(output, (0, 1)))[:count].astype(jnp.int32)
        return _begin(replace(part, known=[]), base, goal, order)

    def items(self, carry: Any) -> np.ndarray:
        return np.arange(carry.scores.shape[0], dtype=np.int32)

    def step(
        self, f: Any, image: jax.Array, goal: Goal, carry: _Carry, items: Any, live: jax.Array
    ) -> _Carry:
        def one(number: jax.Array) -> jax.Array:
            (plane,) = wide(_channel(carry.output, carry.channels[number]))
            mask = enlarged(plane, image.shape[:2], "bilinear")
            low, high = mask.min(), mask.max()
            flat = low == high
            scaled = (mask - low) / jnp.where(flat, jnp.ones_like(high), high - low)
            masked = image * scaled[..., None].astype(image.dtype)
            return carry.goal(quick_score(f, masked[None]))[0]

        scores = carry.scores.at[items].set(jax.vmap(one)(items))
        return carry._replace(scores=scores)

    def end(self, f: Any, image: jax.Array, goal: Goal, carry: _Carry) -> Found:
        (a,) = wide(carry.output)
        weights = jax.nn.softmax(carry.scores).astype(a.dtype)
        return Found(rectified(by_channel(weights, a[..., carry.channels]))[..., None], carry.base)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _AblationCam:
    layer: Layer = field(metadata=static)
    seen: Seen = field(default_factory=Seen, metadata=static)

    def begin(self, f: Any, image: jax.Array, goal: Goal) -> _Carry:
        (part,), base = cut(f, image, (self.layer,), {})
        self.seen.notes[:] = [part.name]
        return _begin(part, base, goal, jnp.arange(part.output.shape[2], dtype=jnp.int32))

    def items(self, carry: Any) -> np.ndarray:
        return np.arange(carry.scores.shape[0], dtype=np.int32)

    def step(
        self, f: Any, image: jax.Array, goal: Goal, carry: _Carry, items: Any, live: jax.Array
    ) -> _Carry:
        # Traced again for its equations; what lies before the layer is not used, and so not run.
        (part,), _ = cut(f, image, (self.layer,), {})

        def one(number: jax.Array) -> jax.Array:
            without = carry.output.at[..., number].set(0)
            return carry.goal(part.rest(carry.known, without)[None])[0]

        scores = carry.scores.at[items].set(jax.vmap(one)(items))
        return carry._replace(scores=scores)

    def end(self, f: Any, image: jax.Array, goal: Goal, carry: _Carry) -> Found:
        (a,), whole = wide(carry.output), carry.goal(carry.base[None])[0]
        size = jnp.abs(whole)
        lost = (whole - carry.scores) / jnp.where(size == 0, jnp.ones_like(size), size)
        weights = jnp.where(size == 0, jnp.zeros_like(lost), lost).astype(a.dtype)
        return Found(rectified(by_channel(weights, a))[..., None], carry.base)
