"""The command line: `jaxviz demo | inspect | convert | occlude | maximize | activations | …`.

Every command prints one summary to stdout. Those that write files write all of them or none. What
can go wrong with the input is told in one sentence on stderr, and the exit status is then 2.
"""

import re
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from jaxviz._versions import OTHER_PACKAGE, other_package
from jaxviz.cli.commands import make_parser
from jaxviz.cli.streams import ReaderLeftError, forget_stdout, make_printable, reader_left

LEFT = 141  # 128 + SIGPIPE, as a shell tells it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit status.

    Args:
        argv: the arguments after the program's name; None takes them from the shell.

    Returns:
        0 if all went well, and without a command, which prints the help; 1 if `inspect` finds a
        file that cannot be loaded, 2 on wrong input, 130 if interrupted, 141 if nobody reads what
        is printed any more.

    Raises:
        SystemExit: after --help and --version (0), and if the arguments are not understood (2).

    Example:
        >>> main(["inspect", "no-such-file.keras"])
        2
    """
    make_printable()
    parser = make_parser()
    try:
        args = parser.parse_args(argv)
        if "name" not in args:
            parser.print_help()
            status = 0
        else:
            status = _run(args)
    finally:
        left = reader_left()
    return LEFT if left else status


def _run(args: Namespace) -> int:
    say = partial(_in_options, args.parser)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = partial(_show_warning, args.name, say)
            if other_package():
                warnings.warn(f"{OTHER_PACKAGE}.", stacklevel=1)
            # Imported late: the commands need Flax and matplotlib, --help and --version do not.
            command = getattr(import_module(args.module), args.function)
            return command(args) or 0
    except (
        ValueError,
        TypeError,
        OSError,
        ModuleNotFoundError,
        ArithmeticError,
        MemoryError,
    ) as error:
        if isinstance(error, ReaderLeftError):
            forget_stdout()
            return LEFT
        sentence = say(" ".join(str(error).split())) or type(error).__name__
        print(f"jaxviz {args.name}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"jaxviz {args.name}: interrupted; nothing was written.", file=sys.stderr)
        _wait_for_devices()
        return 130


def _in_options(parser: ArgumentParser, sentence: str) -> str:
    """Turn what a sentence says of arguments of the API into options of the command."""

    def option(name: str) -> str | None:
        word = f"--{name.replace('_', '-')}"
        return word if word in parser._option_string_actions else None

    def named(match: re.Match[str]) -> str:
        word = option(match[1])
        return f"`{word}`" if word else match[0]

    def given(match: re.Match[str]) -> str:
        word = option(match[1])
        return f"{word} {match[2]}" if word else match[0]

    return re.sub(r'\b(\w+)="([^"]*)"', given, re.sub(r"`(\w+)`", named, sentence))


def _wait_for_devices() -> None:
    """Let what was launched end: an interpreter that exits under a running program crashes."""
    jax = sys.modules.get("jax")
    for array in jax.live_arrays() if jax else ():
        array.block_until_ready()


def _show_warning(name: str, say: Callable[[str], str], message: Warning | str, *_: object) -> None:
    print(f"jaxviz {name}: note: {say(str(message))}", file=sys.stderr)
