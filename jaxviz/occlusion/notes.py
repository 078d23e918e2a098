"""What looks wrong in a result: a sentence each, on what to check. Nothing is refused."""

from collections.abc import Mapping

import numpy as np

FEW = 3  # images of which it means nothing that all get one class
SAME = 1e-7  # of the largest score: what rounding makes


def notes_on(scores: np.ndarray, base: np.ndarray, config: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to check of a result.

    Args:
        scores: (N, *positions, K), NaN where nothing was computed.
        base: (N, K).
        config: of the run; "images" is their range as "LOW to HIGH", "white" what white is to the
            model.

    Returns:
        Sentences, none if nothing stands out.

    Example:
        >>> notes_on(np.ones((1, 4, 4, 2)), np.ones((1, 2)), {})[0]
        'no position changes any score: check the fill, the patch and the units of the images.'
    """
    if base.ndim != 2 or not np.isfinite(base).any():
        return ()
    return tuple(filter(None, (_of_units(config), _of_scores(scores, base), _of_classes(base))))


def _of_units(config: Mapping[str, str]) -> str | None:
    low, _, high = config.get("images", "").partition(" to ")
    white = float(config.get("white", 1))
    if not high or white < 100 or float(low) < 0 or float(high) > 1.5:
        return None
    return (
        f"the images lie in {low}…{high}, but the model's first layer takes white as {white:g}:"
        " give bytes, `jaxviz.images.preprocess(photo, model)` or --preprocess model."
    )


def _of_scores(scores: np.ndarray, base: np.ndarray) -> str | None:
    """Of scores that are zero, that no image changes, or that no position changes."""
    if not base.any() and not np.nan_to_num(scores).any():
        return (
            "no score is other than 0: the map is empty; check the weights and the layer that is"
            " scored."
        )
    between = base.reshape(len(base), *[1] * (scores.ndim - 2), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(scores - between)
        least = SAME * np.nanmax(np.abs(base))
    if np.nan_to_num(change).max() > least:
        return None
    if len(base) > 1 and np.nan_to_num(np.abs(base - base[:1])).max() <= least:
        return "the scores are constant, whatever the image: check the units of the images."
    return "no position changes any score: check the fill, the patch and the units of the images."


def _of_classes(base: np.ndarray) -> str | None:
    if len(base) <= FEW or base.shape[1] < 2 or np.isnan(base).any():
        return None
    classes = np.unique(base.argmax(-1))
    if len(classes) > 1:
        return None
    return (
        f"all {len(base)} images get class {classes[0]}: if they should not, check the units of the"
        " images and the order of the channels."
    )
