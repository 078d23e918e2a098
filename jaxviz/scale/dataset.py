"""Occlusion of many images, into a store: never twice, and nothing lost, whatever interrupts it."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from jaxviz._arguments import Pair
from jaxviz._choices import Border, Method, OnError, Stored
from jaxviz._choices import Preprocess as PreprocessName
from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.refinement import Refine, check_refinement
from jaxviz.occlusion.tolerance import check_windows
from jaxviz.perturbation.fills import FillLike
from jaxviz.perturbation.patches import Patches
from jaxviz.progress import Progress
from jaxviz.scale.approximating import ApproximateRun
from jaxviz.scale.filling import checked_how, fill_store
from jaxviz.scale.hosts import Share
from jaxviz.scale.reader import StoredOcclusion
from jaxviz.scale.run import Kept, make_run
from jaxviz.scale.sources import Preprocess, SourceLike, open_images
from jaxviz.scoring.arguments import check_tolerance
from jaxviz.scoring.scorer import Scorer


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
    refine: Refine | None = None,
    tolerance: float | None = None,
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
        refine: approximate, coarse to fine, see `jaxviz.occlude`; which scores are exact is kept.
        tolerance: approximate, see `jaxviz.occlude`. Windows are as wide as all images of a chunk
            together need, measured on each of them, and what was measured is kept; method "auto" is
            then "incremental".
        method: "dense", "incremental" or "auto": see `jaxviz.occlude`.
        batch_size: images that a device evaluates at once, "auto" or "fastest", which measures on
            the first image, see `jaxviz.occlude`. A store keeps the choice of its first run.
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
        >>> import tempfile, numpy as np
        >>> images = np.random.default_rng(0).random((20, 28, 28, 1), np.float32)
        >>> out = tempfile.mkdtemp() + "/out.zarr"
        >>> stored = occlude_dataset(lambda x: x.mean((1, 2)), images, out, patch=4, progress=False)
        >>> stored[3].heatmap().shape
        (28, 28)
    """
    check_tolerance(tolerance)
    if tolerance is not None:
        check_windows(tolerance, method)
    refinement = None if refine is None else check_refinement(refine)
    how = checked_how(
        source,
        share=share,
        on_error=on_error,
        resume=resume,
        progress=progress,
        log=log,
        workers=workers,
    )
    images = open_images(f, source, image_shape, preprocess)
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
    if tolerance is not None or refinement is not None:
        parts = {part.name: getattr(run, part.name) for part in fields(run)}
        share_of = None if tolerance is None else float(tolerance)
        run = ApproximateRun(**parts, tolerance=share_of, refinement=refinement)
    return StoredOcclusion(fill_store(run, store, how), reading)
