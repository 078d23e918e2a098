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
from jaxviz.climb import Maximized, NotFiniteError
from jaxviz.incremental import explain, incremental
from jaxviz.maximize import maximize
from jaxviz.occlusion import occlude, occlude_segments, occlusion_scores
from jaxviz.result import Occlusion

if TYPE_CHECKING:
    from jaxviz import datasets as datasets
    from jaxviz import keras_vis as keras_vis
    from jaxviz import models as models
    from jaxviz import plot as plot
    from jaxviz.keras import (
        KerasFileError,
        convert_keras,
        from_keras,
        inspect_keras,
        load_keras,
        load_weights,
        logits,
        summary,
        to_linen_params,
        verify_keras,
    )
    from jaxviz.keras_vis import visualize_activation, visualize_cam, visualize_saliency
    from jaxviz.scale.dataset import occlude_dataset
    from jaxviz.scale.estimate import estimate
    from jaxviz.scale.reader import open_store
    from jaxviz.storage import load_occlusion
    from jaxviz.strip import save_strip

_LAZY = {
    "KerasFileError": "jaxviz.keras",
    "convert_keras": "jaxviz.keras",
    "datasets": "jaxviz.datasets",
    "estimate": "jaxviz.scale.estimate",
    "from_keras": "jaxviz.keras",
    "inspect_keras": "jaxviz.keras",
    "keras_vis": "jaxviz.keras_vis",
    "load_keras": "jaxviz.keras",
    "load_occlusion": "jaxviz.storage",
    "load_weights": "jaxviz.keras",
    "models": "jaxviz.models",
    "logits": "jaxviz.keras",
    "occlude_dataset": "jaxviz.scale.dataset",
    "open_store": "jaxviz.scale.reader",
    "plot": "jaxviz.plot",
    "save_strip": "jaxviz.strip",
    "summary": "jaxviz.keras",
    "to_linen_params": "jaxviz.keras",
    "verify_keras": "jaxviz.keras",
    "visualize_activation": "jaxviz.keras_vis",
    "visualize_cam": "jaxviz.keras_vis",
    "visualize_saliency": "jaxviz.keras_vis",
}

__all__ = [
    "KerasFileError",
    "Maximized",
    "NotFiniteError",
    "Occlusion",
    "activations",
    "convert_keras",
    "datasets",
    "estimate",
    "explain",
    "fills",
    "from_keras",
    "incremental",
    "inspect_keras",
    "keras_vis",
    "load_keras",
    "load_occlusion",
    "load_weights",
    "logits",
    "maximize",
    "models",
    "objectives",
    "occlude",
    "occlude_dataset",
    "occlude_segments",
    "occlusion_scores",
    "open_store",
    "parametrize",
    "plot",
    "presets",
    "regularize",
    "save_strip",
    "summary",
    "tag",
    "to_linen_params",
    "transforms",
    "verify_keras",
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
