"""A callable taken apart: its arrays, and the rest, which holds none."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial


@dataclass(frozen=True)
class Skeleton:
    """A callable without its arrays; equal for callables of one structure.

    Attributes:
        treedef: the structure of the callable's pytree.
        leaves: its leaves, None for the arrays.
        is_array: which of the leaves are arrays.
    """

    treedef: Any
    leaves: tuple[Any, ...]
    is_array: tuple[bool, ...]

    def fill(self, arrays: Sequence[Any]) -> Callable[..., Any]:
        """Put the callable together again, on these arrays."""
        supply = iter(arrays)
        pairs = zip(self.leaves, self.is_array, strict=True)
        return self.treedef.unflatten([next(supply) if array else leaf for leaf, array in pairs])

    def __hash__(self) -> int:
        try:
            return hash((self.treedef, self.leaves, self.is_array))
        except TypeError:  # something static in the callable cannot be hashed: comparing decides
            return hash(self.is_array)


def as_callable(f: Any) -> Any:
    """Return the function that something stands for: `(linen_module, variables)` becomes one.

    Raises:
        TypeError: it is a Linen module without its variables.
    """
    if type(f) is tuple and len(f) == 2 and callable(getattr(f[0], "apply", None)):
        return Partial(f[0].apply, f[1])
    linen = sys.modules.get("flax.linen")  # whoever has such a module has imported it
    module: Any = f.__self__ if inspect.ismethod(f) and f.__name__ == "apply" else f
    if linen is not None and isinstance(module, linen.Module) and module.scope is None:
        raise TypeError(
            "`f` must have its variables: got a Linen module without them; give (module,"
            " variables), or jax.tree_util.Partial(module.apply, variables)."
        )
    return f


def as_node(f: Any) -> Any:
    """Return a callable that may stand among a pytree's nodes: a plain function is wrapped."""
    return Partial(f) if jax.tree_util.all_leaves([f]) else f


def split_arrays(f: Callable[..., Any]) -> tuple[list[Any], Skeleton]:
    """Split a callable into its arrays, JAX's and NumPy's, and the rest."""
    leaves, treedef = jax.tree.flatten(as_model(as_callable(f)))
    is_array = tuple(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
    pairs = list(zip(leaves, is_array, strict=True))
    others = tuple(None if array else leaf for leaf, array in pairs)
    return [leaf for leaf, array in pairs if array], Skeleton(treedef, others, is_array)


def as_model(f: Any) -> Any:
    """Return a model of Keras as one of ours, if its layers are known; anything else as it is.

    One whose channels come first becomes one that takes images (N, H, W, C), as all scorers do.
    """
    if hasattr(f, "to_json"):
        from jaxviz.keras.live import converted, is_live

        f = (converted(f) if is_live(f) else None) or f
    if hasattr(f, "with_channels_last") and f.data_format == "channels_first":
        from jaxviz.keras.orders import channels_last

        return channels_last(f)
    return f
