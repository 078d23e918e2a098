"""Read layer outputs by name, of adapter models, Flax modules and tagged functions.

The names of a scorer's layers:

- a model with an `activations` method (`load_keras`): its `layer_names`;
- an NNX module: the attribute path of each submodule, `"block.conv"`, `"layers.0"`;
- a Linen module, as `Partial(module.apply, variables)` or `(module, variables)`: the path of each
  submodule;
- a function of Haiku: the `module_name` of each module, "res_net18/~/initial_conv";
- anything else: the names given inside it with `tag`. Tags also work inside modules.

A submodule or tag that runs more than once adds `"#2"`, `"#3"`, … A layer is addressed by name, by
its index in this order, or by None for the scorer's own output. Images are (batch, height, width,
channel), and so are the outputs of convolutions.
"""

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

from jaxviz._names import numbered
from jaxviz.jaxpr.compiled import compiled
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.jaxpr.split import as_model, split_arrays
from jaxviz.jaxpr.walk import Flat, replay, trace
from jaxviz.scoring.arguments import as_pixels
from jaxviz.scoring.independence import check_independence
from jaxviz.scoring.scorer import Call, Scorer, split

Layer = str | int | None
ScorerLike = Scorer | tuple[linen.Module, Any]


def tag(name: str, value: jax.Array) -> jax.Array:
    """Name an intermediate value, so that `activations` and objectives find it.

    The value passes unchanged: tag(name, v) = v.

    Args:
        name: the layer's name.
        value: the layer's output, any shape.

    Returns:
        `value`.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> def f(images):
        ...     hidden = jv.tag("squares", images**2)
        ...     return hidden.sum((1, 2))
        >>> jv.activations(f, jnp.full((1, 2, 2, 1), 3.0))["squares"].shape
        (1, 2, 2, 1)
    """
    return checkpoint_name(value, name)


def activations(
    model: ScorerLike, images: jax.Array | np.ndarray, layers: Sequence[Layer] | Layer = None
) -> dict[str, jax.Array]:
    """Return what every layer, or each layer asked for, puts out: one forward pass.

    Args:
        model: a scorer, see the module's text for which layers it has.
        images: (N, H, W, C), or as the model itself takes them, in the units it expects.
        layers: names or indices, one or a sequence; None for all. Only what they need is computed.

    Returns:
        {layer name: array with leading axis N}, in the order of evaluation or as asked.

    Raises:
        ValueError: the images have no batch axis, the outputs of one depend on the others or on
            chance, or a layer is unknown; the message names the nearest. Or the scorer has no
            layers that can be seen, as one of Equinox.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> f = lambda images: jv.tag("mean", images.mean((1, 2)))
        >>> jv.activations(f, jnp.ones((2, 4, 4, 3)), "mean")["mean"].shape
        (2, 3)
    """
    images = as_pixels(images, "images")
    if np.ndim(images) != 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channel): got "
            f"{np.shape(images)}; add the batch axis with images[None]."
        )
    model = as_scorer(model)
    images = with_channels_last(model, jnp.asarray(images))
    parts = split(model)
    check_independence(parts, images)
    names = layer_names(model, images)
    if layers is None and not names:
        raise ValueError(
            f"`model` must have layers that have names: a {type(model).__name__} has none that can "
            "be seen; name values inside it with jv.tag (of a Keras model: convert it by "
            "jv.from_keras)."
        )
    if layers is not None:
        asked = [layers] if isinstance(layers, str | int) else layers
        names = [_name(model, layer, names) for layer in asked]

    def outputs(arrays: list[jax.Array], images: jax.Array) -> list[jax.Array]:
        found = capture(thaw(parts.call, arrays), images, names)
        return [found[name] for name in names]

    found = compiled(outputs, parts.arrays, images)(parts.arrays, images)
    return dict(zip(names, found, strict=True))


def layer_names(model: ScorerLike, images: jax.Array | np.ndarray) -> list[str]:
    """List the layers of a scorer in order of evaluation, tracing it with the shape of `images`."""
    model = as_scorer(model)
    names = getattr(model, "layer_names", None)
    if names is not None:
        return list(names)
    image = jax.ShapeDtypeStruct(np.shape(images), images.dtype)
    flat = trace(_tagging(model), image).flat
    found = (e.params["name"] for e in flat.equations if e.primitive.name == "name")
    return numbered(found)


