"""Many images explained by methods: what a run does with a chunk, and what it is known by.

Each chunk is explained alone, filled up to its whole size, so that its maps depend neither on what
else is computed nor on where.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz._arguments import whole_number
from jaxviz.attribution.goal import named
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.result import Attribution
from jaxviz.jaxpr._jax import platform_of
from jaxviz.occlusion.result import Occlusion
from jaxviz.scale.described import described
from jaxviz.scale.identity import Identity, fingerprint, forward, versions
from jaxviz.scale.judging import bound
from jaxviz.scale.pipeline import Chunk, Waits, next_chunk
from jaxviz.scale.sources import Images
from jaxviz.scale.store import ArraySpec, image_specs, name_array
from jaxviz.scoring.batches import usual_batches
from jaxviz.scoring.scorer import SplitScorer

# (f, images (n, H, W, C), target=…) -> a result.
Method = Callable[..., Attribution | Occlusion]
KIND = "attribution maps"
ELSEWHERE_BATCH, LEAST_CHUNKS = 64, 8  # a chunk is what may be lost and computed again


class Settled(NamedTuple):
    """How it is done.

    Attributes:
        batch: images that are explained at once.
        chunk: images of a chunk.
        results: what a store records of the results of each map; None: there is no store yet.
    """

    batch: int
    chunk: int
    results: list[dict[str, Any]] | None = None


class Map(NamedTuple):
    """One map of every image: which method, and of what.

    Attributes:
        name: of the map.
        method: its name among the methods.
        target: None, the class with the largest clean score of each image; or a class.
    """

    name: str
    method: str
    target: int | None


@dataclass(frozen=True)
class Attributing:
    """A run that explains many images.

    Attributes:
        images: the images.
        f: the scorer.
        parts: the scorer, taken apart.
        methods: by name.
        targets: name -> None or a class; each method has a map of each.
        stored: dtype of the maps in the store.
        batch_size: "auto", or what was asked for.
        chunk: "auto", or what was asked for.
        where: options that methods get if they take them, such as `mesh`.
    """

    images: Images
    f: Any
    parts: SplitScorer
    methods: Mapping[str, Method]
    targets: Mapping[str, int | None]
    stored: str
    batch_size: int | str
    chunk: int | str
    where: Mapping[str, Any]

    unit = "maps"

    @property
    def template(self) -> np.ndarray:
        """An image, whose shape and dtype all have."""
        return self.images.template

    @property
    def maps(self) -> tuple[Map, ...]:
        """All maps of an image, in their order."""
        several = len(self.targets) > 1
        return tuple(
            Map(f"{method}, {word}" if several else method, method, target)
            for method in self.methods
            for word, target in self.targets.items()
        )

    @property
    def each(self) -> int:
        """How many maps an image has."""
        return len(self.maps)

    def settle(self, recorded: Identity | None) -> Settled:
        """Return what a store records, or a new store shall; what was asked for goes before."""
        known = recorded.get("program", {}) if recorded else {}
        batch, chunk = self.batch_size, self.chunk
        if batch == "auto":
            batch = known.get("batch", self._batch())
        batch = whole_number(batch, "batch_size", choices='"auto"')
        if chunk == "auto":
            few = ceil(len(self.images) / LEAST_CHUNKS)
            chunk = known.get("chunk", min(batch, few))
        chunk = whole_number(chunk, "chunk", choices='"auto"')
        return Settled(batch, chunk, recorded.get("results") if recorded else None)

    def _batch(self) -> int:
        if platform_of(self.parts.arrays) != "cpu":
            return ELSEWHERE_BATCH
        return usual_batches(self.template.shape, "cpu", "gradients")[0]

    @cached_property
    def _known(self) -> dict[str, Any]:
        """What the run is, but for its program."""
        image = jax.ShapeDtypeStruct((1, *self.template.shape), self.template.dtype)
        return {
            "model": {
                "name": self.parts.name,
                "fingerprint": fingerprint(self.parts.call, self.parts.arrays, image),
            },
            "source": self.images.identity(),
            "forward": forward(self.template.dtype, platform_of(self.parts.arrays)),
            "methods": {name: described(m, "methods") for name, m in self.methods.items()},
            "targets": dict(self.targets),
            "order": [one._asdict() for one in self.maps],
            "stored": self.stored,
            "versions": versions("scipy"),
        }

    def identity(self, settled: Settled) -> Identity:
        """Return what makes it the same run again."""
        program = {"batch": settled.batch, "chunk": settled.chunk}
        results = settled.results
        if results is None:
            results = [_shared(result) for result in self._samples]
        whole = {"format": 1, "kind": KIND, **self._known, "program": program, "results": results}
        return json.loads(json.dumps(whole))

    @cached_property
    def _samples(self) -> list[Attribution]:
        """The maps of one image, which tell what a new store has to hold."""
        return self._explained(self._batch(), self.template[None])

    def arrays(self, settled: Settled) -> tuple[dict[str, ArraySpec], dict[str, np.ndarray]]:
        """Return the arrays of a store, and the values of those that are known beforehand."""
        count, chunk, names = len(self.images), settled.chunk, self.images.source.names
        known = {} if names is None else {"name": name_array(names)}
        specs: dict[str, ArraySpec] = {}
        results = self._samples
        for number, result in enumerate(results):
            shape = (count, *result.values.shape[1:])
            axes = ("image", "row", "col", "channel")
            specs[f"values/{number}"] = ArraySpec(shape, axes, self.stored, chunk, "NaN")
            for name, array in (("delta", result.delta), ("sampling", result.error)):
                if array is not None:
                    spec = ArraySpec((count,), ("image",), "float32", chunk, "NaN")
                    specs[f"{name}/{number}"] = spec
        width = 0 if names is None else known["name"].shape[1]
        specs |= image_specs(count, results[0].base.shape[-1], chunk, width)
        return specs, known

    def facts(self, settled: Settled) -> dict[str, Any]:
        """Return what the log tells at the start."""
        return {"batch": settled.batch, "methods": [one.name for one in self.maps]}

    def compute(
        self, settled: Settled, chunks: Iterator[Chunk], waits: Waits
    ) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
        """Explain chunks of images."""
        while (chunk := next_chunk(chunks, waits)) is not None:
            count = len(chunk.images)
            at = np.minimum(np.arange(settled.chunk), count - 1)
            results = self._explained(settled.batch, chunk.images[at])
            base = np.asarray(results[0].base, np.float32)[:count]
            best = np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
            rows = {"base": base, "predicted": best}
            for number, result in enumerate(results):
                rows[f"values/{number}"] = self._kept(result.values[:count])
                for name, array in (("delta", result.delta), ("sampling", result.error)):
                    if array is not None:
                        rows[f"{name}/{number}"] = array[:count]
            yield chunk, rows

    def _kept(self, values: np.ndarray) -> np.ndarray:
        """Return maps in the dtype that they are stored in.

        Raises:
            ValueError: float16 does not hold them.
        """
        with np.errstate(over="ignore"):
            small = values.astype(self.stored)
        if np.any(np.isinf(small) & np.isfinite(values)):
            raise ValueError(
                f'`stored` must hold the maps: "{self.stored}" does not hold'
                f' {np.nanmax(np.abs(values)):.3g}; use "float32".'
            )
        return small

    def _explained(self, batch: int, images: np.ndarray) -> list[Attribution]:
        options = {**self.where, "batch_size": batch}
        methods = {name: bound(method, options) for name, method in self.methods.items()}
        with warnings.catch_warnings():
            # Smaller blocks would give other bits than the program that the store records.
            warnings.filterwarnings("error", "out of memory")
            try:
                return [self._one(methods[m.method], images, m.target) for m in self.maps]
            except UserWarning as warning:
                raise MemoryError(
                    f"`batch_size` must fit into memory: {batch} at once do not, now; free"
                    " some memory and run this again, or make a new store with a smaller one."
                ) from warning

    def _one(self, method: Method, images: np.ndarray, target: int | None) -> Attribution:
        result = method(self.f, images, target=target)
        if getattr(result, "partial", False):
            raise KeyboardInterrupt
        return as_attribution(result, target)


def _shared(result: Attribution) -> dict[str, Any]:
    """What all images' results of a map share."""
    config = [pair for pair in result.config if pair[0] != "used"]
    return {"method": result.method, "reading": asdict(result.reading), "config": config}


