"""Maps of many images judged, into a store: nothing lost, whatever interrupts it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from jaxviz._choices import OnError
from jaxviz._choices import Preprocess as PreprocessName
from jaxviz.layers import as_scorer
from jaxviz.metrics.judge import Metric, chosen_metrics
from jaxviz.progress import Progress
from jaxviz.scale.arguments import check_mesh
from jaxviz.scale.filling import checked_how, fill_store
from jaxviz.scale.hosts import Share
from jaxviz.scale.judged import StoredComparison
from jaxviz.scale.judging import Judging, MapsOfMany
from jaxviz.scale.reader import StoredOcclusion
from jaxviz.scale.sources import Images, Preprocess, SourceLike, open_images
from jaxviz.scoring.arguments import checked_memory
from jaxviz.scoring.scorer import Scorer, split
from jaxviz.scoring.targets import by_name, resolve


def judge_dataset(
    f: Scorer,
    source: SourceLike,
    store: str | Path | dict[str, Any],
    *,
    maps: Mapping[str, MapsOfMany],
    metrics: Sequence[Metric] | Mapping[str, Metric] = ("srg", "insertion", "mu_fidelity"),
    target: Any = None,
    floors: bool = True,
    seed: int = 0,
    image_shape: tuple[int, int, int] | None = None,
    preprocess: PreprocessName | Preprocess | None = None,
    batch_size: int | Literal["auto"] = "auto",
    chunk: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    share: Share | None = None,
    on_error: OnError | None = None,
    resume: bool = True,
    progress: Progress = True,
    log: str | Path | None = None,
    workers: int | None = None,
) -> StoredComparison:
    """Measure maps of many images by metrics, into a Zarr store; go on where an earlier run ended.

    value[n, i, j] = metric j of map i of image n: the table that `jaxviz.metrics.compare` makes,
    chunk by chunk. A chunk of images counts once all of it is durable, so that a run may be killed
    at any moment: the next one with the same arguments finishes the store. Memory holds some chunks
    of images and their maps, however many there are.

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K), see `jaxviz.occlude`.
        source: images, see `occlude_dataset`.
        store: a folder, or a URL, see `occlude_dataset`.
        maps: {name: maps}. Maps are an array (N, H, W), also memory-mapped; a store of
            `occlude_dataset`, opened; or a function (f, images, target=classes) -> maps (n, H, W)
            or a result, such as `jaxviz.attribution.saliency` or a `functools.partial` of `rise`.
        metrics: see `jaxviz.metrics.compare`.
        target: whose maps and scores they are: None, the class with the largest clean score of each
            image; a class; or one per image, (N,), by number or, where `f` knows names, by name.
        floors: judge random numbers and an edge detector as well, as "random" and "edges", see
            `jaxviz.metrics.floors`; the random numbers follow from the seed and the image's number.
        seed: of everything random; recorded.
        image_shape: see `occlude_dataset`.
        preprocess: see `occlude_dataset`.
        batch_size: images that a device scores at once, where a metric or a method asks; "auto": 16
            on a CPU, 256 elsewhere. A store keeps the choice of its first run.
        chunk: images of a chunk; "auto": at most 32, fewer of large images.
        memory: see `occlude_dataset`.
        mesh: see `jaxviz.occlude`.
        share: see `occlude_dataset`.
        on_error: see `occlude_dataset`.
        resume: whether to go on with a store that is there.
        progress: True for a bar, False for silence, or a function (images done, images in all).
        log: see `occlude_dataset`.
        workers: see `occlude_dataset`.

    Returns:
        The store, for reading: `table()` is a `jaxviz.metrics.Comparison`. A function among the
        maps or metrics is known again by its name, options, code and closure.

    Raises:
        ValueError: an argument breaks its rule; the store is another run's (what differs is told)
            or in use; an image is bad, or a map has no value somewhere.
        OSError: the store cannot be read or written.

    Example:
        >>> import tempfile
        >>> images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
        >>> f, out = lambda x: x.sum((1, 2)), tempfile.mkdtemp() + "/judged.zarr"
        >>> options = {"maps": {"pixels": images[..., 0]}, "metrics": ["srg"], "progress": False}
        >>> judge_dataset(f, images, out, **options).table().difference("pixels", "random", "srg").n
        20
    """
    how = checked_how(
        source,
        share=share,
        on_error=on_error,
        resume=resume,
        progress=progress,
        log=log,
        workers=workers,
    )
    chosen = chosen_metrics(metrics)
    if not chosen or not (maps or floors):
        raise ValueError("`maps` and `metrics` must each name at least one: got none.")
    if floors and not {"random", "edges"}.isdisjoint(maps):
        raise ValueError('`maps` must not be called "random" or "edges" beside the floors.')
    images = open_images(f, source, image_shape, preprocess)
    for name, given in maps.items():
        _check_maps(name, given, images)
    checked_memory(memory)
    where = {"memory": memory, "mesh": check_mesh(mesh)}
    scorer = as_scorer(f)
    named = by_name(target, getattr(f, "class_names", None))
    work = Judging(
        images, f, split(scorer), maps, floors, chosen, named, seed, batch_size, chunk, where
    )
    if named is not None and resolve(named, len(images), work.classes).ndim != 1:
        raise ValueError("`target` must be classes here: got weights.")
    return StoredComparison(fill_store(work, store, how))


def _check_maps(name: str, maps: MapsOfMany, images: Images) -> None:
    """Raise unless there is a map of every image's size for every image, as far as can be seen."""
    if callable(maps):
        return
    if isinstance(maps, StoredOcclusion):
        shape = (len(maps), *maps.grid.image_shape)
    else:
        shape = np.shape(maps)
    wanted = (len(images), *images.template.shape[:2])
    if shape != wanted:
        raise ValueError(f"`maps` must be one per image, {wanted}: {name} is of shape {shape}.")
