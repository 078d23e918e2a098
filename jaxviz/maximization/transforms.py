"""Random transformations of the images before the network sees them; they make the result robust.

A transform is a function (key, images) -> images of (batch, height, width, channel): all images of
a call share one draw, the same key gives the same images bit for bit, and the derivative is exact.
Your own function with this signature serves as well. A transform may change the size; `maximize`
resizes what it shows the network. The factories return the same function for the same options, so
that a compiled program is found again.
"""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp

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
        shifts = jax.random.randint(key, (2,), -pixels, pixels + 1)
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
        start = jax.random.randint(
            key, (2,), jnp.zeros(2, jnp.int32), jnp.asarray([rows - height + 1, cols - width + 1])
        )
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
        factor = jax.random.uniform(key, (), minval=low, maxval=high)
        rows = _interpolation(images.shape[1], factor, images.dtype)
        cols = _interpolation(images.shape[2], factor, images.dtype)
        return jnp.einsum("ij,njkc,lk->nilc", rows, images, cols)

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
        share = jax.random.uniform(share_key, (), minval=low, maxval=high)
        place = jax.random.uniform(place_key, (2,))
        matrices = []
        for size, at in zip(images.shape[1:3], place, strict=True):
            window = share * (size - 1)
            first = at * (size - 1 - window)
            source = first + jnp.linspace(0.0, 1.0, size) * window
            matrices.append(_bilinear_weights(source, size, images.dtype))
        return jnp.einsum("ij,njkc,lk->nilc", matrices[0], images, matrices[1])

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
        angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-degrees, maxval=degrees))
        return _rotated(images, angle)

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
        return jnp.where(jax.random.bernoulli(key), images[:, :, ::-1], images)

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
        high: the largest, ≥ low; the kernel is cut at 3·high.

    Returns:
        A transform that keeps the size; edges are repeated.

    Example:
        >>> import jax, jax.numpy as jnp, jaxviz as jv
        >>> jv.transforms.blur(0.5, 1.0)(jax.random.key(0), jnp.ones((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """
    _check("low, high", (low, high), 0 < low <= high, "positive and in this order")

    def apply(key: jax.Array, images: jax.Array) -> jax.Array:
        sigma = jax.random.uniform(key, (), minval=low, maxval=high)
        rows = _gaussian(images.shape[1], sigma, images.dtype)
        cols = _gaussian(images.shape[2], sigma, images.dtype)
        return jnp.einsum("ij,njkc,lk->nilc", rows, images, cols)

    return apply


def compose(transforms: Sequence[Transform]) -> Transform:
    """One transform from several, applied in order, each with its own key.

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


def _rolled(images: jax.Array, shifts: jax.Array, most: int) -> jax.Array:
    """A slice of the wrapped images: its derivative is one update, a roll's is a scatter."""
    batch, rows, cols, channels = images.shape
    down, right = min(most, rows), min(most, cols)
    wrap = ((0, 0), (down, down), (right, right), (0, 0))
    wrapped = jnp.pad(images, wrap, mode="wrap")
    row = down - jnp.mod(shifts[0], rows) if most > rows else down - shifts[0]
    col = right - jnp.mod(shifts[1], cols) if most > cols else right - shifts[1]
    start = (jnp.zeros_like(row), row, col, jnp.zeros_like(row))
    return jax.lax.dynamic_slice(wrapped, start, (batch, rows, cols, channels))


def _interpolation(size: int, factor: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Row i holds the bilinear weights of the source of pixel i under a zoom about the centre."""
    centre = (size - 1) / 2
    source = (jnp.arange(size, dtype=jnp.float32) - centre) / factor + centre
    return _bilinear_weights(source, size, dtype)


def _bilinear_weights(source: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
    """Row i holds the weights of `size` pixels at the place source[i], edges repeated."""
    source = jnp.clip(source, 0, size - 1)
    distance = jnp.abs(source[:, None] - jnp.arange(size, dtype=jnp.float32)[None])
    return jnp.maximum(1 - distance, 0).astype(dtype)


def _gaussian(size: int, sigma: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Row i holds a Gaussian about i, what falls off the edge added to the edge pixel."""
    reach = jnp.arange(-size, 2 * size, dtype=jnp.float32)
    distance = reach[None] - jnp.arange(size, dtype=jnp.float32)[:, None]
    weights = jnp.exp(-0.5 * jnp.square(distance / sigma))
    inside = weights[:, size : 2 * size]
    inside = inside.at[:, 0].add(weights[:, :size].sum(1))
    inside = inside.at[:, -1].add(weights[:, 2 * size :].sum(1))
    return (inside / inside.sum(1, keepdims=True)).astype(dtype)


def _rotated(images: jax.Array, angle: jax.Array) -> jax.Array:
    rows, cols = images.shape[1:3]
    y, x = jnp.meshgrid(
        jnp.arange(rows, dtype=jnp.float32) - (rows - 1) / 2,
        jnp.arange(cols, dtype=jnp.float32) - (cols - 1) / 2,
        indexing="ij",
    )
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    row = jnp.clip(cosine * y - sine * x + (rows - 1) / 2, 0, rows - 1)
    col = jnp.clip(sine * y + cosine * x + (cols - 1) / 2, 0, cols - 1)
    return _bilinear(images, row, col)


def _bilinear(images: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
    rows, cols = images.shape[1:3]
    top = jnp.floor(row).astype(jnp.int32)
    left = jnp.floor(col).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, rows - 1), jnp.minimum(left + 1, cols - 1)
    down = (row - top.astype(jnp.float32)).astype(images.dtype)[None, :, :, None]
    along = (col - left.astype(jnp.float32)).astype(images.dtype)[None, :, :, None]
    upper = images[:, top, left] * (1 - along) + images[:, top, right] * along
    lower = images[:, bottom, left] * (1 - along) + images[:, bottom, right] * along
    return upper * (1 - down) + lower * down


def _check(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {rule}: got {value}.")
