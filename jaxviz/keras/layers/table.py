"""The table of converters: which layer classes are known, and how each is read."""

from collections.abc import Mapping

from jaxviz.keras.layers import (
    activation,
    attention,
    conv,
    conv_transposed,
    image,
    merge,
    noise,
    norm,
    operators,
    pool,
    shape,
    wrappers,
)
from jaxviz.keras.layers.converter import Converter

TABLE: Mapping[str, Converter] = {
    **activation.TABLE,
    **attention.TABLE,
    **conv.TABLE,
    **conv_transposed.TABLE,
    **image.TABLE,
    **merge.TABLE,
    **noise.TABLE,
    **norm.TABLE,
    **pool.TABLE,
    **shape.TABLE,
    **operators.TABLE,
    **wrappers.TABLE,
}
