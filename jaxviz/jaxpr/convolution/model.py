"""What a form of a convolution takes: seconds of one image, from sizes alone.

Products and moved elements, each by a rate that was measured on two cores of an AMD EPYC (Zen 5),
float32, in batches of eight; only their ratios matter for a choice. What a form writes and reads
again runs faster while it stays in the cache. Each operation costs a little by itself: small
convolutions are left to XLA, which needs one.
"""

from math import prod

from jaxviz.jaxpr.convolution.shapes import Sizes

PRODUCTS_PER_SECOND = 2.1e11  # of XLA's matrix product, for many channels
CONVOLVED_PER_SECOND = 2.0e11  # of XLA's convolution whose result is higher, for many channels
LOWER = 0.55  # of that, where the result is not higher
GROUPED_PER_SECOND = 1e10
CHANNELS_AT_HALF_SPEED = 50  # of the convolution; as the next
CHANNELS_AT_HALF_SPEED_OF_A_PRODUCT = 10
CACHED_ELEMENTS = 5e5
SECONDS_AN_ELEMENT_CACHED = 0.5e-9  # written and read again
SECONDS_AN_ELEMENT = 0.6e-9  # likewise, in the order in which it lies
SECONDS_AN_ELEMENT_APART = 1.8e-9  # likewise, where each is read for many results
NARROW = 64  # channels: fewer, put side by side, are not moved faster
SECONDS_AN_OPERATION = 1e-6


def as_it_stands(sizes: Sizes) -> float:
    """Return the seconds of XLA's convolution."""
    if sizes.groups > 1:
        return sizes.operations / GROUPED_PER_SECOND
    rate = _convolution_rate(sizes.channels)
    if sizes.result[0] <= sizes.image[0]:
        rate *= LOWER
    return sizes.operations / rate + SECONDS_AN_OPERATION


def higher(sizes: Sizes, rows: int) -> float:
    """Return the seconds of a convolution with so many rows more."""
    more = 1 + rows / sizes.result[0]
    operations = sizes.operations * more
    rate = _convolution_rate(sizes.channels)
    moved = _moving(sizes.sites, sizes.features) if rows else 0.0
    return operations / rate + moved + 2 * SECONDS_AN_OPERATION


def products(sizes: Sizes) -> float:
    """Return the seconds of the product of all shifted views."""
    taps = prod(sizes.kernel)
    moved = (
        _moving(sizes.sites * taps, max(sizes.channels, NARROW), apart=True) if taps > 1 else 0.0
    )
    seconds = sizes.operations / _product_rate(taps * sizes.channels)
    return seconds + moved + (taps + 1) * SECONDS_AN_OPERATION


def grouped_products(sizes: Sizes) -> float:
    """Return the seconds of a product for each group."""
    taps = prod(sizes.kernel)
    depth = sizes.channels // sizes.groups
    moved = _moving(sizes.sites * taps * sizes.groups, max(depth, NARROW), apart=True)
    moved += _moving(sizes.sites * sizes.groups, sizes.features // sizes.groups)
    rate = _product_rate(taps * depth)
    return sizes.operations / rate + moved + (taps + 3) * SECONDS_AN_OPERATION


def tiles_along_width(sizes: Sizes, m: int) -> float:
    """Return the seconds of Winograd's tiles of m results along the width."""
    rows, columns = sizes.result
    elements = rows * -(-columns // m) * (m + 2)
    operations = 2 * 3 * elements * sizes.channels * sizes.features
    moved = _moving(elements, sizes.channels) + _moving(elements, sizes.features)
    return operations / _convolution_rate(sizes.channels) + moved + 4 * m * SECONDS_AN_OPERATION


def tiles_along_both(sizes: Sizes, m: int) -> float:
    """Return the seconds of Winograd's tiles of m × m results."""
    elements = prod(-(-n // m) for n in sizes.result) * (m + 2) ** 2
    operations = 2 * elements * sizes.channels * sizes.features
    moved = _moving(elements, sizes.channels, apart=True)
    moved += _moving(elements, sizes.features, apart=True)
    count = 4 * (m + 2)
    return operations / _product_rate(sizes.channels) + moved + count * SECONDS_AN_OPERATION


def _convolution_rate(channels: int) -> float:
    return CONVOLVED_PER_SECOND * channels / (channels + CHANNELS_AT_HALF_SPEED)


def _product_rate(depth: int) -> float:
    return PRODUCTS_PER_SECOND * depth / (depth + CHANNELS_AT_HALF_SPEED_OF_A_PRODUCT)


def _moving(places: int, channels: int, *, apart: bool = False) -> float:
    """Return the seconds of writing and reading again so many places of so many channels."""
    elements = places * channels
    if elements <= CACHED_ELEMENTS:
        return elements * SECONDS_AN_ELEMENT_CACHED
    return elements * (SECONDS_AN_ELEMENT_APART if apart else SECONDS_AN_ELEMENT)
