"""Occlusion of many images, into a store: never twice, and nothing lost, whatever interrupts it."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, get_args

import jax
import numpy as np
import tensorstore as ts
from jax.sharding import Mesh

from jaxviz._arguments import Pair
from jaxviz._choices import Border, Method, OnError, Stored
from jaxviz._choices import Preprocess as PreprocessName
from jaxviz.images.preprocessing import named_preprocessing
from jaxviz.occlusion.reading import Reading
from jaxviz.perturbation.fills import FillLike
from jaxviz.perturbation.patches import Patches
from jaxviz.progress import Progress
from jaxviz.scale.arguments import check_workers
from jaxviz.scale.hosts import Share, check_share, first_process_first
from jaxviz.scale.identity import differences
from jaxviz.scale.lock import alone, hold
from jaxviz.scale.pipeline import Chunk, Waits, WriteBehind, read_ahead, score
from jaxviz.scale.reader import StoredOcclusion
from jaxviz.scale.report import Report, reporting
from jaxviz.scale.run import Kept, Run, Settled, make_run
from jaxviz.scale.sources import Images, Preprocess, SourceLike, check_source, open_source
from jaxviz.scale.store import BAD, Results, Store, connect, create, find
from jaxviz.scoring.scorer import Scorer, image_shape_of


def occlude_dataset(
    f: Scorer,
    source: SourceLike,
    store: str | Path | dict[str, Any],
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    fill: FillLike = 0.0,
    border: Border = "clip",
    channels: Sequence[int] | None = None,
    complement: bool = False,
    classes: Sequence[int] | None = None,
    top: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    preprocess: PreprocessName | Preprocess | None = None,
    method: Method = "auto",
    batch_size: int | Literal["auto", "fastest"] = "auto",
    chunk: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    dtype: Any = None,
    stored: Stored = "float32",
    mesh: Mesh | None = None,
    share: Share | None = None,
    on_error: OnError | None = None,
    resume: bool = True,
    progress: Progress = True,
    log: str | Path | None = None,
    workers: int | None = None,
    reading: Reading | None = None,
    class_names: Sequence[str] | None = None,
) -> StoredOcclusion:
    """Occlude many images, and keep the scores in a Zarr store; go on where an earlier run ended.

    scores[n, i, j] = f(image n with the patch at (i·stride − margin, j·stride − margin)).

    The work is cut into chunks of images. A chunk counts once all its data are durable, so that a
    run may be killed at any moment: the next one with the same arguments finishes the store, to the
    same bits, and computes at most the chunks again that were under way. The bits depend neither on
    the number of devices nor on that of processes.

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K), see `jaxviz.occlude`.
        source: images, see `jaxviz.scale.sources.open_source`; asked for from several threads.
        store: a folder, or a URL such as gs://bucket/out.zarr or s3://bucket/out.zarr.
        patch: see `jaxviz.occlude`.
        stride: see `jaxviz.occlude`.
        margin: see `jaxviz.occlude`.
        fill: see `jaxviz.occlude`.
        border: see `jaxviz.occlude`.
        channels: see `jaxviz.occlude`.
        complement: see `jaxviz.occlude`.
        classes: keep the scores of these classes only; None: all.
        top: keep, for each image, the classes with the `top` largest clean scores.
        image_shape: (height, width, channel) that image files are read in; None: `f.input_shape`.
        preprocess: from images as they are read to the model's units: a name that
            `jaxviz.images.preprocess` takes, such as "model" or "caffe", or a
            `jaxviz.images.Preprocessing`, for image files, bytes and floats in [0, 1]; or a
            function (1, H, W, C) -> (1, H, W, C). The store records which, and keeps to it.
        method: "dense", "incremental" or "auto": what needs less work, without trial.
        batch_size: images that a device evaluates at once. "auto": 16 on a CPU, 256 elsewhere,
            fewer if memory is short; the same for every run of the same kind. "fastest": the method
            and size that turn out fastest on the first image. A store keeps the choice of its first
            run.
        chunk: images of a chunk; "auto": at most 64, of bounded work and size.
        memory: bytes that a block may take on a device; None: a quarter of what is free.
        dtype: of the forward pass, such as "bfloat16"; None: that of the images.
        stored: dtype of the scores in the store.
        mesh: see `jaxviz.occlude`; None: all accelerators of this process, over images.
        share: (i, n): do the i-th of n shares of the chunks, for processes that know nothing of
            each other, such as a job array; None: what `jax.distributed` tells.
        on_error: "raise" stops at an image that cannot be read, has another shape or is not finite;
            "skip" records it in the store's table of errors and goes on. A later run looks at bad
            images again, and computes those that have been repaired. None: "skip" for a folder of
            image files, "raise" for everything else.
        resume: whether to go on with a store that is there.
        progress: True for a bar, False for silence, or a function (positions done, positions in
            all) of this process; `log` tells more.
        log: a file to which one line of JSON per chunk is appended: images, positions, errors,
            seconds, rates, what is left, and how long computing waited for images and for writing;
            log.jsonl is log.1.jsonl for process 1 of several.
        workers: threads that read images; None: as many as there are CPUs, at most 8.
        reading: see `jaxviz.occlude`; a store keeps that of its first run.
        class_names: see `jaxviz.occlude`; a store keeps those of its first run.

    Returns:
        The store, for reading. It is finished, unless others have a share in it.

    Raises:
        ValueError: an argument breaks its rule; the store is another run's (what differs is told)
            or in use; or an image is bad.
        OSError: the store cannot be read or written: the disk is full, or it is read-only.

    Example:
        >>> import tempfile
        >>> images = np.random.default_rng(0).random((20, 28, 28, 1), np.float32)
        >>> out = tempfile.mkdtemp() + "/out.zarr"
        >>> stored = occlude_dataset(lambda x: x.mean((1, 2)), images, out, patch=4, progress=False)
        >>> stored[3].heatmap().shape
        (28, 28)
    """
    if on_error is None:
        folder = isinstance(source, str | Path) and Path(source).is_dir()
        on_error = "skip" if folder else "raise"
    if on_error not in get_args(OnError):
        raise ValueError(f'`on_error` must be "raise" or "skip": got {on_error!r}.')
    share, workers = check_share(share), check_workers(workers) or min(os.cpu_count() or 1, 8)
    log = _log_file(log, share)
    shape = image_shape or _input_shape(f)
    if preprocess is not None and not callable(preprocess):
        preprocess = named_preprocessing(preprocess, f, argument="preprocess")
    images = check_source(open_source(source, image_shape=shape, preprocess=preprocess), f)
    patches = Patches(patch, stride, margin, border, fill, channels, complement)
    run = make_run(
        f,
        images,
        patches,
        kept=Kept(None if classes is None else tuple(int(c) for c in classes), top),
        method=method,
        batch_size=batch_size,
        chunk=chunk,
        memory=memory,
        dtype=dtype,
        stored=stored,
        mesh=mesh,
        reading=reading,
        class_names=class_names,
    )
    kvstore = connect(store)
    with hold(kvstore, share):
        opened, settled, mine = _open(run, kvstore, share, resume)
        _compute(run, opened, settled, mine, on_error, progress, log, workers)
    return StoredOcclusion(opened, reading)


def _open(
    run: Run, kvstore: ts.KvStore, share: Share, resume: bool
) -> tuple[Store, Settled, list[int]]:
    """Open the store, or make it; return it, the program and the chunks of this process."""
    index, count = share
    together = jax.process_count() == count

    def look() -> list[int]:
        store, _ = _find_or_create(run, kvstore, resume)
        chunks = range(ceil(store.count / store.chunk))
        # Shares that know nothing of each other divide all chunks, whichever are finished; and what
        # another may be writing is left alone.
        mine = chunks if together else chunks[index::count]
        repaired = _repaired(store, run.images, mine)
        for chunk in repaired:
            store.reset(chunk)
        return sorted({*store.unfinished(), *repaired}.intersection(mine))

    unfinished = first_process_first(look)
    store, settled = _find_or_create(run, kvstore, resume=True)
    return store, settled, unfinished[index::count] if together else unfinished


def _find_or_create(run: Run, kvstore: ts.KvStore, resume: bool) -> tuple[Store, Settled]:
    store = find(kvstore)
    if store is None:
        settled = run.settle(None)
        new = run.identity(settled), *run.arrays(settled)
        with alone(kvstore):
            store = find(kvstore)  # which another may have made since: compiling takes its time
            if store is None:
                return create(kvstore, *new), settled
    if not resume:
        raise ValueError(
            f"`store` must not exist for `resume=False`: there is one at {kvstore.url}; go on with"
            " it, remove it, or name another."
        )
    settled = run.settle(store.identity)
    there = {key: value for key, value in store.identity.items() if key != "arrays"}
    differ = differences(there, run.identity(settled))
    if differ:
        raise ValueError(
            f"`store` must be of the same run: in {kvstore.url}, {'; '.join(differ)}. Use the same"
            " arguments and versions, or another store."
        )
    return store, settled


def _repaired(store: Store, images: Images, chunks: range) -> list[int]:
    """Those of some chunks with images that were bad and can be read now."""
    bad = np.flatnonzero(store.status() == BAD)
    bad = bad[np.isin(bad // store.chunk, chunks)]
    with ThreadPoolExecutor() as pool:
        good = [not isinstance(image, str) for image in pool.map(images.read, bad.tolist())]
    return sorted({int(i) // store.chunk for i in bad[np.array(good, bool)]})


def _compute(
    run: Run,
    store: Store,
    settled: Settled,
    mine: Sequence[int],
    on_error: OnError,
    progress: Progress,
    log: str | Path | None,
    workers: int,
) -> None:
    """Score some chunks, and write them."""
    waits = Waits()
    task = run.task.replicated()
    template = task.images[0]
    wanted = [(chunk, store.images_of(chunk)) for chunk in mine]
    total = sum(len(images) for _, images in wanted)
    start = {
        "store": store.url,
        "images": total,
        "of": len(run.images),
        "chunks": len(mine),
        "positions": run.grid.size,
        "method": settled.method,
        "batch": settled.batch,
        "process": os.getpid(),
        "devices": 1 if task.mesh is None else task.mesh.size,
    }
    done, errors, began = 0, 0, perf_counter()
    with reporting(progress, log, start) as tell, WriteBehind(store.write, waits) as write:
        chunks = _watched(
            read_ahead(wanted, run.images.read, template, workers=workers), run, store, on_error
        )
        for chunk, values in score(task, settled.program, chunks, waits):
            base = values[:, 0]
            scores, picked = run.kept.pick(base, values[:, 1:])
            scores = run.stored_scores(scores).reshape(len(values), *run.grid.shape, -1)
            write(chunk.number, Results(scores, base, picked, chunk.errors))
            done, errors = done + len(values), errors + sum(map(bool, chunk.errors))
            seconds = perf_counter() - began
            tell(Report(done, total, done * run.grid.size, errors, seconds, replace(waits)))
    if errors:
        warnings.warn(
            f"{errors} of {total} images are bad: the `errors` of the store tell which, and why.",
            stacklevel=3,
        )


def _watched(chunks: Iterator[Chunk], run: Run, store: Store, on_error: str) -> Iterator[Chunk]:
    """Stop at a bad image, unless bad images are to be skipped."""
    for chunk in chunks:
        for image, error in zip(store.images_of(chunk.number), chunk.errors, strict=True):
            if error and on_error == "raise":
                raise ValueError(
                    f"`source`: {run.images.name(image)} is bad: {error.rstrip('.')}. Repair it, or"
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


def _input_shape(f: Any) -> tuple[int, int, int] | None:
    shape = image_shape_of(f)
    known = isinstance(shape, tuple) and len(shape) == 3 and None not in shape
    return shape if known else None
