"""What the page is given of the scores: log-probabilities of the classes that it keeps.

The page shows probabilities, drops and log-odds of some classes at every position. So scores become
log-probabilities over all classes first, and then all but the kept classes are dropped.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np

SUM_SLACK = 1e-2  # by how much probabilities may miss a sum of 1: float16 networks do


class Scored(NamedTuple):
    """Scores of one image's positions, as the page has them.

    Attributes:
        kept: the classes that are kept, the most telling first, int (k,).
        base: (k,) log-probabilities (or scores) of the clean image.
        positions: (P, k) of the covered images; NaN where nothing was computed.
        winners: (P,) the class predicted at each position, -1 where nothing was computed.
        answer: the class predicted of the clean image, -1 where it has none.
    """

    kept: np.ndarray
    base: np.ndarray
    positions: np.ndarray
    winners: np.ndarray
    answer: int


def kind_of(base: np.ndarray) -> str:
    """Return what clean scores (N, K) are: "probabilities", "logits", or plain "scores" (K = 1)."""
    known = base[np.isfinite(base).all(-1)]
    within = bool(known.size) and bool((known >= 0).all() and (known <= 1 + SUM_SLACK).all())
    if base.shape[-1] == 1:
        return "probabilities" if within else "scores"
    return "probabilities" if within and _sum_to_one(known) else "logits"


def _sum_to_one(scores: np.ndarray) -> bool:
    return bool(np.all(np.abs(scores.sum(-1) - 1) < SUM_SLACK))


def log_probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """Return ln p of scores (..., K); plain scores stay as they are."""
    scores = scores.astype(np.float64)
    if kind == "scores":
        return scores
    if kind == "probabilities":
        return np.log(np.clip(scores, 1e-12, 1))
    top = scores.max(-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(-1, keepdims=True))


def keep_classes(
    base: np.ndarray, positions: np.ndarray, named: list[int], count: int
) -> np.ndarray:
    """Return which classes the page keeps: those asked for, the top five, and those that rise.

    Args:
        base: (K,) log-probabilities of the clean image.
        positions: (P, K) of the covered images.
        named: classes to keep in any case.
        count: how many to keep, those that were asked for included.
    """
    clean = np.argsort(-base, kind="stable")
    most = np.full(len(base), -np.inf)
    if positions.size and not np.isnan(positions).all():
        most = np.nanmax(np.where(np.isnan(positions), -np.inf, positions), 0)
    rising = np.argsort(-most, kind="stable")
    wanted = dict.fromkeys([*named, *clean[:5].tolist(), *rising.tolist(), *clean.tolist()])
    return np.array(list(wanted)[: max(count, len(named))], int)


def score_image(
    base: np.ndarray,
    positions: np.ndarray,
    kind: str,
    named: list[int],
    count: int,
    classes: np.ndarray | None = None,
    *,
    single: bool,
) -> Scored:
    """Return what the page is given of one image.

    Args:
        base: (K,) raw scores of the clean image.
        positions: (P, K) raw scores of the covered images.
        kind: what `kind_of` said.
        named: classes to keep in any case.
        count: how many classes to keep.
        classes: which classes the K scores are of; None: all of the network's, in order.
        single: whether the network has a single score: class 1 where it exceeds 0.5, else class 0.
    """
    clean, covered = log_probabilities(base, kind), log_probabilities(positions, kind)
    answer, *winners = _predicted(np.concatenate([base[None], positions]), classes, single)
    if classes is not None:
        return Scored(classes, clean, covered, np.array(winners, int), answer)
    kept = keep_classes(clean, covered, named, count)
    return Scored(kept, clean[kept], covered[:, kept], np.array(winners, int), answer)


def _predicted(scores: np.ndarray, classes: np.ndarray | None, single: bool) -> list[int]:
    """Return the class of each row of scores, -1 where one is NaN."""
    if single:
        found = (scores[:, 0] > 0.5).astype(int)
    else:
        found = np.argmax(scores, -1)
        found = found if classes is None else classes[found]
    return np.where(np.isnan(scores).any(-1), -1, found).tolist()


def surprise(scored: Scored, kind: str, maps: list[np.ndarray]) -> dict[str, float]:
    """Return by what images can be sorted: the largest drop, the class changes, the disagreement.

    Args:
        scored: scores of one image.
        kind: what `kind_of` said.
        maps: (H, W) maps of the methods beside each other, of one class.

    Returns:
        drop: by how much covering a position lowers the clean class at most; changes: the share of
        positions that give another class; disagreement: 1 - the mean Pearson correlation of the
        maps, 0 for fewer than two. What is not finite is left out.
    """
    done = scored.winners >= 0
    best = int(np.argmax(np.where(np.isnan(scored.base), -np.inf, scored.base)))
    clean, covered = scored.base[best], scored.positions[done, best]
    if kind != "scores":
        clean, covered = np.exp(clean), np.exp(covered)
    with np.errstate(invalid="ignore"):
        drops = clean - covered
    drops = drops[np.isfinite(drops)]
    changes = scored.winners[done] != scored.answer
    return {
        "drop": float(drops.max()) if drops.size else 0.0,
        "changes": float(changes.mean()) if changes.size and scored.answer >= 0 else 0.0,
        "disagreement": _disagreement([np.ravel(m) for m in maps]),
    }


def _disagreement(maps: list[np.ndarray]) -> float:
    alike = [_alike(a, b) for a, b in combinations(maps, 2) if a.shape == b.shape]
    known = [value for value in alike if value is not None]
    return 1 - float(np.mean(known)) if known else 0.0


def _alike(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the correlation of two maps where both are known, 0 where one is flat there; None:
    nowhere."""
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return None
    a, b = (m[known] - m[known].mean() for m in (a, b))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
