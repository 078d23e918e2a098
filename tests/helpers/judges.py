"""Slow restatements of the metrics, from their definitions: loops, NumPy, float64."""

import math

import numpy as np


def slow_round(value):
    """Round halves up."""
    return math.floor(value + 0.5)


def slow_order(heatmap, labels, most_first):
    """Parts by the mean of the map over each, equal ones by number."""
    parts = sorted(set(labels.ravel().tolist()))
    value = {p: float(np.mean(heatmap[labels == p])) for p in parts}
    return sorted(parts, key=lambda p: (-value[p] if most_first else value[p], p))


def slow_curve(score, image, background, heatmap, labels, steps, most_first=True, insert=False):
    """The score and the fraction of parts at every step."""
    order = slow_order(heatmap, labels, most_first)
    scores, fraction = [], []
    for k in range(steps + 1):
        count = slow_round(k * len(order) / steps)
        changed = np.isin(labels, order[:count])[..., None]
        shown = changed if insert else ~changed
        scores.append(float(score(np.where(shown, image, background))))
        fraction.append(count / len(order))
    return np.asarray(scores), np.asarray(fraction)


def slow_area(scores, fraction):
    """The trapezoid rule, term by term."""
    total = 0.0
    for k in range(1, len(scores)):
        total += (fraction[k] - fraction[k - 1]) * (scores[k] + scores[k - 1]) / 2
    return total


def slow_ranks(values):
    """Ranks from 1, equal values share their mean."""
    return np.asarray([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def slow_pearson(x, y):
    """The correlation of two lists; NaN where one is constant."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt((x * x).sum() * (y * y).sum())
    return (x * y).sum() / scale if scale > 0 else math.nan


def slow_spearman(x, y):
    """The correlation of ranks."""
    return slow_pearson(slow_ranks(np.asarray(x)), slow_ranks(np.asarray(y)))


def slow_gini(heatmap):
    """Mean difference of all pairs over twice the mean: another form of the same number."""
    a = np.abs(heatmap.ravel())
    return np.abs(a[:, None] - a[None]).mean() / (2 * a.mean())
