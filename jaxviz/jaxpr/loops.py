"""Scans, whiles and conds run again with other bodies.

A body is a function of the flat inputs that its jaxpr takes to the list of its outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr

from jaxviz.jaxpr import _jax

Body = Callable[..., Sequence[Any]]
LOOPS = {"scan": ("jaxpr",), "while": ("cond_jaxpr", "body_jaxpr"), "cond": ("branches",)}


def bodies(name: str, params: dict[str, Any]) -> tuple[ClosedJaxpr, ...]:
    """Return the jaxprs that a loop or conditional runs; none for any other primitive."""
    found = jax.tree.leaves([params[key] for key in LOOPS.get(name, ())], is_leaf=_jax.is_jaxpr)
    return tuple(map(_jax.as_closed, found))


def run_loop(
    name: str, params: dict[str, Any], inputs: Sequence[Any], bodies: Sequence[Body]
) -> list[Any]:
    """Run a loop or conditional with other bodies.

    Args:
        name: "scan", "while" or "cond".
        params: the equation's parameters.
        inputs: the equation's inputs.
        bodies: one for each that `bodies` returns, in the same order.

    Returns:
        The equation's outputs.
    """
    return list(_RUN[name](params, list(inputs), bodies))


def _scan(params: dict[str, Any], inputs: list[Any], bodies: Sequence[Body]) -> Sequence[Any]:
    (body,) = bodies
    first, count = _jax.scan_counts(params, len(inputs))
    consts, init, rows = inputs[:first], inputs[first : first + count], inputs[first + count :]

    def step(carry: Any, row: Any) -> Any:
        outputs = tuple(body(*consts, *carry, *row))
        return outputs[:count], outputs[count:]

    split = {k: params[k] for k in ("_split_transpose",) if k in params}
    options = {key: params[key] for key in ("length", "reverse", "unroll")} | split
    carry, rows = lax.scan(step, tuple(init), tuple(rows), **options)
    return [*carry, *rows]


def _while(params: dict[str, Any], inputs: list[Any], bodies: Sequence[Body]) -> Sequence[Any]:
    goes_on, body = bodies
    first, second = params["cond_nconsts"], params["body_nconsts"]
    asked, read = inputs[:first], inputs[first : first + second]
    init = tuple(inputs[first + second :])
    return lax.while_loop(
        lambda carry: goes_on(*asked, *carry)[0], lambda carry: tuple(body(*read, *carry)), init
    )


def _cond(params: dict[str, Any], inputs: list[Any], bodies: Sequence[Body]) -> Sequence[Any]:
    branches = [lambda *args, body=body: tuple(body(*args)) for body in bodies]
    return lax.switch(inputs[0], branches, *inputs[1:])


_RUN = {"scan": _scan, "while": _while, "cond": _cond}
