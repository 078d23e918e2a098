"""The way of relevance back through a flat function: which operation passes it on, and how.

- Linear operations, with the bias and the batch normalisation that follow them: by a rule.
- Functions of one array, number by number, however many operations they are written as (ReLU, SiLU,
  GELU, tanh): on to that array, as it is.
- What selects or moves numbers (max pooling, reshape, concatenate): to where each came from.
- Products of two arrays: gates, see `Walk.product`.
- Anything else is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxviz.attribution.linear import Form, Linear, part_of
from jaxviz.attribution.operations import SAME, SHIFTS, WEIGHTED, Shape
from jaxviz.attribution.shares import Rule
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import Equation, value_of
from jaxviz.jaxpr.walk import Rule as Replacement

ROUTES = set(
    """
    max min select_n reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin reshape
    transpose squeeze expand_dims broadcast_in_dim concatenate pad slice dynamic_slice split rev
    gather sort dynamic_update_slice stack unstack
    """.split()
)
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
        form: Form,
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
            known: dict[Any, Any] = {start: x}
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

    def weight_form(self, equation: Equation) -> Form:
        """L of a product with weights."""
        (place,) = self.shape.receives(equation)

        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            operands = [part_of(self.value(x), part) for x in equation.operands]
            operands[place] = inputs[0]
            return self.bind(equation, operands)[0]

        return form

    def pool_form(self, equation: Equation) -> Form:
        """L of a sum over axes or windows, whose weights are 1."""

        def form(inputs: list[jax.Array], part: str) -> jax.Array:
            whole = self.bind(equation, list(inputs))[0]
            return jnp.zeros_like(whole) if part == "negative" else whole

        return form

    def sum_form(self, equation: Equation) -> Form:
        """L of a sum or difference of two arrays."""
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
    return (
        outputs if outputs is not None else _jax.bind(equation.primitive, equation.params, inputs)
    )


def _identity(inputs: list[jax.Array], part: str) -> jax.Array:
    (x,) = inputs
    return jnp.zeros_like(x) if part == "negative" else x
