"""Every JAX name that varies with the version or is not stable API, here and nowhere else."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

INLINED = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}
OWN_DERIVATIVE = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def called(primitive: Primitive, params: dict[str, Any]) -> ClosedJaxpr | None:
    """Return the jaxpr that an equation merely calls, or None if it does more than call it."""
    if primitive.name not in INLINED:
        return None
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        inner = params.get(name)
        if isinstance(inner, ClosedJaxpr):
            return inner
        if isinstance(inner, Jaxpr):
            return ClosedJaxpr(inner, ())
    return None


def literal_value(literal: Literal) -> Any:
    """Return the literal as a NumPy value of the dtype it stands for."""
    dtype = literal.aval.dtype
    return np.asarray(literal.val, dtype)[()] if isinstance(dtype, np.dtype) else literal.val


def bind(primitive: Primitive, params: dict[str, Any], args: list[Any]) -> list[Any]:
    """Apply a primitive to arguments, always giving a list."""
    bound = primitive.get_bind_params(params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    out = primitive.bind(*functions, *args, **params)
    return list(out) if primitive.multiple_results else [out]


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield every equation of a jaxpr, those of the jaxprs inside it included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)
