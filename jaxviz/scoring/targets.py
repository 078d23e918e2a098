"""From the scores of all classes to the one number per position that a heatmap shows.

Scores are arrays (N, ..., K): the leading axis is the images, the last one the classes. They may be
traced; then their values, and those of a traced target, are not checked.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxviz._choices import Score
from jaxviz.perturbation.traced import as_array, as_floats, is_traced, namespace

Target = (
    int
    | str
    | Sequence[int]
    | Sequence[str]
    | np.ndarray
    | Callable[[np.ndarray], np.ndarray]
    | None
)
# Of every position (N, *positions), and of the clean images (N,).
Picked = tuple[np.ndarray, np.ndarray]

NEAR_CERTAIN = 1e-7  # probabilities are held this far from 0 and 1 before their odds are taken


def by_name(target: Target, names: Sequence[str] | None) -> Target:
    """Return a target in which names of classes are their numbers; any other as it is.

    Args:
        target: a name, or a name for each image; upper and lower case, and "_" and " ", are alike.
        names: of the classes, in order; None: they have none.

    Raises:
        ValueError: no class is called so, which the message's nearest names may help with, or
            several are.

    Example:
        >>> by_name("Tabby", ["tench", "tabby"])
        1
    """
    if isinstance(target, str):
        return _number(target, names)
    if isinstance(target, list | tuple) and any(isinstance(one, str) for one in target):
        return [_number(one, names) if isinstance(one, str) else one for one in target]
    return target


def _number(name: str, names: Sequence[str] | None) -> int:
    if names is None:
        raise ValueError(
            f"`target` must be a number where classes have no names: got {name!r}; a model that has"
            " `class_names` gives them to its results."
        )
    plain = [_plain(known) for known in names]
    found = [number for number, known in enumerate(plain) if known == _plain(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"`target` must be one class: {name!r} is the name of {found}; give a number."
        )
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    near += [known for known in plain if _plain(name) in known and known not in near]
    nearest = ", ".join(f'"{names[plain.index(known)]}"' for known in near[:3])
    raise ValueError(
        f"`target` must be the name of a class: got {name!r};"
        f" {f'the nearest are {nearest}' if near else 'none is like it'}."
    )


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def class_names_of(
    f: Any, classes: int, given: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return the names of a scorer's classes: those given, or else its own if they fit.

    Args:
        f: a scorer, perhaps with `class_names`.
        classes: how many classes there are.
        given: names that must fit.

    Raises:
        ValueError: those given are more or fewer than the classes.

    Example:
        >>> class_names_of(None, 2, ["cat", "dog"])
        ('cat', 'dog')
    """
    fits = (1, 2) if classes == 1 else (classes,)  # one score: of the second of two classes
    if given is not None and len(given) not in fits:
        raise ValueError(f"`class_names` must name {classes} classes: got {len(given)} names.")
    names = getattr(f, "class_names", None) if given is None else given
    return tuple(map(str, names)) if names is not None and len(names) in fits else None


def select(scores: np.ndarray, base: np.ndarray, target: Target) -> Picked:
    """Pick the target's score out of all classes, for every position and for the clean images.

    Args:
        scores: (N, *positions, ..., K).
        base: (N, ..., K), the scores of the clean images.
        target: None, the class with the largest clean score, per image; an int, negative ones
            counted from the end; N ints, one per image; K floats or (N, K) numbers, weights of a
            sum over classes; or a function, scores (..., K) -> (...), that reduces all axes that
            follow the positions.

    Returns:
        (N, *positions) and (N,).

    Raises:
        ValueError: a class is out of range, or the target's shape does not suit the scores.
    """
    if callable(target):
        return _by_function(scores, base, target)
    if base.ndim != 2:
        raise ValueError(
            f"`target` must be a function for scores of shape {base.shape[1:]} per image: such as"
            " lambda scores: scores[..., 3].mean((-1, -2))."
        )
    numbers = _largest(base) if target is None else resolve(target, *base.shape)
    of = _of_classes if numbers.ndim == 1 else _of_weights
    return of(scores, base, numbers)


def resolve(target: Any, count: int, classes: int) -> np.ndarray:
    """Return the classes of the images, int (N,), or their weights, float64 (N, K).

    Args:
        target: a class, one per image, or weights, see `select`.
        count: how many images there are.
        classes: how many classes.

    Raises:
        ValueError: see `select`.
    """
    numbers = _as_array(target)
    if _are_weights(numbers, count, classes):
        return _weights(numbers, count, classes)
    return _classes(numbers, count, classes)


def _by_function(scores: np.ndarray, base: np.ndarray, target: Callable) -> Picked:
    """What a function makes of the axes behind the positions."""
    positions = scores.shape[: scores.ndim - base.ndim + 1]
    picked, clean = as_array(target(scores)), as_array(target(base))
    if picked.shape != positions or clean.shape != base.shape[:1]:
        raise ValueError(
            f"`target` must reduce scores of shape {scores.shape} to {positions}:"
            f" got {picked.shape}."
        )
    return picked, clean


def _of_classes(scores: np.ndarray, base: np.ndarray, classes: np.ndarray) -> Picked:
    """The scores of one class per image, (N,)."""
    xp = namespace(scores, classes)
    at = classes.reshape(-1, *[1] * (scores.ndim - 1))
    clean = xp.take_along_axis(base, classes[:, None], -1)[:, 0]
    return xp.take_along_axis(scores, xp.broadcast_to(at, (*scores.shape[:-1], 1)), -1)[
        ..., 0
    ], clean


