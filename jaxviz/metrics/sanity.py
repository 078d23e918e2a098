"""Whether a map depends on what the network has learnt: it should change when that is destroyed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import jax
import numpy as np

from jaxviz._choices import Randomized
from jaxviz.jaxpr.keys import checked_key, generator
from jaxviz.metrics.maps import Maps, as_given
from jaxviz.metrics.robustness import made
from jaxviz.metrics.similarity import similarities
from jaxviz.metrics.weights import Weights, weights_of
from jaxviz.scoring.arguments import checked_images

Attribute = Callable[[Any, np.ndarray], Maps]


@dataclass(frozen=True, repr=False, eq=False)
class Randomization:
    """How alike the maps of a model and of its randomised copies are.

    Attributes:
        layers: names, from the last one that the scores read to the first; with "cascading", row i
            has the layers up to this one randomised, with "independent" this one alone.
        similarity: {"ssim", "spearman", "cosine": float64 (layers, N)}; (layers,) for a single
            image. The clean model, whose map is like itself, is no row.
        order: "cascading" or "independent".
    """

    layers: tuple[str, ...]
    similarity: Mapping[str, np.ndarray]
    order: str = field(default="cascading")

    @property
    def value(self) -> np.ndarray:
        """Spearman's ρ, the mean over layers, (N,): small is good; () for a single image.

        NaN where a destroyed layer leaves a constant map, as a network does whose units all die.
        """
        return self.similarity["spearman"].mean(0)

    def plot(self, *, title: str = "") -> Any:
        """Draw each similarity over the layers.

        Args:
            title: of the figure.

        Returns:
            A matplotlib Figure.
        """
        from jaxviz.plot._metrics import layers

        return layers(self.layers, self.similarity, title=title)

    def __repr__(self) -> str:
        lines = [f"Randomization({self.order})"]
        width = max(map(len, self.layers))
        for i, name in enumerate(self.layers):
            said = ", ".join(f"{k} {_mean(np.ravel(v[i]))}" for k, v in self.similarity.items())
            lines.append(f"  {name.ljust(width)}  {said}")
        return "\n".join(lines)


def _mean(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "undefined"
    return f"{known.mean():.3f}" + f" (n = {len(known)})" * (len(known) < len(values))


def randomization(
    attribute: Attribute,
    model: Any,
    images: jax.Array | np.ndarray,
    *,
    order: Randomized = "cascading",
    layers: Sequence[str] | None = None,
    magnitudes: bool = False,
    key: jax.Array | None = None,
) -> Randomization:
    """Destroy the weights layer by layer from the top, and see whether the map changes: MPRT.

    A layer is randomised by putting the numbers of each of its arrays in random order, by the
    layer's own key: their distribution stays, what was learnt goes. It is the same random layer in
    every row of a cascade.

    Args:
        attribute: (model, images (N, H, W, C)) -> maps (N, H', W'), or a result. Name the target,
            which is another one for a randomised model: `lambda model, images:
            jv.attribution.saliency(model, images, target=classes)`.
        model: an `nnx.Module`, a model of `load_keras`, (Linen module, variables), or any pytree
            that can be called on images.
        images: (N, H, W, C), or (H, W, C) for a single image; `attribute` is given a batch.
        order: "cascading", all layers from the top down to each; "independent", each alone.
        layers: which are randomised, by name; None: all.
        magnitudes: compare |map|, for methods whose sign means nothing.
        key: random key; None: `jax.random.key(0)`.

    Returns:
        SSIM, Spearman's ρ and the cosine of the maps of each randomised model and the clean one;
        near 0 is good. NaN where a map is constant.

    Raises:
        ValueError: a layer is unknown, or the model holds no weights.

    Example:
        >>> from jax.tree_util import Partial
        >>> f = Partial(lambda w, x: x.sum((1, 2)) @ w, np.arange(12.0).reshape(3, 4))
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3))
        >>> randomization(lambda f, x: x.sum(-1), f, images).value.round(6).tolist()
        [1.0, 1.0]

    Source: J. Adebayo et al., Sanity Checks for Saliency Maps, 2018, arXiv:1810.03292; A. Binder et
    al., Shortcomings of Top-Down Randomization-Based Sanity Checks, 2023, arXiv:2211.12486.
    """
    if order not in get_args(Randomized):
        raise ValueError(f'`order` must be "cascading" or "independent": got {order!r}.')
    pixels, single = checked_images(images, model)
    weights = weights_of(model, jax.ShapeDtypeStruct((1, *pixels.shape[1:]), pixels.dtype))
    names = _chosen(weights, layers)
    key = checked_key(key)
    clean = _maps(attribute(model, pixels), pixels, magnitudes)
    rows, done = [], dict[int, Any]()
    for i, name in enumerate(names):
        if order == "cascading":
            destroyed = weights.shuffled(names[: i + 1], key, done)
        else:
            destroyed = weights.shuffled([name], key)
        other = _maps(attribute(destroyed, pixels), pixels, magnitudes)
        if other.shape != clean.shape:
            raise ValueError(
                f"`attribute` must make maps of one shape: got {clean.shape} and {other.shape}."
            )
        rows.append(similarities(clean, other))
    joined = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
    if single:
        joined = {k: v[:, 0] for k, v in joined.items()}
    return Randomization(tuple(names), joined, order)


def random_logit(
    attribute: Callable[[np.ndarray, np.ndarray], Maps],
    images: jax.Array | np.ndarray,
    *,
    target: int | Sequence[int] | np.ndarray,
    classes: int,
    magnitudes: bool = False,
    key: jax.Array | None = None,
) -> dict[str, np.ndarray]:
    """See whether the map of another class, drawn at random, is another map.

    Args:
        attribute: (images (N, H, W, C), targets int (N,)) -> maps (N, H', W'), or a result.
        images: (N, H, W, C), or (H, W, C) for a single image; `attribute` is given a batch.
        target: a class, or one per image.
        classes: how many classes there are, from 2.
        magnitudes: compare |map|.
        key: random key; None: `jax.random.key(0)`.

    Returns:
        {"ssim", "spearman", "cosine": float64 (N,)}, () for a single image; small is good. NaN
        where a map is constant.

    Raises:
        ValueError: `target` is no class.

    Example:
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3))
        >>> found = random_logit(lambda x, t: x.sum(-1), images, target=0, classes=3)
        >>> found["spearman"].round(6).tolist()  # it does not look at the class
        [1.0, 1.0]

    Source: L. Sixt, M. Granz and T. Landgraf, When Explanations Lie, 2020, arXiv:1912.09818.
    """
    pixels, single = checked_images(images)
    own = np.asarray(target)
    if own.dtype.kind not in "iu" or own.shape not in ((), (len(pixels),)):
        raise ValueError(f"`target` must be a class, or one per image: got {target!r}.")
    if classes < 2 or own.min() < 0 or own.max() >= classes:
        raise ValueError(f"`target` must lie in 0 … `classes` − 1 = {classes - 1}: got {target!r}.")
    own = np.broadcast_to(own, len(pixels)).astype(np.int32)
    # A step of 1 to classes − 1 around the circle of classes: each of the others alike.
    step = generator(key).integers(1, classes, len(pixels))
    other = ((own + step) % classes).astype(np.int32)
    pair = [_maps(attribute(pixels, at), pixels, magnitudes) for at in (own, other)]
    return {name: as_given(found, single) for name, found in similarities(*pair).items()}


def _maps(maps: Maps, pixels: np.ndarray, magnitudes: bool) -> np.ndarray:
    array = made(maps, pixels)
    return np.abs(array) if magnitudes else array


def _chosen(weights: Weights, layers: Sequence[str] | None) -> list[str]:
    names = list(weights.layers)[::-1]
    if layers is None:
        return names
    unknown = [name for name in layers if name not in names]
    if unknown or not layers:
        got = unknown[0] if unknown else "none"
        raise ValueError(f"`layers` must be some of {', '.join(names)}: got {got!r}.")
    return [name for name in names if name in layers]
