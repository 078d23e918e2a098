"""Run a task block by block: every position of every image, and what becomes of an interruption.

What a block computes depends on nothing but itself, so the number of devices, and what else is
scored in the same run, never change a result. The size of its blocks may, in the last bits: XLA
chooses its algorithms by the batch. So running out of memory is for the caller to answer: by
smaller blocks (`halve`) where a result is wanted, by an error where equal runs must give equal
bits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.progress import Progress, track
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


class Chunk(NamedTuple):
    """Images that are scored after each other, and room for their scores.

    Attributes:
        images: (n, H, W, C).
        values: (n, 1 + P, ..., K), filled block by block.
        label: whatever the caller knows it by.
    """

    images: np.ndarray
    values: np.ndarray
    label: Any = None


class Stored(NamedTuple):
    """A block whose scores have come back.

    Attributes:
        chunk: where they were stored.
        positions: how many positions they are, clean images not counted.
        complete: whether the chunk holds all its scores now.
    """

    chunk: Chunk
    positions: int
    complete: bool


class Blocks:
    """The blocks of some chunks of images: launched ahead, stored in order.

    Iterating launches and stores them. Whatever ends that, an error of `chunks` or Ctrl-C, those
    that were launched are not lost: `rest` stores them.
    """

    def __init__(
        self,
        task: Task,
        program: Compiled,
        chunks: Iterable[Chunk],
        on_error: Callable[[Task, Compiled, Exception], Compiled],
    ) -> None:
        """Score chunks.

        Args:
            task: what to score; its images do not count.
            program: compiled for it.
            chunks: the images; the next is asked for when the last block of one is launched.
            on_error: from an error of the device to the program with which to go on, or raises.
        """
        self.task, self.program, self.on_error = task, program, on_error
        self.chunks = iter(chunks)
        self.begun: deque[Chunk] = deque()  # and not complete
        self.launched: deque[tuple[int, int, jax.Array]] = deque()  # the first is of `begun[0]`
        self.chunk = self.image = self.row = 0  # where the next block begins; `begun[self.chunk]`
        self.states: Any = None  # of the images from `self.image` on

    def __iter__(self) -> Iterator[Stored]:
        """Yield each block once it is stored."""
        while True:
            try:
                while len(self.launched) < LAUNCHED_AT_ONCE and self._more():
                    self._launch()
                if not self.launched:
                    return
                stored = self._store()
            except jax.errors.JaxRuntimeError as error:
                self._go_back()
                self.program = self.on_error(self.task, self.program, error)
            else:
                yield stored

    def rest(self) -> Iterator[Stored]:
        """Yield the blocks that were launched before something ended the iteration."""
        while self.launched:
            yield self._store()

    def _more(self) -> bool:
        if self.chunk == len(self.begun):
            self.begun.extend(c for c in [next(self.chunks, None)] if c is not None)
        return self.chunk < len(self.begun)

    def _launch(self) -> None:
        arguments, block = self.program.arguments(self.task), self.program.block
        part = replace(self.task, images=self.begun[self.chunk].images)
        if self.states is None:
            self.states = self.program.prepare(*arguments, part.images_from(self.image, block))
        rows = part.positions_from(self.row, block)
        scores = self.program.evaluate(*arguments, self.states, *rows)
        self.launched.append((self.image, self.row, scores))
        self.row += scores.shape[1]
        if self.row >= part.rows:
            self.image, self.row, self.states = self.image + scores.shape[0], 0, None
        if self.image >= len(part.images):
            self.chunk, self.image = self.chunk + 1, 0

    def _store(self) -> Stored:
        chunk, (image, row, scores) = self.begun[0], self.launched[0]
        room = chunk.values[image : image + scores.shape[0], row : row + scores.shape[1]]
        room[:] = np.asarray(scores)[: room.shape[0], : room.shape[1]]
        self.launched.popleft()
        images, rows = chunk.values.shape[:2]
        complete = image + scores.shape[0] >= images and row + scores.shape[1] >= rows
        if complete:
            self.begun.popleft()
            self.chunk -= 1
        return Stored(chunk, room.shape[0] * (room.shape[1] - (row == 0)), complete)

    def _go_back(self) -> None:
        """Begin again with the first block that has not come back."""
        if self.launched:
            self.chunk, (self.image, self.row, _) = 0, self.launched[0]
        self.launched.clear()
        self.states = None


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
        progress: see `track`; in positions.
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
    with track(progress, len(task.images) * len(task.positions), "positions") as advance:
        blocks = Blocks(task, program, [Chunk(task.images, values)], halve)
        try:
            for stored in blocks:
                if stored.positions:
                    advance(stored.positions)
        except KeyboardInterrupt:
            deque(blocks.rest(), maxlen=0)
            return Scores(values, partial=True)
    return Scores(values, partial=False)


def _nothing(task: Task, like: Scores) -> Scores:
    """What a run gives that was interrupted before its first block."""
    shape = (len(task.images), task.rows, *like.values.shape[2:])
    return Scores(np.full(shape, np.nan, like.values.dtype), partial=True)
