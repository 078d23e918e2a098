"""Pictures of what the other modules compute: every function returns a Figure and shows nothing.

An image is (height, width), or (height, width, channel); a batch has one axis more in front. Two
channels are drawn in orange and blue, the first three of four as red, green and blue, and of more
the three main directions in which they vary; the picture says so. Bytes are read as 0…255; floats
as 0…1 when they lie there, else as 0…255 when they lie there, else from the least to the greatest
value of the batch. An image must be finite.

A map is (height, width), or (batch, height, width). All maps of one figure share one scale unless
each is given its own, and the figure says which: diverging and centred on zero when signed,
sequential when not. A map that shows nothing, because it has one value, says that. NaN in a map
means "no value" and is drawn grey, infinity lies at the ends of the scale. pyplot is never touched,
so no state leaks and no window opens.
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
