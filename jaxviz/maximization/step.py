"""Take one step of gradient ascent on a batch of images, pure and compiled.

A batch is M objectives by S seeds. All M images of a seed start alike and see the same random
transformations, and nothing couples one image with another but a `diversity` among the seeds of an
objective, so an image comes out the same in any batch. `Problem` is all that is compiled for,
`Data` and `State` are arrays.

For parameters p, image x(p), views T_v and penalties R_i, a step follows

    total = 1/V · Σ_v objective(f(preprocess(T_v(x)))) − Σ_i R_i(x),   p ← p + optimizer(∂total/∂p),

in two halves: ∂total/∂x first, which may be redirected or modified as a picture, then its pullback
through x(p).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.cpu_gradient import quick_rules
from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay
from jaxviz.layers import capture, thaw
from jaxviz.maximization.problem import Data, Problem, State, Terms, Waiting, term_names
from jaxviz.maximization.regularize import Tidy


def start(problem: Problem, data: Data) -> State:
    """Return the state before the first step: start images, or noise added to a start value."""
    # Not compiled as a whole: all programs share its parts, and drawing takes long to compile.
    shape, (init, _, encode) = problem.image_shape, problem.parametrization
    objectives = sum(len(numbers) for _, numbers in problem.groups)

    def meaning(image: jax.Array) -> Any:
        assert encode is not None
        return encode(_free(problem, data, image), shape)

    if data.start.ndim:
        parameters = jax.vmap(meaning)(data.start)
    else:
        parameters = jax.vmap(lambda key: init(key, shape))(data.keys)
        if encode is not None:
            plain = meaning(jnp.broadcast_to(data.start, shape))
            parameters = jax.tree.map(lambda noise, p: noise + p[None], parameters, plain)
    parameters = jax.tree.map(
        lambda p: jnp.broadcast_to(p[None], (objectives, *p.shape)).copy(), parameters
    )
    batch = (objectives, data.keys.shape[0])
    return State(
        parameters=parameters,
        memory=jax.vmap(jax.vmap(problem.optimizer.init))(parameters),
        step=jnp.zeros((), jnp.int32),
        best=jax.tree.map(jnp.copy, parameters),
        best_total=jnp.full(batch, -jnp.inf, jnp.float32),
        blocked=jnp.zeros(batch, bool),
        gradient_sum=jnp.zeros((*batch, *shape[:2]), jnp.float32),
        slope=jnp.zeros(batch, jnp.float32),
        steepest=jnp.zeros(batch, jnp.float32),
        waiting=None
        if data.patience is None
        else Waiting(
            jnp.full(batch, -jnp.inf, jnp.float32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, jnp.int32),
        ),
    )


def decode(problem: Problem, data: Data, parameters: Any) -> jax.Array:
    """Return the images (M, S, H, W, C) in the value range that parameters mean."""
    return _per_image(partial(_image, problem, data))(parameters)


def advance(
    problem: Problem, redirect: bool, data: Data, state: State, watch: jax.Array | bool = False
) -> tuple[State, Terms]:
    """Take one step; also return the terms of the total before it, each (M, S).

    Where `watch` says so, an image may be dead: its gradient is zero at every pixel, since every
    path to it ends in a ReLU below 0. With `redirect`, it takes its gradient as if these ReLUs let
    it through; without, it holds all images: the state is as it was, but for `blocked`.
    """
    images, to_parameters = jax.vjp(partial(decode, problem, data), state.parameters)
    seen = partial(objective_values, problem, data, state.step)
    values, gradient = _value_and_gradient(partial(seen, backprop=problem.backprop), images)
    blocked = (gradient == 0).all((2, 3, 4))
    looked = jnp.abs(gradient).mean(-1)
    slope = looked.mean((2, 3))
    if redirect:

        def redirected() -> jax.Array:
            _, other = _value_and_gradient(partial(seen, backprop="redirected"), images)
            return jnp.where(blocked[..., None, None, None], other, gradient)

        gradient = jax.lax.cond(watch & blocked.any(), redirected, lambda: gradient)
    penalties, penalty_gradient = _penalties(problem, state.step, images)
    gradient = gradient - penalty_gradient
    if problem.grad_modifier is not None:
        gradient = _per_image(problem.grad_modifier)(gradient)
    total = values - sum(penalties.values(), jnp.zeros_like(values))
    terms = {"objective": values, **penalties, "total": total}
    # optax descends; ascent is descent along the negated gradient.
    (uphill,) = to_parameters(gradient)
    downhill = jax.tree.map(jnp.negative, uphill)
    # optax mixes dtypes where a caller may have made that an error.
    with jax.numpy_dtype_promotion("standard"):
        updates, memory = _per_image(problem.optimizer.update)(
            downhill, state.memory, state.parameters
        )
    better = total > state.best_total
    moved = State(
        parameters=_tidied(
            problem, data, state.step, optax.apply_updates(state.parameters, updates)
        ),
        memory=memory,
        step=state.step + 1,
        best=jax.tree.map(partial(_choose, better), state.parameters, state.best),
        best_total=jnp.where(better, total, state.best_total),
        blocked=blocked,
        gradient_sum=state.gradient_sum + looked,
        slope=slope,
        steepest=jnp.maximum(slope, state.steepest),
        waiting=state.waiting,
    )
    moved, terms = _waited(data, state, moved, terms)
    if redirect or watch is False:
        return moved, terms
    held = watch & blocked.any()
    kept = jax.tree.map(partial(jnp.where, held), state, moved)
    return kept._replace(blocked=blocked), terms


def _waited(data: Data, state: State, moved: State, terms: Terms) -> tuple[State, Terms]:
    """Leave an image as it is once its total has not grown for too long; its terms are then NaN.

    Each image waits for itself and in every step, so that it comes out the same in any batch and
    however many steps are compiled into one loop.
    """
    if data.patience is None or state.waiting is None:
        return moved, terms
    reference, since, steps = state.waiting
    going = since < data.patience.steps
    # The first total grows from nothing, −∞, of which no share can be taken.
    growth = data.patience.growth * jnp.abs(reference)
    grew = jnp.isneginf(reference) | (terms["total"] > reference + growth)
    waiting = Waiting(
        jnp.where(grew, terms["total"], reference),
        jnp.where(grew, jnp.zeros_like(since), since + 1),
        steps + 1,
    )
    moved = moved._replace(waiting=waiting, step=None)
    kept = jax.tree.map(partial(_choose, going), moved, state._replace(step=None))
    nothing = {name: jnp.where(going, term, jnp.nan) for name, term in terms.items()}
    return kept._replace(step=state.step + 1), nothing


def advance_many(problem: Problem, steps: int, data: Data, state: State) -> tuple[State, Terms]:
    """Take several steps in one loop; terms are (steps, M, S)."""

    def step(state: State, _: None) -> tuple[State, Terms]:
        return advance(problem, False, data, state)

    return jax.lax.scan(step, state, length=steps)


def objective_values(
    problem: Problem, data: Data, step: jax.Array, images: jax.Array, *, backprop: str = "plain"
) -> jax.Array:
    """Evaluate the objectives of images (M, S, H, W, C), the mean over random views: (M, S)."""
    shown = views(problem, data, step, images).astype(problem.dtype)
    drawn, batch = shown.shape[0], shown.shape[:3]
    # (V, M, S, …) becomes one batch for f: what couples images is the objective alone.
    flat = shown.reshape(-1, *shown.shape[3:])

    quick = quick_rules(platform_of(data, images), preparing=0.0)
    rectify = relu_rules(backprop)
    found = replay(
        partial(network, problem, data), flat, rules=lambda flat: {**quick, **rectify(flat)}
    )
    found = [value.reshape(*batch, *value.shape[1:]) for value in found]
    values = jnp.zeros(images.shape[:2], jnp.float32)
    for (structure, numbers), arrays in zip(problem.groups, data.objectives, strict=True):
        # vmap over views and over the group's objectives; each sees the S images of its own.
        where = np.asarray(numbers)
        mine = found if len(problem.groups) == 1 else [value[:, where] for value in found]
        given = partial(evaluate_objective, problem, structure)
        group_values = jax.vmap(jax.vmap(given), in_axes=(None, 0))(arrays, mine)
        values = values.at[where].set(group_values.sum(0) / drawn)
    return values


def network(problem: Problem, data: Data, images: jax.Array) -> list[jax.Array]:
    """Return what the objectives read, for images (N, H, W, C) in the value range."""
    seen = images if problem.preprocess is None else problem.preprocess(images)
    found = capture(thaw(problem.scorer, data.scorer), seen, problem.layers)
    return [found[layer] for layer in problem.layers]


def evaluate_objective(
    problem: Problem, structure: Any, arrays: Sequence[jax.Array], found: Sequence[jax.Array]
) -> jax.Array:
    """Return the S numbers of one objective, from its parts and the layers' outputs."""
    objective = jax.tree.unflatten(structure, arrays)
    return objective(dict(zip(problem.layers, found, strict=True))).astype(jnp.float32)


