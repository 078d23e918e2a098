"""One small network twice: in JAX, with its layers tagged, and in NumPy, float64, with its slopes.

Convolution 3×3 (valid), ReLU ("features"), max pooling 2×2 ("pooled"), dense, ReLU, dense.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxviz as jv

SHAPE, CLASSES = (8, 10, 2), 3
_rng = np.random.default_rng(7)
KERNEL = _rng.normal(size=(3, 3, 2, 4)) * 0.5
BIAS = _rng.normal(size=4) * 0.1
HIDDEN = _rng.normal(size=(3 * 4 * 4, 5)) * 0.4
DENSE = _rng.normal(size=(5, CLASSES))


def scorer(images, bias=True):
    """The network in JAX."""
    kernel, hidden, dense = (jnp.asarray(w, images.dtype) for w in (KERNEL, HIDDEN, DENSE))
    x = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x + jnp.asarray(BIAS, x.dtype)[None, None, None] if bias else x
    x = jv.tag("features", jax.nn.relu(x))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jv.tag("pooled", x)
    x = jv.tag("hidden", jax.nn.relu(x.reshape(x.shape[0], -1) @ hidden))
    return x @ dense


def unbiased(images):
    """The network without its bias: linear pieces that meet at 0."""
    return scorer(images, bias=False)


def slow_features(image, bias=True):
    """(6, 8, 4) of one image, loops in float64."""
    out = np.zeros((6, 8, 4))
    for row in range(6):
        for col in range(8):
            under = image[row : row + 3, col : col + 3].astype(np.float64)
            out[row, col] = np.einsum("ijc,ijco->o", under, KERNEL)
    return np.maximum(out + BIAS * bias, 0)


def slow_pooled(features):
    """(3, 4, 4) of a layer "features"."""
    pooled = np.zeros((3, 4, 4))
    for row in range(3):
        for col in range(4):
            pooled[row, col] = features[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].max((0, 1))
    return pooled


def slow_rest(pooled):
    """Scores (3,) of a layer "pooled"."""
    return np.maximum(pooled.reshape(-1) @ HIDDEN, 0) @ DENSE


def slow_scores(image, bias=True):
    """Scores (3,) of one image."""
    return slow_rest(slow_pooled(slow_features(image, bias)))


def slow_slope(function, at, step=1e-6):
    """The derivative of a function to a number by every entry, by central differences."""
    at = np.asarray(at, np.float64)
    slope = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        slope[index] = (function(up) - function(down)) / (2 * step)
    return slope
