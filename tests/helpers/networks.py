"""Networks for tests and benchmarks: Flax NNX, random weights, NHWC images in, class scores out.

The architectures are those of the papers named; `size` and the widths can be made small for tests.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Layer = Callable[[jax.Array], jax.Array]


class Chain(nnx.Module):
    """Layers one after another."""

    def __init__(self, *layers: Layer):
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Branches(nnx.Module):
    """Branches side by side, their channels concatenated."""

    def __init__(self, *branches: Layer):
        self.branches = nnx.List(branches)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([branch(x) for branch in self.branches], axis=-1)


class Residual(nnx.Module):
    """after(body(x) + shortcut(x))."""

    def __init__(self, body: Layer, shortcut: Layer = lambda x: x, after: Layer = lambda x: x):
        self.body, self.shortcut, self.after = body, shortcut, after

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.after(self.body(x) + self.shortcut(x))


class Norm(nnx.BatchNorm):
    """Batch normalisation at inference, with statistics as training leaves them."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(channels, use_running_average=True, rngs=rngs)
        self.mean[...] = 0.1 * jax.random.normal(rngs.params(), (channels,))
        self.var[...] = jax.random.uniform(rngs.params(), (channels,), minval=0.5, maxval=1.5)


def conv(
    channels: int,
    features: int,
    size: int | tuple[int, int] = 3,
    *,
    rngs: nnx.Rngs,
    act: Layer | None = jax.nn.relu,
    norm: bool = True,
    **options: Any,
) -> Layer:
    """Convolution, inference batch norm, activation."""
    kernel = (size, size) if isinstance(size, int) else size
    layers: list[Layer] = [
        nnx.Conv(channels, features, kernel, use_bias=not norm, rngs=rngs, **options)
    ]
    layers += [Norm(features, rngs=rngs)] if norm else []
    return Chain(*layers, *([act] if act is not None else []))


def max_pool(size: int, stride: int, padding: str = "VALID") -> Layer:
    """Max pooling."""
    return lambda x: nnx.max_pool(x, (size, size), (stride, stride), padding)


