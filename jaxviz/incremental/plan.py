"""The plan as data: per equation, how its operands are read and what it costs; and its totals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.incremental.cost import Cost
from jaxviz.incremental.program import Program, Written
from jaxviz.incremental.reach import Positions
from jaxviz.incremental.window import Index, Read, Saved
from jaxviz.jaxpr.cache import BYTES_AN_EQUATION
from jaxviz.jaxpr.convolution.forms import Form
from jaxviz.jaxpr.walk import Equation


class Run(NamedTuple):
    """How an operation carries itself out, given where its windows lie, see `rules.access`."""

    apply: Callable[[list[Any], list[dict[int, Any]]], list[Any]]
    places: tuple[dict[int, Index], ...]


class Step(NamedTuple):
    """One equation that the patch reaches: how to read its operands, and with which parameters.

    `form` is how a convolution is carried out, if not as it stands; `run` what else is. With
    `difference` it is a sum, of the changed region, which is read as it is and as it was, added to
    the clean sum; the last read is the whole array, for where that is not finite.
    """

    equation: Equation
    params: dict[str, Any]
    reads: tuple[Read, ...]
    window: tuple[int, ...]
    result: tuple[int, ...]
    reason: str
    dense: Cost
    windowed: Cost
    form: Form | None = None
    run: Run | None = None
    difference: bool = False


@dataclass(frozen=True, eq=False)
class Body:
    """What follows from a program's content, the options and the settings alone: no array of it.

    Attributes:
        program: the equations.
        steps: those that the patch reaches.
        paste: how the image's window is read, with the patch pasted over it.
        outputs: how the scores are read.
        saved: what `base` keeps.
        rows: for both image axes, the indices that depend on the position, a row for each start.
        positions: the starts along both image axes.
        patch: (rows, columns, channels).
        exact: whether windows hold all that the patch changes.
        platform: on which the arrays lie, "cpu" or an accelerator's name.
    """

    program: Program
    steps: tuple[Step, ...]
    paste: Read
    outputs: tuple[Read, ...]
    saved: tuple[Saved, ...]
    rows: tuple[np.ndarray, np.ndarray]
    positions: tuple[Positions, Positions]
    patch: tuple[int, ...]
    exact: bool
    platform: str

    @property
    def seconds(self) -> float:
        """Time of one update on a CPU, as the cost model estimates it."""
        return sum(step.windowed.seconds for step in self.steps)

    @property
    def bytes(self) -> int:
        """About what it takes, compiled: its tables, and the code of its equations."""
        equations = len(self.program.equations) + len(self.steps)
        return sum(table.nbytes for table in self.rows) + BYTES_AN_EQUATION * equations


@dataclass(frozen=True, repr=False)
class Plan:
    """How to evaluate a scorer again after a patch: static, but for the arrays it captured.

    Attributes:
        captured: the arrays that closures of the scorer hold.
        body: the plan itself; the same object for scorers of the same content.
        tree: of the scorer's output.
        written: the scorer as it is differentiated, if functions in it have rules of their own.
    """

    captured: list[Any]
    body: Body
    tree: Any
    written: Written | None

    @property
    def flops_dense(self) -> int:
        """Floating-point operations of a dense evaluation of all that the patch reaches."""
        return sum(step.dense.flops for step in self.body.steps)

    @property
    def flops_window(self) -> int:
        """Floating-point operations of one update."""
        return sum(step.windowed.flops for step in self.body.steps)

    @property
    def speedup(self) -> float:
        """How many times fewer floating-point operations an update takes; 1 if all is dense."""
        return self.flops_dense / max(1, self.flops_window) if self.flops_dense else 1.0

    @property
    def seconds_dense(self) -> float:
        """Time of a dense evaluation on a CPU, as the cost model estimates it."""
        return sum(step.dense.seconds for step in self.body.steps)

    @property
    def seconds_window(self) -> float:
        """Time of one update on a CPU, as the cost model estimates it."""
        return self.body.seconds

    def __repr__(self) -> str:
        """Say how much is windowed and what it saves."""
        rows, columns, _ = self.body.patch
        step = "x".join(str(at.step) for at in self.body.positions)
        windowed = sum(step.reason == "" for step in self.body.steps)
        return (
            f"Plan(patch {rows}x{columns}, step {step}: {windowed} of {len(self.body.steps)} "
            f"equations on windows; {self.flops_dense / 1e9:.3g} GFLOP dense, "
            f"{self.flops_window / 1e9:.3g} GFLOP an update: speed-up {self.speedup:.2f})"
        )


jax.tree_util.register_dataclass(
    Plan, data_fields=["captured"], meta_fields=["body", "tree", "written"]
)
