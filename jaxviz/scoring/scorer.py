"""What may be scored: any callable from images (N, H, W, C) to scores (N, K).

`split` takes a scorer apart into its arrays and a pure function of them, and `SplitScorer.at` into
equations, in which the arrays that closures hold are arguments as well. So weights are never baked
into a program as constants, nothing is out of date, and a model that was trained further, or
another one of the same content, runs the program that is there.
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxviz.jaxpr._jax import settings
from jaxviz.jaxpr.cache import BYTES_AN_EQUATION, Cache
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.fold import fold
from jaxviz.jaxpr.hoist import split_flat
from jaxviz.jaxpr.split import Skeleton, as_callable, as_model, split_arrays
from jaxviz.jaxpr.walk import Flat, run, trace

Scorer = Callable[[jax.Array], jax.Array]
BYTES_OF_TEXT = 1 << 10  # an equation of a flat function takes, about


@dataclass(frozen=True)
class Call:
    """A scorer without its arrays; equal for scorers of one structure."""

    skeleton: Skeleton

    def __call__(self, arrays: Sequence[jax.Array], images: jax.Array) -> jax.Array:
        """Score images (N, H, W, C) -> (N, ..., K), in the dtype of the images.

        Raises:
            TypeError: the scorer needs NumPy arrays.
            ValueError: what it returns are no scores.
        """
        try:
            with trained_told():
                scores = self.skeleton.fill(arrays)(images)
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                "`f` must be made of JAX operations, but turns its images into NumPy arrays, as"
                " `predict` of Keras does: give the model itself."
            ) from error
        check_output(scores, images.shape[0])
        return scores


class TrainingError(ValueError):
    """A Linen module is in training mode."""


@contextlib.contextmanager
def trained_told() -> Iterator[None]:
    """Say that a Linen module is in training mode where it asks for a key, or to be changed."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in ("InvalidRngError", "ModifyScopeVariableError"):
            raise
        raise TrainingError(
            "`f` must be in inference mode: got a Linen module that wants random keys, or to change"
            " its variables; pass `train=False`, `deterministic=True` or"
            " `use_running_average=True`."
        ) from error


class Lifted(NamedTuple):
    """A scorer at one shape of images: equations without any array of the user's.

    Attributes:
        call: (arrays, images) -> scores; pure, holds no object of the user's.
        arrays: the scorer's own, then those that its closures hold.
        content: equal for scorers that compute the same, whatever their arrays hold.
    """

    call: "Equations"
    arrays: list[jax.Array]
    content: Hashable


@dataclass(frozen=True)
class Equations:
    """A scorer's equations as a function of its arrays; derivative rules of its own are lost."""

    flat: Flat

    def __call__(self, arrays: Sequence[jax.Array], images: jax.Array) -> jax.Array:
        """Score images of the one shape that was traced."""
        own = len(self.flat.inputs) - 1
        (scores,) = run(self.flat, arrays[own:], [*arrays[:own], images])
        return scores

    @property
    def depthwise(self) -> bool:
        """Say whether some convolution has groups of channels."""
        return any(e.params.get("feature_group_count", 1) > 1 for e in self.flat.equations)


