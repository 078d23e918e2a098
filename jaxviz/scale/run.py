"""What is run: images, task, grid and what is kept; and what makes it the same run again.

The program, that is method, batch and chunk, is settled once, when a store is made. Nothing is
timed for it unless asked, so that equal runs, wherever they are started, make equal stores.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil, prod
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz._choices import Method, Stored
from jaxviz.occlusion.reading import Reading, checked_reading
from jaxviz.perturbation.fills import Fill
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.patches import Patches
from jaxviz.scale.arguments import check_mesh
from jaxviz.scale.identity import Identity, fingerprint, forward, versions
from jaxviz.scale.pipeline import Chunk, Waits, score
from jaxviz.scale.sources import Images
from jaxviz.scale.store import ArraySpec, array_specs, name_array
from jaxviz.scoring.choice import choose_evaluators
from jaxviz.scoring.compiled import Compiled, choose
from jaxviz.scoring.evaluators import Evaluator
from jaxviz.scoring.scorer import Scorer
from jaxviz.scoring.targets import class_names_of
from jaxviz.scoring.task import Task, make_task

# A chunk is what may be lost and computed again: little of it in images, bytes and operations.
CHUNK_IMAGES, CHUNK_BYTES, CHUNK_OPERATIONS, LEAST_CHUNKS = 64, 2**25, 4e12, 8


class Kept(NamedTuple):
    """Which classes are kept of the scores: those named, or the `top` of each image, or all."""

    classes: tuple[int, ...] | None = None
    top: int | None = None

    def pick(self, base: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the kept scores (n, P, k) and, for the top ones, their classes (n, k)."""
        if self.classes is not None:
            return scores[..., list(self.classes)], None
        if self.top is None:
            return scores, None
        clean = np.nan_to_num(base, nan=-np.inf)
        best = np.argsort(-clean, axis=-1, kind="stable")[:, : self.top].astype(np.int32)
        return np.take_along_axis(scores, best[:, None], axis=-1), best

    def check(self, classes: int) -> None:
        """Raise ValueError unless there are such classes."""
        if self.classes is not None and self.top is not None:
            raise ValueError("`classes` and `top` exclude each other: give one of them.")
        named = self.classes
        if named is not None and not (named and 0 <= min(named) and max(named) < classes):
            raise ValueError(
                f"`classes` must be classes from 0 to {classes - 1}: got {list(named)}."
            )
        if self.top is not None and not 1 <= self.top <= classes:
            raise ValueError(f"`top` must be from 1 to {classes}, the classes: got {self.top}.")


ALL_CLASSES = Kept()


class Settled(NamedTuple):
    """How it is computed: the compiled program, its batch, and images per chunk."""

    program: Compiled
    batch: int
    chunk: int

    @property
    def method(self) -> str:
        """ "dense" or "incremental"."""
        return type(self.program.evaluator).__name__.lower()


