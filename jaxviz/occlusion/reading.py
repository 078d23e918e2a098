"""How a result is read unless it is said otherwise: the defaults of `Occlusion.heatmap`."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from jaxviz._choices import Reduce, Score


@dataclass(frozen=True, eq=False)
class Reading:
    """What `Occlusion.heatmap` takes where an argument is not given; a value.

    Attributes:
        score: how occluded and clean scores are compared.
        reduce: how values of positions become values of pixels.
        uncovered: the value of pixels that no patch covers.
        weights: for mean and sum, how much each pixel of a patch counts, (ph, pw); None: all 1.

    Example:
        >>> Reading(score="raw", reduce="cell")
        Reading(score='raw', reduce='cell', uncovered=nan, weights=None)
    """

    score: Score = "drop"
    reduce: Reduce = "mean"
    uncovered: float = float("nan")
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, kind in (("score", Score), ("reduce", Reduce)):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                words = ", ".join(f'"{word}"' for word in known)
                raise ValueError(f"`{name}` must be one of {words}: got {value!r}.")

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        weights = None if self.weights is None else np.asarray(self.weights).tolist()
        uncovered = None if np.isnan(self.uncovered) else float(self.uncovered)
        return {
            "score": self.score,
            "reduce": self.reduce,
            "uncovered": uncovered,
            "weights": weights,
        }

    @classmethod
    def of(cls, record: dict[str, Any] | None) -> "Reading | None":
        """Return what `record` gave; None of None."""
        if record is None:
            return None
        uncovered, weights = record["uncovered"], record["weights"]
        return cls(
            record["score"],
            record["reduce"],
            float("nan") if uncovered is None else uncovered,
            None if weights is None else np.asarray(weights),
        )

    # Static in a pytree, and so compared and hashed; arrays and NaN are not by themselves.
    def _parts(self) -> str:
        return repr(self.record())

    def __eq__(self, other: object) -> bool:
        return self._parts() == other._parts() if isinstance(other, Reading) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts())


def checked_reading(reading: Reading | None) -> Reading | None:
    """Return the reading; TypeError if it is something else."""
    if reading is None or isinstance(reading, Reading):
        return reading
    raise TypeError(f"`reading` must be a jaxviz.Reading: got a {type(reading).__name__}.")
