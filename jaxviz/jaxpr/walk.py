"""A function as one flat list of equations: what all that reads or replaces operations walks.

`trace` makes a jaxpr of a function, and `flatten` a `Flat` of a jaxpr: calls are inlined, arrays
are numbered, and every array that the function brings with it (a closure's weights, the constants
of a `jit` inside) becomes an input, at every depth, also inside loops: so a `Flat` holds no array
but scalars. `run` evaluates it, with rules in place of some primitives, inside scans, whiles and
conds as well; `replay` is all three in one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.loops import LOOPS, bodies, run_loop

Rule = Callable[["Equation", Sequence[Any]], "Sequence[Any] | None"]
NO_RULES: Mapping[str, Rule] = MappingProxyType({})
# Primitives that are there for what they do, not for what they return.
SIDE_EFFECTS = frozenset({"debug_callback", "debug_print", "io_callback"})


class Constant(NamedTuple):
    """An operand whose value is known: a scalar that the function's text holds."""

    value: Any


Operand = int | Constant


class Equation(NamedTuple):
    """results = primitive(operands, params), arrays by number."""

    primitive: Primitive
    params: dict[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[int, ...]


class Flat(NamedTuple):
    """outputs = equations(constants, inputs).

    Attributes:
        equations: in order of evaluation.
        constants: the numbers of the arrays that the function brought with it.
        inputs: the numbers of its arguments.
        outputs: what it returns.
        avals: shape and dtype of every number.
        own_derivative: whether a function with derivative rules of its own was inlined.
    """

    equations: tuple[Equation, ...]
    constants: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Operand, ...]
    avals: tuple[Any, ...]
    own_derivative: bool

    def aval(self, operand: Operand) -> Any:
        """Return the shape and dtype of an operand."""
        return self.avals[operand] if isinstance(operand, int) else jax.typeof(operand.value)


# By the primitive's name; or made of the function, for rules that go by what is around an equation.
Rules = Mapping[str, Rule] | Callable[[Flat], Mapping[str, Rule]]


class Traced(NamedTuple):
    """A function's jaxpr, its flat form with the values of `constants`, and its output's tree."""

    closed: ClosedJaxpr
    flat: Flat
    values: list[Any]
    tree: Any


def trace(function: Callable[..., Any], *args: Any, open_derivatives: bool = False) -> Traced:
    """Trace a function on arrays, or their shapes, and flatten it."""

    def fresh(*args: Any) -> Any:  # JAX keeps what it traced, by the identity of the function
        return function(*args)

    with jax.disable_jit(False):  # it is not run here, where that would be of use
        closed, shape = jax.make_jaxpr(fresh, return_shape=True)(*args)
    flat, values = flatten(closed, open_derivatives=open_derivatives)
    return Traced(closed, flat, values, jax.tree.structure(shape))


def flatten(
    closed: ClosedJaxpr | Jaxpr, *, open_derivatives: bool = False
) -> tuple[Flat, list[Any]]:
    """Flatten a jaxpr.

    Args:
        closed: the jaxpr.
        open_derivatives: whether functions with derivative rules of their own are inlined too,
            which loses these rules.

    Returns:
        The flat form, and the values of its constants.
    """
    flat = _Flattener(open_derivatives)
    jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
    inputs = [flat.new(var.aval) for var in jaxpr.invars]
    outputs = flat.inline(_jax.as_closed(closed), inputs)
    return flat.result(inputs, outputs), flat.values


def run(
    flat: Flat,
    values: Sequence[Any],
    args: Sequence[Any],
    rules: Rules = NO_RULES,
    *,
    shifts: Mapping[int, Any] = MappingProxyType({}),
    inside_loops: bool = True,
) -> list[Any]:
    """Evaluate a flat function.

    Args:
        flat: the function.
        values: of its constants.
        args: of its inputs.
        rules: primitive's name -> rule, or a function that makes these of the flat function. A rule
            is called with the equation and its input values, and answers with the list of outputs,
            or None to leave the equation as it is.
        shifts: number -> array that is added to that array once it is known.
        inside_loops: whether rules apply inside scans, whiles and conds, too.

    Returns:
        The outputs.
    """
    here = rules(flat) if callable(rules) else rules
    inside = rules if inside_loops else None
    known = dict(zip(flat.constants, values, strict=True))
    known.update(zip(flat.inputs, args, strict=True))
    for number in shifts.keys() & known.keys():
        known[number] = known[number] + shifts[number]
    for equation in flat.equations:
        inputs = [value_of(operand, known) for operand in equation.operands]
        outputs = _apply(equation, inputs, here, inside)
        known.update(zip(equation.results, outputs, strict=True))
        for number in shifts.keys() & set(equation.results):
            known[number] = known[number] + shifts[number]
    return [value_of(operand, known) for operand in flat.outputs]