def _per_image(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(function))


def _value_and_gradient(function: Callable[..., Any], images: jax.Array) -> Any:
    # An image moves the values of its own objective alone: one pullback of ones gives all.
    values, pull = jax.vjp(function, images)
    return values, pull(jax.tree.map(jnp.ones_like, values))[0]


def _penalties(problem: Problem, step: jax.Array, images: jax.Array) -> tuple[Terms, jax.Array]:
    if not problem.penalties:
        return {}, jnp.zeros_like(images)

    def weighted(image: jax.Array) -> Terms:
        values = [penalty(image, step).astype(jnp.float32) for penalty in problem.penalties]
        return dict(zip(term_names(problem)[1:-1], values, strict=True))

    return _value_and_gradient(_per_image(weighted), images)


def views(problem: Problem, data: Data, step: jax.Array, images: jax.Array) -> jax.Array:
    """Return what the network is shown: (views, M, S, H, W, C)."""
    seeds, shape = data.keys.shape[0], problem.image_shape

    def one(key: jax.Array, images: jax.Array) -> jax.Array:
        for number, transform in enumerate(problem.transforms):
            images = transform(jax.random.fold_in(key, number), images)
        if images.shape[1:3] != shape[:2]:
            size = (images.shape[0], *shape[:2], images.shape[3])
            images = jax.image.resize(images, size, "bilinear")
        return images

    def key(view: jax.Array | int, seed_key: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(seed_key, step), view)

    if not problem.transforms:
        return jnp.broadcast_to(images[None], (problem.views, *images.shape))
    # Without vmap where there is one draw: a batched dynamic slice would be a gather.
    if problem.views == seeds == 1:
        return one(key(0, data.keys[0]), images[:, 0])[None, :, None]
    over_seeds = jax.vmap(lambda view, k, x: one(key(view, k), x), (None, 0, 1), 1)
    return jax.vmap(over_seeds, (0, None, None))(jnp.arange(problem.views), data.keys, images)


