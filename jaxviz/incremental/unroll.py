"""Short scans written out, so that windows go through the body: each pass reaches farther.

A scan is one equation, whose carry has one shape: of a window that grows from pass to pass it can
keep nothing. Written out, a pass is as any other equations; what that costs is compiling them.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxviz.incremental.program import Program, written_anew
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.loops import bodies
from jaxviz.jaxpr.walk import Equation, Flat, acts, flatten, run

MOST_EQUATIONS = 1000  # of all passes together: each of them has to be compiled


def unrolled(program: Program) -> Program | None:
    """Return a program with its short scans written out; None if it has none that a patch meets."""
    reached, scans = {program.image}, set()
    for eqn in program.read:
        if reached.intersection(x for x in eqn.operands if isinstance(x, int)):
            reached.update(eqn.results)
            if eqn.primitive.name == "scan" and _is_short(eqn):
                scans.add(eqn.results)
    if not scans:
        return None

    def rule(eqn: Equation, inputs: Sequence[Any]) -> Sequence[Any] | None:
        return _written_out(eqn, inputs) if eqn.results in scans else None

    inputs = (*program.arrays, program.image)
    flat = Flat(program.equations, (), inputs, program.outputs, program.avals, False)
    rules = {"scan": rule}
    return written_anew(program, lambda *args: run(flat, (), args, rules, inside_loops=False))


def _is_short(eqn: Equation) -> bool:
    return not acts(eqn) and 0 < _count(eqn) <= MOST_EQUATIONS


def _count(eqn: Equation) -> int:
    """Return how many equations one becomes: those of a scan's body, as often as it runs."""
    if eqn.primitive.name != "scan":
        return 1
    (body,) = bodies("scan", eqn.params)
    inner = flatten(body, open_derivatives=True)[0].equations
    return eqn.params["length"] * sum(map(_count, inner))


def _written_out(eqn: Equation, inputs: Sequence[Any]) -> list[Any]:
    """Run a scan pass by pass, and those inside it."""
    (body,) = bodies("scan", eqn.params)
    flat, values = flatten(body, open_derivatives=True)
    first, count = _jax.scan_counts(eqn.params, len(inputs))
    consts, carry, rows = (
        inputs[:first],
        list(inputs[first : first + count]),
        inputs[first + count :],
    )
    rules = {"scan": _written_out}
    length, written = eqn.params["length"], []
    for at in range(length)[:: -1 if eqn.params["reverse"] else 1]:
        row = [lax.index_in_dim(x, at, keepdims=False) for x in rows]
        results = run(flat, values, [*consts, *carry, *row], rules, inside_loops=False)
        carry = results[:count]
        written.append(results[count:])
    if eqn.params["reverse"]:
        written.reverse()
    return [*carry, *(jnp.stack(rows) for rows in zip(*written, strict=True))]
