"""Fill a store with what is worked out of many images: resumed, shared out, and told how far it is.

What is worked out, `Work`, says what makes it the same again, which arrays it keeps, and what they
hold of a chunk of images. All else is the same whatever that is: a chunk counts once all of it is
durable, and a store of another work is refused with what differs.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from os import cpu_count, getpid
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, get_args
from warnings import warn

import jax
import numpy as np
import tensorstore as ts

from jaxviz._choices import OnError
from jaxviz.progress import Progress
from jaxviz.scale.arguments import check_workers
from jaxviz.scale.hosts import Share, check_share, first_process_first
from jaxviz.scale.identity import Identity, differences
from jaxviz.scale.lock import alone, hold
from jaxviz.scale.pipeline import Chunk, Waits, WriteBehind, read_ahead
from jaxviz.scale.report import Report, reporting
from jaxviz.scale.sources import Images
from jaxviz.scale.store import BAD, ArraySpec, Store, connect, create, find

Rows = dict[str, np.ndarray]
FATE = ("status", "error")  # arrays that tell how an image fared


class Work(Protocol):
    """What is done with every image."""

    @property
    def images(self) -> Images:
        """The images."""
        ...

    @property
    def template(self) -> np.ndarray:
        """An image of the shape and the dtype in which they are worked on."""
        ...

    @property
    def unit(self) -> str:
        """What is counted, in the plural."""
        ...

    @property
    def each(self) -> int:
        """How many of these one image has."""
        ...

    def settle(self, recorded: Identity | None) -> Any:
        """Return how it is done: as a store records, or as a new store shall."""
        ...

    def identity(self, settled: Any) -> Identity:
        """Return what makes it the same work again, its "program" with images per "chunk"."""
        ...

    def arrays(self, settled: Any) -> tuple[dict[str, ArraySpec], Rows]:
        """Return the arrays of a store, and the values of those that are known beforehand."""
        ...

    def facts(self, settled: Any) -> dict[str, Any]:
        """Return what the log tells at the start."""
        ...

    def compute(
        self, settled: Any, chunks: Iterator[Chunk], waits: Waits
    ) -> Iterator[tuple[Chunk, Rows]]:
        """Yield each chunk with its part of every array but "status" and "error"."""
        ...


class How(NamedTuple):
    """How it is carried out; see `occlude_dataset`."""

    share: Share
    on_error: OnError
    resume: bool
    progress: Progress
    log: Path | None
    workers: int


def checked_how(
    source: Any,
    *,
    share: Share | None,
    on_error: OnError | None,
    resume: bool,
    progress: Progress,
    log: str | Path | None,
    workers: int | None,
) -> How:
    """Return how a run is carried out, with what None stands for.

    Raises:
        ValueError: an option breaks its rule.
    """
    if on_error is None:
        folder = isinstance(source, str | Path) and Path(source).is_dir()
        on_error = "skip" if folder else "raise"
    if on_error not in get_args(OnError):
        raise ValueError(f'`on_error` must be "raise" or "skip": got {on_error!r}.')
    share, workers = check_share(share), check_workers(workers) or min(cpu_count() or 1, 8)
    return How(share, on_error, resume, progress, _log_file(log, share), workers)


def fill_store(work: Work, store: str | Path | dict[str, Any], how: How) -> Store:
    """Do what is left of some work, and keep it.

    Raises:
        ValueError: the store is of another work or in use, or an image is bad.
        OSError: the store cannot be read or written.
    """
    kvstore = connect(store)
    with hold(kvstore, how.share):
        opened, settled, mine = _open(work, kvstore, how)
        _compute(work, opened, settled, mine, how)
    return opened


def _open(work: Work, kvstore: ts.KvStore, how: How) -> tuple[Store, Any, list[int]]:
    """Open the store, or make it; return it, the program and the chunks of this process."""
    index, count = how.share
    together = jax.process_count() == count

    def look() -> list[int]:
        store, _ = _find_or_create(work, kvstore, how.resume)
        chunks = range(ceil(store.count / store.chunk))
        # Shares that know nothing of each other divide all chunks, whichever are finished; and what
        # another may be writing is left alone.
        mine = chunks if together else chunks[index::count]
        repaired = _repaired(store, work.images, mine, how.workers)
        for chunk in repaired:
            store.reset(chunk)
        return sorted({*store.unfinished(), *repaired}.intersection(mine))

    unfinished = first_process_first(look)
    store, settled = _find_or_create(work, kvstore, resume=True)
    return store, settled, unfinished[index::count] if together else unfinished


def _find_or_create(work: Work, kvstore: ts.KvStore, resume: bool) -> tuple[Store, Any]:
    store = find(kvstore)
    if store is None:
        settled = work.settle(None)
        new = work.identity(settled), *work.arrays(settled)
        with alone(kvstore):
            store = find(kvstore)  # which another may have made since: compiling takes its time
            if store is None:
                return create(kvstore, *new), settled
    if not resume:
        raise ValueError(
            f"`store` must not exist for `resume=False`: there is one at {kvstore.url}; go on with"
            " it, remove it, or name another."
        )
    settled = work.settle(store.identity)
    there = {key: value for key, value in store.identity.items() if key != "arrays"}
    differ = differences(there, work.identity(settled))
    if differ:
        raise ValueError(
            f"`store` must be of the same run: in {kvstore.url}, {'; '.join(differ)}. Use the same"
            " arguments and versions, or another store."
        )
    return store, settled


def _repaired(store: Store, images: Images, chunks: range, workers: int) -> list[int]:
    """Those of some chunks with images that were bad and can be read now."""
    bad = np.flatnonzero(store.status() == BAD)
    bad = bad[np.isin(bad // store.chunk, chunks)]

    def is_good(image: int) -> bool:  # so that no image is held
        return not isinstance(images.read(image), str)

    with ThreadPoolExecutor(workers) as pool:
        good = list(pool.map(is_good, bad.tolist()))
    return sorted({int(i) // store.chunk for i in bad[np.array(good, bool)]})


def _compute(work: Work, store: Store, settled: Any, mine: Sequence[int], how: How) -> None:
    """Work some chunks out, and write them."""
    waits = Waits()
    wanted = [(chunk, store.images_of(chunk)) for chunk in mine]
    total = sum(len(images) for _, images in wanted)
    start = {
        "store": store.url,
        "images": total,
        "of": len(work.images),
        "chunks": len(mine),
        work.unit: work.each,
        **work.facts(settled),
        "process": getpid(),
    }
    done, errors, began = 0, 0, perf_counter()
    steps = total * work.each
    with (
        reporting(how.progress, how.log, start, steps, work.unit) as tell,
        WriteBehind(store.write, waits) as write,
    ):

        def keep(chunk: Chunk, rows: Rows) -> None:
            nonlocal done, errors
            write(chunk.number, rows, chunk.errors)
            done, errors = done + len(chunk.errors), errors + sum(map(bool, chunk.errors))
            seconds = perf_counter() - began
            tell(Report(done, total, done * work.each, errors, seconds, replace(waits)))

        def worth_it(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
            for chunk in chunks:
                if all(chunk.errors):  # nothing is computed
                    keep(chunk, _no_rows(work, settled, len(chunk.errors)))
                else:
                    yield chunk

        ahead = read_ahead(wanted, work.images.read, work.template, workers=how.workers)
        chunks = worth_it(_watched(ahead, work.images, store, how.on_error))
        for chunk, rows in work.compute(settled, chunks, waits):
            keep(chunk, rows)
    if errors:
        warn(
            f"{errors} of {total} images are bad: the `errors` of the store tell which, and why.",
            stacklevel=4,
        )


def _no_rows(work: Work, settled: Any, count: int) -> Rows:
    """What is written of images that are all bad, and then counts as empty."""
    specs, known = work.arrays(settled)
    computed = {name: spec for name, spec in specs.items() if name not in {*known, *FATE}}
    return {name: np.zeros((count, *spec.shape[1:])) for name, spec in computed.items()}


def _watched(
    chunks: Iterator[Chunk], images: Images, store: Store, on_error: str
) -> Iterator[Chunk]:
    """Stop at a bad image, unless bad images are to be skipped."""
    for chunk in chunks:
        for image, error in zip(store.images_of(chunk.number), chunk.errors, strict=True):
            if error and on_error == "raise":
                raise ValueError(
                    f"`source`: {images.name(image)} is bad: {error.rstrip('.')}. Repair it, or"
                    ' go on without such images by on_error="skip".'
                )
        yield chunk


def _log_file(log: str | Path | None, share: Share) -> Path | None:
    """Each process has a log of its own: log.jsonl of process 1 is log.1.jsonl."""
    if log is None:
        return None
    path, (index, count) = Path(log), share
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"`log` must name a file in a folder that exists: got {log}.")
    return path if count == 1 else path.with_name(f"{path.stem}.{index}{path.suffix}")
