"""Hold what a maximisation gives, and what it raises."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Maximized(NamedTuple):
    """Hold what `maximize` found; N = objectives × seeds, the seeds of an objective side by side.

    Args:
        images: (N, H, W, C), the last images, or the best ones where the run was cut short by a
            NaN; NaN for those that a callback kept from being begun.
        history: {term: (steps, N)}: "objective", each penalty with its weight, and "total", their
            difference, all before each step; NaN for steps that an image did not take.
        best: (N, H, W, C), for each image the one with the highest total on the way.
        snapshots: {step: (N, H, W, C)}, the images after so many steps; NaN for those of a batch
            that ended before.
        transparency: (N, H, W) in [0, 1], where the objective looked: Σ over steps of
            |∂objective/∂image|, the mean over channels, by its maximum. Penalties and
            `grad_modifier` have no part in it: it is 0 where nothing is read.
        stopped: why it ended early, or None.
    """

    images: jax.Array
    history: dict[str, np.ndarray]
    best: jax.Array
    snapshots: dict[int, jax.Array]
    transparency: jax.Array
    stopped: str | None

    def __repr__(self) -> str:
        """Say how many images there are, and after how many steps."""
        count, size = len(self.images), "×".join(map(str, self.images.shape[1:3]))
        steps = max((len(values) for values in self.history.values()), default=0)
        ended = "" if self.stopped is None else f", stopped: {self.stopped}"
        return f"Maximized({count} image{'s' * (count != 1)} {size}, {steps} steps{ended})"


class NotFiniteError(ArithmeticError):
    """Say that a term became NaN or infinite; `result`, a `Maximized`, holds the best before."""

    def __init__(self, message: str, result: Maximized):
        super().__init__(message)
        self.result = result


def not_begun(like: Maximized, count: int) -> Maximized:
    """Return the result of images that a callback kept from being begun: all NaN, no steps."""

    def nothing(array: jax.Array) -> jax.Array:
        return jnp.full((count, *array.shape[1:]), jnp.nan, array.dtype)

    return Maximized(
        images=nothing(like.images),
        history={name: np.empty((0, count), term.dtype) for name, term in like.history.items()},
        best=nothing(like.best),
        snapshots={},
        transparency=nothing(like.transparency),
        stopped=None,
    )


def joined(results: Sequence[Maximized]) -> Maximized:
    """Return the results of several batches as one; what was not reached is NaN."""
    if len(results) == 1:
        return results[0]
    steps = max(len(result.history["total"]) for result in results)

    def longer(term: np.ndarray) -> np.ndarray:
        return np.pad(term, ((0, steps - len(term)), (0, 0)), constant_values=np.nan)

    def snapshot(result: Maximized, step: int) -> jax.Array:
        missing = jnp.full_like(result.images, jnp.nan)
        return result.snapshots.get(step, missing)

    names = results[0].history
    reached = set().union(*(result.snapshots for result in results))
    return Maximized(
        images=jnp.concatenate([result.images for result in results]),
        history={n: np.concatenate([longer(r.history[n]) for r in results], 1) for n in names},
        best=jnp.concatenate([result.best for result in results]),
        snapshots={
            step: jnp.concatenate([snapshot(result, step) for result in results])
            for step in sorted(reached)
        },
        transparency=jnp.concatenate([result.transparency for result in results]),
        stopped=next((result.stopped for result in reversed(results) if result.stopped), None),
    )
