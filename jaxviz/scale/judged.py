"""Read a store of judged maps: the table of any of its images, and which are done or bad."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxviz.metrics.comparison import Comparison
from jaxviz.scale.reader import Stored, store_that_holds


class StoredComparison(Stored):
    """What `judge_dataset` measured of many images, on disk.

    Example:
        >>> stored = open_comparison("judged.zarr")  # doctest: +SKIP
        >>> stored.table().difference("saliency", "random", "srg")  # doctest: +SKIP
    """

    def table(self, images: slice | np.ndarray = slice(None)) -> Comparison:
        """Return the methods and metrics of the images that are done and good.

        Args:
            images: which of them; all.

        Returns:
            The table, with values, means, standard errors, and paired differences.
        """
        chosen = np.arange(len(self))[images]
        rows = chosen[self.done[chosen] & (self.predicted[chosen] >= 0)]
        values = self._store.read("value", rows).astype(np.float64).transpose(1, 2, 0)
        run = self.identity
        settings = tuple(run["metrics"].items())
        better = tuple(run["better"])
        return Comparison(values, self.methods, self.metrics, better, run["seed"], settings)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the maps."""
        return tuple(self.identity["order"]["maps"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.identity["order"]["metrics"])

    @property
    def target(self) -> np.ndarray:
        """The class whose maps and scores were judged, int32 (N,); −1: bad or not done."""
        return self._store.read("target", slice(None))

    def _about(self) -> str:
        return f"{len(self.methods)} methods, {len(self.metrics)} metrics"


def open_comparison(store: str | Path | dict[str, Any]) -> StoredComparison:
    """Open a store that `judge_dataset` made, whether or not it is finished.

    Args:
        store: the folder, or a URL.

    Returns:
        The store, for reading.

    Raises:
        ValueError: there is no store, or it holds something else.
        OSError: it cannot be read.

    Example:
        >>> open_comparison("judged.zarr").table()  # doctest: +SKIP
    """
    return StoredComparison(store_that_holds("value", store, "judged maps"))
