"""Compile an evaluator for one block shape, and choose the shape: by memory, or if asked by trial.

A block is `images` × `positions` occluded images, the batch that one device evaluates at once.
What is compiled is kept by the content of a task, see `Task.key`: a second run of the same shapes
compiles nothing, however many images it has and whatever the values of the weights.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import ceil, inf, prod
from operator import itemgetter
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.compiled import program_bytes
from jaxviz.jaxpr.hoist import hoist
from jaxviz.scoring.batches import of_whole_images, usual_batches
from jaxviz.scoring.evaluators import Dense, Evaluator
from jaxviz.scoring.independence import check_independence
from jaxviz.scoring.memory import held_bytes, memory_budget
from jaxviz.scoring.task import Block, Task

TRIAL_SECONDS = 0.05
KEPT_BYTES, LEAST_BYTES = 2**30, 2**20
ALWAYS_FREE = 2**25  # bytes; to ask how many are free takes a millisecond or two


class Weights(NamedTuple):
    """A scorer's arrays, and what follows from them alone: for `prepare`, and for `evaluate`."""

    arrays: Any
    first: list[jax.Array]
    second: list[jax.Array]


@dataclass(frozen=True)
class Compiled:
    """An evaluator, compiled for one block shape.

    Attributes:
        arrange: arrays -> weights, with what both make of the arrays alone: once a run.
        prepare: (weights, occluder, images) -> states.
        evaluate: (weights, occluder, states, positions, clean) -> scores (images, B, ..., K).
        evaluator: which one.
        block: which shape.
        bytes: what one call adds to the memory of a device, with the states that it reads.
        rows: how many images it gives to the scorer at once.
        held: bytes that it takes between calls.
        scores: shape of what `evaluate` returns, and the floating dtype that holds it.
    """

    arrange: Callable[[Any], Weights]
    prepare: Callable[..., Any]
    evaluate: Callable[..., jax.Array]
    evaluator: Evaluator
    block: Block
    bytes: int
    rows: int
    held: int
    scores: jax.ShapeDtypeStruct

    def arguments(self, task: Task) -> tuple[Weights, Any]:
        """Return what every call gets: the weights, arranged once for a run, and the occluder."""
        arrays, occluder = task.arguments(self.rows)
        return task.scorer.once(self.arrange, arrays), occluder