def global_mean(x: jax.Array) -> jax.Array:
    """Global average pooling."""
    return x.mean((1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """(N, ...) -> (N, features)."""
    return x.reshape(len(x), -1)


def mnist_cnn(rngs: nnx.Rngs) -> Layer:
    """The Keras MNIST CNN: two convolutions, a pool, two dense layers; 28x28x1."""
    return Chain(
        conv(1, 32, rngs=rngs, norm=False, padding="VALID"),
        conv(32, 64, rngs=rngs, norm=False, padding="VALID"),
        max_pool(2, 2),
        flatten,
        nnx.Linear(9216, 128, rngs=rngs),
        jax.nn.relu,
        nnx.Linear(128, 10, rngs=rngs),
        jax.nn.softmax,
    )


def vgg16(
    rngs: nnx.Rngs,
    *,
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    depths: Sequence[int] = (2, 2, 3, 3, 3),
    size: int = 224,
    hidden: int = 4096,
    classes: int = 1000,
) -> Layer:
    """Simonyan & Zisserman 2014: 3x3 convolutions, five pools, three dense layers."""
    channels, layers = 3, []
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            layers.append(conv(channels, width, rngs=rngs, norm=False))
            channels = width
        layers.append(max_pool(2, 2))
    flat = channels * (size // 2 ** len(widths)) ** 2
    layers += [flatten, nnx.Linear(flat, hidden, rngs=rngs), jax.nn.relu]
    layers += [nnx.Linear(hidden, hidden, rngs=rngs), jax.nn.relu]
    return Chain(*layers, nnx.Linear(hidden, classes, rngs=rngs))


def resnet(
    rngs: nnx.Rngs,
    depths: Sequence[int],
    *,
    bottleneck: bool,
    width: int = 64,
    classes: int = 1000,
) -> Layer:
    """He et al. 2015: ResNet-18 is (2, 2, 2, 2), ResNet-50 (3, 4, 6, 3) with bottlenecks."""
    grow = 4 if bottleneck else 1
    channels = width
    layers: list[Layer] = [
        conv(3, width, 7, strides=2, padding=((3, 3), (3, 3)), rngs=rngs),
        lambda x: nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    ]
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        for block in range(depth):
            stride = 2 if block == 0 and stage > 0 else 1
            once = dict(strides=stride, padding=((1, 1), (1, 1)), rngs=rngs)
            if bottleneck:
                body = [conv(channels, inner, 1, rngs=rngs), conv(inner, inner, 3, **once)]
                body += [conv(inner, inner * grow, 1, act=None, rngs=rngs)]
            else:
                body = [conv(channels, inner, 3, **once)]
                body += [conv(inner, inner, 3, act=None, rngs=rngs)]
            shortcut: Layer = lambda x: x  # noqa: E731
            if block == 0 and (stride != 1 or channels != inner * grow):
                shortcut = conv(channels, inner * grow, 1, strides=stride, act=None, rngs=rngs)
            layers.append(Residual(Chain(*body), shortcut, jax.nn.relu))
            channels = inner * grow
    return Chain(*layers, global_mean, nnx.Linear(channels, classes, rngs=rngs))


def resnet18(rngs: nnx.Rngs, **options: Any) -> Layer:
    """ResNet-18."""
    return resnet(rngs, (2, 2, 2, 2), bottleneck=False, **options)


def resnet50(rngs: nnx.Rngs, **options: Any) -> Layer:
    """ResNet-50."""
    return resnet(rngs, (3, 4, 6, 3), bottleneck=True, **options)


def mobile_block(
    channels: int,
    features: int,
    *,
    expand: int,
    stride: int,
    rngs: nnx.Rngs,
    size: int = 3,
    act: Layer = jax.nn.relu6,
    squeeze: int = 0,
) -> Layer:
    """Inverted residual: widen, depthwise convolution, optional squeeze-and-excitation, narrow."""
    inner = channels * expand
    layers = [conv(channels, inner, 1, act=act, rngs=rngs)] if expand > 1 else []
    depthwise = dict(feature_group_count=inner, strides=stride, act=act, rngs=rngs)
    layers.append(conv(inner, inner, size, **depthwise))
    if squeeze:
        layers.append(SqueezeExcite(inner, squeeze, rngs=rngs))
    layers.append(conv(inner, features, 1, act=None, rngs=rngs))
    return Residual(Chain(*layers)) if stride == 1 and channels == features else Chain(*layers)


class SqueezeExcite(nnx.Module):
    """Channels weighted by a gate that sees the global mean (Hu et al. 2017)."""

    def __init__(self, channels: int, squeezed: int, *, rngs: nnx.Rngs):
        self.down = nnx.Conv(channels, squeezed, (1, 1), rngs=rngs)
        self.up = nnx.Conv(squeezed, channels, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = jax.nn.silu(self.down(x.mean((1, 2), keepdims=True)))
        return x * jax.nn.sigmoid(self.up(gate))


MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
MOBILENET += ((6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(
    rngs: nnx.Rngs,
    *,
    rows: Sequence[tuple[int, int, int, int]] = MOBILENET,
    stem: int = 32,
    last: int = 1280,
    classes: int = 1000,
) -> Layer:
    """Sandler et al. 2018; rows of (expansion, features, blocks, stride)."""
    layers, channels = [conv(3, stem, 3, strides=2, act=jax.nn.relu6, rngs=rngs)], stem
    for expand, features, depth, stride in rows:
        for block in range(depth):
            once = stride if block == 0 else 1
            layers.append(mobile_block(channels, features, expand=expand, stride=once, rngs=rngs))
            channels = features
    layers += [conv(channels, last, 1, act=jax.nn.relu6, rngs=rngs), global_mean]
    return Chain(*layers, nnx.Linear(last, classes, rngs=rngs))


EFFICIENTNET = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
EFFICIENTNET += ((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))


def efficientnet_b0(
    rngs: nnx.Rngs,
    *,
    rows: Sequence[tuple[int, int, int, int, int]] = EFFICIENTNET,
    stem: int = 32,
    last: int = 1280,
    classes: int = 1000,
) -> Layer:
    """Tan & Le 2019; rows of (expansion, features, blocks, stride, kernel)."""
    silu = jax.nn.silu
    layers, channels = [conv(3, stem, 3, strides=2, act=silu, rngs=rngs)], stem
    for expand, features, depth, stride, size in rows:
        for block in range(depth):
            options = dict(expand=expand, stride=stride if block == 0 else 1, size=size)
            squeeze = max(1, channels // 4)
            layers.append(
                mobile_block(channels, features, act=silu, squeeze=squeeze, rngs=rngs, **options)
            )
            channels = features
    layers += [conv(channels, last, 1, act=silu, rngs=rngs), global_mean]
    return Chain(*layers, nnx.Linear(last, classes, rngs=rngs))


def densenet121(
    rngs: nnx.Rngs,
    *,
    depths: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    stem: int = 64,
    classes: int = 1000,
) -> Layer:
    """Huang et al. 2016: every layer sees the channels of all before it."""
    layers: list[Layer] = [conv(3, stem, 7, strides=2, rngs=rngs), max_pool(3, 2, "SAME")]
    channels = stem
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layer = Chain(
                Norm(channels, rngs=rngs),
                jax.nn.relu,
                conv(channels, 4 * growth, 1, rngs=rngs),
                conv(4 * growth, growth, 3, norm=False, act=None, rngs=rngs),
            )
            layers.append(Branches(lambda x: x, layer))
            channels += growth
        layers += [Norm(channels, rngs=rngs), jax.nn.relu]
        if stage < len(depths) - 1:
            layers.append(conv(channels, channels // 2, 1, norm=False, act=None, rngs=rngs))
            layers.append(lambda x: nnx.avg_pool(x, (2, 2), (2, 2)))
            channels //= 2
    return Chain(*layers, global_mean, nnx.Linear(channels, classes, rngs=rngs))


def inception_v3(rngs: nnx.Rngs, *, width: int = 32, classes: int = 1000) -> Layer:
    """Szegedy et al. 2015: branches of 1x1, 5x5, stacked 3x3, 1x7 and 7x1; pools between them.

    `width` 32 gives the paper's channels.
    """

    def c(channels: int, features: int, size: int | tuple[int, int] = 1, **options: Any) -> Layer:
        return conv(channels * width // 32, features * width // 32, size, rngs=rngs, **options)

    def pooled(channels: int, features: int) -> Layer:
        return Chain(lambda x: nnx.avg_pool(x, (3, 3), (1, 1), "SAME"), c(channels, features))

    def block_a(n: int, pool: int) -> Layer:
        stacked = Chain(c(n, 64), c(64, 96, 3), c(96, 96, 3))
        return Branches(c(n, 64), Chain(c(n, 48), c(48, 64, 5)), stacked, pooled(n, pool))

    def block_b(n: int, m: int) -> Layer:
        row, column = (1, 7), (7, 1)
        once = Chain(c(n, m), c(m, m, row), c(m, 192, column))
        twice = Chain(c(n, m), c(m, m, column), c(m, m, row), c(m, m, column), c(m, 192, row))
        return Branches(c(n, 192), once, twice, pooled(n, 192))

    def block_c(n: int) -> Layer:
        def fork() -> Layer:
            return Branches(c(384, 384, (1, 3)), c(384, 384, (3, 1)))

        stacked = Chain(c(n, 448), c(448, 384, 3), fork())
        return Branches(c(n, 320), Chain(c(n, 384), fork()), stacked, pooled(n, 192))

    valid = dict(strides=2, padding="VALID")
    shrink_a = Branches(
        c(288, 384, 3, **valid),
        Chain(c(288, 64), c(64, 96, 3), c(96, 96, 3, **valid)),
        max_pool(3, 2),
    )
    shrink_b = Branches(
        Chain(c(768, 192), c(192, 320, 3, **valid)),
        Chain(c(768, 192), c(192, 192, (1, 7)), c(192, 192, (7, 1)), c(192, 192, 3, **valid)),
        max_pool(3, 2),
    )
    stem = [conv(3, width, 3, rngs=rngs, **valid), c(32, 32, 3, padding="VALID"), c(32, 64, 3)]
    stem += [max_pool(3, 2), c(64, 80), c(80, 192, 3, padding="VALID"), max_pool(3, 2)]
    blocks = [block_a(192, 32), block_a(256, 64), block_a(288, 64), shrink_a]
    blocks += [block_b(768, m) for m in (128, 160, 160, 192)]
    blocks += [shrink_b, block_c(1280), block_c(2048)]
    return Chain(*stem, *blocks, global_mean, nnx.Linear(2048 * width // 32, classes, rngs=rngs))


def convnext(
    rngs: nnx.Rngs,
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    classes: int = 1000,
) -> Layer:
    """Liu et al. 2022 (ConvNeXt-Tiny): 7x7 depthwise, layer norm, two dense layers per pixel."""

    def block(n: int) -> Layer:
        return Residual(
            Chain(
                nnx.Conv(n, n, (7, 7), feature_group_count=n, rngs=rngs),
                nnx.LayerNorm(n, rngs=rngs),
                nnx.Linear(n, 4 * n, rngs=rngs),
                jax.nn.gelu,
                nnx.Linear(4 * n, n, rngs=rngs),
            )
        )

    layers: list[Layer] = [nnx.Conv(3, widths[0], (4, 4), 4, rngs=rngs)]
    layers.append(nnx.LayerNorm(widths[0], rngs=rngs))
    for stage, (depth, n) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            layers.append(nnx.LayerNorm(widths[stage - 1], rngs=rngs))
            layers.append(nnx.Conv(widths[stage - 1], n, (2, 2), 2, rngs=rngs))
        layers += [block(n) for _ in range(depth)]
    layers += [global_mean, nnx.LayerNorm(widths[-1], rngs=rngs)]
    return Chain(*layers, nnx.Linear(widths[-1], classes, rngs=rngs))


class Attention(nnx.Module):
    """Multi-head self-attention over tokens (N, T, C)."""

    def __init__(self, channels: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.mix = nnx.Linear(channels, 3 * channels, rngs=rngs)
        self.out = nnx.Linear(channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, channels = x.shape
        split = self.mix(x).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        query, key, value = split[:, :, 0], split[:, :, 1], split[:, :, 2]
        mixed = jax.nn.dot_product_attention(query, key, value)
        return self.out(mixed.reshape(batch, tokens, channels))


def vit(
    rngs: nnx.Rngs,
    *,
    size: int = 224,
    patch: int = 16,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    classes: int = 1000,
) -> Layer:
    """Dosovitskiy et al. 2020 (ViT-Tiny): every token sees every other from the first block on."""
    tokens = (size // patch) ** 2
    place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, tokens, width)))

    def mlp() -> Layer:
        return Chain(
            nnx.LayerNorm(width, rngs=rngs),
            nnx.Linear(width, 4 * width, rngs=rngs),
            jax.nn.gelu,
            nnx.Linear(4 * width, width, rngs=rngs),
        )

    def attention() -> Layer:
        return Chain(nnx.LayerNorm(width, rngs=rngs), Attention(width, heads, rngs=rngs))

    embed = nnx.Conv(3, width, (patch, patch), patch, rngs=rngs)
    blocks = [Residual(make()) for _ in range(depth) for make in (attention, mlp)]
    layers = [embed, lambda x: x.reshape(len(x), tokens, width), Shift(place), *blocks]
    layers += [nnx.LayerNorm(width, rngs=rngs), lambda x: x.mean(1)]
    return Chain(*layers, nnx.Linear(width, classes, rngs=rngs))


class Shift(nnx.Module):
    """x + a learned array."""

    def __init__(self, value: nnx.Param):
        self.value = value

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.value[...]
