"""A plan in words: per equation its window, or why it has none, and the operations both ways."""

from math import prod

from jaxviz.incremental.plan import Plan, Step


def describe(plan: Plan) -> str:
    """Return the plan as a table, one line for each equation that the patch reaches."""
    head = ("operation", "result", "window", "share", "MFLOP dense", "window", "why dense")
    lines = [head, *map(_line, plan.body.steps)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join([*(_aligned(line, widths) for line in lines), "", repr(plan)])


def _line(step: Step) -> tuple[str, ...]:
    share = prod(step.window) / max(1, prod(step.result))
    return (
        step.equation.primitive.name,
        _shape(step.result),
        _window(step),
        f"{share:.0%}",
        f"{step.dense.flops / 1e6:.3f}",
        f"{step.windowed.flops / 1e6:.3f}",
        step.reason,
    )


def _window(step: Step) -> str:
    if step.difference:
        return "by difference"
    return _shape(step.window) if step.reason == "" else "dense"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    left = {0, 1, 2, 6}
    cells = zip(line, widths, strict=True)
    return "  ".join(
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(cells)
    ).rstrip()
