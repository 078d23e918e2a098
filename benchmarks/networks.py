"""Plain convolutional networks with random weights, the same for JAX, PyTorch and Keras.

A network is a tuple of layers: `Conv` (stride 1, padding "same", then ReLU), `Pool` (the maximum of
2×2) and `Dense` (ReLU between two of them). Images are float32 (N, height, width, channel), logits
(N, K); kernels are laid out (rows, cols, in, out), and flattening goes by (height, width, channel).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxviz import tag

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Conv(NamedTuple):
    """A convolution and its ReLU."""

    kernel: Any
    bias: Any


class Pool(NamedTuple):
    """The maximum of every 2×2 pixels."""


class Dense(NamedTuple):
    """A matrix product."""

    kernel: Any
    bias: Any


Network = tuple[Conv | Pool | Dense, ...]


def make_network(
    shape: tuple[int, int, int],
    blocks: Sequence[Sequence[int]],
    widths: Sequence[int],
    *,
    seed: int = 0,
    pools: bool = True,
) -> Network:
    """Draw a network for images of `shape`: blocks of convolutions that end in a pool, then dense.

    Weights are normal, of variance 2 / inputs, so that the signal neither dies nor explodes.
    """
    rng = np.random.default_rng(seed)

    def draw(*sizes: int) -> tuple[np.ndarray, np.ndarray]:
        scale = np.float32(np.sqrt(2 / np.prod(sizes[:-1])))
        kernel = rng.standard_normal(sizes, np.float32) * scale
        return kernel, rng.standard_normal(sizes[-1], np.float32) * np.float32(0.1)

    layers: list[Conv | Pool | Dense] = []
    height, width, channels = shape
    for block in blocks:
        for filters in block:
            layers.append(Conv(*draw(3, 3, channels, filters)))
            channels = filters
        if pools:
            layers.append(Pool())
            height, width = height // 2, width // 2
    features = height * width * channels
    for units in widths:
        layers.append(Dense(*draw(features, units)))
        features = units
    return tuple(layers)


def vgg16(side: int = 224) -> Network:
    """Draw VGG-16 (Simonyan and Zisserman 2014, arXiv:1409.1556) for images (side, side, 3)."""
    return make_network((side, side, 3), VGG16, (4096, 4096, 1000))


def apply(
    network: Network,
    images: jax.Array,
    name: Callable[[str, jax.Array], jax.Array] = lambda _, x: x,
) -> jax.Array:
    """Return the logits; `name` is given what each layer puts out, as "layer0", "layer1", …."""
    x = images
    for index, layer in enumerate(network):
        if isinstance(layer, Conv):
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, layer.kernel, (1, 1), "SAME", dimension_numbers=dims
            )
            x = jax.nn.relu(x + layer.bias[None, None, None])
        elif isinstance(layer, Pool):
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        else:
            x = x.reshape(len(x), -1) @ layer.kernel + layer.bias[None]
            x = x if layer is network[-1] else jax.nn.relu(x)
        x = name(f"layer{index}", x)
    return x


def tagged(network: Network, images: jax.Array) -> jax.Array:
    """Return the logits of a scorer whose layers can be named."""
    return apply(network, images, tag)


def probabilities(network: Network, images: jax.Array) -> jax.Array:
    """Return the softmax of the logits."""
    return jax.nn.softmax(apply(network, images))


def in_jax(network: Network, *, softmax: bool = False) -> Partial:
    """Return the network as a scorer whose weights are arguments of a compiled program."""
    return Partial(probabilities if softmax else apply, jax.tree.map(jnp.asarray, network))


def with_names(network: Network) -> Partial:
    """Return the same, logits, with layers "layer0", … for methods that look into it."""
    return Partial(tagged, jax.tree.map(jnp.asarray, network))


def torch_name(network: Network, index: int) -> str:
    """Return the name in PyTorch of what layer `index` puts out, behind its ReLU."""
    flattened = any(isinstance(layer, Dense) for layer in network[: index + 1])
    modules = sum(1 if isinstance(layer, Pool) else 2 for layer in network[: index + 1])
    return str(modules + flattened - 1)


def in_torch(network: Network, *, softmax: bool = False) -> Any:
    """Return the network as a `torch.nn.Module`: (N, channel, height, width) -> (N, K)."""
    import torch

    modules, grid = [], None
    for layer in network:
        if isinstance(layer, Conv):
            weight = layer.kernel.transpose(3, 2, 0, 1)
            module = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            modules += [_with_weights(module, weight, layer.bias), torch.nn.ReLU()]
            grid = weight.shape[0]
        elif isinstance(layer, Pool):
            modules.append(torch.nn.MaxPool2d(2))
        else:
            weight = layer.kernel.T
            if grid is not None:
                by_pixel = weight.reshape(len(weight), -1, grid)
                weight, grid = by_pixel.swapaxes(1, 2).reshape(len(weight), -1), None
                modules.append(torch.nn.Flatten())
            module = torch.nn.Linear(weight.shape[1], weight.shape[0])
            modules += [_with_weights(module, weight, layer.bias), torch.nn.ReLU()]
    modules[-1] = torch.nn.Softmax(1) if softmax else torch.nn.Identity()
    return torch.nn.Sequential(*modules).eval().requires_grad_(False)


def _with_weights(module: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    import torch

    module.weight.data = torch.from_numpy(np.ascontiguousarray(weight))
    module.bias.data = torch.from_numpy(bias)
    return module


def in_keras(network: Network, shape: tuple[int, int, int], *, softmax: bool = False) -> Any:
    """Return the network as a Keras model for images of `shape`, on whatever backend is set."""
    import keras

    last = len(network) - 1
    layers: list[Any] = [keras.layers.Input(shape)]
    for index, layer in enumerate(network):
        if isinstance(layer, Conv):
            filters = layer.kernel.shape[-1]
            layers.append(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
        elif isinstance(layer, Pool):
            layers.append(keras.layers.MaxPooling2D(2))
        else:
            if not isinstance(network[index - 1], Dense):
                layers.append(keras.layers.Flatten())
            final = "softmax" if softmax else "linear"
            name = final if index == last else "relu"
            layers.append(keras.layers.Dense(layer.kernel.shape[-1], activation=name))
    model = keras.Sequential(layers)
    weighted = [layer for layer in network if not isinstance(layer, Pool)]
    model.set_weights([array for layer in weighted for array in layer])
    return model