@dataclass
class Programs:
    """What was compiled and found out for all tasks of one key.

    Attributes:
        compiled: by evaluator, block shape and content of the scorer for so many images at once.
        fastest: what a trial among some evaluators found.
        most: of an evaluator, the batch that running out of memory left.
        batches: of an evaluator, the usual one first.
        checked: whether the scorer is known to score every image by itself.
    """

    compiled: dict[Hashable, Compiled] = field(default_factory=dict)
    fastest: dict[tuple[Evaluator, ...], tuple[Evaluator, int]] = field(default_factory=dict)
    most: dict[Evaluator, int] = field(default_factory=dict)
    batches: dict[Evaluator, tuple[int, ...]] = field(default_factory=dict)
    checked: bool = False

    @property
    def held(self) -> int:
        """Bytes that all of it takes between calls."""
        return LEAST_BYTES + sum(program.held for program in self.compiled.values())

    def compile(self, task: Task, evaluator: Evaluator, block: Block) -> Compiled:
        """Return the program for a block shape, or for half of it, or half of that, that fits."""
        while True:
            rows = evaluator.images_at_once(*block)
            key = (evaluator, block, task.scorer_at(rows).content)
            try:
                if key not in self.compiled:
                    with jax.disable_jit(False):  # programs are compiled before they are run
                        self.compiled[key] = _build(task, evaluator, block)
                return self.compiled[key]
            except jax.errors.JaxRuntimeError as error:
                block = self.smaller(task, evaluator, block, error)

    def smaller(self, task: Task, evaluator: Evaluator, block: Block, error: Exception) -> Block:
        """Return a block of half the size, for tasks of this key from now on; say so.

        Raises:
            JaxRuntimeError: `error` itself, if it tells of something else than memory.
            MemoryError: a block of one image is the smallest there is.
        """
        if not tells_of_memory(error):
            raise error
        size = prod(block)
        if size == 1:
            message = "not even one image at a time fits into memory; make the images smaller."
            raise MemoryError(message) from error
        warnings.warn(
            f"out of memory at batch_size={size}: going on with {size // 2}.", stacklevel=2
        )
        half = _cut(task, size // 2)
        self.most[evaluator] = prod(half)
        return half

    def fit(self, task: Task, evaluator: Evaluator, batch: int) -> Compiled:
        """Return the program with the largest batch up to `batch` that stays within the budget."""
        batch = min(batch, self.most.get(evaluator, batch))
        program = self.compile(task, evaluator, _cut(task, batch))
        if task.budget is None and program.bytes <= ALWAYS_FREE:
            return program
        budget = memory_budget(task.device) if task.budget is None else task.budget
        while program.bytes > budget and prod(program.block) > 1:
            program = self.compile(task, evaluator, _cut(task, prod(program.block) // 2))
        if task.budget is not None and program.bytes > budget:
            raise MemoryError(
                "`memory` must hold at least one image's forward pass: that takes"
                f" {program.bytes:,} bytes, and {budget:,} were allowed."
            )
        return program

    def choose(self, task: Task, batch_size: int | str) -> Compiled:
        """Return the program of a batch size, the usual one, or what a trial finds fastest."""
        preferred = task.evaluators[0]
        if batch_size == "auto":
            usual = self.batches_of(task, preferred)[0]
            return self.fit(task, preferred, of_whole_images(usual, task.rows))
        if batch_size != "fastest":
            return self.compile(task, preferred, _cut(task, min(int(batch_size), task.total_rows)))
        if task.evaluators not in self.fastest:
            program = self.try_all(task)
            self.fastest[task.evaluators] = (program.evaluator, prod(program.block))
        return self.fit(task, *self.fastest[task.evaluators])

    def try_all(self, task: Task) -> Compiled:
        """Time every evaluator with its first batch, and the fastest with the others."""

        def timed(evaluator: Evaluator, batch: int) -> tuple[float, Compiled]:
            program = self.fit(task, evaluator, batch)
            return _seconds_per_row(task, program), program

        tried = [timed(each, self.batches_of(task, each)[0]) for each in task.evaluators]
        best = min(tried, key=itemgetter(0))[1].evaluator
        tried += [timed(best, batch) for batch in self.batches_of(task, best)[1:]]
        return min(tried, key=itemgetter(0))[1]

    def batches_of(self, task: Task, evaluator: Evaluator) -> tuple[int, ...]:
        """Return what `_batches` does, which traces the scorer, once."""
        if evaluator not in self.batches:
            self.batches[evaluator] = _batches(task, evaluator)
        return self.batches[evaluator]

    def check(self, task: Task) -> None:
        """Check once that the scorer scores every image by itself, whatever evaluates it."""
        if self.checked:
            return
        try:
            check_independence(task.scorer, task.images)
        except jax.errors.JaxRuntimeError as error:
            if not tells_of_memory(error):
                raise
            return  # where three images at once do not fit, a block of one still may
        self.checked = True


_programs = Cache[Programs](KEPT_BYTES, lambda programs: programs.held)


def programs_of(task: Task) -> Programs:
    """Return what is known of all tasks with the key of this one."""
    return _programs.get(task.key, Programs)


def choose(task: Task, batch_size: int | str = "auto") -> Compiled:
    """Return the compiled program for a task.

    Args:
        task: what to score.
        batch_size: images that a device evaluates at once; or "auto": as many as fit the budget,
            at most the first of `usual_batches`; or "fastest": all evaluators are tried
            once, and on a CPU the fastest of them with two other sizes too; what was found is kept.

    Returns:
        The program.

    Raises:
        ValueError: the scorer's scores have the wrong shape, depend on the other images, or on
            chance.
        MemoryError: a budget was set and not even a batch of one stays within it.
    """
    programs = programs_of(task)
    programs.check(task)
    program = programs.choose(task, batch_size)
    task.remember(program.rows)
    return program


def halve(task: Task, program: Compiled, error: Exception) -> Compiled:
    """Return the program with blocks of half the size, and say so, if memory ran out.

    Raises:
        JaxRuntimeError: `error` itself, if it tells of something else.
        MemoryError: a block of one image is the smallest there is.
    """
    programs = programs_of(task)
    half = programs.smaller(task, program.evaluator, program.block, error)
    return programs.compile(task, program.evaluator, half)


def tells_of_memory(error: Exception) -> bool:
    """Say whether an error of the device is that its memory is full."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _batches(task: Task, evaluator: Evaluator) -> tuple[int, ...]:
    """Return the batches to try, as many for every evaluator."""
    if not isinstance(evaluator, Dense):
        what = "windows"
    else:
        what = "depthwise" if task.scorer_at(1).call.depthwise else "whole"
    return usual_batches(task.images.shape[1:], task.device.platform, what)


def _cut(task: Task, batch: int) -> Block:
    """Cut an image's rows into equal parts of at most `batch`, or take several whole images."""
    # 21 rows in batches of 16 are 11 + 10, not 16 + 5: the last block wastes at most a row a part.
    return Block(max(1, batch // task.rows), ceil(task.rows / ceil(task.rows / batch)))


def _build(task: Task, evaluator: Evaluator, block: Block) -> Compiled:
    rows = evaluator.images_at_once(*block)
    arrays, occluder = task.arguments(rows)
    arrange, prepare, evaluate = _parts(task, evaluator, block)
    if task.mesh is not None:
        everywhere, images, positions = task.spec(), task.spec("images"), task.spec("positions")
        states = (everywhere, everywhere, images)
        prepare = _over(task.mesh, prepare, states, images)
        split = (*states, positions, positions)
        evaluate = _over(task.mesh, evaluate, split, task.spec("images", "positions"))
    arguments = (arrange(arrays), occluder)
    with_images = (*arguments, task.images_from(0, block))
    with _placed(task):
        first = jax.jit(prepare).trace(*with_images)
        lowered = first.lower()
    preparing = lowered.compile()

    def prepared(*inputs: Any) -> Any:
        with (
            jax.disable_jit(False),
            jax.debug_infs(False),
        ):  # what lies beyond the border of a pool is -∞
            return preparing(*inputs)

    with_rows = (*arguments, prepared(*with_images), *task.positions_from(0, block))
    with _placed(task):
        second = jax.jit(evaluate).trace(*with_rows)
        lowered = second.lower()
    evaluating = lowered.compile()

    def evaluated(*inputs: Any) -> Any:
        with jax.disable_jit(False):
            return evaluating(*inputs)

    size = program_bytes(preparing) + program_bytes(evaluating)
    # Not the sum: what both read of the scorer is one array.
    held = max(held_bytes(first, preparing), held_bytes(second, evaluating))
    out: Any = lowered.out_info
    kept = np.dtype(np.float64) if out.dtype.kind in "iu" else out.dtype  # NaN is kept as well
    scores = jax.ShapeDtypeStruct(out.shape, kept)
    return Compiled(arrange, prepared, evaluated, evaluator, block, size, rows, held, scores)


def _parts(
    task: Task, evaluator: Evaluator, block: Block
) -> tuple[Callable[[Any], Weights], Callable, Callable]:
    """Return `arrange`, `prepare` and `evaluate` for the block of one device."""
    rows = evaluator.images_at_once(*block)
    call, (arrays, occluder) = task.scorer_at(rows).call, task.arguments(rows)

    def prepare(arrays: Any, occluder: Any, images: jax.Array) -> Any:
        return jax.vmap(lambda image: evaluator.prepare(call, arrays, occluder, image))(images)

    def evaluate(arrays: Any, occluder: Any, states: Any, positions: jax.Array, clean: jax.Array):
        scores = evaluator.evaluate(call, arrays, occluder, states, positions, clean)
        # Integers of four bytes or more go as they are: float32 would round them above 2²⁴.
        whole = jnp.issubdtype(scores.dtype, jnp.integer) and scores.dtype.itemsize >= 4
        return scores if whole else scores.astype(np.promote_types(scores.dtype, np.float32))

    shapes = jax.eval_shape(lambda tree: tree, (arrays, occluder))
    images = jax.ShapeDtypeStruct((block.images, *task.images.shape[1:]), task.images.dtype)
    positions = jax.ShapeDtypeStruct((block.positions, *task.positions.shape[1:]), jnp.int32)
    clean = jax.ShapeDtypeStruct((block.positions,), jnp.bool_)
    with jax.default_device(task.device):
        first = hoist(prepare, *shapes, images)
        states = jax.eval_shape(prepare, *shapes, images)
        second = hoist(evaluate, *shapes, states, positions, clean)

    def made(arrays: Any) -> tuple[list[jax.Array], list[jax.Array]]:
        return first.prepare(arrays), second.prepare(arrays)

    everywhere = None if task.mesh is None else NamedSharding(task.mesh, task.spec())
    make = jax.jit(made, out_shardings=everywhere)

    def arrange(arrays: Any) -> Weights:
        if not (first.prepares or second.prepares):
            return Weights(arrays, [], [])
        with jax.disable_jit(False):
            return Weights(arrays, *make(arrays))

    return (
        arrange,
        lambda weights, *rest: first.evaluate(weights.arrays, weights.first, *rest),
        lambda weights, *rest: second.evaluate(weights.arrays, weights.second, *rest),
    )


@contextmanager
def _placed(task: Task) -> Iterator[None]:
    """Trace and lower for the devices of a task, whatever devices or mesh the caller has set."""
    # Traced arrays do not tell where they will lie.
    with ExitStack() as stack:
        stack.enter_context(jax.default_device(task.device))
        if task.mesh is not None:
            stack.enter_context(jax.set_mesh(task.mesh))
        yield


def _over(mesh: Mesh, function: Callable, inputs: Any, outputs: Any) -> Callable:
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def _seconds_per_row(task: Task, program: Compiled) -> float:
    rows, seconds = task.positions_from(0, program.block), []
    arguments = program.arguments(task)
    try:
        states = program.prepare(*arguments, task.images_from(0, program.block))
        while len(seconds) < 2 or sum(seconds) < TRIAL_SECONDS:
            start = perf_counter()
            jax.block_until_ready(program.evaluate(*arguments, states, *rows))
            seconds.append(perf_counter() - start)
    except jax.errors.JaxRuntimeError as error:
        if not tells_of_memory(error):
            raise
        return inf
    return min(seconds) / prod(program.block)
