"""The proof that a model was read right: ours against Keras or stored outputs, layer by layer."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxviz.keras.load import Source, from_keras, load_keras
from jaxviz.keras.model import KerasModel

_OUTPUT = "output"


@dataclass(frozen=True)
class Comparison:
    """One layer: the largest difference, and its ratio to the largest reference value."""

    layer: str
    difference: float
    relative: float


@dataclass(frozen=True)
class Verification:
    """What `verify_keras` found, layer by layer in order of evaluation."""

    layers: tuple[Comparison, ...]
    tolerance: float

    @property
    def first_difference(self) -> Comparison | None:
        """The first layer beyond the tolerance, None when there is none."""
        return next((row for row in self.layers if not row.relative <= self.tolerance), None)

    @property
    def same(self) -> bool:
        """Whether every layer agrees."""
        return self.first_difference is None

    def __str__(self) -> str:
        """Return one sentence: the first layer that differs, or that none does."""
        row = self.first_difference
        if row is None:
            worst = max((row.relative for row in self.layers), default=0.0)
            return f"All {len(self.layers)} layers agree (largest relative difference {worst:.1e})."
        return (
            f'The first layer that differs is "{row.layer}": by {row.difference:.3g}, '
            f"{row.relative:.1e} of its largest value."
        )


def verify_keras(
    path: Source | Sequence[Source] | KerasModel | Any,
    images: Any,
    *,
    reference: Any = None,
    tolerance: float = 1e-4,
    custom_layers: Mapping[str, Callable[..., Any]] | None = None,
) -> Verification:
    """Compare a model, layer by layer, with Keras or with stored outputs; print the verdict.

    Args:
        path: what `load_keras` reads, a Keras model in memory, or a `KerasModel`.
        images: (N, *input_shape), any real dtype.
        reference: layer name to (N, *shape), the model's output (N, *output_shape), or a Keras
            model; None to have Keras load the same file, which must be installed then, and whose
            loader trusts files more than ours.
        tolerance: largest difference allowed, relative to a layer's largest finite reference value;
            NaN agrees with NaN alone, and infinity with itself.
        custom_layers: as for `load_keras`.

    Returns:
        The comparison of every layer that both know, the output under the name "output".

    Raises:
        KerasFileError: the file cannot be read.
        ValueError: there is nothing to compare with.

    Example:
        >>> import jax.numpy as jnp
        >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
        >>> relu = {"class_name": "Sequential", "config": [relu]}
        >>> found = verify_keras(relu, jnp.ones((1, 2)), reference={"r": jnp.ones((1, 2))})
        All 1 layers agree (largest relative difference 0.0e+00).
    """
    ours, theirs = _both(path, reference, custom_layers)
    if hasattr(theirs, "get_layer"):
        theirs = _keras_outputs(theirs, ours, images)
    elif not isinstance(theirs, Mapping):
        theirs = {_OUTPUT: theirs}
    outputs, each = jax.jit(lambda model, x: model._everything(x))(ours, images)
    found = {**each, _OUTPUT: outputs}
    unknown = sorted(set(theirs) - set(found))
    if unknown or not theirs:
        raise ValueError(f"`reference` must name layers of the model: got {unknown or 'none'}.")
    order = [*ours._graph.called, _OUTPUT]
    rows = [_compare(name, found[name], theirs[name]) for name in order if name in theirs]
    result = Verification(tuple(rows), tolerance)
    print(result)
    return result


def _both(path: Any, reference: Any, custom: Any) -> tuple[KerasModel, Any]:
    if isinstance(path, KerasModel) or hasattr(path, "get_layer"):
        given = isinstance(path, KerasModel)
        if given and reference is None:
            raise ValueError("`reference` must be given for a model that is loaded already.")
        ours = path if given else from_keras(path, custom_layers=custom)
        return ours, path if reference is None else reference
    ours = load_keras(path, custom_layers=custom)
    return ours, _load_with_keras(path) if reference is None else reference


def _load_with_keras(path: Any) -> Any:
    try:
        keras = importlib.import_module("keras")
    except ImportError as error:
        raise ValueError("`reference` must be given where Keras is not installed.") from error
    try:
        if isinstance(path, str | os.PathLike):
            return keras.saving.load_model(path, compile=False)
        architecture, weights = path
        text = Path(architecture).read_text(encoding="utf-8")
        model = keras.models.model_from_json(text)
        model.load_weights(weights)
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        raise ValueError(f"`reference` must be given, Keras cannot load this: {reason}") from error
    return model


def _keras_outputs(model: Any, ours: KerasModel, images: Any) -> dict[str, np.ndarray]:
    """Return what Keras computes for the layers that it calls once, and for the output."""
    keras = importlib.import_module("keras")
    counts: dict[str, int] = {}
    for call in ours._graph.calls:
        counts[call.layer] = counts.get(call.layer, 0) + 1
    tensors = {}
    for name, count in counts.items():
        nested = isinstance(ours.layer(name), KerasModel)
        if count == 1 and not nested and not isinstance(model.get_layer(name).output, list | tuple):
            tensors[name] = model.get_layer(name).output
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        probe = keras.Model(model.inputs, {**tensors, _OUTPUT: model.outputs})
        outputs = probe.predict(_as_list(images), verbose=0)
    whole = outputs.pop(_OUTPUT)
    return {**outputs, _OUTPUT: whole[0] if len(model.outputs) == 1 else whole}


def _as_list(images: Any) -> Any:
    return jax.tree.map(np.asarray, images)


def _compare(name: str, ours: Any, theirs: Any) -> Comparison:
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    difference, size = 0.0, 0.0
    for mine, other in pairs:
        mine, other = (np.asarray(x).astype(np.float64) for x in (mine, other))
        if mine.shape != other.shape:
            raise ValueError(
                f'`reference` must have shape {mine.shape} for "{name}": got {other.shape}.'
            )
        same = (mine == other) | (np.isnan(mine) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(mine - other))
        apart[np.isnan(apart)] = np.inf
        difference = max(difference, apart.max(initial=0.0))
        size = max(size, np.abs(other).max(initial=0.0, where=np.isfinite(other)))
    return Comparison(name, difference, difference / max(size, 1e-30))
