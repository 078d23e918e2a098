"""What is scored, and how, and how it is laid out over blocks and devices."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.occluders import Occluder
from jaxviz.scoring.arguments import checked_dtype, checked_memory, checked_mesh
from jaxviz.scoring.evaluators import Costs, Dense, Evaluator, Incremental, count_costs
from jaxviz.scoring.scorer import Lifted, Scorer, SplitScorer, cast, split

_costs = Cache[Costs](1 << 20, lambda costs: 1 << 10)
_usual_rows = Cache[list[int]](1 << 20, lambda rows: 1 << 10)
_keys = Cache[Hashable](1 << 12, lambda key: 1)


class Block(NamedTuple):
    """How many images a block holds, and how many positions of each."""

    images: int
    positions: int


@dataclass(frozen=True)
class Task:
    """What is scored, and how.

    Attributes:
        scorer: the scorer, taken apart.
        evaluators: ways to score positions, all with the same result, the preferred one first.
        occluder: how one position changes an image; a pytree.
        images: float (N, H, W, C), at least one.
        positions: int32 (P, d), at least one. Row 0 of every image is the clean one, row p + 1 is
            position p.
        mesh: devices to spread blocks over; None: the default device.
        budget: bytes that a block may take on a device; None: a share of what is free.
    """

    scorer: SplitScorer
    evaluators: tuple[Evaluator, ...]
    occluder: Any
    images: np.ndarray
    positions: np.ndarray
    mesh: Mesh | None = None
    budget: int | None = None

    @property
    def rows(self) -> int:
        """Rows of one image: the clean one and its positions."""
        return len(self.positions) + 1

    @property
    def total_rows(self) -> int:
        """Rows of all images."""
        return len(self.images) * self.rows

    def scorer_at(self, rows: int) -> Lifted:
        """Return the scorer as a program that gives it so many images at once compiles it."""
        at = self.scorer.folded_at if self.device.platform == "cpu" else self.scorer.at
        return at((rows, *self.images.shape[1:]), self.images.dtype)

    def arguments(self, rows: int) -> tuple[Any, Any]:
        """Return the arrays that every call of a program gets that scores so many at once."""
        return self.scorer_at(rows).arrays, self.occluder

    def replicated(self) -> "Task":
        """Return the task with its arrays on all devices of the mesh."""
        if self.mesh is None or self.scorer.sharding is not None:
            return self
        arrays, occluder = self.everywhere((self.scorer.arrays, self.occluder))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        scorer = replace(self.scorer, arrays=arrays, sharding=everywhere)
        return replace(self, scorer=scorer, occluder=occluder)

    def everywhere(self, arrays: Any) -> Any:
        """Return arrays on all devices of the mesh."""
        if self.mesh is None:
            return arrays
        return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec()))

    @property
    def device(self) -> jax.Device:
        """One of the devices that run it: the mesh's, the one that holds the scorer's arrays, or
        the default."""
        return self.scorer.device if self.mesh is None else self.mesh.devices.flat[0]

    @property
    def key(self) -> Hashable:
        """Equal for tasks that compile to the same programs, whatever their arrays hold."""
        # By what the scorer is for one image, or for as many as the program took that such a task
        # had last: a run has to trace it for these, so that one which is repeated traces it once.
        # Which program is taken is found out anew by the scorer for its own number of images.
        rows = _usual_rows.get(self._looks, lambda: [1])[0]
        return _keys.get((rows, self._key(rows)), partial(self._key, 1))

    def remember(self, rows: int) -> None:
        """Note how many images its program gives to the scorer at once."""
        _usual_rows.get(self._looks, lambda: [1])[0] = rows
        _keys.get((rows, self._key(rows)), partial(self._key, 1))

    @property
    def _looks(self) -> Hashable:
        """What is known of it without tracing; of the scorer's structure a number alone."""
        return (hash(self.scorer.call), *self._surroundings((self.scorer.arrays, self.occluder)))

    def _key(self, rows: int) -> Hashable:
        return (self.scorer_at(rows).content, *self._surroundings(self.arguments(rows)))

    def _surroundings(self, arguments: Any) -> tuple[Hashable, ...]:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)
        image = (self.images.shape[1:], str(self.images.dtype), self.positions.shape[1:])
        return (structure, shapes, image, (self.mesh, self.device), settings())

    def costs(self, evaluator: Incremental) -> Costs:
        """Return what one position takes, dense and on windows; from shapes alone."""

        def count() -> Costs:
            image = jax.ShapeDtypeStruct(self.images.shape[1:], self.images.dtype)
            call, arrays, _ = self.scorer_at(1)
            return count_costs(evaluator, call, arrays, image)

        return _costs.get((self.key, evaluator), count)

    def operations(self, evaluator: Evaluator, grid: Grid) -> int:
        """Return the floating-point operations of one image: the clean one and all positions."""
        if isinstance(evaluator, Incremental):
            cost = self.costs(evaluator)
            return cost.dense + cost.window * len(self.positions)
        return self.costs(Incremental.on_grid(grid)).dense * self.rows

    def images_at_once(self, block: Block) -> int:
        """Return how many images a round of blocks holds, one block per device."""
        return block.images * self._across("images")

    def images_from(self, first: int, block: Block) -> np.ndarray:
        """Return the images of the round from `first` on, the last one repeated to fill it."""
        rows = np.arange(first, first + self.images_at_once(block))
        return self.images[np.minimum(rows, len(self.images) - 1)]

    def positions_from(self, row: int, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the round from `row` on, and which are clean images."""
        rows = np.arange(row, row + block.positions * self._across("positions"))
        clean = (rows == 0) | (rows >= self.rows)
        return self.positions[np.where(clean, 0, rows - 1)], clean

    def spec(self, *axes: str) -> PartitionSpec:
        """Return how an array with these leading axes lies over the mesh."""
        return PartitionSpec(*(self._mesh_axes(axis) or None for axis in axes))

    def _across(self, axis: str) -> int:
        return prod(self.mesh.shape[name] for name in self._mesh_axes(axis)) if self.mesh else 1

    def _mesh_axes(self, axis: str) -> tuple[str, ...]:
        # A mesh axis called "images" spreads images; all others spread positions.
        names = self.mesh.axis_names if self.mesh else ()
        return tuple(name for name in names if (name == "images") == (axis == "images"))


def make_task(
    f: Scorer,
    images: np.ndarray,
    occluder: Occluder,
    positions: np.ndarray,
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    memory: int | str | None = None,
) -> Task:
    """Return the task of scoring images densely, in the dtype of the forward pass.

    Args:
        f: see `split`.
        images: float (N, H, W, C), see `checked_images`.
        occluder: how one position changes an image.
        positions: int32 (P, d).
        dtype: of the forward pass; None: that of the images.
        mesh: devices to spread over.
        memory: bytes that a block may take on a device, see `checked_memory`.

    Raises:
        ValueError, TypeError: an argument breaks its rule.
    """
    mesh, budget = checked_mesh(mesh), checked_memory(memory)
    scorer, images = cast(split(f), images, None if dtype is None else checked_dtype(dtype))
    return Task(scorer, (Dense(),), occluder, images, positions, mesh, budget)
