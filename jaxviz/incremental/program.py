"""A scorer as one flat list of equations for one image: traced, inlined, dead equations dropped.

The arrays that the scorer brings with it (the leaves of a module, whatever a closure captures) are
inputs of the program, never constants of it: so that they stay arguments when a caller compiles,
and a program is known again by its content, whatever the values of the weights.
"""

from collections.abc import Callable, Container, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxviz.incremental.turn import with_turns
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.split import split_arrays
from jaxviz.jaxpr.walk import Constant, Equation, Flat, Operand, flatten, live, trace, value_of

MOST_KNOWN = 1e6


class Program(NamedTuple):
    """outputs = equations(arrays, image); `avals` gives the shape and dtype of every number.

    Of `equations`, those that only print or call back are for the clean image alone.
    """

    equations: tuple[Equation, ...]
    arrays: tuple[int, ...]
    image: int
    outputs: tuple[Operand, ...]
    avals: tuple[Any, ...]

    @property
    def read(self) -> tuple[Equation, ...]:
        """The equations whose results are read."""
        return live(self.equations, self.outputs)

    def aval(self, operand: Operand) -> Any:
        """Return the shape and dtype of an operand."""
        return self.avals[operand] if isinstance(operand, int) else jax.typeof(operand.value)


class Written:
    """A function as its author wrote it, with derivative rules of its own, for differentiation.

    Equal only to itself: two functions of one content may have other derivatives.
    """

    def __init__(self, closed: ClosedJaxpr):
        self.jaxpr, self.consts = closed.jaxpr, len(closed.consts)

    def __call__(self, arrays: Sequence[Any], image: jax.Array) -> list[Any]:
        """Evaluate it, as `Program`: arrays are the scorer's own, then those it captured."""
        # What closures hold at the top level comes first among the lifted arrays; what lies deeper
        # is concrete, and part of the jaxpr itself.
        own = len(self.jaxpr.invars) - 1
        consts = list(arrays[own : own + self.consts])
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, consts))(*arrays[:own], image)


class Scored(NamedTuple):
    """A scorer, traced: its program, what it captured, its output's tree, and how to derive it.

    Attributes:
        flat: equations of the scorer for one image (H, W, C), without batch axis.
        captured: arrays that closures of the scorer hold.
        tree: of its output.
        written: the function before inlining if it has derivative rules of its own, else None.
    """

    flat: Flat
    captured: list[Any]
    tree: Any
    written: Written | None

    @property
    def program(self) -> Program:
        """The program: inputs are the scorer's arrays, what it captured, and the image."""
        flat = self.flat
        arrays = (*flat.inputs[:-1], *flat.constants)
        equations, outputs = _simplified(flat)
        return Program(equations, arrays, flat.inputs[-1], outputs, flat.avals)


def forwarded(
    equations: Sequence[Equation], outputs: Sequence[Operand]
) -> tuple[tuple[Equation, ...], tuple[Operand, ...]]:
    """Leave out what returns its operands as they are, and read these instead.

    Barriers and constraints on where arrays lie change no number; of a window, which has another
    shape, a constraint might not even hold.
    """
    same: dict[Operand, Operand] = {}
    kept = []
    for eqn in equations:
        operands = tuple(same.get(operand, operand) for operand in eqn.operands)
        if eqn.primitive.name in ("optimization_barrier", "sharding_constraint"):
            same.update(zip(eqn.results, operands, strict=True))
        else:
            kept.append(eqn._replace(operands=operands))
    return tuple(kept), tuple(same.get(output, output) for output in outputs)


def _simplified(flat: Flat) -> tuple[tuple[Equation, ...], tuple[Operand, ...]]:
    """Return the equations that are read, as the rules know them, and the outputs."""
    equations, outputs = forwarded(flat.equations, flat.outputs)
    return live(with_turns(equations, flat.avals), outputs, acting=True), outputs


def trace_scorer(f: Callable[..., Any], image: Any) -> Scored:
    """Trace `f` on one image (H, W, C), of which only shape and dtype matter."""
    arrays, skeleton = split_arrays(f)

    # The batch axis is added and taken off inside: what is planned is one image, and vmap adds
    # positions and images outside.
    def run(arrays: list[Any], image: jax.Array) -> Any:
        return jax.tree.map(_first, skeleton.fill(arrays)(image[None]))

    shape = jax.ShapeDtypeStruct(image.shape, image.dtype)
    closed, flat, captured, tree = trace(run, arrays, shape, open_derivatives=True)
    return Scored(flat, captured, tree, Written(closed) if flat.own_derivative else None)


def written_anew(program: Program, evaluate: Callable[..., list[Any]]) -> Program | None:
    """Return a program of the same inputs as another way to evaluate it, (*arrays, image) ->
    outputs, is traced; None if that brings arrays of its own."""
    avals = map(program.aval, (*program.arrays, program.image))
    closed = jax.make_jaxpr(evaluate)(*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))
    again, values = flatten(closed, open_derivatives=True)
    if values:  # what is no literal would have to be another input
        return None
    equations, outputs = _simplified(again)
    return Program(equations, again.inputs[:-1], again.inputs[-1], outputs, again.avals)


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
            for eqn in live(self.equations, [array]):
                args = [value_of(operand, known) for operand in eqn.operands]
                outs = _jax.bind(eqn.primitive, eqn.params, args)
                known.update(zip(eqn.results, map(np.asarray, outs), strict=True))


def _first(scores: jax.Array) -> jax.Array:
    if not (hasattr(scores, "shape") and scores.shape[:1] == (1,)):
        raise ValueError(
            "`f` must return one row per image: got "
            f"{getattr(scores, 'shape', type(scores).__name__)} for a batch of 1. "
            "Do not sum or average over the batch."
        )
    return scores[0]
