"""keras-vis's losses: terms, sum and gradient as one compiled function of the image."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay, run, trace
from jaxviz.keras import KerasModel, logits
from jaxviz.layers import Layer, as_scorer, capture, thaw
from jaxviz.maximization.regularize import lp_norm, total_variation
from jaxviz.scoring.scorer import split

_BACKPROP = {None: "plain", "guided": "guided", "rectified": "rectified"} | {
    name: "rectified" for name in ("relu", "deconv")
}


class _Losses(NamedTuple):
    """What the compiled losses depend on; hashable."""

    scorer: Any
    layer: Layer
    filters: tuple[int, ...] | None
    weights: tuple[tuple[str, float], ...]
    backprop: str
    wrt: Layer


def _losses(
    model: Any,
    layer: Layer,
    filter_indices: Any,
    weights: dict[str, float],
    backprop_modifier: str | None,
    wrt: Layer,
    image: jax.Array,
) -> Callable[[jax.Array], Any]:
    """A compiled function: image -> ({term: value}, loss, gradient, value differentiated by)."""
    weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
    if not weights:
        raise ValueError("at least one weight must differ from 0: got none.")
    if backprop_modifier not in _BACKPROP:
        known = ", ".join(str(name) for name in _BACKPROP)
        raise ValueError(f"`backprop_modifier` must be one of {known}: got {backprop_modifier!r}.")
    model = _linear(model)
    if isinstance(model, KerasModel) and layer is None:
        layer = -1
    filters = None if filter_indices is None else tuple(np.atleast_1d(filter_indices).tolist())
    parts = split(model)
    channels = jax.eval_shape(lambda x: capture(model, x, [layer]), image)[layer].shape[-1]
    for index in filters or ():
        if not 0 <= index < channels:
            raise ValueError(f"`filter_indices` must be in 0…{channels - 1}: got {index}.")
    backprop = _BACKPROP[backprop_modifier]
    static = _Losses(parts.call, layer, filters, tuple(weights.items()), backprop, wrt)
    return partial(_loss_and_gradient, static, parts.arrays)


@partial(jax.jit, static_argnums=0)
def _loss_and_gradient(static: _Losses, arrays: Any, image: jax.Array) -> Any:
    model = thaw(static.scorer, arrays)
    wanted = [static.layer] if static.wrt is None else [static.layer, static.wrt]

    def forward(image: jax.Array) -> Any:
        found = capture(model, image, wanted)
        terms = _terms(static, found[static.layer], image)
        value = image if static.wrt is None else found[static.wrt]
        return value, (sum(terms.values(), jnp.zeros(())), terms)

    # Calls are inlined first, so that the layer's output is a number that can be shifted.
    _, flat, values, tree = trace(
        partial(replay, forward, rules=relu_rules(static.backprop)), image
    )
    number = flat.outputs[0]
    assert isinstance(number, int)

    def shifted(shift: jax.Array) -> Any:
        outputs = run(flat, values, [image], shifts={number: shift})
        value, (loss, terms) = jax.tree.unflatten(tree, outputs)
        return loss, (terms, value)

    shift = jnp.zeros(flat.aval(number).shape, flat.aval(number).dtype)
    (loss, (terms, value)), gradient = jax.value_and_grad(shifted, has_aux=True)(shift)
    return terms, loss, gradient, value


def _terms(static: _Losses, output: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    def activation() -> jax.Array:
        if static.filters is None:
            return -output.mean()
        return -sum((output[..., i].mean() for i in static.filters), jnp.zeros(()))

    kinds = {
        "activation": activation,
        "lp_norm": lambda: lp_norm(image[0], p=6.0),
        "total_variation": lambda: total_variation(image[0], beta=2.0),
    }
    return {name: weight * kinds[name]() for name, weight in static.weights}


def _linear(model: Any) -> Any:
    return logits(model) if isinstance(model, KerasModel) else as_scorer(model)
