"""The networks that `jaxviz bench` measures: their shapes, with random weights.

A network is a function of images and layers, which compute a convolution, a pool, … and ask for
the next weights in turn. So the same few lines are the network in JAX, with `Layers`, and in the
libraries that are measured beside it, with layers of theirs, see `jaxviz.bench.peers`.
Normalisations are folded into the convolutions, as they are when a network is only evaluated. What
is random is scaled so that the signal neither dies nor explodes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

Weight = Callable[..., Any]
CLASSES = 1000
Network = Callable[[Any, Any], Any]


def make_network(network: Network, side: int, *, channels: int = 3, seed: int = 0) -> Partial:
    """Draw the weights of a network.

    Args:
        network: one of this module.
        side: height and width of its images.
        channels: of its images.
        seed: of the weights.

    Returns:
        A scorer, images (N, side, side, channels) -> scores (N, K), whose weights are arguments.

    Example:
        >>> make_network(squeezenet, 64)(jnp.zeros((1, 64, 64, 3))).shape
        (1, 1000)
    """
    weights = draw_weights(network, side, channels=channels, seed=seed)
    return Partial(partial(_apply, network), [jnp.asarray(weight) for weight in weights])


def draw_weights(
    network: Network, side: int, *, channels: int = 3, seed: int = 0
) -> list[np.ndarray]:
    """Return random weights, in the order in which a network asks for them: He's, biases zero."""
    rng = np.random.default_rng(seed)
    return [_draw(rng, shape) for shape in weight_shapes(network, side, channels=channels)]


def weight_shapes(network: Network, side: int, *, channels: int = 3) -> list[tuple[int, ...]]:
    """Return the shapes of a network's weights, in the order in which it asks for them."""
    shapes: list[tuple[int, ...]] = []

    def note(*shape: int) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape)

    image = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    jax.eval_shape(lambda x: network(x, Layers(note)), image)
    return shapes


def _apply(network: Network, weights: list[jax.Array], images: jax.Array) -> jax.Array:
    rest = iter(weights)
    return network(images, Layers(lambda *shape: next(rest)))


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))


def mnist_cnn(x: Any, net: Any) -> Any:
    """Return the logits of the bundled network's shape: two convolutions, a pool, two layers."""
    for filters in (32, 64):
        x = net.relu(net.conv(x, filters, 3, padding="VALID"))
    x = net.flat(net.pool(x, 2, 2))
    return net.dense(net.relu(net.dense(x, 128)), 10)


def vgg16(x: Any, net: Any) -> Any:
    """Simonyan and Zisserman 2014, arXiv:1409.1556: 15.5 billion multiplications at 224."""
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = net.relu(net.conv(x, filters, 3))
        x = net.pool(x, 2, 2)
    x = net.flat(x)
    for units in (4096, 4096):
        x = net.relu(net.dense(x, units))
    return net.dense(x, CLASSES)


def resnet50(x: Any, net: Any) -> Any:
    """He, Zhang, Ren and Sun 2015, arXiv:1512.03385: 4.1 billion multiplications at 224."""
    x = net.pool(net.relu(net.conv(x, 64, 7, 2)), 3, 2, "SAME")
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = net.relu(net.conv(x, width, 1))
            y = net.relu(net.conv(y, width, 3, stride))
            y = net.conv(y, 4 * width, 1)
            x = net.conv(x, 4 * width, 1, stride) if not block else x
            x = net.relu(x + y)
    return net.dense(net.mean(x), CLASSES)


def mobilenet_v2(x: Any, net: Any) -> Any:
    """Sandler et al. 2018, arXiv:1801.04381: 0.3 billion multiplications at 224."""
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    blocks += ((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    x = net.relu6(net.conv(x, 32, 3, 2))
    for expansion, width, repeats, first in blocks:
        for stride in (first, *[1] * (repeats - 1)):
            inner = expansion * net.channels(x)
            y = net.relu6(net.conv(x, inner, 1)) if expansion > 1 else x
            y = net.relu6(net.conv(y, inner, 3, stride, groups=inner))
            y = net.conv(y, width, 1)
            x = x + y if stride == 1 and net.channels(x) == width else y
    x = net.relu6(net.conv(x, 1280, 1))
    return net.dense(net.mean(x), CLASSES)


def efficientnet_lite0(x: Any, net: Any) -> Any:
    """Tan and Le 2019, arXiv:1905.11946, Lite: 0.4 billion multiplications at 224."""
    # Of each stage: blocks, kernel, stride of the first block, expansion, channels.
    stages = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80))
    stages += ((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
    x = net.relu6(net.conv(x, 32, 3, 2))
    for blocks, size, first, expansion, width in stages:
        for stride in (first, *[1] * (blocks - 1)):
            inner = expansion * net.channels(x)
            y = net.relu6(net.conv(x, inner, 1)) if expansion > 1 else x
            y = net.relu6(net.conv(y, inner, size, stride, groups=inner))
            y = net.conv(y, width, 1)
            x = x + y if stride == 1 and net.channels(x) == width else y
    x = net.relu6(net.conv(x, 1280, 1))
    return net.dense(net.mean(x), CLASSES)


def squeezenet(x: Any, net: Any) -> Any:
    """Iandola et al. 2016, arXiv:1602.07360, version 1.1: 0.35 billion multiplications at 224."""
    x = net.pool(net.relu(net.conv(x, 64, 3, 2, padding="VALID")), 3, 2)
    fires = ((16, 64), (16, 64), None, (32, 128), (32, 128), None)
    fires += ((48, 192), (48, 192), (64, 256), (64, 256))
    for fire in fires:
        if fire is None:
            x = net.pool(x, 3, 2)
            continue
        squeeze, expand = fire
        x = net.relu(net.conv(x, squeeze, 1))
        sides = [net.relu(net.conv(x, expand, size)) for size in (1, 3)]
        x = net.join(sides)
    return net.mean(net.relu(net.conv(x, CLASSES, 1)))


class Layers:
    """Layers in JAX: arrays (N, H, W, C), kernels (rows, cols, in, out)."""

    def __init__(self, weight: Weight):
        self.weight = weight

    def channels(self, x: jax.Array) -> int:
        """Return how many channels there are."""
        return x.shape[-1]

    def conv(
        self,
        x: jax.Array,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: str = "SAME",
    ) -> jax.Array:
        """Convolve, and add a bias."""
        kernel = self.weight(size, size, x.shape[-1] // groups, filters)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return y + self.weight(filters)[None, None, None]

    def dense(self, x: jax.Array, units: int) -> jax.Array:
        """Multiply by a matrix, and add a bias."""
        return x @ self.weight(x.shape[-1], units) + self.weight(units)[None]

    def pool(self, x: jax.Array, size: int, stride: int, padding: str = "VALID") -> jax.Array:
        """Return the maximum of every window."""
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        lowest: Any = np.array(-np.inf, x.dtype)
        return jax.lax.reduce_window(x, lowest, jax.lax.max, window, strides, padding)

    def relu(self, x: jax.Array) -> jax.Array:
        """Return max(x, 0)."""
        return jax.nn.relu(x)

    def relu6(self, x: jax.Array) -> jax.Array:
        """Return min(max(x, 0), 6)."""
        return jax.nn.relu6(x)

    def join(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Put channels side by side."""
        return jnp.concatenate(parts, -1)

    def mean(self, x: jax.Array) -> jax.Array:
        """Return the mean over the pixels."""
        return x.mean((1, 2))

    def flat(self, x: jax.Array) -> jax.Array:
        """Return the features as rows, by (height, width, channel)."""
        return x.reshape(x.shape[0], -1)
