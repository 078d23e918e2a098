"""The methods by sampling as pure kernels: one image, in JAX alone, for `jit`, `vmap` and `grad`.

What is drawn follows from the key before anything is traced; masked images are scored a few at a
time, and again when a gradient is taken, so that memory does not grow with their number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.attribution.driver import make_result, traced_target
from jaxviz.attribution.goal import ALL, Goal, make_goal, quick_score, score
from jaxviz.attribution.kernel import Found, in_float32
from jaxviz.attribution.result import Attribution
from jaxviz.perturbation.masks import MaskOccluder
from jaxviz.scoring.arguments import check_rank

AT_ONCE = 25  # masked images


class Shares(NamedTuple):
    """What a kernel finds of one image; T is 1, or K for every class.

    Attributes:
        maps: (H, W, T).
        gap: (T,), what Σ shares misses of what it should be; None: nothing is promised.
        error: (T,), as the method defines it; None: it has none.
    """

    maps: jax.Array
    gap: jax.Array | None = None
    error: jax.Array | None = None


@dataclass(frozen=True)
class Masked:
    """One image, to be scored under masks.

    Attributes:
        f: the scorer.
        image: (H, W, C).
        occluder: makes its masked versions.
        goal: what is explained; None: every class.
        base: (..., K), its clean scores.
        at_once: how many are scored at once.
    """

    f: Any
    image: jax.Array
    occluder: MaskOccluder
    goal: Goal | None
    base: jax.Array
    at_once: int = AT_ONCE

    @property
    def whole(self) -> jax.Array:
        """What is explained of the clean scores, (T,)."""
        return self.explained(self.base[None])[0]

    def explained(self, scores: jax.Array) -> jax.Array:
        """The explained number of scores (P, ..., K), or every class: (P, T)."""
        if self.goal is not None:
            return self.goal.fix(jax.lax.stop_gradient(self.base))(scores)[:, None]
        wide = scores.dtype if scores.dtype == jnp.float64 else jnp.float32
        return scores.astype(wide)

    def scores(self, positions: Any) -> jax.Array:
        """What is explained of the masked images at positions (P, d): (P, T)."""
        canvas = self.occluder.prepare(self.image)

        def one(position: jax.Array) -> jax.Array:
            hidden = self.occluder.hide(canvas, position)
            return self.explained(quick_score(self.f, hidden[None]))[0]

        at_once = min(self.at_once, len(positions))
        return jax.lax.map(jax.checkpoint(one), jnp.asarray(positions), batch_size=at_once)


@dataclass(frozen=True)
class Traced:
    """Images that are traced, or explained for a scorer, target or key that is.

    Attributes:
        f: the scorer.
        target: what is explained, "all" for every class.
        images: (N, H, W, C).
        single: whether there was one image.
        occluder: masks them.
        positions: int32 (P, d), of the masks.
        at_once: masked images that are scored at once.
    """

    f: Any
    target: Any
    images: jax.Array
    single: bool
    occluder: MaskOccluder
    positions: np.ndarray
    at_once: int

    def result(
        self, method: str, kernel: Callable[[Masked], Shares], config: Mapping[str, Any]
    ) -> Attribution:
        """Return what a kernel makes of each image, one after the other."""
        shape = jax.eval_shape(lambda x: score(self.f, x), self.images[:1]).shape[1:]
        every = isinstance(self.target, str) and self.target == ALL
        if every and len(shape) != 1:
            raise ValueError(f'`target` "all" needs scores (K,) per image: got {shape}.')
        goal = None if every else make_goal(self.target, self.f, len(self.images), shape)

        def one(image: jax.Array, goal: Goal | None) -> tuple[Found, jax.Array | None]:
            base = quick_score(self.f, image[None])[0]
            masked = Masked(self.f, image, self.occluder, goal, base, self.at_once)
            maps, gap, error = kernel(masked)
            # An error is a report: its root has no slope where nothing varies.
            return Found(maps, base, gap), None if error is None else jax.lax.stop_gradient(error)

        found, error = jax.lax.map(lambda pair: one(*pair), (self.images, goal))
        maps, base, gap = in_float32(found)
        if every:
            maps = maps[..., None, :]
        else:
            gap, error = (x if x is None else x[..., 0] for x in (gap, error))
        return make_result(
            method,
            Found(maps, base, gap),
            self.images.shape[1:3],
            None if goal is None else traced_target(goal, base),
            single=self.single,
            error=error,  # pyright: ignore[reportArgumentType]
            every=every,
            config=config,
        )


def as_batch(images: Any) -> tuple[jax.Array, bool]:
    """Return images, traced or not, as floats (N, H, W, C), and whether there was one."""
    images = jnp.asarray(images)
    check_rank(images, "images", 3, 4)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(jnp.float32)
    return (images[None], True) if images.ndim == 3 else (images, False)
