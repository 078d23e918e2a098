"""Maps of many images judged by metrics: what a run does with a chunk, and what it is known by.

All images meet the same masks and noise, which follow from the seed alone, so that the table of a
store is that of `jaxviz.metrics.compare` of all images at once.
"""

import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz._arguments import whole_number
from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.compiled import compiled
from jaxviz.metrics.judge import better_of, compare, floors
from jaxviz.metrics.run import InterruptedWarning
from jaxviz.scale.described import described
from jaxviz.scale.identity import Identity, fingerprint, forward, versions
from jaxviz.scale.pipeline import Chunk, Waits, next_chunk
from jaxviz.scale.reader import StoredOcclusion
from jaxviz.scale.sources import Images
from jaxviz.scale.store import ArraySpec, image_specs, name_array
from jaxviz.scoring.batches import usual_batches
from jaxviz.scoring.scorer import SplitScorer
from jaxviz.scoring.targets import resolve

# (f, images (n, H, W, C), target=classes (n,)) -> maps (n, H, W), or a result that has them.
Method = Callable[..., Any]
MapsOfMany = np.ndarray | jax.Array | StoredOcclusion | Method
KIND = "judged maps"
# A chunk is what may be lost and computed again.
CHUNK_IMAGES, CHUNK_BYTES, LEAST_CHUNKS = 32, 2**22, 8


class Settled(NamedTuple):
    """Images that a device scores at once, and images of a chunk."""

    batch: int
    chunk: int


