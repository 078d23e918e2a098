"""Run a task block by block: every position of every image, and what becomes of an interruption.

What a block computes depends on nothing but itself, so the number of devices, and what else is
scored in the same run, never change a result.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.progress import Advance, Progress, track
from jaxviz.scoring.compiled import Compiled, choose, halve
from jaxviz.scoring.task import Task

LAUNCHED_AT_ONCE = 2  # so that a device never waits for the host


class Scores(NamedTuple):
    """What a run gave.

    Attributes:
        values: (N, 1 + P, ..., K), float32 unless the scorer gives float64: the clean image, then
            its positions; NaN where the run was interrupted before.
        partial: whether it was interrupted.
    """

    values: np.ndarray
    partial: bool


def execute(
    task: Task,
    *,
    batch_size: int | str = "auto",
    progress: Progress = False,
    after: Sequence[Scores] = (),
) -> Scores:
    """Score every position of every image.

    Args:
        task: what to score.
        batch_size: occluded images that a device evaluates at once, or "auto", see `choose`.
        progress: see `track`.
        after: what earlier runs of this scorer gave, one of several that make one result. If the
            last of them was interrupted, or Ctrl-C comes before the first block of this one, all
            of this one is NaN, so that theirs is not lost.

    Returns:
        The scores; after Ctrl-C, those that were finished.

    Raises:
        ValueError: see `choose`.
        MemoryError: not even a single image fits.
    """
    if after and after[-1].partial:
        return _nothing(task, after[-1])
    try:
        task = task.replicated()
        program = choose(task, batch_size)
    except KeyboardInterrupt:
        if not after:
            raise
        return _nothing(task, after[-1])
    shape = (len(task.images), task.rows, *program.scores.shape[2:])
    values = np.full(shape, np.nan, program.scores.dtype)
    with track(progress, task.total_rows, "windows") as advance:
        queue = _Queue(task, program, values, advance)
        try:
            queue.drain()
        except KeyboardInterrupt:
            queue.store_launched()
            return Scores(values, partial=True)
    return Scores(values, partial=False)


def _nothing(task: Task, like: Scores) -> Scores:
    """What a run gives that was interrupted before its first block."""
    shape = (len(task.images), task.rows, *like.values.shape[2:])
    return Scores(np.full(shape, np.nan, like.values.dtype), partial=True)


class _Queue:
    """The blocks that are still to be run, and those on their way."""

    def __init__(self, task: Task, program: Compiled, values: np.ndarray, advance: Advance):
        self.task, self.program, self.values, self.advance = task, program, values, advance
        self.launched: deque[tuple[int, int, jax.Array]] = deque()
        self.image, self.row = 0, 0  # where the next block begins
        self.states: Any = None

    def drain(self) -> None:
        while self._more() or self.launched:
            try:
                while self._more() and len(self.launched) < LAUNCHED_AT_ONCE:
                    self._launch()
                self.advance(self._store())
            except jax.errors.JaxRuntimeError as error:
                self._go_back()
                self.program = halve(self.task, self.program.evaluator, self.program.block, error)

    def store_launched(self) -> None:
        while self.launched:
            self._store()

    def _more(self) -> bool:
        return self.image < len(self.task.images)

    def _launch(self) -> None:
        arguments, block = self.task.arguments, self.program.block
        if self.states is None:
            images = self.task.images_from(self.image, block)
            self.states = self.program.prepare(*arguments, images)
        rows = self.task.positions_from(self.row, block)
        scores = self.program.evaluate(*arguments, self.states, *rows)
        self.launched.append((self.image, self.row, scores))
        self.row += scores.shape[1]
        if self.row >= self.task.rows:
            self.image, self.row, self.states = self.image + scores.shape[0], 0, None

    def _store(self) -> int:
        image, row, scores = self.launched[0]
        room = self.values[image : image + scores.shape[0], row : row + scores.shape[1]]
        room[:] = np.asarray(scores)[: room.shape[0], : room.shape[1]]
        self.launched.popleft()
        return room.shape[0] * room.shape[1]

    def _go_back(self) -> None:
        if self.launched:
            self.image, self.row, _ = self.launched[0]
        self.launched.clear()
        self.states = None
