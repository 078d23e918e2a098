"""The command line: `jaxviz demo | inspect | convert | occlude | maximize | activations | …`.

Every command prints one summary to stdout. Those that write files write all of them or none. What
can go wrong with the input is told in one sentence on stderr, and the exit status is then 2.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from jaxviz._versions import OTHER_PACKAGE, other_package
from jaxviz.cli.commands import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit status.

    Args:
        argv: the arguments after the program's name; None takes them from the shell.

    Returns:
        0 if all went well, 1 if `inspect` finds a file that cannot be loaded, 2 on wrong input and
        without a command, which prints the help on stderr, 130 if interrupted.

    Raises:
        SystemExit: after --help and --version (0), and if the arguments are not understood (2).

    Example:
        >>> main(["inspect", "no-such-file.keras"])
        2
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if "name" not in args:
        parser.print_help(sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = partial(_show_warning, args.name)
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
        sentence = " ".join(str(error).split()) or type(error).__name__
        print(f"jaxviz {args.name}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"jaxviz {args.name}: interrupted; nothing was written.", file=sys.stderr)
        _wait_for_devices()
        return 130


def _wait_for_devices() -> None:
    """Let what was launched end: an interpreter that exits under a running program crashes."""
    jax = sys.modules.get("jax")
    for array in jax.live_arrays() if jax else ():
        array.block_until_ready()


def _show_warning(name: str, message: Warning | str, *_: object) -> None:
    print(f"jaxviz {name}: note: {message}", file=sys.stderr)
