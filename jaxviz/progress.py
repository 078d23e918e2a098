"""Progress of long work: a rich bar, a callback, or silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

Progress = bool | Callable[[int, int], object]
Advance = Callable[[int], None]


@contextmanager
def track(progress: Progress, total: int, what: str) -> Iterator[Advance]:
    """Yield a function that is told how many more of `total` steps are done.

    Args:
        progress: False for silence; True for a bar with rate and remaining time, in a terminal or a
            notebook; or a function (done, total), called after every chunk.
        total: the number of steps.
        what: the name of a step, for the bar ("windows").

    Yields:
        advance(n): n more steps are done.
    """
    if callable(progress):
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield report
    elif progress:
        with _bar(what) as bar:
            task = bar.add_task(what, total=total, rate="")

            def draw(count: int) -> None:
                bar.advance(task, count)
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:,.0f} {what}/s" if speed else "")

            yield draw
    else:
        yield lambda count: None


def _bar(what: str):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        # In a notebook rich draws with ipywidgets; without it, as in a terminal.
        console=Console(stderr=True, force_jupyter=None if find_spec("ipywidgets") else False),
    )
