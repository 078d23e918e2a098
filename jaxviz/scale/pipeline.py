"""Keep the devices busy: images are read ahead and results written behind, by threads.

Every chunk goes through alone and always lies the same way in its blocks, so that its scores do not
depend on which other chunks are computed, before or after, here or elsewhere.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from jaxviz.scoring import execute
from jaxviz.scoring.compiled import Compiled, tells_of_memory
from jaxviz.scoring.task import Task

READ_AHEAD, WRITTEN_BEHIND = 2, 2  # chunks in memory besides the one that is computed


class Chunk(NamedTuple):
    """The images of one chunk.

    Attributes:
        number: of the chunk.
        images: (n, H, W, C); a good one stands in for each bad one, which so decides nothing.
        errors: for each image, why it is bad; "" for a good one.
    """

    number: int
    images: np.ndarray
    errors: list[str]

    @property
    def good(self) -> np.ndarray:
        """The place of each image in the chunk, of the first good one for a bad one."""
        bad = np.array([bool(error) for error in self.errors])
        return np.where(bad, np.argmin(bad), np.arange(len(bad)))


@dataclass
class Waits:
    """Seconds that computing waited for others.

    Attributes:
        reading: for images.
        writing: for results to be written.
    """

    reading: float = 0.0
    writing: float = 0.0


ReadImage = Callable[[int], np.ndarray | str]


def read_ahead(
    chunks: Iterable[tuple[int, range]],
    read: ReadImage,
    template: np.ndarray,
    *,
    workers: int,
) -> Iterator[Chunk]:
    """Yield chunks in order, while threads read the images of the next ones.

    Args:
        chunks: numbers of chunks, and the numbers of their images.
        read: the number of an image -> the image (H, W, C), or why it is bad.
        template: an image, whose shape and dtype all have.
        workers: threads.
    """
    waiting: deque[tuple[int, list[Future]]] = deque()
    with ThreadPoolExecutor(workers, "read") as pool:
        try:
            for number, images in chunks:
                waiting.append((number, [pool.submit(read, i) for i in images]))
                if len(waiting) > READ_AHEAD:
                    yield _gather(*waiting.popleft(), template)
            while waiting:
                yield _gather(*waiting.popleft(), template)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _gather(number: int, futures: list[Future], template: np.ndarray) -> Chunk:
    images = np.zeros((len(futures), *template.shape), template.dtype)
    errors = [""] * len(futures)
    for i, future in enumerate(futures):
        found = future.result()
        if isinstance(found, str):
            errors[i] = found
        else:
            images[i] = found
    chunk = Chunk(number, images, errors)
    return chunk._replace(images=images[chunk.good]) if any(errors) else chunk


def score(
    task: Task, program: Compiled, chunks: Iterator[Chunk], waits: Waits
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Yield each chunk with its scores, (n, 1 + P, K): the clean image, then its positions.

    The blocks of a chunk are launched before the last of the chunk before have come back. What was
    launched before an error, such as a bad image, or before Ctrl-C, is not lost.

    Args:
        task: what to score; its images do not count.
        program: compiled for it.
        chunks: the images.
        waits: where the time is added that was spent waiting for images.

    Raises:
        MemoryError: a block does not fit into the device's memory any more.
    """

    def rooms() -> Iterator[execute.Chunk]:
        while (chunk := next_chunk(chunks, waits)) is not None:
            shape = (len(chunk.images), task.rows, program.scores.shape[-1])
            yield execute.Chunk(chunk.images, np.empty(shape, program.scores.dtype), chunk)

    blocks = execute.Blocks(task, program, rooms(), refuse)
    try:
        yield from _finished(blocks)
    except (Exception, KeyboardInterrupt):
        yield from _finished(blocks.rest())
        raise


def _finished(blocks: Iterable[execute.Stored]) -> Iterator[tuple[Chunk, np.ndarray]]:
    for stored in blocks:
        if stored.complete:
            yield stored.chunk.label, stored.chunk.values


def refuse(task: Task, program: Compiled, error: Exception) -> Compiled:
    """Raise where memory ran out: smaller blocks would give other bits than the store records."""
    if not tells_of_memory(error):
        raise error
    raise MemoryError(
        f"`batch_size` must fit into memory: {prod(program.block)} images at once do not, now;"
        " free some memory and run this again, or make a new store with a smaller one."
    ) from error


def next_chunk(chunks: Iterator[Chunk], waits: Waits) -> Chunk | None:
    """Return the next chunk, None after the last; add the time that it took to `waits`."""
    start = perf_counter()
    chunk = next(chunks, None)
    waits.reading += perf_counter() - start
    return chunk


class WriteBehind:
    """Write results by a thread, at most two behind; an error comes up at the next call."""

    def __init__(self, write: Callable[..., None], waits: Waits):
        self.write, self.waits = write, waits
        self.pool = ThreadPoolExecutor(1, "write")
        self.pending: deque[Future] = deque()

    def __call__(self, *arguments: Any) -> None:
        """Write something soon."""
        start = perf_counter()
        while len(self.pending) >= WRITTEN_BEHIND:
            self.pending.popleft().result()
        self.waits.writing += perf_counter() - start
        self.pending.append(self.pool.submit(self.write, *arguments))

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *error: object) -> None:
        # What was computed is written even if the run ends here, by Ctrl-C or an error.
        self.pool.shutdown(wait=True)
        for future in self.pending:
            if error[0] is None:
                future.result()
