"""What a flat function's operations are to relevance: affine, linear, functions of one array."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxviz.incremental.rules import ELEMENTWISE
from jaxviz.jaxpr.walk import Equation, Flat

SAME = {"convert_element_type", "copy", "copy_p", "name", "real", "reduce_precision", "neg"}
SCALES = {"mul", "div"}
SHIFTS = {"add", "sub", "add_any"}
SUMS = {"reduce_sum", "reduce_window_sum", "cumsum"}
WEIGHTED = {"conv_general_dilated": "convolution", "dot_general": "dense"}
MOVES = SAME | {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice"}


class Shape:
    """What is known of a flat function before it runs.

    Attributes:
        varying: numbers that depend on the image.
        producer: number -> the equation that makes it.
        uses: number -> how many operands and outputs it is.
        before: number -> the nearest array that it is a function of, number by number.
    """

    def __init__(self, flat: Flat, images: Sequence[int]) -> None:
        self.flat = flat
        self.varying: set[int] = set(images)
        self.producer: dict[int, Equation] = {}
        self.uses: Counter[int] = Counter(x for x in flat.outputs if isinstance(x, int))
        self.before: dict[int, int] = {}
        for equation in flat.equations:
            self.uses.update(x for x in equation.operands if isinstance(x, int))
            self.producer.update(dict.fromkeys(equation.results, equation))
            reads = self.reads(equation)
            if not reads:
                continue
            self.varying.update(equation.results)
            common = self._common(equation, reads)
            if common is not None:
                self.before[equation.results[0]] = common

    def reads(self, equation: Equation) -> list[int]:
        """The operands that depend on the image."""
        return [x for x in equation.operands if isinstance(x, int) and x in self.varying]

    def _common(self, equation: Equation, reads: Sequence[int]) -> int | None:
        """The nearest array that all operands are functions of: their common dominator."""
        shape = self.flat.avals[equation.results[0]].shape
        if equation.primitive.name not in ELEMENTWISE:
            return None
        if any(self.flat.avals[x].shape != shape for x in reads):
            return None
        first, *others = (self._line(x) for x in dict.fromkeys(reads))
        shared = set(first).intersection(*others)
        return next((x for x in first if x in shared and self._floating(x)), None)

    def _line(self, number: int) -> list[int]:
        line = [number]
        while line[-1] in self.before:
            line.append(self.before[line[-1]])
        return line

    def affine(self, equation: Equation | None) -> bool:
        """Whether it only adds, or multiplies by, what does not depend on the image."""
        if equation is None or equation.results[0] not in self.before:
            return False
        name, reads = equation.primitive.name, self.reads(equation)
        if len(reads) > 1:
            return False
        divides = name != "div" or equation.operands[0] == reads[0]
        return name in SAME | SCALES | SHIFTS and divides and self._floating(reads[0])

    def widens(self, equation: Equation) -> bool:
        """Whether it adds to one array, or multiplies it, along axes where it has size 1."""
        name, reads = equation.primitive.name, self.reads(equation)
        divides = name != "div" or equation.operands[0] == reads[0]
        return name in SCALES | SHIFTS and len(reads) == 1 and divides

    def linear(self, equation: Equation | None) -> str | None:
        """What kind of linear operation it is, if it is one."""
        if equation is None or equation.results[0] in self.before:
            return None
        name, reads = equation.primitive.name, self.reads(equation)
        if name in SHIFTS and len(reads) == 2:
            return "add"
        if name in SUMS:
            return "pool"
        return WEIGHTED.get(name) if len(reads) == 1 else None

    def chain(self, equation: Equation) -> tuple[list[Equation], int]:
        """The affine equations that end here, and the array that they start from.

        They are one function: nobody else reads what lies between them.
        """
        chain, (start,) = [equation], self.reads(equation)
        while self.uses[start] == 1 and self.affine(self.producer.get(start)):
            chain.insert(0, self.producer[start])
            (start,) = self.reads(chain[0])
        return chain, start

    def source(self, number: Any) -> Equation | None:
        """The equation that made an array, moves and scales left aside."""
        equation = self.producer.get(number)
        while equation is not None:
            moves = equation.primitive.name in MOVES or self.affine(equation)
            if not moves or not self.reads(equation):
                return equation
            equation = self.producer.get(self.reads(equation)[0])
        return None

    def _floating(self, number: int) -> bool:
        return jnp.issubdtype(self.flat.avals[number].dtype, jnp.floating)

    def receives(self, equation: Equation) -> list[int]:
        """Which operands, by place, can get relevance."""
        return [
            place
            for place, x in enumerate(equation.operands)
            if isinstance(x, int) and x in self.varying and self._floating(x)
        ]