@dataclass(frozen=True)
class Judging:
    """A run that judges maps of many images.

    Attributes:
        images: the images.
        f: the scorer.
        parts: the scorer, taken apart.
        maps: of all images, by name; or what makes them.
        floors: whether random maps and edges are judged as well.
        metrics: by name.
        target: None, the class with the largest clean score; a class, or one per image.
        seed: of everything random.
        batch_size: "auto", or what was asked for.
        chunk: "auto", or what was asked for.
        where: options that metrics and methods get if they take them, such as `mesh`.
    """

    images: Images
    f: Any
    parts: SplitScorer
    maps: Mapping[str, MapsOfMany]
    floors: bool
    metrics: Mapping[str, Callable[..., Any]]
    target: Any
    seed: int
    batch_size: int | str
    chunk: int | str
    where: Mapping[str, Any]

    unit, each = "images", 1

    @property
    def template(self) -> np.ndarray:
        """An image, whose shape and dtype all have."""
        return self.images.template

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of all maps."""
        return (*self.maps, *(("random", "edges") if self.floors else ()))

    @cached_property
    def classes(self) -> int:
        """How many there are.

        Raises:
            ValueError: the scores are no (N, K).
        """
        image = jax.ShapeDtypeStruct((1, *self.template.shape), self.template.dtype)
        scores = jax.eval_shape(self.parts.call, self.parts.arrays, image)
        if scores.ndim != 2:
            raise ValueError(f"`f` must give scores (N, K): got {('N', *scores.shape[1:])}.")
        return scores.shape[1]

    def settle(self, recorded: Identity | None) -> Settled:
        """Return what a store records, or a new store shall; what was asked for goes before."""
        known = recorded.get("program", {}) if recorded else {}
        batch, chunk = self.batch_size, self.chunk
        if batch == "auto":
            usual = usual_batches(self.template.shape, platform_of(self.parts.arrays))[0]
            batch = known.get("batch", usual)
        if chunk == "auto":
            few = ceil(len(self.images) / LEAST_CHUNKS)
            most = min(CHUNK_IMAGES, few, CHUNK_BYTES // self.template.nbytes)
            chunk = known.get("chunk", max(1, most))
        batch = whole_number(batch, "batch_size", choices='"auto"')
        return Settled(batch, whole_number(chunk, "chunk", choices='"auto"'))

    @cached_property
    def _known(self) -> dict[str, Any]:
        """What the run is, but for its program."""
        image = jax.ShapeDtypeStruct((1, *self.template.shape), self.template.dtype)
        target = self.target
        names = np.asarray(target).tolist() if np.ndim(target) == 0 else described(target, "target")
        return {
            "model": {
                "name": self.parts.name,
                "fingerprint": fingerprint(self.parts.call, self.parts.arrays, image),
            },
            "source": self.images.identity(),
            "forward": forward(self.template.dtype, platform_of(self.parts.arrays)),
            "maps": {name: _described(maps) for name, maps in self.maps.items()},
            "floors": self.floors,
            "metrics": {name: described(m, "metrics") for name, m in self.metrics.items()},
            "better": [better_of(metric) for metric in self.metrics.values()],
            "order": {"maps": self.methods, "metrics": list(self.metrics)},
            "target": names,
            "seed": self.seed,
            "versions": versions("scipy"),
        }

    def identity(self, settled: Settled) -> Identity:
        """Return what makes it the same run again."""
        first = {"format": 1, "kind": KIND}
        return json.loads(json.dumps({**first, **self._known, "program": settled._asdict()}))

    def arrays(self, settled: Settled) -> tuple[dict[str, ArraySpec], dict[str, np.ndarray]]:
        """Return the arrays of a store, and the values of those that are known beforehand."""
        count, chunk, names = len(self.images), settled.chunk, self.images.source.names
        known = {} if names is None else {"name": name_array(names)}
        shape = (count, len(self.methods), len(self.metrics))
        specs = {
            "value": ArraySpec(shape, ("image", "method", "metric"), "float64", chunk, "NaN"),
            "target": ArraySpec((count,), ("image",), "int32", chunk, -1),
            **image_specs(
                count, self.classes, chunk, 0 if names is None else known["name"].shape[1]
            ),
        }
        return specs, known

    def facts(self, settled: Settled) -> dict[str, Any]:
        """Return what the log tells at the start."""
        return {"batch": settled.batch, "methods": self.methods, "metrics": list(self.metrics)}

    def compute(
        self, settled: Settled, chunks: Iterator[Chunk], waits: Waits
    ) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
        """Judge chunks of images."""
        options = {**self.where, "batch_size": settled.batch}
        metrics = {name: bound(metric, options) for name, metric in self.metrics.items()}
        makers = {name: bound(m, options) if callable(m) else m for name, m in self.maps.items()}
        while (chunk := next_chunk(chunks, waits)) is not None:
            rows = chunk.number * settled.chunk + chunk.good
            base = self._scores(chunk.images, settled.batch)
            best = np.argmax(np.nan_to_num(base, nan=-np.inf), -1)
            target = best if self.target is None else self._targets()[rows]
            maps = {
                name: self._made(made, chunk.images, rows, target) for name, made in makers.items()
            }
            maps |= self._floors(chunk.images, rows)
            values = _judged(self.f, chunk.images, maps, metrics, target, self.seed)
            yield chunk, {"value": values, "target": target, "base": base, "predicted": best}

    def _targets(self) -> np.ndarray:
        return resolve(self.target, len(self.images), self.classes)

    def _scores(self, images: np.ndarray, batch: int) -> np.ndarray:
        """The clean scores, float32 (n, K), always of as many images at once."""
        parts, found = self.parts, []
        for start in range(0, len(images), batch):
            rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
            part = images[rows]
            scores = compiled(parts.call, parts.arrays, part)(parts.arrays, part)
            found.append(np.asarray(scores, np.float32)[: len(images) - start])
        return np.concatenate(found)

    def _made(self, maps: Any, images: np.ndarray, rows: np.ndarray, target: np.ndarray) -> Any:
        """The maps of a chunk: read, or made."""
        if isinstance(maps, StoredOcclusion):
            made = _heatmaps(maps, rows, target)
        elif callable(maps):
            made = maps(self.f, images, target=target)
        else:
            made = np.asarray(maps[rows])
        if getattr(made, "partial", False):
            raise KeyboardInterrupt
        return made

    def _floors(self, images: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        if not self.floors:
            return {}
        key = jax.random.key(self.seed)
        each = [
            floors(image, key=jax.random.fold_in(key, int(row)))
            for image, row in zip(images, rows, strict=True)
        ]
        return {name: np.stack([one[name] for one in each]) for name in each[0]}


def bound(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function with those options that it takes and that nobody has set."""
    takes = inspect.signature(function).parameters
    taken = function.keywords if isinstance(function, partial) else {}
    return partial(function, **{k: v for k, v in options.items() if k in takes and k not in taken})


def _described(maps: MapsOfMany) -> str:
    if isinstance(maps, StoredOcclusion):
        run = {key: value for key, value in maps.identity.items() if key != "arrays"}
        maps = np.frombuffer(json.dumps(run, sort_keys=True).encode(), np.uint8)
        return f"store {described(maps, 'maps').partition('#')[2]}"
    return described(maps, "maps")


def _heatmaps(stored: StoredOcclusion, rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The heatmaps of a store of scores, whose classes may be some only."""
    kept = stored.classes
    if kept is None:
        return stored[rows].heatmap(target)
    own = kept[rows] if kept.ndim == 2 else np.broadcast_to(kept, (len(rows), len(kept)))
    places = own == target[:, None]
    lost = np.flatnonzero(~places.any(1) & (own >= 0).all(1))
    if len(lost):
        raise ValueError(
            f"`maps` must hold the scores that are judged: {stored.url} does not keep class"
            f" {target[lost[0]]} of image {rows[lost[0]]}."
        )
    return stored[rows].heatmap(places.argmax(1))


def _judged(f, images, maps, metrics, target, seed) -> np.ndarray:
    """Values (n, methods, metrics)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", InterruptedWarning)
        try:
            table = compare(f, images, maps, metrics=metrics, target=target, seed=seed)
        except InterruptedWarning as warning:
            raise KeyboardInterrupt from warning
    return table.values.transpose(2, 0, 1)
