"""Measure several maps of the same images by several metrics."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.ndimage import sobel

from jaxviz.jaxpr.keys import generator
from jaxviz.layers import ScorerLike
from jaxviz.metrics import curves, debias, fidelity, localization, robustness, shape
from jaxviz.metrics.comparison import Comparison
from jaxviz.metrics.maps import Maps
from jaxviz.scoring.arguments import checked_images
from jaxviz.scoring.targets import Target

Metric = str | Callable[..., Any]

# What is good of each metric that can be named; "" is a matter of taste.
BETTER = {
    "srg": "up",
    "deletion": "down",
    "insertion": "up",
    "road": "up",
    "mu_fidelity": "up",
    "sensitivity_n": "up",
    "infidelity": "down",
    "pointing_game": "up",
    "energy_pointing_game": "up",
    "sparseness": "",
    "complexity": "",
}
_ROOMS = (curves, debias, fidelity, robustness, localization, shape)
NAMED: dict[str, Callable[..., Any]] = {
    name: next(getattr(room, name) for room in _ROOMS if hasattr(room, name)) for name in BETTER
}


def compare(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Mapping[str, Maps],
    *,
    metrics: Sequence[Metric] | Mapping[str, Metric] = ("srg", "insertion", "mu_fidelity"),
    target: Target = None,
    masks: Any = None,
    seed: int = 0,
) -> Comparison:
    """Measure every map by every metric, image by image.

    Each metric is called by the names of its arguments: of `f`, `images`, `maps`, `values`,
    `target`, `masks` and `key` it gets those it has. All maps meet the same images, masks and
    noise, so that their differences can be taken image by image.

    Args:
        f: scorer, see `jaxviz.occlude`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        maps: {name: maps (N, H, W) or a result}; `floors` makes two that nothing should fall below.
        metrics: names of functions of this module, but for `max_sensitivity`, `randomization` and
            `random_logit`, which run a method anew; or functions, such as
            `functools.partial(jaxviz.metrics.srg, fill=0.0)`; or {name: either}. What a function
            returns is an area or gain (N,), or (N, …), of which the mean counts.
        target: whose maps and scores they are; a result that holds several is asked for it.
        masks: of the objects, for the pointing games.
        seed: of `jax.random.key`, for every metric that takes a key.

    Returns:
        The table: means, standard errors, counts, paired differences.

    Raises:
        ValueError: there is nothing to compare, a metric is unknown, or lacks an argument.

    Example:
        >>> images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
        >>> maps = {"pixels": images[..., 0], "negative": -images[..., 0]}
        >>> table = compare(lambda x: x.sum((1, 2)), images, maps, metrics=["srg"])
        >>> table.difference("pixels", "negative", "srg").low > 0
        True
    """
    pixels, single = checked_images(images, f)
    chosen = chosen_metrics(metrics)
    if not isinstance(maps, Mapping):
        raise TypeError(f"`maps` must be a dictionary, name -> maps: got a {type(maps).__name__}.")
    if not maps or not chosen:
        raise ValueError("`maps` and `metrics` must each name at least one: got none.")
    common = {"f": f, "images": images, "target": target, "masks": masks}
    values = np.full((len(maps), len(chosen), len(pixels)), np.nan)
    for i, given in enumerate(maps.values()):
        for j, (name, metric) in enumerate(chosen.items()):
            own = {**common, "maps": given, "values": given, "key": jax.random.key(seed)}
            values[i, j] = _numbers(_call(name, metric, own), name, len(pixels), single)
    better = tuple(map(better_of, chosen.values()))
    settings = tuple((name, _describe(metric)) for name, metric in chosen.items())
    return Comparison(values, tuple(maps), tuple(chosen), better, seed, settings)


def chosen_metrics(
    metrics: Sequence[Metric] | Mapping[str, Metric],
) -> dict[str, Callable[..., Any]]:
    """Return the metrics that `compare` is told, by their names.

    Raises:
        ValueError: one is unknown, or two have one name.
    """
    if isinstance(metrics, Mapping):
        return {name: _known(metric) for name, metric in metrics.items()}
    found = [(m if isinstance(m, str) else _name(m), _known(m)) for m in metrics]
    if len({name for name, _ in found}) < len(found):
        names = [name for name, _ in found]
        raise ValueError(
            f"`metrics` must have different names: got {names}; give {{name: metric}}."
        )
    return dict(found)


def _known(metric: Metric) -> Callable[..., Any]:
    if not isinstance(metric, str):
        return metric
    if metric not in NAMED:
        raise ValueError(f"`metrics` must be functions, or of {', '.join(NAMED)}: got {metric!r}.")
    return NAMED[metric]


def better_of(metric: Any) -> str:
    """Return what is good of a metric: "up", "down", or "" where nothing is known."""
    return BETTER.get(_name(metric), "")


def _name(metric: Any) -> str:
    while isinstance(metric, partial):
        metric = metric.func
    return getattr(metric, "__name__", type(metric).__name__)


def _describe(metric: Any) -> str:
    options = metric.keywords if isinstance(metric, partial) else {}
    said = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{_name(metric)}({said})"


def _call(name: str, metric: Callable[..., Any], own: dict[str, Any]) -> Any:
    bound = metric.keywords if isinstance(metric, partial) else {}
    wanted = inspect.signature(metric).parameters
    given = {k: own[k] for k in wanted if k in own and k not in bound and own[k] is not None}
    lacking = [
        k for k, p in wanted.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and k not in given
    ]  # fmt: skip
    if lacking:
        raise ValueError(f"`metrics`: {name} needs `{lacking[0]}`, which `compare` was not given.")
    return metric(**given)


def _numbers(result: Any, name: str, count: int, single: bool) -> np.ndarray:
    for attribute in ("value", "auc"):
        result = getattr(result, attribute, result)
    array = np.asarray(result, np.float64)
    array = array[None] if single else array
    if array.ndim == 0 or len(array) != count:
        raise ValueError(
            f"`metrics`: {name} must give one number per image, ({count},): got {array.shape}."
        )
    return array.reshape(count, -1).mean(-1)


def floors(
    images: jax.Array | np.ndarray, *, key: jax.Array | None = None
) -> dict[str, np.ndarray]:
    """Maps that know nothing of any scorer, as a floor: random numbers, and an edge detector.

    Args:
        images: (N, H, W, C), or (H, W, C) for a single image.
        key: random key; None: `jax.random.key(0)`.

    Returns:
        {"random": uniform in [0, 1), "edges": the Sobel gradient's length of the mean over
        channels}, float64 (N, H, W), or (H, W) for a single image.

    Example:
        >>> {name: maps.shape for name, maps in floors(np.ones((2, 4, 5, 3))).items()}
        {'random': (2, 4, 5), 'edges': (2, 4, 5)}
    """
    pixels, single = checked_images(images)
    grey = pixels.astype(np.float64).mean(-1)
    edges = np.hypot(sobel(grey, 1), sobel(grey, 2))
    both = {"random": generator(key).random(grey.shape), "edges": edges}
    return {name: maps[0] if single else maps for name, maps in both.items()}
