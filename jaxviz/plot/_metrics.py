"""Curves of scores over what was removed, and tables of numbers with their errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxviz.plot._page import FAINT, INK, Picture


def curves(named: Mapping[str, Any], *, title: str = "", label: str = "score") -> Figure:
    """Draw curves of scores, their mean over images, and a band of one standard error around it.

    Args:
        named: what to call each, and what has `scores` and `fraction`, (N, steps + 1) or
            (steps + 1,), such as a `jaxviz.metrics.Curve`.
        title: of the figure.
        label: of the scores.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there is no curve.
        TypeError: it is something else than curves by name.

    Example:
        >>> import numpy as np, jaxviz.metrics, jaxviz.plot
        >>> curve = jaxviz.metrics.Curve(np.asarray([1.0, 0.2, 0.0]), np.asarray([0.0, 0.5, 1.0]))
        >>> jaxviz.plot.curves({"a map": curve}).axes[0].get_ylabel()
        'score'
    """
    if not isinstance(named, Mapping) or not all(map(_is_curve, named.values())):
        raise TypeError(
            "`named` must be a dictionary, name -> curve, of what `jaxviz.metrics.deletion` and its"
            f" kin return: got {_shown(named)}."
        )
    if not named:
        raise ValueError("`named` must hold at least one curve: got none.")
    figure = Picture(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, curve in named.items():
        scores, fraction = (np.atleast_2d(x) for x in (curve.scores, curve.fraction))
        # Segments of each image's own have fractions of their own.
        at = fraction.mean(0)
        (line,) = axes.plot(at, scores.mean(0), label=name)
        if len(scores) > 1:
            error = scores.std(0, ddof=1) / np.sqrt(len(scores))
            low, high = scores.mean(0) - error, scores.mean(0) + error
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="fraction changed", ylabel=label, xlim=(0, 1))
    _plain(axes)
    axes.legend(frameon=False)
    figure.suptitle(title, color=INK)
    return figure


def _is_curve(value: Any) -> bool:
    return hasattr(value, "scores") and hasattr(value, "fraction")


def _shown(named: Any) -> str:
    kinds = {type(value).__name__ for value in named.values()} if isinstance(named, Mapping) else ()
    return f"a {type(named).__name__}" + (f" of {', '.join(sorted(kinds))}" if kinds else "")


def table(
    rows: Sequence[str],
    columns: Sequence[str],
    mean: np.ndarray,
    error: np.ndarray,
    *,
    title: str = "",
) -> Figure:
    """Draw a table of means as one panel per column, with a bar of one standard error on each.

    Args:
        rows: what is compared.
        columns: what was measured.
        mean: (rows, columns); NaN is left out.
        error: (rows, columns), standard errors.
        title: of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: the shapes disagree.

    Example:
        >>> import numpy as np, jaxviz.plot
        >>> figure = jaxviz.plot.table(["a", "b"], ["m"], np.ones((2, 1)), np.zeros((2, 1)))
        >>> len(figure.axes)
        1
    """
    shape = (len(rows), len(columns))
    if np.shape(mean) != shape or np.shape(error) != shape or 0 in shape:
        raise ValueError(
            f"`mean` and `error` must be (rows, columns), {shape}, and not empty:"
            f" got {np.shape(mean)} and {np.shape(error)}."
        )
    size = (1.6 + 2.1 * shape[1], 1.1 + 0.34 * shape[0])
    figure = Picture(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, shape[1], sharey=True))
    for axes, name, middle, around in zip(panels, columns, mean.T, error.T, strict=True):
        axes.errorbar(middle, np.arange(len(rows)), xerr=around, fmt="o", capsize=3)
        axes.set_title(name, color=INK, fontsize="medium")
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        _plain(axes)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title, color=INK)
    return figure


def layers(names: Sequence[str], values: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """Draw similarities over the layers of a network, their mean over images that have one."""
    figure = Picture(figsize=(1.8 + 0.45 * len(names), 3.4), layout="constrained")
    axes = figure.subplots()
    for label, similarity in values.items():
        each = np.asarray(similarity).reshape(len(names), -1)
        known = np.isfinite(each)
        total, count = np.sum(each, -1, where=known), known.sum(-1)
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        axes.plot(range(len(names)), mean, marker="o", markersize=4, label=label)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set(ylabel="similarity to the clean map", ylim=(None, 1.05))
    _plain(axes)
    axes.legend(frameon=False)
    figure.suptitle(title, color=INK)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
