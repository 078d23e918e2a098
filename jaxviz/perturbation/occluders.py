"""How one position changes an image, traceable: a rectangle at a start, or the pixels of labels.

An occluder is a pytree with `prepare(image) -> canvas`, computed once per image, and
`hide(canvas, position) -> image`. Images are float (height, width, channel).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._arguments import Pair
from jaxviz.perturbation.fills import Fill

static: dict[str, Any] = {"static": True}


class Occluder(Protocol):
    """What a run needs to know of occlusion."""

    def prepare(self, image: jax.Array) -> "Canvas":
        """Return what `hide` needs of one image."""
        ...

    def hide(self, canvas: "Canvas", position: jax.Array) -> jax.Array:
        """Return the image with one position occluded."""
        ...


class Canvas(NamedTuple):
    """The image to paste on and the one to cut from."""

    under: jax.Array
    over: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PatchOccluder:
    """Paste a patch at a start (row, col), clipped at the border.

    Attributes:
        fill: what the patch is made of.
        shape: (rows, cols) of the patch.
        channels: which channels it covers; None: all.
        complement: keep the patch and occlude everything else.
    """

    fill: Fill
    shape: Pair = field(metadata=static)
    channels: tuple[int, ...] | None = field(default=None, metadata=static)
    complement: bool = field(default=False, metadata=static)

    def prepare(self, image: jax.Array) -> Canvas:
        """Return the image and the fill's background, both with a patch's width added around."""
        background = self.fill.background(image)
        under, over = (background, image) if self.complement else (image, background)
        # So that slices at any start lie inside: `dynamic_slice` would move those that overhang.
        pads = [(size, size) for size in self.shape] + [(0, 0)]
        return Canvas(jnp.pad(under, pads), jnp.pad(over, pads))

    def start(self, position: jax.Array) -> jax.Array:
        """Return where the patch of a position goes, (2,): there."""
        return position

    def patch(self, canvas: Canvas, start: jax.Array) -> jax.Array:
        """Return the patch (rows, cols, C) that goes to `start`."""
        at = self._in_canvas(start)
        size = (*self.shape, canvas.under.shape[-1])
        under = jax.lax.dynamic_slice(canvas.under, at, size)
        over = jax.lax.dynamic_slice(canvas.over, at, size)
        patch = self.fill.blend(under, over, self._inside(canvas, start), start)
        if self.channels is None:
            return patch
        return jnp.where(_covered(self.channels, size[-1]), patch, under)

    def hide(self, canvas: Canvas, position: jax.Array) -> jax.Array:
        """Return the image (H, W, C) with the patch pasted at `position`, a start (2,)."""
        patch, at = self.patch(canvas, position), self._in_canvas(position)
        pasted = jax.lax.dynamic_update_slice(canvas.under, patch, at)
        return self.crop(pasted)

    def crop(self, padded: jax.Array) -> jax.Array:
        """Return the image (H, W, C) in the middle of an array with a patch's width around."""
        rows, cols = self.shape
        return padded[rows:-rows, cols:-cols]

    def _in_canvas(self, start: jax.Array) -> tuple[jax.Array, ...]:
        row, col = start + jnp.asarray(self.shape, start.dtype)
        return row, col, jnp.zeros_like(row)

    def _inside(self, canvas: Canvas, start: jax.Array) -> jax.Array:
        rows, cols = (
            start[axis] + jnp.arange(self.shape[axis], dtype=start.dtype) for axis in (0, 1)
        )
        height, width = (canvas.under.shape[axis] - 2 * self.shape[axis] for axis in (0, 1))
        inside_rows = ((rows >= 0) & (rows < height))[:, None, None]
        return inside_rows & ((cols >= 0) & (cols < width))[None, :, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LabelOccluder:
    """Occlude all pixels whose labels belong to one group.

    A position is the number of a group, or that and the start of a window that holds the group.

    Attributes:
        fill: what the pixels become; its `blend` is given the whole image as the patch.
        labels: int32 (height, width), in [0, labels).
        groups: bool (groups, labels): which labels a group holds.
        complement: keep the group and occlude everything else.
        channels: which channels of a group are occluded, or kept; None: all.
        window: (rows, cols) of the windows; None: there are none.
    """

    fill: Fill
    labels: jax.Array
    groups: jax.Array
    complement: bool = field(default=False, metadata=static)
    channels: tuple[int, ...] | None = field(default=None, metadata=static)
    window: Pair | None = field(default=None, metadata=static)

    def prepare(self, image: jax.Array) -> Canvas:
        """Return the image and the background of the fill."""
        background = self.fill.background(image)
        return Canvas(background, image) if self.complement else Canvas(image, background)

    def hide(self, canvas: Canvas, position: jax.Array) -> jax.Array:
        """Return the image (H, W, C) without the group at `position`, an index and more."""
        hidden = self.groups[position[0]][self.labels][..., None]
        origin = jnp.zeros(2, position.dtype)
        filled = self.fill.blend(canvas.under, canvas.over, hidden, origin)
        if self.channels is not None:
            hidden = hidden & _covered(self.channels, filled.shape[-1])
        return jnp.where(hidden, filled, canvas.under)

    def start(self, position: jax.Array) -> jax.Array:
        """Return where the window of a position lies, (2,)."""
        return position[1:]

    def patch(self, canvas: Canvas, position: jax.Array) -> jax.Array:
        """Return what the image without the group holds in the window, (rows, cols, C)."""
        # Whole and then cut, as a fill may look at the whole image; XLA makes only what is cut.
        image, (row, col) = self.hide(canvas, position), self.start(position)
        size = (*(self.window or image.shape[:2]), image.shape[-1])
        return jax.lax.dynamic_slice(image, (row, col, jnp.zeros_like(row)), size)

    def crop(self, canvas: jax.Array) -> jax.Array:
        """Return the image of a part of the canvas: there is nothing around it."""
        return canvas


def _covered(channels: tuple[int, ...], count: int) -> jax.Array:
    """Which of the channels are covered: bool (1, 1, count)."""
    return jnp.zeros((1, 1, count), bool).at[..., jnp.asarray(channels)].set(True)


def checked_channels(channels: Sequence[int] | None, images: np.ndarray) -> tuple[int, ...] | None:
    """Return the channels as a tuple; ValueError unless the images have them."""
    if channels is None:
        return None
    picked, count = tuple(np.atleast_1d(channels).tolist()), images.shape[-1]
    if not picked or any(channel not in range(count) for channel in picked):
        raise ValueError(
            f"`channels` must name some of the channels 0 to {count - 1}: got {picked}."
        )
    return tuple(int(channel) for channel in picked)
