"""The networks that `jaxviz bench` measures: their shapes, with random weights.

A network is a function of images (N, H, W, 3) and `weight`, which gives the next array of a shape;
normalisations are folded into the convolutions, as they are when a network is only evaluated. What
is random is scaled so that the signal neither dies nor explodes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

Weight = Callable[..., jax.Array]
Network = Callable[[jax.Array, Weight], jax.Array]
CLASSES = 1000


def make_network(network: Network, side: int, *, seed: int = 0) -> Partial:
    """Draw the weights of a network.

    Args:
        network: one of this module.
        side: height and width of its images.
        seed: of the weights.

    Returns:
        A scorer, images (N, side, side, 3) -> scores (N, 1000), whose weights are arguments.

    Example:
        >>> make_network(squeezenet, 64)(jnp.zeros((1, 64, 64, 3))).shape
        (1, 1000)
    """
    rng = np.random.default_rng(seed)
    return Partial(partial(_apply, network), [_draw(rng, s) for s in weight_shapes(network, side)])


def weight_shapes(network: Network, side: int) -> list[tuple[int, ...]]:
    """Return the shapes of a network's weights, in the order in which it asks for them."""
    shapes: list[tuple[int, ...]] = []

    def note(*shape: int) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape)

    jax.eval_shape(lambda x: network(x, note), jax.ShapeDtypeStruct((1, side, side, 3), np.float32))
    return shapes


def _apply(network: Network, weights: list[jax.Array], images: jax.Array) -> jax.Array:
    rest = iter(weights)
    return network(images, lambda *shape: next(rest))


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
    if len(shape) == 1:
        return jnp.zeros(shape)
    scale = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
    return jnp.asarray(rng.standard_normal(shape, np.float32) * scale)


def vgg16(x: jax.Array, weight: Weight) -> jax.Array:
    """Simonyan and Zisserman 2014, arXiv:1409.1556: 15.5 billion multiplications at 224."""
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = jax.nn.relu(_conv(x, weight, filters, 3))
        x = _pool(x, 2, 2)
    x = x.reshape(x.shape[0], -1)
    for units in (4096, 4096):
        x = jax.nn.relu(_dense(x, weight, units))
    return _dense(x, weight, CLASSES)


def resnet50(x: jax.Array, weight: Weight) -> jax.Array:
    """He, Zhang, Ren and Sun 2015, arXiv:1512.03385: 4.1 billion multiplications at 224."""
    x = _pool(jax.nn.relu(_conv(x, weight, 64, 7, 2)), 3, 2, "SAME")
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = jax.nn.relu(_conv(x, weight, width, 1))
            y = jax.nn.relu(_conv(y, weight, width, 3, stride))
            y = _conv(y, weight, 4 * width, 1)
            x = _conv(x, weight, 4 * width, 1, stride) if not block else x
            x = jax.nn.relu(x + y)
    return _dense(x.mean((1, 2)), weight, CLASSES)


def mobilenet_v2(x: jax.Array, weight: Weight) -> jax.Array:
    """Sandler et al. 2018, arXiv:1801.04381: 0.3 billion multiplications at 224."""
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    blocks += ((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    x = jax.nn.relu6(_conv(x, weight, 32, 3, 2))
    for expansion, width, repeats, first in blocks:
        for stride in (first, *[1] * (repeats - 1)):
            inner = expansion * x.shape[-1]
            y = jax.nn.relu6(_conv(x, weight, inner, 1)) if expansion > 1 else x
            y = jax.nn.relu6(_conv(y, weight, inner, 3, stride, groups=inner))
            y = _conv(y, weight, width, 1)
            x = x + y if x.shape == y.shape else y
    x = jax.nn.relu6(_conv(x, weight, 1280, 1))
    return _dense(x.mean((1, 2)), weight, CLASSES)


def squeezenet(x: jax.Array, weight: Weight) -> jax.Array:
    """Iandola et al. 2016, arXiv:1602.07360, version 1.1: 0.35 billion multiplications at 224."""
    x = _pool(jax.nn.relu(_conv(x, weight, 64, 3, 2, padding="VALID")), 3, 2)
    fires = ((16, 64), (16, 64), None, (32, 128), (32, 128), None)
    fires += ((48, 192), (48, 192), (64, 256), (64, 256))
    for fire in fires:
        if fire is None:
            x = _pool(x, 3, 2)
            continue
        squeeze, expand = fire
        x = jax.nn.relu(_conv(x, weight, squeeze, 1))
        sides = [jax.nn.relu(_conv(x, weight, expand, size)) for size in (1, 3)]
        x = jnp.concatenate(sides, -1)
    return jax.nn.relu(_conv(x, weight, CLASSES, 1)).mean((1, 2))


def _conv(
    x: jax.Array,
    weight: Weight,
    filters: int,
    size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    padding: str = "SAME",
) -> jax.Array:
    kernel = weight(size, size, x.shape[-1] // groups, filters)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + weight(filters)[None, None, None]


def _dense(x: jax.Array, weight: Weight, units: int) -> jax.Array:
    return x @ weight(x.shape[-1], units) + weight(units)[None]


def _pool(x: jax.Array, size: int, stride: int, padding: str = "VALID") -> jax.Array:
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    lowest: Any = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window, strides, padding)
