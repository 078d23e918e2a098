"""Dense, einsum and convolution layers, in one to three dimensions, channels first or last.

Kernels are stored as Flax stores them: (*window, in / groups, out). "same" pads as TensorFlow does:
the odd pixel goes to the end.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxviz.keras.architecture.fields import Fields
from jaxviz.keras.layers.activation import linear, resolve
from jaxviz.keras.layers.converter import (
    Converter,
    Weight,
    Weights,
    affine_bias,
    check_shape,
    parameter,
)

_EQUATION = re.compile(r"(\.\.\.)?[A-Za-z]+(\.\.\.)?,[A-Za-z]+->(\.\.\.)?[A-Za-z]*(\.\.\.)?")


def axes_of(rank: int, features: str, *, channels_first: bool) -> tuple[str, str, str]:
    """Return the axes of input, kernel and output as XLA spells them: "NHWC", "HWIO", "NHWC"."""
    space = "DHW"[-rank:]
    array = "NC" + space if channels_first else "N" + space + "C"
    return array, space + features, array


@dataclass(frozen=True)
class ConvSpec:
    """The constants of a convolution."""

    strides: tuple[int, ...]
    padding: str
    dilation: tuple[int, ...]
    groups: int | None
    channels_first: bool
    activation: Callable[[jax.Array], jax.Array]

    @property
    def layout(self) -> tuple[str, str, str]:
        """The axes of input, kernel and output as XLA spells them."""
        return axes_of(len(self.strides), "IO", channels_first=self.channels_first)

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Cross-correlate x with a kernel; groups of None are one for each input channel."""
        channels = x.shape[1 if self.channels_first else -1]
        padding: Any = self.padding.upper()
        if self.padding == "causal":
            padding = [((kernel.shape[0] - 1) * self.dilation[0], 0)]
        return lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            self.strides,
            padding,
            rhs_dilation=self.dilation,
            dimension_numbers=self.layout,
            feature_group_count=self.groups or channels,
        )


class Conv(nnx.Module):
    """activation(kernel ⋆ x + bias); grouped and depthwise convolutions included."""

    def __init__(self, kernel: Weight, bias: Weight | None, spec: ConvSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve images (N, *space, C) into (N, *space, filters), or with channels first."""
        y = self.spec.convolve(x, self.kernel[...])
        y = affine_bias(y, self.bias, channels_first=self.spec.channels_first)
        return self.spec.activation(y)

    def without_activation(self) -> "Conv":
        """Return the layer without its activation, its arrays shared."""
        return Conv(self.kernel, self.bias, replace(self.spec, activation=linear))


@dataclass(frozen=True)
class DenseSpec:
    """The constants of a dense layer."""

    activation: Callable[[jax.Array], jax.Array]


class Dense(nnx.Module):
    """activation(x · kernel + bias) along the last axis."""

    def __init__(self, kernel: Weight, bias: Weight | None, spec: DenseSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map arrays (N, ..., features) to (N, ..., units)."""
        y = lax.dot_general(x, self.kernel[...].astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))
        return self.spec.activation(affine_bias(y, self.bias))

    def without_activation(self) -> "Dense":
        """Return the layer without its activation, its arrays shared."""
        return Dense(self.kernel, self.bias, DenseSpec(linear))


@dataclass(frozen=True)
class EinsumSpec:
    """The constants of an einsum layer: an equation such as "abc,cd->abd"."""

    equation: str
    activation: Callable[[jax.Array], jax.Array]


class EinsumDense(nnx.Module):
    """activation(einsum(equation, x, kernel) + bias); the bias broadcasts from the last axis."""

    def __init__(self, kernel: Weight, bias: Weight | None, spec: EinsumSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Contract arrays (N, ...) with the kernel."""
        y = jnp.einsum(self.spec.equation, x, self.kernel[...].astype(x.dtype))
        if self.bias is not None:
            bias = self.bias[...].astype(y.dtype)
            y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return self.spec.activation(y)

    def without_activation(self) -> "EinsumDense":
        """Return the layer without its activation, its arrays shared."""
        return EinsumDense(self.kernel, self.bias, replace(self.spec, activation=linear))


def kernel_and_bias(fields: Fields) -> Sequence[str]:
    """Return the weight names of a layer with a kernel and perhaps a bias."""
    return ("kernel", "bias") if fields.boolean("use_bias", True) else ("kernel",)


def read_spec(fields: Fields, rank: int, groups: int | None) -> ConvSpec:
    """Read the strides, padding, dilation, layout and activation of a convolution."""
    allowed = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    return ConvSpec(
        fields.sizes("strides", rank, 1),
        fields.choice("padding", allowed, "valid"),
        fields.sizes("dilation_rate", rank, 1),
        groups,
        fields.channels_first(),
        resolve(fields.raw("activation")),
    )


def check_kernel(fields: Fields, weights: Weights, shape: tuple, outputs: int) -> None:
    """Check a kernel, and a bias of one value for each output channel."""
    check_shape("kernel", weights["kernel"], shape)
    if "bias" in weights:
        check_shape("bias", weights["bias"], (outputs,))


def _conv(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Conv:
        filters, window = fields.integer("filters"), fields.sizes("kernel_size", rank)
        groups = fields.integer("groups", 1)
        check_kernel(fields, weights, (*window, None, filters), filters)
        if filters % groups:
            raise fields.wrong("groups", f"a divisor of the {filters} filters")
        spec = read_spec(fields, rank, groups)
        return Conv(weights["kernel"], weights.get("bias"), spec)

    return Converter(build, kernel_and_bias)


def _dense(fields: Fields, weights: Weights) -> Dense:
    units = fields.integer("units")
    check_kernel(fields, weights, (None, units), units)
    spec = DenseSpec(resolve(fields.raw("activation")))
    return Dense(weights["kernel"], weights.get("bias"), spec)


def _einsum_weights(fields: Fields) -> Sequence[str]:
    return ("kernel", "bias") if fields.has("bias_axes") else ("kernel",)


def _einsum(fields: Fields, weights: Weights) -> EinsumDense:
    equation = fields.raw("equation")
    if not isinstance(equation, str) or not _EQUATION.fullmatch(equation):
        raise fields.wrong("equation", 'of two operands, such as "abc,cd->abd"')
    letters = equation.partition(",")[2].partition("->")[0]
    check_shape("kernel", weights["kernel"], (None,) * len(letters))
    for name in ("output_shape", "bias_axes"):
        fields.raw(name)
    spec = EinsumSpec(equation, resolve(fields.raw("activation")))
    return EinsumDense(weights["kernel"], weights.get("bias"), spec)


TABLE = {
    "Conv1D": _conv(1),
    "Conv2D": _conv(2),
    "Conv3D": _conv(3),
    "Dense": Converter(_dense, kernel_and_bias),
    "EinsumDense": Converter(_einsum, _einsum_weights),
}
