"""Which outputs of a function are probabilities: what a sigmoid or a softmax makes, at its end."""

from jaxviz.jaxpr.walk import Equation, Flat, Operand

# What only moves numbers, or names them; a probability that goes through is one still.
MOVING = frozenset(
    "broadcast_in_dim concatenate convert_element_type copy copy_p gather name optimization_barrier"
    " reshape reduce_precision slice squeeze stop_gradient transpose".split()
)


def squashed(flat: Flat) -> list[bool]:
    """Return which outputs are a sigmoid, σ(x), or a softmax, exp(x) / Σ exp(x), moved about."""
    made = {result: e for e in flat.equations for result in e.results}

    def source(operand: Operand) -> Equation | None:
        equation = made.get(operand) if isinstance(operand, int) else None
        while equation is not None and equation.primitive.name in MOVING:
            first = equation.operands[0]
            equation = made.get(first) if isinstance(first, int) else None
        return equation

    def is_probability(operand: Operand) -> bool:
        found = source(operand)
        if found is None or found.primitive.name != "div":
            return found is not None and found.primitive.name == "logistic"
        above, below = map(source, found.operands)
        return (
            above is not None
            and above.primitive.name == "exp"
            and below is not None
            and below.primitive.name == "reduce_sum"
        )

    return [is_probability(output) for output in flat.outputs]
