"""Which method is faster for a call, by a model: of shapes and counts alone, so that equal calls
choose alike, whatever happens to be compiled and however busy the machine is.

    dense        compile the network; then, for each image, 1 + positions passes
    incremental  compile it and an update; then, for each image, a pass and `positions` updates

Compiling goes by the number of equations. The constants are rounded from a fit to 30 of the 33
cases of `benchmarks/auto_chooses_the_faster_method.py`, on two cores of a server, JAX 0.12.
"""

from typing import NamedTuple, Protocol

import numpy as np

from jaxviz.perturbation.grid import Grid
from jaxviz.scoring.evaluators import Costs, Evaluator, Incremental, make_evaluator
from jaxviz.scoring.size_classes import Seconds

LEAST_SPEED_UP = 1.3  # below it, by the model, narrower windows are not looked for
OPERATIONS_PER_SECOND = 2e14  # of an accelerator
COMPILING = 0.6  # seconds of a program, whatever it holds, and of checking the scorer
COMPILING_AN_EQUATION = 0.0085
COMPILING_AN_UPDATE = 0.8
COMPILING_A_STEP = 0.015  # of an update
# How many times longer than its operations take: what is read and pasted besides, and the calls.
SLOWER_DENSE, SLOWER_WINDOW = 1.2, 3.0


class Costed(Protocol):
    """What choosing needs of a task."""

    @property
    def rows(self) -> int:
        """Rows of one image: the clean one and its positions."""
        ...

    @property
    def images(self) -> np.ndarray:
        """The images (N, H, W, C)."""
        ...

    def costs(self, evaluator: Incremental) -> Costs:
        """Return what one position takes."""
        ...


class Expected(NamedTuple):
    """Seconds of a whole call, compiling included, by the model."""

    dense: float
    incremental: float


def expected_seconds(grid: Grid, task: Costed, platform: str) -> Expected:
    """Return what both methods would take, from cold caches."""
    cost = task.costs(Incremental.on_grid(grid))
    dense, window, program = seconds_of(cost, platform)
    images = len(task.images)
    return Expected(
        _compiling(cost) + images * task.rows * dense,
        program + images * (dense + (task.rows - 1) * window),
    )


def seconds_of(cost: Costs, platform: str) -> Seconds:
    """Return what a position takes, and compiling what runs on windows."""
    dense, window = cost.seconds_dense * SLOWER_DENSE, cost.seconds_window * SLOWER_WINDOW
    if platform != "cpu":
        dense, window = cost.dense / OPERATIONS_PER_SECOND, cost.window / OPERATIONS_PER_SECOND
    update = COMPILING_AN_UPDATE + COMPILING_A_STEP * cost.steps
    return Seconds(dense, window, _compiling(cost) + update)


def _compiling(cost: Costs) -> float:
    return COMPILING + COMPILING_AN_EQUATION * cost.equations


def choose_evaluators(
    method: str, grid: Grid, task: Costed, platform: str, *, measure: bool = False
) -> tuple[Evaluator, ...]:
    """Return the evaluator that a method allows, the faster one by the model if it allows both.

    Args:
        method: "dense", "incremental" or "auto".
        grid: where the patches lie.
        task: how many images and rows there are, and what one of them takes.
        platform: of the device.
        measure: return both where the method allows both, the one that the model expects first.

    Raises:
        ValueError: `method` is none of the three.
    """
    if method != "auto":
        return (make_evaluator(method, grid),)
    expected = expected_seconds(grid, task, platform)
    both = ("dense", "incremental")
    ordered = both if expected.dense <= expected.incremental else both[::-1]
    return tuple(make_evaluator(each, grid) for each in ordered[: 1 + measure])
