"""The way of relevance back through a flat function: which operation passes it on, and how.

- Linear operations, with the bias and the batch normalisation that follow them: by a rule.
- Functions of one array, number by number, however many operations they are written as (ReLU, SiLU,
  GELU, tanh): on to that array, as it is.
- What selects or moves numbers (max pooling, reshape, concatenate): to where each came from.
- Products of two arrays: gates, see `Walk.product`.
- Anything else is refused by name.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxviz.attribution.linear import Linear, part_of
from jaxviz.attribution.rules import Rule
from jaxviz.incremental.rules import ELEMENTWISE
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import Equation, Flat, value_of
from jaxviz.jaxpr.walk import Rule as Replacement

SAME = {"convert_element_type", "copy", "copy_p", "name", "real", "reduce_precision", "neg"}
SCALES = {"mul", "div"}
SHIFTS = {"add", "sub", "add_any"}
SUMS = {"reduce_sum", "reduce_window_sum", "cumsum"}
WEIGHTED = {"conv_general_dilated": "convolution", "dot_general": "dense"}
ROUTES = set(
    """
    max min select_n reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin reshape
    transpose squeeze expand_dims broadcast_in_dim concatenate pad slice dynamic_slice split rev
    gather sort dynamic_update_slice
    """.split()
)
MOVES = SAME | {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice"}
BOUNDED = {"logistic", "clamp", "min", "rsqrt"}  # what makes a gate


class Chosen(NamedTuple):
    """The rules of a network's operations.

    Attributes:
        rule: (equation, kind) -> its rule.
        layer: equation -> the name of its layer, or None.
        gating: what a product of two arrays does, see `Walk.product`.
    """

    rule: Callable[[Equation, str], Rule]
    layer: Callable[[Equation], str | None]
    gating: str


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


class Walk:
    """Relevance on its way back through one evaluation.

    Attributes:
        shape: of the function.
        known: number -> value, of every array.
        chosen: the rules.
        quick: other ways to evaluate some primitives.
        found: number -> relevance so far.
        biases: what biases took.
    """

    def __init__(
        self,
        shape: Shape,
        known: Mapping[int, Any],
        chosen: Chosen,
        quick: Mapping[str, Replacement],
    ) -> None:
        self.shape, self.known, self.chosen, self.quick = shape, known, chosen, quick
        self.found: dict[int, jax.Array] = {}
        self.biases: list[jax.Array] = []

    def back(self, output: int, r: jax.Array, image: int) -> tuple[jax.Array, jax.Array]:
        """Return the relevance of the image, and that of all biases, for that of an output."""
        self.found[output] = r
        for equation in reversed(self.shape.flat.equations):
            if self.found.keys() & set(equation.results) and self.shape.reads(equation):
                self.step(equation)
        like = self.known[image]
        total = jnp.stack([jnp.zeros((), r.dtype), *self.biases]).sum()
        return self.found.get(image, jnp.zeros_like(like)), total

    def step(self, equation: Equation) -> None:
        """Pass on what one equation got."""
        shape, name, number = self.shape, equation.primitive.name, equation.results[0]
        kind = shape.linear(equation)
        if shape.affine(equation):
            self.affine(equation)
        elif number in shape.before:
            self.give(shape.before[number], self.found[number])
        elif kind is not None:
            self.linear(equation, kind, [])
        elif shape.widens(equation):
            self.widen(equation)
        elif name in ("mul", "div"):
            self.product(equation)
        elif name in ROUTES:
            self.route(equation)
        else:
            self.refuse(equation)

    def give(self, number: int, r: jax.Array) -> None:
        """Add relevance to an array, that of copies together."""
        like = self.known[number]
        if r.shape != like.shape:  # an operand of size 1 that an operation repeated
            r = jax.linear_transpose(lambda x: jnp.broadcast_to(x, r.shape), like)(r)[0]
        r = r.astype(like.dtype)
        self.found[number] = self.found[number] + r if number in self.found else r

    def affine(self, equation: Equation) -> None:
        """Additions and multiplications: part of the linear operation before, or one by themselves.

        What only scales by itself passes R on, also where the number is 0.
        """
        chain, start = self.shape.chain(equation)
        before = self.shape.producer.get(start)
        kind = self.shape.linear(before)
        if before is not None and kind is not None and self.shape.uses[start] == 1:
            self.linear(before, kind, chain)
        elif not any(each.primitive.name in SHIFTS for each in chain):
            self.give(start, self.found[equation.results[0]])
        else:
            self.by_rule(equation, "normalization", [start], _identity, chain, start)

    def widen(self, equation: Equation) -> None:
        """An addition or multiplication that repeats its operand along axes of size 1."""
        (start,) = self.shape.reads(equation)
        if equation.primitive.name not in SHIFTS:
            self.give(start, self.found[equation.results[0]])
            return
        shape = self.known[equation.results[0]].shape

        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            return _identity([jnp.broadcast_to(inputs[0], shape)], part)

        self.by_rule(equation, "normalization", [start], form, [equation], start)

    def linear(self, equation: Equation, kind: str, chain: list[Equation]) -> None:
        """A linear operation and the affine ones behind it."""
        if kind == "pool" and self._sums_exponentials(equation):
            self.refuse(equation)
        reads = [equation.operands[place] for place in self.shape.receives(equation)]
        forms = {"add": self.sum_form, "pool": self.pool_form}
        form = forms.get(kind, self.weight_form)(equation)
        numbers = [x for x in reads if isinstance(x, int)]
        self.by_rule(equation, kind, numbers, form, chain, equation.results[0])

    def by_rule(
        self,
        equation: Equation,
        kind: str,
        reads: list[int],
        form: Callable[[list[jax.Array], str], jax.Array],
        chain: list[Equation],
        start: int,
    ) -> None:
        """Share by the rule that the operation has."""
        end = chain[-1].results[0] if chain else equation.results[0]
        inputs = [self.known[x] for x in reads]
        scale, bias = self.folded(chain, start)
        unit = Linear(inputs, self.known[end], form, scale, bias)
        shares = self.chosen.rule(equation, kind).share(unit, self.found[end])
        self.biases.append(shares.bias)
        for number, share in zip(reads, shares.inputs, strict=True):
            self.give(number, share)

    def folded(
        self, chain: list[Equation], start: int
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """What a chain multiplies its start by, and adds to it; None: nothing."""

        def run(x: jax.Array) -> jax.Array:
            known = {start: x}
            for each in chain:
                inputs = [known[o] if o in known else self.value(o) for o in each.operands]
                known[each.results[0]] = self.bind(each, inputs)[0]
            return known[chain[-1].results[0]]

        names = {each.primitive.name for each in chain}
        if not chain:
            return None, None
        like = self.known[chain[0].results[0]]
        added, scale = jax.jvp(run, (jnp.zeros_like(like),), (jnp.ones_like(like),))
        only_adds = names <= (SHIFTS | SAME) - {"sub", "neg"}
        return (None if only_adds else scale), (added if names & SHIFTS else None)

    def weight_form(self, equation: Equation) -> Callable[[list[jax.Array], str], jax.Array]:
        (place,) = self.shape.receives(equation)

        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            operands = [part_of(self.value(x), part) for x in equation.operands]
            operands[place] = inputs[0]
            return self.bind(equation, operands)[0]

        return form

    def pool_form(self, equation: Equation) -> Callable[[list[jax.Array], str], jax.Array]:
        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            whole = self.bind(equation, list(inputs))[0]
            return jnp.zeros_like(whole) if part == "negative" else whole

        return form

    def sum_form(self, equation: Equation) -> Callable[[list[jax.Array], str], jax.Array]:
        minus = equation.primitive.name == "sub"

        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            a, b = inputs
            if not minus:
                return jnp.zeros_like(a) if part == "negative" else a + b
            return {"whole": a - b, "positive": a, "negative": -b}.get(part, a + b)

        return form

    def route(self, equation: Equation) -> None:
        """Give relevance to where each number came from; ties are split as derivatives are."""
        places = self.shape.receives(equation)
        inputs = [self.value(x) for x in equation.operands]

        def moved(*some: jax.Array) -> list[jax.Array]:
            full = list(inputs)
            for place, array in zip(places, some, strict=True):
                full[place] = array
            outputs = self.bind(equation, full)
            return [o for o in outputs if jnp.issubdtype(o.dtype, jnp.floating)]

        outputs, pull = jax.vjp(moved, *(inputs[place] for place in places))
        real = [n for n in equation.results if jnp.issubdtype(self.known[n].dtype, jnp.floating)]
        pairs = zip(real, outputs, strict=True)
        got = [self.found.get(n, jnp.zeros_like(o)).astype(o.dtype) for n, o in pairs]
        for place, r in zip(places, pull(got), strict=True):
            number = equation.operands[place]
            assert isinstance(number, int)
            self.give(number, r)

    def product(self, equation: Equation) -> None:
        """A product of two arrays: half to each, or all to the signal.

        The signal is what is multiplied by a gate: a sigmoid, a clipped array, a divisor, or the
        root of one. Where both, or none, are gates, each gets half.
        """
        r = self.found[equation.results[0]]
        first, second = equation.operands
        assert isinstance(first, int) and isinstance(second, int)
        if equation.primitive.name == "div":
            if self._exponential(first):
                self.refuse(equation)
            self.give(first, r)
            return
        gates = [self._is_gate(x) for x in (first, second)]
        if self.chosen.gating == "signal" and gates[0] != gates[1]:
            self.give(second if gates[0] else first, r)
            return
        for number in (first, second):
            self.give(number, r / 2)

    def _is_gate(self, number: int) -> bool:
        source = self.shape.source(number)
        return source is not None and source.primitive.name in BOUNDED

    def _exponential(self, number: Any) -> bool:
        source = self.shape.source(number)
        return source is not None and source.primitive.name in ("exp", "exp2")

    def _sums_exponentials(self, equation: Equation) -> bool:
        return any(self._exponential(x) for x in equation.operands if isinstance(x, int))

    def refuse(self, equation: Equation) -> None:
        """Raise the error that names an operation and its layer."""
        layer = self.chosen.layer(equation)
        name, where = equation.primitive.name, "" if layer is None else f" in layer {layer!r}"
        if name in ("reduce_sum", "div"):
            raise ValueError(
                f"`f` must hold no softmax: got one{where}; jaxviz.logits is the model before a"
                " last one, and attention has no rule."
            )
        if name in WEIGHTED:
            raise ValueError(
                f"`f` must multiply arrays by weights alone: got a {name} of two arrays that both"
                f" depend on the image{where}, as in attention; LRP has no rule for it."
            )
        raise ValueError(
            f"`f` must be made of operations that LRP has a rule for: got {name}{where}; try"
            " integrated_gradients."
        )

    def value(self, operand: Any) -> Any:
        """The value of an operand."""
        return value_of(operand, self.known)

    def bind(self, equation: Equation, inputs: list[Any]) -> Sequence[Any]:
        """Evaluate an equation on other inputs."""
        return evaluate(equation, inputs, self.quick)


def evaluate(
    equation: Equation, inputs: list[Any], quick: Mapping[str, Replacement]
) -> Sequence[Any]:
    """Evaluate an equation, by a quicker way where there is one."""
    rule = quick.get(equation.primitive.name)
    outputs = None if rule is None else rule(equation, inputs)
    return outputs if outputs is not None else _jax.bind(equation.primitive, equation.params, inputs)


def _identity(inputs: list[jax.Array], part: str) -> jax.Array:
    (x,) = inputs
    return jnp.zeros_like(x) if part == "negative" else x
