"""How far a run over many images is: for people a bar, for machines one line of JSON per chunk."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxviz.progress import Progress
from jaxviz.scale.pipeline import Waits


class Report(NamedTuple):
    """How far this process is.

    Attributes:
        images: done in this run.
        total: images that this run has to do.
        each: positions of an image.
        errors: bad images met in this run.
        seconds: since the first image was read; compiling does not count.
        waits: how long computing waited for reading and for writing.
    """

    images: int
    total: int
    each: int
    errors: int
    seconds: float
    waits: Waits

    @property
    def positions(self) -> int:
        """Positions scored in this run."""
        return self.images * self.each

    @property
    def images_per_second(self) -> float:
        """Images finished per second so far."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def positions_per_second(self) -> float:
        """Positions scored per second so far."""
        return self.positions / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds that the rest takes at this rate."""
        return (self.total - self.images) / max(self.images_per_second, 1e-9)

    def describe(self) -> str:
        """The rates and what is left, for people."""
        left, rate = _duration(self.seconds_left), self.images_per_second
        images = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        errors = f", {self.errors} errors" if self.errors else ""
        return (
            f"{images} images/s, {self.positions_per_second:,.0f} positions/s, {left} left{errors}"
        )


Tell = Callable[[Report], None]


@contextmanager
def reporting(progress: Progress, log: str | Path | None, start: dict[str, Any]) -> Iterator[Tell]:
    """Yield a function that is told how far the run is after every chunk.

    Args:
        progress: False for silence, True for a bar, or a function (positions done, in all).
        log: a file to which one JSON object per line is appended: "start", "chunk"… and "end" or
            "stopped", each with the time in seconds since 1970; None: none.
        start: what else the line "start" tells.

    Yields:
        tell(report).
    """
    last: list[Report] = []
    with _bar(progress, start["images"]) as draw, _log(log) as note:
        note("start", start)

        def tell(report: Report) -> None:
            last[:] = [report]
            note("chunk", _numbers(report))
            draw(report)

        try:
            yield tell
        except BaseException as error:
            why = {"why": f"{type(error).__name__}: {error}"}
            note("stopped", why | (_numbers(last[0]) if last else {}))
            raise
        note("end", _numbers(last[0]) if last else {})


def _numbers(report: Report) -> dict[str, Any]:
    numbers = {
        "images": report.images,
        "of": report.total,
        "positions": report.positions,
        "errors": report.errors,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "positions_per_second": report.positions_per_second,
        "seconds_left": report.seconds_left,
        "waited_for_images": report.waits.reading,
        "waited_for_writing": report.waits.writing,
    }
    return {key: round(value, 6) for key, value in numbers.items()}


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


@contextmanager
def _bar(progress: Progress, total: int) -> Iterator[Tell]:
    if callable(progress):
        yield lambda report: void(progress(report.positions, report.total * report.each))
        return
    if not progress:
        yield lambda report: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(10), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda report: bar.update(
            task, completed=report.images, description=report.describe()
        )


def void(_: object) -> None:
    """Drop a result."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{rest:02}"
