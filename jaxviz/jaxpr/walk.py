"""Run a JAX function again, equation by equation, with some of its primitives replaced.

`replay(function, *args, rules=...)` traces the function to a jaxpr and evaluates it. A rule is
called with the equation and its input values and answers with the list of outputs, or None to leave
the equation alone. Calls (`jit`, rematerialisation) are inlined, so a rule sees every equation but
those inside loops, conditionals and functions with a derivative of their own. Nothing else changes:
without rules the result is the function's.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

Rule = Callable[[Any, Sequence[jax.Array]], "Sequence[jax.Array] | None"]

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr"}


def replay(function: Callable[..., Any], *args: Any, rules: Mapping[str, Rule]) -> Any:
    """`function(*args)` with the rules applied; `rules` maps primitive names to rules."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    outputs = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), rules)
    return jax.tree.unflatten(jax.tree.structure(shape), outputs)


def equations(jaxpr: Any) -> Any:
    """All equations of a jaxpr in order of evaluation, calls inlined."""
    for equation in jaxpr.eqns:
        inner = _called(equation)
        if inner is None:
            yield equation
        else:
            yield from equations(inner[0])


def dependent(jaxpr: Any, marks: Sequence[bool]) -> list[bool]:
    """Which outputs of a jaxpr can depend on the marked inputs."""
    reached = {var for var, mark in zip(jaxpr.invars, marks, strict=True) if mark}
    for equation in jaxpr.eqns:
        inputs = [not hasattr(atom, "val") and atom in reached for atom in equation.invars]
        inner = _called(equation)
        outputs = [any(inputs)] * len(equation.outvars)
        if inner is not None and any(inputs):
            outputs = dependent(inner[0], inputs)
        reached.update(var for var, mark in zip(equation.outvars, outputs, strict=True) if mark)
    return [not hasattr(atom, "val") and atom in reached for atom in jaxpr.outvars]


def _called(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    key = _CALLS.get(equation.primitive.name)
    if key is None:
        return None
    inner = equation.params[key]
    return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())


def evaluate(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Any],
    rules: Mapping[str, Rule],
    *,
    shifts: Mapping[Any, jax.Array] = MappingProxyType({}),
) -> list[Any]:
    """The outputs of a jaxpr on values for its constants and arguments, with the rules applied.

    `shifts` maps variables of the jaxpr itself to arrays that are added to them.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _apply(equation, inputs, rules)
        values.update(zip(equation.outvars, outputs, strict=True))
        for var in set(equation.outvars) & shifts.keys():
            values[var] = values[var] + shifts[var]
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: Sequence[Any], rules: Mapping[str, Rule]) -> Sequence[Any]:
    rule = rules.get(equation.primitive.name)
    outputs = None if rule is None else rule(equation, inputs)
    if outputs is not None:
        return outputs
    inner = _called(equation)
    if inner is not None:
        return evaluate(*inner, inputs, rules)
    primitive = equation.primitive
    outputs = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
    return outputs if primitive.multiple_results else [outputs]
