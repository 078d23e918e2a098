"""Attribution of many images, into a store: nothing lost, whatever interrupts it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
from jax.sharding import Mesh

from jaxviz import attribution
from jaxviz._choices import MapMethod, OnError, Stored
from jaxviz._choices import Preprocess as PreprocessName
from jaxviz.layers import as_scorer
from jaxviz.progress import Progress
from jaxviz.scale.arguments import check_mesh
from jaxviz.scale.attributed import StoredAttribution
from jaxviz.scale.attributing import Attributing, Method, named_targets
from jaxviz.scale.filling import checked_how, fill_store
from jaxviz.scale.hosts import Share
from jaxviz.scale.sources import Preprocess, SourceLike, open_images
from jaxviz.scoring.arguments import checked_memory
from jaxviz.scoring.scorer import Scorer, split
from jaxviz.scoring.targets import resolve


def attribute_dataset(
    f: Scorer,
    source: SourceLike,
    store: str | Path | dict[str, Any],
    *,
    methods: Sequence[str] | Mapping[str, Method] = ("grad_cam", "integrated_gradients"),
    target: Any = None,
    image_shape: tuple[int, int, int] | None = None,
    preprocess: PreprocessName | Preprocess | None = None,
    batch_size: int | Literal["auto"] = "auto",
    chunk: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    stored: Stored = "float32",
    mesh: Mesh | None = None,
    share: Share | None = None,
    on_error: OnError | None = None,
    resume: bool = True,
    progress: Progress = True,
    log: str | Path | None = None,
    workers: int | None = None,
) -> StoredAttribution:
    """Explain many images by several methods, into a Zarr store; go on where an earlier run ended.

    A chunk of images counts once all of it is durable, so that a run may be killed at any moment:
    the next one with the same arguments finishes the store, to the same bits, and computes at most
    the chunks again that were under way.

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K), see `jaxviz.occlude`.
        source: images, see `occlude_dataset`.
        store: a folder, or a URL, see `occlude_dataset`.
        methods: names of functions of `jaxviz.attribution`; or {name: function}, each (f, images,
            target=…) -> an `Attribution` or an `Occlusion`, such as a `functools.partial` of one.
            It is known again by its name and options, and, if it is your own, by its code.
        target: whose maps they are: None, the class with the largest clean score of each image; a
            class, by number or, where `f` knows names, by name; or a list of these: each method
            then has a map of each.
        image_shape: see `occlude_dataset`.
        preprocess: see `occlude_dataset`.
        batch_size: what methods get as theirs; "auto": 16 on a CPU, 2 of large images, 64
            elsewhere. A store keeps the choice of its first run.
        chunk: images of a chunk; "auto": at most those of a batch.
        memory: see `occlude_dataset`.
        stored: dtype of the maps in the store.
        mesh: see `jaxviz.occlude`.
        share: see `occlude_dataset`.
        on_error: see `occlude_dataset`.
        resume: whether to go on with a store that is there.
        progress: True for a bar, False for silence, or a function (maps done, maps in all).
        log: see `occlude_dataset`.
        workers: see `occlude_dataset`.

    Returns:
        The store, for reading: `stored[3]["grad_cam"]` is an `Attribution`.

    Raises:
        ValueError: an argument breaks its rule; the store is another run's (what differs is told)
            or in use; or an image is bad.
        OSError: the store cannot be read or written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
        >>> f, out = lambda x: (x**2).sum((1, 2)), tempfile.mkdtemp() + "/maps.zarr"
        >>> stored = attribute_dataset(f, images, out, methods=["saliency"], progress=False)
        >>> stored[3]["saliency"].heatmap().shape
        (8, 8)
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
    if stored not in get_args(Stored):
        raise ValueError(f'`stored` must be "float32" or "float16": got {stored!r}.')
    chosen, targets = _methods(methods), named_targets(target, f)
    images = open_images(f, source, image_shape, preprocess)
    checked_memory(memory)
    where = {"memory": memory, "mesh": check_mesh(mesh)}
    parts = split(as_scorer(f))
    image = jax.ShapeDtypeStruct((1, *images.template.shape), images.template.dtype)
    shape = jax.eval_shape(parts.call, parts.arrays, image).shape
    if len(shape) != 2:
        raise ValueError(f"`f` must give scores (N, K): got {('N', *shape[1:])}.")
    for number in targets.values():
        if number is not None:
            resolve(number, 1, shape[1])
    work = Attributing(images, f, parts, chosen, targets, stored, batch_size, chunk, where)
    return StoredAttribution(fill_store(work, store, how))


def _methods(methods: Sequence[str] | Mapping[str, Method]) -> dict[str, Method]:
    """Return the methods by name."""
    if isinstance(methods, Mapping):
        found = dict(methods)
    else:
        names = [methods] if isinstance(methods, str) else list(methods)
        known = set(get_args(MapMethod)) - {"occlusion"}
        for name in names:
            if name not in known:
                raise ValueError(
                    f"`methods` must name functions of jaxviz.attribution: got {name!r}; one of"
                    " your own is given as {name: function}."
                )
        found = {name: getattr(attribution, name) for name in names}
    if not found or not all(map(callable, found.values())):
        raise ValueError("`methods` must hold at least one, and functions alone: got others.")
    return found
