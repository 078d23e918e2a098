"""Progress of long work: one line on stderr, a callback, or silence.

A terminal or a notebook gets a bar. A file or a pipe gets a line now and then: after ten seconds,
then after half as long again as there is work behind, and every ten minutes at least.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import monotonic

FIRST_LINE, MOST_APART, GROWTH = 10.0, 600.0, 1.5  # seconds; of the time from line to line

Progress = bool | Callable[[int, int], object]
Advance = Callable[[int], None]


@contextmanager
def track(progress: Progress, total: int, unit: str) -> Iterator[Advance]:
    """Yield a function that is told how many more of `total` steps are done.

    Args:
        progress: False for silence; True for a bar with rate and remaining time, in a terminal or a
            notebook; or a function (done, total), called after every chunk.
        total: the number of steps.
        unit: what a step is, in the plural, for the bar: "positions", "steps".

    Yields:
        advance(n): n more steps are done.
    """
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    if callable(progress):
        tell = progress
        yield advance
    elif progress:
        bar = Bar(unit, unit)
        tell = bar.tell
        tell(0, total)
        bar.start()
        try:
            yield advance
        finally:
            bar.stop()
    else:
        yield lambda count: None


class Bar:
    """The display of work under way: what it is, how much is done, rate, time taken and left."""

    def __init__(
        self,
        text: str,
        unit: str = "",
        *,
        vanishes: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        # In a notebook rich draws with ipywidgets; without it, as in a terminal.
        self.console = Console(
            stderr=True, force_jupyter=None if find_spec("ipywidgets") else False
        )
        self._text, self._unit, self._vanishes, self._clock = text, unit, vanishes, clock
        self._began, self._next = clock(), FIRST_LINE
        self._first: tuple[float, int] | None = None  # seconds and steps when steps began to count
        self._drawn = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=vanishes,
        )
        self._task = self._drawn.add_task(text, total=None, count="", rate="")
        self._started = False

    @property
    def _lasting(self) -> bool:
        """Whether what is written stays, line by line."""
        return not (self.console.is_terminal or self.console.is_jupyter)

    def start(self) -> None:
        """Begin to draw."""
        self._started = True
        if self._lasting and self._vanishes:
            self.console.print(f"{self._text} …", highlight=False, markup=False)
        else:
            self._drawn.start()

    def tell(self, done: int, total: int) -> None:
        """Take note that `done` of `total` steps are done; until then, their number is unknown."""
        self._drawn.update(self._task, completed=done, total=total, count=f"{done:,}/{total:,}")
        speed = self._drawn.tasks[0].speed
        if speed and self._unit:
            self._drawn.update(self._task, rate=f"{speed:,.0f} {self._unit}/s")
        if self._started and self._lasting:
            self._write_line(done, total)

    def _write_line(self, done: int, total: int) -> None:
        took = self._clock() - self._began
        if done and self._first is None:
            self._first = took, done
        if took < self._next or not 0 < done < total or self._first is None:
            return
        self._next = took + min((GROWTH - 1) * took, MOST_APART)
        what = f"{self._text}: " if self._text != self._unit else ""
        since, steps = took - self._first[0], done - self._first[1]  # without what was compiled
        left = f", about {duration(since * (total - done) / steps)} left" if steps else ""
        line = f"{what}{done:,} of {total:,} {self._unit}, {duration(took)}{left}"
        self.console.print(" ".join(line.split()), highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """End: draw a last time, or wipe the line if it vanishes."""
        if self._started and not (self._lasting and self._vanishes):
            self._drawn.stop()


def duration(seconds: float) -> str:
    """Return a time in words, in the unit that suits it.

    Example:
        >>> duration(90), duration(10_000)
        ('90.0 s', '2.8 h')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
