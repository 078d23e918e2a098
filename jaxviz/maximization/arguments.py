"""Check the arguments of `maximize` before anything is compiled."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._arguments import whole_number
from jaxviz.jaxpr.layout import turned
from jaxviz.jaxpr.relu import check_backprop
from jaxviz.jaxpr.squashed import squashed
from jaxviz.jaxpr.walk import dependent, trace
from jaxviz.maximization.objective import Objective, check
from jaxviz.maximization.parametrize import Parametrization
from jaxviz.maximization.problem import Data, Problem, group
from jaxviz.maximization.regularize import Penalty, Tidy
from jaxviz.maximization.schedule import Schedule
from jaxviz.maximization.step import evaluate_objective, network, views
from jaxviz.scoring.arguments import as_pixels

BOUNDS = ("sigmoid", "project", "none")


def checked_objectives(objective: Any) -> list[Objective]:
    """Return a list of the objectives, given one or a sequence."""
    single = isinstance(objective, Objective) or not isinstance(objective, Iterable)
    objectives: list[Any] = [objective] if single else list(cast(Iterable, objective))
    if not objectives:
        raise ValueError("`objective` must be one at least: got none.")
    for one in objectives:
        if not isinstance(one, Objective):
            raise TypeError(
                "`objective` must be made by `jaxviz.objectives`, such as `unit(3)` for class 3: "
                f"got {one!r}."
            )
    return objectives


def check_range(value_range: tuple[float, float]) -> None:
    """Raise ValueError unless the value range has a lowest and a highest value."""
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"`value_range` must be (lowest, highest), finite: got ({low}, {high}).")


def checked_start(f: Any, start: Any, shape: tuple[int, int, int], seeds: int | None) -> jax.Array:
    """Return what to start from: images (S, H, W, C), or a number."""
    number = isinstance(start, int | float | np.number)
    images = jnp.asarray(start if number else as_pixels(start, "start"), jnp.float32)
    images = turned(f, images)
    images = images[None] if images.ndim == 3 else images
    if images.ndim and images.shape[1:] != shape:
        raise ValueError(
            f"`start` must have shape {shape}, or (seeds, *{shape}): got {np.shape(start)}."
        )
    if images.ndim and seeds not in (None, len(images)):
        raise ValueError(f"`seeds` must be one a start image, {len(images)}: got {seeds}.")
    if not bool(jnp.isfinite(images).all()):
        raise ValueError("`start` must be finite: got NaN or infinite pixels.")
    return images


def check_start_inside(start: jax.Array, value_range: tuple[float, float], bounds: str) -> None:
    """Raise ValueError if bounds would cut off what it starts from, beyond rounding."""
    low, high = value_range
    margin = 1e-5 * (high - low)
    lowest, highest = float(start.min()), float(start.max())
    if bounds != "none" and not low - margin <= lowest <= highest <= high + margin:
        raise ValueError(
            f"`start` must lie inside `value_range`, {low:g} to {high:g}: got {lowest:g} to "
            f"{highest:g}; scale it, or give the range it has."
        )


def checked_regularizers(terms: Any) -> tuple[Penalty | Tidy, ...]:
    """Return penalties and tidying steps, given one or a sequence."""
    listed: tuple[Any, ...] = tuple(terms) if isinstance(terms, Iterable) else (terms,)
    for term in listed:
        if not isinstance(term, Penalty | Tidy):
            raise TypeError(
                "`regularizers` must be made by `jaxviz.regularize`, such as penalty(function, "
                f"weight): got {_shown(term)}."
            )
    return listed


def checked_transforms(transforms: Any) -> tuple[Callable[..., jax.Array], ...]:
    """Return transforms, given one or a sequence."""
    listed: tuple[Any, ...] = (
        tuple(transforms) if isinstance(transforms, Iterable) else (transforms,)
    )
    for transform in listed:
        if not callable(transform):
            raise TypeError(
                "`transforms` must be functions (key, images) -> images, see `jaxviz.transforms`: "
                f"got {_shown(transform)}."
            )
    return listed


def _check_kinds(problem: Problem, schedule: Schedule) -> None:
    """Raise TypeError for an option that is no such thing, as where a call was forgotten."""
    parametrization, optimizer = problem.parametrization, problem.optimizer
    if not isinstance(parametrization, Parametrization):
        raise TypeError(
            "`parametrization` must be made by `jaxviz.parametrize`, such as fourier(): got "
            f"{_shown(parametrization)}."
        )
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            "`optimizer` must be an optax transformation, such as optax.adam(0.05): got "
            f"{_shown(optimizer)}."
        )
    functions = {"preprocess": problem.preprocess, "grad_modifier": problem.grad_modifier}
    for name, function in {**functions, "callback": schedule.callback}.items():
        if function is not None and not callable(function):
            raise TypeError(f"`{name}` must be a function or None: got {_shown(function)}.")


def _shown(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def check_options(
    problem: Problem, schedule: Schedule, counts: dict[str, int | None], start: jax.Array
) -> None:
    """Raise ValueError where an option is out of range, TypeError where it is something else."""
    _check_kinds(problem, schedule)
    counts = {**counts, "steps": schedule.steps, "views": problem.views}
    counts |= {"snapshot_every": schedule.snapshot_every, "patience": schedule.patience}
    for name, count in counts.items():
        if count is not None:
            whole_number(count, name)
    if problem.bounds not in BOUNDS:
        known = ", ".join(("auto", *BOUNDS))
        raise ValueError(f"`bounds` must be one of {known}: got {problem.bounds!r}.")
    if schedule.loop not in ("auto", "host", "scan"):
        raise ValueError(f"`loop` must be one of auto, host, scan: got {schedule.loop!r}.")
    check_backprop(problem.backprop)
    if problem.parametrization.encode is None and (start.ndim or problem.tidies):
        raise ValueError(
            "`parametrization` must have `encode` for start images and tidying steps: got one "
            "without; add the third function, or leave them out."
        )
    _check_optimizer(problem)


def _check_optimizer(problem: Problem) -> None:
    def step(parameters: Any) -> Any:
        memory = problem.optimizer.init(parameters)
        return problem.optimizer.update(parameters, memory, parameters)

    init, shape = problem.parametrization.init, problem.image_shape
    parameters = jax.eval_shape(lambda key: init(key, shape), jax.random.key(0))
    try:
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(step, parameters)
    except TypeError as error:
        raise ValueError(
            "`optimizer` must need nothing but the gradient: got one that asks for more, such as a "
            f"line search ({error}); for L-BFGS, give optax.lbfgs(0.1, linesearch=None)."
        ) from error


def check_objectives(problem: Problem, data: Data, objectives: Sequence[Objective]) -> list[bool]:
    """Raise ValueError where an objective does not fit its layers or ignores the image.

    Returns:
        Which objectives read probabilities.
    """
    images = jax.ShapeDtypeStruct((1, len(data.keys), *problem.image_shape), jnp.float32)
    shown = jax.eval_shape(partial(views, problem, data), jnp.int32(0), images)
    seen = jax.ShapeDtypeStruct(shown.shape[2:], problem.dtype)
    read = partial(network, problem, data)
    _, flat, _, tree = trace(read, seen, open_derivatives=True)
    likely = dict(zip(problem.layers, squashed(flat), strict=True))
    found = tree.unflatten([flat.aval(x) for x in flat.outputs])
    shapes = {n: value.shape[1:] for n, value in zip(problem.layers, found, strict=True)}
    for objective in objectives:
        check(objective, shapes)
    moving = dependent(flat, [True])
    groups, arrays = group(objectives)
    for (structure, numbers), values in zip(groups, arrays, strict=True):
        one = [value[0] for value in values]
        flat = trace(partial(evaluate_objective, problem, structure), one, found).flat
        marks = [False] * len(one) + moving
        if not any(dependent(flat, marks)):
            raise ValueError(
                f"`objective` must depend on the image: objective {numbers[0]} does not; it reads "
                f"{objectives[numbers[0]].layers}."
            )
    return [any(likely[layer] for layer in objective.layers) for objective in objectives]
