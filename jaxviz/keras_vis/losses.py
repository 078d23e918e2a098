"""Compile keras-vis's losses: terms, sum and gradient of one image.

The sum is Σ weight · term over the terms of `_terms`. It is differentiated by the image or by an
output v of a layer on the way: as d/ds loss at s = 0 with v + s in place of v, since JAX
differentiates by inputs only.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr.compiled import compiled
from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay, run, trace
from jaxviz.keras import KerasModel, logits
from jaxviz.layers import Layer, ScorerLike, as_scorer, capture, thaw
from jaxviz.maximization.regularize import lp_norm, total_variation
from jaxviz.scoring.independence import check_independence
from jaxviz.scoring.scorer import Call, Scorer, split

_BACKPROP = {None: "plain", "guided": "guided", "rectified": "rectified"} | {
    name: "rectified" for name in ("relu", "deconv")
}


class _Static(NamedTuple):
    """Hold what the losses are compiled for; hashable.

    Attributes:
        scorer: the model without its arrays.
        layer: whose output is maximised; None for the scorer's own.
        filters: which of its channels, None for all.
        weights: ((term, weight), …).
        backprop: what ReLU passes backwards.
        wrt: the layer to differentiate by; None for the image.
    """

    scorer: Call
    layer: Layer
    filters: tuple[int, ...] | None
    weights: tuple[tuple[str, float], ...]
    backprop: str
    wrt: Layer


def losses(
    model: ScorerLike,
    layer: Layer,
    filter_indices: int | Sequence[int] | None,
    weights: dict[str, float],
    backprop_modifier: str | None,
    wrt: Layer,
    image: jax.Array,
) -> Callable[[jax.Array], Any]:
    """Return a compiled function: image -> ({term: value}, loss, gradient, value of `wrt`)."""
    weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
    if not weights:
        raise ValueError("at least one weight must differ from 0: got none.")
    if backprop_modifier not in _BACKPROP:
        known = ", ".join(str(name) for name in _BACKPROP)
        raise ValueError(f"`backprop_modifier` must be one of {known}: got {backprop_modifier!r}.")
    layer = output_or(model, layer)
    model = linear(model)
    filters = None if filter_indices is None else tuple(np.atleast_1d(filter_indices).tolist())
    parts = split(model)
    check_independence(parts, image)
    channels = jax.eval_shape(lambda x: capture(model, x, [layer]), image)[layer].shape[-1]
    if filters == ():
        raise ValueError("`filter_indices` must hold a filter, or be None for all: got none.")
    for index in filters or ():
        if not 0 <= index < channels:
            raise ValueError(f"`filter_indices` must be in 0…{channels - 1}: got {index}.")
    backprop = _BACKPROP[backprop_modifier]
    static = _Static(parts.call, layer, filters, tuple(weights.items()), backprop, wrt)
    gradient = compiled(partial(_loss_and_gradient, static), parts.arrays, image)
    return partial(gradient, parts.arrays)


def _loss_and_gradient(static: _Static, arrays: Any, image: jax.Array) -> Any:
    model = thaw(static.scorer, arrays)
    wanted = [static.layer] if static.wrt is None else [static.layer, static.wrt]

    def forward(image: jax.Array) -> Any:
        found = capture(model, image, wanted)
        terms = _terms(static, found[static.layer], image)
        value = image if static.wrt is None else found[static.wrt]
        return value, (reduce(add, terms.values()), terms)

    # Calls are inlined first, so that the layer's output is a number that can be shifted.
    _, flat, values, tree = trace(
        partial(replay, forward, rules=relu_rules(static.backprop)), image
    )
    number = flat.outputs[0]
    assert isinstance(number, int)

    # The image is the model's input itself: it is shifted there, a layer's output where it is made.
    def shifted(shift: jax.Array) -> Any:
        outputs = run(flat, values, [image], shifts={number: shift})
        value, (loss, terms) = jax.tree.unflatten(tree, outputs)
        return loss, (terms, value)

    shift = jnp.zeros(flat.aval(number).shape, flat.aval(number).dtype)
    (loss, (terms, value)), gradient = jax.value_and_grad(shifted, has_aux=True)(shift)
    return terms, loss, gradient, value


def _terms(static: _Static, output: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    """Return weight · term: −Σ mean(out[..., i]), (Σ|x|⁶)^(1/6) / N, Σ|∇x|² / N with N = H·W·C."""

    def activation() -> jax.Array:
        if static.filters is None:
            return -output.mean()
        return -reduce(add, [output[..., i].mean() for i in static.filters])

    kinds = {
        "activation": activation,
        "lp_norm": lambda: lp_norm(image[0], p=6.0),
        "total_variation": lambda: total_variation(image[0], beta=2.0),
    }
    return {name: weight * kinds[name]() for name, weight in static.weights}


def output_or(model: ScorerLike, layer: Layer) -> Layer:
    """Return the layer; None or -1 is the output: a Keras model's last layer, another's own."""
    if isinstance(model, KerasModel):
        return -1 if layer is None else layer
    return None if layer == -1 else layer


def linear(model: ScorerLike) -> Scorer:
    """Return the model without its last softmax or sigmoid, where it is a Keras model."""
    scorer = as_scorer(model)
    return logits(scorer) if isinstance(scorer, KerasModel) else scorer
