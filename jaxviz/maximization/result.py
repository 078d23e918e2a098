"""Hold what a maximisation gives, and what it raises."""

from typing import NamedTuple

import jax
import numpy as np


class Maximized(NamedTuple):
    """Hold what `maximize` found; N = objectives × seeds, the seeds of an objective side by side.

    Args:
        images: (N, H, W, C), the last images, or the best ones where the run was cut short by a
            NaN.
        history: {term: (steps, N)}: "objective", each penalty with its weight, and "total", their
            difference, all before each step.
        best: (N, H, W, C), for each image the one with the highest total on the way.
        snapshots: {step: (N, H, W, C)}, the images after so many steps.
        transparency: (N, H, W) in [0, 1], where the objective looked: the mean |gradient|, by its
            maximum.
        stopped: why it ended early, or None.
    """

    images: jax.Array
    history: dict[str, np.ndarray]
    best: jax.Array
    snapshots: dict[int, jax.Array]
    transparency: jax.Array
    stopped: str | None


class NotFiniteError(ArithmeticError):
    """Say that a term became NaN or infinite; `result`, a `Maximized`, holds the best before."""

    def __init__(self, message: str, result: Maximized):
        super().__init__(message)
        self.result = result