def _image(problem: Problem, data: Data, parameters: Any) -> jax.Array:
    free = problem.parametrization.decode(parameters, problem.image_shape)
    span = data.high - data.low
    if problem.bounds == "sigmoid":
        return data.low + span * jax.nn.sigmoid(free)
    if problem.bounds == "project":
        # The derivative of the clip is taken as 1, so that a pixel at its bound can come back.
        free = free + jax.lax.stop_gradient(jnp.clip(free, -0.5, 0.5) - free)
    return data.low + span * (free + 0.5)


def _free(problem: Problem, data: Data, image: jax.Array) -> jax.Array:
    """Return the free image that means an image in the value range: `_image` inverted."""
    unit = (image - data.low) / (data.high - data.low)
    if problem.bounds == "sigmoid":
        # logit(u) = ln u − ln(1 − u), short of the ends, which would lie at infinity.
        unit = jnp.clip(unit, 1e-4, 1 - 1e-4)
        return jnp.log(unit) - jnp.log1p(-unit)
    return unit - 0.5


def _tidied(problem: Problem, data: Data, step: jax.Array, parameters: Any) -> Any:
    """Project parameters to the bounds, and apply the tidying steps that are due."""
    _, free_image, encode = problem.parametrization
    shape = problem.image_shape
    if encode is None:
        return parameters
    if problem.bounds == "project":
        parameters = _per_image(lambda p: encode(jnp.clip(free_image(p, shape), -0.5, 0.5), shape))(
            parameters
        )
    for tidy in problem.tidies:

        def tidied(p: Any, tidy: Tidy = tidy) -> Any:
            return encode(_free(problem, data, tidy.function(_image(problem, data, p))), shape)

        due = (step + 1) % tidy.every == 0
        parameters = jax.tree.map(
            partial(jnp.where, due), _per_image(tidied)(parameters), parameters
        )
    return parameters


def _choose(which: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Take the new leaf (M, S, …) where `which` (M, S) says so."""
    return jnp.where(which.reshape(which.shape + (1,) * (new.ndim - 2)), new, old)
