"""What an image is compared with: one baseline, or several that are averaged."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.perturbation.fill import Fill, FillLike, check_fill
from jaxviz.perturbation.fills import make_fill

BaselineLike = FillLike | Sequence[FillLike]


def make_baselines(baseline: BaselineLike) -> list[Fill]:
    """Return the fills that a baseline stands for.

    Args:
        baseline: what `fill` of `occlude` takes for a whole image: a number, one per channel, an
            image, "mean", one of `jaxviz.fills`; or several: images (B, H, W, C), or a list of
            these that is no list of numbers.

    Raises:
        ValueError: there is none, or one makes single patches only.
        TypeError: one is of the wrong kind.
    """
    fills = [_fill(each) for each in _several(baseline)]
    if not fills:
        raise ValueError("`baseline` must hold at least one: got an empty list.")
    for fill in fills:
        if not fill.whole:
            raise ValueError(
                f'`baseline` must be a whole image: "{fill.name}" makes single patches.'
            )
    return fills


def _several(baseline: Any) -> list[Any]:
    if isinstance(baseline, jax.Array | np.ndarray):
        return list(baseline) if baseline.ndim == 4 else [baseline]
    if not isinstance(baseline, list | tuple) or isinstance(baseline, Fill):
        return [baseline]
    numbers = bool(baseline) and all(isinstance(b, int | float | np.number) for b in baseline)
    return [baseline] if numbers else list(baseline)


def _fill(baseline: FillLike) -> Fill:
    try:
        return make_fill(baseline)
    except (ValueError, TypeError) as error:
        raise type(error)(str(error).replace("`fill`", "`baseline`")) from error


def backgrounds(fills: Sequence[Fill], image: jax.Array) -> jax.Array:
    """Return the baselines of an image (H, W, C), (B, H, W, C).

    Raises:
        ValueError: one has another shape.
    """
    for fill in fills:
        try:
            check_fill(fill, image[None])
        except ValueError as error:
            raise ValueError(str(error).replace("`fill`", "`baseline`")) from error
    return jnp.stack([fill.background(image) for fill in fills])


def describe(fills: Sequence[Fill]) -> str:
    """Return what the baselines are, for a record."""
    traced = [isinstance(fill.values, jax.core.Tracer) for fill in fills]
    return ", ".join(f.name if t else str(f) for f, t in zip(fills, traced, strict=True))
