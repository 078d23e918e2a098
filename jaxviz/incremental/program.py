"""A function as one flat list of equations: traced, calls inlined, dead equations dropped.

Arrays are numbered. An operand is either such a number or a `Constant`. The arrays that the
function brings with it (the leaves of a module, whatever a closure captures) are inputs of the
program, never constants of it, so that they stay arguments when a caller compiles.
"""

from collections.abc import Callable, Container, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun

from jaxviz.jaxpr import _jax

MOST_KNOWN = 1e6


class Constant(NamedTuple):
    """An operand whose value is known: a literal of the jaxpr."""

    value: Any


Operand = int | Constant


class Equation(NamedTuple):
    """results = primitive(operands, params), arrays by number."""

    primitive: Primitive
    params: dict[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[int, ...]


class Program(NamedTuple):
    """outputs = equations(arrays, image); `avals` gives the shape and dtype of every number.

    `jaxpr` is the function before inlining; its constants and inputs are the numbers `order`.
    """

    equations: tuple[Equation, ...]
    arrays: tuple[int, ...]
    image: int
    outputs: tuple[Operand, ...]
    avals: tuple[Any, ...]
    jaxpr: Jaxpr
    order: tuple[int, ...]
    own_derivative: bool

    def aval(self, operand: Operand) -> Any:
        """Return the shape and dtype of an operand."""
        return self.avals[operand] if isinstance(operand, int) else jax.typeof(operand.value)


class Traced(NamedTuple):
    """A program, the arrays that closures of the function captured, and the tree of its output."""

    program: Program
    captured: list[Any]
    tree: Any


def is_array(leaf: Any) -> bool:
    """Say whether a leaf of a scorer is an array, to be passed as an argument."""
    return isinstance(leaf, jax.Array | np.ndarray)


class Skeleton(NamedTuple):
    """A callable without its arrays: the tree, and its other leaves with None for each array."""

    structure: Any
    others: tuple[Any, ...]

    def fill(self, arrays: Sequence[Any]) -> Callable:
        """Put the callable together again."""
        supply = iter(arrays)
        leaves = [next(supply) if leaf is None else leaf for leaf in self.others]
        return self.structure.unflatten(leaves)


def split_arrays(f: Callable) -> tuple[list[Any], Skeleton]:
    """Split a callable into its arrays and the rest."""
    leaves, structure = jax.tree.flatten(f)
    others = tuple(None if is_array(leaf) else leaf for leaf in leaves)
    return [leaf for leaf in leaves if is_array(leaf)], Skeleton(structure, others)


def trace(f: Callable, image: Any) -> Traced:
    """Trace `f` on one image, without its batch axis."""
    arrays, skeleton = split_arrays(f)

    def run(arrays: list[Any], image: jax.Array) -> Any:
        return jax.tree.map(_first, skeleton.fill(arrays)(image[None]))

    shape = jax.ShapeDtypeStruct(image.shape, image.dtype)
    closed, outs = jax.make_jaxpr(run, return_shape=True)(arrays, shape)
    flat = _Inliner()
    captured = [flat.new(jax.typeof(value)) for value in closed.consts]
    inputs = [flat.new(var.aval) for var in closed.jaxpr.invars]
    outputs = flat.inline(closed, [*captured, *inputs], own=False)
    equations = _live(flat.equations, outputs)
    arguments = tuple([*inputs[:-1], *captured, *flat.captured])
    program = Program(
        tuple(equations),
        arguments,
        inputs[-1],
        tuple(outputs),
        tuple(flat.avals),
        closed.jaxpr,
        (*captured, *inputs),
        flat.own_derivative,
    )
    return Traced(program, [*closed.consts, *flat.values], jax.tree.structure(outs))


def evaluate_as_written(program: Program, arrays: Sequence[Any], image: jax.Array) -> list[Any]:
    """Run the function before inlining, with its own derivative rules; return its outputs."""
    known = dict(zip(program.arrays, arrays, strict=True)) | {program.image: image}
    values = [known[number] for number in program.order]
    split = len(program.jaxpr.constvars)
    return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, values[:split]))(*values[split:])


