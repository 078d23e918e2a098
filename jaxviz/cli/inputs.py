"""What the words and options of a command line name: models, images, classes and patches.

Everything raises ValueError, TypeError or OSError with a sentence for people where the input is
wrong. MNIST's network, which comes with the package, stands behind the word "bundled", and the one
for photographs behind "efficientnet_lite0", unless there is a file of that name.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import numpy as np

from jaxviz._choices import PresetName
from jaxviz.cli.output import stage
from jaxviz.images.files import Pictures, read_pictures
from jaxviz.images.preprocessing import Preprocessing, named_preprocessing, preprocessing_of
from jaxviz.keras import KerasModel, load_keras, logits
from jaxviz.models import efficientnet_lite0, mnist_cnn
from jaxviz.occlusion import presets
from jaxviz.perturbation import fills
from jaxviz.scoring.scorer import image_shape_of

PRESETS = get_args(PresetName)
PHOTOGRAPHS = "efficientnet_lite0"
BRIGHT = 0.5  # of a picture's middle pixel, in [0, 1]


def bundled_model() -> Path:
    """Return the file of the MNIST network that comes with the package."""
    return Path(str(files("jaxviz.models"))) / "mnist_cnn.keras"


def model_path(name: str) -> Path:
    """Return the file that MODEL names."""
    return bundled_model() if name == "bundled" and not Path(name).exists() else Path(name)


def load_model(name: str, weights: Path | None = None) -> Any:
    """Load what MODEL names, with the weights of another file if that is said."""
    with stage(f"reading {name}"):
        if name == PHOTOGRAPHS and weights is None and not Path(name).exists():
            return efficientnet_lite0()
        if model_path(name) == bundled_model() and weights is None:
            return mnist_cnn()
        return load_keras(model_sources(name, weights))


def before_softmax(model: Any) -> Any:
    """Return a model of `load_model` without its last softmax or sigmoid, if it has one."""
    return logits(model) if isinstance(model, KerasModel) else model


def class_count(output_shape: Any) -> Any:
    """Return how many classes a model's outputs are scores of; None if that is open.

    Raises:
        ValueError: they are no scores of classes, such as a map or several outputs.
    """
    one = isinstance(output_shape, tuple) and len(output_shape) == 1
    if not one or isinstance(output_shape[0], tuple):
        raise ValueError(f"the model must give scores (K,) per image: it gives {output_shape}.")
    return output_shape[0]


def model_sources(name: str, weights: Path | None) -> Any:
    """Return what `load_keras` is given: a file, or an architecture and its weights."""
    return model_path(name) if weights is None else (model_path(name), weights)


def read_class_names(file: Path | None) -> list[str] | None:
    """Read names of classes: one a line, or JSON as the help of --classes says."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")  # as Notepad may write it
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(
            f"`--classes` must name a text file: {file} cannot be read, {why}."
        ) from error
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        value = json.loads(text)
        ordered = [value[str(i)] for i in range(len(value))] if isinstance(value, dict) else value
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} must be JSON, a list or {{index: name}}: {error}.") from error
    return [str(v[-1] if isinstance(v, list) else v).replace("_", " ") for v in ordered]


def check_class_names(file: Path | None, names: Sequence[str] | None, classes: Any) -> None:
    """Raise ValueError unless --classes names all classes of a model, two if it has one score."""
    if file is None or names is None or not isinstance(classes, int):
        return
    if len(names) not in ((1, 2) if classes == 1 else (classes,)):
        raise ValueError(
            f"`--classes` must name all classes of the model, {max(classes, 2)}: {file} has"
            f" {len(names)} names."
        )


def read_images(
    args: argparse.Namespace, model: Any, sources: Sequence[str], limit: int | None
) -> tuple[Pictures, np.ndarray]:
    """Read what IMAGES names: the pictures as they are, and in the units of the model."""
    with stage("reading the images"):
        pictures = read_pictures(sources, input_shape(model, args.size), limit=limit)
    formula = preprocessing(args, model)
    if args.model == "bundled" and formula == Preprocessing():
        _check_ground(pictures)
    return pictures, formula(pictures.values)


def _check_ground(pictures: Pictures) -> None:
    """Warn of digits on a bright ground, which the bundled network takes for something else."""
    pairs = zip(pictures.names, pictures.values, strict=True)
    bright = [name for name, picture in pairs if np.median(picture) > BRIGHT]
    if bright:
        others = f" and {len(bright) - 1} more" if len(bright) > 1 else ""
        warnings.warn(
            f"{bright[0]}{others}: dark on a bright ground, whereas the bundled network knows"
            " digits that are bright on a dark one, as MNIST has them; give --invert.",
            stacklevel=2,
        )


