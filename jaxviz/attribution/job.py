"""One run of a kernel over a batch: compiled for a block of images, block after block."""

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxviz.attribution.goal import Goal
from jaxviz.attribution.kernel import Found, Kernel, Seen, Steps, in_chunks, in_float32
from jaxviz.attribution.memo import Memo
from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.compiled import Ahead, ahead
from jaxviz.jaxpr.split import Skeleton, split_arrays
from jaxviz.layers import thaw
from jaxviz.progress import Progress, track
from jaxviz.scoring.batches import usual_batches
from jaxviz.scoring.compiled import tells_of_memory
from jaxviz.scoring.memory import memory_budget
from jaxviz.scoring.scorer import SplitScorer

ACCELERATOR_BATCH = 64
PARTS: dict[str, Callable[..., Any]] = {
    "whole": lambda kernel, *args: in_float32(kernel(*args)),
    "begin": lambda kernel, *args: kernel.of.begin(*args),
    "step": lambda kernel, *args: kernel.of.step(*args),
    "end": lambda kernel, *args: in_float32(kernel.of.end(*args)),
}
LAUNCHED_AT_ONCE = 2  # so that a device never waits for the host
# Evaluations of an image from which on it pays to transform kernels by a program of its own, whose
# compilation takes EfficientNet-Lite0 three seconds.
OFTEN = 16


