"""Transform images at random before the network sees them, which makes the result robust.

A transform is a function (key, images) -> images of (batch, height, width, channel): all images of
a call share one draw, the same key gives the same images bit for bit, and the derivative is exact.
Your own function with this signature serves as well. A transform may change the size; `maximize`
resizes what it shows the network. The factories return the same function for the same options, so
that a compiled program is found again.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz.perturbation import filters

Transform = Callable[[jax.Array, jax.Array], jax.Array]


@cache
def jitter(pixels: int) -> Transform:
    """Roll the images by up to `pixels` both ways; what leaves one side enters at the other.

    Args:
        pixels: the largest shift, ≥ 0; the shifts are uniform in −pixels … pixels.

    Returns:
        A transform that keeps the size.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> images = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> float(jv.transforms.jitter(2)(jax.random.key(0), images).sum())
        36.0
    """
    _check("pixels", pixels, pixels >= 0, "at least 0")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        shifts = jax.random.randint(key, (2,), -pixels, pixels + 1, jnp.int32)
        return _rolled(images, shifts, pixels)

    return apply


@cache
def pad(pixels: int, *, value: float = 0.5) -> Transform:
    """Add a border of one value.

    Args:
        pixels: the border's width on each side, ≥ 0.
        value: the border's value, in the images' units.

    Returns:
        A transform that enlarges height and width by 2·pixels.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.pad(2)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 8, 8, 3)
    """
    _check("pixels", pixels, pixels >= 0, "at least 0")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        del key
        border = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
        return jnp.pad(images, border, constant_values=value)

    return apply


@cache
def crop(height: int, width: int) -> Transform:
    """Cut out a window at a random place.

    Args:
        height: the window's height, at most the image's.
        width: the window's width, at most the image's.

    Returns:
        A transform to (N, height, width, C).

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.crop(3, 2)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 3, 2, 3)
    """

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        batch, rows, cols, channels = images.shape
        if height > rows or width > cols:
            raise ValueError(
                f"`crop` must not exceed the image: got ({height}, {width}) for ({rows}, {cols})."
            )
        above = jnp.asarray([rows - height + 1, cols - width + 1], jnp.int32)
        start = jax.random.randint(key, (2,), jnp.zeros(2, jnp.int32), above, jnp.int32)
        where = (jnp.zeros_like(start[0]), start[0], start[1], jnp.zeros_like(start[0]))
        return jax.lax.dynamic_slice(images, where, (batch, height, width, channels))

    return apply


@cache
def scale(low: float, high: float) -> Transform:
    """Zoom about the centre by a random factor; the canvas keeps its size, edges are repeated.

    Args:
        low: the smallest factor, > 0.
        high: the largest factor, ≥ low; above 1 enlarges the picture.

    Returns:
        A transform that keeps the size, bilinear.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.scale(0.9, 1.1)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """
    _check("low, high", (low, high), 0 < low <= high, "positive and in this order")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        factor = jax.random.uniform(key, (), jnp.float32, low, high)
        weights = []
        for size in images.shape[1:3]:
            # Pixel i shows what lay at (i − c) / factor + c, c the centre.
            centre = (size - 1) / 2
            source = (jnp.arange(size, dtype=jnp.float32) - centre) / factor + centre
            weights.append(filters.bilinear(source, size, xp=jnp))
        return filters.along(weights[0], images, weights[1])

    return apply


@cache
def magnify(low: float, high: float) -> Transform:
    """Enlarge a window of random size at a random place to the whole canvas.

    Args:
        low: the window's smallest share of height and width, > 0.
        high: its largest share, low ≤ high ≤ 1.

    Returns:
        A transform that keeps the size, bilinear.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.magnify(0.05, 0.5)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)

    Source:
        Fel et al., NeurIPS 2023, arXiv:2306.06805: 32 views of shares 0.05 to 0.5, noise 0.08.
    """
    _check("low, high", (low, high), 0 < low <= high <= 1, "shares in this order")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        share_key, place_key = jax.random.split(key)
        share = jax.random.uniform(share_key, (), jnp.float32, low, high)
        place = jax.random.uniform(place_key, (2,), jnp.float32)
        weights = []
        for size, at in zip(images.shape[1:3], place, strict=True):
            # The window's first and last pixel go to the first and last of the canvas.
            window = share * (size - 1)
            first = at * (size - 1 - window)
            source = first + jnp.linspace(0.0, 1.0, size, dtype=jnp.float32) * window
            weights.append(filters.bilinear(source, size, xp=jnp))
        return filters.along(weights[0], images, weights[1])

    return apply


@cache
def over_noise(sd: float = 0.2, *, grey: float = 0.5) -> Transform:
    """Lay images with transparency over random noise: what is transparent cannot matter.

    The last channel is the opacity α: image·α + noise·(1 − α). Ask `maximize` for an `image_shape`
    with one channel more than the network takes, and penalise the mean of that channel.

    Args:
        sd: the noise's standard deviation, ≥ 0.
        grey: the noise's mean.

    Returns:
        A transform from (N, H, W, C + 1), the opacity in [0, 1], to (N, H, W, C).

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.over_noise()(jax.random.key(0), jnp.ones((1, 4, 4, 4))).shape
        (1, 4, 4, 3)
    """
    _check("sd", sd, sd >= 0, "at least 0")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        colours, opacity = images[..., :-1], images[..., -1:]
        drawn = jax.random.normal(key, (1, *colours.shape[1:]), images.dtype)
        ground = jnp.asarray(grey, images.dtype) + jnp.asarray(sd, images.dtype) * drawn
        return colours * opacity + ground * (1 - opacity)

    return apply


@cache
def rotate(degrees: float) -> Transform:
    """Rotate about the centre by a random angle; edges are repeated.

    Args:
        degrees: the largest angle in degrees, ≥ 0; angles are uniform in −degrees … degrees.

    Returns:
        A transform that keeps the size, bilinear.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.rotate(10)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """
    _check("degrees", degrees, degrees >= 0, "at least 0")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        drawn = jax.random.uniform(key, (), jnp.float32, -degrees, degrees)
        return _rotated(images, jnp.deg2rad(drawn))

    return apply


@cache
def flip() -> Transform:
    """Mirror left and right, half of the time.

    Returns:
        A transform that keeps the size.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.flip()(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        flipped = jax.random.bernoulli(key, jnp.float32(0.5))
        return jnp.where(flipped, images[:, :, ::-1], images)

    return apply


@cache
def noise(sigma: float) -> Transform:
    """Add Gaussian noise, the same to all images of the call.

    Args:
        sigma: its standard deviation in the images' units, ≥ 0.

    Returns:
        A transform that keeps the size.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.noise(0.1)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """
    _check("sigma", sigma, sigma >= 0, "at least 0")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        drawn = jax.random.normal(key, (1, *images.shape[1:]), images.dtype)
        return images + jnp.asarray(sigma, images.dtype) * jnp.broadcast_to(drawn, images.shape)

    return apply


@cache
def blur(low: float, high: float) -> Transform:
    """Blur with a Gaussian of random width.

    Args:
        low: the smallest standard deviation in pixels, > 0.
        high: the largest, ≥ low; the kernel is cut at 4·high, rounded up to whole pixels.

    Returns:
        A transform that keeps the size; edges are repeated.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.blur(0.5, 1.0)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """
    _check("low, high", (low, high), 0 < low <= high, "positive and in this order")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        sigma = jax.random.uniform(key, (), jnp.float32, low, high)
        return filters.blur(images, sigma, radius=filters.reach(high))

    return apply


def compose(transforms: Sequence[Transform]) -> Transform:
    """Make one transform of several, applied in order, each with its own key.

    Args:
        transforms: the transforms, first to last.

    Returns:
        A transform.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> both = jv.transforms.compose([jv.transforms.pad(2), jv.transforms.jitter(2)])
        >>> both(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 8, 8, 3)
    """
    return _compose(tuple(transforms))


@cache
def _compose(transforms: tuple[Transform, ...]) -> Transform:
    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        for number, transform in enumerate(transforms):
            images = transform(jax.random.fold_in(key, number), images)
        return images

    return apply


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rolled(images: jax.Array, shifts: jax.Array, most: int) -> jax.Array:
    """Roll the images by a slice of the wrapped ones; the derivative is rolled back.

    Row i of the result is row i − shift of the image, which is row i + down − shift of the wrapped
    ones. The derivative of a slice at a traced place would be an update in place, for which XLA
    took ten times as long on a CPU; that of `jnp.roll` is a scatter.
    """
    batch, rows, cols, channels = images.shape
    # A shift beyond the size goes round: it is taken modulo the size, and one lap is enough.
    down, right = min(most, rows), min(most, cols)
    wrap = ((0, 0), (down, down), (right, right), (0, 0))
    wrapped = jnp.pad(images, wrap, mode="wrap")
    row = down - jnp.mod(shifts[0], rows) if most > rows else down - shifts[0]
    col = right - jnp.mod(shifts[1], cols) if most > cols else right - shifts[1]
    start = (jnp.zeros_like(row), row, col, jnp.zeros_like(row))
    return jax.lax.dynamic_slice(wrapped, start, (batch, rows, cols, channels))


def _rolled_forward(images: jax.Array, shifts: jax.Array, most: int) -> Any:
    return _rolled(images, shifts, most), shifts


def _rolled_backward(most: int, shifts: jax.Array, g: jax.Array) -> Any:
    return _rolled(g, -shifts, most), None


_rolled.defvjp(_rolled_forward, _rolled_backward)


def _rotated(images: jax.Array, angle: jax.Array) -> jax.Array:
    rows, cols = images.shape[1:3]
    y, x = jnp.meshgrid(
        jnp.arange(rows, dtype=jnp.float32) - (rows - 1) / 2,
        jnp.arange(cols, dtype=jnp.float32) - (cols - 1) / 2,
        indexing="ij",
    )
    # Pixel (y, x) from the centre shows what lay at (y, x) turned back by the angle.
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    row = cosine * y - sine * x + (rows - 1) / 2
    col = sine * y + cosine * x + (cols - 1) / 2
    return _bilinear(images, row, col)


def _bilinear(images: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
    """Return the images at places (rows, cols) that mix both axes, where no weights factorise."""
    top, bottom, down = filters.neighbours(row, images.shape[1], xp=jnp)
    left, right, along = filters.neighbours(col, images.shape[2], xp=jnp)
    dtype = filters.wide(images.dtype)
    down, along = (share.astype(dtype)[None, :, :, None] for share in (down, along))
    pixels = images.astype(dtype)
    upper = pixels[:, top, left] * (1 - along) + pixels[:, top, right] * along
    lower = pixels[:, bottom, left] * (1 - along) + pixels[:, bottom, right] * along
    return (upper * (1 - down) + lower * down).astype(images.dtype)


def _check(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {rule}: got {value}.")
