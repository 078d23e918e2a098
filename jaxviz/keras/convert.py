"""Models out of the adapter: parameters for Flax Linen, and files without Keras."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxviz._files import whole
from jaxviz.keras.load import Source, load_keras
from jaxviz.keras.model import KerasModel


def to_linen_params(model: KerasModel) -> dict[str, Any]:
    """Return a model's arrays as the variables of a Flax Linen module.

    Args:
        model: a model from `load_keras`.

    Returns:
        `{"params": {layer: {"kernel": ..., "bias": ...}}, "batch_stats": {layer: {"mean": ...,
        "var": ...}}}` with Flax's names and layouts, keyed by attribute; arrays are shared.
        "batch_stats" is left out when there are none. A transposed kernel is (*window, out, in),
        that of `nn.ConvTranspose(transpose_kernel=True)`.

    Example:
        >>> from jaxviz.keras import load_keras
        >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
        >>> to_linen_params(load_keras({"class_name": "Sequential", "config": [relu]}))
        {'params': {}}
    """
    variables: dict[str, Any] = {"params": nnx.to_pure_dict(nnx.state(model, nnx.Param))}
    statistics = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    if statistics:
        variables["batch_stats"] = statistics
    return variables


def flat_arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return a model's arrays by path, such as "layer/kernel"."""
    state = nnx.to_pure_dict(nnx.state(model))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def convert_keras(
    path: Source | Sequence[Source],
    out: str | os.PathLike[str],
    *,
    custom_layers: Mapping[str, Any] | None = None,
) -> Path:
    """Write the Flax parameters of a Keras file to an orbax, safetensors or npz file.

    Args:
        path: as for `load_keras`.
        out: "*.npz" or "*.safetensors" (which needs the library of that name) for one file of
            arrays named "layer/kernel"; any other name for a folder, an orbax checkpoint of
            `nnx.to_pure_dict(nnx.state(model))`. It must not exist.
        custom_layers: as for `load_keras`.

    Returns:
        The path written.

    Raises:
        KerasFileError: the Keras file cannot be read.
        ValueError: `out` exists, or cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> relu = {"class_name": "ReLU", "config": {"name": "r", "batch_input_shape": [None, 2]}}
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> convert_keras({"class_name": "Sequential", "config": [relu]}, folder / "relu.npz").name
        'relu.npz'
    """
    out = Path(out).absolute()
    if out.exists():
        raise ValueError(f'`out` must not exist yet: got "{out}"; remove it or name another.')
    if not out.parent.is_dir():
        raise ValueError(f'`out` must lie in a folder that exists: got "{out}".')
    model = load_keras(path, custom_layers=custom_layers)
    try:
        with whole(out) as part:
            _write(model, part)
    except OSError as error:
        raise ValueError(
            f'`out` must be a place that can be written: got "{out}", {error.strerror}.'
        ) from error
    return out


def _write(model: KerasModel, path: Path) -> None:
    if path.suffix == ".npz":
        np.savez(path, **flat_arrays(model))  # pyright: ignore[reportArgumentType]
    elif path.suffix == ".safetensors":
        try:
            from safetensors.numpy import save_file
        except ImportError as error:
            raise ValueError(
                "`out` must end in .npz, or name a folder: safetensors is not installed."
            ) from error
        arrays = {name: np.ascontiguousarray(a) for name, a in flat_arrays(model).items()}
        save_file(arrays, str(path))
    else:
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, nnx.to_pure_dict(nnx.state(model)))
            checkpointer.wait_until_finished()
