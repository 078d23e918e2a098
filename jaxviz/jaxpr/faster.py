"""Any JAX function, its convolutions carried out by the forms that are fastest on a CPU."""

from collections.abc import Callable, Hashable
from math import isfinite
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz.jaxpr._jax import platform_of, settings
from jaxviz.jaxpr.cpu import whole_rules
from jaxviz.jaxpr.fold import fold
from jaxviz.jaxpr.hoist import Hoisted, hoist
from jaxviz.jaxpr.split import split_arrays
from jaxviz.jaxpr.walk import run, trace


def faster_on_cpu(f: Callable[..., Any], *, error: float = 0.0) -> Callable[..., Any]:
    """Return a function that gives the numbers of `f`, in less time on a CPU.

    Convolutions become matrix products, Winograd's tiles or XLA's own at its faster library, by
    their shapes (not by the batch), and pools whose windows overlap shifted views; what depends on
    the weights alone, such as the transforms of kernels, is done once, and factors by channel
    behind a convolution, as of batch normalisation, go into its kernel. Numbers agree to 1e-5 of
    the largest: the sums are in another order, and tiles multiply sums of pixels by sums of taps,
    but not where `f` asks for precision "highest".
    A pixel that is not finite reaches all sites of its tile. Elsewhere nothing is replaced, and on
    a CPU bfloat16 and other formats than float32 and float64 stay as they are.

    Weights are a snapshot: the arrays of a pytree (`nnx.Module`, `jax.tree_util.Partial`) are those
    at the time of this call, what closures hold is read when the result first sees a shape. What is
    returned compiles itself, and composes with jit, vmap and grad; inside a `jit` of yours the
    weights are constants.

    Args:
        f: arrays -> any tree of arrays; traceable.
        error: how far one convolution may deviate besides, relative to its largest result, in
            [0, 1]. From 3e-6 on larger tiles along the width, from 2e-5 on along both axes: what
            they deviated by where it was measured, no bound.

    Returns:
        A function of the same arguments, of arrays in any tree.

    Raises:
        TypeError: `f` cannot be called.
        ValueError: `error` is not in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> faster = faster_on_cpu(lambda x: jnp.tanh(x).sum((1, 2)))
        >>> faster(jnp.zeros((2, 8, 8, 3))).shape
        (2, 3)

    Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
    arXiv:1509.09308.
    """
    if not callable(f):
        raise TypeError(f"`f` must be callable: got a {type(f).__name__}.")
    if not (isfinite(error) and 0 <= error <= 1):
        raise ValueError(f"`error` must be in [0, 1]: got {error}.")
    return _Faster(f, float(error))


class _Faster:
    """What `faster_on_cpu` returns: a program for each shape, and what they share."""

    def __init__(self, f: Callable[..., Any], error: float) -> None:
        arrays, self.skeleton = split_arrays(f)
        self.arrays, self.error = [jnp.asarray(array) for array in arrays], error
        self.__name__ = self.__qualname__ = getattr(f, "__qualname__", type(f).__name__)
        self._programs: dict[Hashable, Callable[..., Any]] = {}
        self._prepared: dict[Hashable, list[jax.Array]] = {}

    def __call__(self, *args: Any) -> Any:
        if platform_of(self.arrays, args) != "cpu":
            return self.skeleton.fill(self.arrays)(*args)
        leaves, tree = jax.tree.flatten(args)
        key = (tree, tuple(map(jax.typeof, leaves)), settings())
        if key not in self._programs:
            self._programs[key] = self._program(args)
        return self._programs[key](*args)

    def _program(self, args: Any) -> Callable[..., Any]:
        own = len(self.arrays)

        def whole(arrays: list[jax.Array], *args: Any) -> Any:
            return self.skeleton.fill(arrays)(*args)

        _, flat, captured, tree = trace(whole, self.arrays, *args)
        flat = fold(flat, flat.inputs[own:])
        rules = whole_rules(self.error)

        def quick(weights: list[Any], *args: Any) -> Any:
            inputs = [*weights[:own], *jax.tree.leaves(args)]
            return jax.tree.unflatten(tree, run(flat, weights[own:], inputs, rules))

        weights = [*self.arrays, *captured]
        parts = hoist(quick, weights, *args)
        ready = self._ready(parts, weights)
        evaluate = jax.jit(parts.evaluate)
        return lambda *args: evaluate(weights, ready, *args)

    def _ready(self, parts: Hoisted, weights: list[Any]) -> list[jax.Array]:
        """Prepare the weights, once for all shapes that want the same of them."""
        if not parts.prepares:
            return []
        key = parts.key()
        if key not in self._prepared:
            with jax.ensure_compile_time_eval():  # also where a caller is being traced
                self._prepared[key] = jax.jit(parts.prepare)(weights)
        return self._prepared[key]
