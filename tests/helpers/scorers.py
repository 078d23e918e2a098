"""Small scorers for the tests: pure functions of images (N, H, W, C) in float32."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial


def convolutional(channels=1, classes=3, seed=0, size=(28, 28)):
    """A two-layer network with fixed random weights, as a Partial: its weights are arguments."""
    rng = np.random.default_rng(seed)
    flat = 4 * (size[0] // 2) * (size[1] // 2)
    weights = (
        rng.normal(size=(3, 3, channels, 4)).astype(np.float32) * 0.5,
        rng.normal(size=(flat, classes)).astype(np.float32) * 0.1,
    )
    return Partial(network, *map(jnp.asarray, weights))


def network(kernel, dense, images):
    """Convolution, ReLU, max pooling, dense, softmax."""
    x = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.lax.reduce_window(
        jnp.maximum(x, 0), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return jax.nn.softmax(x.reshape(len(images), -1) @ dense)


def weighted_sums(shape, classes=3, seed=0):
    """Scores Σ image · weights with small integers: exact in float32, and no pixel like another."""
    weights = np.random.default_rng(seed).integers(-4, 5, (*shape, classes)).astype(np.float32)

    def f(images):
        images = jnp.asarray(images)
        return jnp.einsum("nhwc,hwck->nk", images, jnp.asarray(weights, images.dtype))

    return f


def integers(shape, seed=0):
    """An image of small integers, as float32."""
    return np.random.default_rng(seed).integers(0, 9, shape).astype(np.float32)


def depthwise_then_pool(images):
    """A convolution, a depthwise one, an overlapping max pool, a sum: (N, H, W, 3) -> (N, 8)."""
    options = {"window_strides": (1, 1), "padding": "SAME"}
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(images, jnp.ones((3, 3, 3, 8)), **options)
    kernel = jnp.ones((3, 3, 1, 8))
    x = jax.lax.conv_general_dilated(x, kernel, feature_group_count=8, **options)
    pool = (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *pool).sum((1, 2))


def fading():
    """Eight convolutions, so that the effect of a patch fades towards the rim of its window."""
    rng = np.random.default_rng(1)
    sizes = [(3, 3, 3, 6), *[(3, 3, 6, 6)] * 7]
    kernels = [rng.normal(size=s).astype(np.float32) * np.sqrt(2 / np.prod(s[:3])) for s in sizes]
    head = rng.normal(size=(6, 4)).astype(np.float32)

    def run(kernels, head, images):
        x = images
        for kernel in kernels:
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = jax.nn.relu(x)
        return x.mean((1, 2)) @ head

    return Partial(run, [jnp.asarray(k, jnp.float32) for k in kernels], jnp.asarray(head))
