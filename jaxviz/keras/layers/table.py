"""The table of converters: which layer classes are known, and how each is read."""

from collections.abc import Mapping

from jaxviz.keras import (
    layers_activation,
    layers_attention,
    layers_conv,
    layers_conv_special,
    layers_image,
    layers_merge,
    layers_noise,
    layers_norm,
    layers_pool,
    layers_shape,
    operators,
)
from jaxviz.keras.converter import Converter

TABLE: Mapping[str, Converter] = {
    **layers_activation.TABLE,
    **layers_attention.TABLE,
    **layers_conv.TABLE,
    **layers_conv_special.TABLE,
    **layers_image.TABLE,
    **layers_merge.TABLE,
    **layers_noise.TABLE,
    **layers_norm.TABLE,
    **layers_pool.TABLE,
    **layers_shape.TABLE,
    **operators.TABLE,
}
