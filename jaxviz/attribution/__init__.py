"""How much each part of an image speaks for a score: gradients, class activation maps.

Each method is one function `(f, images, *, target=None, …)` that returns an `Attribution`; on
traced images it is the bare kernel. Every convention is stated in docs/attribution.md.
"""

from jaxviz.attribution import presets
from jaxviz.attribution.cam import grad_cam, grad_cam_pp, guided_grad_cam, xgrad_cam
from jaxviz.attribution.cam_scores import ablation_cam, score_cam
from jaxviz.attribution.cam_sites import eigen_cam, elementwise_cam, hires_cam, layer_cam
from jaxviz.attribution.deep_lift import deep_lift
from jaxviz.attribution.gradients import deconvnet, guided, input_x_gradient, saliency
from jaxviz.attribution.integrated import integrated_gradients
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.smoothing import smooth

__all__ = [
    "MapReading",
    "ablation_cam",
    "deconvnet",
    "deep_lift",
    "eigen_cam",
    "elementwise_cam",
    "grad_cam",
    "grad_cam_pp",
    "guided",
    "guided_grad_cam",
    "hires_cam",
    "input_x_gradient",
    "integrated_gradients",
    "layer_cam",
    "presets",
    "saliency",
    "score_cam",
    "smooth",
    "xgrad_cam",
]
