"""Class activation maps: which sites of a layer speak for the target.

A is a layer's output (H', W', C'), G = ∂s/∂A with s the number that is explained. `values` keeps
the layer's size, (N, H', W', 1), after the method's own ReLU; `heatmap()` enlarges it to the image,
by half-pixel centres. Nothing is rescaled; `jaxviz.attribution.presets` has what libraries do.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxviz._choices import Alpha, Fuse, Upsample
from jaxviz.attribution.cam_kernel import (
    Cam,
    Layers,
    by_channel,
    checked_layers,
    enlarged,
    ratio,
    reading_of,
    rectified,
    wide,
)
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal
from jaxviz.attribution.gradients import gradient
from jaxviz.attribution.kernel import Found
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.layers import ScorerLike
from jaxviz.progress import Progress


def grad_cam(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layers = None,
    fuse: Fuse = "mean",
    rectify: bool = True,
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh each channel by its mean gradient: Grad-CAM.

    map = relu(Σ_c w_c·A_c), w_c = the mean of G_c over sites.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: a layer's name or index, see `jaxviz.activations`, also "model/layer" of a model
            inside a Keras model; None: the last one with positions (H', W', C') that leads to the
            scores; several, in a list: each map is divided by its largest |value|, enlarged to the
            largest layer, and they are joined.
        fuse: how several are joined: "mean" or "max".
        rectify: whether negative values of the map become 0, as the method has it.
        upsample: how `heatmap()` enlarges: "bilinear", "nearest", "bicubic", see
            `jaxviz.attribution.resize`; None: not at all.
        reading: how `heatmap()` reads the map, as a preset has it, in place of `upsample`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: (jax.nn.relu(jv.tag("a", 2 * x)) ** 2).sum((1, 2))
        >>> image = np.arange(4.0).reshape(2, 2, 1)
        >>> grad_cam(f, image).values[..., 0].tolist()
        [[0.0, 12.0], [24.0, 36.0]]

    Source: R. Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.
    """
    cam = Cam(Partial(_grad_cam, rectify), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "Grad-CAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _grad_cam(rectify: bool, a: jax.Array, g: jax.Array) -> jax.Array:
    return rectified(by_channel(g.mean((0, 1)), a), rectify)


def grad_cam_pp(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layers = None,
    fuse: Fuse = "mean",
    alpha: Alpha = "paper",
    epsilon: float = 0.0,
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh each channel by its positive gradients, rare ones more: Grad-CAM++.

    map = relu(Σ_c w_c·A_c), w_c = Σ_hw α·relu(G), α = G² / (2·G² + (Σ_hw A)·G³), 0 where G = 0.

    It is meant for A ≥ 0, a layer behind a ReLU: elsewhere Σ A may cancel, and the divisor pass 0.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: see `grad_cam`.
        fuse: see `grad_cam`.
        alpha: "paper"; "torch_cam", α = G², as that library computes it; "tf_keras_vis", α divided
            by its sum over sites.
        epsilon: added to the divisor of α.
        upsample: see `grad_cam`.
        reading: see `grad_cam`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: (jax.nn.relu(jv.tag("a", 2 * x)) ** 2).sum((1, 2))
        >>> image = np.arange(4.0).reshape(2, 2, 1)
        >>> print(grad_cam_pp(f, image).values[..., 0].round(2))
        [[0.   0.49]
         [0.98 1.46]]

    Source: A. Chattopadhay et al., "Grad-CAM++", WACV 2018, arXiv:1710.11063.
    """
    cam = Cam(Partial(_pp(alpha), epsilon), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "Grad-CAM++", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _pp(alpha: Alpha) -> Any:
    known = {"paper": _pp_paper, "torch_cam": _pp_torch_cam, "tf_keras_vis": _pp_tf_keras_vis}
    if alpha not in known:
        words = ", ".join(f'"{word}"' for word in known)
        raise ValueError(f"`alpha` must be one of {words}: got {alpha!r}.")
    return known[alpha]


def _alphas(epsilon: float, a: jax.Array, g: jax.Array) -> jax.Array:
    # G²/(2G² + ΣA·G³ + ε), with G² divided out where there is no ε: G³ underflows.
    total = a.sum((0, 1), keepdims=True)
    if epsilon == 0:
        under = 2 + total * g
        return ratio(jnp.ones_like(g), under, (g != 0) & (under != 0))
    under = 2 * g**2 + total * g**3 + epsilon
    return ratio(g**2, under, (g != 0) & (under != 0))


def _pp_paper(epsilon: float, a: jax.Array, g: jax.Array) -> jax.Array:
    weights = (_alphas(epsilon, a, g) * rectified(g)).sum((0, 1))
    return rectified(by_channel(weights, a))


def _pp_torch_cam(epsilon: float, a: jax.Array, g: jax.Array) -> jax.Array:
    return rectified(by_channel((g**2 * rectified(g)).sum((0, 1)), a))


def _pp_tf_keras_vis(epsilon: float, a: jax.Array, g: jax.Array) -> jax.Array:
    # Its factor exp(s) scales all weights alike, and so the map: left out, before normalising.
    alphas = _alphas(epsilon, a, g)
    total = alphas.sum((0, 1), keepdims=True)
    weights = ratio(alphas, jnp.broadcast_to(total, alphas.shape), total != 0) * rectified(g)
    return rectified(by_channel(weights.sum((0, 1)), a))


def xgrad_cam(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layers = None,
    fuse: Fuse = "mean",
    epsilon: float = 0.0,
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Weigh each channel by its gradients where it is active: XGrad-CAM.

    map = relu(Σ_c w_c·A_c), w_c = Σ_hw G·A / Σ_hw A, 0 where that sum is 0.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: see `grad_cam`.
        fuse: see `grad_cam`.
        epsilon: added to the divisor.
        upsample: see `grad_cam`.
        reading: see `grad_cam`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: (jax.nn.relu(jv.tag("a", 2 * x)) ** 2).sum((1, 2))
        >>> image = np.arange(4.0).reshape(2, 2, 1)
        >>> print(xgrad_cam(f, image).values[..., 0].round(1))
        [[ 0.  18.7]
         [37.3 56. ]]

    Source: R. Fu et al., "Axiom-based Grad-CAM", BMVC 2020, arXiv:2008.02312.
    """
    cam = Cam(Partial(_xgrad_cam, epsilon), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "XGrad-CAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _xgrad_cam(epsilon: float, a: jax.Array, g: jax.Array) -> jax.Array:
    under = a.sum((0, 1)) + epsilon
    return rectified(by_channel(ratio((g * a).sum((0, 1)), under, under != 0), a))


def guided_grad_cam(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    layer: Layers = None,
    fuse: Fuse = "mean",
    upsample: Upsample | None = "bilinear",
    reading: MapReading | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Multiply guided backpropagation by Grad-CAM: guided Grad-CAM.

    values = guided · (Grad-CAM, enlarged to the image), on every channel of a pixel.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: see `grad_cam`.
        fuse: see `grad_cam`.
        upsample: see `grad_cam`.
        reading: see `grad_cam`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: (jax.nn.relu(jv.tag("a", 2 * x)) ** 2).sum((1, 2))
        >>> guided_grad_cam(f, np.arange(4.0).reshape(2, 2, 1)).heatmap().tolist()
        [[0.0, 96.0], [384.0, 864.0]]

    Source: R. Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.
    """
    read = reading_of(reading, upsample)
    if read.upsample is None:
        raise ValueError("`upsample` must enlarge the map to the image here: got None.")
    cam = Cam(Partial(_grad_cam, True), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    config = {"layer": cam.seen, "fuse": fuse, "upsample": read.upsample}
    kernel = Partial(_guided_grad_cam, cam, read.upsample)
    name = "guided Grad-CAM"
    return attribute(
        name, kernel, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _guided_grad_cam(cam: Cam, way: Upsample, f: Any, image: jax.Array, goal: Goal) -> Found:
    found = cam(f, image, goal)
    (guided,) = wide(gradient(f, image, goal, backprop="guided")[0])
    return Found(guided * enlarged(found.values, image.shape[:2], way), found.base)
