"""Keep the devices busy: images are read ahead and results written behind, by threads.

Every chunk goes through alone and always lies the same way in its blocks, so that its scores do not
depend on which other chunks are computed, before or after, here or elsewhere.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.scoring.compiled import Compiled
from jaxviz.scoring.execute import LAUNCHED_AT_ONCE
from jaxviz.scoring.task import Task

READ_AHEAD, WRITTEN_BEHIND = 2, 2  # chunks in memory besides the one that is computed


class Chunk(NamedTuple):
    """The images of one chunk.

    Attributes:
        number: of the chunk.
        images: (n, H, W, C); a bad image is all zeros.
        errors: for each image, why it is bad; "" for a good one.
    """

    number: int
    images: np.ndarray
    errors: list[str]


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
    return Chunk(number, images, errors)


def score(
    task: Task, program: Compiled, chunks: Iterator[Chunk], waits: Waits
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Yield each chunk with its scores, (n, 1 + P, K): the clean image, then its positions.

    The blocks of a chunk are launched before the last of the chunk before have come back.

    Args:
        task: what to score; its images do not count.
        program: compiled for it.
        chunks: the images.
        waits: where the time is added that was spent waiting for images.

    Raises:
        MemoryError: a block does not fit into the device's memory any more.
    """
    launched: deque[tuple[Chunk, np.ndarray, int, int, jax.Array]] = deque()

    def collect() -> Iterator[tuple[Chunk, np.ndarray]]:
        chunk, values, image, row, scores = launched.popleft()
        room = values[image : image + scores.shape[0], row : row + scores.shape[1]]
        room[:] = np.asarray(scores)[: room.shape[0], : room.shape[1]]
        if image + scores.shape[0] >= len(values) and row + scores.shape[1] >= task.rows:
            yield chunk, values

    try:
        while (chunk := _next(chunks, waits)) is not None:
            part = replace(task, images=chunk.images)
            shape = (len(chunk.images), task.rows, program.scores.shape[-1])
            values = np.empty(shape, program.scores.dtype)
            for image, states in _prepared(part, program):
                row = 0
                while row < task.rows:
                    rows = part.positions_from(row, program.block)
                    scores = program.evaluate(*task.arguments, states, *rows)
                    launched.append((chunk, values, image, row, scores))
                    row += scores.shape[1]
                    if len(launched) >= LAUNCHED_AT_ONCE:
                        yield from collect()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(
            f"`batch_size` must fit into memory: {prod(program.block)} images at once do not, now;"
            " free some memory and run this again, or make a new store with a smaller one."
        ) from error
    except Exception:
        while launched:  # what was launched before a bad image is not lost
            yield from collect()
        raise
    while launched:
        yield from collect()


def _prepared(task: Task, program: Compiled) -> Iterator[tuple[int, Any]]:
    """Yield what is computed once for an image, with its number, for each round of images."""
    image = 0
    across = task.images_at_once(program.block)
    while image < len(task.images):
        yield image, program.prepare(*task.arguments, task.images_from(image, program.block))
        image += across


def _next(chunks: Iterator[Chunk], waits: Waits) -> Chunk | None:
    start = time.perf_counter()
    chunk = next(chunks, None)
    waits.reading += time.perf_counter() - start
    return chunk


class WriteBehind:
    """Write results by a thread, at most two behind; an error comes up at the next call."""

    def __init__(self, write: Callable[..., None], waits: Waits):
        self.write, self.waits = write, waits
        self.pool = ThreadPoolExecutor(1, "write")
        self.pending: deque[Future] = deque()

    def __call__(self, *arguments) -> None:
        """Write something soon."""
        start = time.perf_counter()
        while len(self.pending) >= WRITTEN_BEHIND:
            self.pending.popleft().result()
        self.waits.writing += time.perf_counter() - start
        self.pending.append(self.pool.submit(self.write, *arguments))

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *error: object) -> None:
        # What was computed is written even if the run ends here, by Ctrl-C or an error.
        self.pool.shutdown(wait=True)
        for future in self.pending:
            if error[0] is None:
                future.result()
