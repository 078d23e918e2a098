"""Compile an evaluator for one block shape, and choose the shape: by memory, and on a CPU by trial.

A block is `images` × `positions` occluded images, the batch that one device evaluates at once.
Programs are kept, and found again by structure: a second run of the same shapes compiles nothing,
however many images it has and whatever the values of the weights.
"""

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz.scoring.evaluators import Evaluator
from jaxviz.scoring.memory import memory_budget, program_bytes
from jaxviz.scoring.task import Block, Task

ACCELERATOR_BATCH = 256
# XLA's convolutions on a CPU run fastest at some small batch, which depends on the network, and
# mostly is smaller for large images; a long run tries a few, others take the first. Not 32: at just
# that size some products run at a quarter of their speed.
CPU_BATCHES = (16, 48, 8)
CPU_BATCHES_OF_LARGE_IMAGES = (8, 16, 4)
LARGE_IMAGE = 128 * 128
ROWS_WORTH_TRYING = 512
TRIAL_SECONDS = 0.05
# Another size gains a tenth or two, and costs a compilation: short, or the run must be longer.
SHORT_TRIAL_SECONDS = 1.0
RUN_OVER_TRIAL = 5
KEPT_TASKS = 32


@dataclass(frozen=True)
class Compiled:
    """An evaluator, compiled for one block shape.

    Attributes:
        prepare: (arrays, occluder, images) -> states.
        evaluate: (arrays, occluder, states, positions, clean) -> scores (images, B, ..., K).
        evaluator: which one.
        block: which shape.
        bytes: what one call adds to the memory of a device, with the states that it reads.
        scores: shape and dtype of what `evaluate` returns.
    """

    prepare: Callable[..., Any]
    evaluate: Callable[..., jax.Array]
    evaluator: Evaluator
    block: Block
    bytes: int
    scores: jax.ShapeDtypeStruct


@dataclass
class _Known:
    """What was found out about all tasks that compile to the same programs."""

    programs: dict[tuple[Evaluator, Block], Compiled] = field(default_factory=dict)
    fastest: dict[tuple[Evaluator, ...], tuple[Evaluator, Block]] = field(default_factory=dict)
    checked: set[Evaluator] = field(default_factory=set)


_known_tasks: OrderedDict[Hashable, _Known] = OrderedDict()


def choose(task: Task, batch_size: int | str = "auto") -> Compiled:
    """Return the compiled program for a task.

    Args:
        task: what to score.
        batch_size: images that a device evaluates at once, or "auto": as many as fit the budget, at
            most 256 on an accelerator, 16 on a CPU, 8 of images from 128×128 on. Where an image has
            many positions, all evaluators are tried once, and on a CPU the fastest of them with two
            other sizes too unless compiling takes long and the run is short; the fastest is kept.

    Returns:
        The program.

    Raises:
        ValueError: the scorer's scores have the wrong shape or depend on the other images.
        MemoryError: a budget was set and not even a batch of one stays within it.
    """
    known = _known(task)
    program = _chosen(task, batch_size)
    while program.evaluator not in known.checked:
        try:
            _check_rows(task, program)
        except jax.errors.JaxRuntimeError as error:
            program = halve(task, program.evaluator, program.block, error)
        else:
            known.checked.add(program.evaluator)
    return program


def halve(task: Task, evaluator: Evaluator, block: Block, error: Exception) -> Compiled:
    """Return the program with blocks of half the size, and say so, if memory ran out.

    Raises:
        JaxRuntimeError: `error` itself, if it tells of something else.
        MemoryError: a block of one image is the smallest there is.
    """
    if not _tells_of_memory(error):
        raise error
    size = prod(block)
    if size == 1:
        message = "not even one image at a time fits into memory; make the images smaller."
        raise MemoryError(message) from error
    warnings.warn(f"out of memory at batch_size={size}: going on with {size // 2}.", stacklevel=2)
    smaller = _compile(task, evaluator, _cut(task, size // 2))
    _known(task).fastest[task.evaluators] = (evaluator, smaller.block)
    return smaller


def _tells_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)


def _chosen(task: Task, batch_size: int | str) -> Compiled:
    known, preferred = _known(task), task.evaluators[0]
    if batch_size != "auto":
        return _compile(task, preferred, _cut(task, min(int(batch_size), task.total_rows)))
    if task.evaluators in known.fastest:
        evaluator, block = known.fastest[task.evaluators]
        return fit(task, evaluator, prod(block))
    batches = _batches(task)
    if task.rows < ROWS_WORTH_TRYING:
        return fit(task, preferred, batches[0])
    program = _fastest(task, batches)
    known.fastest[task.evaluators] = (program.evaluator, program.block)
    return program


def _batches(task: Task) -> tuple[int, ...]:
    if task.device.platform != "cpu":
        return (ACCELERATOR_BATCH,)
    large = prod(task.images.shape[1:3]) >= LARGE_IMAGE
    return CPU_BATCHES_OF_LARGE_IMAGES if large else CPU_BATCHES


def _fastest(task: Task, batches: tuple[int, ...]) -> Compiled:
    """Try every evaluator with the first batch, the best of them with others while that pays."""
    evaluators, tried = task.evaluators, []
    for batch in batches:
        start = time.perf_counter()
        for evaluator in evaluators:
            program = fit(task, evaluator, batch)
            tried.append((_seconds_per_row(task, program), program))
        spent = (time.perf_counter() - start) / len(evaluators)
        seconds, best = min(tried, key=lambda timed: timed[0])
        evaluators = (best.evaluator,)
        if spent > max(SHORT_TRIAL_SECONDS, seconds * task.total_rows / RUN_OVER_TRIAL):
            break
    return min(tried, key=lambda timed: timed[0])[1]


def _compile(task: Task, evaluator: Evaluator, block: Block) -> Compiled:
    """Return the program for one block shape, compiled unless it is known."""
    programs = _known(task).programs
    if (evaluator, block) not in programs:
        try:
            programs[evaluator, block] = _build(task, evaluator, block)
        except jax.errors.JaxRuntimeError as error:
            return halve(task, evaluator, block, error)
    return programs[evaluator, block]


def _known(task: Task) -> _Known:
    # A program holds for the numerical settings under which it was traced.
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision)  # pyright: ignore
    leaves, structure = jax.tree.flatten(task.arguments)
    shapes = tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)
    image = (task.images.shape[1:], str(task.images.dtype), task.positions.shape[1:])
    key = (task.scorer.call, structure, shapes, image, task.mesh, settings)
    known = _known_tasks.setdefault(key, _Known())
    _known_tasks.move_to_end(key)
    while len(_known_tasks) > KEPT_TASKS:
        _known_tasks.popitem(last=False)
    return known


