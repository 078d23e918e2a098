"""What a network is made of: its layers, how they are connected, and what each one sees.

Everything is read off the equations of the function: which layer outputs a layer reads, which
arrays are its parameters, how many pixels one of its sites sees (its receptive field), and which
part of it a patch changes. So it serves any function whose layers have names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._arguments import pair
from jaxviz.incremental.planner import Planner
from jaxviz.incremental.program import Known, Program, trace_scorer
from jaxviz.incremental.reach import Positions
from jaxviz.incremental.rules import RULES
from jaxviz.jaxpr.walk import Equation
from jaxviz.layers import ScorerLike, as_scorer, capture, layer_names

INPUT, OUTPUT = "input", "output"
# What an operation is called, the most telling first; the first two found name a layer.
KINDS = {
    "conv_general_dilated": "convolution",
    "dot_general": "dense",
    "reduce_window_max": "max pooling",
    "reduce_window_sum": "average pooling",
    "reduce_window": "pooling",
    "concatenate": "concatenate",
    "erf": "GELU",
    "tanh": "tanh",
    "logistic": "sigmoid",
    "exp": "softmax",
    "max": "ReLU",
    "rsqrt": "normalisation",
    "reduce_sum": "mean or sum",
    "reduce_max": "maximum",
    "add": "add",
    "mul": "scale",
    "reshape": "reshape",
    "transpose": "transpose",
}


class Layer(NamedTuple):
    """One layer of a network.

    Attributes:
        name: as `jaxviz.activations` has it.
        kind: its operations in words, such as "convolution 3×3, stride 2".
        shape: of its output, without the batch axis.
        parameters: how many numbers it reads that are no output of another layer.
        inputs: the names of the layers that it reads, "input" for the image.
        field: (height, width) in pixels that one site sees; None: has no sites, or sees the whole.
        window: (height, width) in sites that a patch changes at most; None: all of them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    inputs: tuple[str, ...]
    field: tuple[int, int] | None
    window: tuple[int, int] | None


def layers_of(
    f: ScorerLike,
    image_shape: Sequence[int],
    *,
    patch: int | tuple[int, int] = 1,
    dtype: Any = jnp.float32,
) -> list[Layer]:
    """Return the layers of a network in order of evaluation, its output last.

    Args:
        f: a scorer whose layers have names.
        image_shape: (height, width, channel).
        patch: side or (rows, columns) of the patch whose windows are told.
        dtype: of the images.

    Returns:
        The layers.

    Raises:
        ValueError: the image is not (height, width, channel), or the patch is larger.

    Example:
        >>> import jaxviz as jv
        >>> last = layers_of(jv.models.mnist_cnn(), (28, 28, 1), patch=4)[-1]
        >>> last.kind, last.shape
        ('dense, softmax', (10,))
    """
    if len(image_shape) != 3:
        raise ValueError(f"`image_shape` must be (height, width, channel): got {image_shape}.")
    rows, columns = pair(patch, "patch", least=1)
    if rows > image_shape[0] or columns > image_shape[1]:
        raise ValueError(f"`patch` must not exceed the image: got {patch} for {image_shape}.")
    scorer = as_scorer(f)
    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.dtype(dtype))
    names = layer_names(scorer, jax.ShapeDtypeStruct((1, *image_shape), dtype))

    # A model that names its layers itself has its output among them.
    own = hasattr(scorer, "activations")
    asked = names if own else [*names, None]

    def outputs(images: jax.Array) -> list[jax.Array]:
        found = capture(scorer, images, asked)
        return [found[name] for name in asked]

    program = trace_scorer(outputs, image).program
    cones = _cones(program, names if own else [*names, OUTPUT])
    fields = _planned(program, image.shape, (1, 1))
    windows = _planned(program, image.shape, (rows, columns))
    found = [_layer(program, cone, fields, windows) for cone in cones]
    idle = not own and len(found) > 1 and found[-1].kind == ""  # the last layer is the output
    return found[:-1] if idle else found


@dataclass(frozen=True)
class _Cone:
    """A layer's output, and what it is computed of up to the layers before it."""

    name: str
    array: Any
    equations: list[Equation]
    parameters: frozenset[int]
    inputs: tuple[str, ...]


