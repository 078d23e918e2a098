"""Depthwise, separable and transposed convolutions, in one to three dimensions.

A depthwise kernel is stored as Flax stores it, (*window, 1, in · multiplier); a transposed one
stays (*window, out, in), as in Keras and in Flax with `transpose_kernel=True`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from flax import nnx
from jax import lax

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.activation import linear, resolve
from jaxviz.keras.layers.conv import (
    Conv,
    ConvSpec,
    axes_of,
    check_kernel,
    kernel_and_bias,
    read_spec,
)
from jaxviz.keras.layers.converter import (
    Converter,
    Weight,
    Weights,
    affine_bias,
    check_shape,
    parameter,
    spatial_axes,
)


class SeparableConv(nnx.Module):
    """A depthwise convolution, then one of window 1 across channels, then the activation."""

    def __init__(self, depthwise: Weight, pointwise: Weight, bias: Weight | None, spec: ConvSpec):
        self.depthwise_kernel, self.pointwise_kernel = parameter(depthwise), parameter(pointwise)
        self.bias, self.spec = parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve images (N, *space, C) into (N, *space, filters), or with channels first."""
        spec = self.spec
        ones = (1,) * len(spec.strides)
        pointwise = replace(spec, strides=ones, dilation=ones, padding="valid", groups=1)
        y = spec.convolve(x, self.depthwise_kernel[...])
        y = pointwise.convolve(y, self.pointwise_kernel[...])
        y = affine_bias(y, self.bias, channels_first=spec.channels_first)
        return spec.activation(y)

    def without_activation(self) -> "SeparableConv":
        """Return the layer without its activation, its arrays shared."""
        spec = replace(self.spec, activation=linear)
        return SeparableConv(self.depthwise_kernel, self.pointwise_kernel, self.bias, spec)


