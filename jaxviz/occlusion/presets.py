"""The conventions of other occlusion libraries, by name.

Each preset holds the keyword arguments of `occlude` that make the map which the named library
makes, for float images (H, W, C); among them is the `reading`, which `Occlusion.heatmap` follows:

    jv.occlude(f, image, **jv.presets.captum(15, 8)).heatmap(target=3)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import erf, sqrt
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import _arguments
from jaxviz._arguments import Pair
from jaxviz.occlusion.reading import Reading
from jaxviz.perturbation import fills


@dataclass(frozen=True)
class Preset:
    """Keyword arguments of `occlude`, as a mapping: `occlude(f, x, **preset)`.

    Attributes:
        occlude: for `jaxviz.occlude`, but for `reading`.
        heatmap: for `Occlusion.heatmap`, besides the target; the mapping has them as `reading`.

    Example:
        >>> list(seed(4))
        ['patch', 'stride', 'margin', 'fill', 'reading']
    """

    occlude: dict[str, Any]
    heatmap: dict[str, Any]

    @property
    def reading(self) -> Reading:
        """How the result is read."""
        return Reading(**self.heatmap)

    def keys(self) -> Iterator[str]:
        """Return the names of the arguments."""
        return iter(self)

    def __iter__(self) -> Iterator[str]:
        yield from (*self.occlude, "reading")

    def __getitem__(self, name: str) -> Any:
        return self.reading if name == "reading" else self.occlude[name]


def seed(size: int) -> Preset:
    """Return the convention of the keras-vis tutorial's loop.

    One position per size × size cell; a square of 5·size around it is set to 0.5; the cell gets the
    occluded image's score itself: low where the network needs the pixels.

    Args:
        size: side of a cell, in pixels.

    Returns:
        The preset.

    Example:
        >>> seed(4).occlude
        {'patch': 20, 'stride': 4, 'margin': 8, 'fill': 0.5}
    """
    (side, _) = _arguments.pair(size, "size", least=1)
    where = {"patch": 5 * side, "stride": side, "margin": 2 * side, "fill": 0.5}
    return Preset(where, {"score": "raw", "reduce": "cell"})


def captum(window: int | Pair, stride: int | Pair = 1, *, baseline: fills.FillLike = 0.0) -> Preset:
    """Return the convention of `captum.attr.Occlusion`, with a window over all channels.

    Drops, averaged over the windows that cover a pixel; the last window is cut off at the edge.

    Args:
        window: height and width of the window, in pixels.
        stride: pixels between windows; at most the window.
        baseline: what a window is filled with: a number, one per channel, or an image.

    Returns:
        The preset.

    Raises:
        ValueError: `stride` exceeds the window.

    Example:
        >>> captum(15, 8).heatmap
        {'score': 'drop', 'reduce': 'mean'}

    Source: https://captum.ai/api/occlusion.html
    """
    shape, step = (
        _arguments.pair(window, "window", least=1),
        _arguments.pair(stride, "stride", least=1),
    )
    if any(s > w for s, w in zip(step, shape, strict=True)):
        raise ValueError(
            f"`stride` must not exceed the window: got {step} for a window of {shape}."
        )
    where = {"patch": shape, "stride": step, "fill": baseline, "border": "clip"}
    return Preset(where, {"score": "drop", "reduce": "mean"})


def xplique(
    patch: int | Pair = 3, stride: int | Pair = 3, *, value: fills.FillLike = 0.0
) -> Preset:
    """Return the convention of `xplique.attributions.Occlusion`.

    Drops, summed over the patches that cover a pixel; whole patches only, other pixels get 0.

    Args:
        patch: height and width of the patch, in pixels.
        stride: pixels between patches.
        value: what a patch is filled with.

    Returns:
        The preset.

    Example:
        >>> xplique().occlude
        {'patch': 3, 'stride': 3, 'fill': 0.0, 'border': 'valid'}

    Source: https://deel-ai.github.io/xplique/latest/api/attributions/methods/occlusion/
    """
    _arguments.pair(patch, "patch", least=1)
    _arguments.pair(stride, "stride", least=1)
    where = {"patch": patch, "stride": stride, "fill": value, "border": "valid"}
    return Preset(where, {"score": "drop", "reduce": "sum", "uncovered": 0.0})


def pair(size: int = 15, *, value: fills.FillLike = 0.0) -> Preset:
    """Return the convention of PAIR's `saliency.core.Occlusion`.

    Drops, summed over all whole windows (stride 1) that cover a pixel.

    Args:
        size: side of the window, in pixels.
        value: what a window is filled with.

    Returns:
        The preset.

    Example:
        >>> pair().heatmap
        {'score': 'drop', 'reduce': 'sum', 'uncovered': 0.0}

    Source: https://github.com/PAIR-code/saliency
    """
    _arguments.pair(size, "size", least=1)
    return Preset(
        {"patch": size, "stride": 1, "fill": value, "border": "valid"},
        {"score": "drop", "reduce": "sum", "uncovered": 0.0},
    )


def tf_explain(size: int, *, value: float = 127.5) -> Preset:
    """Return the convention of tf-explain's `OcclusionSensitivity`, on square images.

    Tiles, the last ones cut off; 1 − score on the map of tiles, resized bilinearly to the image as
    if it were a picture of it, which moves what the map shows where tiles do not fill the image.

    Args:
        size: side of a tile, in pixels.
        value: what a tile is filled with, on the image's scale.

    Returns:
        The preset.

    Example:
        >>> tf_explain(4).heatmap
        {'score': 'complement', 'reduce': 'stretch'}

    Source: https://tf-explain.readthedocs.io
    """
    _arguments.pair(size, "size", least=1)
    where = {"patch": size, "stride": size, "fill": value, "border": "clip"}
    return Preset(where, {"score": "complement", "reduce": "stretch"})


def monai(
    window: int | Pair = 16,
    *,
    image_shape: Pair,
    overlap: float = 0.6,
    mode: float | Literal["mean_patch", "mean_img", "gaussian"] = "gaussian",
) -> Preset:
    """Return the convention of `monai.visualize.OcclusionSensitivity`.

    The occluded score itself, averaged over the windows that cover a pixel; stride
    int(window · (1 − overlap)), the last window moved inside. In mode "gaussian" a window fades the
    image to 0 with a mask of σ = window / 4, and counts with weights of σ = window / 8, at least
    0.001.

    Args:
        window: height and width of the window, in pixels.
        image_shape: (height, width) of the images, in pixels: a window as large as the image has
            one position only, whatever the overlap.
        overlap: share of a window that the next one covers again, in [0, 1).
        mode: what a window becomes: a number, "mean_img" the mean of the image over all channels,
            "mean_patch" its own pixels times their mean (MONAI 1.6 multiplies where its
            documentation says that it replaces), or "gaussian" the fading.

    Returns:
        The preset.

    Raises:
        ValueError: `overlap` is out of range, or `mode` is unknown.

    Example:
        >>> monai(image_shape=(64, 64), mode="mean_img").occlude["stride"]
        (6, 6)

    Source: https://docs.monai.io/en/stable/visualize.html
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"`overlap` must be in [0, 1): got {overlap}.")
    if isinstance(mode, str) and mode not in ("gaussian", "mean_patch", "mean_img"):
        raise ValueError(
            f'`mode` must be a number, "mean_patch", "mean_img" or "gaussian": got {mode!r}.'
        )
    shape = _arguments.pair(window, "window", least=1)
    size = _arguments.pair(image_shape, "image_shape", least=1)
    stride = tuple(
        w if w == d else max(1, int(w * (1 - overlap))) for w, d in zip(shape, size, strict=True)
    )
    where: dict[str, Any] = {"patch": shape, "stride": stride, "border": "shift"}
    how: dict[str, Any] = {"score": "raw", "reduce": "mean"}
    if mode == "gaussian":
        sigma = (shape[0] / 8, shape[1] / 8)
        how["weights"] = np.maximum(fills.gaussian_mask(shape, sigma=sigma), 1e-3)
        where["fill"] = fills.soft(0.0, _fading(shape))
    elif mode == "mean_patch":
        where["fill"] = fills.function(_times_mean)
    elif mode == "mean_img":
        where["fill"] = fills.image_mean(per_channel=False)
    else:
        where["fill"] = mode
    return Preset(where, how)


def _times_mean(under: jax.Array, start: jax.Array) -> jax.Array:
    return under * jnp.mean(under)


def _fading(shape: Pair) -> np.ndarray:
    """A Gaussian, σ = window / 4, around pixel window // 2, integrated per pixel, made 0 to 1."""
    profiles = []
    for size in shape:
        edges = (np.arange(size + 1) - size // 2 - 0.5) / (size / 4 * sqrt(2))
        below = np.array([erf(edge) for edge in edges])
        profiles.append(0.5 * np.diff(below))
    bell = np.outer(*profiles)
    return (bell - bell.min()) / (bell.max() - bell.min())