def as_attribution(result: Attribution | Occlusion, target: int | None) -> Attribution:
    """Return a result as an attribution: of an occlusion, its heatmap.

    Raises:
        TypeError: it is none.
    """
    if isinstance(result, Attribution) and not result.every:
        return result
    if not isinstance(result, Occlusion):
        raise TypeError(
            "`methods` must return an Attribution of one target, or an Occlusion: got"
            f" {result if isinstance(result, Attribution) else type(result).__name__}."
        )
    base = np.asarray(result.base)
    classes = np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
    heatmap = result.heatmap(target)
    return Attribution(
        heatmap[..., None],
        base,
        classes if target is None else np.full_like(classes, target),
        method="occlusion",
        image_shape=(heatmap.shape[1], heatmap.shape[2]),
        reading=MapReading(),
        config=result.config,
    )


def named_targets(target: Any, f: Any) -> dict[str, int | None]:
    """Return the targets of a run by name.

    Args:
        target: None, a class, its name, or several of these.
        f: the scorer, which may know names of classes.

    Raises:
        ValueError: a class is none, or named twice.
    """
    several = list(target) if isinstance(target, Sequence) and not isinstance(target, str) else None
    found: dict[str, int | None] = {}
    for one in [target] if several is None else several:
        number = named(one, f)
        if number is not None and not isinstance(number, int | np.integer):
            raise ValueError(f"`target` must be a class, None or several of these: got {one!r}.")
        word = "predicted" if one is None else str(one)
        if word in found:
            raise ValueError(f"`target` must name each class once: got {word!r} twice.")
        found[word] = None if number is None else int(number)
    if not found:
        raise ValueError("`target` must hold at least one class: got none.")
    return found