@dataclass(frozen=True)
class TransposeSpec:
    """The constants of a transposed convolution."""

    strides: tuple[int, ...]
    padding: str
    output_padding: tuple[int, ...] | None
    dilation: tuple[int, ...]
    channels_first: bool
    activation: Callable[[jax.Array], jax.Array]
    declared: tuple[int | None, ...] | None = None

    def edges(self, size: int, extent: int, axis: int) -> tuple[int, int]:
        """Padding of one axis: that of the gradient of a forward convolution, as in TensorFlow.

        The forward convolution maps `length` pixels to `size`; what it pads before, this crops.
        """
        # A transposed convolution puts stride − 1 zeros between inputs, pads, and correlates with
        # the kernel reversed. One axis, size 3, stride 2, extent 3 ("." is a zero):
        #     . . | a . b . c | . .   extent − 1 = 2 on both sides, for every overlap: 7 outputs
        # "same" wants 3·2 = 6 of them: `padded` = (3 − 1)·2 + 3 − 6 = 1 too many. The forward
        # convolution pads ⌊1/2⌋ = 0 before and 1 after: so much is cropped here.
        stride = self.strides[axis]
        if self.output_padding is not None:
            trimmed = 2 * (extent // 2) if self.padding == "same" else 0
            length = (size - 1) * stride + extent - trimmed + self.output_padding[axis]
        elif self.padding == "same":
            length = size * stride
        else:
            length = size * stride + max(extent - stride, 0)
        padded = max((size - 1) * stride + extent - length, 0) if self.padding == "same" else 0
        low = extent - 1 - padded // 2
        # Outputs: low + ((size − 1)·stride + 1) + high − (extent − 1) = length.
        return low, length - ((size - 1) * stride + 1) + extent - 1 - low


class ConvTranspose(nnx.Module):
    """activation(kernelᵀ ⋆ x + bias): a convolution run backwards, from small maps to large."""

    def __init__(self, kernel: Weight, bias: Weight | None, spec: TransposeSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge images (N, *space, C) to (N, *larger space, filters), or with channels first."""
        spec, kernel = self.spec, self.kernel[...].astype(x.dtype)
        rank = len(spec.strides)
        sizes = [x.shape[a] for a in spatial_axes(x.ndim, channels_first=spec.channels_first)]
        extents = [(k - 1) * d + 1 for k, d in zip(kernel.shape, spec.dilation, strict=False)]
        y = lax.conv_general_dilated(
            x,
            lax.rev(kernel, tuple(range(rank))),
            (1,) * rank,
            [spec.edges(n, k, i) for i, (n, k) in enumerate(zip(sizes, extents, strict=True))],
            lhs_dilation=spec.strides,
            rhs_dilation=spec.dilation,
            dimension_numbers=axes_of(rank, "OI", channels_first=spec.channels_first),
        )
        _check_declared(y.shape[1:], spec.declared)
        y = affine_bias(y, self.bias, channels_first=spec.channels_first)
        return spec.activation(y)

    def without_activation(self) -> "ConvTranspose":
        """Return the layer without its activation, its arrays shared."""
        return ConvTranspose(self.kernel, self.bias, replace(self.spec, activation=linear))


def _check_declared(shape: tuple[int, ...], declared: tuple[int | None, ...] | None) -> None:
    """Refuse an output that is not of the shape that a file of Keras 1 declares.

    With strides several sizes give the same input under the forward convolution; Keras 1 let its
    user choose one of them.
    """
    if declared is None:
        return
    if len(declared) != len(shape) or any(
        d not in (None, n) for d, n in zip(declared, shape, strict=True)
    ):
        raise ValueError(f"its output has shape {shape}, and {declared} is asked for: not handled")


def _flat_depthwise(kernel: np.ndarray) -> np.ndarray:
    """Return a depthwise kernel (*window, in, multiplier) as (*window, 1, in · multiplier)."""
    *window, channels, multiplier = kernel.shape
    return kernel.reshape(*window, 1, channels * multiplier)


def _depthwise(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Conv:
        window, multiplier = (
            fields.sizes("kernel_size", rank),
            fields.integer("depth_multiplier", 1),
        )
        kernel = weights["kernel"]
        check_shape("kernel", kernel, (*window, None, multiplier))
        if "bias" in weights:
            check_shape("bias", weights["bias"], (math.prod(kernel.shape[-2:]),))
        fields.raw("groups")
        fields.raw("filters")
        spec = read_spec(fields, rank, None)
        return Conv(_flat_depthwise(kernel), weights.get("bias"), spec)

    return Converter(build, kernel_and_bias)


def _separable_weights(fields: Fields) -> Sequence[str]:
    bias = ("bias",) if fields.boolean("use_bias", True) else ()
    return ("depthwise_kernel", "pointwise_kernel", *bias)


def _separable(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> SeparableConv:
        window, multiplier = (
            fields.sizes("kernel_size", rank),
            fields.integer("depth_multiplier", 1),
        )
        filters = fields.integer("filters")
        depthwise, pointwise = weights["depthwise_kernel"], weights["pointwise_kernel"]
        check_shape("depthwise kernel", depthwise, (*window, None, multiplier))
        channels = depthwise.shape[-2] * multiplier
        check_shape("pointwise kernel", pointwise, (*(1,) * rank, channels, filters))
        if "bias" in weights:
            check_shape("bias", weights["bias"], (filters,))
        fields.raw("groups")
        spec = read_spec(fields, rank, None)
        return SeparableConv(_flat_depthwise(depthwise), pointwise, weights.get("bias"), spec)

    return Converter(build, _separable_weights)


def _transpose(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> ConvTranspose:
        filters, window = fields.integer("filters"), fields.sizes("kernel_size", rank)
        check_kernel(fields, weights, (*window, filters, None), filters)
        extra = (
            fields.sizes("output_padding", rank, low=0) if fields.has("output_padding") else None
        )
        declared = fields.raw("output_shape")
        if fields.integer("groups", 1) != 1:
            raise fields.wrong("groups", "1")
        spec = TransposeSpec(
            fields.sizes("strides", rank, 1),
            fields.choice("padding", ("valid", "same"), "valid"),
            extra,
            fields.sizes("dilation_rate", rank, 1),
            fields.channels_first(),
            resolve(fields.raw("activation")),
            tuple(declared[1:]) if declared else None,
        )
        return ConvTranspose(weights["kernel"], weights.get("bias"), spec)

    return Converter(build, kernel_and_bias)


TABLE = {
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    **{f"Conv{rank}DTranspose": _transpose(rank) for rank in (1, 2, 3)},
}
