"""Layer-wise relevance propagation, as a transformation of a function's operations.

The scorer runs once, and every intermediate value is kept; then its operations pass the score back
to the pixels. It sees operations, not modules: ReLUs that are functions, layers that run twice and
skip connections are nothing special. `jaxviz.attribution.relevance` has which operation does what.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxviz._choices import Gating
from jaxviz.attribution.driver import Run, attribute
from jaxviz.attribution.goal import Goal
from jaxviz.attribution.kernel import Found, check_real
from jaxviz.attribution.operations import WEIGHTED, Shape
from jaxviz.attribution.relevance import Chosen, Walk, evaluate
from jaxviz.attribution.result import Attribution
from jaxviz.attribution.rules import Rule, RulesLike, epsilon
from jaxviz.jaxpr._jax import platform_of
from jaxviz.jaxpr.cpu_gradient import quick_rules
from jaxviz.jaxpr.walk import Equation, Flat, Traced, live, run, trace, value_of
from jaxviz.layers import ScorerLike, locate
from jaxviz.progress import Progress
from jaxviz.scoring.scorer import check_output

KINDS = ("convolution", "dense", "pool", "add", "normalization")
ENDS = {"first": 0, "last": -1}


def lrp(
    f: ScorerLike,
    images: jax.Array | np.ndarray,
    *,
    target: Any = None,
    rules: RulesLike | None = None,
    gating: Gating = "signal",
    batch_size: int | Literal["auto"] = "auto",
    memory: int | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = False,
    dtype: Any = None,
) -> Attribution:
    """Pass the score back through the network, operation by operation: LRP.

    A linear operation z = Σ x·w + b shares the relevance R of z among its inputs, by the rule ε in
    proportion to x·w: R_in = x · (∂z/∂x)ᵀ (R / (z + ε·sign z)). The target's score starts. Bias and
    batch normalisation are folded into the operation before them; a batch normalisation that
    follows none is an operation by itself. Functions of one number (ReLU, ReLU6, SiLU, GELU, tanh)
    pass R on as it is, max pooling gives it to the winner.

    Args:
        f: scorer, see `saliency`; without a softmax or sigmoid at the end, see `jaxviz.logits`.
        images: (N, H, W, C), or (H, W, C) for a single image.
        target: what is explained, see `saliency`.
        rules: one of `jaxviz.attribution.rules` for all operations with weights, or a mapping to
            rules, looked up in this order: the layer's name, as `jaxviz.activations` has it, or
            that of a layer around it; the number of the operation among those with weights,
            negative from the end; "first", "last"; its kind: "convolution", "dense", and, without
            weights, "pool" (sums and means), "add", "normalization". What is in no entry has ε.
            None: ε = 1e-6 everywhere.
        gating: what a product of two arrays does: "signal" gives all to the one that is not a gate
            (a sigmoid, a clipped array, one over a root or a divisor), and half to each where that
            is not clear; "half" to each, always.
        batch_size: see `saliency`.
        memory: see `saliency`.
        mesh: see `saliency`.
        progress: see `saliency`.
        dtype: see `saliency`.

    Returns:
        Values (N, H, W, C), or (H, W, C) for a single image; `delta` (N,), what they and the shares
        of all biases exceed the score by.

    Raises:
        ValueError: the scorer holds an operation without a rule, such as attention or softmax,
            which is named with its layer; `rules` names what there is not; see `saliency`.

    Example:
        >>> f = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)
        >>> att = lrp(f, np.ones((2, 2, 1), np.float32))
        >>> att.heatmap().round(3).tolist(), bool(abs(att.delta) < 1e-4)
        ([[1.0, 1.0], [1.0, 1.0]], True)

    Source: S. Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
    Layer-Wise Relevance Propagation, 2015, doi:10.1371/journal.pone.0130140.
    """
    if gating not in get_args(Gating):
        raise ValueError(f'`gating` must be "signal" or "half": got {gating!r}.')
    if rules is None:
        rules = epsilon()
    table = checked_rules(rules)
    kernel = _Lrp(tuple(table.values()), tuple(table), gating)
    run = Run(batch_size, memory, mesh, progress, dtype)
    config = {"rules": _described(rules), "gating": gating}
    return attribute("LRP", kernel, f, images, target, run, config=config)


def checked_rules(rules: RulesLike) -> Mapping[str | int, Rule]:
    """Return the rules as a mapping; one for all is that of the operations with weights.

    Raises:
        TypeError: something is no rule.
    """
    if not isinstance(rules, Mapping):
        rules = dict.fromkeys(WEIGHTED.values(), rules)
    for key, rule in rules.items():
        if not callable(getattr(rule, "share", None)):
            raise TypeError(
                "`rules` must be made by jaxviz.attribution.rules, such as rules.gamma(0.25): got"
                f" {rule!r} for {key!r}."
            )
    return rules


def _described(rules: RulesLike) -> str:
    if isinstance(rules, Mapping):
        return ", ".join(f"{key}: {_named(rule)}" for key, rule in rules.items())
    return _named(rules)


def _named(rule: Rule) -> str:
    fields = ", ".join(f"{k}={_plain(v)}" for k, v in vars(rule).items())
    return f"{type(rule).__name__.lstrip('_')}({fields})"


def _plain(value: Any) -> Any:
    return f"array {value.shape}" if hasattr(value, "shape") else value


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Lrp:
    """The kernel; arrays in its rules are arguments of what is compiled."""

    given: tuple[Rule, ...]
    keys: tuple[str | int, ...] = field(metadata={"static": True})
    gating: str = field(metadata={"static": True})

    def __call__(self, f: Any, image: jax.Array, goal: Goal) -> Found:
        traced, layers = opened(f, image[None])
        flat, *arguments = _without_others(traced.flat), *traced.values
        quick = quick_rules(platform_of(image))
        known = _everything(flat, arguments, image[None], quick)
        scores = value_of(flat.outputs[0], known)
        check_output(scores, 1)
        check_real(scores)
        r, total, base = _start(goal, scores)
        shape = Shape(flat, flat.inputs[-1:])
        output = flat.outputs[0]
        if (
            not isinstance(output, int) or output not in shape.varying
        ):  # a scorer that does not look at the image
            return Found(jnp.zeros_like(image), base, -total)
        refuse_probabilities(shape, output)
        choose = Choice(shape, layers, dict(zip(self.keys, self.given, strict=True)))
        walk = Walk(shape, known, Chosen(choose.rule, choose.layer, self.gating), quick)
        (found,), biases = walk.back(output, r, flat.inputs[-1])
        return Found(found, base, _gap(found, biases, total))


def _start(goal: Goal, scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The relevance of the scores, what it adds up to, and the scores (..., K)."""
    fixed = goal.fix(jax.lax.stop_gradient(scores[0]))
    number, pull = jax.vjp(lambda s: fixed(s)[0], scores)
    (weights,) = pull(jnp.ones_like(number))
    r = jnp.where(weights == 0, jnp.zeros_like(scores), weights * scores)
    return r, r.astype(number.dtype).sum(), scores[0]


