"""What a run over many images will take: operations, bytes, time, from a short measured probe."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import Pair, whole_number
from jaxviz._choices import Border, Method, Stored
from jaxviz.perturbation.fills import FillLike
from jaxviz.perturbation.patches import Patches
from jaxviz.progress import duration
from jaxviz.scale.pipeline import Chunk, Waits, score
from jaxviz.scale.run import Run, Settled, make_run
from jaxviz.scale.sources import check_source, open_source
from jaxviz.scoring.arguments import checked_image_shape
from jaxviz.scoring.scorer import Scorer

LEAST_BLOCKS, LEAST_ROUNDS = 3, 4


@dataclass(frozen=True)
class Estimate:
    """What a run takes, on the devices that measured it.

    Attributes:
        images: N.
        positions: of all images, N · rows · cols.
        method: "dense" or "incremental".
        batch: images that a device evaluates at once.
        chunk: images that are written, and may be lost, at a time.
        operations: floating-point operations of the whole run.
        memory: bytes that one block takes on a device, without the weights.
        stored: bytes of the scores, before they are compressed.
        compile_seconds: before the first image.
        image_seconds: per image.
        seconds: expected for the whole run, with compilation.
    """

    images: int
    positions: int
    method: str
    batch: int
    chunk: int
    operations: int
    memory: int
    stored: int
    compile_seconds: float
    image_seconds: float

    @property
    def seconds(self) -> float:
        """Expected for the whole run, with compilation."""
        return self.compile_seconds + self.images * self.image_seconds

    def elsewhere(self, operations_per_second: float, devices: int = 1) -> float:
        """Return the seconds of the run on devices that nothing was measured on.

        Args:
            operations_per_second: what one of them sustains: a share of its peak, to be assumed.
            devices: how many.
        """
        return self.operations / (operations_per_second * devices)

    def __str__(self) -> str:
        return (
            f"{self.images:,} images, {self.positions:,} positions, {self.method},"
            f" batch {self.batch}, chunks of {self.chunk}: {self.operations:.3g} operations,"
            f" {self.memory / 2**20:,.0f} MiB per device, {self.stored / 2**20:,.0f} MiB of scores,"
            f" {self.images / self.seconds:.3g} images/s, {duration(self.seconds)}"
            f" ({duration(self.compile_seconds)} of them compiling)"
        )


def estimate(
    f: Scorer,
    image_shape: tuple[int, int, int],
    n_images: int,
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    fill: FillLike = 0.0,
    border: Border = "clip",
    channels: Sequence[int] | None = None,
    complement: bool = False,
    method: Method = "auto",
    batch_size: int | Literal["auto", "fastest"] = "auto",
    chunk: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    dtype: Any = None,
    stored: Stored = "float32",
    mesh: Mesh | None = None,
    probe_seconds: float = 3.0,
) -> Estimate:
    """Measure a few blocks of a run over many images, and tell what all of it will take.

    seconds = compilation + n_images · (once per image + blocks per image · seconds per block).

    Args:
        f: scorer, see `jaxviz.occlude`.
        image_shape: (H, W, C) of the images.
        n_images: how many there are.
        patch: see `jaxviz.occlude`.
        stride: see `jaxviz.occlude`.
        margin: see `jaxviz.occlude`.
        fill: see `jaxviz.occlude`.
        border: see `jaxviz.occlude`.
        channels: see `jaxviz.occlude`.
        complement: see `jaxviz.occlude`.
        method: see `jaxviz.occlude_dataset`, as all that follows.
        batch_size: "fastest" tries what is fastest; its answer can be given to `occlude_dataset`.
        chunk: images of a chunk.
        memory: bytes that a block may take.
        dtype: of the forward pass.
        stored: dtype of the scores in the store.
        mesh: devices.
        probe_seconds: how long to measure; at least four rounds of three blocks are.

    Returns:
        The estimate. Reading images is not in it: it goes on beside computing.

    Raises:
        ValueError: an argument breaks its rule.

    Example:
        >>> expected = estimate(lambda x: x.mean((1, 2)), (8, 8, 1), 100, patch=4)
        >>> expected.positions, expected.seconds > 0
        (400, True)
    """
    n_images = whole_number(n_images, "n_images")
    image_shape = checked_image_shape(f, image_shape)
    image = np.random.default_rng(0).random(image_shape, np.float32)
    images = check_source(open_source(np.broadcast_to(image, (n_images, *image_shape))), f)
    begin = perf_counter()
    patches = Patches(patch, stride, margin, border, fill, channels, complement)
    with warnings.catch_warnings():
        # The images are made up: whether the fill is on the scale of the real ones is not known.
        warnings.filterwarnings("ignore", "`fill` leaves the range of the images")
        run = make_run(
            f,
            images,
            patches,
            method=method,
            batch_size=batch_size,
            chunk=chunk,
            memory=memory,
            dtype=dtype,
            stored=stored,
            mesh=mesh,
        )
    settled = run.settle(None)
    compiling = perf_counter() - begin
    classes = settled.program.scores.shape[-1]
    return Estimate(
        images=n_images,
        positions=n_images * run.grid.size,
        method=settled.method,
        batch=settled.batch,
        chunk=settled.chunk,
        operations=n_images * run.operations(settled.program.evaluator),
        memory=settled.program.bytes,
        stored=n_images * run.grid.size * classes * np.dtype(stored).itemsize,
        compile_seconds=compiling,
        image_seconds=seconds_per_image(run, settled, probe_seconds),
    )


def seconds_per_image(run: Run, settled: Settled, probe_seconds: float) -> float:
    """Run rounds of images, or their first blocks, for a while; return what an image takes.

    Rounds follow each other as in a run, so that their blocks overlap; the median of the intervals
    between them counts, since now and then any machine does something else.
    """
    program, task = settled.program, run.task.replicated()
    across, rows = program.scores.shape[:2]
    images = np.repeat(task.images, across, 0)
    blocks = ceil(task.rows / rows)

    def interval(count: int, budget: float) -> float:
        """Of rounds with their first `count` blocks, as many as the budget allows."""
        part = replace(task, positions=task.positions[: count * rows - 1])
        begin, ends = perf_counter(), []

        def rounds() -> Iterator[Chunk]:
            while len(ends) < LEAST_ROUNDS or perf_counter() - begin < budget:
                yield Chunk(len(ends), images, [""] * across)

        for _ in score(part, program, rounds(), Waits()):
            ends.append(perf_counter())
        return float(np.median(np.diff(ends)))

    first = interval(1, 0.0)
    affordable = max(LEAST_BLOCKS, int(probe_seconds / LEAST_ROUNDS / first))
    if affordable >= blocks:
        return interval(blocks, probe_seconds) / across
    first = interval(1, probe_seconds / 3)
    each = max(0.0, interval(affordable, probe_seconds) - first) / (affordable - 1)
    return (first + (blocks - 1) * each) / across