def _of_weights(scores: np.ndarray, base: np.ndarray, weights: np.ndarray) -> Picked:
    """Weighted sums over the classes, with weights (N, K)."""
    return _weighted(scores, weights), _weighted(base, weights)


def _largest(base: np.ndarray) -> np.ndarray:
    """The class with the largest clean score of each image; NaN never wins."""
    xp = namespace(base)
    return xp.argmax(xp.where(xp.isnan(base), -np.inf, base), -1)


def _as_array(target: Any) -> np.ndarray:
    try:
        return as_array(target)
    except ValueError as error:
        message = (
            "`target` must be one class, one per image, or weights: got lists of unequal length."
        )
        raise ValueError(message) from error


def _are_weights(numbers: np.ndarray, count: int, classes: int) -> bool:
    """Whether numbers are weights: floats, a matrix, or a one-hot vector of any kind.

    Raises:
        ValueError: they may as well be the classes of the images.
    """
    ones = numbers.shape == (classes,) and not is_traced(numbers)
    one_hot = ones and sorted(numbers) == [0] * (classes - 1) + [1]
    if one_hot and numbers.dtype.kind in "iu" and count == classes > 1:
        raise ValueError(
            f"`target` {numbers.tolist()} may be a one-hot vector or one class for each of {count}"
            " images: give a one-hot vector as floats."
        )
    return numbers.dtype.kind == "f" or numbers.ndim == 2 or one_hot


def _weights(numbers: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Weights of the classes, the same for all images or each image's own, as (N, K)."""
    if numbers.shape not in ((classes,), (count, classes)):
        hint = "" if numbers.ndim else "; give a class as a whole number"
        raise ValueError(
            f"`target` must weigh {classes} classes, for all images or each of {count}:"
            f" got weights of shape {numbers.shape}{hint}."
        )
    return namespace(numbers).broadcast_to(as_floats(numbers), (count, classes))


def _classes(numbers: np.ndarray, count: int, classes: int) -> np.ndarray:
    """A class for all images or each image's own, negative ones from the end, as (N,)."""
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (count,)):
        hint = "; give weights as floats" if numbers.shape == (classes,) else ""
        raise ValueError(
            f"`target` must be one class or one per image ({count}): got {_shown(numbers)}{hint}."
        )
    if not is_traced(numbers) and (np.any(numbers < -classes) or np.any(numbers >= classes)):
        raise ValueError(
            f"`target` must be a class from 0 to {classes - 1}: got {numbers.tolist()!r}."
        )
    return namespace(numbers).broadcast_to(numbers, (count,)) % classes


def _shown(numbers: Any) -> str:
    return str(numbers) if is_traced(numbers) else repr(numbers.tolist())


def _weighted(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ over classes; a class without weight does not count, even where it scores −∞ (log 0)."""
    xp = namespace(scores, weights)
    weights = weights.reshape(len(weights), *[1] * (scores.ndim - 2), -1)
    scores = xp.where(xp.isinf(scores) & (weights == 0), 0, as_floats(scores, weights))
    with np.errstate(invalid="ignore"):  # ∞ − ∞ has no value
        return (scores * xp.asarray(weights, scores.dtype)).sum(-1)


def compare(picked: np.ndarray, clean: np.ndarray, score: Score) -> np.ndarray:
    """Compare the scores of occluded images with those of the clean ones.

    With f the clean and g the occluded score: drop f − g, positive where the pixels speak for the
    target; raw g; complement 1 − g; relative_drop (f − g) / |f|; log_odds_drop
    log(f / (1 − f)) − log(g / (1 − g)), for probabilities, held 1e-7 away from 0 and 1.

    Args:
        picked: (N, *positions).
        clean: (N,).
        score: which of the five.

    Returns:
        float64 (N, *positions), or of the scores' dtype if they are traced; NaN for a relative drop
        from 0, and for a drop from −∞ to −∞.

    Raises:
        ValueError: `score` is unknown, or odds are asked of numbers that are not probabilities.
    """
    xp, g = namespace(picked, clean), as_floats(picked, clean)
    f = as_floats(clean, picked).reshape(-1, *[1] * (g.ndim - 1))
    if score == "log_odds_drop":
        _check_probabilities(f, g)
        return _log_odds(f) - _log_odds(g)
    if score == "drop":
        with np.errstate(invalid="ignore"):
            return f - g
    if score == "raw":
        return g
    if score == "complement":
        return 1 - g
    if score == "relative_drop":
        with np.errstate(invalid="ignore"):
            return (f - g) / xp.where(f == 0, np.nan, xp.abs(f))
    raise ValueError(
        '`score` must be "drop", "raw", "complement", "relative_drop" or "log_odds_drop":'
        f" got {score!r}."
    )


def _check_probabilities(f: np.ndarray, g: np.ndarray) -> None:
    if is_traced(f, g):
        return
    both = np.concatenate([f.ravel(), g.ravel()])
    least, most = np.fmin.reduce(both), np.fmax.reduce(both)
    if least < 0 or most > 1 + 1e-6:
        raise ValueError(
            '`score` "log_odds_drop" needs probabilities, in [0, 1]:'
            f" got scores from {least:.3g} to {most:.3g}."
        )


def _log_odds(p: np.ndarray) -> np.ndarray:
    xp = namespace(p)
    p = xp.clip(p, NEAR_CERTAIN, 1 - NEAR_CERTAIN)
    return xp.log(p) - xp.log1p(-p)
