"""How much each part of an image speaks for a score: gradients, class activation maps.

Each method is one function `(f, images, *, target=None, …)` that returns an `Attribution`; on
traced images it is the bare kernel. Every convention is stated in docs/attribution.md.
"""

from jaxviz.attribution.deep_lift import deep_lift
from jaxviz.attribution.gradients import deconvnet, guided, input_x_gradient, saliency
from jaxviz.attribution.integrated import integrated_gradients
from jaxviz.attribution.smoothing import smooth

__all__ = [
    "deconvnet",
    "deep_lift",
    "guided",
    "input_x_gradient",
    "integrated_gradients",
    "saliency",
    "smooth",
]
