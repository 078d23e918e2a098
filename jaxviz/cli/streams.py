"""What goes out to people: in letters that the terminal has, and to a reader that may leave.

A console of Windows may know cp1252 alone, and a pipe may end before all is said (`| head`).
"""

import codecs
import errno
import io
import os
import sys
from contextlib import suppress

PLAIN = {"−": "-", "–": "-", "≤": "<=", "≥": ">=", "±": "+-", "×": "x", "·": "*", "…": "..."}
PLAIN |= {"σ": "sigma", "α": "alpha", "↑": "(up)", "↓": "(down)", "→": "->"}


def make_printable() -> None:
    """Let stdout and stderr put plain letters for those that their encoding lacks."""
    codecs.register_error("jaxviz.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="jaxviz.plain")


class ReaderLeftError(BrokenPipeError):
    """Nobody reads stdout any more."""


def write(text: str) -> None:
    """Print a line to stdout, as it is."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not has_left(error):
            raise
        raise ReaderLeftError from None


def has_left(error: OSError) -> bool:
    """Say whether an error of stdout means that its reader left: Windows calls it invalid."""
    windows = os.name == "nt" and error.errno == errno.EINVAL
    return windows or isinstance(error, BrokenPipeError)


def reader_left() -> bool:
    """Say whether nobody reads stdout any more; what is printed from now on goes nowhere then."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not has_left(error):
            raise
        forget_stdout()
        return True
    return False


def forget_stdout() -> None:
    """Let what is printed go nowhere: the interpreter flushes stdout when it ends."""
    with suppress(OSError, ValueError):  # a stream of no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(letter, "?") for letter in letters), error.end
