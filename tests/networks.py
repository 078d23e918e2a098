"""Networks for tests and benchmarks: Flax NNX, random weights, NHWC images in, class scores out."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class VGG16(nnx.Module):
    """Simonyan & Zisserman 2014: thirteen 3x3 convolutions, five pools, three dense layers."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        size: int = 224,
        hidden: int = 4096,
        classes: int = 1000,
    ):
        """Make the layers."""
        channels, blocks = 3, []
        for width, depth in zip(widths, depths, strict=True):
            block = []
            for _ in range(depth):
                block.append(nnx.Conv(channels, width, (3, 3), rngs=rngs))
                channels = width
            blocks.append(nnx.List(block))
        self.blocks = nnx.List(blocks)
        flat = channels * (size // 2 ** len(widths)) ** 2
        self.dense = nnx.List(
            [
                nnx.Linear(flat, hidden, rngs=rngs),
                nnx.Linear(hidden, hidden, rngs=rngs),
                nnx.Linear(hidden, classes, rngs=rngs),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the class scores."""
        for block in self.blocks:
            for conv in block:
                x = jax.nn.relu(conv(x))
            x = nnx.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for layer in self.dense[:-1]:
            x = jax.nn.relu(layer(x))
        return self.dense[-1](x)
