"""What a patch is made of.

A fill is a pair of pure functions over arrays: `background` makes, once per image, the whole image
that patches are cut from, and `blend` makes one patch of what lies under it and of the background
there. Both are `Partial`, so a fill is a pytree whose arrays can be traced. Images are float
(height, width, channel); the values of a fill are on the image's own scale.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

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

ArrayLike = jax.Array | np.ndarray
PatchFn = Callable[[jax.Array, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fill:
    """How a patch is made.

    Attributes:
        background: image (H, W, C) -> image (H, W, C).
        blend: (under (h, w, C), background there (h, w, C), which of it lies on the image, bool
            (h, w, 1), start (2,)) -> patch (h, w, C).
        name: what kind of fill it is.
    """

    background: Partial
    blend: Partial
    name: str = field(metadata={"static": True})

    @property
    def whole(self) -> bool:
        """Whether the background alone is the fill, so that all of an image can be filled."""
        return self.background.func is not _identity

    def __str__(self) -> str:
        if self.background.func is not _constant or self.background.args[0].ndim > 1:
            return self.name
        return f"{self.name} {np.asarray(self.background.args[0]).tolist()}"


FillLike = Fill | float | Sequence[float] | jax.Array | np.ndarray | str | PatchFn


def _other(under, other, inside, start):
    return other


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
    return Fill(Partial(_constant, jnp.asarray(value, float)), Partial(_other), "constant")


def _constant(values, image):
    return jnp.broadcast_to(values.astype(image.dtype), image.shape)


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
    return Fill(Partial(_constant, jnp.asarray(image, float)), Partial(_other), "another image")


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
    return Fill(Partial(_ImageMean(axes)), Partial(_other), "image mean")


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
    return Fill(Partial(_identity), Partial(_PatchMean(axes)), "patch mean")


def _identity(image):
    return image


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
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = jnp.asarray(kernel / kernel.sum(), jnp.float32)
    return Fill(Partial(_blur, weights), Partial(_other), f"blur {sigma:g}")


def _blur(kernel, image):
    kernel, radius = kernel.astype(image.dtype), kernel.shape[0] // 2
    for axis in (0, 1):
        pads = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        lines = jnp.moveaxis(jnp.pad(image, pads, mode="edge"), axis, -1)
        blurred = jax.vmap(jax.vmap(lambda line: jnp.convolve(line, kernel, mode="valid")))(lines)
        image = jnp.moveaxis(blurred, -1, axis)
    return image


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
    return Fill(Partial(_noise, key, level, scale), Partial(_other), "noise")


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
    return Fill(hard.background, blend, f"soft {hard.name}")


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

    Example:
        >>> str(function(lambda under, start: under[::-1]))
        'function <lambda>'
    """
    name = getattr(make, "__name__", type(make).__name__)
    blend = Partial(_function, _as_pytree(make))
    return Fill(Partial(_identity), blend, f"function {name}")


def _as_pytree(make):
    return Partial(make) if jax.tree_util.all_leaves([make]) else make


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


def check_fill(fill: Fill, images: ArrayLike) -> None:
    """Raise ValueError unless the fill makes a background that suits `images` (N, H, W, C)."""
    shape = tuple(images.shape[1:])
    values = fill.background.args[0] if fill.background.func is _constant else None
    if values is None or values.ndim == 0 or values.shape in (shape, shape[-1:]):
        return
    if values.ndim == 1:
        raise ValueError(
            "`fill` must hold one value per channel:"
            f" got {values.shape[0]} for {shape[-1]} channel(s)."
        )
    raise ValueError(f"`fill` must have the image's shape {shape}: got {values.shape}.")


def outside_range(fill: Fill, images: ArrayLike) -> tuple[float, float] | None:
    """Return the fill's extreme values if they are clearly out of the range of `images`."""
    if fill.background.func is not _constant:
        return None
    low, high = (
        float(extreme(np.asarray(fill.background.args[0]))) for extreme in (np.min, np.max)
    )
    least, most = float(np.min(images)), float(np.max(images))
    slack = 0.05 * (most - least)  # an image need not hold pure black to be on a scale from black
    if most == least:  # a constant image tells no scale
        return None
    return None if least - slack <= low and high <= most + slack else (low, high)


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
