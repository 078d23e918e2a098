"""What an attribution method is: a pure function of one image, whole or as a sum of many steps.

A kernel knows one image (H, W, C) at a time; the driver maps it over a batch, so that no result
depends on its neighbours. Methods that add up many evaluations are `Steps`: compiled as one loop
where that is fast, and driven from the host on a CPU, where XLA runs the body of a loop on one
core.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.attribution.goal import Goal


class Found(NamedTuple):
    """What a kernel returns of one image.

    Attributes:
        values: (H', W', C), signed; one axis more, K, where every class is explained.
        base: (..., K), the clean scores.
        delta: what Σ values misses of what it should be; None: nothing is promised.
    """

    values: jax.Array
    base: jax.Array
    delta: jax.Array | None = None


def in_float32(found: Found) -> Found:
    """Return it in float32, or float64 where it is, whatever the dtype of the pass."""
    wide = [x if x is None or x.dtype == jnp.float64 else x.astype(jnp.float32) for x in found]
    return Found(*wide)  # pyright: ignore[reportArgumentType]


Kernel = Callable[[Any, jax.Array, Goal], Found]  # (scorer, image (H, W, C), goal)


class Sum(Protocol):
    """What a kernel that adds up over items is made of; a pytree."""

    def begin(self, f: Any, image: jax.Array, goal: Goal) -> Any:
        """Return the carry, any pytree of arrays."""

    def items(self, carry: Any) -> Any:
        """Return what is added up, a pytree of arrays (n, ...), from the shapes of the carry."""

    def step(
        self, f: Any, image: jax.Array, goal: Goal, carry: Any, items: Any, live: jax.Array
    ) -> Any:
        """Return the carry after some items (lanes, ...); `live` (lanes,) is 1 where one counts."""

    def end(self, f: Any, image: jax.Array, goal: Goal, carry: Any) -> Found:
        """Return what is found."""
        ...


@dataclass(frozen=True)
class Seen:
    """What a kernel found out when it was traced; no part of what it computes, and so all equal."""

    notes: list[Any] = field(default_factory=list)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen)

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return ", ".join(map(str, self.notes))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """A kernel that adds up over items, a few of them at a time."""

    of: Sum

    def __call__(self, f: Any, image: jax.Array, goal: Goal) -> Found:
        """Run as one loop, one item after another."""
        carry = self.of.begin(f, image, goal)
        chunks, live = in_chunks(self.of.items(carry), 1)

        def step(carry: Any, chunk: Any) -> Any:
            return self.of.step(f, image, goal, carry, *chunk), None

        carry, _ = jax.lax.scan(step, carry, jax.tree.map(jnp.asarray, (chunks, live)))
        return self.of.end(f, image, goal, carry)


def in_chunks(items: Any, most: int) -> tuple[Any, np.ndarray]:
    """Cut items (n, ...) into (steps, lanes, ...), the last one repeated; and which are live.

    Of the numbers of lanes from half of `most` to `most`, the one that wastes least is taken.
    """
    count = len(jax.tree.leaves(items)[0])
    most = min(most, count)
    lanes = min(range(ceil(most / 2), most + 1), key=lambda n: (ceil(count / n) * n, -n))
    steps = ceil(count / lanes)
    index = np.minimum(np.arange(steps * lanes), count - 1)
    live = (np.arange(steps * lanes) < count).astype(np.float32).reshape(steps, lanes)
    cut = jax.tree.map(lambda x: x[index].reshape(steps, lanes, *x.shape[1:]), items)
    return cut, live


def differentiate(function: Callable[[Any], tuple[jax.Array, Any]], at: Any) -> tuple[Any, Any]:
    """Return the gradient of (number, more) by a pytree of arrays, and the more.

    Raises:
        ValueError: the number cannot be differentiated.
    """
    try:
        (_, more), gradient = jax.value_and_grad(function, has_aux=True)(at)
    except (TypeError, ValueError, NotImplementedError) as error:
        jax.eval_shape(function, at)  # where the forward pass is at fault, that is the error
        why = " ".join(str(error).split())[:200].removesuffix(".")
        raise ValueError(_undifferentiable(why)) from error
    return gradient, more


def check_real(scores: jax.Array) -> None:
    """Raise ValueError unless scores have a derivative at all."""
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise ValueError(_undifferentiable(f"its scores are {scores.dtype}"))


def _undifferentiable(why: str) -> str:
    return (
        f"`f` must be differentiable by its images: got {why}; use a method that only looks at the"
        " scores, such as jaxviz.occlude."
    )
