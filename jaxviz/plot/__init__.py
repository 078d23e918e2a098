"""Pictures of what the other modules compute: every function returns a Figure and shows nothing.

An image is (height, width), or (height, width, channel) with 1 or 3 channels; a batch has one axis
more in front. Bytes are read as 0…255; floats as 0…1 when they lie there, else as 0…255 when they
lie there, else from the least to the greatest value of the batch. An image must be finite.

A map is (height, width), or (batch, height, width). All maps of one figure share one scale:
diverging and centred on zero when signed, sequential when not. NaN in a map means "no value" and is
drawn grey; infinity is drawn as the strongest value. pyplot is never touched, so no state leaks and
no window opens.
"""

from jaxviz.plot._activations import activations
from jaxviz.plot._architecture import Drawing, architecture
from jaxviz.plot._compare import compare
from jaxviz.plot._heatmaps import gallery, heatmap, occlusion, occlusion_png, overlay
from jaxviz.plot._kernels import kernels
from jaxviz.plot._metrics import curves, table

__all__ = [
    "Drawing",
    "activations",
    "architecture",
    "compare",
    "curves",
    "gallery",
    "heatmap",
    "kernels",
    "occlusion",
    "occlusion_png",
    "overlay",
    "table",
]