@dataclass
class Job:
    """What is computed, and what was compiled for it.

    Attributes:
        kernel: of one image.
        parts: the scorer.
        images: (N, H, W, C).
        goal: weights (N, K), or none.
        mesh: devices to spread images over; None: the default device.
        budget: bytes that a block may take on a device; None: a share of what is free.
        memo: what is known of the scorer from earlier runs.
        seen: what the kernel notes when it is traced.
        programs: compiled, by name.
        chunks: items of `Steps`, (steps, lanes, ...), and which of them are live.
    """

    kernel: Kernel | Steps
    parts: SplitScorer
    images: np.ndarray
    goal: Goal
    mesh: Mesh | None
    budget: int | None
    memo: Memo
    seen: Seen
    programs: dict[str, Callable[..., Any]] = field(default_factory=dict)
    chunks: tuple[Any, np.ndarray] = ((), np.ones((1, 1), np.float32))

    def run(self, batch_size: int | str, progress: Progress) -> tuple[Found, bool]:
        """Return what was found of all images, in NumPy, and whether it was interrupted."""
        size = self.fit(batch_size)
        count, first, done = len(self.images), 0, 0
        room: Found | None = None
        launched: deque[tuple[int, Found]] = deque()
        with track(progress, count, "images") as advance:
            try:
                while done < count:
                    try:
                        while first < count and len(launched) < LAUNCHED_AT_ONCE:
                            launched.append((first, self.block(first, size)))
                            first += size * self.devices
                        room = _store(room, *launched[0], count)
                    except jax.errors.JaxRuntimeError as error:
                        first = done
                        launched.clear()
                        size = self.halve(size, error)
                    else:
                        launched.popleft()
                        some = min(size * self.devices, count - done)
                        done += some
                        advance(some)
            except KeyboardInterrupt:
                if room is None:
                    raise
                message = f"interrupted: {done} of {count} images are explained; the rest is NaN."
                warnings.warn(message, stacklevel=4)
                return room, True
        assert room is not None
        return room, False

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return 1 if self.mesh is None else prod(self.mesh.shape.values())

    @property
    def platform(self) -> str:
        """What kind of device it is."""
        if self.mesh is not None:
            return self.mesh.devices.flat[0].platform
        return platform_of(self.parts.arrays)

    def fit(self, batch_size: int | str) -> int:
        """Compile; return how many images a device takes at once."""
        share = ceil(len(self.images) / self.devices)
        if batch_size != "auto":
            size = min(int(batch_size), share)
            self.compile(size, int(batch_size))
            return size
        most = self.most()
        budget = self.budget or memory_budget(
            None if self.mesh is None else self.mesh.devices.flat[0]
        )
        size = ceil(share / ceil(share / most))
        while True:
            taken = self.compile(size, most)
            if taken <= budget or max(size, self.lanes) == 1:
                break
            most = max(1, min(most // 2, int(most * budget / taken)))
            size = min(size, most)
        if self.budget is not None and taken > budget:
            raise MemoryError(
                f"`memory` must hold at least one image's pass: that takes {taken:,} bytes, and"
                f" {budget:,} were allowed."
            )
        return size

    def most(self) -> int:
        """How many evaluations a device makes at once by default."""
        if self.platform != "cpu":
            return ACCELERATOR_BATCH
        what = "depthwise gradients" if self.memo.traits.depthwise else "gradients"
        return usual_batches(self.images.shape[1:], self.platform, what)[0]

    def halve(self, size: int, error: Exception) -> int:
        """Compile for half as many images; the error itself unless it tells of memory."""
        if not tells_of_memory(error):
            raise error
        if max(size, self.lanes) == 1:
            message = "not even one image at a time fits into memory; make the images smaller."
            raise MemoryError(message) from error
        half = max(size, self.lanes) // 2
        warnings.warn(
            f"out of memory at batch_size={2 * half}: going on with {half}.", stacklevel=5
        )
        size = max(1, size // 2)
        self.compile(size, half)
        return size

    def compile(self, size: int, most: int) -> int:
        """Compile for blocks of `size` images on each device; return the bytes of a call."""
        arguments, kernel = self.arguments(0, size), self.kernel
        if not isinstance(kernel, Steps):
            return self.add("whole", arguments)
        taken = [self.add("begin", arguments)]
        carry = self.programs["begin"](*arguments)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), carry)
        items = kernel.of.items(one)
        self.chunks = in_chunks(items, max(1, most // size))
        often = len(jax.tree.leaves(items)[0]) >= OFTEN
        step = (*arguments, carry, *self.chunk(0))
        taken.append(self.add("step", step, shared=2, often=often))
        taken.append(self.add("end", (*arguments, carry)))
        return max(taken)

    def add(self, part: str, arguments: Any, shared: int = 0, often: bool = False) -> int:
        """Compile a part of the kernel over a block; the last `shared` arguments are for all."""
        skeleton, call = self.skeleton, self.parts.call

        def one(arrays: Any, *rest: Any) -> Any:
            return PARTS[part](skeleton.fill(arrays[1]), thaw(call, arrays[0]), *rest)

        def make() -> Ahead:
            mapped = len(arguments) - 1 - shared
            over = jax.vmap(one, (None, *[0] * mapped, *[None] * shared))
            if self.mesh is not None:
                each, everywhere = PartitionSpec(self.mesh.axis_names), PartitionSpec()
                specs = (everywhere, *[each] * mapped, *[everywhere] * shared)
                over = jax.shard_map(
                    over, mesh=self.mesh, in_specs=specs, out_specs=each, check_vma=False
                )
            return ahead(over, *arguments, often=often)

        made = self.memo.program((part, skeleton, self.mesh, often), arguments, make, self.seen)
        self.programs[part] = made.arranged(arguments[0])
        return made.bytes

    @cached_property
    def split(self) -> tuple[list[Any], Skeleton]:
        """The kernel's arrays, which are arguments, and the rest of it."""
        return split_arrays(self.kernel)

    @property
    def skeleton(self) -> Skeleton:
        """The kernel without its arrays."""
        return self.split[1]

    def arguments(self, first: int, size: int) -> tuple[Any, Any, Goal]:
        """The scorer's arrays, and a block of images and goals, the last one repeated."""
        count = size * self.devices
        rows = np.minimum(np.arange(first, first + count), len(self.images) - 1)
        weights = None if self.goal.weights is None else np.asarray(self.goal.weights)[rows]
        block = (self.images[rows], Goal(weights, self.goal.function))  # pyright: ignore
        arrays = (self.parts.arrays, self.split[0])
        if self.mesh is None:
            return arrays, *block
        spread = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        return self.everywhere(arrays), *jax.device_put(block, spread)

    @property
    def lanes(self) -> int:
        """How many items of an image a step takes at once."""
        return self.chunks[1].shape[1]

    def everywhere(self, arrays: Any) -> Any:
        """Return arrays on all devices of the mesh."""
        if self.mesh is None:
            return arrays
        return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec()))

    def chunk(self, number: int) -> tuple[Any, Any]:
        """The items of one step, and which of them are live."""
        return self.everywhere(jax.tree.map(lambda x: x[number], self.chunks))

    def block(self, first: int, size: int) -> Found:
        """Launch what finds out about the images from `first` on."""
        arguments = self.arguments(first, size)
        if not isinstance(self.kernel, Steps):
            return self.programs["whole"](*arguments)
        carry = self.programs["begin"](*arguments)
        for number in range(len(self.chunks[1])):
            carry = self.programs["step"](*arguments, carry, *self.chunk(number))
        return self.programs["end"](*arguments, carry)


def _store(room: Found | None, at: int, block: Found, count: int) -> Found:
    """Put a block's arrays in their place, making it first."""
    arrays = [None if x is None else np.asarray(x) for x in block]
    if room is None:
        empty = [
            None if x is None else np.full((count, *x.shape[1:]), np.nan, x.dtype) for x in arrays
        ]
        room = Found(*empty)  # pyright: ignore[reportArgumentType]
    for place, array in zip(room, arrays, strict=True):
        if place is not None and array is not None:
            part = place[at : at + len(array)]
            part[:] = array[: len(part)]
    return room
