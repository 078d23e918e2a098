"""The layers of a model by their weights, in the order in which its scores read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxviz.jaxpr.walk import trace
from jaxviz.layers import as_scorer

INSIDE = {"value", "raw_value"}  # of a Flax variable: no name of a layer
COLLECTIONS = {"params", "batch_stats"}  # of Linen: one layer has arrays in both


@dataclass(frozen=True)
class Weights:
    """A model's float arrays, by layer.

    Attributes:
        arrays: all of them.
        layers: {name: which arrays}, in the order in which the scores read them; those that they
            do not read are left out.
        rebuild: arrays -> the model with these.
    """

    arrays: list[Any]
    layers: dict[str, list[int]]
    rebuild: Callable[[Sequence[Any]], Any]

    def shuffled(
        self, names: Sequence[str], key: jax.Array, done: dict[int, Any] | None = None
    ) -> Any:
        """Return the model with the arrays of some layers in random order, by each layer's key.

        Args:
            names: of the layers.
            key: random key.
            done: arrays that were put in random order before, by the identity of the original,
                which are taken as they are; those of this call are added.
        """
        arrays, done = list(self.arrays), {} if done is None else done
        for number, name in enumerate(self.layers):
            own = jax.random.fold_in(key, number)
            for place, at in enumerate(self.layers[name] if name in names else []):
                known = id(self.arrays[at])  # tied weights stay tied
                if known not in done:
                    each = jax.random.fold_in(own, place)
                    done[known] = _shuffle(self.arrays[at], each)
                arrays[at] = done[known]
        return self.rebuild(arrays)


def _shuffle(array: Any, key: jax.Array) -> jax.Array:
    # On the host, so that nothing is compiled for each shape.
    words = np.asarray(jax.random.key_data(key)).tolist()
    mixed = np.random.default_rng(words).permutation(np.ravel(array))
    return jnp.asarray(mixed.reshape(np.shape(array)), device=getattr(array, "sharding", None))


def weights_of(model: Any, image: jax.ShapeDtypeStruct) -> Weights:
    """Take a model's weights apart.

    Args:
        model: a pytree that can be called on images, such as an `nnx.Module`, or (Linen module,
            variables).
        image: shape and dtype of a batch of images (N, H, W, C).

    Raises:
        ValueError: it holds no float array that the scores read.
    """
    linen_module = model[0] if isinstance(model, tuple) else None
    tree = model if linen_module is None else model[1]
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [leaf for _, leaf in found]
    at = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]

    def rebuild(arrays: Sequence[Any]) -> Any:
        filled = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            filled[i] = array
        made = structure.unflatten(filled)
        return made if linen_module is None else (linen_module, made)

    arrays = [leaves[i] for i in at]
    names = [_name(found[i][0], isinstance(linen_module, linen.Module)) for i in at]
    layers: dict[str, list[int]] = {}
    for i in _by_use(rebuild, arrays, image):
        layers.setdefault(names[i], []).append(i)
    if not layers:
        raise ValueError(
            "`model` must hold the weights that its scores read, as a pytree such as an nnx.Module"
            f" or as (Linen module, variables): got a {type(model).__name__} without any."
        )
    return Weights(arrays, layers, rebuild)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _name(path: tuple[Any, ...], is_linen: bool) -> str:
    keys = [next(getattr(k, a) for a in ("key", "name", "idx") if hasattr(k, a)) for k in path]
    while keys and keys[-1] in INSIDE:
        keys.pop()
    if is_linen and keys[0] in COLLECTIONS:
        keys = keys[1:]
    # The last one names the array in its layer; where it stands alone, or in a list, it is one.
    inside = len(keys) > 1 and isinstance(keys[-1], str)
    return ".".join(map(str, keys[:-1] if inside else keys))


def _by_use(
    rebuild: Callable[[Sequence[Any]], Any], arrays: list[Any], image: jax.ShapeDtypeStruct
) -> list[int]:
    """Which arrays the scores read, in the order in which they are first read."""
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    flat = trace(lambda given, x: as_scorer(rebuild(given))(x), shapes, image).flat
    own = {number: i for i, number in enumerate(flat.inputs[:-1])}
    used = [o for e in flat.equations for o in e.operands if isinstance(o, int) and o in own]
    return [own[number] for number in dict.fromkeys(used)]