def value_of(operand: Operand, known: dict[int, Any]) -> Any:
    """Look an operand up."""
    return known[operand] if isinstance(operand, int) else operand.value


class Known:
    """Evaluates, when asked, what follows from the program alone: neither arrays nor the image.

    Only through the primitives that are named, and no array of more than `MOST_KNOWN` elements.
    """

    def __init__(self, program: Program, through: Container[str]) -> None:
        self.equations: list[Equation] = []
        self.values: dict[int, np.ndarray] = {}
        self.known: set[int] = set()
        for eqn in program.equations:
            sizes = [prod(program.aval(x).shape) for x in (*eqn.operands, *eqn.results)]
            known = all(isinstance(x, Constant) or x in self.known for x in eqn.operands)
            if known and eqn.primitive.name in through and max(sizes) <= MOST_KNOWN:
                self.equations.append(eqn)
                self.known.update(eqn.results)

    def value(self, operand: Operand) -> np.ndarray | None:
        """Return the value of an operand; None if it depends on more than literals."""
        if isinstance(operand, Constant):
            return operand.value
        if operand in self.known and operand not in self.values:
            self._evaluate(operand)
        return self.values.get(operand)

    def _evaluate(self, array: int) -> None:
        known = self.values
        with jax.ensure_compile_time_eval():
            for eqn in _live(self.equations, [array]):
                args = [value_of(operand, known) for operand in eqn.operands]
                outs = _jax.bind(eqn.primitive, eqn.params, args)
                known.update(zip(eqn.results, map(np.asarray, outs), strict=True))


class _Inliner:
    """Collects the equations of a jaxpr and of the jaxprs it calls, numbering their arrays."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.avals: list[Any] = []
        self.captured: list[int] = []
        self.values: list[Any] = []
        self.own_derivative = False

    def new(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def capture(self, value: Any) -> int:
        self.captured.append(self.new(jax.typeof(value)))
        self.values.append(value)
        return self.captured[-1]

    def inline(self, closed: ClosedJaxpr, args: Sequence[Operand], *, own: bool = True) -> list:
        jaxpr = closed.jaxpr
        consts = [self.capture(value) for value in closed.consts] if own else []
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def operand(atom: Any) -> Operand:
            if not isinstance(atom, Literal):
                return env[atom]
            value = _jax.literal_value(atom)
            return self.capture(value) if np.ndim(value) else Constant(value)

        for eqn in jaxpr.eqns:
            operands = [operand(atom) for atom in eqn.invars]
            inner = _jax.called(eqn.primitive, eqn.params)
            self.own_derivative |= eqn.primitive.name in _jax.OWN_DERIVATIVE
            if inner is not None:
                results = self.inline(inner, operands)
            else:
                results = [self.new(var.aval) for var in eqn.outvars]
                self.equations.append(
                    Equation(eqn.primitive, eqn.params, tuple(operands), tuple(results))
                )
            env.update(zip(eqn.outvars, results, strict=True))
        return [operand(atom) for atom in jaxpr.outvars]


def _live(equations: list[Equation], outputs: Sequence[Operand]) -> list[Equation]:
    """Drop the equations whose results nobody reads."""
    needed = {x for x in outputs if isinstance(x, int)}
    kept = []
    for eqn in reversed(equations):
        if needed.intersection(eqn.results):
            needed.update(x for x in eqn.operands if isinstance(x, int))
            kept.append(eqn)
    return kept[::-1]


def _first(scores: jax.Array) -> jax.Array:
    if not (hasattr(scores, "shape") and scores.shape[:1] == (1,)):
        raise ValueError(
            "`f` must return one row per image: got "
            f"{getattr(scores, 'shape', type(scores).__name__)} for a batch of 1. "
            "Do not sum or average over the batch."
        )
    return scores[0]
