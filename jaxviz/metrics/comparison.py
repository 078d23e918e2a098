"""A table of methods and metrics over the same images: means, errors, and paired differences."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

ARROWS = {"up": " ↑", "down": " ↓", "": ""}


class Difference(NamedTuple):
    """By how much one method exceeds another on the same images.

    Attributes:
        mean: of the differences.
        low: lower end of the interval.
        high: upper end of it.
        n: on how many images both are defined.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """What `jaxviz.metrics.compare` measured.

    Attributes:
        values: float64 (methods, metrics, N), NaN where a metric is not defined.
        methods: names of the methods.
        metrics: names of the metrics.
        better: of each metric, "up", "down" or "": what is good.
        seed: of everything random; all methods meet the same masks and noise.
        config: how it was made, as (name, value) pairs of strings.

    Example:
        >>> table = Comparison(np.asarray([[[1.0, 3.0]], [[0.0, 1.0]]]), ("a", "b"), ("m",))
        >>> table
           m
        a  2 ± 1
        b  0.5 ± 0.5
        2 images, mean ± standard error, seed 0
        >>> table.difference("a", "b", "m").mean
        1.5
    """

    values: np.ndarray
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    better: tuple[str, ...] = ()
    seed: int = 0
    config: tuple[tuple[str, str], ...] = field(default=())

    @property
    def n(self) -> np.ndarray:
        """On how many images each is defined, int (methods, metrics)."""
        return np.sum(~np.isnan(self.values), -1)

    @property
    def mean(self) -> np.ndarray:
        """The mean over these images, (methods, metrics); NaN without any."""
        total = np.nansum(self.values, -1)
        return np.divide(total, self.n, out=np.full_like(total, np.nan), where=self.n > 0)

    @property
    def error(self) -> np.ndarray:
        """The standard error of the mean, (methods, metrics); NaN for fewer than two images."""
        return np.asarray([[_error(v) for v in row] for row in self.values])

    def difference(
        self, first: str, second: str, metric: str, *, level: float = 0.95
    ) -> Difference:
        """Compare two methods image by image: the mean of first − second, and how sure that is.

        Args:
            first: a method.
            second: another.
            metric: by which metric.
            level: of Student's interval of the paired differences, in (0, 1). It is of one
                comparison: of twenty, one in twenty of 0.95 misses.

        Returns:
            The difference; it is told apart from 0 where the interval leaves it out. The ends are
            NaN for fewer than two images.

        Raises:
            ValueError: a name is unknown, or `level` out of range.
        """
        if not 0 < level < 1:
            raise ValueError(f"`level` must lie between 0 and 1: got {level}.")
        column = _index(metric, self.metrics, "metric")
        rows = (_index(name, self.methods, "method") for name in (first, second))
        a, b = (self.values[row, column] for row in rows)
        paired = (a - b)[~np.isnan(a - b)]
        if not len(paired):
            return Difference(np.nan, np.nan, np.nan, 0)
        reach = _error(paired) * float(student.ppf((1 + level) / 2, max(len(paired) - 1, 1)))
        middle = float(paired.mean())
        return Difference(middle, middle - reach, middle + reach, len(paired))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and strings, for JSON; None where undefined."""
        mean, error, n = self.mean, self.error, self.n
        cells = {
            method: {
                metric: {
                    "mean": _plain(mean[i, j]),
                    "error": _plain(error[i, j]),
                    "n": int(n[i, j]),
                    "undefined": int(self.values.shape[-1] - n[i, j]),
                    "values": [_plain(v) for v in self.values[i, j]],
                }
                for j, metric in enumerate(self.metrics)
            }
            for i, method in enumerate(self.methods)
        }
        better = dict(zip(self.metrics, self._better, strict=True))
        return {
            "seed": self.seed,
            "images": int(self.values.shape[-1]),
            "better": better,
            "config": dict(self.config),
            "methods": cells,
        }

    def plot(self, *, title: str = "") -> Any:
        """Draw a panel for each metric, a mark with its standard error for each method.

        Args:
            title: of the figure.

        Returns:
            A matplotlib Figure.
        """
        from jaxviz.plot._metrics import table

        return table(self.methods, self.heads(), self.mean, self.error, title=title)

    @property
    def _better(self) -> tuple[str, ...]:
        return self.better or ("",) * len(self.metrics)

    def heads(self) -> list[str]:
        """Return the names of the metrics, each with an arrow to what is good."""
        return [m + ARROWS[b] for m, b in zip(self.metrics, self._better, strict=True)]

    def cells(self) -> dict[str, list[str]]:
        """Return the numbers of each method as texts, mean ± standard error."""
        count = self.values.shape[-1]
        return {
            method: [_cell(m, e, n, count) for m, e, n in zip(*row, strict=True)]
            for method, *row in zip(self.methods, self.mean, self.error, self.n, strict=True)
        }

    def _foot(self) -> str:
        count = self.values.shape[-1]
        images = f"{count} image{'s' * (count != 1)}"
        return f"{images}, mean ± standard error, seed {self.seed}"

    def __repr__(self) -> str:
        rows = [["", *self.heads()]]
        rows += [[m, *cells] for m, cells in self.cells().items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        return "\n".join([*(line.rstrip() for line in lines), self._foot()])

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{html.escape(h)}</th>" for h in ["", *self.heads()])
        rows = [
            f"<tr><th>{html.escape(method)}</th>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for method, cells in self.cells().items()
        ]
        return (
            f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>{html.escape(self._foot())}</p>"
        )


def _error(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan


def _index(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise ValueError(f"`{what}` must be one of {', '.join(names)}: got {name!r}.")
    return names.index(name)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _cell(mean: float, error: float, n: int, count: int) -> str:
    if n == 0:
        return "undefined"
    text = f"{mean:.3g}" + (f" ± {error:.2g}" if not np.isnan(error) else "")
    return text + (f" (n = {n})" if n < count else "")
