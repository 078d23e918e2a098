"""Layer outputs by name, for adapter models, Flax modules and tagged functions.

The names of a scorer's layers:

- a model with an `activations` method (`load_keras`): its `layer_names`;
- an NNX module: the attribute path of each submodule, `"block.conv"`, `"layers.0"`;
- a Linen module, as `Partial(module.apply, variables)` or `(module, variables)`: the path of each
  submodule;
- anything else: the names given inside it with `tag`. Tags also work inside modules.

A submodule or tag that runs more than once adds `"#2"`, `"#3"`, … A layer is addressed by name, by
its index in this order, or by None for the scorer's own output. Images are (batch, height, width,
channel), and so are the outputs of convolutions.
"""

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

from jaxviz.jaxpr.walk import replay, trace
from jaxviz.scoring.scorer import Call, split

Layer = str | int | None
_patching = threading.Lock()


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
    model: Any, images: jax.Array, layers: Sequence[Layer] | Layer = None
) -> dict[str, jax.Array]:
    """What every layer, or each layer asked for, puts out: one forward pass.

    Args:
        model: a scorer, see the module's text for which layers it has.
        images: (N, H, W, C), in the units the model expects.
        layers: names or indices, one or a sequence; None for all. Only what they need is computed.

    Returns:
        {layer name: array with leading axis N}, in the order of evaluation or as asked.

    Raises:
        ValueError: the images have no batch axis, or a layer is unknown; the message names the
            nearest.

    Example:
        >>> import jax.numpy as jnp, jaxviz as jv
        >>> f = lambda images: jv.tag("mean", images.mean((1, 2)))
        >>> jv.activations(f, jnp.ones((2, 4, 4, 3)), "mean")["mean"].shape
        (2, 3)
    """
    if np.ndim(images) != 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channel): got "
            f"{np.shape(images)}; add the batch axis with images[None]."
        )
    images = jnp.asarray(images)
    names = layer_names(model, images)
    if layers is not None:
        asked = [layers] if isinstance(layers, str | int) else layers
        names = [_name(model, layer, names) for layer in asked]
    parts = split(as_scorer(model))
    found = _compiled_capture(parts.call, parts.arrays, images, tuple(names))
    return {name: found[name] for name in names}


def layer_names(model: Any, images: Any) -> list[str]:
    """The layers of a scorer in order of evaluation; `images` gives the shape to trace with."""
    if hasattr(model, "layer_names"):
        return list(model.layer_names)
    image = jax.ShapeDtypeStruct(np.shape(images), images.dtype)
    flat = trace(_tagging(as_scorer(model)), image).flat
    found = (e.params["name"] for e in flat.equations if e.primitive.name == "name")
    return list(numbered(found))


def resolve(layer: Layer, names: Sequence[str]) -> str:
    """The name of a layer given by name or index.

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
        hint = f"did you mean {near[0]!r}?" if near else "this scorer has none; name one with tag."
        raise ValueError(f"`layer` must name a layer: got {layer!r}; {hint}")
    return str(layer)


def capture(f: Any, images: jax.Array, layers: Sequence[Layer]) -> dict[Layer, jax.Array]:
    """The named outputs of a scorer, None being its own: pure, no jit inside.

    Args:
        f: a scorer.
        images: (N, H, W, C).
        layers: what to return, names, indices, None.

    Returns:
        {layer as asked: array}.

    Raises:
        ValueError: a layer is unknown.
    """
    f = as_scorer(f)
    inner = [layer for layer in layers if layer is not None]
    if not inner:
        return {None: f(images)} if layers else {}
    names = layer_names(f, images)
    asked = {layer: _name(f, layer, names) for layer in inner}
    if hasattr(f, "activations"):
        values = f.activations(images, list(dict.fromkeys(asked.values())))
        output = f(images) if None in layers else jnp.zeros(())
    else:
        values, output = _run_tagged(f, images)
    return {layer: output if layer is None else values[asked[layer]] for layer in layers}


def as_scorer(model: Any) -> Callable[[jax.Array], jax.Array]:
    """A callable from what stands for a scorer: `(linen_module, variables)` becomes one."""
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        scorer: Any = Partial(model[0].apply, model[1])
        return scorer
    if not callable(model):
        raise ValueError(
            "`f` must be a callable from images to scores, or (linen module, variables): got "
            f"{type(model).__name__}."
        )
    return model


def thaw(call: Call, arrays: Sequence[jax.Array]) -> Any:
    """The scorer that `split` took apart, on these arrays: with its methods, not only its call."""
    return call.skeleton.fill(arrays)


@partial(jax.jit, static_argnums=(0, 3))
def _compiled_capture(static: Any, arrays: Any, images: jax.Array, layers: tuple[str, ...]):
    return capture(thaw(static, arrays), images, layers)


def _name(f: Any, layer: Layer, names: Sequence[str]) -> str:
    """A layer's name; one that an adapter model knows besides its `layer_names` passes as it is."""
    return layer if isinstance(layer, str) and hasattr(f, "activations") else resolve(layer, names)


def _run_tagged(f: Any, images: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    found: list[tuple[str, jax.Array]] = []

    def note(equation: Any, inputs: Sequence[jax.Array]) -> Sequence[jax.Array]:
        found.append((equation.params["name"], inputs[0]))
        return list(inputs)

    output = replay(_tagging(f), images, rules={"name": note}, inside_loops=False)
    return dict(
        zip(numbered(name for name, _ in found), (v for _, v in found), strict=True)
    ), output


def numbered(names: Iterable[str]) -> Iterator[str]:
    """Names made distinct: the second "a" is "a#2"."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def _tagging(f: Any) -> Callable[[jax.Array], jax.Array]:
    def run(images: jax.Array) -> jax.Array:
        with linen.intercept_methods(_tag_linen), _tagged_nnx(f):
            return f(images)

    return run


def _tag_linen(run: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    output = run(*args, **kwargs)
    if context.method_name == "__call__" and context.module.path and isinstance(output, jax.Array):
        return tag(".".join(context.module.path), output)
    return output


@contextlib.contextmanager
def _tagged_nnx(f: Any) -> Iterator[None]:
    """Python finds `__call__` on the class, so the classes are changed while f is traced."""
    if not isinstance(f, nnx.Module):
        yield
        return
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(f) if path}
    classes = {type(module) for _, module in nnx.iter_modules(f) if callable(module)}
    with _patching:
        own = {cls: vars(cls).get("__call__") for cls in classes}
        wrapped = {cls: _tagged_call(cls.__call__, paths) for cls in classes}
        try:
            for cls, call in wrapped.items():
                cls.__call__ = call
            yield
        finally:
            for cls, call in own.items():
                if call is None:
                    del cls.__call__
                else:
                    cls.__call__ = call


def _tagged_call(call: Callable[..., Any], paths: dict[int, str]) -> Callable[..., Any]:
    def tagged(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Taken out while it runs: a call of super().__call__ inside is not a second run.
        path = paths.pop(id(self), None)
        output = call(self, *args, **kwargs)
        if path is None:
            return output
        paths[id(self)] = path
        return tag(path, output) if isinstance(output, jax.Array) else output

    return tagged
