"""Read a store: any images of it as an `Occlusion`, and which images are done, bad or missing."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.result import Approximation, Occlusion
from jaxviz.perturbation.grid import Grid
from jaxviz.scale.approximating import approximation_of
from jaxviz.scale.identity import Identity
from jaxviz.scale.store import BAD, NOT_DONE, Store, connect, find


class ImageError(NamedTuple):
    """A bad image: its number, its name ("" without names) and why."""

    image: int
    name: str
    why: str


class Stored(ABC):
    """What every store of results tells of its images; nothing is read before it is asked for."""

    def __init__(self, store: Store):
        self._store = store

    def __len__(self) -> int:
        return self._store.count

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._store.url

    @property
    def identity(self) -> Identity:
        """What the run is: model, images, program, versions, and what was done."""
        return self._store.identity

    @property
    def base(self) -> np.ndarray:
        """Scores of the clean images, float32 (N, K), of all classes."""
        return self._store.read("base", slice(None))

    @property
    def predicted(self) -> np.ndarray:
        """The class with the largest clean score, int32 (N,); −1 for what is bad or not done."""
        return self._store.read("predicted", slice(None))

    @property
    def names(self) -> list[str] | None:
        """The names of the images, if they have any."""
        return names_of(self._store)

    @property
    def done(self) -> np.ndarray:
        """Which images are finished, bad ones among them: bool (N,)."""
        return self._store.status() != NOT_DONE

    @property
    def errors(self) -> list[ImageError]:
        """The bad images."""
        return errors_of(self._store)

    def __repr__(self) -> str:
        status = self._store.status()
        done, bad = int(np.sum(status != NOT_DONE)), int(np.sum(status == BAD))
        text = f"{done} of {len(self)} images done" + f", {bad} of them bad" * (bad > 0)
        return f"{type(self).__name__}({text}, {self._about()}, {self.url})"

    @abstractmethod
    def _about(self) -> str:
        """Say what is stored, in a few words."""


class StoredOcclusion(Stored):
    """The scores of many images, on disk; nothing is read before it is asked for.

    Example:
        >>> stored = open_store("out.zarr")  # doctest: +SKIP
        >>> stored[3].heatmap()  # doctest: +SKIP
    """

    def __init__(self, store: Store, reading: Reading | None = None):
        super().__init__(store)
        self.reading = reading or Reading.of(store.identity.get("reading"))

    def __getitem__(self, images: int | slice | np.ndarray) -> Occlusion:
        """Read one image, or several, as an `Occlusion`; NaN for what is bad or not done.

        Where only some classes were kept, its classes are those, in their order.
        """
        single = isinstance(images, int | np.integer)
        rows = np.atleast_1d(np.arange(len(self))[images])
        scores = self._store.read("scores", rows).astype(np.float32)
        base = self._store.read("base", rows)
        if "class" in self._store.arrays:
            kept = self._classes(rows)
            base = np.where(kept < 0, np.nan, np.take_along_axis(base, np.maximum(kept, 0), -1))
        exact, errors, approximation = self._approximate(rows)
        if single:
            scores, base = scores[0], base[0]
            exact, errors = (None if x is None else x[0] for x in (exact, errors))
        config = [
            ("model", str(self.identity["model"]["name"])),
            ("store", self.url),
            ("preprocessing", str(self.identity["source"]["units"])),
        ]
        asked = self.identity.get("approximation", {})
        parts = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()}
        config += [(name, str(value)) for name, value in parts.items() if value is not None]
        return Occlusion(
            scores,
            base,
            self.grid,
            bool(single),
            False,
            tuple(config),
            exact=exact,
            approximation=approximation,
            reading=self.reading,
            class_names=self._names_of_kept(rows),
            interpolation_error=errors,
        )

    def _approximate(self, rows: np.ndarray) -> tuple[Any, Any, Approximation | None]:
        """Return which scores are exact, the errors of interpolation, and what was measured."""
        exact = errors = approximation = None
        if "exact" in self._store.arrays:
            exact = self._store.read("exact", rows).astype(bool)
            errors = self._store.read("interpolation_error", rows)
        if "approximation" in self._store.arrays:
            measured = self._store.read("approximation", rows)
            tolerance = self.identity["approximation"]["tolerance"]
            approximation = approximation_of(measured, tolerance)
        return exact, errors, approximation

    @property
    def grid(self) -> Grid:
        """Where the patches lie."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.identity["grid"].items()
        }
        return Grid(**fields)

    def predicted_class(self, image: int) -> int:
        """Return the class with the largest clean score of one image."""
        return int(self._store.read("predicted", image))

    @property
    def classes(self) -> np.ndarray | None:
        """Which classes were kept, int32 (k,), or (N, k) for the largest; None: all."""
        return self._store.read("class", ...) if "class" in self._store.arrays else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of all K classes, if they have any."""
        names = self.identity.get("class_names")
        return None if names is None else tuple(names)

    def _names_of_kept(self, rows: np.ndarray) -> tuple[str, ...] | None:
        """The names of the classes in `scores`; None where they are other ones in each image."""
        if self.class_names is None or "class" not in self._store.arrays:
            return self.class_names
        kept = self._classes(rows)
        same = len(kept) and (kept == kept[0]).all() and (kept[0] >= 0).all()
        return tuple(self.class_names[int(c)] for c in kept[0]) if same else None

    def _classes(self, rows: np.ndarray) -> np.ndarray:
        array = self._store.arrays["class"]
        if array.rank == 2:
            return self._store.read("class", rows)
        return np.broadcast_to(self._store.read("class", ...), (len(rows), array.shape[0]))

    def _about(self) -> str:
        return str(self.grid)


def open_store(store: str | Path | dict[str, Any]) -> StoredOcclusion:
    """Open a store that `occlude_dataset` made, whether or not it is finished.

    Args:
        store: the folder, or a URL.

    Returns:
        The store, for reading.

    Raises:
        ValueError: there is no store, or it is something else.
        OSError: it cannot be read.

    Example:
        >>> open_store("out.zarr")[:8].heatmap()  # doctest: +SKIP
    """
    return StoredOcclusion(store_that_holds("scores", store, "scores"))


def store_that_holds(array: str, store: str | Path | dict[str, Any], what: str) -> Store:
    """Open a store that has an array, which tells the kinds of stores apart.

    Raises:
        ValueError: there is no store, or one of another kind.
    """
    kvstore = connect(store)
    found = find(kvstore)
    if found is None:
        raise ValueError(f"`store` must be a store of jaxviz: there is none at {kvstore.url}.")
    if array not in found.arrays:
        kind = found.identity.get("kind", "scores")
        raise ValueError(f"`store` must hold {what}: {kvstore.url} holds {kind}.")
    return found


def names_of(store: Store) -> list[str] | None:
    """Return the names of the images, None without."""
    return store.texts("name") if "name" in store.arrays else None


def errors_of(store: Store) -> list[ImageError]:
    """Return the bad images."""
    bad = np.flatnonzero(store.status() == BAD)
    if not len(bad):
        return []
    names, why = names_of(store), store.texts("error", bad)
    return [
        ImageError(int(i), names[i] if names else "", text)
        for i, text in zip(bad, why, strict=True)
    ]
