"""See what a convolutional network looks at: occlusion maps and class images, compiled by JAX.

Functions of arrays are imported at once; what reads files or draws pictures, on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxviz import fills as fills
from jaxviz import objectives as objectives
from jaxviz import parametrize as parametrize
from jaxviz import presets as presets
from jaxviz import regularize as regularize
from jaxviz import transforms as transforms
from jaxviz._version import __version__ as __version__
from jaxviz.activations import activations, tag
from jaxviz.incremental import explain, incremental
from jaxviz.maximize import maximize
from jaxviz.occlusion import occlude, occlude_segments, occlusion_scores
from jaxviz.result import Occlusion

if TYPE_CHECKING:
    from jaxviz import datasets as datasets
    from jaxviz import plot as plot
    from jaxviz.keras import load_keras, logits
    from jaxviz.keras_vis import visualize_activation, visualize_cam, visualize_saliency
    from jaxviz.storage import load_occlusion

_LAZY = {
    "datasets": "jaxviz.datasets",
    "load_keras": "jaxviz.keras",
    "load_occlusion": "jaxviz.storage",
    "logits": "jaxviz.keras",
    "plot": "jaxviz.plot",
    "visualize_activation": "jaxviz.keras_vis",
    "visualize_cam": "jaxviz.keras_vis",
    "visualize_saliency": "jaxviz.keras_vis",
}

__all__ = [
    "Occlusion",
    "activations",
    "datasets",
    "explain",
    "fills",
    "incremental",
    "load_keras",
    "load_occlusion",
    "logits",
    "maximize",
    "objectives",
    "occlude",
    "occlude_segments",
    "occlusion_scores",
    "parametrize",
    "plot",
    "presets",
    "regularize",
    "tag",
    "transforms",
    "visualize_activation",
    "visualize_cam",
    "visualize_saliency",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jaxviz' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if module.__name__ == f"jaxviz.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
