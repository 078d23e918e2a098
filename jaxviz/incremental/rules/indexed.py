"""Operations that take or replace what lies at an index."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz.incremental.reach import Stencil, Table
from jaxviz.incremental.rules.access import Access, Follow, Params, Places, Resize, Site

Run = Callable[[Resize, list[Any], Places], list[Any]]
OPTIONS = ("unique_indices", "indices_are_sorted", "mode", "fill_value")


def dynamic_slice(site: Site) -> Access:
    """Follow the axes taken whole; one that is cut at a known index, from there; others are whole.

    A cut of a region that is as long as the region starts at its first index, whatever it asks for.
    """
    follows: list[Follow | None] = []
    for axis, (dim, size) in enumerate(
        zip(site.shapes[0], site.params["slice_sizes"], strict=True)
    ):
        start = 0 if dim == size else site.value(site.operands[1 + axis])
        if start is None:
            follows.append(None)
        else:
            first = min(max(int(start), 0), dim - size)
            follows.append(Follow(axis, Stencil(low=-first)))
    return Access((tuple(follows), *((),) * (len(site.shapes) - 1)))


def adapt_slice_sizes(site: Site, resize: Resize) -> Params:
    """Take of windowed axes all that the region holds."""
    sizes = [resize.sizes.get(a, size) for a, size in enumerate(site.params["slice_sizes"])]
    return {**site.params, "slice_sizes": tuple(sizes)}


def dynamic_update_slice(site: Site) -> Access:
    """Follow the axes replaced whole, of both operands; the others are read as a whole."""
    whole = [a for a, dim in enumerate(site.shapes[1]) if dim == site.result[a]]
    follows = tuple(Follow(a) if a in whole else None for a in range(len(site.result)))
    return Access((follows, follows, *((),) * (len(site.shapes) - 2)))


def scatter(site: Site) -> Access:
    """Follow the axes replaced whole to their place in the updates; read the indices whole."""
    numbers = site.params["dimension_numbers"]
    gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    places = iter(numbers.update_window_dims)
    _, indices, updates = site.shapes
    operand: list[Follow | None] = [None] * len(site.result)
    update: list[Follow | None] = [None] * len(updates)
    for axis, dim in enumerate(site.result):
        place = next(places) if axis not in gone else None
        indexed = axis in numbers.scatter_dims_to_operand_dims
        if place is not None and updates[place] == dim and not indexed:
            operand[axis] = update[place] = Follow(axis)
    return Access((tuple(operand), (None,) * len(indices), tuple(update)))


def gather(site: Site) -> Access:
    """Follow axes taken whole to their place among the offset axes, and known indices to theirs.

    A window of what known indices take reads the region between the least and the largest of them;
    in the region, they count from its first index.
    """
    numbers, sizes = site.params["dimension_numbers"], site.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    places = iter(numbers.offset_dims)
    image: list[Follow | None] = []
    for axis, dim in enumerate(site.shapes[0]):
        place = next(places) if axis not in gone else None
        free = sizes[axis] == dim and axis not in numbers.start_index_map
        image.append(Follow(place) if free and place is not None else None)
    indices: list[Follow | None] = [None] * len(site.shapes[1])
    known = site.value(site.operands[1]) if not numbers.operand_batching_dims else None
    for column, axis in enumerate(numbers.start_index_map):
        if known is None:
            break
        found = _varies_along(known[..., column]) if axis in numbers.collapsed_slice_dims else None
        if found is not None and 0 <= found[1].min() and found[1].max() < site.shapes[0][axis]:
            batch = [a for a in range(len(site.result)) if a not in numbers.offset_dims]
            to, taken = batch[found[0]], found[1]
            repeats = _repeats(site) and _taking(taken, site.shapes[0][axis])
            image[axis] = Follow(to, repeats or Table(taken, taken))
            indices[found[0]] = Follow(to)
    return Access((tuple(image), tuple(indices)), run=_gather_at(site, image))


def _varies_along(values: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return the one axis along which known indices vary, and the indices along it."""
    axes = [a for a, dim in enumerate(values.shape) if dim > 1]
    for axis in axes or range(min(1, values.ndim)):
        line = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        if (line == line[0]).all():
            return axis, line[0].astype(int)
    return None


def _repeats(site: Site) -> bool:
    """Say whether one list of indices is taken along one axis, which may be repeated instead."""
    return len(site.params["dimension_numbers"].start_index_map) == 1 and len(site.shapes[1]) == 2


def _taking(taken: np.ndarray, dim: int) -> Stencil | None:
    """Return what indices read that repeat each input equally often; None: other indices."""
    up, rest = divmod(len(taken), dim)
    repeats = rest == 0 and up > 1 and (taken == np.arange(len(taken)) // up).all()
    return Stencil(up=up) if repeats else None


def _gather_at(site: Site, image_axes: list[Follow | None]) -> Run:
    numbers, p = site.params["dimension_numbers"], site.params
    options = {name: p[name] for name in OPTIONS}
    taken = image_axes[numbers.start_index_map[0]] if _repeats(site) else None

    def run(resize: Resize, args: list[Any], places: Places) -> list[Any]:
        image, indices = args
        if taken is not None and taken.reads.up > 1:  # faster than XLA's gather
            (axis,) = numbers.start_index_map
            repeated = jnp.repeat(image, taken.reads.up, axis)
            return [jnp.moveaxis(repeated, axis, taken.axis)]
        first = [places[1].get(axis, 0) for axis in numbers.start_index_map]
        if places[1].keys() & set(numbers.start_index_map):
            origin = jnp.stack([jnp.asarray(f, indices.dtype) for f in first])
            last = indices.ndim - 1
            indices = indices - lax.broadcast_in_dim(origin, indices.shape, (last,))
        whole = [a for a, size in enumerate(p["slice_sizes"]) if size == site.shapes[0][a]]
        taking = set(numbers.collapsed_slice_dims)
        sizes = [
            resize.shapes[0][a] if a in whole and a not in taking else size
            for a, size in enumerate(p["slice_sizes"])
        ]
        return [lax.gather(image, indices, numbers, sizes, **options)]

    return run
