"""A factor and an addend by channel behind a convolution, moved into its kernel and one addition.

Batch normalisation in inference is such a pair: with k the kernel and all else by channel,

    ((k * x) - mean) · factor + bias  ==  (k · factor) * x + (bias - mean · factor)

What stands on the right depends on the weights alone but for the convolution and one addition, so
it can be made once a run. Only for float32, channels last, and where nothing else reads what lies
between; not where the function asks for the highest precision.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.convolution.shapes import asks_for_the_highest
from jaxviz.jaxpr.walk import Constant, Equation, Flat, Operand, flatten, value_of

FACTORS, ADDENDS = ("mul", "div"), ("add", "sub")


class Chain(NamedTuple):
    """A convolution and what follows it: equations, each with its operand by channel."""

    convolution: Equation
    links: tuple[tuple[Equation, Operand], ...]

    @property
    def end(self) -> Equation:
        """The last of its equations."""
        return self.links[-1][0]


def fold(flat: Flat, varying: Collection[int]) -> Flat:
    """Return the function with factors and addends by channel moved into kernels.

    Args:
        flat: the function.
        varying: the inputs, by number, that change from call to call: the images.

    Returns:
        An equal function, up to rounding, of the same constants and inputs; the same object where
        there is nothing to move.
    """
    changing = _changing(flat, varying)
    chains = _chains(flat, changing)
    if not chains:
        return flat
    ends = {id(chain.end): chain for chain in chains}
    parts = {id(e) for c in chains for e in (c.convolution, *(link for link, _ in c.links))}
    # What goes by channel first: it may have been written behind the convolution.
    order = sorted(flat.equations, key=lambda e: not changing.isdisjoint(_read(e)))

    def run(values: list[Any], args: list[Any]) -> list[Any]:
        known = dict(zip((*flat.constants, *flat.inputs), (*values, *args), strict=True))
        for equation in order:
            if id(equation) in ends:
                outputs = [_carry_out(ends[id(equation)], known)]
            elif id(equation) in parts:
                continue
            else:
                inputs = [value_of(x, known) for x in equation.operands]
                outputs = _jax.bind(equation.primitive, equation.params, inputs)
            known.update(zip(equation.results, outputs, strict=True))
        return [value_of(x, known) for x in flat.outputs]

    shapes = [
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in map(flat.aval, numbers)]
        for numbers in (flat.constants, flat.inputs)
    ]
    again, _ = flatten(jax.make_jaxpr(run)(*shapes))
    count = len(flat.constants)
    return again._replace(
        constants=again.inputs[:count],
        inputs=again.inputs[count:],
        own_derivative=flat.own_derivative,
    )


def _carry_out(chain: Chain, known: Mapping[int, Any]) -> jax.Array:
    image, kernel = (value_of(x, known) for x in chain.convolution.operands)
    factor: Any = jnp.ones((), kernel.dtype)
    addend: Any = None
    for equation, operand in chain.links:
        value, name = value_of(operand, known), equation.primitive.name
        value = jnp.reshape(value, () if jnp.size(value) == 1 else (-1,))
        if name in FACTORS:
            by = value if name == "mul" else 1 / value
            factor, addend = factor * by, None if addend is None else addend * by
        else:
            value = value if name == "add" else -value
            addend = value if addend is None else addend + value
    kernel = kernel * jnp.broadcast_to(factor, kernel.shape)
    (out,) = _jax.bind(chain.convolution.primitive, chain.convolution.params, [image, kernel])
    return out if addend is None else out + jnp.broadcast_to(addend, out.shape)


def _changing(flat: Flat, varying: Collection[int]) -> set[int]:
    changing = set(varying)
    for equation in flat.equations:
        if not changing.isdisjoint(_read(equation)):
            changing.update(equation.results)
    return changing


def _read(equation: Equation) -> list[int]:
    return [x for x in equation.operands if isinstance(x, int)]


def _chains(flat: Flat, changing: set[int]) -> list[Chain]:
    """Find the convolutions that a factor by channel follows, and addends around it."""
    makers = {number: equation for equation in flat.equations for number in equation.results}
    readers = {x: equation for equation in flat.equations for x in _read(equation)}
    read = [x for equation in flat.equations for x in _read(equation)]
    times = Counter([*read, *(x for x in flat.outputs if isinstance(x, int))])

    def chain_of(convolution: Equation) -> Chain:
        number, links = convolution.results[0], []
        while times[number] == 1 and number in readers:
            equation = readers[number]
            operand = _by_channel(flat, equation, number, makers, changing)
            if operand is None:
                break
            links.append((equation, operand))
            number = equation.results[0]
        factors = [i for i, (e, _) in enumerate(links) if e.primitive.name in FACTORS]
        return Chain(convolution, tuple(links) if factors else ())

    found = (chain_of(e) for e in flat.equations if _suits(flat, e, changing))
    return [chain for chain in found if chain.links]


def _suits(flat: Flat, equation: Equation, changing: set[int]) -> bool:
    if equation.primitive.name != "conv_general_dilated":
        return False
    params, (image, kernel) = equation.params, equation.operands
    _, kernel_axes, result_axes = params["dimension_numbers"]
    last = len(flat.aval(kernel).shape) - 1
    arrays = (image, kernel, equation.results[0])
    return (
        image in changing
        and kernel not in changing
        and kernel_axes[0] == result_axes[1] == last
        and params["batch_group_count"] == 1
        and all(flat.aval(x).dtype == jnp.float32 for x in arrays)
        and not asks_for_the_highest(params)
    )


def _by_channel(
    flat: Flat, equation: Equation, number: int, makers: Mapping[int, Equation], changing: set[int]
) -> Operand | None:
    """Return the other operand, as it was before it was stretched, if it is one by channel."""
    name, operands = equation.primitive.name, equation.operands
    if name not in (*FACTORS, *ADDENDS):
        return None
    other = operands[1] if operands[0] == number else operands[0]
    commutes = name in ("mul", "add")
    if other in changing or (operands[0] != number and not commutes):
        return None
    if flat.aval(equation.results[0]).shape != flat.aval(number).shape:
        return None
    if isinstance(other, Constant) or not any(dim > 1 for dim in flat.aval(other).shape[:-1]):
        return other
    maker = makers.get(other)
    if maker is None or maker.primitive.name != "broadcast_in_dim" or len(maker.operands) != 1:
        return None
    source, last = maker.operands[0], len(flat.aval(number).shape) - 1
    dims = zip(flat.aval(source).shape, maker.params["broadcast_dimensions"], strict=True)
    return source if all(dim == 1 or to == last for dim, to in dims) else None
