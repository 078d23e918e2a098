"""How far a run over many images is: a bar for people, one line of JSON a chunk for machines."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxviz.progress import Progress, track
from jaxviz.scale.pipeline import Waits


class Report(NamedTuple):
    """How far this process is.

    Attributes:
        images: done in this run.
        total: images that this run has to do.
        steps: what was done of them in this run, such as positions scored.
        errors: bad images met in this run.
        seconds: since the first image was read; compiling does not count.
        waits: how long computing waited for reading and for writing.
    """

    images: int
    total: int
    steps: int
    errors: int
    seconds: float
    waits: Waits

    def numbers(self, unit: str) -> dict[str, Any]:
        """Return what a line of the log tells: these, the rates, and the seconds left."""
        each = max(self.seconds, 1e-9) / max(self.images, 1e-9)
        numbers = {
            "images": self.images,
            "of": self.total,
            unit: self.steps,
            "errors": self.errors,
            "seconds": self.seconds,
            "images_per_second": 1 / each,
            f"{unit}_per_second": self.steps / max(self.seconds, 1e-9),
            "seconds_left": (self.total - self.images) * each,
            "waited_for_images": self.waits.reading,
            "waited_for_writing": self.waits.writing,
        }
        return {key: round(value, 6) for key, value in numbers.items()}


Tell = Callable[[Report], None]


@contextmanager
def reporting(
    progress: Progress, log: str | Path | None, start: dict[str, Any], total: int, unit: str
) -> Iterator[Tell]:
    """Yield a function that is told how far the run is after every chunk.

    Args:
        progress: see `jaxviz.progress.track`.
        log: a file to which one JSON object per line is appended: "start", "chunk"… and "end" or
            "stopped", each with the time in seconds since 1970; None: none.
        start: what else the line "start" tells.
        total: steps that this run has to do.
        unit: what a step is, in the plural.

    Yields:
        tell(report).
    """
    told: dict[str, Any] = {}
    done = 0
    with track(progress, total, unit) as advance, _log(log) as note:
        note("start", start)

        def tell(report: Report) -> None:
            nonlocal told, done
            told = report.numbers(unit)
            note("chunk", told)
            advance(report.steps - done)
            done = report.steps

        try:
            yield tell
        except BaseException as error:
            note("stopped", {"why": f"{type(error).__name__}: {error}"} | told)
            raise
        note("end", told)


@contextmanager
def _log(file: str | Path | None) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    if file is None:
        yield lambda event, fields: None
        return
    with open(file, "a", encoding="utf-8") as stream:

        def note(event: str, fields: dict[str, Any]) -> None:
            stream.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")
            stream.flush()

        yield note
