"""Find images that maximise an objective: activation maximisation, feature visualisation.

`maximize` runs gradient ascent on a batch, one image for each objective and seed. Images are
(batch, height, width, channel) in the units of `value_range`, float32. The step is compiled once.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.keys import check_key
from jaxviz.layers import ScorerLike, as_scorer
from jaxviz.maximization.arguments import (
    check_objectives,
    check_options,
    check_range,
    check_start_inside,
    checked_objectives,
    checked_regularizers,
    checked_start,
    checked_transforms,
)
from jaxviz.maximization.defaults import defaults
from jaxviz.maximization.loop import REDIRECTED_STEPS, run_batches
from jaxviz.maximization.objective import Objective
from jaxviz.maximization.parametrize import Parametrization
from jaxviz.maximization.problem import Data, Patience, Problem
from jaxviz.maximization.regularize import Penalty, Tidy
from jaxviz.maximization.result import Maximized, NotFiniteError
from jaxviz.maximization.schedule import Schedule
from jaxviz.maximization.step import network
from jaxviz.maximization.transforms import Transform
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import check_progress, checked_image_shape
from jaxviz.scoring.batches import LARGE_IMAGE
from jaxviz.scoring.independence import check_independence
from jaxviz.scoring.scorer import split

__all__ = ["Maximized", "NotFiniteError", "maximize"]


def maximize(
    f: ScorerLike,
    objective: Objective | Sequence[Objective],
    *,
    key: jax.Array,
    image_shape: tuple[int, int, int] | None = None,
    steps: int = 512,
    seeds: int | None = None,
    start: jax.Array | float | None = None,
    optimizer: optax.GradientTransformation | None = None,
    parametrization: Parametrization | None = None,
    bounds: str = "auto",
    transforms: Sequence[Transform] | None = None,
    views: int = 1,
    regularizers: Sequence[Penalty | Tidy] | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    backprop: str = "plain",
    grad_modifier: Callable[[jax.Array], jax.Array] | None = None,
    redirect_steps: int = REDIRECTED_STEPS,
    dtype: DTypeLike = jnp.float32,
    batch_size: int | None = None,
    snapshot_every: int | None = None,
    patience: int | None = None,
    min_improvement: float = 1e-3,
    callback: Callable[[int, jax.Array, dict[str, jax.Array]], object] | None = None,
    progress: Progress = False,
    loop: str = "auto",
) -> Maximized:
    """Find images that maximise an objective, by gradient ascent on a batch.

    Each step moves the parameters of image n along ∂/∂parameters of
    mean over views of objective_n(f(preprocess(transforms(image)))) − Σ penalties(image).
    What is not given comes from `jaxviz.maximization.defaults`: one set for drawings, images of one
    channel, and one for photographs, all others.

    Args:
        f: a scorer: an adapter model, an NNX module, (Linen module, variables), any function of
            images.
        objective: one objective, or a list of them for one batch: see `jaxviz.objectives`.
        key: a random key. All images of one seed start alike; the same key gives the same images
            bit for bit.
        image_shape: (H, W, C); None for the model's `input_shape`.
        steps: number of steps, ≥ 1.
        seeds: images for each objective, from different random starts; None for 1, or one a start
            image.
        start: inside the value range, unless `bounds` is "none": images (S, H, W, C) or (H, W, C)
            to start from, or a number, to which noise is added; None for the lowest value for a
            drawing, else the middle.
        optimizer: any optax transformation without a line search; None for Adam at 0.05.
        parametrization: what the optimiser moves, see `jaxviz.parametrize`; None for the pixels of
            a drawing, the spectrum of a photograph.
        bounds: how images stay in the value range: "sigmoid", "project" (clip after each step),
            "none" (they do not), or "auto": "project" for a drawing, else "sigmoid".
        transforms: applied in order before f, at random; None for small shifts, and for a
            photograph zooms of up to a tenth.
        views: random transformations averaged in each step, ≥ 1.
        regularizers: penalties and tidying steps, see `jaxviz.regularize`; None for total variation
            and, for a drawing, ink.
        value_range: (lowest, highest) pixel value.
        preprocess: from images in the value range to f's input, such as another order of channels.
        backprop: what ReLU passes backwards: "plain", "guided" or "rectified".
        grad_modifier: from the gradient (H, W, C) of an image to the one to follow.
        redirect_steps: in the first so many steps, where the gradient of an image is zero
            everywhere (dead ReLUs), let it through the ReLUs that block it; 0 never does.
        dtype: of the images given to f.
        batch_size: objectives at a time; None for all, but on a CPU for one where images are large
            (128² pixels or more) and there is no `callback`, which is what is fastest there.
        snapshot_every: keep the images every so many steps.
        patience: an image stops, and stays as it is, once its total has not grown by
            `min_improvement` of its size for so many steps; the run stops with its last image. None
            never does.
        min_improvement: the smallest growth that counts, a share of the total's size.
        callback: called as callback(step, images, terms) after each step of a batch; a true answer
            stops the run, batches that are still to come included.
        progress: True for a bar, or a function called as progress(steps done, steps in all).
        loop: "scan" (one compiled loop), "host" (one call a step), or "auto" for what is faster
            here; on the CPU the images are the same bit for bit.

    Returns:
        `Maximized`, with N = objectives × seeds images.

    Raises:
        ValueError: an option is out of range, a layer or channel unknown, the objective does not
            depend on the image, or what it reads depends on the other images of a batch.
        TypeError: `objective`, `key` or another option is something else.
        NotFiniteError: a term became NaN or infinite; names step and term, and holds the best
            images so far.

    Warns:
        UserWarning: in 16 steps or more, an objective did not rise, or the probabilities that it
            reads ended saturated, so that next to nothing moves them.

    Example:
        >>> import jax, jaxviz as jv
        >>> f = lambda images: images.mean((1, 2))
        >>> options = {"image_shape": (8, 8, 1), "key": jax.random.key(0)}
        >>> both = [jv.objectives.unit(0), -jv.objectives.unit(0)]
        >>> result = jv.maximize(f, both, steps=9, **options)
        >>> result.images.shape, result.history["objective"].shape
        ((2, 8, 8, 1), (9, 2))

    Source:
        Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", 2009; Olah,
        Mordvintsev, Schubert, "Feature Visualization", Distill 2017, doi:10.23915/distill.00007.
    """
    objectives = checked_objectives(objective)
    check_key(key)
    check_progress(progress)
    shape = checked_image_shape(f, image_shape)
    check_range(value_range)
    usual = defaults(shape, value_range)
    first = checked_start(f, usual.start if start is None else start, shape, seeds)
    seeds = len(first) if first.ndim else 1 if seeds is None else seeds
    parts = split(as_scorer(f))
    terms = checked_regularizers(usual.regularizers if regularizers is None else regularizers)
    problem = Problem(
        scorer=parts.call,
        groups=(),
        layers=tuple(dict.fromkeys(layer for o in objectives for layer in o.layers)),
        image_shape=shape,
        parametrization=parametrization or usual.parametrization,
        bounds=usual.bounds if bounds == "auto" else bounds,
        transforms=checked_transforms(usual.transforms if transforms is None else transforms),
        penalties=tuple(term for term in terms if isinstance(term, Penalty)),
        tidies=tuple(term for term in terms if isinstance(term, Tidy)),
        optimizer=optimizer or _adam(),
        preprocess=preprocess,
        grad_modifier=grad_modifier,
        backprop=backprop,
        views=views,
        dtype=jnp.dtype(dtype),
    )
    schedule = Schedule(steps, loop, redirect_steps, snapshot_every, patience, callback)
    counts = {"seeds": seeds, "batch_size": batch_size}
    check_options(problem, schedule, counts, first)
    check_start_inside(first, value_range, problem.bounds)
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.arange(seeds))
    low, high = (jnp.asarray(bound, jnp.float32) for bound in value_range)
    waits = (
        None if patience is None else Patience(jnp.int32(patience), jnp.float32(min_improvement))
    )
    data = Data(parts.arrays, (), low, high, keys, first, waits)
    likely = check_objectives(problem, data, objectives)
    noise = np.random.default_rng(0).uniform(*value_range, shape)
    check_independence(lambda images: network(problem, data, images), noise.astype(problem.dtype))
    at_once = _usual_batch(shape, parts.arrays, schedule) if batch_size is None else batch_size
    return run_batches(problem, data, objectives, likely, schedule, at_once, progress)


def _usual_batch(shape: tuple[int, ...], arrays: Any, schedule: Schedule) -> int | None:
    # What lies between two layers then stays in the cache: four images at once took a third longer.
    large = math.prod(shape[:2]) >= LARGE_IMAGE and platform_of(arrays) == "cpu"
    return 1 if large and schedule.callback is None and schedule.loop != "scan" else None


@cache
def _adam() -> optax.GradientTransformation:
    return optax.adam(0.05)
