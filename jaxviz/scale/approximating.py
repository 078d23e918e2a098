"""A run over many images that is approximate: each chunk is what `occlude` makes of its images.

That is, with the method and the batch that the store records.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from jaxviz.occlusion.refinement import Refinement
from jaxviz.occlusion.result import Approximation
from jaxviz.occlusion.score import score_all, score_refined
from jaxviz.occlusion.tolerance import approximate_evaluators
from jaxviz.scale.identity import Identity
from jaxviz.scale.pipeline import Chunk, Waits, next_chunk, refuse
from jaxviz.scale.run import Run, Settled
from jaxviz.scale.store import ArraySpec
from jaxviz.scoring.task import Task

# What the store keeps of an image's `Approximation`, in this order.
MEASURED = ("bound", "confidence", "checked", "checked_error", "field")


@dataclass(frozen=True)
class ApproximateRun(Run):
    """A run with a tolerance, or coarse to fine, or both.

    A chunk's widths of windows are found on all its images, and chunks are the same in every run,
    so that equal runs make equal stores, whatever interrupts them.

    Attributes:
        tolerance: see `occlude`.
        refinement: what `refine` asks for.
    """

    tolerance: float | None = None
    refinement: Refinement | None = None

    def settle(self, recorded: Identity | None) -> Settled:
        """Return the program that a store records, or that a new store shall.

        With a tolerance "auto" is "incremental": there are windows to cut.
        """
        windows = self.tolerance is not None and self.method == "auto"
        return Run.settle(replace(self, method="incremental") if windows else self, recorded)

    def identity(self, settled: Settled) -> Identity:
        """Return what makes it the same run again."""
        refine = None if self.refinement is None else [x for x in self.refinement if x is not None]
        asked = {"tolerance": self.tolerance, "refine": refine}
        return super().identity(settled) | {"approximation": asked}

    def arrays(self, settled: Settled) -> tuple[dict[str, ArraySpec], dict[str, np.ndarray]]:
        """Return the arrays of a store, and the values of those that are known beforehand."""
        specs, known = super().arrays(settled)
        count, chunk = len(self.images), settled.chunk
        if self.tolerance is not None:
            shape, axes = (count, len(MEASURED)), ("image", "measured")
            specs["approximation"] = ArraySpec(shape, axes, "float64", chunk, "NaN")
        if self.refinement is not None:
            shape, axes = (count, *self.grid.shape), ("image", "row", "col")
            specs["exact"] = ArraySpec(shape, axes, "uint8", chunk, 0)
            specs["interpolation_error"] = ArraySpec((count,), ("image",), "float32", chunk, "NaN")
        return specs, known

    def compute(
        self, settled: Settled, chunks: Iterator[Chunk], waits: Waits
    ) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
        """Score chunks of images, one after the other."""
        task = self.task.replicated()
        while (chunk := next_chunk(chunks, waits)) is not None:
            yield chunk, self._rows_of(settled, replace(task, images=chunk.images))

    def _rows_of(self, settled: Settled, task: Task) -> dict[str, np.ndarray]:
        batch, evaluators, measured = settled.batch, (settled.program.evaluator,), None
        if self.tolerance is not None:
            evaluators, measured = approximate_evaluators(
                settled.method,
                self.grid,
                task,
                self.tolerance,
                batch,
                exact=evaluators,
                on_error=refuse,
            )
        task = replace(task, evaluators=evaluators)
        if self.refinement is None:
            everywhere = np.ones(self.grid.shape, bool)
            found = score_all(task, everywhere, batch, False, on_error=refuse)
        else:
            found = score_refined(task, self.grid, self.refinement, batch, False, on_error=refuse)
        if found.interrupted:
            raise KeyboardInterrupt
        scores = found.scores.reshape(len(found.base), self.grid.size, -1)
        rows = self.rows(found.base, scores)
        if measured is not None:
            rows["approximation"] = np.tile(_as_row(measured), (len(scores), 1))
        if found.exact is not None and found.errors is not None:
            rows |= {"exact": found.exact, "interpolation_error": found.errors}
        return rows


def _as_row(measured: Approximation) -> list[float]:
    values = [getattr(measured, name) for name in MEASURED]
    return [float("nan") if value is None else float(value) for value in values]


def approximation_of(rows: np.ndarray, tolerance: float) -> Approximation | None:
    """Return what was measured of some images, the worst of each; None: none of them is done.

    Args:
        rows: of the store's array "approximation", (n, 5).
        tolerance: of the run.
    """
    done = rows[~np.isnan(rows[:, 0])]
    if not len(done):
        return None
    bound, confidence, checked, error, field = done.T
    cut = field[~np.isnan(field)]
    return Approximation(
        tolerance,
        float(bound.max()),
        float(confidence.min()),
        int(checked.max()),
        float(error.max()),
        int(cut.min()) if len(cut) else None,
    )
