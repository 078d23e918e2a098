"""A scorer cut at a layer: the layer's output, and the scores as a function of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz.jaxpr.walk import Equation, Flat, Rule, run
from jaxviz.layers import Layer, Located, locate, resolve
from jaxviz.scoring.scorer import check_output


@dataclass(frozen=True)
class Cut:
    """One image's way through a scorer, cut at a layer.

    Attributes:
        name: of the layer.
        output: of the layer, (H', W', C').
        known: other arrays of the way up to the layer that the way behind it reads.
        rest: (known, output) -> scores (..., K).
    """

    name: str
    output: jax.Array
    known: list[jax.Array]
    rest: Callable[[list[jax.Array], jax.Array], jax.Array]


def cut(
    f: Any, image: jax.Array, layers: Sequence[Layer], rules: Mapping[str, Rule]
) -> tuple[list[Cut], jax.Array]:
    """Return the cuts of a scorer at some layers, and the scores (..., K) of one image (H, W, C).

    What lies below a layer is computed once. A layer of None is the last one with positions.

    Raises:
        ValueError: a layer is unknown, has no positions, or does not lead to the scores.
    """
    located = locate(f, image[None])
    numbers = [_number(f, located, layer) for layer in layers]
    names = {number: name for name, number in located.numbers.items()}
    flat = located.flat._replace(outputs=(*located.flat.outputs, *numbers))
    (scores, *outputs) = run(flat, located.values, [image[None]], rules)
    check_output(scores, 1)
    cuts = [
        _cut(located, number, names[number], output, image, rules)
        for number, output in zip(numbers, outputs, strict=True)
    ]
    return cuts, scores[0]


def _cut(
    located: Located,
    number: int,
    name: str,
    output: jax.Array,
    image: jax.Array,
    rules: Mapping[str, Rule],
) -> Cut:
    flat, values = located.flat, located.values
    head, tail = _parts(flat, number)
    (scores,) = flat.outputs
    made = {n for equation in tail for n in equation.results}
    if scores not in made | {number}:
        raise ValueError(f"`layer` must lead to the scores: {name!r} does not.")
    before = {n for equation in head for n in equation.results} | set(flat.inputs)
    read = {n for equation in tail for n in equation.operands if isinstance(n, int)}
    carried = tuple(sorted((read & before) - {number}))
    known = run(flat._replace(equations=head, outputs=carried), values, [image[None]], rules)
    rest = flat._replace(equations=tail, inputs=(number, *carried))
    shape = flat.avals[number].shape

    def behind(known: list[jax.Array], output: jax.Array) -> jax.Array:
        return run(rest, values, [output.reshape(shape), *known], rules)[0][0]

    # (1, L', C'), a map of a signal, is one of one row already.
    return Cut(name, output.reshape(output.shape[-3:]), known, behind)


def _parts(flat: Flat, number: int) -> tuple[tuple[Equation, ...], tuple[Equation, ...]]:
    """Split the equations into those that do not depend on an array, and those that do."""
    reached, head, tail = {number}, [], []
    for equation in flat.equations:
        if number in equation.results or not reached.intersection(
            n for n in equation.operands if isinstance(n, int)
        ):
            head.append(equation)
        else:
            reached.update(equation.results)
            tail.append(equation)
    return tuple(head), tuple(tail)


def _number(f: Any, located: Located, layer: Layer) -> int:
    """The number of a layer's output, which must have positions."""
    flat, numbers = located.flat, located.numbers
    if layer is None:
        return _last(located)
    outer = getattr(f, "layer_names", None)
    if isinstance(layer, int) and outer is not None:
        layer = resolve(layer, outer)
    name = resolve(layer, list(numbers))
    if not _has_positions(flat, numbers[name]):
        shape = flat.avals[numbers[name]].shape[1:]
        raise ValueError(
            f"`layer` must have positions (H', W', C'): {name!r} gives {shape}; {_others(located)}"
        )
    return numbers[name]


def _last(located: Located) -> int:
    for number in reversed(located.numbers.values()):
        if _has_positions(located.flat, number) and _leads(located.flat, number):
            return number
    raise ValueError(
        "`layer` must be given: no layer of this scorer has positions (H', W', C');"
        " name one with jaxviz.tag."
    )


def _others(located: Located) -> str:
    fitting = [n for n, number in located.numbers.items() if _has_positions(located.flat, number)]
    return f"those that have are {fitting}." if fitting else "none has."


def _has_positions(flat: Flat, number: int) -> bool:
    """Whether an array is a map (1, H', W', C'); of images of one row (1, L', C') is one, too."""
    aval, image = flat.avals[number], flat.avals[flat.inputs[-1]]
    fits = aval.ndim == 4 or (aval.ndim == 3 and image.shape[1] == 1)
    return fits and prod(aval.shape[1:-1]) > 1 and _is_real(aval)


def _is_real(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _leads(flat: Flat, number: int) -> bool:
    tail = _parts(flat, number)[1]
    return flat.outputs[0] in {n for equation in tail for n in equation.results}
