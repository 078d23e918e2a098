"""What passes backwards through ReLU: other rules than the derivative, for `replay`.

Guided and rectified backpropagation, and the redirection that wakes a dead start. ReLU is
recognised as `jax.nn.relu`, `relu6`, or a maximum with the number 0.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.jaxpr.walk import Constant, Equation, Operand, Rule, flatten, run


def relu_rules(backprop: str) -> Mapping[str, Rule]:
    """Rules that replace the backward pass of ReLU; y = max(x, 0), g = ∂/∂y.

    - "plain": g where x > 0 (no rule at all);
    - "guided": g where x > 0 and g > 0 (Springenberg et al. 2015, arXiv:1412.6806);
    - "rectified": g where g > 0 (Zeiler, Fergus 2014, arXiv:1311.2901);
    - "redirected": plain, but where that is nothing at all for an image: g, except where x < 0 and
      g < 0.

    Raises:
        ValueError: another name.
    """
    if backprop == "plain":
        return {}
    if backprop not in _BACKWARD:
        names = ", ".join(["plain", *_BACKWARD])
        raise ValueError(f"`backprop` must be one of {names}: got {backprop!r}.")
    rules: dict[str, Rule] = {"max": partial(_max_rule, backprop)}
    rules["custom_jvp_call"] = partial(_open_relu, rules)
    return rules


def _is_zero(operand: Operand) -> bool:
    return isinstance(operand, Constant) and np.ndim(operand.value) == 0 and operand.value == 0


def _max_rule(
    backprop: str, equation: Equation, inputs: Sequence[jax.Array]
) -> list[jax.Array] | None:
    left, right = equation.operands
    if _is_zero(right):
        return [_relu(backprop, inputs[0])]
    return [_relu(backprop, inputs[1])] if _is_zero(left) else None


def _open_relu(rules: Mapping[str, Rule], equation: Equation, inputs: Sequence[Any]) -> Any:
    """`jax.nn.relu` and `relu6` carry their own derivative; look inside them, only them."""
    flat, values = flatten(equation.params["call_jaxpr"])
    names = [inside.primitive.name for inside in flat.equations]
    return run(flat, values, inputs, rules) if names in (["max"], ["max", "min"]) else None


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