def replay(
    function: Callable[..., Any],
    *args: Any,
    rules: Rules,
    inside_loops: bool = True,
) -> Any:
    """Return `function(*args)` with rules in place of some primitives, see `run`.

    Rules see every equation but those of functions with derivative rules of their own.
    """
    _, flat, values, tree = trace(function, *args)
    outputs = run(flat, values, jax.tree.leaves(args), rules, inside_loops=inside_loops)
    return jax.tree.unflatten(tree, outputs)


def value_of(operand: Operand, known: Mapping[int, Any]) -> Any:
    """Look an operand up."""
    return known[operand] if isinstance(operand, int) else operand.value


def equations(closed: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """Yield every equation of a jaxpr as JAX has it, and of the jaxprs inside it, at any depth."""
    for equation in (closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed).eqns:
        yield equation
        for inner in jaxprs_in(equation.params):
            yield from equations(inner)


def jaxprs_in(params: dict[str, Any]) -> list[Any]:
    """Return the jaxprs among the parameters of an equation."""
    leaves = jax.tree.leaves(list(params.values()), is_leaf=_jax.is_jaxpr)
    return [leaf for leaf in leaves if _jax.is_jaxpr(leaf)]


def dependent(flat: Flat, marks: Sequence[bool]) -> list[bool]:
    """Return which outputs can depend on the marked inputs."""
    reached = {number for number, mark in zip(flat.inputs, marks, strict=True) if mark}
    for equation in flat.equations:
        if reached.intersection(x for x in equation.operands if isinstance(x, int)):
            reached.update(equation.results)
    return [isinstance(x, int) and x in reached for x in flat.outputs]


def acts(equation: Equation) -> bool:
    """Say whether an equation prints or calls back, itself or inside a loop."""
    inner = (e for jaxpr in jaxprs_in(equation.params) for e in equations(jaxpr))
    return any(e.primitive.name in SIDE_EFFECTS for e in (equation, *inner))


def live(
    equations: Sequence[Equation], outputs: Sequence[Operand], *, acting: bool = False
) -> tuple[Equation, ...]:
    """Drop the equations whose results nobody reads; `acting` keeps those that print."""
    needed = {x for x in outputs if isinstance(x, int)}
    kept = []
    for equation in reversed(equations):
        if needed.intersection(equation.results) or (acting and acts(equation)):
            needed.update(x for x in equation.operands if isinstance(x, int))
            kept.append(equation)
    return tuple(kept[::-1])


def silent(traced: Traced) -> tuple[Flat, list[Any]]:
    """Return a traced function without what it prints for debugging, and what only that reads.

    It is flat and of the same inputs, also inside loops, and equal to that of the function in which
    nothing was printed; with the values of the constants that are left.
    """
    flat, values = _without_debug(traced.flat, traced.values)
    rules = dict.fromkeys(LOOPS, _silent_loop)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in map(flat.aval, flat.inputs)]
    closed = jax.make_jaxpr(lambda known, args: run(flat, known, args, rules))(values, shapes)
    again, _ = flatten(closed)
    return again, values


def _without_debug(flat: Flat, values: Sequence[Any]) -> tuple[Flat, list[Any]]:
    kept = live([e for e in flat.equations if e.primitive.name not in _jax.DEBUG], flat.outputs)
    every = [*flat.outputs, *(operand for e in kept for operand in e.operands)]
    read = {operand for operand in every if isinstance(operand, int)}
    known = [(n, v) for n, v in zip(flat.constants, values, strict=True) if n in read]
    numbers = tuple(number for number, _ in known)
    return flat._replace(equations=kept, constants=numbers), [value for _, value in known]


def _silent_loop(equation: Equation, inputs: Sequence[Any]) -> Sequence[Any]:
    name, rules = equation.primitive.name, dict.fromkeys(LOOPS, _silent_loop)
    again = []
    for body in bodies(name, equation.params):
        flat, values = _without_debug(*flatten(body, open_derivatives=True))
        again.append(lambda *args, flat=flat, values=values: run(flat, values, args, rules))
    return run_loop(name, equation.params, inputs, again)


