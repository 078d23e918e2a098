"""Attribution by gradients: saliency, input × gradient, guided and rectified backpropagation.

s is the one number of the scores that is explained, g = ∂s/∂x. Values are (H, W, C) for an image,
signed: positive where more of the pixel's value would raise s. Nothing is rescaled.
"""

from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal, score
from jaxviz.attribution.kernel import Found, check_real, differentiate
from jaxviz.attribution.result import Attribution
from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.cpu_gradient import quick_rules
from jaxviz.jaxpr.relu import relu_rules
from jaxviz.jaxpr.walk import replay
from jaxviz.layers import ScorerLike
from jaxviz.progress import Progress


def gradient(
    f: Any, image: jax.Array, goal: Goal, *, backprop: str = "plain", preparing: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Return ∂s/∂x of one image (H, W, C), and its scores; `preparing` is that of `quick_rules`."""
    quick, rectify = quick_rules(platform_of(image), preparing=preparing), relu_rules(backprop)

    def explained(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        called = partial(score, f)
        scores = replay(called, image[None], rules=lambda flat: {**quick, **rectify(flat)})
        check_real(scores)
        fixed = goal.fix(jax.lax.stop_gradient(scores[0]))
        return fixed(scores)[0], scores[0]

    return differentiate(explained, image)


def saliency(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Map the gradient of the target's score: values = ∂s/∂x, signed.

    |g|, its largest or its sum over channels, is a reading: `heatmap("max_abs")`,
    `heatmap("abs_sum")`. Inside `jit`, `vmap` and `grad`, on traced images, it is the bare kernel.

    Args:
        f: scorer, images (N, H, W, C) -> scores (N, K), see `jaxviz.occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image, on the scorer's scale.
        target: what is explained: None, each image's class with the largest score; a class, or one
            per image, by number or, where `f` knows names, by name; weights of the classes, float
            (K,) or (N, K); or a function, scores (M, ..., K) -> (M,), of JAX operations.
        batch_size: images that a device explains at once; "auto" chooses by memory.
        memory: what "auto" may use on a device, in bytes or as a text such as "2GB"; None: a
            quarter of what is free.
        mesh: devices to spread images over; the result is the same for any number of devices.
        progress: True for a bar, or a function (images done, images in all).
        dtype: of the passes, such as "bfloat16"; None: that of the images. Values are float32.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image. After Ctrl-C, what was finished.

    Raises:
        ValueError: an argument breaks its rule, or the scorer has no derivative.
        TypeError: an argument is of the wrong kind.
        MemoryError: not even one image fits.

    Example:
        >>> images = np.ones((2, 4, 4, 3), np.float32)
        >>> att = saliency(lambda x: (x**2).sum((1, 2)), images, target=[0, 2])
        >>> att.heatmap()[:, 0, 0].tolist()
        [2.0, 2.0]

    Source: K. Simonyan, A. Vedaldi, A. Zisserman, Deep Inside Convolutional Networks, 2013,
    arXiv:1312.6034.
    """
    run = Run(batch_size, memory, mesh, progress, dtype)
    return attribute("saliency", _saliency, f, images, target, run)


def _saliency(f: Any, image: jax.Array, goal: Goal) -> Found:
    return Found(*gradient(f, image, goal))


def input_x_gradient(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Multiply the image by the gradient: values = x · ∂s/∂x.

    For a scorer that is linear, or made of linear operations without bias, ReLU and max pooling,
    the values add up to s.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image.

    Raises:
        ValueError: see `saliency`.

    Example:
        >>> images = np.full((1, 2, 2, 1), 3.0, np.float32)
        >>> input_x_gradient(lambda x: (x**2).sum((1, 2)), images).heatmap()[0, 0].tolist()
        [18.0, 18.0]

    Source: A. Shrikumar et al., Not Just a Black Box, 2016, arXiv:1605.01713.
    """
    run = Run(batch_size, memory, mesh, progress, dtype)
    return attribute("input × gradient", _input_x_gradient, f, images, target, run)


def _input_x_gradient(f: Any, image: jax.Array, goal: Goal) -> Found:
    g, base = gradient(f, image, goal)
    return Found(image * g, base)


def guided(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Propagate back only what is positive, through ReLUs that are open: guided backpropagation.

    A ReLU passes g where x > 0 and g > 0, see `jaxviz.jaxpr.relu` for what counts as one. The
    pictures are crisp, and mostly show the image: they hardly depend on the class, and a network
    with random weights gives much the same.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image.

    Raises:
        ValueError: see `saliency`.

    Example:
        >>> f = lambda x: -jax.nn.relu(x).sum((1, 2))
        >>> guided(f, np.ones((2, 2, 1), np.float32)).heatmap().tolist()
        [[0.0, 0.0], [0.0, 0.0]]

    Source: J. Springenberg et al., Striving for Simplicity, 2014, arXiv:1412.6806.
    """
    run = Run(batch_size, memory, mesh, progress, dtype)
    kernel = Partial(_modified, "guided")
    return attribute("guided backpropagation", kernel, f, images, target, run)


def deconvnet(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Propagate back only what is positive, through any ReLU: the deconvolution network.

    A ReLU passes g where g > 0, whether it was open or not; see `guided` for what is a ReLU and how
    little such pictures tell.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image.

    Raises:
        ValueError: see `saliency`.

    Example:
        >>> f = lambda x: jax.nn.relu(x - 2).sum((1, 2))
        >>> deconvnet(f, np.ones((2, 2, 1), np.float32)).heatmap().tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    Source: M. Zeiler and R. Fergus, Visualizing and Understanding Convolutional Networks, 2014,
    doi:10.1007/978-3-319-10590-1_53.
    """
    run = Run(batch_size, memory, mesh, progress, dtype)
    kernel = Partial(_modified, "rectified")
    return attribute("deconvolution network", kernel, f, images, target, run)


def _modified(backprop: str, f: Any, image: jax.Array, goal: Goal) -> Found:
    return Found(*gradient(f, image, goal, backprop=backprop))
