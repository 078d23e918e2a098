"""Read a store of judged maps: the table of any of its images, and which are done or bad."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxviz.metrics.comparison import Comparison
from jaxviz.scale.identity import Identity
from jaxviz.scale.reader import ImageError, errors_of, names_of, store_that_holds
from jaxviz.scale.store import NOT_DONE, Store


class StoredComparison:
    """What `judge_dataset` measured of many images, on disk.

    Example:
        >>> stored = open_comparison("judged.zarr")  # doctest: +SKIP
        >>> stored.table().difference("saliency", "random", "srg")  # doctest: +SKIP
    """

    def __init__(self, store: Store):
        self._store = store

    def __len__(self) -> int:
        return self._store.count

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
    def url(self) -> str:
        """Where the store is."""
        return self._store.url

    @property
    def identity(self) -> Identity:
        """What the run is: model, maps, metrics, images, program, versions."""
        return self._store.identity

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the maps."""
        return tuple(self.identity["order"]["maps"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.identity["order"]["metrics"])

    @property
    def base(self) -> np.ndarray:
        """Scores of the clean images, float32 (N, K)."""
        return self._store.read("base", slice(None))

    @property
    def predicted(self) -> np.ndarray:
        """The class with the largest clean score, int32 (N,); −1 for what is bad or not done."""
        return self._store.read("predicted", slice(None))

    @property
    def target(self) -> np.ndarray:
        """The class whose maps and scores were judged, int32 (N,); −1: bad or not done."""
        return self._store.read("target", slice(None))

    @property
    def names(self) -> list[str] | None:
        """The names of the images, if they have any."""
        return names_of(self._store)

    @property
    def done(self) -> np.ndarray:
        """Which images are finished, judged or bad: bool (N,)."""
        return self._store.status() != NOT_DONE

    @property
    def errors(self) -> list[ImageError]:
        """The bad images."""
        return errors_of(self._store)

    def __repr__(self) -> str:
        done, bad = int(self.done.sum()), len(self.errors)
        text = f"{done} of {len(self)} images done" + f", {bad} of them bad" * (bad > 0)
        what = f"{len(self.methods)} methods, {len(self.metrics)} metrics"
        return f"StoredComparison({text}, {what}, {self.url})"


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