def _gap(found: jax.Array, biases: jax.Array, total: jax.Array) -> jax.Array:
    return found.astype(total.dtype).sum() + biases.astype(total.dtype) - total


def opened(f: Any, images: jax.Array) -> tuple[Traced, dict[str, int]]:
    """Return a scorer's equations, functions with own derivatives opened, and layer -> output.

    Its inputs are the arrays that it brought with it, and then the images.
    """
    located = locate(f, images)
    flat = located.flat._replace(outputs=(*located.flat.outputs, *located.numbers.values()))
    values = [jnp.asarray(v) for v in located.values]
    again = trace(lambda known, x: run(flat, known, [x]), values, images, open_derivatives=True)
    numbers = again.flat.outputs[1:]
    names = zip(located.numbers, numbers, strict=True)
    layers = {name: number for name, number in names if isinstance(number, int)}
    return again._replace(values=[*again.values, *values]), layers


def _without_others(flat: Flat) -> Flat:
    """Keep the scores, and what leads to them; the arrays that the function brought first."""
    outputs = flat.outputs[:1]
    constants = (*flat.constants, *flat.inputs[:-1])
    equations = live(flat.equations, outputs)
    return flat._replace(
        equations=equations, outputs=outputs, constants=constants, inputs=flat.inputs[-1:]
    )


