"""The plan as data: per equation, how its operands are read and what it costs; and its totals."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxviz.incremental.program import Equation, Program
from jaxviz.incremental.reach import Positions
from jaxviz.incremental.window import Read, Saved


class Step(NamedTuple):
    """One equation that the patch reaches: how to read its operands, and with which parameters."""

    equation: Equation
    params: dict[str, Any]
    reads: tuple[Read, ...]
    window: tuple[int, ...]
    result: tuple[int, ...]
    reason: str
    flops_dense: int
    flops_window: int
    seconds_dense: float
    seconds_window: float


@dataclass(frozen=True, eq=False)
class Body:
    """The static part of a plan."""

    program: Program
    steps: tuple[Step, ...]
    paste: Read
    outputs: tuple[Read, ...]
    saved: tuple[Saved, ...]
    rows: tuple[np.ndarray, np.ndarray]
    positions: tuple[Positions, Positions]
    tree: Any
    patch: tuple[int, ...]
    exact: bool


@dataclass(frozen=True, repr=False)
class Plan:
    """How to evaluate a scorer again after a patch: static, but for the arrays it captured."""

    captured: list[Any]
    body: Body

    @property
    def flops_dense(self) -> int:
        """Floating-point operations of a dense evaluation of all that the patch reaches."""
        return sum(step.flops_dense for step in self.body.steps)

    @property
    def flops_window(self) -> int:
        """Floating-point operations of one update."""
        return sum(step.flops_window for step in self.body.steps)

    @property
    def speedup(self) -> float:
        """How many times fewer floating-point operations an update takes; 1 if all is dense."""
        return self.flops_dense / max(1, self.flops_window) if self.flops_dense else 1.0

    @property
    def seconds_dense(self) -> float:
        """Time of a dense evaluation on a CPU, as the cost model estimates it."""
        return sum(step.seconds_dense for step in self.body.steps)

    @property
    def seconds_window(self) -> float:
        """Time of one update on a CPU, as the cost model estimates it."""
        return sum(step.seconds_window for step in self.body.steps)

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


jax.tree_util.register_dataclass(Plan, data_fields=["captured"], meta_fields=["body"])
