"""The command line: `jaxviz demo | inspect | convert | occlude | maximize | activations | …`.

Every command prints one summary to stdout. Those that write files write all of them or none. What
can go wrong with the input is told in one sentence on stderr, and the exit status is then 2.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_args

from jaxviz._choices import Border, Method, Reduce, Score
from jaxviz._version import __version__
from jaxviz.cli.options import (
    add_bench,
    add_export,
    add_status,
    add_store_options,
    positive,
    words,
)

MODEL = 'a Keras file (.keras, .h5, .hdf5), or "bundled": the MNIST network that comes along'
IMAGES = 'image files, folders of them, .npy or .npz files, or "digits": those of scikit-learn'
CLASSES = "names of the classes: one a line, or JSON (a list, or {index: name or [id, name]})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit status.

    Args:
        argv: the arguments after the program's name; None takes them from the shell.

    Returns:
        0 if all went well, 1 if `inspect` finds a file that cannot be loaded, 2 on wrong input,
        130 if interrupted.

    Raises:
        SystemExit: after --help and --version (0), and if the arguments are not understood (2).

    Example:
        >>> main(["inspect", "no-such-file.keras"])
        2
    """
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = partial(_show_warning, args.name)
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
    import jax

    for array in jax.live_arrays():
        array.block_until_ready()


def _show_warning(name: str, message: Warning | str, *_: object) -> None:
    print(f"jaxviz {name}: note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxviz", description="See what a convolutional network looks at."
    )
    parser.add_argument("--version", action="version", version=f"jaxviz {__version__}")
    parser.epilog = "jaxviz COMMAND --help tells its options, and ends with an example that works."
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    own = (_add_demo, _add_inspect, _add_convert, _add_occlude, _add_maximize, _add_activations)
    for add in (*own, add_status, add_export, add_bench):
        add(commands)
    return parser


def _command(
    commands, name: str, text: str, example: str, *, module: str | None = None, writes: bool = True
):
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(name=name, function=name, module=f"jaxviz.cli.{module or name}")
    if writes:
        folder = f"jaxviz-{name}"
        note = f"where the files go; default: {folder}"
        parser.add_argument("--out", type=Path, default=Path(folder), metavar="FOLDER", help=note)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    text = "the file with the weights, if MODEL holds the architecture alone (JSON)"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=text)


def _add_demo(commands) -> None:
    text = "occlusion maps, class images and filters of the bundled network on real digits"
    parser = _command(commands, "demo", text, "jaxviz demo")
    parser.add_argument(
        "--data",
        default="digits",
        metavar="WHICH",
        help='"digits": the UCI digits that scikit-learn ships (default, offline); "mnist": MNIST,'
        " downloaded once; or MNIST's file, mnist.npz",
    )
    text = "of the class images; default: 0"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=text)


def _add_inspect(commands) -> None:
    text = "tell what a Keras file holds, and whether it can be loaded"
    parser = _command(
        commands, "inspect", text, "jaxviz inspect bundled", module="keras", writes=False
    )
    _add_model(parser)


def _add_convert(commands) -> None:
    text = "write the Flax parameters of a Keras file"
    parser = _command(
        commands,
        "convert",
        text,
        "jaxviz convert bundled mnist_cnn.npz",
        module="keras",
        writes=False,
    )
    _add_model(parser)
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="*.npz, *.safetensors, or a folder for orbax"
    )


def _add_occlude(commands) -> None:
    text = "cover every part of the images in turn, and map how the scores change"
    example = "jaxviz occlude bundled digits --limit 6 --patch 7 --stride 1 --target true"
    parser = _command(commands, "occlude", text, example)
    _add_model(parser)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=IMAGES)
    _add_preprocessing(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="read the first N images only")
    parser.add_argument("--classes", type=Path, metavar="FILE", help=CLASSES)
    _add_patch_options(parser)
    _add_map_options(parser)
    run = parser.add_argument_group("the run")
    text = "dense runs the whole network at every position, incremental only what a patch changes;"
    text += " same result; default: auto, what is faster"
    run.add_argument("--method", choices=get_args(Method), default="auto", help=text)
    run.add_argument("--batch-size", type=positive, metavar="N", help="default: what fits")
    run.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="approximate, faster: largest error, as a share of the largest change of a score;"
        " default: exact",
    )
    add_store_options(parser)


