"""Every JAX name that varies with the version or is not stable API, here and nowhere else."""

from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

# Primitives that merely call a jaxpr.
CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "call",
    "remat",
    "remat2",
    "checkpoint",
}
# Those whose jaxpr has derivative rules of its own.
OWN_DERIVATIVE = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Those that only tell: nothing that is computed depends on them.
DEBUG = {"debug_callback", "debug_print"}


def called(primitive: Primitive, params: dict[str, Any]) -> ClosedJaxpr | None:
    """Return the jaxpr that an equation calls, or None if it does more than call it."""
    if primitive.name not in CALLS | OWN_DERIVATIVE:
        return None
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        inner = params.get(name)
        if isinstance(inner, ClosedJaxpr | Jaxpr):
            return as_closed(inner)
    return None


def as_closed(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """Return a jaxpr with its constants, of which a bare one has none."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def is_jaxpr(value: Any) -> bool:
    """Say whether a parameter is a jaxpr, with its constants or without."""
    return isinstance(value, ClosedJaxpr | Jaxpr)


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


def scan_counts(params: dict[str, Any], inputs: int) -> tuple[int, int]:
    """Return how many of a scan's inputs are constants of the body, and how many are its carry."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].update(range(inputs)).unpack()  # JAX 0.12
    return len(list(consts)), len(list(carry))


def platform_of(*trees: Any) -> str:
    """Return the platform on which the arrays lie, "cpu" or an accelerator's name.

    Traced arrays do not tell: they count as lying on the default device.
    """
    for leaf in jax.tree.leaves(trees):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            return next(iter(leaf.devices())).platform
    default: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform


def mesh_is_set() -> bool:
    """Say whether a mesh is set around the call, which what is traced now then holds."""
    return not jax.sharding.get_abstract_mesh().empty


def settings() -> Hashable:
    """Return what changes the numbers of a program besides its equations: part of every key."""
    config: Any = jax.config
    return (
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
        config.jax_numpy_rank_promotion,
    )