def _cones(program: Program, names: Sequence[str]) -> list[_Cone]:
    made = {result: i for i, e in enumerate(program.equations) for result in e.results}
    named: dict[Any, list[str]] = {}
    for output, name in zip(program.outputs, names, strict=True):
        # The batch axis was taken off by one last equation, which no other layer reads.
        made_by = made.get(output, -1) if isinstance(output, int) else -1
        array = program.equations[made_by].operands[0] if made_by >= 0 else output
        named.setdefault(array, []).append(name)
    parameters = set(program.arrays)
    first = {array: found[0] for array, found in named.items()}
    return [
        _cone(program, made, parameters, first, array, name, before)
        for array, found in named.items()
        for name, before in zip(found, [None, *found], strict=False)
    ]


def _cone(
    program: Program,
    made: dict[int, int],
    parameters: set[int],
    layers: dict[Any, str],
    array: Any,
    name: str,
    before: str | None,
) -> _Cone:
    """Walk back from a layer's output to those of others; a second name is a layer by itself."""
    if before is not None or array == program.image or not isinstance(array, int):
        return _Cone(name, array, [], frozenset(), (before or INPUT,))
    todo, seen, own, reads = [made[array]] if array in made else [], set(), set(), {}
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        for operand in program.equations[number].operands:
            if not isinstance(operand, int):
                continue
            if operand == program.image:
                reads[INPUT] = -1
            elif operand in layers:
                reads[layers[operand]] = made.get(operand, -1)
            elif operand in parameters:
                own.add(operand)
            elif operand in made:
                todo.append(made[operand])
    equations = [program.equations[i] for i in sorted(seen)]
    inputs = tuple(sorted(reads, key=lambda layer: reads[layer]))
    return _Cone(name, array, equations, frozenset(own), inputs)


def _planned(program: Program, shape: tuple[int, ...], patch: tuple[int, int]) -> Planner:
    """Follow a patch through the whole program, on windows wherever there is a rule."""
    positions = tuple(Positions.on_grid(shape[i], patch[i], 1, 0) for i in (0, 1))
    known = Known(program, {*RULES, "iota"})
    planner = Planner(program, known, (positions[0], positions[1]), 1.0, None, "cpu")
    planner.begin()
    for equation in program.read:
        planner.step(equation)
    return planner


def _layer(program: Program, cone: _Cone, fields: Planner, windows: Planner) -> Layer:
    shape = tuple(program.aval(cone.array).shape)
    return Layer(
        cone.name,
        _kind(cone.equations, program),
        shape[1:],
        sum(prod(program.aval(array).shape) for array in cone.parameters),
        cone.inputs,
        _field(fields, cone.array),
        _window(windows, cone.array),
    )


def _field(planner: Planner, array: Any) -> tuple[int, int] | None:
    change = planner.changed.get(array)
    pairs = zip(change.reaches, change.windows, strict=True) if change is not None else ()
    fields = {reach.axis: reach.field for reach, window in pairs if reach and window}
    if set(fields) != {0, 1}:
        return None
    rows, columns = (round(fields[a].left + fields[a].right) + 1 for a in (0, 1))
    return rows, columns


def _window(planner: Planner, array: Any) -> tuple[int, int] | None:
    change = planner.changed.get(array)
    spans = change.windows if change is not None else ()
    sizes = {span.axis: span.size for span in spans if span is not None}
    return (sizes[0], sizes[1]) if set(sizes) == {0, 1} else None


def _kind(equations: Sequence[Equation], program: Program) -> str:
    """Name a layer by its two most telling operations."""
    by_name = {equation.primitive.name: equation for equation in reversed(equations)}
    told: list[str] = []
    for primitive, word in KINDS.items():
        beside = word in ("add", "scale", "reshape", "transpose") and told
        if primitive in by_name and len(told) < 2 and not beside:
            told.append(word + _extent(by_name[primitive], program))
    return ", ".join(told)


def _extent(equation: Equation, program: Program) -> str:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        spec = params["dimension_numbers"].rhs_spec
        kernel = tuple(program.aval(equation.operands[1]).shape)
        size = [kernel[axis] for axis in spec[2:]]
        strides = params["window_strides"]
        groups = params["feature_group_count"]
        kind = " depthwise" if groups > 1 and kernel[spec[1]] == 1 else ""
        return kind + _sizes(size, strides)
    if name.startswith("reduce_window"):
        return _sizes(params["window_dimensions"], params["window_strides"])
    return ""


def _sizes(size: Sequence[int], strides: Sequence[int]) -> str:
    size = [s for s in size if s > 1] if len(size) > 2 else list(size)
    step = int(np.max(strides))
    return " " + "×".join(map(str, size)) + (f", stride {step}" if step > 1 else "")
