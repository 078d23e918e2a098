"""The methods that --method names, as functions of a scorer and images."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any, get_args

import numpy as np

from jaxviz import attribution
from jaxviz._choices import MapMethod
from jaxviz.attribution.result import Attribution
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.result import Occlusion

Result = Attribution | Occlusion


def check_methods(methods: Sequence[str], layer: str | None) -> None:
    """Refuse a method that there is not, and a layer that none of them takes."""
    known = get_args(MapMethod)
    for method in methods:
        if method not in known:
            raise ValueError(f"`--method` must hold some of {', '.join(known)}: got {method!r}.")
    if layer is not None and not any(_takes_layer(method) for method in methods):
        raise ValueError("`--layer` is for class activation maps: give such a --method, or none.")


def method_of(name: str, layer: str | None) -> Callable[..., Result]:
    """Return the method of a name, of a layer if it takes one."""
    if name == "occlusion":
        return occlusion
    method = getattr(attribution, name)
    if layer is None or not _takes_layer(name):
        return method
    return partial(method, layer=int(layer) if layer.lstrip("-").isdigit() else layer)


def occlusion(
    f: Any,
    images: np.ndarray,
    *,
    target: Any = None,
    batch_size: Any = "auto",
    progress: Any = False,
) -> Occlusion:
    """Cover the images by a patch of a quarter of their smaller side."""
    patch = max(1, round(min(images.shape[1:3]) / 4))
    return occlude(
        f, images, patch=patch, stride=max(1, patch // 4), batch_size=batch_size, progress=progress
    )


def _takes_layer(method: str) -> bool:
    return method != "occlusion" and "layer" in signature(getattr(attribution, method)).parameters
