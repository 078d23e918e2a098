"""What passes backwards through ReLU: other rules than the derivative, for `replay`.

Guided and rectified backpropagation, and the redirection that wakes a dead start.

Only a rectifier as such gets another derivative: what does and differentiates as `jax.nn.relu` or
`relu6` do, and a maximum with the number 0. A maximum with 0 is none where it is a part of
something else, whose derivative stays as it is:

- of a gate, clamped above and shifted by a number before: relu6(x + 3) / 6 (hard sigmoid);
- of a range, clamped above at another number than 6: clip(x, 0, 1);
- of a function of two branches, x being read by min(x, 0) as well: CELU;
- of a guard, whose root or logarithm is taken: the variance of a normalisation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr._jax import bind, settings
from jaxviz.jaxpr.content import UnknownContentError, content
from jaxviz.jaxpr.walk import NO_RULES, Constant, Equation, Flat, Operand, Rule, trace

_CEILING = 6  # of `jax.nn.relu6`
_RESHAPED = {"broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "transpose"}
_GUARDED = {"sqrt", "rsqrt", "log"}


def check_backprop(backprop: str) -> None:
    """Raise ValueError unless `relu_rules` knows the name."""
    if backprop not in ("plain", *_BACKWARD):
        names = ", ".join(["plain", *_BACKWARD])
        raise ValueError(f"`backprop` must be one of {names}: got {backprop!r}.")


def relu_rules(backprop: str) -> Callable[[Flat], Mapping[str, Rule]]:
    """Rules that replace the backward pass of ReLU; y = max(x, 0), g = ∂/∂y.

    - "plain": g where x > 0 (no rule at all);
    - "guided": g where x > 0 and g > 0 (Springenberg et al. 2015, arXiv:1412.6806);
    - "rectified": g where g > 0 (Zeiler, Fergus 2014, arXiv:1311.2901);
    - "redirected": plain, but where that is nothing at all for an image: g, except where x < 0 and
      g < 0.

    Returns:
        From a flat function to the rules for its equations.

    Raises:
        ValueError: another name.
    """
    check_backprop(backprop)
    return partial(_rules, backprop)


def _rules(backprop: str, flat: Flat) -> Mapping[str, Rule]:
    if backprop == "plain":
        return NO_RULES
    found = dict(_rectifiers(flat))

    def rule(equation: Equation, inputs: Sequence[Any]) -> list[jax.Array] | None:
        if equation.results not in found:
            return None
        operand, ceiling = found[equation.results]
        output = _relu(backprop, inputs[operand])
        return [output if ceiling is None else jnp.minimum(output, ceiling)]

    return {"max": rule, "custom_jvp_call": rule}


def _rectifiers(flat: Flat) -> Iterator[tuple[tuple[int, ...], tuple[int, int | None]]]:
    """Yield the results of each rectifier, which of its operands is x, and its own ceiling."""
    context = _Context(flat)
    for equation in flat.equations:
        name = equation.primitive.name
        if name == "custom_jvp_call" and _behaves_as(jax.nn.relu, equation):
            yield equation.results, (0, None)
        elif name == "custom_jvp_call" and _behaves_as(jax.nn.relu6, equation):
            if not context.shifted(equation.operands[0]):
                yield equation.results, (0, _CEILING)
        elif name == "max":
            for at, other in ((0, 1), (1, 0)):
                zero = context.number(equation.operands[other]) == 0
                if zero and context.alone(equation.operands[at], equation.results[0]):
                    yield equation.results, (at, None)


class _Context:
    """Where the arrays of a flat function come from, and who reads them."""

    def __init__(self, flat: Flat):
        self.flat = flat
        self.maker: dict[int, Equation] = {}
        self.readers: dict[int, list[Equation]] = {}
        for equation in flat.equations:
            self.maker.update(dict.fromkeys(equation.results, equation))
            for operand in {x for x in equation.operands if isinstance(x, int)}:
                self.readers.setdefault(operand, []).append(equation)

    def number(self, operand: Operand) -> Any:
        """Return the number that an operand holds, if the function's text says so; else None."""
        if isinstance(operand, Constant):
            return operand.value if np.ndim(operand.value) == 0 else None
        maker = self.maker.get(operand)
        plain = maker is not None and maker.primitive.name in _RESHAPED
        return self.number(maker.operands[0]) if maker and plain else None

    def is_number(self, operand: Operand) -> bool:
        """Say whether an operand is one number, known or not, spread over a shape or not."""
        if isinstance(operand, Constant) or self.flat.aval(operand).ndim == 0:
            return True
        maker = self.maker.get(operand)
        spread = maker is not None and maker.primitive.name in _RESHAPED
        return bool(maker and spread and self.is_number(maker.operands[0]))

    def shifted(self, operand: Operand) -> bool:
        """Say whether x is something plus or minus a number."""
        maker = self.maker.get(operand) if isinstance(operand, int) else None
        adds = maker is not None and maker.primitive.name in ("add", "sub")
        return bool(maker and adds and any(map(self.is_number, maker.operands)))

    def alone(self, x: Operand, result: int) -> bool:
        """Say whether a maximum of x and 0 is a rectifier, not a part of something else."""
        if not isinstance(x, int):
            return False
        below = (e for e in self.readers[x] if e.primitive.name == "min")
        if any(self.number(side) == 0 for e in below for side in e.operands):
            return False
        above = (e for e in self.readers.get(result, ()) if e.primitive.name == "min")
        ceilings = [self.number(side) for e in above for side in e.operands if side != result]
        if ceilings and (ceilings != [_CEILING] or self.shifted(x)):
            return False
        return not self.guarded(result)

    def guarded(self, array: int) -> bool:
        """Say whether a root or a logarithm is taken, perhaps of the array plus a number."""
        for equation in self.readers.get(array, ()):
            name = equation.primitive.name
            shift = name == "add" and any(map(self.is_number, equation.operands))
            if name in _GUARDED:
                return True
            if (name in _RESHAPED or shift) and self.guarded(equation.results[0]):
                return True
        return False


