"""Hold what a run of `maximize` is compiled for, and the arrays of its steps.

A batch is M objectives by S seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxviz.layers import Layer, numbered
from jaxviz.maximization.objective import Objective
from jaxviz.maximization.parametrize import Parametrization
from jaxviz.maximization.regularize import Penalty, Tidy
from jaxviz.scoring.scorer import Call

Terms = dict[str, jax.Array]


class Problem(NamedTuple):
    """What a step is compiled for; hashable.

    Attributes:
        scorer: f without its arrays.
        groups: ((structure, numbers of the objectives that have it), …), see `group`.
        layers: what the objectives read of f.
        image_shape: (H, W, C).
        parametrization: from parameters to a free image, real numbers about 0.
        bounds: "sigmoid", "project" or "none": from a free image to the value range.
        transforms: applied in order to what f is shown.
        penalties: subtracted from the objective.
        tidies: replace the image after some steps.
        optimizer: an optax transformation, one memory for each image.
        preprocess: from the value range to the input of f.
        grad_modifier: from the gradient of an image to the one to follow.
        backprop: what ReLU passes backwards.
        views: random transformations averaged in a step.
        dtype: of the images given to f.
    """

    scorer: Call
    groups: tuple[tuple[Any, tuple[int, ...]], ...]
    layers: tuple[Layer, ...]
    image_shape: tuple[int, int, int]
    parametrization: Parametrization
    bounds: str
    transforms: tuple[Callable[..., jax.Array], ...]
    penalties: tuple[Penalty, ...]
    tidies: tuple[Tidy, ...]
    optimizer: optax.GradientTransformation
    preprocess: Callable[[jax.Array], jax.Array] | None
    grad_modifier: Callable[[jax.Array], jax.Array] | None
    backprop: str
    views: int
    dtype: Any


class Patience(NamedTuple):
    """How long an image may go on without growing, as arrays: `steps`, and the `growth` of note."""

    steps: jax.Array
    growth: jax.Array


class Waiting(NamedTuple):
    """How an image's total grows, each (M, S).

    Attributes:
        reference: the total when it last grew by the growth of note.
        since: how many steps ago that was.
        steps: how many steps were taken; an image that has waited too long takes none.
    """

    reference: jax.Array
    since: jax.Array
    steps: jax.Array


class Data(NamedTuple):
    """What stays the same from step to step.

    Attributes:
        scorer: the arrays of f.
        objectives: for each group its arrays, stacked.
        low: the lowest pixel value.
        high: the highest.
        keys: (S,) random keys, one a seed.
        start: images (S, H, W, C), or a number that noise is added to.
        patience: when an image stops; None: it does not.
    """

    scorer: Sequence[jax.Array]
    objectives: Sequence[Sequence[jax.Array]]
    low: jax.Array
    high: jax.Array
    keys: jax.Array
    start: jax.Array
    patience: Patience | None


class State(NamedTuple):
    """What a step changes; leaves have leading axes (M, S) except `step`.

    Attributes:
        parameters: of the images now.
        memory: of the optimiser.
        step: how many steps are done.
        best: the parameters with the highest total so far.
        best_total: that total.
        blocked: whether the objective's gradient was zero at every pixel.
        gradient_sum: (M, S, H, W), Σ over steps of the mean |∂objective/∂image| over channels.
        slope: (M, S), the mean |∂objective/∂image| of the last step.
        steepest: the largest of these.
        waiting: how the totals grow; None without `patience`.
    """

    parameters: Any
    memory: Any
    step: jax.Array
    best: Any
    best_total: jax.Array
    blocked: jax.Array
    gradient_sum: jax.Array
    slope: jax.Array
    steepest: jax.Array
    waiting: Waiting | None


def group(objectives: Sequence[Objective]) -> tuple[Any, list[list[jax.Array]]]:
    """Group objectives of one structure: ((structure, numbers), …), and their stacked arrays."""
    flat = [jax.tree.flatten(objective) for objective in objectives]
    members: dict[Any, list[int]] = {}
    for number, (leaves, structure) in enumerate(flat):
        shapes = tuple(np.shape(leaf) for leaf in leaves)
        members.setdefault((structure, shapes), []).append(number)
    stacked = [
        [jnp.stack([jnp.asarray(flat[n][0][i]) for n in numbers]) for i in range(len(key[1]))]
        for key, numbers in members.items()
    ]
    return tuple((key[0], tuple(numbers)) for key, numbers in members.items()), stacked


def term_names(problem: Problem) -> list[str]:
    """Return the history's terms in order; a penalty's second use is its name and "#2"."""
    penalties = numbered(penalty.name for penalty in problem.penalties)
    return ["objective", *penalties, "total"]
