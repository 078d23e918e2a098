"""Whether a scorer treats every image alike: by itself, and without chance.

What everything here rests on: scores of many changed images are computed in batches, and only what
a patch reaches is computed again. A batch normalisation in training mode makes an image depend on
its neighbours, a dropout on its place in the batch.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.walk import SIDE_EFFECTS, Flat, run, trace
from jaxviz.scoring.scorer import Scorer, SplitScorer, TrainingError, split, trained_told

# Rows of one program sum in much the same order, so what differs more than this share of the
# scores, or than four times the rounding of their dtype, is no rounding.
SHARE, ROUNDINGS = 1e-3, 4
# What the scorer prints is not what it was asked for here.
SILENT = {name: lambda equation, inputs: [] for name in SIDE_EFFECTS if "debug" in name}
_passed = Cache[bool](1 << 16, lambda _: 1 << 8)


def check_independence(f: Scorer | SplitScorer, image: jax.Array | np.ndarray) -> None:
    """Raise ValueError unless a scorer scores every image by itself, and equal images alike.

    It is run on two batches of three: the image twice and another one, and two others and the
    image. All three rows of the image must come out the same. What has passed once is known again
    by its content, and not run again. Within `jit`, `vmap` or `grad` there are no values to
    compare, and nothing is checked.

    Args:
        f: a scorer, or what `split` made of it; of its outputs those count that have a row per
            image.
        image: (H, W, C), or (N, H, W, C), of which the first is taken.

    Raises:
        ValueError: the scores depend on the other images of a batch, or on chance.

    Example:
        >>> check_independence(lambda images: images.mean((1, 2)), np.eye(3)[..., None])
    """
    scorer = f if isinstance(f, SplitScorer) else split(f)
    if any(isinstance(x, jax.core.Tracer) for x in (*scorer.arrays, image)):
        return
    batches = _batches(np.asarray(image[0] if image.ndim == 4 else image))

    def outputs(arrays: Sequence[jax.Array], images: jax.Array) -> Any:
        with trained_told():
            return scorer.call.skeleton.fill(arrays)(images)

    try:
        _, flat, captured, _ = trace(outputs, scorer.arrays, batches[0], open_derivatives=True)
    except TrainingError:
        raise
    except (TypeError, ValueError):  # one that takes single images only mixes none
        return
    if any(isinstance(x, jax.core.Tracer) for x in captured):
        return

    def compare() -> bool:
        _compare(flat, [captured, [*scorer.arrays]], batches)
        return True

    try:
        _passed.get((content(flat), settings()), compare)
    except UnknownContentError:  # a callback, which may be another one each time
        compare()


def _batches(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the batches [x, x, y] and [y, z, x] of an image x and two that are unlike it."""
    # y = low + high − x, upside down, and z is half as bright; of a single colour, two others. With
    # one other image alone, two of x and one of y would have the deviation of one and two.
    wide = image.astype(np.float64)
    low, high = wide.min(), wide.max()
    apart = 0 if low < high else -1 if high > 0 else 1
    negative, faint = low + high - wide[::-1, ::-1] + apart, (wide[::-1] + low) / 2 + 3 * apart
    y, z = negative.astype(image.dtype), faint.astype(image.dtype)
    return np.stack([image, image, y]), np.stack([y, z, image])


def _compare(flat: Flat, arrays: list[list[Any]], batches: tuple[np.ndarray, np.ndarray]) -> None:
    @jax.jit
    def score(arrays: list[list[Any]], images: jax.Array) -> list[Any]:
        values, own = arrays
        return run(flat, values, [*own, images], SILENT)

    for two, one in zip(*(score(arrays, batch) for batch in batches), strict=True):
        if np.shape(two)[:1] != (3,) or not jnp.issubdtype(two.dtype, jnp.number):
            continue
        first, again, among = np.asarray(two)[0], np.asarray(two)[1], np.asarray(one)[2]
        _check_alike(first, again, "equal images of one batch")
        _check_alike(first, among, "batches whose other images differ")


def _check_alike(first: np.ndarray, second: np.ndarray, between: str) -> None:
    inexact = jnp.issubdtype(first.dtype, jnp.inexact)
    share = max(SHARE, ROUNDINGS * float(jnp.finfo(first.dtype).eps)) if inexact else 0.0
    first, second = (x.astype(np.promote_types(x.dtype, np.float64)) for x in (first, second))
    size = np.max(np.abs(first), where=np.isfinite(first), initial=0)
    if np.allclose(first, second, rtol=0, atol=share * size, equal_nan=True):
        return
    with np.errstate(invalid="ignore"):
        change = np.nanmax(np.abs(first - second), initial=0)
    raise ValueError(
        "`f` must score every image by itself and equal images alike: got scores that differ by"
        f" {change:.3g} between {between}, as a batch normalisation or a dropout in training mode"
        " makes them; call `model.eval()`, or pass `train=False` or `deterministic=True`."
    )