def _apply(
    equation: Equation, inputs: list[Any], rules: Mapping[str, Rule], inside: Rules | None
) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    rule = rules.get(name)
    outputs = None if rule is None else rule(equation, inputs)
    if outputs is not None:
        return outputs
    inner = () if inside is None else bodies(name, params)
    if any(e.primitive.name in rules for body in inner for e in equations(body)):
        return run_loop(name, params, inputs, [partial(_run_body, body, inside) for body in inner])
    return _jax.bind(equation.primitive, params, inputs)


def _run_body(body: ClosedJaxpr, rules: Rules | None, *args: Any) -> list[Any]:
    flat, values = flatten(body)
    return run(flat, values, args, NO_RULES if rules is None else rules)


class _Flattener:
    """Collects the equations of a jaxpr and of the jaxprs it calls, numbering their arrays."""

    def __init__(self, open_derivatives: bool) -> None:
        self.open_derivatives = open_derivatives
        self.equations: list[Equation] = []
        self.avals: list[Any] = []
        self.constants: list[int] = []
        self.values: list[Any] = []
        self.own_derivative = False

    def result(self, inputs: list[int], outputs: list[Operand]) -> Flat:
        return Flat(
            tuple(self.equations),
            tuple(self.constants),
            tuple(inputs),
            tuple(outputs),
            tuple(self.avals),
            self.own_derivative,
        )

    def new(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def lift(self, value: Any) -> int:
        """Make an array that the function brought with it a constant."""
        self.constants.append(self.new(jax.typeof(value)))
        self.values.append(value)
        return self.constants[-1]

    def inline(self, closed: ClosedJaxpr, args: Sequence[Operand]) -> list[Operand]:
        jaxpr = closed.jaxpr
        known: dict[Any, Operand] = dict(
            zip(jaxpr.constvars, map(self.lift, closed.consts), strict=True)
        )
        known.update(zip(jaxpr.invars, args, strict=True))

        def operand(atom: Any) -> Operand:
            if not isinstance(atom, Literal):
                return known[atom]
            value = _jax.literal_value(atom)
            return self.lift(value) if np.ndim(value) else Constant(value)

        for equation in jaxpr.eqns:
            operands = [operand(atom) for atom in equation.invars]
            results = self.one(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [operand(atom) for atom in jaxpr.outvars]

    def one(self, equation: Any, operands: list[Operand]) -> Sequence[Operand]:
        """Add one equation, or the equations that it calls."""
        name, params = equation.primitive.name, equation.params
        own = name in _jax.OWN_DERIVATIVE
        inner = _jax.called(equation.primitive, params)
        if inner is not None and (self.open_derivatives or not own):
            self.own_derivative |= own
            return self.inline(inner, operands)
        # A loop whose body holds arrays is traced again with them as inputs, which it then hands to
        # every pass; one whose body holds none stays the equation that it is.
        inside = bodies(name, params)
        parts = [flatten(body, open_derivatives=self.open_derivatives) for body in inside]
        self.own_derivative |= any(flat.own_derivative for flat, _ in parts)
        if any(values for _, values in parts):
            return self.inline(*self.loop_without_arrays(equation, operands))
        results = tuple(self.new(var.aval) for var in equation.outvars)
        self.equations.append(Equation(equation.primitive, params, tuple(operands), results))
        return results

    def loop_without_arrays(
        self, equation: Any, operands: list[Operand]
    ) -> tuple[ClosedJaxpr, list[Operand]]:
        """Trace a loop again with the arrays that its bodies hold as inputs of the loop."""
        name, params = equation.primitive.name, equation.params
        parts = [flatten(body) for body in bodies(name, params)]

        def loop(values: list[list[Any]], inputs: list[Any]) -> list[Any]:
            again = [
                lambda *args, flat=flat, mine=mine: run(flat, mine, args)
                for (flat, _), mine in zip(parts, values, strict=True)
            ]
            return run_loop(name, params, inputs, again)

        values = [values for _, values in parts]
        inputs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
        closed = jax.make_jaxpr(loop)(values, inputs)
        return closed, [*map(self.lift, jax.tree.leaves(values)), *operands]
