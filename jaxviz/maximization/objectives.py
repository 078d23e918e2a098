"""Name what an image is to maximise, in values that compose with + - * and numbers.

An objective maps named activations {layer: (S, …)} of S images to S numbers, one an image. Layers
are named as in `activations`: a name, an index, or None for the scorer's own output. Objectives are
pytrees: what differs between `unit(3)` and `unit(4)` is an array, so both run in one compiled
program, and a list of them is one batch. `-channel("conv1", 3)` minimises; `unit(1) - 0.5 *
unit(7)` means what it says.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxviz.layers import Layer, ScorerLike, capture
from jaxviz.maximization.objective import Activations, Objective, Shapes, objective

__all__ = [
    "Objective",
    "channel",
    "direction",
    "diversity",
    "every_channel",
    "interpolate",
    "layer",
    "neuron",
    "objective",
    "unit",
]


def unit(index: int, *, layer: Layer = None) -> Objective:
    """Maximise one unit of a layer without positions, such as the logit of a class: a[index].

    Args:
        index: which unit, 0 ≤ index < K.
        layer: a layer with output (N, K); None for the scores. A softmax there starves the
            gradient: give `maximize` the network's `logits`.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> jv.objectives.unit(2)({None: jnp.asarray([[0.0, 1.0, 5.0]])}).tolist()
        [5.0]
    """
    return Objective(_unit, (layer,), (_index(index),), _fits_unit)


def channel(layer: Layer, index: int) -> Objective:
    """Maximise one channel of a layer: the mean over positions of a[..., index].

    Args:
        layer: a layer with output (N, h, w, C) or (N, C).
        index: which channel, 0 ≤ index < C.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> jv.objectives.channel("conv", 1)({"conv": jnp.ones((1, 2, 2, 3))}).tolist()
        [1.0]
    """
    return Objective(_channel, (layer,), (_index(index),), _fits_channel)


def neuron(layer: Layer, index: int, *, position: tuple[int, int] | None = None) -> Objective:
    """Maximise one channel at one position: a[row, col, index].

    Args:
        layer: a layer with output (N, h, w, C).
        index: which channel, 0 ≤ index < C.
        position: (row, col); None for the centre, (h // 2, w // 2).

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> acts = {"conv": jnp.arange(9.0).reshape(1, 3, 3, 1)}
        >>> jv.objectives.neuron("conv", 0)(acts).tolist()
        [4.0]
        >>> jv.objectives.neuron("conv", 0, position=(0, 2))(acts).tolist()
        [2.0]
    """
    values = (_index(index),) + _position(position)
    return Objective(_neuron, (layer,), values, _fits_neuron)


def layer(name: Layer) -> Objective:
    """Maximise a whole layer, as in DeepDream: the mean of a².

    Args:
        name: any layer.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> jv.objectives.layer("conv")({"conv": jnp.full((1, 2, 2, 3), -3.0)}).tolist()
        [9.0]
    """
    return Objective(_layer, (name,), (), _fits_channel)


def direction(
    layer: Layer, vector: ArrayLike, *, position: tuple[int, int] | None = None
) -> Objective:
    """Maximise along a direction of channel space: a·v, the mean over positions or at one.

    Args:
        layer: a layer with output (N, h, w, C), or (N, C) when no position is given.
        vector: (C,), the direction v.
        position: (row, col); None for the mean over all positions.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> jv.objectives.direction("conv", [1.0, -2.0])({"conv": jnp.ones((1, 2, 2, 2))}).tolist()
        [-1.0]
    """
    along = jnp.asarray(vector, jnp.float32)
    if along.ndim != 1:
        raise ValueError(f"`vector` must have shape (channels,): got {along.shape}.")
    if position is None:
        return Objective(_direction, (layer,), (along,), _fits_vector)
    values = (along,) + _position(position)
    return Objective(_direction_at, (layer,), values, _fits_vector)


def interpolate(layer: Layer, first: int, second: int) -> Objective:
    """Go from one channel to another over the S images of one objective.

    (1 − t)·channel(first) + t·channel(second) with t = s / (S − 1) for image s; S is the `seeds` of
    `maximize`.

    Args:
        layer: a layer with output (N, h, w, C) or (N, C).
        first: the first image's channel.
        second: the last image's channel.

    Returns:
        An objective.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> acts = {"fc": jnp.asarray([[1.0, 5.0], [1.0, 5.0], [1.0, 5.0]])}
        >>> jv.objectives.interpolate("fc", 0, 1)(acts).tolist()
        [1.0, 3.0, 5.0]
    """
    values = (_index(first), _index(second))
    return Objective(_interpolate, (layer,), values, _fits_channel)


def diversity(layer: Layer) -> Objective:
    """Maximise how different the S images are: minus the mean cosine of their Gram matrices.

    With G the Gram matrix of an image's channels (Σ over positions of aᵢaⱼ): −mean over s' ≠ s of
    cos(G_s, G_s'), whatever the size of the activations; all zero, they have cosine 0 with any
    others. Add a multiple of it to another objective and ask `maximize` for several
    `seeds`.

    Args:
        layer: a layer with output (N, h, w, C) or (N, C).

    Returns:
        An objective; 0 for a single image.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> [round(d, 5) for d in jv.objectives.diversity("fc")({"fc": jnp.ones((2, 3))}).tolist()]
        [-1.0, -1.0]

    Source:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017,
        doi:10.23915/distill.00007.
    """
    return Objective(_diversity, (layer,), (), _fits_channel)


def every_channel(
    f: ScorerLike, layer: Layer, *, image_shape: tuple[int, int, int]
) -> list[Objective]:
    """List all channels of a layer for `maximize`; give that a `batch_size` where they are many.

    Args:
        f: a scorer.
        layer: a layer with output (N, h, w, C) or (N, C).
        image_shape: (H, W, C) of the images.

    Returns:
        C objectives.

    Raises:
        ValueError: the layer is unknown.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda images: jv.tag("doubled", 2 * images).mean((1, 2))
        >>> len(jv.objectives.every_channel(f, "doubled", image_shape=(8, 8, 3)))
        3
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = jax.eval_shape(lambda x: capture(f, x, [layer])[layer], images)
    return [channel(layer, index) for index in range(found.shape[-1])]


def _only(acts: Activations) -> jax.Array:
    (value,) = acts.values()
    return value.astype(jnp.float32)


def _positions_mean(values: jax.Array) -> jax.Array:
    return values.mean(tuple(range(1, values.ndim)))


def _unit(acts: Activations, index: jax.Array) -> jax.Array:
    return jnp.take(_only(acts), index, axis=-1)


def _channel(acts: Activations, index: jax.Array) -> jax.Array:
    return _positions_mean(jnp.take(_only(acts), index, axis=-1))


def _neuron(acts: Activations, index: jax.Array, *position: jax.Array) -> jax.Array:
    return _at(_only(acts), position)[:, index]


def _layer(acts: Activations) -> jax.Array:
    return _positions_mean(jnp.square(_only(acts)))


def _direction(acts: Activations, vector: jax.Array) -> jax.Array:
    return _positions_mean(_only(acts) @ vector)


def _direction_at(acts: Activations, vector: jax.Array, *position: jax.Array) -> jax.Array:
    return _at(_only(acts), position) @ vector


def _interpolate(acts: Activations, first: jax.Array, second: jax.Array) -> jax.Array:
    start, end = _channel(acts, first), _channel(acts, second)
    t = jnp.linspace(0.0, 1.0, start.shape[0], dtype=jnp.float32)
    return (1 - t) * start + t * end


def _diversity(acts: Activations) -> jax.Array:
    values = _only(acts)
    images = values.shape[0]
    # G_s as a vector of length 1, so that gram @ gramᵀ holds all cosines; their own are left out.
    if images == 1:
        return jnp.zeros(1, jnp.float32)
    flat = values.reshape(images, -1, values.shape[-1])
    # The cosine is that of activations of any size: by their largest, no power leaves the range of
    # float32, and since it does not change the cosine, it takes no part in the derivative.
    largest = jax.lax.stop_gradient(jnp.abs(flat).max((1, 2), keepdims=True))
    flat = flat / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    gram = jnp.einsum("spi,spj->sij", flat, flat).reshape(images, -1)
    gram = gram / jnp.sqrt(jnp.square(gram).sum(-1, keepdims=True) + 1e-12)
    cosines = (gram @ gram.T) * (1 - jnp.eye(images, dtype=jnp.float32))
    return -cosines.sum(-1) / (images - 1)


def _at(values: jax.Array, position: tuple[jax.Array, ...]) -> jax.Array:
    row, col = position or (values.shape[1] // 2, values.shape[2] // 2)
    return values[:, row, col, :]


def _fits_unit(shapes: Shapes, layers: Sequence[Layer], index: np.ndarray) -> None:
    shape = shapes[layers[0]]
    if len(shape) != 1:
        raise ValueError(
            f"`unit` needs a layer with output (N, K): {_name(layers[0])} gives (N, "
            f"{', '.join(map(str, shape))}); use channel or neuron."
        )
    _fits_channel(shapes, layers, index)


def _fits_neuron(shapes: Shapes, layers: Sequence[Layer], index: Any, *position: Any) -> None:
    _fits_position(shapes[layers[0]], layers[0], position)
    _fits_channel(shapes, layers, index)


def _fits_channel(shapes: Shapes, layers: Sequence[Layer], *indices: np.ndarray) -> None:
    shape = shapes[layers[0]]
    for index in indices:
        if not 0 <= index < shape[-1]:
            raise ValueError(
                f"`index` must be in 0…{shape[-1] - 1} for {_name(layers[0])}: got {int(index)}."
            )


def _fits_vector(shapes: Shapes, layers: Sequence[Layer], vector: Any, *position: Any) -> None:
    shape = shapes[layers[0]]
    if vector.shape[0] != shape[-1]:
        raise ValueError(
            f"`vector` must have one entry a channel of {_name(layers[0])}: got {vector.shape[0]} "
            f"for {shape[-1]}."
        )
    if position:
        _fits_position(shape, layers[0], position)


def _fits_position(shape: tuple[int, ...], layer: Layer, position: tuple[Any, ...]) -> None:
    if len(shape) != 3:
        raise ValueError(
            f"`position` needs a layer with output (N, h, w, C): {_name(layer)} gives (N, "
            f"{', '.join(map(str, shape))})."
        )
    inside = all(0 <= at < size for at, size in zip(position, shape[:2], strict=False))
    if not inside:
        raise ValueError(
            f"`position` must lie inside {_name(layer)} of {shape[:2]}: got "
            f"({', '.join(str(int(at)) for at in position)})."
        )


def _name(layer: Layer) -> str:
    return "the scores" if layer is None else f"layer {layer!r}"


def _index(index: int) -> np.ndarray:
    if not isinstance(index, int | np.integer) or isinstance(index, bool):
        raise ValueError(f"`index` must be an integer: got {index!r}.")
    return np.asarray(index, np.int32)


def _position(position: tuple[int, int] | None) -> tuple[np.ndarray, ...]:
    if position is None:
        return ()
    row, col = position
    return np.asarray(row, np.int32), np.asarray(col, np.int32)