def _add_patch_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("the patch (in pixels of the model's input)")
    where.add_argument(
        "--patch", type=_sizes, metavar="H[,W]", help="default: a quarter of the input"
    )
    where.add_argument(
        "--stride", type=_sizes, metavar="H[,W]", help="default: a quarter of the patch"
    )
    text = "by how much the first patch starts before the image; default: 0"
    where.add_argument("--margin", type=_sizes, metavar="H[,W]", help=text)
    where.add_argument(
        "--border",
        choices=get_args(Border),
        help="at the far edge the last patch is clipped (default), left out unless whole (valid),"
        " or moved inside (shift)",
    )
    where.add_argument(
        "--fill",
        type=_fill,
        metavar="VALUE",
        help="in the model's units: a number, one per channel (0.1,0.2,0.3), mean, patch_mean or"
        " blur:SIGMA; default: 0",
    )
    where.add_argument(
        "--preset",
        metavar="NAME:SIZE",
        help="another library's convention, in place of --patch, --stride, --margin and --border:"
        " seed:4, captum:15,8, xplique:3,3, pair:15, tf_explain:7, monai:16; it also sets --fill,"
        " --score and --reduce, unless they are given",
    )


def _add_map_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("the map")
    how.add_argument(
        "--target",
        default="predicted",
        metavar="CLASS",
        help="a number, a name of --classes, predicted (default), or true (the file's labels)",
    )
    text = "with f the clean and g the covered score: f − g (drop, default), g (raw), 1 − g"
    text += " (complement), (f − g) / |f|, or the difference of their log-odds"
    how.add_argument("--score", choices=get_args(Score), help=text)
    text = "a pixel's value: the mean (default) or sum of the patches that cover it, that of its"
    text += " own cell, or the map of positions resized"
    how.add_argument("--reduce", choices=get_args(Reduce), help=text)
    text = "colours end at this percentile, above 50, and not at the extremes"
    how.add_argument("--robust", type=float, metavar="PERCENT", help=text)
    how.add_argument("--outline", action="store_true", help="the image's contour over the maps")
    how.add_argument("--top", type=positive, default=3, metavar="K", help="classes in the summary")


def _add_maximize(commands) -> None:
    text = "find the images that the units of a layer respond to most"
    example = "jaxviz maximize bundled --units 0,3,8 --steps 200"
    parser = _command(commands, "maximize", text, example)
    _add_model(parser)
    text = "its name; default: the output without softmax"
    parser.add_argument("--layer", metavar="NAME", help=text)
    parser.add_argument("--units", type=_integers, metavar="I,J,…", help="default: the first ten")
    parser.add_argument("--steps", type=positive, metavar="N", help="default: 512")
    parser.add_argument(
        "--range",
        type=_numbers,
        default=(0.0, 1.0),
        metavar="LO,HI",
        help="of a pixel; default: 0,1",
    )
    parser.add_argument("--size", type=_sizes, metavar="H[,W]", help="if the model takes any size")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--classes", type=Path, metavar="FILE", help=CLASSES)


def _add_activations(commands) -> None:
    text = "draw what every filter of a network sees in one image"
    example = "jaxviz activations bundled digits --layers conv2d,conv2d_1"
    parser = _command(commands, "activations", text, example)
    _add_model(parser)
    parser.add_argument("image", metavar="IMAGE", help=f"{IMAGES}; the first one is taken")
    _add_preprocessing(parser)
    parser.add_argument("--layers", type=words, metavar="A,B,…", help="default: all with maps")
    parser.add_argument("--max-maps", type=positive, default=64, metavar="N", help="default: 64")


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "preprocessing: ((x or 1 − x) · scale − mean) / std",
        "x is in [0, 1], 1 white, stretched to the model's size, and made grey or\n"
        "repeated to fit its channels. The default, x itself, suits networks\n"
        "trained on bytes / 255.",
    )
    group.add_argument("--size", type=_sizes, metavar="H[,W]", help="if the model takes any size")
    group.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="S",
        help="what white is to the model: 1 (default), 255",
    )
    group.add_argument("--invert", action="store_true", help="1 − x: ink on paper, as in MNIST")
    group.add_argument("--bgr", action="store_true", help="blue first, before mean and std")
    group.add_argument(
        "--mean",
        type=_numbers,
        default=(0.0,),
        metavar="M",
        help="one number, or one per channel; default: 0",
    )
    group.add_argument(
        "--std",
        type=_numbers,
        default=(1.0,),
        metavar="D",
        help="one number, or one per channel; default: 1",
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, or A,B,…: got {text!r}.") from None


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, or A,B,…: got {text!r}."
        ) from None


def _sizes(text: str) -> tuple[int, ...]:
    sizes = _integers(text)
    if len(sizes) > 2:
        raise argparse.ArgumentTypeError(f"must be one or two numbers: got {text!r}.")
    return sizes


def _fill(text: str) -> float | tuple[float, ...] | str:
    if text.startswith("blur:"):
        _numbers(text.removeprefix("blur:"))
        return text
    if text in ("mean", "patch_mean"):
        return text
    values = _numbers(text)
    return values[0] if len(values) == 1 else values
