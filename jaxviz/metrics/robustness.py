"""What noise on the image does: to the score, against what a map predicts, and to the map."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._arguments import whole_number
from jaxviz.jaxpr.keys import checked_key, generator
from jaxviz.layers import ScorerLike
from jaxviz.metrics.maps import Maps, as_given, read_maps, read_values
from jaxviz.metrics.run import Run, numbers, target_scores
from jaxviz.perturbation.shifts import ShiftOccluder
from jaxviz.progress import Progress
from jaxviz.scoring.arguments import checked_images
from jaxviz.scoring.targets import Target


def infidelity(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    values: Maps,
    *,
    target: Target = None,
    noise: float = 0.1,
    samples: int = 100,
    scaled: bool = False,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> np.ndarray:
    """Mean squared error with which a map predicts what noise does to the score.

    mean over δ of (β·u − v)², u = Σ δ·a, v = s(x) − s(x − δ), δ normal noise, β = 1. It asks for
    what a gradient is, a score per unit of the pixel: for a linear scorer, its weights give 0, and
    x·gradient does not. Of probabilities it is small for every map: use logits.

    Args:
        f: scorer, see `jaxviz.occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        values: a, (N, H, W, C), or a result of `attribution`; maps (N, H, W) and results of one
            channel stand for every channel.
        target: whose score it is, see `deletion`.
        noise: standard deviation of δ, on the images' scale, above 0.
        samples: how many δ, from 2; they are the same for all images.
        scaled: β = E[u·v] / E[u²] of each image, which forgives a map its scale.
        key: random key for δ; None: `jax.random.key(0)`.
        batch_size: see `jaxviz.occlude`.
        memory: see `jaxviz.occlude`.
        mesh: see `jaxviz.occlude`.
        progress: see `jaxviz.occlude`.

    Returns:
        float64 (N,), small is good; () for a single image. NaN for a map of zeros if scaled.

    Raises:
        ValueError: an argument breaks its rule, or a map holds NaN.

    Example:
        >>> image, ones = np.ones((4, 4, 1), np.float32), np.ones((4, 4, 1))
        >>> infidelity(lambda x: x.sum((1, 2)), image, ones).round(6).item()
        0.0

    Source: C. Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019,
    arXiv:1901.09392.
    """
    pixels, single = checked_images(images, f)
    given = read_values(values, pixels, target=target)
    samples = whole_number(samples, "samples", least=2)
    _check_above_0(noise, "noise")
    occluder = ShiftOccluder(checked_key(key), jnp.asarray(noise, pixels.dtype))
    at = numbers(samples)
    run = Run(batch_size, memory, mesh, progress)
    picked, clean = target_scores(f, pixels, occluder, at, target=target, run=run)
    v = clean[:, None] - picked
    u = _predicted(occluder, given, pixels, at)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.mean(u * u, -1, keepdims=True)
        beta = np.mean(u * v, -1, keepdims=True) / np.where(below > 0, below, np.nan)
    return as_given(np.mean(((beta if scaled else 1.0) * u - v) ** 2, -1), single)


def _predicted(
    occluder: ShiftOccluder, values: np.ndarray, pixels: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Σ δ·a of every image and position, float64 (N, P), one δ in memory at a time."""
    draw = jax.jit(partial(occluder.shift, pixels.shape[1:], pixels.dtype))
    flat = values.reshape(len(values), -1)
    shifts = (np.asarray(draw(position), np.float64).ravel() for position in positions)
    return np.stack([flat @ shift for shift in shifts], -1)


def max_sensitivity(
    attribute: Callable[[np.ndarray], Any],
    images: jax.Array | np.ndarray,
    *,
    radius: float = 0.02,
    samples: int = 10,
    key: jax.Array | None = None,
) -> np.ndarray:
    """The largest relative change of a map when every pixel may move a little.

    max over δ of ‖a(x + δ) − a(x)‖ / ‖a(x)‖, δ uniform in [−radius, radius] for each pixel and
    channel, drawn anew for every image. A map that never changes has 0, whatever it shows: read it
    beside a metric of fidelity.

    Args:
        attribute: images (N, H, W, C) -> maps (N, H, W), or a result of `attribution` or
            `occlude`, such as `lambda x: jv.attribution.saliency(f, x, target=classes)`. Name the
            target: a moved image may have another largest class.
        images: (N, H, W, C), or (H, W, C) for a single image.
        radius: the largest change of a pixel, on the images' scale, above 0.
        samples: how many δ, from 2.
        key: random key for δ; None: `jax.random.key(0)`.

    Returns:
        float64 (N,), small is steady; () for a single image; NaN where a(x) is all zeros.

    Raises:
        ValueError: an argument breaks its rule, or `attribute` gives no map per image.

    Example:
        >>> images = np.ones((1, 4, 4, 1), np.float32)
        >>> float(max_sensitivity(lambda x: x[..., 0], images, radius=0.5)[0]) <= 0.5
        True

    Source: C. Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019,
    arXiv:1901.09392.
    """
    pixels, single = checked_images(images)
    samples = whole_number(samples, "samples", least=2)
    _check_above_0(radius, "radius")
    draw = generator(key)
    clean = made(attribute(pixels), pixels)
    length = np.sqrt(np.sum(clean**2, (1, 2)))
    worst = np.zeros(len(pixels))
    for _ in range(samples):
        moved = pixels + draw.uniform(-radius, radius, pixels.shape).astype(pixels.dtype)
        change = made(attribute(moved), pixels) - clean
        worst = np.maximum(worst, np.sqrt(np.sum(change**2, (1, 2))))
    return as_given(
        np.divide(worst, length, out=np.full_like(worst, np.nan), where=length > 0), single
    )


def made(maps: Maps, images: np.ndarray) -> np.ndarray:
    """Return the maps (N, H', W') that a function made of images (N, H, W, C)."""
    array, _ = read_maps(maps, name="attribute")
    if len(array) != len(images):
        raise ValueError(
            f"`attribute` must make one map per image: got {len(array)} for {len(images)}."
        )
    return array


def _check_above_0(value: float, name: str) -> None:
    if not 0 < value < np.inf:
        raise ValueError(f"`{name}` must be above 0: got {value}.")