def _cut(task: Task, batch: int) -> Block:
    """Cut an image's rows into equal parts of at most `batch`, or take several whole images."""
    return Block(max(1, batch // task.rows), ceil(task.rows / ceil(task.rows / batch)))


def fit(task: Task, evaluator: Evaluator, batch: int) -> Compiled:
    """Return the program with the largest batch up to `batch` that stays within the budget."""
    budget = memory_budget(task.device) if task.budget is None else task.budget
    program = _compile(task, evaluator, _cut(task, batch))
    while program.bytes > budget and prod(program.block) > 1:
        program = _compile(task, evaluator, _cut(task, prod(program.block) // 2))
    if task.budget is not None and program.bytes > budget:
        raise MemoryError(
            f"`memory` must hold at least one image's forward pass: that takes {program.bytes:,}"
            f" bytes, and {budget:,} were allowed."
        )
    return program


def _build(task: Task, evaluator: Evaluator, block: Block) -> Compiled:
    call = task.scorer.call

    def prepare(arrays: Any, occluder: Any, images: jax.Array) -> Any:
        return jax.vmap(lambda image: evaluator.prepare(call, arrays, occluder, image))(images)

    def evaluate(arrays: Any, occluder: Any, states: Any, positions: jax.Array, clean: jax.Array):
        scores = evaluator.evaluate(call, arrays, occluder, states, positions, clean)
        return scores.astype(jnp.float64 if scores.dtype == jnp.float64 else jnp.float32)

    if task.mesh is not None:
        everywhere, images, positions = task.spec(), task.spec("images"), task.spec("positions")
        states = (everywhere, everywhere, images)
        prepare = _over(task.mesh, prepare, states, images)
        split = (*states, positions, positions)
        evaluate = _over(task.mesh, evaluate, split, task.spec("images", "positions"))
    with_images = (*task.arguments, task.images_from(0, block))
    first = jax.jit(prepare).lower(*with_images).compile()
    with_rows = (*task.arguments, first(*with_images), *task.positions_from(0, block))
    lowered = jax.jit(evaluate).lower(*with_rows)
    second = lowered.compile()
    size = program_bytes(first) + program_bytes(second)
    return Compiled(first, second, evaluator, block, size, lowered.out_info)


def _over(mesh: Mesh, function: Callable, inputs: Any, outputs: Any) -> Callable:
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def _check_rows(task: Task, program: Compiled) -> None:
    """Raise ValueError if the clean image's score depends on what else is in the batch."""
    images = task.images_from(0, program.block)
    positions, clean = task.positions_from(0, program.block)
    low, high = images.min(), images.max()
    negative = low + high - images[:, ::-1, ::-1] + np.asarray(low == high, images.dtype)
    states, others = (program.prepare(*task.arguments, x) for x in (images, negative))
    alone, among = (
        np.asarray(program.evaluate(*task.arguments, (*states[:-1], others[-1]), positions, rows))
        for rows in (np.ones_like(clean), np.arange(len(clean)) == 0)
    )
    first, last, among = alone[0, 0], alone[0, -1], among[0, 0]
    size = np.max(np.abs(first), where=np.isfinite(first), initial=0)
    near = partial(np.allclose, first, rtol=1e-2, atol=1e-3 * size, equal_nan=True)
    if not near(last):
        raise ValueError(
            "`f` must score equal images alike, but two of one batch differ by"
            f" {np.max(np.abs(first - last)):.3g}; is a dropout in training mode in it?"
        )
    if not near(among):
        raise ValueError(
            "`f` must score every image by itself, but the score of an image changed by"
            f" {np.max(np.abs(first - among)):.3g} when the other images of its batch changed; is a"
            " batch normalisation in training mode, or a sum over the batch, in it?"
        )


def _seconds_per_row(task: Task, program: Compiled) -> float:
    rows, seconds = task.positions_from(0, program.block), []
    try:
        states = program.prepare(*task.arguments, task.images_from(0, program.block))
        while len(seconds) < 2 or sum(seconds) < TRIAL_SECONDS:
            start = time.perf_counter()
            jax.block_until_ready(program.evaluate(*task.arguments, states, *rows))
            seconds.append(time.perf_counter() - start)
    except jax.errors.JaxRuntimeError as error:
        if not _tells_of_memory(error):
            raise
        return inf
    return min(seconds) / prod(program.block)