@dataclass(frozen=True, eq=False)
class SplitScorer:
    """A scorer as arrays and a pure function of them.

    Attributes:
        arrays: the scorer's arrays.
        call: (arrays, images (N, H, W, C)) -> scores (N, ..., K).
        name: for the record of a run.
        sharding: where captured arrays are put; None: they stay where they are.
        by_value: whether what it computes follows from its arrays and from what `call` compares
            by, so that it need not be traced again.
    """

    arrays: list[jax.Array]
    call: Call
    name: str
    sharding: Any = None
    by_value: bool = False
    _lifted: dict[Hashable, Lifted] = field(default_factory=dict, init=False, repr=False)
    _folded: dict[Hashable, Lifted] = field(default_factory=dict, init=False, repr=False)
    _made: dict[Hashable, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)
    _once: list[tuple[Any, Any, Any]] = field(default_factory=list, init=False, repr=False)

    @functools.cached_property
    def device(self) -> jax.Device:
        """The device that holds the arrays, the first of several; the default if none was told."""
        placed = [a for a in self.arrays if isinstance(a, jax.Array) and a.committed]
        # Where an array goes that nobody placed: `jax.default_device` decides.
        somewhere = placed[0] if placed else jax.device_put(np.float32(0))
        return min(somewhere.devices(), key=lambda device: device.id)

    def at(self, shape: tuple[int, ...], dtype: Any) -> Lifted:
        """Return the scorer at a shape (N, H, W, C) of images, traced once for this object."""
        key = (shape, str(dtype), settings())
        if key not in self._lifted:
            self._lifted[key] = self._lift(jax.ShapeDtypeStruct(shape, dtype))
        return self._lifted[key]

    def folded_at(self, shape: tuple[int, ...], dtype: Any) -> Lifted:
        """Return it as `at` does, with batch normalisation in the kernels, which come as arrays."""
        key = (shape, str(dtype), settings())
        if key not in self._folded:
            self._folded[key] = self._fold(self.at(shape, dtype))
        return self._folded[key]

    def once(self, arrange: Callable[[list[jax.Array]], Any], arrays: list[jax.Array]) -> Any:
        """Return what a function makes of the scorer's arrays: called once for this object."""
        for known, of, value in self._once:
            if known is arrange and of is arrays:
                return value
        value = arrange(arrays)
        self._once[:] = [(arrange, arrays, value)]  # one: a run goes on with one program
        return value

    def _lift(self, images: jax.ShapeDtypeStruct) -> Lifted:
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.arrays]
        traced = functools.partial(_trace, self.call, shapes, images)
        key = (self.call, *((a.shape, a.dtype) for a in (*shapes, images)), settings())
        flat, known, captured = _traced.get(key, traced) if self.by_value else traced()
        if self.sharding is not None:
            captured = jax.device_put(captured, self.sharding)
        return Lifted(Equations(flat), [*self.arrays, *map(_on_device, captured)], known)

    def _fold(self, lifted: Lifted) -> Lifted:
        make = functools.partial(_fold, lifted.call.flat)
        known = isinstance(lifted.content, str)
        parts = _parts.get(lifted.content, make) if known else make()
        if parts.ready is None:
            return lifted
        own = len(lifted.call.flat.inputs) - 1
        captured = lifted.arrays[own:]
        # Images of another shape, or another number of them, want the same kernels.
        key = (parts.content, *map(id, captured))
        if key not in self._made:
            with jax.disable_jit(False):
                made = parts.ready(captured, lifted.arrays[:own])
            made = made if self.sharding is None else jax.device_put(made, self.sharding)
            self._made[key] = (made, captured)  # which keeps what the key tells by its address
        arrays = [*lifted.arrays[:own], *self._made[key][0], *captured]
        return Lifted(Equations(parts.rest), arrays, ("folded", lifted.content))


class _Parts(NamedTuple):
    """What makes kernels of a scorer's arrays, None if nothing; its content; and the rest."""

    ready: Any
    content: Hashable
    rest: Flat

    @property
    def bytes(self) -> int:
        return BYTES_AN_EQUATION * len(self.rest.equations)


def _fold(flat: Flat) -> _Parts:
    folded = fold(flat, flat.inputs[-1:])
    if folded is flat:
        return _Parts(None, None, flat)
    first, second = split_flat(folded, len(flat.inputs) - 1, least=0)
    ready = jax.jit(lambda captured, arrays: run(first, captured, arrays))
    try:
        return _Parts(ready, content(first), second)
    except UnknownContentError:
        return _Parts(ready, object(), second)


_parts = Cache[_Parts](1 << 28, lambda parts: parts.bytes)


def _trace(call: Call, *shapes: Any) -> tuple[Flat, Hashable, list[Any]]:
    """Return a scorer's equations, their content, and the arrays that closures hold."""
    _, flat, captured, _ = trace(call, *shapes, open_derivatives=True)
    try:
        return flat, content(flat), captured
    except UnknownContentError:  # a callback, which may be another one each time
        return flat, object(), captured


def _bytes(traced: tuple[Flat, Hashable, list[Any]]) -> int:
    flat, _, captured = traced
    return BYTES_OF_TEXT * len(flat.equations) + sum(array.nbytes for array in captured)


_traced = Cache[tuple[Flat, Hashable, list[Any]]](1 << 24, _bytes)


