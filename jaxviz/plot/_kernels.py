"""A layer's kernels as small pictures."""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxviz.plot._heatmaps import gallery, heatmap
from jaxviz.plot._inputs import as_array


def kernels(
    weights: Any,
    *,
    layer: str | None = None,
    most: int = 64,
    title: str = "",
    columns: int | None = None,
) -> Figure:
    """Draw the kernels of a convolution: in colour where it reads three channels, else signed.

    Each kernel has a scale of its own where it is in colour (0 is mid grey), and all share one
    where it is not. Of one that reads more channels, the mean over them is drawn.

    Args:
        weights: (height, width, channels in, kernels), or a module with `layer`.
        layer: whose kernel it is, by its path in the module, as `jaxviz.activations` names it.
        most: how many kernels are drawn.
        title: of the figure.
        columns: kernels in a row; None chooses.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there is no such layer, or no kernel of four axes.

    Example:
        >>> import jaxviz as jv
        >>> figure = jv.plot.kernels(jv.models.mnist_cnn(), layer="conv2d")
    """
    given = weights if layer is None else _kernel_of(weights, layer)
    array = as_array(given, "`weights`").astype(np.float64)
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"`weights` must be (height, width, channels in, kernels): got {array.shape}."
        )
    if array.shape[2] == 1 and array.shape[3] > 1 or array.shape[2] != 3:
        maps = np.moveaxis(array.mean(2), -1, 0)[:most]
        titles = [str(i) for i in range(len(maps))]
        return heatmap(maps, titles=titles, title=title, columns=columns, signed=True)
    images = np.moveaxis(array, -1, 0)[:most]
    largest = np.abs(images).max((1, 2, 3), keepdims=True)
    images = 0.5 + images / np.where(largest > 0, 2 * largest, 1)
    titles = [str(i) for i in range(len(images))]
    return gallery(images, titles=titles, title=title, columns=columns)


def _kernel_of(module: Any, layer: str) -> np.ndarray:
    """Return the array of four axes that lies under a layer's path in a module."""
    wanted, found = layer.split("."), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(module):
        names = [
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
        ]
        if np.ndim(leaf) == 4:
            found[".".join(names)] = leaf
            if any(names[i : i + len(wanted)] == wanted for i in range(len(names))):
                return np.asarray(leaf)
    near = ", ".join(list(found)[:8])
    raise ValueError(f"`layer` must hold a kernel of four axes: {layer!r} has none; found: {near}.")
