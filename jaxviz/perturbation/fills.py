"""Fills: what a patch is made of, from a constant to a function of one's own.

Each function returns a `Fill`; `make_fill` also takes the short forms, such as a number or "mean".
Images are float (height, width, channel); the values of a fill are on the image's own scale.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

from jaxviz.jaxpr.split import as_node
from jaxviz.perturbation import filters
from jaxviz.perturbation.fill import (
    ArrayLike,
    Fill,
    FillLike,
    PatchFn,
    check_fill,
    outside_range,
)

__all__ = [
    "Fill",
    "baseline",
    "blur",
    "constant",
    "function",
    "gaussian_mask",
    "image_mean",
    "make_fill",
    "noise",
    "patch_mean",
    "soft",
]


def _other(under, other, inside, start):
    return other


def _constant(values: jax.Array, name: str) -> Fill:
    return Fill(values, None, Partial(_other), name)


def _made(name: str, make: Callable[..., jax.Array], *arrays: jax.Array | None) -> Fill:
    """Return a fill cut from the background that `make(*arrays, image)` returns."""
    return Fill(None, Partial(make, *arrays), Partial(_other), name)


def constant(value: float | Sequence[float] | ArrayLike) -> Fill:
    """Fill with one value, or one per channel.

    Args:
        value: a number, or (C,) numbers, on the image's scale.

    Returns:
        The fill.

    Example:
        >>> constant(0.5).background(jnp.zeros((2, 2, 1)))[0, 0].tolist()
        [0.5]
    """
    return _constant(jnp.asarray(value, float), "constant")


def baseline(image: ArrayLike) -> Fill:
    """Fill with the same region of another image.

    Args:
        image: (H, W, C), shape and scale of the images to be occluded.

    Returns:
        The fill.

    Example:
        >>> baseline(jnp.ones((2, 2, 1))).background(jnp.zeros((2, 2, 1)))[0, 0].tolist()
        [1.0]
    """
    return _constant(jnp.asarray(image, float), "another image")


def image_mean(*, per_channel: bool = True) -> Fill:
    """Fill with the mean over the whole image.

    Args:
        per_channel: the mean of each channel by itself; False: one of all channels together.

    Returns:
        The fill.

    Example:
        >>> image = jnp.arange(4.0).reshape(1, 2, 2)
        >>> image_mean(per_channel=False).background(image)[0, 0].tolist()
        [1.5, 1.5]
    """
    axes = (0, 1) if per_channel else (0, 1, 2)
    return _made("image mean", _ImageMean(axes))


class _ImageMean(NamedTuple):
    axes: tuple[int, ...]

    def __call__(self, image: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.mean(image, self.axes, keepdims=True), image.shape)


def patch_mean(*, per_channel: bool = True) -> Fill:
    """Fill with the mean over the pixels under the patch.

    Args:
        per_channel: the mean of each channel by itself; False: one of all channels together.

    Returns:
        The fill.

    Example:
        >>> str(patch_mean())
        'patch mean'
    """
    axes = (0, 1) if per_channel else (0, 1, 2)
    return Fill(None, None, Partial(_PatchMean(axes)), "patch mean")


class _PatchMean(NamedTuple):
    axes: tuple[int, ...]

    def __call__(self, under, other, inside, start):
        pixels = jnp.where(inside, other, 0)
        count = jnp.maximum(jnp.sum(inside), 1) * (pixels.shape[-1] if 2 in self.axes else 1)
        total = jnp.sum(pixels, self.axes, keepdims=True)
        return jnp.broadcast_to(total / count.astype(other.dtype), other.shape)


def blur(sigma: float) -> Fill:
    """Fill with the image, blurred by a Gaussian; the image is continued by its edge pixels.

    Args:
        sigma: standard deviation in pixels, above 0; the kernel is cut off at 4 sigma.

    Returns:
        The fill.

    Raises:
        ValueError: `sigma` is not above 0.

    Example:
        >>> str(blur(2.5))
        'blur 2.5'
    """
    if not sigma > 0:
        raise ValueError(f"`sigma` must be above 0 pixels: got {sigma}.")
    make = _Blur(filters.reach(sigma))
    return _made(f"blur {sigma:g}", make, jnp.asarray(sigma, float))


class _Blur(NamedTuple):
    radius: int

    def __call__(self, sigma: jax.Array, image: jax.Array) -> jax.Array:
        return filters.blur(image, sigma, radius=self.radius)


def noise(key: jax.Array, *, mean: float | None = None, std: float | None = None) -> Fill:
    """Fill with normal noise, drawn once per image: overlapping patches show the same noise.

    Args:
        key: a random key; the same key gives the same noise.
        mean: of the noise, on the image's scale; None: the mean of each of the image's channels.
        std: its standard deviation; None: that of each of the image's channels.

    Returns:
        The fill.

    Example:
        >>> noise(jax.random.key(0), mean=0.5, std=0.1).background(jnp.zeros((4, 4, 3))).shape
        (4, 4, 3)
    """
    level, scale = (None if x is None else jnp.asarray(x, float) for x in (mean, std))
    return _made("noise", _noise, key, level, scale)


def _noise(key, mean, std, image):
    mean = jnp.mean(image, (0, 1)) if mean is None else mean.astype(image.dtype)
    std = jnp.std(image, (0, 1)) if std is None else std.astype(image.dtype)
    return _per_channel(mean, image) + _per_channel(std, image) * jax.random.normal(
        key, image.shape, image.dtype
    )


def _per_channel(values, image):
    return jnp.broadcast_to(values, image.shape[-1:])[None, None]


def soft(fill: FillLike, mask: ArrayLike) -> Fill:
    """Blend a fill in through a soft mask: under · (1 − mask) + fill · mask.

    Args:
        fill: what is blended in.
        mask: (patch rows, patch cols), in [0, 1].

    Returns:
        The fill.

    Raises:
        ValueError: `mask` has another rank, or leaves [0, 1].

    Example:
        >>> fill = soft(0.0, gaussian_mask((5, 5), sigma=1.25))
    """
    values = np.asarray(mask, np.float32)
    if values.ndim != 2 or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            "`mask` must be (patch rows, patch cols) in [0, 1]:"
            f" got {values.min():g} to {values.max():g} of shape {values.shape}."
        )
    hard = make_fill(fill)
    blend = Partial(_soft, jnp.asarray(values[..., None]), hard.blend)
    return replace(hard, blend=blend, name=f"soft {hard.name}")


def _soft(mask, blend, under, other, inside, start):
    if mask.shape[:2] != under.shape[:2]:
        raise ValueError(
            f"`mask` must have the patch's shape {under.shape[:2]}: got {mask.shape[:2]}."
        )
    mask = mask.astype(under.dtype)
    return under * (1 - mask) + blend(under, other, inside, start) * mask


def gaussian_mask(shape: tuple[int, int], *, sigma: float | tuple[float, float]) -> np.ndarray:
    """Return exp(−½ (r/σ_r)² − ½ (c/σ_c)²) with r and c from the middle of the patch.

    Args:
        shape: (rows, cols) of the patch.
        sigma: standard deviation in pixels, per axis.

    Returns:
        float64 (rows, cols), 1 in the middle.

    Example:
        >>> gaussian_mask((1, 3), sigma=1.0).round(3).tolist()
        [[0.607, 1.0, 0.607]]
    """
    sigmas = np.broadcast_to(np.asarray(sigma, np.float64), 2)
    rows, cols = (
        np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / s) ** 2)
        for n, s in zip(shape, sigmas, strict=True)
    )
    return np.outer(rows, cols)


def function(make: PatchFn) -> Fill:
    """Fill with what a function makes of the pixels under the patch.

    Args:
        make: (under (h, w, C), start (2,) int) -> patch (h, w, C), traceable by JAX. Where the
            patch overhangs, `under` is 0 and what is made there is not used.

    Returns:
        The fill.

    Raises:
        TypeError: `make` does not take two arguments.

    Example:
        >>> str(function(lambda under, start: under[::-1]))
        'function <lambda>'
    """
    name = getattr(make, "__name__", type(make).__name__)
    try:
        inspect.signature(make).bind(None, None)
    except TypeError as error:
        raise TypeError(
            "`fill` must be a function of the pixels and the start, (under, start) -> patch:"
            f" {name} takes {inspect.signature(make)}."
        ) from error
    except ValueError:
        pass  # no signature, as some functions of C
    return Fill(None, None, Partial(_function, as_node(make)), f"function {name}")


def _function(make, under, other, inside, start):
    patch = make(under, start)
    if jnp.shape(patch) != under.shape:
        raise ValueError(
            f"`fill` must make patches of shape {under.shape}: it made {jnp.shape(patch)}."
        )
    return jnp.asarray(patch, under.dtype)


def make_fill(fill: FillLike) -> Fill:
    """Return the fill that a short form stands for.

    Args:
        fill: a `Fill`; a number; (C,) numbers; an image (H, W, C); "mean" (of the image) or
            "patch_mean"; or a function (under, start) -> patch.

    Returns:
        The fill.

    Raises:
        TypeError: `fill` is none of these.
        ValueError: `fill` is an unknown word, or an array of another rank, or not finite.

    Example:
        >>> make_fill("mean").name
        'image mean'
    """
    if isinstance(fill, Fill):
        return fill
    if isinstance(fill, str):
        named = {"mean": image_mean, "patch_mean": patch_mean}
        if fill not in named:
            raise ValueError(
                f'`fill` must be "mean" or "patch_mean" if it is a word: got {fill!r}.'
            )
        return named[fill]()
    if callable(fill):
        if getattr(fill, "__module__", None) == __name__ and fill.__name__ in __all__:
            raise TypeError(
                f"`fill` must be what `{fill.__name__}` returns: got the function itself; call it,"
                f" as in jaxviz.fills.{fill.__name__}(...)."
            )
        return function(fill)
    try:
        if fill is None:  # NumPy makes NaN of it
            raise TypeError
        traced = isinstance(fill, Tracer)
        values: Any = fill if traced else np.asarray(fill, np.float64)
    except (TypeError, ValueError) as error:
        message = "`fill` must be a number, an array, a word, a function or a Fill: got a "
        raise TypeError(message + f"{type(fill).__name__}.") from error
    if values.ndim not in (0, 1, 3):
        raise ValueError(
            "`fill` must be a number, one number per channel or an image (height, width, channel):"
            f" got an array of shape {values.shape}."
        )
    if not traced and not np.all(np.isfinite(values)):
        raise ValueError("`fill` must be finite: got NaN or infinity.")
    return baseline(values) if values.ndim == 3 else constant(values)


def checked_fill(
    fill: FillLike, images: np.ndarray, complement: bool, *, stacklevel: int = 3
) -> Fill:
    """Return the fill; ValueError unless it suits the images, a warning if off their range."""
    filled = make_fill(fill)
    check_fill(filled, images)
    if complement and not filled.whole:
        raise ValueError(
            f'`complement` needs a fill for the whole image: "{filled.name}" makes single patches.'
        )
    outside = outside_range(filled, images)
    if outside is not None:
        warnings.warn(
            f"`fill` leaves the range of the images: {outside[0]:g} to {outside[1]:g}, against"
            f" {images.min():g} to {images.max():g}; is it on their scale?",
            stacklevel=stacklevel,
        )
    return filled