def resolve(layer: Layer, names: Sequence[str]) -> str:
    """Return the name of a layer given by name or index.

    Raises:
        ValueError: no such layer.
    """
    if isinstance(layer, int | np.integer):
        if not -len(names) <= layer < len(names):
            raise ValueError(
                f"`layer` must be an index below {len(names)}: got {layer}; the layers are {names}."
            )
        return names[layer]
    if layer not in names:
        near = difflib.get_close_matches(str(layer), names, n=1, cutoff=0.0)
        hint = (
            f"did you mean {near[0]!r}?" if near else "this scorer has none; name one with jv.tag."
        )
        raise ValueError(f"`layer` must name a layer: got {layer!r}; {hint}")
    return str(layer)


def capture(f: ScorerLike, images: jax.Array, layers: Sequence[Layer]) -> dict[Layer, jax.Array]:
    """Return the named outputs of a scorer, None being its own: pure, no jit inside.

    Args:
        f: a scorer.
        images: (N, H, W, C).
        layers: what to return, names, indices, None.

    Returns:
        {layer as asked: array}.

    Raises:
        ValueError: a layer is unknown.
    """
    scorer = as_scorer(f)
    inner = [layer for layer in layers if layer is not None]
    if not inner:
        return {None: scorer(images)} if layers else {}
    names = layer_names(scorer, images)
    asked = {layer: _name(scorer, layer, names) for layer in inner}
    own_activations = getattr(scorer, "activations", None)
    if own_activations is not None:
        wanted, both = (
            list(dict.fromkeys(asked.values())),
            getattr(scorer, "with_activations", None),
        )
        if None in layers and both is not None:
            output, values = both(images, wanted)
        else:
            values = own_activations(images, wanted)
            output = scorer(images) if None in layers else jnp.zeros(())
    else:
        values, output = _run_tagged(scorer, images)
    return {layer: output if layer is None else values[asked[layer]] for layer in layers}


class Located(NamedTuple):
    """A scorer's equations at one shape of images, and which of its arrays are layers' outputs.

    Attributes:
        flat: its inputs are the images; its one output is the scorer's.
        values: of its constants.
        numbers: layer name -> number of its output, in order of evaluation.
    """

    flat: Flat
    values: list[Any]
    numbers: dict[str, int]


def locate(f: ScorerLike, images: jax.Array) -> Located:
    """Trace a scorer once; layers of models nested in an adapter model are named "model/layer".

    Args:
        f: a scorer.
        images: (N, H, W, C), or their shape.
    """
    scorer = as_scorer(f)
    if hasattr(scorer, "with_activations"):
        return _locate_adapted(scorer, images)
    _, flat, values, _ = trace(_tagging(scorer), images)
    tags = [e for e in flat.equations if e.primitive.name == "name"]
    names = numbered(e.params["name"] for e in tags)
    return Located(flat, values, {n: e.results[0] for n, e in zip(names, tags, strict=True)})


def _locate_adapted(model: Any, images: jax.Array) -> Located:
    names: list[str] = []

    def run(images: jax.Array) -> Any:
        output, found = model.with_activations(images, model.layer_names)
        arrays = {name: value for name, value in found.items() if isinstance(value, jax.Array)}
        names[:] = arrays
        return output, list(arrays.values())

    _, flat, values, _ = trace(run, images)
    count = len(flat.outputs) - len(names)
    inner = zip(names, flat.outputs[count:], strict=True)
    numbers = {name: number for name, number in inner if isinstance(number, int)}
    return Located(flat._replace(outputs=flat.outputs[:count]), values, numbers)


def as_scorer(model: ScorerLike) -> Scorer:
    """Return the scorer that something stands for: (linen module, variables), a Keras model."""
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        scorer: Any = Partial(model[0].apply, model[1])
        return scorer
    if not callable(model):
        raise ValueError(
            "`f` must be a callable from images to scores, or (linen module, variables): got "
            f"{type(model).__name__}."
        )
    return as_model(model)


def thaw(call: Call, arrays: Sequence[jax.Array]) -> Any:
    """Return the scorer that `split` took apart, with these arrays and with all its methods."""
    return call.skeleton.fill(arrays)


def _name(f: Any, layer: Layer, names: Sequence[str]) -> str:
    """Return a layer's name; one that only an adapter model itself may know passes as it is."""
    return layer if isinstance(layer, str) and hasattr(f, "activations") else resolve(layer, names)