def _behaves_as(function: Callable[..., Any], equation: Equation) -> bool:
    """Say whether an equation with derivative rules of its own computes and differentiates alike.

    Another function of the same body, such as one with a straight-through derivative, does not.
    """
    if len(equation.operands) != 1 or len(equation.results) != 1:
        return False
    closed = equation.params["call_jaxpr"]
    if len(closed.jaxpr.eqns) > 2 or closed.jaxpr.effects:
        return False
    (aval,) = closed.in_avals

    def call(x: jax.Array) -> Any:
        return bind(equation.primitive, equation.params, [x])[0]

    try:
        return _derivative(call, aval) == _known_derivative(function, aval, settings())
    except UnknownContentError:
        return False


def _derivative(function: Callable[..., Any], aval: Any) -> str:
    def both(x: jax.Array, tangent: jax.Array) -> Any:
        return jax.jvp(function, (x,), (tangent,)), function(x)

    x = jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
    return content(trace(both, x, x, open_derivatives=True).flat)


@lru_cache(256)
def _known_derivative(function: Callable[..., Any], aval: Any, _: Any) -> str:
    return _derivative(function, aval)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relu(backprop: str, x: jax.Array) -> jax.Array:
    del backprop
    return jnp.maximum(x, jnp.zeros((), x.dtype))


def _relu_forward(backprop: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _relu(backprop, x), x


def _relu_backward(backprop: str, x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    passes = _BACKWARD[backprop](x, g)
    return (jnp.where(passes, g, jnp.zeros_like(g)),)


_relu.defvjp(_relu_forward, _relu_backward)


def _redirected(x: jax.Array, g: jax.Array) -> jax.Array:
    plain = x > 0
    some = ((g != 0) & plain).any(tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(some, plain, (x > 0) | (g > 0))


_BACKWARD: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "guided": lambda x, g: (x > 0) & (g > 0),
    "rectified": lambda x, g: g > 0,
    "redirected": _redirected,
}
