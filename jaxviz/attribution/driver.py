"""Run a kernel over many images: compiled once, within memory, over devices, with progress.

On traced images, as inside `jit`, `vmap` or `grad`, the same function runs the bare kernel and
gives an `Attribution` of traced arrays.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz.attribution.goal import Goal, make_goal, named, score
from jaxviz.attribution.job import Job
from jaxviz.attribution.kernel import Found, Kernel, Seen, Steps, in_float32
from jaxviz.attribution.memo import memo_of
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.layers import ScorerLike, as_scorer
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import (
    check_progress,
    check_rank,
    checked_dtype,
    checked_images,
    checked_memory,
    checked_mesh,
)
from jaxviz.scoring.scorer import cast, split
from jaxviz.scoring.targets import resolve


class Run(NamedTuple):
    """How a run is carried out; what every method takes.

    Attributes:
        batch_size: images, or points of one image, that a device evaluates at once; "auto": as many
            as fit the budget, at most 64 on an accelerator, 16 on a CPU, 2 of large images,
            1 by a network with depthwise convolutions.
        memory: what "auto" may use on a device, see `occlude`; None: a quarter of what is free.
        mesh: devices to spread images over, along all its axes.
        progress: see `occlude`; in images.
        dtype: of the forward and backward pass; None: that of the images.
    """

    batch_size: int | Literal["auto"] = "auto"
    memory: int | str | None = None
    mesh: Mesh | None = None
    progress: Progress = False
    dtype: Any = None


def attribute(
    method: str,
    kernel: Kernel | Steps,
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    target: Any,
    run: Run,
    *,
    reading: MapReading | None = None,
    config: Mapping[str, Any] | None = None,
    seen: Seen | None = None,
) -> Attribution:
    """Explain images by a kernel.

    Args:
        method: its name, for people.
        kernel: of one image.
        f: scorer.
        images: (N, H, W, C), or (H, W, C); traced or not.
        target: what of the scores is explained, see `make_goal`.
        run: how.
        reading: how the maps are read.
        config: options of the method, for the record; None among them is left out.

        seen: what the kernel notes when it is traced, which it may not be again.

    Raises:
        ValueError, TypeError: an argument breaks its rule.
        MemoryError: not even one image fits.
    """
    scorer = as_scorer(f)
    reading = reading or MapReading()
    leaves = jax.tree.leaves((scorer, images, target))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return _traced(method, kernel, scorer, images, target, reading)
    check_progress(run.progress)
    if run.batch_size != "auto":
        whole_number(run.batch_size, "batch_size", choices='"auto"')
    batch, single = checked_images(images, scorer)
    dtype = None if run.dtype is None else checked_dtype(run.dtype)
    parts, batch = cast(split(scorer), batch, dtype)
    mesh, budget = checked_mesh(run.mesh), checked_memory(run.memory)
    memo = memo_of(scorer, parts, batch)
    goal = make_goal(target, scorer, len(batch), memo.traits.scores)
    job = Job(kernel, parts, batch, goal, mesh, budget, memo, seen or Seen())
    found, interrupted = job.run(run.batch_size, run.progress)
    record = {"model": parts.name, "dtype": str(batch.dtype), **(config or {})}
    return make_result(
        method,
        found,
        batch.shape[1:3],
        _explained(target, scorer, found.base),
        single=single,
        partial=interrupted,
        reading=reading,
        config=record,
    )


def make_result(
    method: str,
    found: Found,
    image_shape: tuple[int, ...],
    target: np.ndarray | None,
    *,
    single: bool,
    error: np.ndarray | None = None,
    partial: bool = False,
    every: bool = False,
    reading: MapReading | None = None,
    config: Mapping[str, Any] | None = None,
) -> Attribution:
    """Return a result of arrays with a leading axis N, which a single image loses.

    NaN among them is told, unless an interrupted run left it.
    """
    if not partial and not isinstance(found.values, jax.core.Tracer):
        _warn_of_nan(found)
    pairs = tuple((k, str(v)) for k, v in (config or {}).items() if v is not None)

    def own(array: Any) -> Any:
        return array[0] if single and array is not None else array

    return Attribution(
        *map(own, (found.values, found.base, target, found.delta, error)),
        method=method,
        image_shape=(image_shape[0], image_shape[1]),
        single=single,
        partial=partial,
        every=every,
        reading=reading or MapReading(),
        config=pairs,
    )


def _warn_of_nan(found: Found) -> None:
    both = (np.isnan(x).reshape(len(x), -1).any(1) for x in (found.values, found.base))
    unknown = np.logical_or(*both)
    if unknown.any():
        warnings.warn(
            f"`f`, or its derivative, gave NaN: so are values of {unknown.sum()} of {len(unknown)}"
            " images.",
            stacklevel=5,
        )


def _traced(
    method: str, kernel: Kernel, scorer: Any, images: Any, target: Any, reading: MapReading
) -> Attribution:
    check_rank(images, "images", 3, 4, f=scorer)
    images = with_channels_last(scorer, jnp.asarray(images))
    single = images.ndim == 3
    batch = images[None] if single else images
    shape = jax.eval_shape(lambda x: score(scorer, x), batch[:1]).shape[1:]
    goal = make_goal(target, scorer, len(batch), shape)
    found = in_float32(jax.vmap(lambda image, goal: kernel(scorer, image, goal))(batch, goal))
    target = traced_target(goal, found.base)
    return make_result(method, found, batch.shape[1:3], target, single=single, reading=reading)


def traced_target(goal: Goal, base: jax.Array) -> Any:
    """What a target came to, of traced scores (N, K): classes (N,), weights (N, K), or None."""
    if goal.function is not None:
        return None
    known = jnp.where(jnp.isnan(base), -jnp.inf, base)
    return jnp.argmax(known, -1) if goal.weights is None else goal.weights


def _explained(target: Any, scorer: Any, base: np.ndarray) -> np.ndarray | None:
    """What the target came to: classes (N,) or weights (N, K)."""
    if callable(target):
        return None
    if target is None:
        return np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
    return np.asarray(resolve(named(target, scorer), *base.shape))
