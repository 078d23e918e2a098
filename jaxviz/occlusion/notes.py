"""What looks wrong in a result: a sentence each, on what to check. Nothing is refused."""

from collections.abc import Mapping

import numpy as np

FEW = 3  # images of which it means nothing that all get one class
BEYOND = 0.5  # of the range of units that a model takes: what may be noise, or brighter than white
SAME = 1e-7  # of the largest score: what rounding makes


def notes_on(scores: np.ndarray, base: np.ndarray, config: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to check of a result.

    Args:
        scores: (N, *positions, K), NaN where nothing was computed.
        base: (N, K).
        config: of the run; "images" is their range as "LOW to HIGH", "takes" that of pictures in
            the model's own units, if it says them.

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
    """Of images in [0, 1] where bytes are taken, or far beyond what is taken."""
    if "images" not in config or "takes" not in config:
        return None
    low, high, black, white = (
        float(end) for name in ("images", "takes") for end in config[name].split(" to ")
    )
    faint = white >= 100 and low >= 0 and high <= 1.5
    beyond = max(black - low, high - white) > BEYOND * (white - black)
    if not faint and not beyond:
        return None
    return (
        f"the images lie in {low:g}…{high:g}, but the model takes pictures in {black:g}…{white:g}:"
        " give `jaxviz.images.preprocess(photo, model)` or --preprocess model."
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
