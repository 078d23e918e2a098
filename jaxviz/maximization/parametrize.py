"""Choose what the optimiser moves instead of pixels: parametrisations, (init, decode) pairs.

`init(key, image_shape)` draws parameters, any pytree of float32 arrays; `decode(parameters,
image_shape)` makes of them a free image (height, width, channel) of real numbers about 0, which
`maximize` maps to the value range, 0 to its middle. The optional third part, `encode(image,
image_shape)`, finds parameters of a free image; a start image, projection to the bounds and blur
steps need it. Write your own pair with `Parametrization(init, decode)`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxviz._arguments import whole_number

Shape = tuple[int, int, int]


class Parametrization(NamedTuple):
    """Hold how an image's parameters start, what image they mean, and which ones mean an image.

    Args:
        init: (key, image_shape) -> parameters.
        decode: (parameters, image_shape) -> free image (H, W, C).
        encode: (free image, image_shape) -> parameters, or None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxviz.maximization.parametrize import Parametrization
        >>> draw = lambda key, shape: jax.random.normal(key, shape[:2])
        >>> grey = Parametrization(draw, lambda drawn, shape: drawn[..., None])
        >>> grey.decode(grey.init(jax.random.key(0), (4, 4, 1)), (4, 4, 1)).shape
        (4, 4, 1)
    """

    init: Callable[[jax.Array, Shape], Any]
    decode: Callable[[Any, Shape], jax.Array]
    encode: Callable[[jax.Array, Shape], Any] | None = None


@cache
def pixels(*, sd: float = 0.01) -> Parametrization:
    """Move the pixels themselves.

    Args:
        sd: standard deviation of the normal noise it starts from.

    Returns:
        A parametrisation.

    Example:
        >>> import jax, jaxviz as jv
        >>> jv.parametrize.pixels().init(jax.random.key(0), (4, 5, 3)).shape
        (4, 5, 3)
    """

    def init(key: jax.Array, shape: Shape) -> jax.Array:
        return sd * jax.random.normal(key, shape, jnp.float32)

    return Parametrization(init, lambda image, _: image, lambda image, _: image)


@cache
def fourier(*, sd: float = 0.01, decay: float = 1.0) -> Parametrization:
    """Move the spectrum, low frequencies amplified, so that a step moves all scales alike.

    free image = irfft2(s · z) / 4, s = √(w·h) / max(frequency, 1 / max(w, h))^decay.

    Args:
        sd: standard deviation of the normal spectrum it starts from.
        decay: the power of the frequency; 0 amplifies nothing.

    Returns:
        A parametrisation; its parameters are (2, H, W // 2 + 1, C), real and imaginary parts.

    Example:
        >>> import jax, jaxviz as jv
        >>> jv.parametrize.fourier().init(jax.random.key(0), (4, 6, 3)).shape
        (2, 4, 4, 3)

    Source:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017,
        doi:10.23915/distill.00007.
    """

    def init(key: jax.Array, shape: Shape) -> jax.Array:
        height, width, channels = shape
        size = (2, height, width // 2 + 1, channels)
        return sd * jax.random.normal(key, size, jnp.float32)

    def decode(spectrum: jax.Array, shape: Shape) -> jax.Array:
        # An image is real, so F(−u, −v) is the conjugate of F(u, v): columns 0 … W // 2 are enough.
        scaled = spectrum * _amplifier(shape, decay)[None]
        scaled = jax.lax.complex(scaled[0], scaled[1])
        return jnp.fft.irfft2(scaled, s=shape[:2], axes=(0, 1)) / 4

    def encode(image: jax.Array, shape: Shape) -> jax.Array:
        # One of many: irfft2 ignores the imaginary part of entries that are their own conjugate.
        scaled = jnp.fft.rfft2(4 * image, axes=(0, 1))
        return jnp.stack([scaled.real, scaled.imag]) / _amplifier(shape, decay)[None]

    return Parametrization(init, decode, encode)


@cache
def pyramid(*, levels: int = 4, sd: float = 0.01) -> Parametrization:
    """Move a sum of images of halved resolution, each enlarged bilinearly (a Laplacian pyramid).

    Args:
        levels: how many resolutions, ≥ 1; level i has height and width divided by 2^i.
        sd: standard deviation of the normal noise each starts from.

    Returns:
        A parametrisation; its parameters are a list, finest first.

    Example:
        >>> import jax, jaxviz as jv
        >>> [p.shape for p in jv.parametrize.pyramid(levels=2).init(jax.random.key(0), (5, 4, 3))]
        [(5, 4, 3), (3, 2, 3)]
    """
    levels = whole_number(levels, "levels")

    def size(level: int, shape: Shape) -> Shape:
        return -(-shape[0] // 2**level), -(-shape[1] // 2**level), shape[2]

    def init(key: jax.Array, shape: Shape) -> list[jax.Array]:
        keys = jax.random.split(key, levels)
        shapes = [size(level, shape) for level in range(levels)]
        drawn = zip(keys, shapes, strict=True)
        return [sd * jax.random.normal(key, shape, jnp.float32) for key, shape in drawn]

    def decode(parts: list[jax.Array], shape: Shape) -> jax.Array:
        enlarged = [jax.image.resize(part, shape, "bilinear") for part in parts[1:]]
        return sum(enlarged, parts[0])

    def encode(image: jax.Array, shape: Shape) -> list[jax.Array]:
        return [image] + [jnp.zeros(size(i, shape), jnp.float32) for i in range(1, levels)]

    return Parametrization(init, decode, encode)


def maco(magnitude: ArrayLike | None = None, *, decay: float = 1.0) -> Parametrization:
    """Move the phase of the spectrum only; the magnitude stays what natural images have.

    free image = irfft2(magnitude · exp(i·phase)), and |rfft2(free image)| = magnitude everywhere:
    where an entry k of the half spectrum has its conjugate −k in it (columns 0 and, of an even
    width, W / 2), phase(−k) = −phase(k), and at its own conjugate the phase is 0 or π.

    Args:
        magnitude: (H, W // 2 + 1, C), such as `magnitude_spectrum` of photographs; None for a power
            law, frequency^−decay, scaled to a free image of unit variance.
        decay: the power of the power law.

    Returns:
        A parametrisation; its parameters are (H, W // 2 + 1, C) angles. It has no `encode`.

    Raises:
        ValueError: when used, if the magnitude has another shape or is not that of a real image.

    Example:
        >>> import jax, jaxviz as jv
        >>> jv.parametrize.maco().init(jax.random.key(0), (4, 6, 3)).shape
        (4, 4, 3)

    Source:
        Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
        Optimization", NeurIPS 2023, arXiv:2306.06805.
    """
    return _power_law_maco(decay) if magnitude is None else _maco(_constant(np.asarray(magnitude)))


def magnitude_spectrum(images: jax.Array) -> jax.Array:
    """Return the mean magnitude spectrum of images in [0, 1] about their middle, for `maco`.

    mean over images of |rfft2(x − 1/2)|; use it with `bounds="project"`, whose free image is x −
    1/2.

    Args:
        images: (N, H, W, C) in [0, 1].

    Returns:
        (H, W // 2 + 1, C).

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> jv.parametrize.magnitude_spectrum(jnp.ones((2, 4, 4, 3))).shape
        (4, 3, 3)
    """
    return jnp.abs(jnp.fft.rfft2(images - 0.5, axes=(1, 2))).mean(0)


@cache
def decorrelated(parametrization: Parametrization) -> Parametrization:
    """Move another parametrisation in colours that natural images leave uncorrelated.

    free image = image · (M / max column norm of M)ᵀ, M the square root of natural colours'
    covariance. For images of one channel it is the identity.

    Args:
        parametrization: of images with 1 or 3 channels (red, green, blue).

    Returns:
        A parametrisation.

    Raises:
        ValueError: when used for another number of channels.

    Example:
        >>> import jax, jaxviz as jv
        >>> colour = jv.parametrize.decorrelated(jv.parametrize.fourier())
        >>> colour.decode(colour.init(jax.random.key(0), (4, 4, 3)), (4, 4, 3)).shape
        (4, 4, 3)

    Source:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017,
        doi:10.23915/distill.00007.
    """
    base = parametrization

    def decode(parameters: Any, shape: Shape) -> jax.Array:
        image = base.decode(parameters, shape)
        return image if _one_channel(shape) else image @ _colours().T

    def encode(image: jax.Array, shape: Shape) -> Any:
        assert base.encode is not None
        free = image if _one_channel(shape) else image @ jnp.linalg.inv(_colours()).T
        return base.encode(free, shape)

    return Parametrization(base.init, decode, None if base.encode is None else encode)


def frequencies(height: int, width: int) -> np.ndarray:
    """Return the frequency of each entry of an rfft2, in cycles a pixel: (H, W // 2 + 1)."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]).astype(
        np.float32
    )


def _amplifier(shape: Shape, decay: float) -> jax.Array:
    """Return s of `fourier`, (H, W // 2 + 1, 1).

    Spectra of natural images fall as 1 / frequency. irfft2 divides by W·H; with √(W·H) it is the
    unitary transform, so that a step moves pixels as far in images of any size.
    """
    height, width, _ = shape
    # The mean has frequency 0: it gets the factor of the lowest frequency that the image holds.
    lowest = np.float32(1 / max(height, width))
    amplifier = np.sqrt(height * width) / np.maximum(frequencies(height, width), lowest) ** decay
    return jnp.asarray(amplifier[..., None].astype(np.float32))


def _maco(magnitude: Callable[[Shape], jax.Array]) -> Parametrization:
    """Return the parametrisation with this magnitude: m · e^(iφ) = m · (cos φ + i·sin φ)."""

    def init(key: jax.Array, shape: Shape) -> jax.Array:
        size = (shape[0], shape[1] // 2 + 1, shape[2])
        return jax.random.uniform(key, size, jnp.float32, -np.pi, np.pi)

    def decode(phase: jax.Array, shape: Shape) -> jax.Array:
        fixed = magnitude(shape)
        cosine, sine = _hermitian(phase, *shape[:2])
        spectrum = jax.lax.complex(fixed * cosine, fixed * sine)
        return jnp.fft.irfft2(spectrum, s=shape[:2], axes=(0, 1))

    return Parametrization(init, decode)


def _conjugates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries of a half spectrum another one decides, and which are their own.

    Both are (H, W // 2 + 1, 1). In columns 0 and W / 2 entry (row, col) is the conjugate of (−row,
    col): rows 1 … (H − 1) // 2 decide those below, and rows 0 and H / 2 are their own conjugates.
    """
    row, col = np.ogrid[:height, : width // 2 + 1]
    doubled = (2 * col) % width == 0
    return (doubled & (2 * row > height))[..., None], (doubled & (2 * row % height == 0))[..., None]


def _hermitian(phase: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Return cosine and sine of the phase of a real image: φ(−k) = −φ(k), 0 or π where k = −k."""
    decided, own = _conjugates(height, width)
    opposite = jnp.roll(phase[::-1], 1, 0)  # row −r in place of r
    phase = jnp.where(decided, -opposite, phase)
    cosine = jnp.cos(phase)
    # Its derivative is taken as that of the cosine, so that a sign can still change.
    sign = jnp.where(cosine < 0, -jnp.ones_like(cosine), jnp.ones_like(cosine))
    signed = cosine + jax.lax.stop_gradient(sign - cosine)
    sine = jnp.sin(phase)
    return jnp.where(own, signed, cosine), jnp.where(own, jnp.zeros_like(sine), sine)


@cache
def _power_law_maco(decay: float) -> Parametrization:
    def magnitude(shape: Shape) -> jax.Array:
        height, width, channels = shape
        frequency = frequencies(height, width)
        # No power at frequency 0: the free image has mean 0, the middle of the value range.
        law = np.where(frequency > 0, np.maximum(frequency, 1e-6) ** -decay, 0.0)
        # Parseval: variance = Σ magnitude² / (HW)², where an entry whose conjugate is not in the
        # half spectrum counts twice: all but those of columns 0 and, of an even width, W / 2.
        alone = (2 * np.arange(law.shape[1])) % width != 0
        power = (np.square(law) * (1 + alone)).sum()
        law = law * (height * width / np.sqrt(power or 1.0))
        return jnp.asarray(np.repeat(law[..., None], channels, -1).astype(np.float32))

    return _maco(magnitude)


def _constant(magnitude: np.ndarray) -> Callable[[Shape], jax.Array]:
    def fixed(shape: Shape) -> jax.Array:
        expected = (shape[0], shape[1] // 2 + 1, shape[2])
        if magnitude.shape != expected:
            raise ValueError(
                f"`magnitude` must have shape {expected} for images of {shape}: got "
                f"{magnitude.shape}."
            )
        _check_magnitude(magnitude, shape)
        return jnp.asarray(magnitude, jnp.float32)

    return fixed


def _check_magnitude(magnitude: np.ndarray, shape: Shape) -> None:
    """Raise ValueError unless it may be |rfft2| of a real image."""
    if not (np.isfinite(magnitude).all() and (magnitude >= 0).all()):
        raise ValueError("`magnitude` must be finite and at least 0: got other entries.")
    decided, _ = _conjugates(*shape[:2])
    differs = np.abs(magnitude - np.roll(magnitude[::-1], 1, 0)) * decided
    if differs.max() > 1e-3 * magnitude.max():
        raise ValueError(
            "`magnitude` must be that of a real image, alike in rows r and −r of columns 0 and "
            f"W/2: got entries that differ by {differs.max():.3g}; take the mean of both."
        )


def _colours() -> jax.Array:
    # Rows are red, green, blue; columns the principal colours times their standard deviations:
    # brightness, red against blue, green against magenta.
    root = np.asarray([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
    return jnp.asarray(root / np.linalg.norm(root, axis=0).max())


def _one_channel(shape: Shape) -> bool:
    if shape[2] not in (1, 3):
        raise ValueError(f"`decorrelated` needs images of 1 or 3 channels: got {shape[2]}.")
    return shape[2] == 1
