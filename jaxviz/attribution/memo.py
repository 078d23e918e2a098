"""What was compiled for a model, found again without tracing it: tracing costs more than running.

A model, an `nnx.Module`, is known by itself and by its structure: as `jax.jit` has it, what its
code reads besides is taken to stay. Its arrays are arguments, read anew at every run. Functions are
traced again at each, as everywhere in the package, and so are models that bring other arrays along.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np
from flax import nnx

from jaxviz.attribution.kernel import Seen
from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.compiled import Ahead
from jaxviz.scoring.scorer import SplitScorer

MOST = 64  # programs of one model


class _Kept(NamedTuple):
    made: Ahead
    notes: list[Any]


class Memo:
    """What is known of one scorer; of one that does not last, nothing is kept.

    Args:
        lasting: whether what is found is kept.
    """

    def __init__(self, *, lasting: bool) -> None:
        self._programs = Cache[_Kept](MOST, lambda kept: 1) if lasting else None
        self._scores = Cache[tuple[int, ...]](MOST, lambda shape: 1) if lasting else None

    def program(
        self, what: Hashable, arguments: Any, make: Callable[[], Ahead], seen: Seen
    ) -> Ahead:
        """Return the program for arguments like these; `seen` is what its tracing noted."""

        def keep() -> _Kept:
            made = make()
            return _Kept(made, list(seen.notes))

        if self._programs is None:
            return keep().made
        leaves, tree = jax.tree.flatten(arguments)
        shapes = tuple((jax.typeof(x), str(getattr(x, "sharding", None))) for x in leaves)
        key = (what, tree, shapes, _surroundings())
        kept = self._programs.get(key, keep)
        if kept.made.captured:  # arrays that it brought along may be others by now
            return keep().made
        seen.notes[:] = kept.notes
        return kept.made

    def scores(self, parts: SplitScorer, images: np.ndarray) -> tuple[int, ...]:
        """Return the shape of one image's scores."""
        one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)

        def find() -> tuple[int, ...]:
            return jax.eval_shape(parts.call, parts.arrays, one).shape[1:]

        if self._scores is None:
            return find()
        return self._scores.get((parts.call, one.shape, str(one.dtype), _surroundings()), find)


_memos: WeakKeyDictionary[Any, Memo] = WeakKeyDictionary()


def memo_of(scorer: Any) -> Memo:
    """Return what is known of a scorer, for as long as it lives."""
    if not isinstance(scorer, nnx.Module):
        return Memo(lasting=False)
    if scorer not in _memos:
        _memos[scorer] = Memo(lasting=True)
    return _memos[scorer]


def _surroundings() -> Hashable:
    config: Any = jax.config
    return settings(), str(config.jax_default_device), config.jax_disable_jit
