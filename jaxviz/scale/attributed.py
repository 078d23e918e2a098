"""Read a store of attribution maps: any images of it as results, and which are done or bad."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.scale.reader import Stored, store_that_holds


class StoredAttribution(Stored):
    """The maps of many images, on disk; nothing is read before it is asked for.

    Example:
        >>> stored = open_attribution("maps.zarr")  # doctest: +SKIP
        >>> stored[3]["grad_cam"].heatmap()  # doctest: +SKIP
    """

    def __getitem__(self, images: int | slice | np.ndarray) -> dict[str, Attribution]:
        """Read all maps of one image, or of several; NaN for what is bad or not done."""
        return {name: self.read(name, images) for name in self.maps}

    def read(self, name: str, images: int | slice | np.ndarray = slice(None)) -> Attribution:
        """Read one kind of map, of one image or of several.

        Args:
            name: of the maps, one of `maps`.
            images: which of them; all.

        Returns:
            The result, NaN for what is bad or not done.

        Raises:
            ValueError: there are no such maps.
        """
        if name not in self.maps:
            raise ValueError(f"`name` must be one of {', '.join(self.maps)}: got {name!r}.")
        number = self.maps.index(name)
        about, target = self.identity["results"][number], self.identity["order"][number]["target"]
        single = isinstance(images, int | np.integer)
        rows = np.atleast_1d(np.arange(len(self))[images])

        def part(array: str) -> Any:
            if array not in self._store.arrays:
                return None
            values = self._store.read(array, rows)
            values = values.astype(np.float32) if values.dtype == np.float16 else values
            return values[0] if single else values

        best = part("predicted")
        shape = self.identity["source"]["shape"]
        return Attribution(
            part(f"values/{number}"),
            part("base"),
            best if target is None else np.full_like(best, target),
            part(f"delta/{number}"),
            part(f"sampling/{number}"),
            method=about["method"],
            image_shape=(shape[0], shape[1]),
            single=single,
            reading=MapReading(**about["reading"]),
            config=(*((key, value) for key, value in about["config"]), ("store", self.url)),
        )

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps that every image has."""
        return tuple(one["name"] for one in self.identity["order"])

    def _about(self) -> str:
        return ", ".join(self.maps)


def open_attribution(store: str | Path | dict[str, Any]) -> StoredAttribution:
    """Open a store that `attribute_dataset` made, whether or not it is finished.

    Args:
        store: the folder, or a URL.

    Returns:
        The store, for reading.

    Raises:
        ValueError: there is no store, or it holds something else.
        OSError: it cannot be read.

    Example:
        >>> open_attribution("maps.zarr")[:8]["saliency"].heatmap()  # doctest: +SKIP
    """
    return StoredAttribution(store_that_holds("values/0", store, "attribution maps"))
