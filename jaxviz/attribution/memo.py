"""What was compiled for a scorer, found again without tracing the method, which takes longest.

A model, an `nnx.Module`, is known by itself and by its structure: as `jax.jit` has it, what its
code reads besides is taken to stay, and it is not traced again. One that compares by value is known
by that, whichever object it is. A function is known by itself and by its content: it alone is
traced at each run, which finds what its closures hold by now; only derivative rules of its own are
taken to stay. Arrays are arguments, read anew at every run.
"""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from jaxviz.attribution.kernel import Seen
from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import Cache
from jaxviz.jaxpr.compiled import Ahead
from jaxviz.scoring.scorer import Lifted, SplitScorer

MOST = 64  # programs of one scorer


class _Kept(NamedTuple):
    """A program, without the arrays that it brought along.

    Attributes:
        made: the program.
        captured: which of the scorer's these were; None: others, that cannot be found again.
        notes: what its tracing noted.
    """

    made: Ahead
    captured: list[int] | None
    notes: list[Any]


class Traits(NamedTuple):
    """What is told by a scorer's equations.

    Attributes:
        scores: shape of one image's scores.
        depthwise: whether some convolution has groups of channels.
    """

    scores: tuple[int, ...]
    depthwise: bool


class Memo(NamedTuple):
    """What is known of one scorer, at one shape of images.

    Attributes:
        programs: compiled; None: nothing is kept.
        identity: what the scorer computes, whatever its arrays hold.
        captured: the arrays that its closures hold now.
        traits: what follows from one trace of it.
    """

    programs: "Cache[_Kept] | None"
    identity: Hashable
    captured: list[jax.Array]
    traits: Traits

    def program(
        self, what: Hashable, arguments: Any, make: Callable[[], Ahead], seen: Seen
    ) -> Ahead:
        """Return the program for arguments like these; `seen` is what its tracing noted."""
        if self.programs is None:
            return make()
        new: list[Ahead] = []

        def keep() -> _Kept:
            new.append(make())
            return _Kept(new[0].on([]), self._places(new[0].captured), list(seen.notes))

        leaves, tree = jax.tree.flatten(arguments)
        shapes = tuple(
            (jax.typeof(x), str(getattr(x, "sharding", None))) for x in (*leaves, *self.captured)
        )
        key = (self.identity, what, tree, shapes, _surroundings())
        kept = self.programs.get(key, keep)
        if new or kept.captured is None:
            return (new or [make()])[0]
        seen.notes[:] = kept.notes
        return kept.made.on([self.captured[place] for place in kept.captured])

    def _places(self, arrays: list[Any]) -> list[int] | None:
        places = {id(array): place for place, array in enumerate(self.captured)}
        found = [places.get(id(array)) for array in arrays]
        return None if None in found else found  # pyright: ignore[reportReturnType]


class _Model(NamedTuple):
    programs: Cache[_Kept]
    traits: Cache[Traits]


_models: WeakKeyDictionary[Any, _Model] = WeakKeyDictionary()
_functions: WeakKeyDictionary[Any, Cache[_Kept]] = WeakKeyDictionary()


def memo_of(scorer: Any, parts: SplitScorer, images: np.ndarray) -> Memo:
    """Return what is known of a scorer, for as long as it lives."""
    shape = (1, *images.shape[1:])
    if isinstance(scorer, nnx.Module):
        model = type(scorer) if parts.by_value else scorer
        if model not in _models:
            _models[model] = _Model(_cache(), Cache[Traits](MOST, lambda traits: 1))
        known, key = _models[model], (parts.call, shape, str(images.dtype), _surroundings())
        traits = known.traits.get(key, lambda: _traits(parts.at(shape, images.dtype)))
        return Memo(known.programs, parts.call, [], traits)
    lifted = parts.at(shape, images.dtype)
    captured, lasting = lifted.arrays[len(parts.arrays) :], _lasting(scorer)
    if lasting is None or not isinstance(lifted.content, str):
        return Memo(None, None, captured, _traits(lifted))
    programs = _functions.setdefault(lasting, _cache())
    return Memo(programs, lifted.content, captured, _traits(lifted))


def _cache() -> Cache[_Kept]:
    return Cache[_Kept](MOST, lambda kept: 1)


def _traits(lifted: Lifted) -> Traits:
    flat = lifted.call.flat
    return Traits(flat.aval(flat.outputs[0]).shape[1:], lifted.call.depthwise)


def _lasting(f: Any) -> Any:
    """What of a scorer is the same object at the next call, its code; None: nothing."""
    if isinstance(f, Partial | functools.partial):
        return _lasting(f.func)
    if inspect.ismethod(f):
        return _lasting(f.__self__)
    try:
        _functions.get(f)  # a weak reference and a hash are possible
    except TypeError:
        return None
    return f


def _surroundings() -> Hashable:
    config: Any = jax.config
    return settings(), str(config.jax_default_device), config.jax_disable_jit
