"""Which indices a patch changes: one interval for each of its starts, one axis at a time.

Every array that depends on the image has, on each axis, either a `Reach` or None. A reach lists,
for each start i that the patch may take along one image axis, the first and last index that change;
None says that all of them may. What an operation does to an axis is told from its outputs: output o
reads inputs lo[o] ... hi[o], by a formula (`Stencil`) or as a list (`Table`). So o changes where
lo[o] <= last[i] and hi[o] >= first[i], and a join of branches takes the smaller first and the
larger last. A `Span` is the window that follows: its size is one static integer, its first index is
known for every start. Where a network wraps an axis round, indices count on beyond its ends, see
`circle`. Integers and NumPy only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FARTHEST = 1 << 30  # pixels off the image at which a patch is looked for; int32 holds twice that
NOTHING = 1 << 40  # the first index of an interval that holds none; its last is the negative

Ends = tuple[np.ndarray, np.ndarray]


class Stencil(NamedTuple):
    """Output o reads inputs o//up*stride - low ... o//up*stride - low + extent - 1.

    Where `up` is more than 1, windows of the output start and end at multiples of it.
    """

    extent: int = 1
    stride: int = 1
    low: int = 0
    up: int = 1

    @property
    def several(self) -> bool:
        """Whether an output may read more than one input."""
        return self.extent > 1

    def reads(self, count: int) -> Ends:
        """Return the first and last inputs that `count` outputs read; they may leave the array."""
        first = np.arange(count) // self.up * self.stride - self.low
        return first, first + self.extent - 1


class Table(NamedTuple):
    """Output o reads inputs first[o] ... last[o], which lie in the array; in any order.

    For operations that can be carried out on any window, such as a product with a cut of a matrix.
    """

    first: np.ndarray
    last: np.ndarray

    @property
    def up(self) -> int:
        """Windows of the output may start anywhere."""
        return 1

    @property
    def several(self) -> bool:
        """Whether an output may read more than one input."""
        return bool((self.first < self.last).any())

    def reads(self, count: int) -> Ends:
        """Return the first and last inputs that the outputs read."""
        return self.first, self.last

    @classmethod
    def band(cls, matrix: np.ndarray) -> "Table | None":
        """Return what a product with a matrix (inputs, outputs) of weights reads."""
        weighs = matrix != 0
        full = weighs.any(0)
        if not full.any():
            return None
        nearest = _nearest(
            full
        )  # an output without a weight reads nothing: what its neighbour does
        first, last = weighs.argmax(0), len(matrix) - 1 - weighs[::-1].argmax(0)
        return cls(first[nearest], last[nearest])


class Turn(NamedTuple):
    """Output o reads input o + shift, counted on round the axis, see `circle`."""

    shift: int

    @property
    def up(self) -> int:
        """Windows of the output may start anywhere."""
        return 1

    @property
    def several(self) -> bool:
        """Whether an output may read more than one input."""
        return False

    def reads(self, count: int) -> Ends:
        """Return the inputs that `count` outputs read, counted on."""
        first = np.arange(count) + self.shift
        return first, first


Reads = Stencil | Table | Turn
POINT = Stencil()


class Field(NamedTuple):
    """Index o sees the pixels o*stride - left ... o*stride + right, away from borders.

    Exact for stencils, a mean for tables: `limit` and receptive fields go by it, windows do not.
    """

    stride: float = 1.0
    left: float = 0.0
    right: float = 0.0

    def through(self, reads: Reads, count: int) -> "Field":
        """Compose with an operation: output o reads inputs o*stride - low ... + extent - 1.

        Put together: o*s*S - (L + low*S) ... o*s*S + (R + (extent - 1 - low)*S). With `up` outputs
        for an input it is (o - b)/up*s for some b < up: to the left as far as b = up - 1 has it.
        """
        if isinstance(reads, Stencil):
            stride = self.stride * reads.stride / reads.up
            left = self.left + reads.low * self.stride + (reads.up - 1) * stride
            return Field(stride, left, self.right + (reads.extent - 1 - reads.low) * self.stride)
        first, last = reads.reads(count)
        slope = (first[-1] - first[0]) / max(1, count - 1)
        off = np.arange(count) * slope
        low, high = float((off - first).max()), float((last - off).max())
        sides = (self.left + low * self.stride, self.right + high * self.stride)
        return Field(slope * self.stride, *sides)


class Reach(NamedTuple):
    """Indices first[i] ... last[i] change for start i of an image axis; none if first > last.

    With a `period`, an index stands for all that differ from it by multiples of the period.
    """

    axis: int
    first: np.ndarray
    last: np.ndarray
    field: Field = Field()
    period: int = 0

    @property
    def seen(self) -> np.ndarray:
        """For each start, whether any index changes."""
        return self.first <= self.last

    def where(self, seen: np.ndarray) -> "Reach":
        """Keep the intervals of some starts, and none of the others."""
        keep = seen & self.seen
        return self._replace(
            first=np.where(keep, self.first, NOTHING), last=np.where(keep, self.last, -NOTHING)
        )

    def through(self, reads: Reads, count: int) -> "Reach":
        """Compose with an operation of `count` outputs: o changes if it reads what changes."""
        lo, hi = reads.reads(count)
        # In rising order, all from the first whose hi reaches up to an interval to the last whose
        # lo does; in any other order, they have to be looked for.
        if (np.diff(lo) >= 0).all() and (np.diff(hi) >= 0).all():
            first = np.searchsorted(hi, self.first, "left")
            last = np.searchsorted(lo, self.last, "right") - 1
            meets = first <= last
        else:
            hit = (lo <= self.last[:, None]) & (hi >= self.first[:, None])
            first, last = hit.argmax(1), count - 1 - hit[:, ::-1].argmax(1)
            meets = hit.any(1)
        return Reach(self.axis, first, last, self.field.through(reads, count)).where(
            meets & self.seen
        )

    def join(self, other: "Reach | None") -> "Reach | None":
        """Return the reach of an output that reads both at one index; None of two image axes."""
        if other is None or self.axis != other.axis:
            return None
        wider = max(self, other, key=lambda reach: int((reach.last - reach.first).max()))
        first, last = np.minimum(self.first, other.first), np.maximum(self.last, other.last)
        return Reach(self.axis, first, last, wider.field, max(self.period, other.period))

    def window(self, dim: int, align: int = 1) -> "Span":
        """Return the span, inside an axis of length `dim`, of all indices that change.

        The size is that of the largest interval over all starts; near a border the window is moved
        inside, but for an axis that is wrapped round. Where nothing changes, it lies where it does
        for the nearest start.
        """
        if not self.seen.any():
            return Span(self.axis, np.zeros_like(self.first), min(align, dim), self.period)
        first = self.first // align * align
        last = (self.last // align + 1) * align - 1
        size = int((last - first).max(initial=0, where=self.seen)) + 1
        first = first[_nearest(self.seen)]
        if self.period:
            return Span(self.axis, first, size, self.period)
        return Span(self.axis, np.clip(first, 0, dim - size), size)


def whole_axis(axis: int, seen: np.ndarray, dim: int) -> Reach:
    """Return the reach of an axis all of whose indices change for the starts that are seen."""
    everything = Reach(axis, np.zeros(len(seen), int), np.full(len(seen), dim - 1))
    return everything.where(seen)


class Span(NamedTuple):
    """A window on one axis: for position i of image axis `axis`, first[i] ... first[i]+size-1."""

    axis: int
    first: np.ndarray
    size: int
    period: int = 0

    def inputs(self, reads: Reads, dim: int, count: int) -> "Span":
        """Return the span of the `dim` inputs that these of `count` outputs read.

        It may leave the array; what lies wholly beyond it is taken next to it, or round it.
        """
        if isinstance(reads, Turn):
            return self._replace(first=(self.first + reads.shift) % dim)
        if isinstance(reads, Stencil):
            first, size = self.first // reads.up, self.size // reads.up
            start, size = first * reads.stride - reads.low, (size - 1) * reads.stride + reads.extent
            if self.period:
                return Span(self.axis, start, size, self.period // reads.up * reads.stride)
            return Span(self.axis, np.clip(start, -size, dim), size)
        outputs = self.first[:, None] + np.arange(self.size)
        first, last = (ends[outputs] for ends in reads.reads(count))
        first, last = first.min(1), last.max(1)
        size = int((last - first).max()) + 1
        return Span(self.axis, np.clip(first, 0, dim - size), size)

    def nearest_turn(self, other: "Span") -> np.ndarray:
        """Return the first indices, on the turn of the circle where another span is nearest."""
        period = self.period or other.period
        apart = other.first - self.first + (other.size - self.size) / 2
        return self.first + np.rint(apart / period).astype(int) * period


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

    def reach(self, axis: int) -> Reach:
        """Return the pixels that the patch covers, of image axis `axis`."""
        first = np.maximum(self.starts, 0)
        last = np.minimum(self.starts + self.patch, self.dim) - 1
        return Reach(axis, first, last).where(first <= last)

    def limit(self, reach: Reach, cells: int) -> Reach:
        """Forget what lies beyond `cells` cells around the patch, both sides together: not exact.

        What is left are as many cells as fit into the patch and theirs, those that lie nearest to
        its middle: of a cell that sees the pixels o*S - L ... o*S + R, the centre o*S + (R - L)/2
        counts. An odd number cannot lie evenly around the patch: one more of them before it.
        """
        stride, left, right = reach.field
        if not stride or left + right <= cells * abs(stride):
            return reach
        size = int((self.patch - 1) / abs(stride) + cells) + 1
        middle = (self.starts + (self.patch - 1) / 2 - (right - left) / 2) / stride
        if reach.period:  # whose indices were shifted
            middle = (reach.first + reach.last) / 2
        first = np.ceil(middle - size / 2)
        last = first + size - 1
        first, last = (np.clip(end, reach.first, reach.last).astype(int) for end in (first, last))
        return reach._replace(first=first, last=last).where(reach.seen)


def join_all(reaches: Sequence[Reach]) -> Reach | None:
    """Join several reaches; None if they are of both image axes."""
    joined: Reach | None = reaches[0]
    for reach in reaches[1:]:
        joined = joined.join(reach) if joined is not None else None
    return joined


def _nearest(marks: np.ndarray) -> np.ndarray:
    """For each place, the nearest one that is marked; at least one is."""
    marked = np.flatnonzero(marks)
    place = np.arange(len(marks))
    right = np.searchsorted(marked, place).clip(0, len(marked) - 1)
    left = (right - 1).clip(0)
    nearer = np.abs(marked[left] - place) <= np.abs(marked[right] - place)
    return np.where(nearer, marked[left], marked[right])
