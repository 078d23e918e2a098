"""What an incremental run would do, in words: until where windows go, why, and what it saves."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._arguments import Pair
from jaxviz._choices import Border
from jaxviz.incremental import Plan, describe
from jaxviz.jaxpr.layout import with_channels_last
from jaxviz.perturbation.grid import Grid
from jaxviz.perturbation.patches import Patches
from jaxviz.scoring.arguments import check_rank
from jaxviz.scoring.evaluators import Incremental
from jaxviz.scoring.scorer import Scorer, split

CAUSES, COSTS = 3, 5  # told in a summary, which so has at most 15 lines
NO_CAUSE = ("", "behind a dense one")  # the reasons of what is dense for none of its own


def explain(
    f: Scorer,
    image: Any,
    *,
    patch: int | Pair,
    stride: int | Pair | None = None,
    margin: int | Pair = 0,
    border: Border = "clip",
    verbose: bool = False,
) -> Plan:
    """Print how `occlude` with method "incremental" would run, and return the plan.

    Args:
        f: scorer, see `jaxviz.occlude`.
        image: (H, W, C), an array or `jax.ShapeDtypeStruct`; only its shape and dtype matter.
        patch: see `jaxviz.occlude`.
        stride: see `jaxviz.occlude`.
        margin: see `jaxviz.occlude`.
        border: see `jaxviz.occlude`.
        verbose: print a line for every equation that the patch reaches, instead of a summary of at
            most 15 lines.

    Returns:
        The plan: `flops_dense`, `flops_window`, `speedup`.

    Raises:
        ValueError, TypeError: an argument breaks its rule.

    Example:
        >>> image = jax.ShapeDtypeStruct((28, 28, 1), jnp.float32)
        >>> plan = explain(lambda x: jnp.tanh(x).mean((1, 2)), image, patch=4)
        7×7 positions, patch 4×4, stride 4×4
        windows until equation 3: global mean
        3 of 5 equations on windows
        ...
    """
    check_rank(image, "image", 3, f=f)
    image = with_channels_last(f, image, "image")
    floating = jnp.issubdtype(image.dtype, jnp.floating)
    dtype = jax.dtypes.canonicalize_dtype(image.dtype) if floating else jnp.float32
    grid = Patches(patch=patch, stride=stride, margin=margin, border=border).grid(image.shape[:2])
    scorer = split(f)
    shape = jax.ShapeDtypeStruct(image.shape, dtype)
    plan = Incremental.on_grid(grid).plan(scorer.call, scorer.arrays, shape)
    print(describe(plan) if verbose else summarise(plan, grid))
    return plan


def summarise(plan: Plan, grid: Grid) -> str:
    """Return the summary of a plan for the positions of a grid, at most 15 lines."""
    steps = plan.body.steps
    windowed = sum(step.reason == "" for step in steps)
    causes = [f"windows until equation {n}: {why}" for n, why in _causes(plan)]
    hidden = len(causes) - CAUSES
    lines = [
        str(grid),
        *(causes[:CAUSES] or ["windows to the end"]),
        *([f"and {hidden} more such equations"] if hidden > 0 else []),
        f"{windowed} of {len(steps)} equations on windows",
        f"GFLOP of a position: {plan.flops_dense / 1e9:.3g} dense,"
        f" {plan.flops_window / 1e9:.3g} on windows: speed-up {plan.speedup:.2f}",
        f"GFLOP of an image: {grid.size * plan.flops_dense / 1e9:.3g} dense,"
        f" {(plan.flops_dense + grid.size * plan.flops_window) / 1e9:.3g} on windows",
        "largest costs of a position:",
        *_largest_costs(plan),
        "verbose=True lists all equations",
    ]
    return "\n".join(lines)


def _causes(plan: Plan) -> Iterator[tuple[int, str]]:
    """Yield the equations, counted from 1, at which windows are given up, each with the cause."""
    for at, step in enumerate(plan.body.steps):
        if step.difference or step.reason not in NO_CAUSE:
            yield at + 1, _cause(plan, at)


def _cause(plan: Plan, at: int) -> str:
    """Say in a network's terms, where they are known, why an equation is dense."""
    step, name = plan.body.steps[at], plan.body.steps[at].equation.primitive.name
    if step.reason == "no rule":
        return f"no rule for {name}"
    if not (step.difference or step.reason.startswith("reads")):
        return f"{name}, {step.reason}"
    after = plan.body.steps[at + 1 :]
    if name == "reduce_sum":
        mean = bool(after) and after[0].equation.primitive.name in ("div", "mul")
        what = "global mean" if mean else "global sum"
    else:
        what = {
            "reduce_max": "global maximum",
            "reshape": "flattening of the map",
            "dot_general": "product over all sites",
        }.get(name, f"{name} over the whole map")
    return what + " of a squeeze-and-excitation" * _scales_its_map(plan, at)


def _scales_its_map(plan: Plan, at: int) -> bool:
    """Whether what is reduced is later multiplied, channel by channel, by what becomes of it."""
    before = plan.body.steps[at - 1].result if at else ()
    if plan.body.steps[at].result == before or not before:
        return False
    later = plan.body.steps[at + 1 :]
    return any(s.equation.primitive.name == "mul" and s.result == before for s in later)


def _largest_costs(plan: Plan) -> list[str]:
    """The equations that take most of an update, one a line."""
    total = max(1, plan.flops_window)
    numbered = sorted(enumerate(plan.body.steps, 1), key=lambda pair: -pair[1].windowed.flops)[
        :COSTS
    ]
    return [
        f"  {step.windowed.flops / total:4.0%}  equation {n}, {step.equation.primitive.name}:"
        f" {'×'.join(map(str, step.window))} of {'×'.join(map(str, step.result))}"
        for n, step in numbered
        if step.windowed.flops
    ]
