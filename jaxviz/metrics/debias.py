"""ROAD: remove and debias, curves whose removed pixels are made from their neighbours."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

from jaxviz.layers import ScorerLike
from jaxviz.metrics.curves import Ranked, static
from jaxviz.metrics.maps import Maps, as_given
from jaxviz.metrics.parts import By
from jaxviz.metrics.run import Run
from jaxviz.perturbation.impute import neighbours
from jaxviz.perturbation.ranked import LEAST_FIRST, MOST_FIRST
from jaxviz.progress import Progress
from jaxviz.scoring.targets import Target

TENTHS = 10


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, eq=False)
class Road:
    """The target's scores with 10 to 90 % of the parts made from their neighbours. A pytree.

    Attributes:
        least_first: float64 (N, 9), the least important parts removed; (9,) for a single image.
        most_first: the same with the most important ones removed.
        fraction: 0.1 … 0.9, (9,).
        config: how it was made, as (name, value) pairs of strings.
    """

    least_first: np.ndarray
    most_first: np.ndarray
    fraction: np.ndarray
    config: tuple[tuple[str, str], ...] = field(default=(), metadata=static)

    @property
    def value(self) -> np.ndarray:
        """(least first − most first) / 2, the mean over fractions, (N,); large is good."""
        return (self.least_first - self.most_first).mean(-1) / 2

    def __repr__(self) -> str:
        count = 1 if self.most_first.ndim == 1 else len(self.most_first)
        images = f"{count} image{'s' * (count != 1)}"
        return f"Road({images}, value {np.mean(self.value):.4g}{' on average' * (count > 1)})"


def road(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    maps: Maps,
    *,
    target: Target = None,
    by: By = None,
    noise: float = 0.01,
    iterations: int = 40,
    key: jax.Array | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
) -> Road:
    """Remove 10, 20, … 90 % of the parts by making them from their neighbours, in both orders.

    value = mean over the fractions of (s with the least important removed − s with the most) / 2.

    Args:
        f: scorer, see `deletion`.
        images: see `deletion`.
        maps: see `deletion`.
        target: see `deletion`.
        by: see `deletion`.
        noise: of what is put in, see `neighbours`.
        iterations: see `neighbours`.
        key: random key, of the noise and for the order of parts of equal value; None: the noise of
            `jax.random.key(0)`, and by number.
        batch_size: see `deletion`.
        memory: see `deletion`.
        mesh: see `deletion`.
        progress: see `deletion`.

    Returns:
        The scores of both orders and `value` (N,).

    Raises:
        ValueError: an argument breaks its rule, or a map holds NaN.

    Example:
        >>> image = np.zeros((8, 8, 1), np.float32)
        >>> image[3:5, 3:5] = 1
        >>> road(lambda x: x.max((1, 2)), image, image[..., 0]).value.item() > 0.3
        True

    Source: Y. Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods,
    2022, arXiv:2202.00449.
    """
    fill = neighbours(noise=noise, iterations=iterations, key=key)
    ranked = Ranked(f, images, maps, target, TENTHS, fill, by, key)
    run = Run(batch_size, memory, mesh, progress)
    scores, _ = ranked.scores([(LEAST_FIRST, 0), (MOST_FIRST, 0)], range(1, TENTHS), run)
    least, most = (as_given(scores[:, i], ranked.given.single) for i in (0, 1))
    return Road(least, most, np.arange(1, TENTHS) / TENTHS, ranked.config)