def split(f: Scorer) -> SplitScorer:
    """Take a scorer apart.

    Args:
        f: a pytree that can be called (`nnx.Module`, `jax.tree_util.Partial`, an Equinox module),
            (Linen module, variables), a Keras model, a bound method of one of
            these, or a plain function. What a plain function closes over is read at every call of
            ours, and never compiled in.

    Returns:
        The parts.

    Raises:
        TypeError: `f` cannot be called.
        ValueError: `f` is a Keras model with layers that are not known, on another backend than
            JAX.

    Example:
        >>> parts = split(Partial(lambda weight, images: images.mean((1, 2)) * weight, jnp.ones(3)))
        >>> [array.shape for array in parts.arrays]
        [(3,)]
    """
    f = as_callable(f)
    if not callable(f):
        raise TypeError(f"`f` must be callable, images -> scores: got a {type(f).__name__}.")
    tree = _as_pytree(f)
    arrays, skeleton = split_arrays(tree)
    arrays = list(map(_on_device, arrays))
    by_value = vars(type(tree)).get("compares_by_value", False)  # what derives from it may not
    return SplitScorer(arrays, Call(skeleton), _describe(f), by_value=by_value)


def _on_device(array: Any) -> jax.Array:
    # What is one already need not be asked for: that takes a tenth of a millisecond.
    return array if isinstance(array, jax.Array) else jnp.asarray(array)


def image_shape_of(f: Any) -> Any:
    """Return the (H, W, C) that a model tells of its images, sizes None where open; else None."""
    f = as_model(f)
    shape = getattr(f, "image_shape", None)
    return shape if shape is not None else getattr(f, "input_shape", None)


def _as_pytree(f: Any) -> Any:
    f = as_model(f)
    if hasattr(f, "stateless_call") and hasattr(f, "trainable_variables"):
        backend = sys.modules["keras"].backend.backend()
        if backend != "jax":
            raise ValueError(
                "`f` is a Keras model and must run on JAX (set KERAS_BACKEND=jax before Keras is"
                f" imported): got {backend}."
            )
        variables = [
            [v.value for v in f.trainable_variables],
            [v.value for v in f.non_trainable_variables],
        ]
        return Partial(_KerasCall(f), *variables)
    if isinstance(f, functools.partial) and not isinstance(f, Partial):
        return Partial(f.func, *f.args, **f.keywords)
    if inspect.ismethod(f) and not jax.tree_util.all_leaves([f.__self__]):
        return Partial(f.__func__, f.__self__)
    return f


def cast(scorer: SplitScorer, images: np.ndarray, dtype: Any) -> tuple[SplitScorer, np.ndarray]:
    """Return a scorer and images in a floating dtype, the dtype of the pass; None: as they are."""
    if dtype is None:
        return scorer, images
    is_float = [jnp.issubdtype(array.dtype, jnp.floating) for array in scorer.arrays]
    pairs = zip(scorer.arrays, is_float, strict=True)
    arrays = [a.astype(dtype) if real else a for a, real in pairs]
    return replace(scorer, arrays=arrays), images.astype(dtype)


class _KerasCall:
    """A Keras model as a function of its variables; equal for the same model."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(self, trainable: list, fixed: list, images: jax.Array) -> jax.Array:
        # Keras mixes dtypes and ranks freely; it is not held to the caller's strictness.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return self.model.stateless_call(trainable, fixed, images, training=False)[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _KerasCall) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def _describe(f: Any) -> str:
    if isinstance(f, Partial):
        return f"Partial({_describe(f.func)})"
    return getattr(f, "__qualname__", None) or getattr(f, "name", None) or type(f).__name__


def check_output(scores: Any, rows: int) -> None:
    """Raise ValueError unless `scores` (an array or its shape) has one row of scores per image."""
    shape = getattr(scores, "shape", None)
    if shape is None:
        raise ValueError(
            "`f` must return one array of scores (N, K):"
            f" got a {type(scores).__name__}; pick one output."
        )
    if len(shape) < 2 or shape[0] != rows:
        hint = "; give (N, 1) for a single score" if shape == (rows,) else ""
        raise ValueError(
            f"`f` must return scores (N, K), a row per image: got {shape} for {rows} images{hint}."
        )
    if 0 in shape[1:]:
        raise ValueError(f"`f` must return a score at least: got {shape} for {rows} images.")
    if jnp.issubdtype(scores.dtype, jnp.complexfloating):
        raise ValueError(
            f"`f` must return real scores: got {scores.dtype}; give jnp.abs(scores), or the real"
            " and the imaginary part as two scores."
        )
