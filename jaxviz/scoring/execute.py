"""Run a task block by block: every position of every image, and what becomes of an interruption.

What a block computes depends on nothing but itself, so the number of devices, and what else is
scored in the same run, never change a result. The size of its blocks may, in the last bits: XLA
chooses its algorithms by the batch. So running out of memory is for the caller to answer: by
smaller blocks (`halve`) where a result is wanted, by an error where equal runs must give equal
bits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.progress import Advance, Progress, track
from jaxviz.scoring.compiled import Compiled, choose, halve
from jaxviz.scoring.task import Task

LAUNCHED_AT_ONCE = 2  # so that a device never waits for the host


OnError = Callable[[Task, Compiled, Exception], Compiled]


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
        positions: (P, d); None: those of the task; or a function that gives them, called when all
            chunks before are stored; what it gives None for is left out.
        follows: whether it is of the image of the chunk before, which is neither prepared nor
            scored clean again: values are (1, P, ..., K).
        occluder: how its positions change its images, of the structure of the task's; None: that.
    """

    images: np.ndarray
    values: np.ndarray
    label: Any = None
    positions: np.ndarray | Callable[[], np.ndarray | None] | None = None
    follows: bool = False
    occluder: Any = None


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
        on_error: OnError,
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
        # Ctrl-C may come between any two lines: each knows its chunk, and `rest` stores it again.
        self.launched: deque[tuple[Chunk, int, int, jax.Array]] = deque()
        self.chunk = self.image = self.row = 0  # where the next block begins; `begun[self.chunk]`
        self.states: Any = None  # of the images from `self.image` on
        self.part: tuple[Chunk, Task, Any] | None = None  # a chunk as a task, and its arguments

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
        if self.chunk == len(self.begun):
            return False
        return not (callable(self.begun[self.chunk].positions) and self.launched)

    def _launch(self) -> None:
        block, chunk = self.program.block, self.begun[self.chunk]
        if callable(chunk.positions):
            wanted = chunk.positions()
            if wanted is None:
                del self.begun[self.chunk]
                return
            chunk = self.begun[self.chunk] = chunk._replace(positions=wanted)
        part, arguments = self._part(chunk)
        if self.row == 0 and not chunk.follows:
            self.states = None  # before the next are made, so that only one image's are held
        row = max(self.row, int(chunk.follows))
        if self.states is None:
            self.states = self.program.prepare(*arguments, part.images_from(self.image, block))
        scores = self.program.evaluate(*arguments, self.states, *part.positions_from(row, block))
        self.launched.append((chunk, self.image, row, scores))
        self.row = row + scores.shape[1]
        if self.row >= part.rows:
            self.image, self.row = self.image + scores.shape[0], 0
        if self.image >= len(part.images):
            self.chunk, self.image = self.chunk + 1, 0

    def _part(self, chunk: Chunk) -> tuple[Task, Any]:
        """Return a chunk as a task, and the arguments of all its blocks."""
        if self.part is None or self.part[0] is not chunk:
            positions = self.task.positions if chunk.positions is None else chunk.positions
            occluder = self.task.occluder if chunk.occluder is None else chunk.occluder
            part = replace(self.task, images=chunk.images, positions=positions, occluder=occluder)
            self.part = chunk, part, self.program.arguments(part)
        return self.part[1:]

    def _store(self) -> Stored:
        chunk, image, row, scores = self.launched[0]
        first = row - chunk.follows
        room = chunk.values[image : image + scores.shape[0], first : first + scores.shape[1]]
        room[:] = np.asarray(scores)[: room.shape[0], : room.shape[1]]
        images, rows = chunk.values.shape[:2]
        complete = image + scores.shape[0] >= images and first + scores.shape[1] >= rows
        if complete and self.begun and self.begun[0] is chunk:
            self.begun.popleft()
            self.chunk -= 1
        self.launched.popleft()
        return Stored(chunk, room.shape[0] * (room.shape[1] - (row == 0)), complete)

    def _go_back(self) -> None:
        """Begin again with the first block that has not come back."""
        if self.launched:
            self.chunk, (_, self.image, self.row, _) = 0, self.launched[0]
        self.launched.clear()
        self.states = self.part = None


def execute(
    task: Task,
    *,
    batch_size: int | str = "auto",
    progress: Progress = False,
    on_error: OnError = halve,
) -> Scores:
    """Score every position of every image.

    Args:
        task: what to score.
        batch_size: occluded images that a device evaluates at once, "auto" or "fastest", see
            `choose`.
        progress: see `track`; in positions.
        on_error: see `Blocks`.

    Returns:
        The scores; after Ctrl-C, those that were finished.

    Raises:
        ValueError: see `choose`.
        MemoryError: not even a single image fits.
    """
    task = task.replicated()
    program = choose(task, batch_size)
    shape = (len(task.images), task.rows, *program.scores.shape[2:])
    values = np.full(shape, np.nan, program.scores.dtype)
    return _run(task, program, values, [Chunk(task.images, values)], progress, on_error)


