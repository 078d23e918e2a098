"""The options of `occlude --store`, `status`, `export` and `bench`: parsers, without JAX."""

import argparse
from pathlib import Path
from typing import get_args

from jaxviz._choices import Reduce, Score

MODULE = "jaxviz.cli.stores"
STORE = "the store: a folder, or a URL (gs://…, s3://…)"


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add to `occlude` what a run into a store takes; `--store` is what asks for one."""
    group = parser.add_argument_group(
        "many images",
        "With --store, nothing is drawn: the scores go to a Zarr store; after an\n"
        "interruption the same command goes on. Then: jaxviz status STORE, and\n"
        "jaxviz export STORE --png FOLDER.",
    )
    group.add_argument("--store", metavar="STORE", help=STORE)
    group.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes that SLURM, GKE or a TPU pod started, on any hosts",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT,N,I",
        help="… or that you start yourself: where process 0 is, how many there are, which this is",
    )
    group.add_argument(
        "--share", type=_share, metavar="I/N", help="do share I (from 0) of N, as a job array does"
    )
    group.add_argument(
        "--on-error", choices=["raise", "skip"], default="raise", help="what a bad image does"
    )
    group.add_argument(
        "--chunk", type=positive, metavar="N", help="images written, and perhaps lost, at a time"
    )
    group.add_argument("--stored", choices=["float32", "float16"], default="float32")
    group.add_argument(
        "--keep", metavar="I,J,… | topK", help="classes, or each image's best K; default: all"
    )
    group.add_argument(
        "--log", type=Path, metavar="FILE", help="append one line of JSON per chunk to FILE"
    )


def add_status(commands) -> None:
    """Add the command `status`."""
    text = "tell how far a run into a store is"
    parser = _command(commands, "status", text, "jaxviz status out.zarr")
    parser.add_argument("store", metavar="STORE", help=STORE)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def add_export(commands) -> None:
    """Add the command `export`."""
    text = "draw the heatmaps of a store, or write them as arrays"
    parser = _command(commands, "export", text, "jaxviz export out.zarr --png heatmaps/")
    parser.add_argument("store", metavar="STORE", help=STORE)
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="one picture per image")
    parser.add_argument("--npz", type=Path, metavar="FOLDER", help="one array file per image")
    parser.add_argument("--images", type=_range, metavar="A:B", help="only images A to B − 1")
    parser.add_argument(
        "--target", type=int, metavar="CLASS", help="default: each image's predicted class"
    )
    parser.add_argument(
        "--score",
        choices=get_args(Score),
        default="drop",
    )
    parser.add_argument("--reduce", choices=get_args(Reduce), default="mean")


def add_bench(commands) -> None:
    """Add the command `bench`."""
    text = "measure windows per second of several networks, grids and methods on this machine"
    parser = _command(commands, "bench", text, "jaxviz bench --quick")
    parser.add_argument("--quick", action="store_true", help="small networks, under two minutes")
    parser.add_argument("--models", type=words, metavar="A,B,…", help="default: all five")
    parser.add_argument(
        "--methods",
        type=words,
        metavar="A,B,…",
        help="loop, dense, incremental, approximate, and, of the libraries that are installed,"
        " captum, xplique, tf-explain, seed's loop; default: all",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="… as Markdown")
    parser.add_argument("--png", type=Path, metavar="FILE", help="… as a plot")


def _command(commands, name: str, text: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(name=name, function=name, module=MODULE)
    return parser


def _share(text: str) -> tuple[int, int]:
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        index = count = 0
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(f"must be I/N, 0 ≤ I < N: got {text!r}.")
    return index, count


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1: got {text!r}.")
    return int(text)


def _range(text: str) -> slice:
    first, colon, last = text.partition(":")
    try:
        if not colon:
            return slice(int(first), int(first) + 1)
        return slice(int(first or 0), int(last) if last else None)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be A:B or A, whole numbers: got {text!r}."
        ) from None


def words(text: str) -> tuple[str, ...]:
    """Parse A,B,…"""
    return tuple(part.strip() for part in text.split(","))