@dataclass(frozen=True)
class Run:
    """A run over many images.

    Attributes:
        images: the images.
        task: what to do with one of them.
        grid: where the patches lie.
        kept: which classes are kept.
        stored: dtype of the scores in the store.
        method: "auto", or what was asked for.
        batch_size: "auto", "fastest", or what was asked for.
        chunk: "auto", or what was asked for.
        reading: how the scores are meant to be read; recorded, and nothing else depends on it.
        class_names: of all K classes; recorded, and nothing else depends on them.
    """

    images: Images
    task: Task
    grid: Grid
    kept: Kept
    stored: str
    method: str
    batch_size: int | str
    chunk: int | str
    reading: Reading | None = None
    class_names: tuple[str, ...] | None = None

    unit = "positions"

    @property
    def template(self) -> np.ndarray:
        """An image, whose shape and dtype all have when they are scored."""
        return self.task.images[0]

    @property
    def each(self) -> int:
        """How many positions an image has."""
        return self.grid.size

    def settle(self, recorded: Identity | None) -> Settled:
        """Return the program that a store records, or that a new store shall.

        What was asked for goes before what is recorded: the difference is then an error.
        """
        known = recorded["program"] if recorded else {}
        method = known["method"] if known and self.method == "auto" else self.method
        batch = known["batch"] if known and isinstance(self.batch_size, str) else self.batch_size
        chunk = known["chunk"] if known and self.chunk == "auto" else self.chunk
        shape = (len(self.images), *self.task.images.shape[1:])
        whole = replace(self.task, images=np.broadcast_to(self.task.images, shape))
        platform = self.task.device.platform
        measure = batch == "fastest"
        evaluators = choose_evaluators(method, self.grid, whole, platform, measure=measure)
        whole = replace(whole, evaluators=evaluators)
        if batch not in ("auto", "fastest"):
            batch = whole_number(batch, "batch_size", choices='"auto", "fastest"')
        if isinstance(batch, str):  # by the number that the store will tell, whatever was asked
            found = choose(whole, batch)
            whole, batch = replace(whole, evaluators=(found.evaluator,)), prod(found.block)
        program = choose(whole, batch)
        if program.scores.ndim != 3:
            raise ValueError(
                f"`f` must give scores (N, K): got {('N', *program.scores.shape[2:])}."
            )
        self.kept.check(program.scores.shape[-1])
        if chunk == "auto":
            size = self._chunk_size(program)
        else:
            size = whole_number(chunk, "chunk", choices='"auto"')
        return Settled(program, prod(program.block), size)

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """Of the scorer, and of what hides part of an image."""
        images = jax.ShapeDtypeStruct(self.task.images.shape, self.task.images.dtype)
        image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
        inside = jax.ShapeDtypeStruct((*image.shape[:2], 1), bool)
        start = jax.ShapeDtypeStruct((2,), np.int32)

        def filled(fill: Fill, image: jax.Array, inside: jax.Array, start: jax.Array) -> Any:
            return fill.blend(image, fill.background(image), inside, start)

        scorer, occluder = self.task.scorer, self.task.occluder
        return (
            fingerprint(scorer.call, scorer.arrays, images),
            fingerprint(filled, occluder.fill, image, inside, start),
        )

    def identity(self, settled: Settled) -> Identity:
        """Return what makes it the same run again."""
        model, fill = self.fingerprints
        occluder = self.task.occluder
        identity = {
            "format": 1,
            "model": {"name": self.task.scorer.name, "fingerprint": model},
            "grid": asdict(self.grid),
            "fill": {
                "name": occluder.fill.name,
                "values": [v.tolist() for v in jax.tree.leaves(occluder.fill) if v.size <= 4],
                "fingerprint": fill,
                "channels": occluder.channels,
                "complement": occluder.complement,
            },
            "source": self.images.identity(),
            "forward": forward(self.task.images.dtype, self.task.device.platform),
            "scores": {"dtype": self.stored, **self.kept._asdict()},
            "program": {
                "method": settled.method,
                "batch": settled.batch,
                "chunk": settled.chunk,
            },
            "versions": versions(),
        }
        if self.reading is not None:
            identity["reading"] = self.reading.record()
        if self.class_names is not None:
            identity["class_names"] = self.class_names
        return json.loads(json.dumps(identity))

    def arrays(self, settled: Settled) -> tuple[dict[str, ArraySpec], dict[str, np.ndarray]]:
        """Return the arrays of a store, and the values of those that are known beforehand."""
        classes = settled.program.scores.shape[-1]
        known = {"row": np.array(self.grid.row_starts), "col": np.array(self.grid.col_starts)}
        names = self.images.source.names
        if names is not None:
            known["name"] = name_array(names)
        axes, kept = None, classes
        if self.kept.classes is not None:
            axes, kept = ("class",), len(self.kept.classes)
            known["class"] = np.array(self.kept.classes)
        elif self.kept.top is not None:
            axes, kept = ("image", "rank"), self.kept.top
        specs = array_specs(
            len(self.images),
            self.grid.shape,
            classes,
            kept,
            chunk=settled.chunk,
            dtype=self.stored,
            name_bytes=known["name"].shape[1] if names is not None else 0,
            class_axes=axes,
        )
        return specs, known

    def facts(self, settled: Settled) -> dict[str, Any]:
        """Return what the log tells at the start."""
        mesh = self.task.mesh
        devices = 1 if mesh is None else mesh.size
        return {"method": settled.method, "batch": settled.batch, "devices": devices}

    def compute(
        self, settled: Settled, chunks: Iterator[Chunk], waits: Waits
    ) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
        """Score chunks of images."""
        for chunk, values in score(self.task.replicated(), settled.program, chunks, waits):
            yield chunk, self.rows(values[:, 0], values[:, 1:])

    def rows(self, base: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is kept of clean scores (n, K) and of those of all positions, (n, P, K)."""
        kept, picked = self.kept.pick(base, scores)
        kept = self.stored_scores(kept).reshape(len(kept), *self.grid.shape, -1)
        best = np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
        rows = {"scores": kept, "base": base, "predicted": best}
        return rows if picked is None else rows | {"class": picked}

    def stored_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return scores in the dtype that they are stored in.

        Raises:
            ValueError: float16 does not hold them.
        """
        if self.stored == "float32":
            return scores
        with np.errstate(over="ignore"):
            small = scores.astype(self.stored)
        if np.any(np.isinf(small) & np.isfinite(scores)):
            largest = np.max(np.abs(scores[np.isfinite(scores)]))
            raise ValueError(
                f'`stored` must hold the scores: "{self.stored}" does not hold {largest:.3g};'
                ' use "float32".'
            )
        return small

    def operations(self, evaluator: Evaluator) -> int:
        """Return the floating-point operations that one image takes."""
        return self.task.operations(evaluator, self.grid)

    def _chunk_size(self, program: Compiled) -> int:
        rows = self.task.rows
        size = rows * program.scores.shape[-1] * 4
        most = min(
            CHUNK_IMAGES,
            CHUNK_BYTES // size,
            int(CHUNK_OPERATIONS / max(self.operations(program.evaluator), 1)),
            ceil(len(self.images) / LEAST_CHUNKS),
        )
        # Whole blocks, so that every image lies the same way in its block.
        step = program.block.images
        return max(1, most // step) * step


def make_run(
    f: Scorer,
    images: Images,
    patches: Patches,
    *,
    kept: Kept = ALL_CLASSES,
    method: Method = "auto",
    batch_size: int | str = "auto",
    chunk: int | str = "auto",
    memory: int | str | None = None,
    dtype: Any = None,
    stored: str = "float32",
    mesh: Mesh | None = None,
    reading: Reading | None = None,
    class_names: Sequence[str] | None = None,
) -> Run:
    """Return a run.

    Args:
        f: see `occlude_dataset`, as all options.
        images: where the images come from.
        patches: which patches hide what.
        kept: which classes are kept.
        method: "dense", "incremental" or "auto".
        batch_size: images that a device evaluates at once, "auto" or "fastest".
        chunk: images of a chunk, or "auto".
        memory: bytes that a block may take on a device.
        dtype: of the forward pass.
        stored: dtype of the scores in the store.
        mesh: devices to spread over.
        reading: how the scores are meant to be read.
        class_names: of all K classes; None: those of `f`, if any.

    Raises:
        ValueError: an argument breaks its rule.
    """
    if stored not in get_args(Stored):
        raise ValueError(f'`stored` must be "float32" or "float16": got {stored!r}.')
    samples = np.stack(list(images.samples.values()))
    grid = patches.grid((samples.shape[1], samples.shape[2]))
    occluder = patches.occluder(samples, grid, stacklevel=4)
    mesh = check_mesh(mesh) or _local_mesh()
    starts = grid.starts.reshape(-1, 2)
    task = make_task(f, samples[:1], occluder, starts, dtype=dtype, mesh=mesh, memory=memory)
    reading = checked_reading(reading)
    names = None
    if class_names is not None or hasattr(f, "class_names"):
        scores = jax.eval_shape(task.scorer.call, task.scorer.arrays, task.images)
        names = class_names_of(f, scores.shape[-1], class_names)
    return Run(images, task, grid, kept, stored, method, batch_size, chunk, reading, names)


def _local_mesh() -> Mesh | None:
    devices = jax.local_devices()
    several = len(devices) > 1 and devices[0].platform != "cpu"
    return Mesh(np.array(devices), ("images",)) if several else None