def execute_in_rounds(
    task: Task,
    counts: Sequence[int],
    then: Callable[[int, int, np.ndarray], np.ndarray | None],
    *,
    batch_size: int | str = "auto",
    progress: Progress = False,
    on_error: OnError = halve,
) -> Scores:
    """Score some positions of every image, and then others, which their scores decide.

    Args:
        task: what to score first.
        counts: how many others there are of each image, round by round.
        then: the number of an image, of the round, and what is known of the image's scores by
            then, (1 + P + ..., ..., K) as in `Scores` -> positions (count, d); asked once for each
            round of an image. None: no more rounds of this image.
        batch_size: see `execute`.
        progress: see `execute`; of all rounds together.
        on_error: see `Blocks`.

    Returns:
        The scores (N, 1 + P + sum(counts), ..., K), NaN for rounds that were left out; after
        Ctrl-C, those that were finished.

    Raises:
        ValueError, MemoryError: see `execute`.
    """
    task = task.replicated()
    # One program for all, and one image after the other: of a run of as many positions, or as the
    # longest round has where there are several, so that blocks are not mostly empty.
    total = len(task.positions) + sum(counts)
    rows = np.arange(total if len(counts) < 2 else max(1, max(counts) - 1)) % len(task.positions)
    program = choose(replace(task, positions=task.positions[rows]), batch_size)
    shape = (len(task.images), 1 + total, *program.scores.shape[2:])
    values = np.full(shape, np.nan, program.scores.dtype)
    ends = task.rows + np.cumsum([0, *counts])
    ended: set[int] = set()

    def decide(n: int, number: int) -> np.ndarray | None:
        wanted = None if n in ended else then(n, number, values[n, : ends[number]])
        if wanted is None:
            ended.add(n)
        return wanted

    def chunks() -> Iterator[Chunk]:
        for n, image in enumerate(task.images):
            yield Chunk(image[None], values[n : n + 1, : task.rows])
            for number, count in enumerate(counts):
                if count:
                    room = values[n : n + 1, ends[number] : ends[number + 1]]
                    wanted = partial(decide, n, number)
                    yield Chunk(image[None], room, positions=wanted, follows=True)

    return _run(task, program, values, chunks(), progress, on_error)


def execute_each(
    tasks: Sequence[Task], advance: Advance, *, batch_size: int | str = "auto"
) -> tuple[list[np.ndarray], bool]:
    """Score several tasks that differ in images, positions and what occluders hold: one program.

    Args:
        tasks: of one key, at least one.
        advance: is told how many positions are scored.
        batch_size: see `execute`.

    Returns:
        The scores of each task, (N, 1 + P, ..., K); and whether Ctrl-C ended it: those that are
        missing are NaN then.

    Raises:
        ValueError, MemoryError: see `execute`.
    """
    longest = max(tasks, key=lambda task: task.rows).replicated()
    occluders = [longest.everywhere(task.occluder) for task in tasks]
    program = choose(longest, batch_size)
    shape, dtype = program.scores.shape[2:], program.scores.dtype
    found = [np.full((len(task.images), task.rows, *shape), np.nan, dtype) for task in tasks]
    chunks = (
        Chunk(task.images, values, positions=task.positions, occluder=occluder)
        for task, values, occluder in zip(tasks, found, occluders, strict=True)
    )
    return found, not _store_all(Blocks(longest, program, chunks, halve), advance)


def _run(
    task: Task,
    program: Compiled,
    values: np.ndarray,
    chunks: Iterable[Chunk],
    progress: Progress,
    on_error: OnError,
) -> Scores:
    total = left = len(values) * (values.shape[1] - 1)
    with track(progress, total, "positions") as advance:

        def count(positions: int) -> None:
            nonlocal left
            left -= positions
            advance(positions)

        finished = _store_all(Blocks(task, program, chunks, on_error), count)
        if finished and left:  # what was left out
            with suppress(KeyboardInterrupt):  # all is there
                advance(left)
    return Scores(values, partial=not finished)


def _store_all(blocks: Blocks, advance: Advance) -> bool:
    """Store every block; return whether nothing interrupted that."""
    try:
        for stored in blocks:
            if stored.positions:
                advance(stored.positions)
    except KeyboardInterrupt:
        deque(blocks.rest(), maxlen=0)
        return False
    return True
