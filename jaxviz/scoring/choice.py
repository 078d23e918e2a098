"""Which method is faster for a call, by a model: of shapes and counts alone, so that equal calls
choose alike, whatever happens to be compiled and however busy the machine is.

    dense        compile the network; then, for each image, 1 + positions passes
    incremental  compile it and an update; then, for each image, a pass and `positions` updates

The constants are estimates for two cores of a server of today, which
`benchmarks/auto_chooses_the_faster_method.py` checks. Compiling goes by the number of equations.
"""

from typing import NamedTuple, Protocol

import numpy as np

from jaxviz.perturbation.grid import Grid
from jaxviz.scoring.evaluators import Costs, Evaluator, Incremental, make_evaluator
from jaxviz.scoring.size_classes import Seconds

LEAST_SPEED_UP = 1.3  # below it, by the model, narrower windows are not looked for
OPERATIONS_PER_SECOND = 2e14  # of an accelerator
COMPILING = 0.3  # seconds of a program, whatever it holds
COMPILING_AN_EQUATION = 0.02
COMPILING_A_STEP = 0.04  # of an update, which reads and pastes as well


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
    dense, window, update = seconds_of(cost, platform)
    images = len(task.images)
    network = COMPILING + COMPILING_AN_EQUATION * cost.equations
    return Expected(
        network + images * task.rows * dense,
        network + update + images * (dense + (task.rows - 1) * window),
    )


def seconds_of(cost: Costs, platform: str) -> Seconds:
    """Return what a position takes, and compiling what updates it."""
    dense, window = cost.seconds_dense, cost.seconds_window
    if platform != "cpu":
        dense, window = cost.dense / OPERATIONS_PER_SECOND, cost.window / OPERATIONS_PER_SECOND
    return Seconds(dense, window, COMPILING + COMPILING_A_STEP * cost.steps)


def choose_evaluators(
    method: str, grid: Grid, task: Costed, platform: str
) -> tuple[Evaluator, ...]:
    """Return the evaluator that a method allows, the faster one by the model if it allows both.

    Args:
        method: "dense", "incremental" or "auto".
        grid: where the patches lie.
        task: how many images and rows there are, and what one of them takes.
        platform: of the device.

    Raises:
        ValueError: `method` is none of the three.
    """
    if method != "auto":
        return (make_evaluator(method, grid),)
    expected = expected_seconds(grid, task, platform)
    return (
        make_evaluator("dense" if expected.dense <= expected.incremental else "incremental", grid),
    )
