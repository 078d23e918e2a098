"""Which outputs a patch can change: receptive-field algebra on integers, one axis at a time.

Every array that depends on the image has, on each axis, either a `Reach` or None. A reach of
(stride S, left L, right R) says that index o depends on the image pixels o*S - L ... o*S + R of
one image axis; None says that it may depend on all of them. A `Stencil` is what an operation
does to an axis: output o reads inputs o*stride - low ... o*stride - low + extent - 1, with o // up
for o if it enlarges the axis `up` times. A `Span` is the window that follows: its size is one
static integer, its first index is known for every position that the patch may take. Integers and
NumPy only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FARTHEST = 1 << 30  # pixels off the image at which a patch is looked for; int32 holds twice that


class Stencil(NamedTuple):
    """Output o reads inputs o//up*stride - low ... o//up*stride - low + extent - 1."""

    extent: int = 1
    stride: int = 1
    low: int = 0
    up: int = 1

    @classmethod
    def band(cls, matrix: np.ndarray) -> "Stencil | None":
        """Return the stencil of a product with a matrix (inputs, outputs) of weights.

        None unless one length is a multiple of the other.
        """
        inputs, outputs = matrix.shape
        read, reader = np.nonzero(matrix)
        if not len(read) or max(inputs, outputs) % min(inputs, outputs):
            return None
        stride, up = max(1, inputs // outputs), max(1, outputs // inputs)
        # A weight (i, o) that is not 0 must have -low <= i - o//up*stride < extent - low.
        offset = read - reader // up * stride
        return cls(int(np.ptp(offset)) + 1, stride, -int(offset.min()), up)


POINT = Stencil()


class Reach(NamedTuple):
    """Index o depends on the pixels o*stride - left ... o*stride + right of image axis `axis`.

    Windows start and end at multiples of `align`: the result of an operation that enlarged the
    axis so many times; what follows need not keep to it.
    """

    axis: int
    stride: int = 1
    left: int = 0
    right: int = 0
    align: int = 1

    def through(self, stencil: Stencil) -> "Reach | None":
        """Compose with an operation: the reach of its output; None if finer than a pixel.

        Output o reads the indices j of o//up*s - low ... o//up*s - low + extent - 1, and j depends
        on the pixels j*S - L ... j*S + R. Put together, for up = 1:

            o*s*S - (L + low*S) ... o*s*S + (R + (extent - 1 - low)*S).

        With up > 1 it is o//up = (o - b)/up for some b < up: to the left as far as b = up - 1 has
        it, to the right as b = 0 has it.
        """
        stride, rest = divmod(self.stride * stencil.stride, stencil.up)
        left = self.left + stencil.low * self.stride + (stencil.up - 1) * stride
        right = self.right + (stencil.extent - 1 - stencil.low) * self.stride
        return Reach(self.axis, stride, left, right, stencil.up) if rest == 0 else None

    def limit(self, field: int) -> "Reach":
        """Forget what lies beyond `field` times the stride around the centre: exact no longer."""
        excess = max(0, self.left + self.right - (field + self.align - 1) * self.stride)
        return self._replace(left=self.left - excess // 2, right=self.right - (excess + 1) // 2)

    def join(self, other: "Reach | None") -> "Reach | None":
        """Return the reach of an output that reads both at one index; None if they do not align."""
        if other is None or self._replace(left=0, right=0) != other._replace(left=0, right=0):
            return None
        left, right = max(self.left, other.left), max(self.right, other.right)
        return self._replace(left=left, right=right)


class Span(NamedTuple):
    """A window on one axis: for position i of image axis `axis`, first[i] ... first[i]+size-1."""

    axis: int
    first: np.ndarray
    size: int

    def inputs(self, stencil: Stencil) -> "Span":
        """Return the span of inputs that these outputs read; it may leave the array."""
        first, size = self.first // stencil.up, self.size // stencil.up
        start = first * stencil.stride - stencil.low
        return Span(self.axis, start, (size - 1) * stencil.stride + stencil.extent)


class Positions(NamedTuple):
    """The starts a patch may take along one image axis: arithmetic, and off the image at both ends.

    Starts that are known to lie on a grid have fewer residues modulo a layer's stride, and the
    fewer residues, the smaller the window that holds the changes for all of them.
    """

    starts: np.ndarray
    patch: int
    dim: int

    @classmethod
    def on_grid(cls, dim: int, patch: int, step: int, offset: int) -> "Positions":
        """Every start congruent to `offset` modulo `step`, from before the image to behind it."""
        # From the last start wholly before the image to the first one wholly behind it.
        first = offset + step * ((-patch - offset) // step)
        last = offset - step * ((offset - dim) // step)
        return cls(np.arange(first, last + 1, step), patch, dim)

    @property
    def step(self) -> int:
        """The distance between neighbouring starts."""
        return int(self.starts[1] - self.starts[0])

    def place(self, start: Any) -> Any:
        """Return the index of a start (NumPy or JAX); beyond the last one, of the last one."""
        return ((start - int(self.starts[0])) // self.step).clip(0, len(self.starts) - 1)

    def knows(self, start: Any) -> Any:
        """Say whether a start lies on the grid."""
        return (start - int(self.starts[0])) % self.step == 0

    def window(self, reach: Reach, dim: int) -> Span:
        """Return the span, inside an axis of length `dim`, of all indices that the patch changes.

        Index o changes only if the pixels it depends on meet those that the patch covers:

            patch                   low ........ high
            first o     o*S-L ... o*S+R                        the least o with o*S + R >= low
            last o                        o*S-L ... o*S+R      the largest o with o*S - L <= high

        The size is that of the largest changed interval over all starts; near a border the window
        is moved inside.
        """
        if reach.align > 1:
            # `align` indices from a multiple of it on are one index of a coarser axis, whose reach
            # is that of the first of them: `through` has widened `left` for the others.
            left = reach.left - (reach.align - 1) * reach.stride
            repeated = Reach(reach.axis, reach.stride * reach.align, left, reach.right)
            span = self.window(repeated, dim // reach.align)
            return Span(reach.axis, span.first * reach.align, span.size * reach.align)
        # Of a patch that is off the image, low > high: it changes nothing.
        low, high = np.maximum(self.starts, 0), np.minimum(self.starts + self.patch, self.dim) - 1
        first = -((reach.right - low) // reach.stride)
        last = (high + reach.left) // reach.stride
        changed = np.minimum(last, dim - 1) - np.maximum(first, 0) + 1
        size = max(1, int(changed.max(initial=0, where=low <= high)))
        return Span(reach.axis, np.clip(first, 0, dim - size), size)


def join_all(reaches: Sequence[Reach | None]) -> Reach | None:
    """Join several reaches; None as soon as one is None or they do not align."""
    joined, *rest = reaches
    for reach in rest:
        joined = joined.join(reach) if joined is not None else None
    return joined
