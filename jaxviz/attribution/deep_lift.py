"""DeepLIFT with the rescale rule: multipliers Δout/Δin in place of derivatives.

The scorer runs on the baseline first, and every intermediate value is kept. Then it runs on the
image, and its operations pass back, with Δ the difference between image and baseline:

- what is linear: its derivative;
- functions of one number, however many operations they are written as (ReLU, SiLU, GELU, ELU):
  Δout/Δin, or the derivative where |Δin| < 1e-10;
- products of two values that both vary: the derivative at the midpoint, so that
  Δ(a·b) = ā·Δb + b̄·Δa; a quotient is a product with 1/b;
- the larger of several values, as in max pooling: what it gains goes to the largest of the image,
  what it loses to the largest of the baseline;
- inside a loop, and for anything else: the derivative, and `delta` tells what is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz.attribution.baseline import BaselineLike, backgrounds, describe, make_baselines
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal, score
from jaxviz.attribution.kernel import Found, check_real, differentiate
from jaxviz.attribution.result import Attribution
from jaxviz.incremental.rules import ELEMENTWISE
from jaxviz.jaxpr import _jax
from jaxviz.jaxpr.walk import Equation, Flat, run, trace, value_of
from jaxviz.layers import ScorerLike
from jaxviz.perturbation.fill import Fill
from jaxviz.progress import Progress

NO_CHANGE = 1e-10  # below it, Δout/Δin is not taken
AFFINE = {"add", "sub", "neg", "convert_element_type", "copy", "copy_p", "name", "real"}
BILINEAR = {"mul", "dot_general", "conv_general_dilated"}
LARGEST = {"max", "reduce_max", "reduce_window_max"}
SMALLEST = {"min", "reduce_min", "reduce_window_min"}


def deep_lift(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    baseline: BaselineLike = 0.0,
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Compare image and baseline operation by operation: DeepLIFT, rescale rule.

    values = (x − b) · m, with multipliers m = Δout/Δin chained from the scores to the image. They
    add up to s(x) − s(b), up to `delta`: about two passes give what integrated gradients take fifty
    for, but depend on how the network is written.

    Args:
        f: scorer, see `saliency`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        baseline: what the image is compared with, one or several, see `integrated_gradients`.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image, and `delta` (N,).

    Raises:
        ValueError: the baseline does not suit the images; see `saliency`.

    Example:
        >>> f = lambda x: jax.nn.relu(x - 1).sum((1, 2))
        >>> deep_lift(f, np.full((2, 2, 1), 3.0, np.float32)).heatmap().tolist()
        [[2.0, 2.0], [2.0, 2.0]]

    Source: A. Shrikumar, P. Greenside, A. Kundaje, Learning Important Features Through Propagating
    Activation Differences, 2017, arXiv:1704.02685.
    """
    fills = make_baselines(baseline)
    run = Run(batch_size, memory, mesh, progress, dtype)
    config = {"baseline": describe(fills)}
    return attribute("DeepLIFT", _DeepLift(fills), f, images, target, run, config=config)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _DeepLift:
    fills: list[Fill]

    def __call__(self, f: Any, image: jax.Array, goal: Goal) -> Found:
        _, flat, values, _ = trace(lambda x: score(f, x), image[None], open_derivatives=True)
        regions = Regions(flat)

        def one(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            clean = _everything(flat, values, start[None])

            def explained(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
                scores = _run(flat, values, x[None], clean, regions)
                check_real(scores)
                fixed = goal.fix(jax.lax.stop_gradient(scores[0]))
                before = fixed(value_of(flat.outputs[0], clean))[0]
                number = fixed(scores)[0]
                return number, (scores[0], number - before)

            multipliers, (scores, change) = differentiate(explained, image)
            return (image - start) * multipliers, scores, change

        found, scores, change = jax.vmap(one)(backgrounds(self.fills, image))
        total = found.astype(change.dtype).mean(0)
        return Found(total, scores[0], total.sum() - change.mean())


def _everything(flat: Flat, values: Sequence[Any], image: jax.Array) -> dict[int, Any]:
    """Return every array of a pass, by number."""
    known = dict(zip(flat.constants, values, strict=True)) | {flat.inputs[0]: image}
    numbers = tuple(n for equation in flat.equations for n in equation.results)
    outputs = run(flat._replace(outputs=numbers), values, [image])
    return known | dict(zip(numbers, outputs, strict=True))


def _run(
    flat: Flat,
    values: Sequence[Any],
    image: jax.Array,
    clean: Mapping[int, Any],
    regions: "Regions",
) -> jax.Array:
    """Evaluate with multipliers for derivatives."""
    known = dict(zip(flat.constants, values, strict=True)) | {flat.inputs[0]: image}
    for equation in flat.equations:
        inputs = [value_of(x, known) for x in equation.operands]
        before = [value_of(x, clean) for x in equation.operands]
        rule = regions.rule(equation)
        if rule is None:
            outputs = _jax.bind(equation.primitive, equation.params, inputs)
        else:
            outputs = [rule(equation, inputs, before)]
        known.update(zip(equation.results, outputs, strict=True))
        (number, *others) = equation.results
        if not others and number in regions.ends:
            root = regions.roots[number]
            step = (known[root], known[number], clean[root], clean[number])
            known[number] = _rescaled(*step)
    return value_of(flat.outputs[0], known)


class Regions:
    """Which arrays are functions, number by number, of one other array.

    Attributes:
        varying: numbers that depend on the image.
        roots: number -> the array that it is a function of, number by number; itself, if of none.
        ends: numbers whose function is not affine, and which something outside it reads.
    """

    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        self.varying: set[int] = set(flat.inputs)
        self.roots: dict[int, int] = {number: number for number in flat.inputs}
        curved: set[int] = set()
        outside: set[int] = {x for x in flat.outputs if isinstance(x, int)}
        for equation in flat.equations:
            reads = self._varying_of(equation)
            if not reads:
                continue
            self.varying.update(equation.results)
            root = self._root(equation, reads)
            for number in equation.results:
                self.roots[number] = number if root is None else root
            if root is None:
                outside.update(reads)
            elif self._bends(equation, reads, curved):
                curved.update(equation.results)
        # What is true or false has no slope to be replaced.
        self.ends = {
            n for n in curved & outside if jnp.issubdtype(flat.avals[n].dtype, jnp.inexact)
        }

    def _varying_of(self, equation: Equation) -> list[int]:
        return [x for x in equation.operands if isinstance(x, int) and x in self.varying]

    def _root(self, equation: Equation, reads: Sequence[int]) -> int | None:
        """The one array that an elementwise operation is a function of, if there is one."""
        roots = {self.roots[x] for x in reads}
        if equation.primitive.name not in ELEMENTWISE or len(roots) > 1:
            return None
        shape = self.flat.avals[equation.results[0]].shape
        same = all(self.flat.avals[x].shape == shape for x in reads)
        return roots.pop() if same else None

    def _bends(self, equation: Equation, reads: Sequence[int], curved: set[int]) -> bool:
        name = equation.primitive.name
        scales = name in ("mul", "div") and len(reads) == 1 and equation.operands[0] == reads[0]
        scales |= name == "mul" and len(reads) == 1
        return not (name in AFFINE or scales) or bool(curved.intersection(reads))

    def rule(self, equation: Equation) -> Callable[..., jax.Array] | None:
        """The rule for an operation that joins several varying arrays, or the pixels of one."""
        name, reads = equation.primitive.name, self._varying_of(equation)
        if not reads or self.roots[equation.results[0]] != equation.results[0]:
            return None
        if name in BILINEAR and len(reads) == 2:
            return _midpoint
        if name == "div" and reads == list(equation.operands):
            return _quotient
        if name in LARGEST:
            return _largest
        return _smallest if name in SMALLEST else None


@jax.custom_vjp
def _rescaled(x: jax.Array, y: jax.Array, x0: jax.Array, y0: jax.Array) -> jax.Array:
    return y


def _rescaled_forward(*args: jax.Array) -> tuple[jax.Array, Any]:
    return args[1], args


def _rescaled_backward(kept: Any, g: jax.Array) -> tuple[jax.Array, ...]:
    x, y, x0, y0 = kept
    change = x - x0
    still = jnp.abs(change) < NO_CHANGE
    slope = (y - y0) / jnp.where(still, jnp.ones_like(change), change)
    zero = jnp.zeros_like(g)
    # Where nothing changes, g goes on through y itself, and so by the derivative.
    return jnp.where(still, zero, g * slope), jnp.where(still, g, zero), zero, zero


_rescaled.defvjp(_rescaled_forward, _rescaled_backward)


def _midpoint(equation: Equation, inputs: Sequence[Any], before: Sequence[Any]) -> jax.Array:
    """A bilinear form, whose derivative is that at the midpoint."""

    def form(*args: Any) -> jax.Array:
        return _jax.bind(equation.primitive, equation.params, list(args))[0]

    middle = [jax.lax.stop_gradient((a + b) / 2) for a, b in zip(inputs, before, strict=True)]
    left = form(inputs[0], middle[1]) + form(middle[0], inputs[1])
    return left + jax.lax.stop_gradient(form(*inputs) - left)


def _quotient(equation: Equation, inputs: Sequence[Any], before: Sequence[Any]) -> jax.Array:
    """a/b as a · (1/b), Δ(1/b) = −Δb/(b·b₀)."""
    (a, b), (a0, b0) = inputs, before
    inverse, fixed = (1 / b + 1 / b0) / 2, jax.lax.stop_gradient
    linear = a * fixed(inverse) - fixed((a + a0) / 2 / (b * b0)) * b
    return linear + fixed(a / b - linear)


def _largest(equation: Equation, inputs: Sequence[Any], before: Sequence[Any]) -> jax.Array:
    return _selected(equation, inputs, before, 1)


def _smallest(equation: Equation, inputs: Sequence[Any], before: Sequence[Any]) -> jax.Array:
    return _selected(equation, inputs, before, -1)


def _selected(
    equation: Equation, inputs: Sequence[Any], before: Sequence[Any], sign: int
) -> jax.Array:
    """The largest or smallest of several: gains go to the image's winner, losses to the other's."""

    def form(*args: Any) -> jax.Array:
        return _jax.bind(equation.primitive, equation.params, list(args))[0]

    @jax.custom_vjp
    def select(now: Sequence[Any], before: Sequence[Any]) -> jax.Array:
        return form(*now)

    def forward(now: Sequence[Any], before: Sequence[Any]) -> tuple[jax.Array, Any]:
        return form(*now), (now, before)

    def backward(kept: Any, g: jax.Array) -> tuple[Any, Any]:
        now, before = kept
        y, plain = jax.vjp(form, *now)
        y0, other = jax.vjp(form, *before)
        zero, change = jnp.zeros_like(y), sign * (y - y0)
        gains = plain(g * (sign * jnp.maximum(change, zero)))
        losses = other(g * (sign * jnp.minimum(change, zero)))
        parts = zip(gains, losses, plain(g), now, before, strict=True)
        return [_share(*part) for part in parts], [jnp.zeros_like(x) for x in before]

    select.defvjp(forward, backward)
    return select(list(inputs), list(before))


def _share(gain: Any, loss: Any, plain: Any, x: Any, x0: Any) -> jax.Array:
    change = x - x0
    still = jnp.abs(change) < NO_CHANGE
    return jnp.where(still, plain, (gain + loss) / jnp.where(still, jnp.ones_like(change), change))