def _run_tagged(f: Any, images: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return {name: value} of all tags, which are taken out, and the output."""
    found: list[tuple[str, jax.Array]] = []

    def note(equation: Any, inputs: Sequence[jax.Array]) -> Sequence[jax.Array]:
        found.append((equation.params["name"], inputs[0]))
        return list(inputs)

    output = replay(_tagging(f), images, rules={"name": note}, inside_loops=False)
    return dict(
        zip(numbered(name for name, _ in found), (v for _, v in found), strict=True)
    ), output


class _Tracing(NamedTuple):
    """What is tagged in this context; never changed, so that no other context sees a change.

    Attributes:
        paths: {id(module): its path} of the scorer that is being traced.
        running: the modules whose call has begun: `super().__call__` is not a second run.
    """

    paths: Mapping[int, str]
    running: frozenset[int] = frozenset()


_tracing: ContextVar[_Tracing | None] = ContextVar("tracing", default=None)


def _tagging(f: Any) -> Callable[[jax.Array], jax.Array]:
    """Return f with its modules' outputs tagged, those of a scorer inside f left alone."""
    arrays, skeleton = split_arrays(f)

    def run(images: jax.Array) -> jax.Array:
        # Made anew: NNX's own scan takes no variables that an outer trace made.
        model = skeleton.fill(arrays)
        modules = list(nnx.iter_modules(model)) if isinstance(model, nnx.Module) else []
        paths = {id(module): ".".join(map(str, path)) for path, module in modules if path}
        classes = {type(module) for _, module in modules if callable(module)}
        token = _tracing.set(_Tracing(paths))
        try:
            with (
                linen.intercept_methods(partial(_tag_linen, paths)),
                _haiku_methods(partial(_tag_haiku, paths)),
                _tagged_calls(classes),
            ):
                return model(images)
        finally:
            _tracing.reset(token)

    return run


def _tag_linen(
    paths: Mapping[int, str], run: Callable[..., Any], args: Any, kwargs: Any, context: Any
) -> Any:
    output = run(*args, **kwargs)
    if not _is_call(paths, context) or not context.module.path:
        return output
    return tag(".".join(context.module.path), output) if isinstance(output, jax.Array) else output


def _haiku_methods(interceptor: Callable[..., Any]) -> contextlib.AbstractContextManager[Any]:
    """Intercept methods of Haiku's modules, if it was imported: otherwise there are none."""
    haiku = sys.modules.get("haiku")
    known = hasattr(haiku, "intercept_methods")
    return haiku.intercept_methods(interceptor) if known else contextlib.nullcontext()  # pyright: ignore


def _tag_haiku(
    paths: Mapping[int, str], run: Callable[..., Any], args: Any, kwargs: Any, context: Any
) -> Any:
    output = run(*args, **kwargs)
    if not _is_call(paths, context) or not isinstance(output, jax.Array):
        return output
    return tag(context.module.module_name, output)


def _is_call(paths: Mapping[int, str], context: Any) -> bool:
    """Return whether a method is the call of a module of the scorer that is being traced.

    Interceptors pile up: inside a scorer that is traced within another, the inner one's tags.
    """
    tracing = _tracing.get()
    mine = tracing is not None and tracing.paths is paths
    return mine and context.method_name == "__call__"


@dataclass
class _Tagged:
    """The own `__call__` of a class, None where it is inherited, and how many traces need tags."""

    own: Callable[..., Any] | None
    users: int = 0


_tagged: dict[type, _Tagged] = {}
_tagged_lock = Lock()  # held while classes are changed, never while a scorer runs


@contextlib.contextmanager
def _tagged_calls(classes: Iterable[type]) -> Iterator[None]:
    """Wrap the calls of module classes: Python looks `__call__` up on the class.

    The first of several traces wraps, nested or in other threads, and the last one unwraps. What is
    tagged is in the context of each.
    """
    with _tagged_lock:
        for cls in classes:
            if cls not in _tagged:
                _tagged[cls] = _Tagged(vars(cls).get("__call__"))
                cls.__call__ = _tagged_call(cls.__call__)
            _tagged[cls].users += 1
    try:
        yield
    finally:
        with _tagged_lock:
            for cls in classes:
                _tagged[cls].users -= 1
                if _tagged[cls].users == 0:
                    own = _tagged.pop(cls).own
                    if own is None:
                        del cls.__call__
                    else:
                        cls.__call__ = own


def _tagged_call(call: Callable[..., Any]) -> Callable[..., Any]:
    def tagged(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracing = _tracing.get()
        if tracing is None or id(self) not in tracing.paths or id(self) in tracing.running:
            return call(self, *args, **kwargs)
        token = _tracing.set(tracing._replace(running=tracing.running | {id(self)}))
        try:
            output = call(self, *args, **kwargs)
        finally:
            _tracing.reset(token)
        return tag(tracing.paths[id(self)], output) if isinstance(output, jax.Array) else output

    return tagged
