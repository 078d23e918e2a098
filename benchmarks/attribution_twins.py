"""SqueezeNet and VGG-16 with the same random weights for JAX, PyTorch and Keras, one layer named.

It is the last one with positions, behind its ReLU: what Grad-CAM reads.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from benchmarks import networks
from jaxviz import tag
from jaxviz.bench import ported
from jaxviz.bench.networks import Layers, draw_weights, squeezenet

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
    """Draw the weights of "SqueezeNet" or "VGG-16"."""
    return _squeezenet() if name == "SqueezeNet" else _vgg16()


def _vgg16() -> Twins:
    import torch

    network = networks.vgg16(SIDE)
    last = max(i for i, layer in enumerate(network) if isinstance(layer, networks.Conv))
    in_torch = networks.in_torch(network).to(memory_format=torch.channels_last)
    module = in_torch.get_submodule(networks.torch_name(network, last))
    # Its layers' gradients are asked for, so that something before the layer must have one.
    in_torch.get_submodule(str(int(networks.torch_name(network, last)) - 1)).bias.requires_grad_()
    in_keras = networks.in_keras(network, (SIDE, SIDE, 3))
    scorer, layer = networks.with_names(network), f"layer{last}"
    return Twins("VGG-16", scorer, layer, in_torch, module, in_keras, in_keras.layers[last].name)


class _Named(Layers):
    def mean(self, x: jax.Array) -> jax.Array:
        return super().mean(tag(LAYER, x))


def _tagged(weights: list[jax.Array], images: jax.Array) -> jax.Array:
    rest = iter(weights)
    return squeezenet(images, _Named(lambda *_: next(rest)))


def _squeezenet() -> Twins:
    weights = draw_weights(squeezenet, SIDE)
    scorer = Partial(_tagged, [jax.numpy.asarray(weight) for weight in weights])
    in_torch = _torch_squeezenet(weights)
    in_keras = ported.keras_network(squeezenet, weights, (SIDE, SIDE, 3))
    layer = in_keras.layers[-2].name
    return Twins("SqueezeNet", scorer, LAYER, in_torch, in_torch.last, in_keras, layer)


def _torch_squeezenet(weights: list[np.ndarray]) -> Any:
    import torch

    tensors = []
    for weight in weights:
        axes = (3, 2, 0, 1) if weight.ndim == 4 else (0,)
        tensor = torch.from_numpy(np.ascontiguousarray(weight.transpose(axes)))
        tensors.append(tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor)

    class SqueezeNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Identity()
            # The only one with a gradient: the layer's are asked for, the weights' are not.
            self.bias = torch.nn.Parameter(tensors[-1])

        def forward(self, images: Any) -> Any:
            layers = ported._TorchLayers([*tensors[:-1], self.bias])
            plain = layers.mean
            layers.mean = lambda x: plain(self.last(x))
            return squeezenet(images, layers)

    return SqueezeNet().eval()
