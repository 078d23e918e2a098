"""Class activation maps that weigh each site by itself, or look at the layer alone; see `cam`."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxviz._choices import Fuse, Upsample
from jaxviz.attribution.cam_kernel import Cam, Layers, checked_layers, reading_of, rectified
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.layers import ScorerLike
from jaxviz.progress import Progress


def layer_cam(
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
    """Weigh each site by its own positive gradients: LayerCAM.

    map = relu(Σ_c relu(G)·A). It is fine enough for early layers, too.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: see `grad_cam`.
        fuse: see `grad_cam`.
        rectify: whether negative values of the map become 0, as the method has it.
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
        >>> layer_cam(f, image).values[..., 0].tolist()
        [[0.0, 8.0], [32.0, 72.0]]

    Source: P. Jiang et al., "LayerCAM", IEEE TIP 2021, doi:10.1109/TIP.2021.3089943.
    """
    cam = Cam(Partial(_layer_cam, rectify), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "LayerCAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _layer_cam(rectify: bool, a: jax.Array, g: jax.Array) -> jax.Array:
    return rectified((rectified(g) * a).sum(-1), rectify)


def hires_cam(
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
    """Weigh each site by its own gradients: HiResCAM.

    map = relu(Σ_c G·A). Where the rest of the scorer is linear, it is what each site adds to s.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        layer: see `grad_cam`.
        fuse: see `grad_cam`.
        rectify: whether negative values of the map become 0, as the method has it.
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
        >>> hires_cam(f, image).values[..., 0].tolist()
        [[0.0, 8.0], [32.0, 72.0]]

    Source: R. Draelos and L. Carin, "Use HiResCAM instead of Grad-CAM", 2020, arXiv:2011.08891.
    """
    cam = Cam(Partial(_hires_cam, rectify), checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "HiResCAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _hires_cam(rectify: bool, a: jax.Array, g: jax.Array) -> jax.Array:
    return rectified((g * a).sum(-1), rectify)


def elementwise_cam(
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
    """Add up what speaks for the target, channel by channel: elementwise Grad-CAM.

    map = Σ_c relu(G·A): nothing that speaks against it is subtracted.

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
        Values (N, H', W', 1), or (H', W', 1) for a single image.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: (jax.nn.relu(jv.tag("a", 2 * x)) ** 2).sum((1, 2))
        >>> image = np.arange(4.0).reshape(2, 2, 1)
        >>> elementwise_cam(f, image).values[..., 0].tolist()
        [[0.0, 8.0], [32.0, 72.0]]

    Source: the method `GradCAMElementWise` of pytorch-grad-cam.
    """
    cam = Cam(_elementwise_cam, checked_layers(layer, fuse), fuse)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "elementwise CAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _elementwise_cam(a: jax.Array, g: jax.Array) -> jax.Array:
    return rectified(g * a).sum(-1)


def eigen_cam(
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
    """Project the layer on its first principal component: EigenCAM.

    map = (A − mean over sites)·v, v the first right-singular vector, signed such that its entry of
    largest magnitude is positive. It depends on neither the scores nor the class.

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
        Values (N, H', W', 1), or (H', W', 1) for a single image; signed.

    Raises:
        ValueError: a layer is unknown, has no positions or does not lead to the scores; see
            `saliency`.

    Example:
        >>> import jaxviz as jv
        >>> f = lambda x: jv.tag("a", x).sum((1, 2))
        >>> eigen_cam(f, np.arange(4.0).reshape(2, 2, 1)).values[..., 0].tolist()
        [[-1.5, -0.5], [0.5, 1.5]]

    Source: M. Bany Muhammad and M. Yeasin, "Eigen-CAM", IJCNN 2020, arXiv:2008.00299.
    """
    cam = Cam(_eigen_cam, checked_layers(layer, fuse), fuse, gradient=False)
    run = Run(batch_size, memory, mesh, progress, dtype)
    read = reading_of(reading, upsample)
    config = {"layer": cam.seen, "fuse": fuse}
    return attribute(
        "EigenCAM", cam, f, images, target, run, reading=read, config=config, seen=cam.seen
    )


def _eigen_cam(a: jax.Array, _: jax.Array) -> jax.Array:
    sites = a.reshape(-1, a.shape[-1])
    centred = sites - sites.mean(0, keepdims=True)
    vector = jnp.linalg.svd(centred, full_matrices=False)[2][0]
    largest = vector[jnp.argmax(jnp.abs(vector))]
    return (centred @ (vector * jnp.where(largest < 0, -1.0, 1.0).astype(a.dtype))).reshape(
        a.shape[:2]
    )