def preprocessing(args: argparse.Namespace, model: Any) -> Preprocessing:
    """Return the way from pictures in [0, 1] to the units of the model.

    It is what the options spell out, or else the one that --preprocess names, or else the model's
    own, or else x itself.
    """
    spelt = Preprocessing(args.scale, args.invert, args.bgr, args.mean, args.std)
    if args.preprocess is not None:
        if spelt != Preprocessing():
            raise ValueError(
                "`--preprocess` names a formula, which --scale, --invert, --bgr, --mean and --std"
                " spell out: give one or the other."
            )
        return named_preprocessing(args.preprocess, model)
    return spelt if spelt != Preprocessing() else preprocessing_of(model) or spelt


def input_shape(model: Any, size: tuple[int, ...] | None) -> tuple[int, int, int]:
    """Return the (height, width, channels) of the model's images, --size where they are open."""
    shape = image_shape_of(model)
    if not isinstance(shape, tuple) or len(shape) != 3 or isinstance(shape[0], tuple):
        raise ValueError(f"the model must take images (H, W, C): its input is {shape}.")
    height, width, channels = shape
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"`--size` must be at least 1: got {_by(size)}.")
        known = height, width
        height, width = pair(size)
        if any(k not in (None, n) for k, n in zip(known, (height, width), strict=True)):
            raise ValueError(f"`--size` must suit the model, whose images are {_by(known)}.")
    if None in (height, width, channels):
        raise ValueError(f"the model takes images of any size {shape}; give --size H,W.")
    return height, width, channels


def make_preset(args: argparse.Namespace, size: tuple[int, int]) -> presets.Preset:
    """Return what the options say; what they do not say, --preset or the default."""
    if args.preset is None:
        patch = args.patch or (max(1, round(min(size) / 4)),)
        stride = args.stride or (max(1, min(patch) // 4),)
        where = {
            "patch": pair(patch),
            "stride": pair(stride),
            "margin": pair(args.margin or (0,)),
        }
        where |= {"fill": 0.0, "border": args.border or "clip"}
        named = presets.Preset(where, {"score": "drop", "reduce": "mean"})
    else:
        layout: dict[str, Any] = dict.fromkeys(("patch", "stride", "margin", "border"))
        refuse(args, layout, "and --preset both lay out the patches: leave one of them out")
        named = _named_preset(args.preset, size)
    fill = {} if args.fill is None else {"fill": _fill(args.fill)}
    how = {"score": args.score, "reduce": args.reduce}
    how = {name: value for name, value in how.items() if value is not None}
    return presets.Preset(named.occlude | fill, named.heatmap | how)


def _named_preset(text: str, size: tuple[int, int]) -> presets.Preset:
    name, _, numbers = text.partition(":")
    try:
        if name not in PRESETS:
            raise ValueError
        extra = {"image_shape": size} if name == "monai" else {}
        sizes = [int(part) for part in numbers.split(",")]
        make = getattr(presets, name)
        signature(make).bind(*sizes, **extra)
    except (TypeError, ValueError):
        raise ValueError(
            "`--preset` must be NAME:SIZE, or NAME:SIZE,STRIDE for captum and xplique; the names "
            f"are {', '.join(PRESETS)}: got {text!r}."
        ) from None
    try:
        return make(*sizes, **extra)
    except ValueError as error:
        # It speaks of the preset's own arguments, not of options of these names.
        raise ValueError(f"`--preset` {text}: {str(error).replace('`', '')}") from error


def refuse(args: argparse.Namespace, options: dict[str, Any], why: str) -> None:
    """Raise ValueError if one of the options is given, which would do nothing."""
    for name, default in options.items():
        if getattr(args, name) != default:
            raise ValueError(f"`--{name.replace('_', '-')}` {why}.")


def _fill(fill: Any) -> Any:
    if isinstance(fill, str) and fill.startswith("blur:"):
        return fills.blur(float(fill.removeprefix("blur:")))
    return fill


def pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Return one number or two as (rows, cols)."""
    return sizes[0], sizes[-1]


def _by(sizes: Sequence[int | None]) -> str:
    return " × ".join("any" if size is None else str(size) for size in sizes)


def class_name(number: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, its number if it has none."""
    known = names is not None and 0 <= number < len(names)
    return names[number] if known and names else str(int(number))