def _everything(
    flat: Flat, values: list[Any], images: jax.Array, quick: Mapping[str, Any]
) -> dict[int, Any]:
    """Return every array of a pass, by number."""
    known = dict(zip(flat.constants, values, strict=True)) | {flat.inputs[0]: images}
    for equation in flat.equations:
        inputs = [value_of(x, known) for x in equation.operands]
        known.update(zip(equation.results, evaluate(equation, inputs, quick), strict=True))
    return known


def refuse_probabilities(shape: Shape, output: Any) -> None:
    """Raise ValueError if scores come from a sigmoid; sums of exponentials are found on the way."""
    source = shape.source(output)
    if source is not None and source.primitive.name == "logistic":
        raise ValueError(
            "`f` must give scores before their last sigmoid: explain jaxviz.logits(f), or the"
            " scores themselves."
        )


class Choice:
    """Which rule an operation has, by its layer, its number and its kind."""

    def __init__(
        self, shape: Shape, layers: Mapping[str, int], rules: Mapping[str | int, Rule]
    ) -> None:
        equations = shape.flat.equations
        self.place = {e.results: place for place, e in enumerate(equations) if e.results}
        made = {number: place for place, e in enumerate(equations) for number in e.results}
        ends = [(made[number], name) for name, number in layers.items() if number in made]
        self.ends = sorted(ends, key=lambda end: end[0])
        weighted = [e for e in equations if shape.linear(e) in WEIGHTED.values()]
        self.number = {e.results: number for number, e in enumerate(weighted)}
        self.rules = rules
        self.check()

    def check(self) -> None:
        """Raise ValueError if a key names nothing."""
        count = len(self.number)
        names = [name for _, name in self.ends]
        around = {outer for name in names for outer in _outer(name)}
        known = [*KINDS, *ENDS, *sorted(around)]
        for key in self.rules:
            if isinstance(key, int):
                if not -count <= key < count:
                    raise ValueError(
                        f"`rules` must number one of {count} operations with weights: got {key}."
                    )
            elif key not in known:
                (near,) = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
                raise ValueError(
                    "`rules` must name layers, kinds of operations or their numbers: got"
                    f" {key!r}; did you mean {near!r}?"
                )

    def layer(self, equation: Equation) -> str | None:
        """The layer that an operation is in: the first one that ends after it."""
        place = self.place[equation.results]
        return next((name for end, name in self.ends if end >= place), None)

    def rule(self, equation: Equation, kind: str) -> Rule:
        """The rule of an operation."""
        given = [key for key in self.keys(equation, kind) if key in self.rules]
        return self.rules[given[0]] if given else USUAL

    def keys(self, equation: Equation, kind: str) -> list[str | int]:
        """The keys to look up, in order."""
        name, number = self.layer(equation), self.number.get(equation.results)
        keys: list[str | int] = [] if name is None else [*_outer(name)]
        if number is not None:
            back = number - len(self.number)
            keys += [number, back]
            keys += [word for word, end in ENDS.items() if end in (number, back)]
        return [*keys, kind]


USUAL = epsilon()


def _outer(name: str) -> list[str]:
    """A layer's name, and the names of those around it, the nearest first."""
    cuts = [at for at, letter in enumerate(name) if letter in "./"]
    return [name, *(name[:at] for at in reversed(cuts))]
