"""What a form of a convolution takes: seconds of one image, from sizes alone.

Products and moved elements, each by a rate that was measured, float32, in batches of eight, on two
machines (`benchmarks/forms_of_a_convolution.py`); only their ratios matter for a choice. XLA's own
convolution changed between two versions of JAX, and so do its rates. What a form writes and reads
again runs faster while it stays in the cache. Each operation costs a little by itself: small
convolutions are left to XLA, which needs one.
"""

from math import inf, prod
from typing import NamedTuple

import jax

from jaxviz.jaxpr.convolution.shapes import Sizes

PRODUCTS_PER_SECOND = 2.1e11  # of XLA's matrix product, for many channels
GROUPED_PER_SECOND = 1e10
CHANNELS_AT_HALF_SPEED_OF_A_PRODUCT = 10
NARROW = 64  # channels: fewer, put side by side, are not moved faster
SECONDS_AN_OPERATION = 1e-6


class Rates(NamedTuple):
    """What XLA's own convolution does in a second, and what moving elements takes beside it.

    Attributes:
        whole: operations as it stands, for many channels and a small kernel.
        single: the share of that for kernels of one tap.
        higher: operations where the result is higher than the input, for many channels.
        half: channels at which they run at half of that.
        half_kernel: elements of a kernel at which it runs at half of `whole`.
        cached: how many elements stay in the cache.
        moving_cached: seconds for one of those, written and read again.
        copying: for an element of more, copied in order.
        along_width: likewise, in tiles of a row.
        along_both: likewise, in tiles of rows and columns.
        viewing: likewise, in the views of all taps side by side.
    """

    whole: float
    single: float
    higher: float
    half: int
    half_kernel: float
    cached: float
    moving_cached: float
    copying: float
    along_width: float
    along_both: float
    viewing: float


OLDER = Rates(1.1e11, 1.0, 2.0e11, 50, inf, 5e5, 5e-10, 6e-10, 6e-10, 1.8e-9, 1.8e-9)
NEWER = Rates(2.1e11, 0.6, 1.9e11, 4, 2e6, 1e6, 3e-10, 2.5e-9, 1.0e-9, 1.2e-9, 2.1e-9)
NEW = (0, 12)  # the version of JAX that brought them
RATES = NEWER if jax.__version_info__[:2] >= NEW else OLDER


def as_it_stands(sizes: Sizes) -> float:
    """Return the seconds of XLA's convolution."""
    if sizes.groups > 1:
        return sizes.operations / GROUPED_PER_SECOND
    if sizes.result[0] > sizes.image[0]:
        return sizes.operations / _higher_rate(sizes.channels) + SECONDS_AN_OPERATION
    outgrown = 1 + prod(sizes.kernel) * sizes.channels * sizes.features / RATES.half_kernel
    rate = _slowed(RATES.whole, sizes.channels, RATES.half) / outgrown
    if prod(sizes.kernel) == 1:
        rate *= RATES.single
    return sizes.operations / rate + SECONDS_AN_OPERATION


def higher(sizes: Sizes, rows: int) -> float:
    """Return the seconds of a convolution with so many rows more."""
    more = 1 + rows / sizes.result[0]
    operations = sizes.operations * more
    rate = _higher_rate(sizes.channels)
    moved = _moving(sizes.sites * sizes.features, RATES.copying) if rows else 0.0
    return operations / rate + moved + 2 * SECONDS_AN_OPERATION


def products(sizes: Sizes) -> float:
    """Return the seconds of the product of all shifted views."""
    taps = prod(sizes.kernel)
    elements = sizes.sites * taps * max(sizes.channels, NARROW)
    moved = _moving(elements, RATES.viewing) if taps > 1 else 0.0
    seconds = sizes.operations / _product_rate(taps * sizes.channels)
    return seconds + moved + (taps + 1) * SECONDS_AN_OPERATION


def grouped_products(sizes: Sizes) -> float:
    """Return the seconds of a product for each group."""
    taps = prod(sizes.kernel)
    depth = sizes.channels // sizes.groups
    moved = _moving(sizes.sites * taps * sizes.groups * max(depth, NARROW), RATES.viewing)
    moved += _moving(sizes.sites * sizes.features, RATES.copying)
    rate = _product_rate(taps * depth)
    return sizes.operations / rate + moved + (taps + 3) * SECONDS_AN_OPERATION


def tiles_along_width(sizes: Sizes, m: int) -> float:
    """Return the seconds of Winograd's tiles of m results along the width."""
    rows, columns = sizes.result
    elements = rows * -(-columns // m) * (m + 2)
    operations = 2 * 3 * elements * sizes.channels * sizes.features
    moved = sum(_moving(elements * n, RATES.along_width) for n in (sizes.channels, sizes.features))
    return operations / _higher_rate(sizes.channels) + moved + 4 * m * SECONDS_AN_OPERATION


def tiles_along_both(sizes: Sizes, m: int) -> float:
    """Return the seconds of Winograd's tiles of m × m results."""
    elements = prod(-(-n // m) for n in sizes.result) * (m + 2) ** 2
    operations = 2 * elements * sizes.channels * sizes.features
    moved = sum(_moving(elements * n, RATES.along_both) for n in (sizes.channels, sizes.features))
    count = 4 * (m + 2)
    return operations / _product_rate(sizes.channels) + moved + count * SECONDS_AN_OPERATION


def preparing(sizes: Sizes, elements: float) -> float:
    """Return the seconds of making so many elements of each of a kernel's."""
    kernel = prod(sizes.kernel) * sizes.channels * sizes.features
    return kernel * elements * RATES.viewing


def _higher_rate(channels: int) -> float:
    return _slowed(RATES.higher, channels, RATES.half)


def _product_rate(depth: int) -> float:
    return _slowed(PRODUCTS_PER_SECOND, depth, CHANNELS_AT_HALF_SPEED_OF_A_PRODUCT)


def _slowed(rate: float, channels: int, half: int) -> float:
    return rate * channels / (channels + half)


def _moving(elements: int, apart: float) -> float:
    """Return the seconds of writing and reading again so many elements, `apart` if uncached."""
    return elements * (RATES.moving_cached if elements <= RATES.cached else apart)
