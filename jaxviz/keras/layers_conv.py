"""Dense and convolution layers, in one to three dimensions, channels first or last.

Kernels are stored as Flax stores them: (*window, in / groups, out). "same" pads as TensorFlow does: the odd
pixel goes to the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax import lax

from jaxviz.keras.converter import Converter, Weights, affine_bias, check_shape, parameter
from jaxviz.keras.fields import Fields
from jaxviz.keras.layers_activation import linear, resolve

_SPACE = "DHW"


@dataclass(frozen=True)
class ConvSpec:
    """The constants of a convolution."""

    strides: tuple[int, ...]
    padding: str
    dilation: tuple[int, ...]
    channels_first: bool
    activation: Callable[[jax.Array], jax.Array]

    @property
    def layout(self) -> tuple[str, str, str]:
        """The axes of input, kernel and output as XLA spells them."""
        space = _SPACE[-len(self.strides) :]
        array = "NC" + space if self.channels_first else "N" + space + "C"
        return array, space + "IO", array

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Cross-correlate; the number of groups follows from the shapes."""
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
            feature_group_count=max(channels // kernel.shape[-2], 1),
        )


class Conv(nnx.Module):
    """activation(kernel ⋆ x + bias); grouped and depthwise convolutions included."""

    def __init__(self, kernel: Any, bias: Any, spec: ConvSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (N, *space, C) to (N, *space, filters), or channels first."""
        y = self.spec.convolve(x, self.kernel[...])
        y = affine_bias(y, self.bias, channels_first=self.spec.channels_first)
        return self.spec.activation(y)

    def without_activation(self) -> "Conv":
        """The same layer, linear."""
        return Conv(self.kernel, self.bias, replace(self.spec, activation=linear))


@dataclass(frozen=True)
class DenseSpec:
    """The constants of a dense layer."""

    activation: Callable[[jax.Array], jax.Array]


class Dense(nnx.Module):
    """activation(x · kernel + bias) along the last axis."""

    def __init__(self, kernel: Any, bias: Any, spec: DenseSpec):
        self.kernel, self.bias, self.spec = parameter(kernel), parameter(bias), spec

    def __call__(self, x: jax.Array) -> jax.Array:
        """Arrays (N, ..., features) to (N, ..., units)."""
        y = lax.dot_general(x, self.kernel[...].astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))
        return self.spec.activation(affine_bias(y, self.bias))

    def without_activation(self) -> "Dense":
        """The same layer, linear."""
        return Dense(self.kernel, self.bias, DenseSpec(linear))


def kernel_and_bias(fields: Fields) -> Sequence[str]:
    """The weight names of a layer with a kernel and perhaps a bias."""
    return ("kernel", "bias") if fields.boolean("use_bias", True) else ("kernel",)


def read_spec(fields: Fields, rank: int) -> ConvSpec:
    """Strides, padding, dilation, layout and activation of a convolution."""
    allowed = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    return ConvSpec(
        fields.sizes("strides", rank, 1),
        fields.choice("padding", allowed, "valid"),
        fields.sizes("dilation_rate", rank, 1),
        fields.channels_first(),
        resolve(fields.raw("activation")),
    )


def _conv(rank: int) -> Converter:
    def build(fields: Fields, weights: Weights) -> Conv:
        filters, window = fields.integer("filters"), fields.sizes("kernel_size", rank)
        groups = fields.integer("groups", 1)
        if filters % groups:
            raise fields.wrong("groups", f"a divisor of the {filters} filters")
        check_shape("kernel", weights["kernel"], (*window, None, filters))
        if "bias" in weights:
            check_shape("bias", weights["bias"], (filters,))
        return Conv(weights["kernel"], weights.get("bias"), read_spec(fields, rank))

    return Converter(build, kernel_and_bias)


def _dense(fields: Fields, weights: Weights) -> Dense:
    units = fields.integer("units")
    check_shape("kernel", weights["kernel"], (None, units))
    if "bias" in weights:
        check_shape("bias", weights["bias"], (units,))
    return Dense(
        weights["kernel"], weights.get("bias"), DenseSpec(resolve(fields.raw("activation")))
    )


TABLE = {
    "Conv1D": _conv(1),
    "Conv2D": _conv(2),
    "Conv3D": _conv(3),
    "Dense": Converter(_dense, kernel_and_bias),
}
