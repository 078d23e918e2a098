"""See what a convolutional network looks at: occlusion maps and class images, compiled by JAX.

Every name is imported on first use, so that `jaxviz --version` and `--help` do not import JAX.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxviz._version import __version__ as __version__

if TYPE_CHECKING:
    from jaxviz import attribution as attribution
    from jaxviz import datasets as datasets
    from jaxviz import images as images
    from jaxviz import keras_vis as keras_vis
    from jaxviz import metrics as metrics
    from jaxviz import models as models
    from jaxviz import plot as plot
    from jaxviz import viewer as viewer
    from jaxviz._versions import show_versions
    from jaxviz.attribution.result import Attribution
    from jaxviz.images.filmstrip import save_strip
    from jaxviz.incremental import Plan, incremental
    from jaxviz.jaxpr.faster import faster_on_cpu
    from jaxviz.jaxpr.layout import channels_last
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
    from jaxviz.keras.model import KerasModel
    from jaxviz.keras_vis import visualize_activation, visualize_cam, visualize_saliency
    from jaxviz.layers import activations, tag
    from jaxviz.maximization import objectives as objectives
    from jaxviz.maximization import parametrize as parametrize
    from jaxviz.maximization import regularize as regularize
    from jaxviz.maximization import transforms as transforms
    from jaxviz.maximization.maximize import maximize
    from jaxviz.maximization.objective import Objective
    from jaxviz.maximization.result import Maximized, NotFiniteError
    from jaxviz.occlusion import presets as presets
    from jaxviz.occlusion.explain import explain
    from jaxviz.occlusion.kernel import occlusion_scores
    from jaxviz.occlusion.occlude import occlude
    from jaxviz.occlusion.presets import Preset
    from jaxviz.occlusion.reading import Reading
    from jaxviz.occlusion.result import Occlusion, load_occlusion
    from jaxviz.occlusion.segments import occlude_segments
    from jaxviz.perturbation import fills as fills
    from jaxviz.perturbation.grid import Grid
    from jaxviz.perturbation.segments import Segments, make_segments
    from jaxviz.saved import load
    from jaxviz.scale.attribute import attribute_dataset
    from jaxviz.scale.attributed import StoredAttribution, open_attribution
    from jaxviz.scale.dataset import occlude_dataset
    from jaxviz.scale.estimate import Estimate, estimate
    from jaxviz.scale.judge import judge_dataset
    from jaxviz.scale.judged import StoredComparison, open_comparison
    from jaxviz.scale.reader import StoredOcclusion, open_store
    from jaxviz.scoring.adapt import from_equinox, pick

_MODULES = {
    "attribution": "jaxviz.attribution",
    "datasets": "jaxviz.datasets",
    "fills": "jaxviz.perturbation.fills",
    "images": "jaxviz.images",
    "keras_vis": "jaxviz.keras_vis",
    "metrics": "jaxviz.metrics",
    "models": "jaxviz.models",
    "objectives": "jaxviz.maximization.objectives",
    "parametrize": "jaxviz.maximization.parametrize",
    "plot": "jaxviz.plot",
    "presets": "jaxviz.occlusion.presets",
    "regularize": "jaxviz.maximization.regularize",
    "transforms": "jaxviz.maximization.transforms",
    "viewer": "jaxviz.viewer",
}
_NAMES = {
    "Attribution": "jaxviz.attribution.result",
    "Estimate": "jaxviz.scale.estimate",
    "Grid": "jaxviz.perturbation.grid",
    "KerasFileError": "jaxviz.keras",
    "KerasModel": "jaxviz.keras.model",
    "Maximized": "jaxviz.maximization.result",
    "NotFiniteError": "jaxviz.maximization.result",
    "Objective": "jaxviz.maximization.objective",
    "Occlusion": "jaxviz.occlusion.result",
    "Plan": "jaxviz.incremental",
    "Preset": "jaxviz.occlusion.presets",
    "Reading": "jaxviz.occlusion.reading",
    "Segments": "jaxviz.perturbation.segments",
    "StoredAttribution": "jaxviz.scale.attributed",
    "StoredComparison": "jaxviz.scale.judged",
    "StoredOcclusion": "jaxviz.scale.reader",
    "activations": "jaxviz.layers",
    "attribute_dataset": "jaxviz.scale.attribute",
    "channels_last": "jaxviz.jaxpr.layout",
    "convert_keras": "jaxviz.keras",
    "estimate": "jaxviz.scale.estimate",
    "explain": "jaxviz.occlusion.explain",
    "faster_on_cpu": "jaxviz.jaxpr.faster",
    "from_equinox": "jaxviz.scoring.adapt",
    "from_keras": "jaxviz.keras",
    "incremental": "jaxviz.incremental",
    "inspect_keras": "jaxviz.keras",
    "judge_dataset": "jaxviz.scale.judge",
    "load": "jaxviz.saved",
    "load_keras": "jaxviz.keras",
    "load_occlusion": "jaxviz.occlusion.result",
    "load_weights": "jaxviz.keras",
    "logits": "jaxviz.keras",
    "make_segments": "jaxviz.perturbation.segments",
    "maximize": "jaxviz.maximization.maximize",
    "occlude": "jaxviz.occlusion.occlude",
    "occlude_dataset": "jaxviz.scale.dataset",
    "occlude_segments": "jaxviz.occlusion.segments",
    "occlusion_scores": "jaxviz.occlusion.kernel",
    "open_attribution": "jaxviz.scale.attributed",
    "open_comparison": "jaxviz.scale.judged",
    "open_store": "jaxviz.scale.reader",
    "pick": "jaxviz.scoring.adapt",
    "save_strip": "jaxviz.images.filmstrip",
    "show_versions": "jaxviz._versions",
    "summary": "jaxviz.keras",
    "tag": "jaxviz.layers",
    "to_linen_params": "jaxviz.keras",
    "verify_keras": "jaxviz.keras",
    "visualize_activation": "jaxviz.keras_vis",
    "visualize_cam": "jaxviz.keras_vis",
    "visualize_saliency": "jaxviz.keras_vis",
}

__all__ = [
    "Attribution",
    "Estimate",
    "Grid",
    "KerasFileError",
    "KerasModel",
    "Maximized",
    "NotFiniteError",
    "Objective",
    "Occlusion",
    "Plan",
    "Preset",
    "Reading",
    "Segments",
    "StoredAttribution",
    "StoredComparison",
    "StoredOcclusion",
    "activations",
    "attribute_dataset",
    "attribution",
    "channels_last",
    "convert_keras",
    "datasets",
    "estimate",
    "explain",
    "faster_on_cpu",
    "fills",
    "from_equinox",
    "from_keras",
    "images",
    "incremental",
    "inspect_keras",
    "judge_dataset",
    "keras_vis",
    "load",
    "load_keras",
    "load_occlusion",
    "load_weights",
    "logits",
    "make_segments",
    "maximize",
    "metrics",
    "models",
    "objectives",
    "occlude",
    "occlude_dataset",
    "occlude_segments",
    "occlusion_scores",
    "open_attribution",
    "open_comparison",
    "open_store",
    "parametrize",
    "pick",
    "plot",
    "presets",
    "regularize",
    "save_strip",
    "show_versions",
    "summary",
    "tag",
    "to_linen_params",
    "transforms",
    "verify_keras",
    "viewer",
    "visualize_activation",
    "visualize_cam",
    "visualize_saliency",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'jaxviz' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """Keeps `jv.incremental` the function: importing the package `jaxviz.incremental` sets it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
