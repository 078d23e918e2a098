"""Kernels of class activation maps: a map of each layer asked for, and several made one.

A is a layer's output of one image, (H', W', C'), G = ∂s/∂A. Everything below the layer runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._choices import Fuse, Upsample
from jaxviz.attribution.cut import Cut, cut
from jaxviz.attribution.goal import Goal
from jaxviz.attribution.kernel import Found, Seen, check_real, differentiate
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.resize import axis_weights
from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.cpu_gradient import quick_rules
from jaxviz.layers import Layer

Layers = Layer | Sequence[Layer]
Weigh = Callable[[jax.Array, jax.Array], jax.Array]  # (A, G) -> (H', W')


static: Any = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cam:
    """A map Σ_c of something of A and G, for each layer.

    Attributes:
        weigh: (A, G), both float32 (H', W', C'), -> (H', W').
        layers: which; None is the last with positions.
        fuse: how the maps of several become one.
        gradient: whether G is needed at all.
        seen: the names of the layers, once it is traced.
    """

    weigh: Weigh
    layers: tuple[Layer, ...] = field(metadata=static)
    fuse: Fuse = field(default="mean", metadata=static)
    gradient: bool = field(default=True, metadata=static)
    seen: Seen = field(default_factory=Seen, metadata=static)

    def __call__(self, f: Any, image: jax.Array, goal: Goal) -> Found:
        """Return the map (H', W', 1) of one image."""
        cuts, base = cut(f, image, self.layers, quick_rules(platform_of(image)))
        self.seen.notes[:] = [part.name for part in cuts]
        check_real(base)
        goal = goal.fix(base)
        maps = [self.weigh(*wide(part.output, self._slope(part, goal))) for part in cuts]
        return Found(fused(maps, self.fuse)[..., None], base)

    def _slope(self, part: Cut, goal: Goal) -> jax.Array:
        if not self.gradient:
            return part.output

        def explained(output: jax.Array) -> tuple[jax.Array, None]:
            return goal(part.rest(part.known, output)[None])[0], None

        return differentiate(explained, part.output)[0]


def wide(*arrays: jax.Array) -> list[jax.Array]:
    """Return arrays in float32 at least: products of half-precision numbers underflow."""
    return [x if x.dtype == jnp.float64 else x.astype(jnp.float32) for x in arrays]


def fused(maps: Sequence[jax.Array], fuse: Fuse) -> jax.Array:
    """Return one map: each divided by its largest |value|, enlarged to the largest, joined."""
    if len(maps) == 1:
        return maps[0]
    size = tuple(max(m.shape[axis] for m in maps) for axis in (0, 1))
    same = jnp.stack([enlarged(_scaled(m), size, "bilinear") for m in maps])
    return same.mean(0) if fuse == "mean" else same.max(0)


def _scaled(values: jax.Array) -> jax.Array:
    largest = jnp.abs(values).max()
    return values / jnp.where(largest == 0, jnp.ones_like(largest), largest)


def enlarged(maps: jax.Array, size: tuple[int, ...], way: Upsample) -> jax.Array:
    """Resize maps (H', W', ...) to (H, W, ...), traced; see `resize`."""
    rows, cols = (
        jnp.asarray(axis_weights(n, m, way), maps.dtype)
        for n, m in zip(maps.shape[:2], size, strict=True)
    )
    return jnp.einsum("ij,jk...,lk->il...", rows, maps, cols, precision="highest")


def checked_layers(layer: Layers, fuse: Fuse) -> tuple[Layer, ...]:
    """Return the layers asked for; the word for their fusion is checked.

    Raises:
        ValueError: there is none, or the word is unknown.
    """
    if fuse not in get_args(Fuse):
        raise ValueError(f'`fuse` must be "mean" or "max": got {fuse!r}.')
    if layer is None or isinstance(layer, str | int | np.integer):
        return (layer,)
    if not layer:
        raise ValueError("`layer` must name at least one layer: got none.")
    return tuple(layer)


def reading_of(reading: MapReading | None, upsample: Upsample | None) -> MapReading:
    """Return how maps of a layer are read: as a preset has it, or enlarged in a way."""
    if reading is None:
        return MapReading(upsample=upsample)
    if not isinstance(reading, MapReading):
        raise TypeError(f"`reading` must be a MapReading: got a {type(reading).__name__}.")
    return reading


def rectified(values: jax.Array, rectify: bool = True) -> jax.Array:
    """Return max(v, 0), or v."""
    return jnp.maximum(values, jnp.zeros_like(values)) if rectify else values


def by_channel(weights: jax.Array, a: jax.Array) -> jax.Array:
    """Return Σ_c w_c · A_c, (H', W')."""
    return (weights[None, None] * a).sum(-1)


def ratio(over: jax.Array, under: jax.Array, where: jax.Array) -> jax.Array:
    """Return a quotient, 0 where it is not taken."""
    safe = jnp.where(where, under, jnp.ones_like(under))
    return jnp.where(where, over / safe, jnp.zeros_like(over))
