"""Windows of a few sizes for positions of many: each has a program, and each program its price.

A position changes the pixels of a box. Sizes of boxes are rounded up, along each axis, to one of

    8 12 16 24 32 48 64 96 …, and the image's own side,

so that many boxes share a window; then sizes are joined, and what windows do not pay for runs
dense, as long as that lowers the seconds of a call, as in `jaxviz.scoring.choice`:

    Σ over sizes of (a program + images · (a pass for the clean one + positions · a window))
    + images · dense positions · a pass.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

from jaxviz._arguments import Pair

LEAST_SIDE = 8
Window = Pair | None  # (rows, cols); None: none, the position runs dense


class Seconds(NamedTuple):
    """Seconds of a position, dense and on a window, and of compiling the window's program."""

    dense: float
    window: float
    program: float


def assign_windows(
    sizes: Sequence[Pair],
    image_shape: Pair,
    seconds: Callable[[Pair], Seconds],
    *,
    images: int = 1,
    dense: bool,
) -> list[Window]:
    """Return the window of every box of one image; None: it runs dense.

    Args:
        sizes: (height, width) of the boxes, at least one.
        image_shape: (height, width).
        seconds: (rows, cols) of a window -> what such windows take.
        images: how many images have such boxes.
        dense: whether a position may run dense.

    Returns:
        Sizes (rows, cols), none smaller than the box, nor larger than the image.

    Example:
        >>> cost = lambda window: Seconds(1.0, window[0] * window[1] / 1000, 1.0)
        >>> boxes = [(5, 7)] * 20 + [(6, 9)] * 3 + [(60, 60)]
        >>> windows = assign_windows(boxes, (64, 64), cost, dense=True)
        >>> windows[0], windows[20], windows[23]
        ((8, 12), (8, 12), None)
    """
    own: list[Window] = [_rounded(size, image_shape) for size in sizes]
    smallest = min((size for size in own if size is not None), key=prod)
    whole, least, program = seconds(smallest)
    if dense and images * len(sizes) * (whole - least) <= program:
        return [None] * len(sizes)  # not even if all were of the smallest size

    def price(windows: list[Window]) -> float:
        counts = Counter(windows)
        total = images * whole * counts.pop(None, 0)
        for size, count in counts.items():
            assert size is not None
            _, each, program = seconds(size)
            total += program + images * (whole + count * each)
        return total

    while True:
        several = [_moved(own, *move) for move in _moves(set(own), dense)]
        best = min(several, key=price, default=own)
        if price(best) >= price(own):
            return own
        own = best


def _moves(sizes: set[Window], dense: bool) -> Iterator[tuple[set[Window], Window]]:
    """Yield which sizes might become which other: two of them one that holds both, one dense."""
    windows = sorted(size for size in sizes if size is not None)
    for a, b in combinations(windows, 2):
        yield {a, b}, (max(a[0], b[0]), max(a[1], b[1]))
    for size in windows if dense else ():
        yield {size}, None


def _moved(windows: list[Window], these: set[Window], becomes: Window) -> list[Window]:
    return [becomes if size in these else size for size in windows]


def _rounded(size: Pair, most: Pair) -> Pair:
    """Round both sides up."""
    return _side(size[0], most[0]), _side(size[1], most[1])


def _side(size: int, most: int) -> int:
    """Return the least of 8, 12, 16, 24, 32, 48 … that is no smaller, at most `most`."""
    power = max(LEAST_SIDE, 1 << (int(size) - 1).bit_length())
    between = power * 3 // 4
    return min(between if size <= between and power > LEAST_SIDE else power, most)
