"""The table people know: a model's layers, shapes and parameters."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxviz.keras.build import open_shapes
from jaxviz.keras.live import is_live
from jaxviz.keras.load import from_keras
from jaxviz.keras.model import KerasModel

_WIDTHS = (40, 26, 14)


def summary(model: KerasModel) -> None:
    """Print a model as Keras does: each layer, its class, output shape and number of parameters.

    Args:
        model: a model from `load_keras`, or one of Keras.

    Example:
        >>> from jaxviz.keras import load_keras
        >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
        >>> model = load_keras({"class_name": "Sequential", "config": [relu]})
        >>> summary(model)  # doctest: +NORMALIZE_WHITESPACE
        Model: sequential
        Layer (type)            Output shape           Parameters
        --------------------------------------------------------------------------------
        r_input (InputLayer)    (batch, 2)             0
        r (ReLU)                (batch, 2)             0
        --------------------------------------------------------------------------------
        Parameters: 0 in all, 0 trainable
    """
    model = from_keras(model) if is_live(model) else model
    print(summary_text(model))


def summary_text(model: KerasModel) -> str:
    """Return the table that `summary` prints."""
    graph = model._graph
    _, shapes = open_shapes(model, lambda m, x: m._everything(x))
    rows = [(f"{entry.name} (InputLayer)", entry.shape, 0) for entry in graph.inputs]
    for name, attribute, kind, _ in graph.layers:
        count = count_parameters(getattr(model, attribute))[0]
        rows.append((f"{name} ({kind.removeprefix('ops.')})", shapes[name], count))
    total, trainable = count_parameters(model)
    rule = "-" * sum(_WIDTHS)
    lines = [f"Model: {graph.name}", _row("Layer (type)", "Output shape", "Parameters"), rule]
    lines += [_row(name, shape_text(shape), f"{count:,}") for name, shape, count in rows]
    lines += [rule, f"Parameters: {total:,} in all, {trainable:,} trainable"]
    return "\n".join(lines)


def count_parameters(layer: Any) -> tuple[int, int]:
    """Return how many numbers a layer or model has: in all, and trainable ones."""
    if not isinstance(layer, nnx.Module):
        arrays = [x for x in jax.tree.leaves(layer) if isinstance(x, jax.Array | np.ndarray)]
        return sum(array.size for array in arrays), 0
    leaves, trainable = (jax.tree.leaves(nnx.state(layer, kind)) for kind in (..., nnx.Param))
    return sum(leaf.size for leaf in leaves), sum(leaf.size for leaf in trainable)


def _row(name: str, shape: str, count: str) -> str:
    first, second, third = _WIDTHS
    return f"{name:<{first}}{shape:<{second}}{count:>{third}}"


def shape_text(shape: Any) -> str:
    """Return a shape as text, with its batch; several shapes one after the other."""
    if any(isinstance(item, tuple) for item in shape):
        return ", ".join(shape_text(item) for item in shape)
    return "(" + ", ".join(["batch", *("any" if s is None else str(s) for s in shape)]) + ")"
