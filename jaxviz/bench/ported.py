"""The networks of `jaxviz bench` in PyTorch and in Keras, with the weights that they have in JAX.

Layers as those of `jaxviz.bench.networks.Layers`, which tell what they do. Padding "SAME" puts the
odd pixel behind, as in JAX; PyTorch, which cannot, gets images padded beforehand.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from math import ceil
from typing import Any

import numpy as np

from jaxviz.bench.networks import Network


def torch_network(network: Network, weights: list[np.ndarray], device: str) -> Callable:
    """Return a network in PyTorch: (N, C, H, W) -> (N, K), in the layout channels_last."""
    import torch

    ready = []
    for weight in weights:
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
        tensor = torch.from_numpy(np.ascontiguousarray(weight.transpose(axes))).to(device)
        ready.append(tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor)
    return lambda images: network(images, _TorchLayers(ready))


class _TorchLayers:
    def __init__(self, weights: list[Any]):
        import torch

        self.torch, self.rest = torch, iter(weights)

    def channels(self, x: Any) -> int:
        return x.shape[1]

    def conv(
        self,
        x: Any,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: str = "SAME",
    ) -> Any:
        kernel, bias = next(self.rest), next(self.rest)
        same = padding == "SAME"
        even = same and stride == 1 and size % 2 == 1
        if same and not even:
            x = self._padded(x, size, stride, 0.0)
        around = size // 2 if even else 0
        return self.torch.nn.functional.conv2d(x, kernel, bias, stride, around, groups=groups)

    def dense(self, x: Any, units: int) -> Any:
        return self.torch.nn.functional.linear(x, next(self.rest), next(self.rest))

    def pool(self, x: Any, size: int, stride: int, padding: str = "VALID") -> Any:
        if padding == "SAME":
            x = self._padded(x, size, stride, float("-inf"))
        return self.torch.nn.functional.max_pool2d(x, size, stride)

    def relu(self, x: Any) -> Any:
        return self.torch.relu(x)

    def relu6(self, x: Any) -> Any:
        return self.torch.nn.functional.relu6(x)

    def join(self, parts: Sequence[Any]) -> Any:
        return self.torch.cat(parts, 1)

    def mean(self, x: Any) -> Any:
        return x.mean((2, 3))

    def flat(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)

    def _padded(self, x: Any, size: int, stride: int, value: float) -> Any:
        sides = []
        for extent in (x.shape[3], x.shape[2]):
            total = max((ceil(extent / stride) - 1) * stride + size - extent, 0)
            sides += [total // 2, total - total // 2]
        return self.torch.nn.functional.pad(x, sides, value=value) if any(sides) else x


def keras_network(network: Network, weights: list[np.ndarray], shape: tuple[int, ...]) -> Any:
    """Return a network as a Keras model for images of a shape, on the backend that is set."""
    keras: Any = import_module("keras")
    images = keras.layers.Input(shape)
    return keras.Model(images, network(images, _KerasLayers(weights)))


class _KerasLayers:
    def __init__(self, weights: list[np.ndarray]):
        from keras import layers

        self.layers, self.rest = layers, iter(weights)

    def channels(self, x: Any) -> int:
        return x.shape[-1]

    def conv(
        self,
        x: Any,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: str = "SAME",
    ) -> Any:
        kernel, bias = next(self.rest), next(self.rest)
        how = {"strides": stride, "padding": padding.lower()}
        if groups == 1:
            return self._with(self.layers.Conv2D(filters, size, **how), x, kernel, bias)
        layer = self.layers.DepthwiseConv2D(size, **how)
        return self._with(layer, x, kernel.transpose(0, 1, 3, 2), bias)

    def dense(self, x: Any, units: int) -> Any:
        return self._with(self.layers.Dense(units), x, next(self.rest), next(self.rest))

    def pool(self, x: Any, size: int, stride: int, padding: str = "VALID") -> Any:
        return self.layers.MaxPooling2D(size, stride, padding.lower())(x)

    def relu(self, x: Any) -> Any:
        return self.layers.ReLU()(x)

    def relu6(self, x: Any) -> Any:
        return self.layers.ReLU(6.0)(x)

    def join(self, parts: Sequence[Any]) -> Any:
        return self.layers.Concatenate()(parts)

    def mean(self, x: Any) -> Any:
        return self.layers.GlobalAveragePooling2D()(x)

    def flat(self, x: Any) -> Any:
        return self.layers.Flatten()(x)

    def _with(self, layer: Any, x: Any, *weights: np.ndarray) -> Any:
        y = layer(x)
        layer.set_weights(list(weights))
        return y
