"""One linear operation of a network, with what is folded into it, in the forms that LRP asks for.

z = s · L(x, w) + b: L is a convolution, a product with a matrix, a sum; w its weights, 1 where it
has none; s and b come from the additions and multiplications by constants that follow: bias and
batch normalisation. s acts number by number on the output, so that (s·w)⁺ is s·w⁺ where s ≥ 0 and
s·w⁻ elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Form = Callable[[list[jax.Array], str], jax.Array]  # (inputs, part) -> L(inputs, part of w)


@dataclass(frozen=True)
class Linear:
    """A linear operation at one point.

    Attributes:
        inputs: what of its operands depends on the image.
        output: z.
        form: L with w itself, "whole", w⁺, "positive", w⁻, "negative", 1, "ones", or w², "square".
        scale: s, in the shape of z; None: 1.
        bias: b, in the shape of z; None: 0.
    """

    inputs: list[jax.Array]
    output: jax.Array
    form: Form
    scale: jax.Array | None = None
    bias: jax.Array | None = None

    def apply(self, inputs: list[jax.Array], part: str) -> jax.Array:
        """Return s·L of a part of the weights, without the bias; s is 1 for "ones"."""
        s, form = self.scale, self.form
        if s is None or part == "ones":
            return form(inputs, part)
        if part == "whole":
            return s * form(inputs, part)
        if part == "square":
            return s * s * form(inputs, part)
        other = "negative" if part == "positive" else "positive"
        return s * jnp.where(s >= 0, form(inputs, part), form(inputs, other))

    def back(self, part: str, rho: jax.Array) -> list[jax.Array]:
        """Return ∂(Σ rho · s·L)/∂inputs, of a part of the weights."""
        _, pull = jax.vjp(lambda inputs: self.apply(inputs, part), self.inputs)
        return pull(rho)[0]


def part_of(weights: jax.Array, part: str) -> jax.Array:
    """Return a part of weights."""
    zero = jnp.zeros((), weights.dtype)
    return {
        "whole": lambda: weights,
        "positive": lambda: jnp.maximum(weights, zero),
        "negative": lambda: jnp.minimum(weights, zero),
        "ones": lambda: jnp.ones_like(weights),
        "square": lambda: weights * weights,
    }[part]()


def times(inputs: Sequence[jax.Array], others: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiply arrays one by one."""
    return [a * b for a, b in zip(inputs, others, strict=True)]
