"""Networks with the same random weights for JAX, PyTorch and Keras, one layer named.

It is the last one with positions, behind its ReLU: what Grad-CAM reads. In JAX, as in the others,
the network is a module: `nnx.Module`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from benchmarks import networks
from jaxviz import tag
from jaxviz.bench import ported
from jaxviz.bench.networks import Layers, Network, draw_weights, efficientnet_lite0

SIDE = 224
LAYER = "last"


class Twins(NamedTuple):
    """A network in three libraries; each with the name, or the module, of its layer."""

    name: str
    scorer: Any
    layer: str
    in_torch: Any
    torch_layer: Any
    in_keras: Any
    keras_layer: str


def make_twins(name: str) -> Twins:
    """Draw the weights of "VGG-16" or "EfficientNet-Lite0"."""
    return _vgg16() if name == "VGG-16" else _make(name, efficientnet_lite0)


class Module(nnx.Module):
    """A function and its arrays as a module."""

    def __init__(self, scorer: Partial) -> None:
        weights, self.tree = jax.tree.flatten(scorer.args)
        self.weights = nnx.List([nnx.Param(weight) for weight in weights])
        self.function = scorer.func

    def __call__(self, images: jax.Array) -> jax.Array:
        """Score images (N, H, W, C) -> (N, K)."""
        return self.function(*self.tree.unflatten([w[...] for w in self.weights]), images)


def _vgg16() -> Twins:
    import torch

    network = networks.vgg16(SIDE)
    last = max(i for i, layer in enumerate(network) if isinstance(layer, networks.Conv))
    in_torch = networks.in_torch(network).to(memory_format=torch.channels_last)
    module = in_torch.get_submodule(networks.torch_name(network, last))
    # Its layers' gradients are asked for, so that something before the layer must have one.
    in_torch.get_submodule(str(int(networks.torch_name(network, last)) - 1)).bias.requires_grad_()
    in_keras = networks.in_keras(network, (SIDE, SIDE, 3))
    scorer, layer = Module(networks.with_names(network)), f"layer{last}"
    return Twins("VGG-16", scorer, layer, in_torch, module, in_keras, in_keras.layers[last].name)


class _Named(Layers):
    def mean(self, x: jax.Array) -> jax.Array:
        return super().mean(tag(LAYER, x))


def _tagged(network: Network, weights: list[jax.Array], images: jax.Array) -> jax.Array:
    rest = iter(weights)
    return network(images, _Named(lambda *_: next(rest)))


def _make(name: str, network: Network) -> Twins:
    weights = draw_weights(network, SIDE)
    arrays = [jax.numpy.asarray(weight) for weight in weights]
    scorer = Module(Partial(partial(_tagged, network), arrays))
    in_torch = _in_torch(network, weights)
    in_keras = ported.keras_network(network, weights, (SIDE, SIDE, 3))
    names = [layer.name for layer in in_keras.layers]
    layer = names[max(i for i, n in enumerate(names) if n.startswith("global_average")) - 1]
    return Twins(name, scorer, LAYER, in_torch, in_torch.last, in_keras, layer)


def _in_torch(network: Network, weights: list[np.ndarray]) -> Any:
    import torch

    tensors = []
    for weight in weights:
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
        tensor = torch.from_numpy(np.ascontiguousarray(weight.transpose(axes)))
        tensors.append(tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor)
    last = 1 + max(i for i, tensor in enumerate(tensors) if tensor.ndim == 4)

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Identity()
            # The only one with a gradient: the layer's are asked for, the weights' are not.
            self.bias = torch.nn.Parameter(tensors[last])

        def forward(self, images: Any) -> Any:
            layers = ported._TorchLayers([*tensors[:last], self.bias, *tensors[last + 1 :]])
            plain = layers.mean
            layers.mean = lambda x: plain(self.last(x))
            return network(images, layers)

    return Twin().eval()
