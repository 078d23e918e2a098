"""The table of converters: which layer classes are known, and how each is read."""

from collections.abc import Mapping

from jaxviz.keras import (
    layers_activation,
    layers_conv,
    layers_merge,
    layers_norm,
    layers_pool,
    layers_shape,
)
from jaxviz.keras.converter import Converter

TABLE: Mapping[str, Converter] = {
    **layers_activation.TABLE,
    **layers_conv.TABLE,
    **layers_merge.TABLE,
    **layers_norm.TABLE,
    **layers_pool.TABLE,
    **layers_shape.TABLE,
}
