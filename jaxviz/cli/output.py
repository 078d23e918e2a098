"""What a command leaves behind: whole files or none, one table, and progress where it is slow."""

import json
import os
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxviz._files import file_name, move, scratch
from jaxviz.cli.streams import ReaderLeftError, has_left
from jaxviz.progress import Bar

WAIT = 1.0  # seconds of silence before a stage is announced


@contextmanager
def output_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder whose files are moved into `folder` at the end, or not at all.

    Files of the same name in `folder` are replaced, others stay; what cannot be replaced, since it
    is open, is left, and a warning tells what the new one is called. If the block raises, nothing
    is moved. The folder is tried before the block runs, so that long work is not done in vain.

    Args:
        folder: where the files shall be; made if it does not exist.

    Yields:
        The folder to write to.

    Raises:
        ValueError: if `folder` cannot be written to, or holds a folder of a file's name.

    Example:
        >>> import pathlib, tempfile
        >>> out = pathlib.Path(tempfile.mkdtemp()) / "out"
        >>> with output_folder(out) as part:
        ...     _ = (part / "a.txt").write_text("whole")
        >>> [file.name for file in out.iterdir()]
        ['a.txt']
    """
    target = Path(folder)
    made = _missing(target)
    try:
        with ExitStack() as stack:
            try:
                target.mkdir(parents=True, exist_ok=True)
                part = stack.enter_context(scratch(target))
            except OSError as error:
                raise ValueError(
                    f"the output folder {target} cannot be written: {error.strerror}; name another."
                ) from error
            yield part
            for file in part.iterdir():
                if (target / file.name).is_dir():
                    raise ValueError(f"{target / file.name} is a folder, not a file; move it away.")
            for file in sorted(part.iterdir()):
                _deliver(file, target)
    except BaseException:
        _remove(made)
        raise


def _deliver(file: Path, target: Path) -> None:
    try:
        move(file, target / file.name)
    except PermissionError:
        taken = {found.stem.lower() for found in target.iterdir()}
        other = target / f"{file_name(file.stem, taken)}{file.suffix}"
        os.replace(file, other)
        message = f"{target / file.name} cannot be replaced, is it open? The new one is {other}."
        warnings.warn(message, stacklevel=3)


def _missing(folder: Path) -> list[Path]:
    """Return the folders that `mkdir` will make, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def stage(text: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Tell on stderr what is being done, if it takes longer than a second.

    A terminal gets a bar, which vanishes at the end; a file gets a line, and more if it takes long.

    Args:
        text: what is being done.
        unit: what is counted, in the plural; "" draws no rate.

    Yields:
        A function (done, total), to be called where it is known how far the work is.
    """
    bar = Bar(text, unit, vanishes=True)

    timer = threading.Timer(WAIT, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar.tell
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table to stdout; numbers are aligned to the right, and no cell is cut off.

    Without any name of a column, there is no row of names.
    """
    drawn = Table(title=escape(title), title_justify="left", title_style="bold")
    drawn.show_header = any(columns)
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(column, justify="right" if numbers and rows else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    say(drawn)


def say(*what: Any) -> None:
    """Print to stdout; without a terminal, as wide as what is printed needs."""
    console = _Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        console.print(*what, soft_wrap=all(isinstance(part, str) for part in what), markup=False)
    except OSError as error:
        if not has_left(error):
            raise
        raise ReaderLeftError from None


class _Console(Console):
    """One that leaves it to `main` what is done when nobody reads stdout any more."""

    def on_broken_pipe(self) -> None:
        raise ReaderLeftError


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz; unlike `np.savez`, an array may have any name."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)


def write_json(file: Path, value: Any) -> None:
    """Write JSON that people can read."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
