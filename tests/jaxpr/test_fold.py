"""Normalisation by channel, moved into kernels: the same scores, fewer passes over a result."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxviz as jv
from jaxviz.jaxpr.fold import fold
from jaxviz.jaxpr.walk import Flat, run, trace

CHANNELS, FEATURES = 3, 5
VECTORS = [
    np.random.default_rng(n).integers(1, 4, (1, 1, 1, FEATURES)).astype(np.float32)
    for n in range(3)
]
KERNEL = np.random.default_rng(9).integers(-3, 4, (3, 3, CHANNELS, FEATURES)).astype(np.float32)
IMAGES = np.random.default_rng(8).integers(-4, 5, (2, 9, 8, CHANNELS)).astype(np.float32)


def convolve(x: Any, kernel: Any = KERNEL, **options: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options
    )


def normalized(y: Any) -> Any:
    mean, factor, bias = VECTORS
    return (y - mean) * factor + bias


def folded(f: Any, images: Any = IMAGES) -> tuple[Flat, Flat, list[Any]]:
    _, flat, values, _ = trace(f, images, open_derivatives=True)
    return flat, fold(flat, flat.inputs), values


def behind(flat: Flat) -> list[str]:
    """Name the equations that the image reaches, without those that only move or stretch."""
    reached, names = set(flat.inputs), []
    for equation in flat.equations:
        if reached.intersection(x for x in equation.operands if isinstance(x, int)):
            reached.update(equation.results)
            names.append(equation.primitive.name)
    return names


@pytest.mark.parametrize(
    ("f", "left"),
    [
        (lambda x: normalized(convolve(x)), ["conv_general_dilated", "add"]),
        (
            lambda x: convolve(x) * jnp.broadcast_to(VECTORS[0][0, 0, 0], (2, 9, 8, FEATURES)),
            ["conv_general_dilated"],
        ),
        (lambda x: convolve(x) * 2, ["conv_general_dilated"]),
        (lambda x: convolve(x) * jnp.float32(4) / 2, ["conv_general_dilated"]),
        (lambda x: (convolve(x) + VECTORS[0]) * VECTORS[1], ["conv_general_dilated", "add"]),
        (lambda x: VECTORS[0] + VECTORS[1] * convolve(x), ["conv_general_dilated", "add"]),
        (
            lambda x: jax.nn.relu(normalized(convolve(x))),
            ["conv_general_dilated", "add", "max"],
        ),
        (
            lambda x: (
                convolve(x, KERNEL[:, :, :1, :3], feature_group_count=3) * VECTORS[0][..., :3]
            ),
            ["conv_general_dilated"],
        ),
    ],
    ids=[
        "norm",
        "stretched",
        "scalar",
        "scalars",
        "bias first",
        "turned round",
        "relu",
        "depthwise",
    ],
)
def test_what_goes_by_channel_moves_into_the_kernel(f: Any, left: list[str]) -> None:
    _, again, values = folded(f)
    assert behind(again) == left
    (scores,) = run(again, values, [IMAGES])
    np.testing.assert_array_equal(scores, f(jnp.asarray(IMAGES)))  # whole numbers: bit for bit


def test_a_convolution_without_results_is_folded_as_well() -> None:
    faster = jv.faster_on_cpu(lambda x: convolve(x, KERNEL[..., :0]) * jnp.ones((1, 1, 1, 0)))
    assert faster(IMAGES).shape == (2, 9, 8, 0)


def both(x: Any) -> Any:
    y = convolve(x)
    return y * VECTORS[0] + y


@pytest.mark.parametrize(
    "f",
    [
        both,
        lambda x: convolve(x) + VECTORS[0],
        lambda x: convolve(x) * x.mean(),
        lambda x: convolve(x) * jnp.arange(8, dtype=jnp.float32)[None, None, :, None],
        lambda x: 2 / convolve(x),
        lambda x: VECTORS[0] - convolve(x),
        lambda x: jax.nn.relu(convolve(x)) * VECTORS[0],
        lambda x: convolve(x, precision="highest") * VECTORS[0],
        lambda x: convolve(x.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)) * 2,
        lambda x: x * 2,
        lambda x: convolve(x, KERNEL[..., :1]) * VECTORS[0],
        lambda x: convolve(KERNEL[..., :3], x[0, :3, :3, :, None]) * VECTORS[0][..., :1],
    ],
    ids=[
        "read twice",
        "a bias alone",
        "by the image",
        "by column",
        "divided by it",
        "subtracted",
        "behind a ReLU",
        "highest",
        "bfloat16",
        "no convolution",
        "stretched by it",
        "the image is the kernel",
    ],
)
def test_everything_else_stays(f: Any) -> None:
    flat, again, _ = folded(f)
    assert again is flat


def test_a_result_that_is_also_returned_stays() -> None:
    def f(x: Any) -> Any:
        y = convolve(x)
        return y, y * VECTORS[0]

    flat, again, _ = folded(f)
    assert again is flat


class Net(nnx.Module):
    """Two convolutions with batch normalisation whose statistics are not those of a new one."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convs = nnx.List(
            [nnx.Conv(3, 16, (3, 3), rngs=rngs), nnx.Conv(16, 8, (3, 3), rngs=rngs)]
        )
        self.norms = nnx.List(
            [nnx.BatchNorm(n, use_running_average=True, rngs=rngs) for n in (16, 8)]
        )
        for norm in self.norms:
            draw = np.random.default_rng(norm.num_features).random
            norm.mean.set_value(jnp.asarray(draw(norm.num_features, np.float32)))
            norm.var.set_value(jnp.asarray(draw(norm.num_features, np.float32) + 0.1))

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(conv(x)))
        return x.mean((1, 2))


@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_a_run_gives_the_scores_of_the_model(method: Any) -> None:
    net, image = Net(nnx.Rngs(0)), np.random.default_rng(0).random((32, 32, 3), np.float32)
    occ = jv.occlude(net, image, patch=4, stride=8, method=method)
    hidden = image.copy()
    hidden[8:12, 16:20] = 0
    expected = net(jnp.stack([image, hidden]))
    np.testing.assert_allclose(occ.base, expected[0], rtol=1e-5)
    np.testing.assert_allclose(occ.scores[1, 2], expected[1], rtol=1e-5)


def test_weights_that_changed_count() -> None:
    net, image = Net(nnx.Rngs(0)), np.random.default_rng(0).random((16, 16, 3), np.float32)
    before = jv.occlude(net, image, patch=8).base
    net.norms[1].mean.set_value(net.norms[1].mean[...] + 1)
    after = jv.occlude(net, image, patch=8).base
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, net(image[None])[0], rtol=1e-5, atol=1e-6)


def test_faster_on_cpu_folds() -> None:
    net, images = Net(nnx.Rngs(0)), np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    faster = jv.faster_on_cpu(net)
    np.testing.assert_allclose(faster(images), net(jnp.asarray(images)), rtol=1e-5, atol=1e-6)
    _, flat, _, _ = trace(faster, images)
    assert "sub" not in behind(flat)  # of the mean
