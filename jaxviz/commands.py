"""What the commands do: each reads its input, computes, writes a folder and prints one summary.

A command takes the parsed arguments of `jaxviz.cli`, and raises ValueError, TypeError or OSError
with a sentence for people where the input is wrong. MNIST's network, which comes with the package,
stands behind the word "bundled" unless there is a file of that name.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxviz import fills, plot, presets
from jaxviz.activations import activations as layer_outputs
from jaxviz.images import Pictures, Preprocessing, read_pictures
from jaxviz.keras import convert_keras, inspect_keras, load_keras, logits
from jaxviz.maximize import maximize as maximize_objectives
from jaxviz.objectives import channel
from jaxviz.occlusion import occlude as occlude_images
from jaxviz.output import output_folder, say, stage, table, write_arrays
from jaxviz.plot._scale import check_robust
from jaxviz.result import Approximation, Occlusion

DRAWN = 16  # images in one picture
# Options of one of the two uses of `occlude` alone, and what they are when they are not given.
OF_PICTURES: dict[str, Any] = {
    "out": Path("jaxviz-occlude"),
    "classes": None,
    "target": "predicted",
    "score": None,
    "reduce": None,
    "robust": None,
    "outline": False,
    "top": 3,
}
OF_STORES: dict[str, Any] = {
    "distributed": False,
    "coordinator": None,
    "share": None,
    "on_error": "raise",
    "chunk": None,
    "stored": "float32",
    "keep": None,
    "log": None,
}
SCORE_NAMES = {
    "drop": "drop in the score",
    "raw": "score",
    "complement": "1 − score",
    "relative_drop": "relative drop in the score",
    "log_odds_drop": "drop in the log-odds",
}
PRESETS = ("seed", "captum", "xplique", "pair", "tf_explain", "monai")


def bundled_model() -> Path:
    """The file of the MNIST network that comes with the package."""
    return Path(str(files("jaxviz.models"))) / "mnist_cnn.keras"


def model_path(name: str) -> Path:
    """The file that MODEL names."""
    return bundled_model() if name == "bundled" and not Path(name).exists() else Path(name)


def load_model(name: str, weights: Path | None = None) -> Any:
    """Load what MODEL names, with the weights of another file if that is said."""
    with stage(f"reading {name}"):
        return load_keras(_sources(name, weights))


def _sources(name: str, weights: Path | None) -> Any:
    return model_path(name) if weights is None else (model_path(name), weights)


def inspect(args: argparse.Namespace) -> int:
    """Print what a Keras file holds; 1 if it cannot be loaded."""
    report = inspect_keras(_sources(args.model, args.weights))
    if report.layers:
        table(args.model, ["layer", "class"], report.layers)
    say(str(report))
    return 0 if report.loadable else 1


def convert(args: argparse.Namespace) -> None:
    """Write the Flax parameters of a Keras file."""
    say(f"wrote {convert_keras(_sources(args.model, args.weights), args.out)}")


def occlude(args: argparse.Namespace) -> int:
    """Write occlusion.png, overlay.png, maps.npz and scores.npz for some images; or a store."""
    if args.store:
        _refuse(args, OF_PICTURES, "draws nothing with --store: leave it out, see `jaxviz export`")
        from jaxviz.scale.commands import occlude_store  # which needs the functions below

        return occlude_store(args)
    _refuse(args, OF_STORES, "is for runs into a store: give --store too")
    check_robust(args.robust)
    model = load_model(args.model, args.weights)
    pictures, images = _read(args, model, args.images, args.limit)
    names = read_class_names(args.classes) or model.labels
    target = _target(args.target, pictures, names)
    _check_target(target, model.output_shape)
    preset = _preset(args, images.shape[1:3])
    with output_folder(args.out) as folder:
        with stage(f"occluding {len(images)} images") as told:
            occ = occlude_images(
                model,
                images,
                **preset.occlude,
                method=args.method,
                batch_size=args.batch_size or "auto",
                tolerance=args.tolerance,
                progress=told,
            )
        some = slice(_begun(occ))
        labels = None if pictures.labels is None else pictures.labels[some]
        pictures = Pictures(pictures.values[some], pictures.names[some], labels)
        maps, classes = occ.heatmap(target, **preset.heatmap)[some], occ.class_map()[some]
        settings = {"model": args.model, "preprocessing": _preprocessing(args).describe()}
        settings |= {"target": args.target} | dict(occ.config) | preset.occlude | preset.heatmap
        arrays = {"heatmaps": maps, "class_maps": classes, "names": pictures.names}
        arrays["settings"] = json.dumps(settings, default=str)
        occ.save(folder / "scores.npz")
        write_arrays(folder / "maps.npz", arrays)
        score = preset.heatmap["score"]
        _draw_occlusion(folder, args, pictures, occ.base[some], maps, classes, names, score)
    _print_occlusion(args, pictures, occ.base[some], classes, names)
    say(f"{occ.grid}; input {settings['preprocessing']}")
    if occ.approximation is not None:
        say(_how_exact(occ.approximation))
    say(f"wrote occlusion.png, overlay.png, maps.npz, scores.npz to {args.out}")
    return 130 if occ.partial else 0


def _how_exact(found: Approximation) -> str:
    if found.field is None:
        return "exact: no narrower windows keep the tolerance, or none would be faster"
    return (
        f"approximate: off by at most {found.error:.2g} of the largest change of a score, at"
        f" {found.checked} checked positions of each image"
    )


def _begun(occ: Occlusion) -> int:
    """How many images an interrupted run came to; none is as if it had not begun."""
    count = int(np.sum(~np.isnan(occ.base).all(-1))) if occ.partial else len(occ.base)
    if count == 0:
        raise KeyboardInterrupt
    return count


def _refuse(args: argparse.Namespace, options: dict[str, Any], why: str) -> None:
    """Raise ValueError if one of the options is given, which would do nothing."""
    for name, default in options.items():
        if getattr(args, name) != default:
            raise ValueError(f"`--{name.replace('_', '-')}` {why}.")


def _preset(args: argparse.Namespace, size: tuple[int, int]) -> presets.Preset:
    """What the options say; what they do not say, --preset or the default."""
    if args.preset is None:
        patch = args.patch or (max(1, round(min(size) / 4)),)
        stride = args.stride or (max(1, min(patch) // 4),)
        where = {
            "patch": _pair(patch),
            "stride": _pair(stride),
            "margin": _pair(args.margin or (0,)),
        }
        where |= {"fill": 0.0, "border": args.border or "clip"}
        named = presets.Preset(where, {"score": "drop", "reduce": "mean"})
    else:
        layout: dict[str, Any] = dict.fromkeys(("patch", "stride", "margin", "border"))
        _refuse(args, layout, "and --preset both lay out the patches: leave one of them out")
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
    return make(*sizes, **extra)


def _draw_occlusion(
    folder: Path,
    args: argparse.Namespace,
    pictures: Pictures,
    base: np.ndarray,
    maps: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str] | None,
    score: str,
) -> None:
    some = slice(0, DRAWN)
    of = "" if base.shape[-1] == 1 else f" of {_target_name(args.target)}"
    signed = True if score.endswith("drop") else None
    scale: dict[str, Any] = {"signed": signed, "label": SCORE_NAMES[score] + of}
    scale["robust"] = args.robust
    predicted = _predicted(base[some])
    labels = None if pictures.labels is None else pictures.labels[some]
    figure = plot.occlusion(
        pictures.values[some],
        maps[some],
        classes[some],
        true=labels,
        predicted=predicted,
        class_names=names,
        outline=args.outline,
        **scale,
    )
    figure.savefig(folder / "occlusion.png")
    titles = [_class(c, names) for c in predicted]
    overlay = plot.overlay(pictures.values[some], maps[some], titles=titles, **scale)
    overlay.savefig(folder / "overlay.png")


def _print_occlusion(
    args: argparse.Namespace,
    pictures: Pictures,
    base: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str] | None,
) -> None:
    rows = []
    single = base.shape[-1] == 1
    for i, (name, clean) in enumerate(zip(pictures.names, _predicted(base), strict=True)):
        best = [clean] if single else np.argsort(-base[i], kind="stable")[: args.top]
        scores = ", ".join(f"{_class(c, names)} ({base[i, 0 if single else c]:.3g})" for c in best)
        covered = classes[i][classes[i] >= 0]
        changed = float(np.mean(covered != clean)) if covered.size else 0.0
        true = [] if pictures.labels is None else [_class(pictures.labels[i], names)]
        rows.append([name, *true, scores, f"{100 * changed:.1f} %"])
    true = [] if pictures.labels is None else ["true"]
    best = "class (score; 1 above 0.5)" if single else "best classes (score)"
    columns = ["image", *true, best, "pixels where covering changes the class"]
    hidden = len(rows) - DRAWN
    title = f"Occlusion of {len(rows)} images" + (f", {DRAWN} drawn" if hidden > 0 else "")
    table(title, columns, rows[:DRAWN])


def _predicted(base: np.ndarray) -> np.ndarray:
    """The class of each clean image, as `Occlusion.class_map` has it."""
    return (base[:, 0] > 0.5).astype(int) if base.shape[-1] == 1 else base.argmax(-1)


def maximize(args: argparse.Namespace) -> None:
    """Write maximize.png and images.npz for some units of a layer."""
    model = load_model(args.model, args.weights)
    if len(args.range) != 2 or not args.range[0] < args.range[1]:
        raise ValueError(f"`--range` must be LO,HI with LO < HI: got {_listed(args.range)}.")
    scorer = logits(model) if args.layer is None else model
    shape = _input_shape(model, args.size)
    units = args.units or tuple(range(10))
    if args.units is None:
        units = units[: _width(scorer, args.layer, shape)]
    objectives = [channel(args.layer, unit) for unit in units]
    names = read_class_names(args.classes) or model.labels
    with output_folder(args.out) as folder:
        with stage(f"maximising {len(units)} units") as told:
            result = maximize_objectives(
                scorer,
                objectives,
                image_shape=shape,
                key=jax.random.key(args.seed),
                value_range=args.range,
                progress=told,
                **({} if args.steps is None else {"steps": args.steps}),
            )
        images = np.asarray(result.images).reshape(len(units), *shape)
        reached = np.asarray(result.history["objective"])
        arrays = {"images": images, "units": units, "objective": reached}
        write_arrays(folder / "images.npz", arrays)
        titles = [_class(unit, names if args.layer is None else None) for unit in units]
        title = f"What maximises {args.layer or 'the output'}"
        low, high = args.range
        pictures = (images - low) / (high - low)
        plot.gallery(pictures, titles=titles, title=title).savefig(folder / "maximize.png")
    rows = [
        [t, float(a), float(b)] for t, a, b in zip(titles, reached[0], reached[-1], strict=True)
    ]
    table(title, ["unit", "objective at the start", "at the end"], rows)
    say(f"wrote maximize.png, images.npz to {args.out}")


def activations(args: argparse.Namespace) -> None:
    """Write activations.png and activations.npz for one image."""
    model = load_model(args.model, args.weights)
    pictures, images = _read(args, model, [args.image], 1)
    with output_folder(args.out) as folder:
        with stage("running the network"):
            found = layer_outputs(model, images, args.layers)
            maps = {name: np.asarray(value) for name, value in found.items()}
        chosen = args.layers or [name for name in maps if maps[name].ndim == 4]
        title = f"What each filter sees: {pictures.names[0]}"
        shown = {name: maps[name] for name in chosen}
        figure = plot.activations(
            shown or maps, image=pictures.values[0], max_maps=args.max_maps, title=title
        )
        figure.savefig(folder / "activations.png")
        write_arrays(folder / "activations.npz", maps)
    rows = [
        [name, " × ".join(map(str, v.shape[1:])), float(v.min()), float(v.mean()), float(v.max())]
        for name, v in maps.items()
    ]
    table(title, ["layer", "shape", "least", "mean", "greatest"], rows)
    say(f"input {_preprocessing(args).describe()}")
    say(f"wrote activations.png, activations.npz to {args.out}")


def read_class_names(file: Path | None) -> list[str] | None:
    """Names of classes from a file: one a line, or JSON as the help of --classes says."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
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


def _read(
    args: argparse.Namespace, model: Any, sources: Sequence[str], limit: int | None
) -> tuple[Pictures, np.ndarray]:
    with stage("reading the images"):
        pictures = read_pictures(sources, _input_shape(model, args.size), limit=limit)
    return pictures, _preprocessing(args)(pictures.values)


def _preprocessing(args: argparse.Namespace) -> Preprocessing:
    return Preprocessing(args.scale, args.invert, args.bgr, args.mean, args.std)


def _input_shape(model: Any, size: tuple[int, ...] | None) -> tuple[int, int, int]:
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 3 or isinstance(shape[0], tuple):
        raise ValueError(f"the model must take images (H, W, C): its input is {shape}.")
    height, width, channels = shape
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"`--size` must be at least 1: got {_by(size)}.")
        known = height, width
        height, width = _pair(size)
        if any(k not in (None, n) for k, n in zip(known, (height, width), strict=True)):
            raise ValueError(f"`--size` must suit the model, whose images are {_by(known)}.")
    if None in (height, width, channels):
        raise ValueError(f"the model takes images of any size {shape}; give --size H,W.")
    return height, width, channels


def _width(model: Any, layer: str | None, shape: tuple[int, int, int]) -> int:
    spec = jax.ShapeDtypeStruct((1, *shape), np.float32)
    if layer is None:
        return jax.eval_shape(model, spec).shape[-1]
    return layer_outputs(model, np.zeros((1, *shape), np.float32), layer)[layer].shape[-1]


def _target(text: str, pictures: Pictures, names: Sequence[str] | None) -> Any:
    if text == "predicted":
        return None
    if text == "true":
        if pictures.labels is None:
            raise ValueError("`--target true` needs labels: an .npz with `labels`, or the digits.")
        return pictures.labels
    if text.lstrip("-").isdigit():
        return int(text)
    if names is None or text not in names:
        raise ValueError(
            f'`--target` must be a number, "predicted", "true" or a name that --classes holds: got '
            f"{text!r}."
        )
    return names.index(text)


def _check_target(target: Any, output_shape: Any) -> None:
    """Refuse a class that the model lacks before anything is computed."""
    if not isinstance(output_shape, tuple) or len(output_shape) != 1:
        raise ValueError(f"the model must give scores (K,) per image: it gives {output_shape}.")
    (classes,) = output_shape
    if target is None or not isinstance(classes, int):
        return
    if classes == 1 and np.any(np.asarray(target) != 0):
        raise ValueError("`--target` must be left out: the model has a single score.")
    wrong = [int(c) for c in np.ravel(target) if not -classes <= c < classes]
    if wrong:
        raise ValueError(f"`--target` must be a class from 0 to {classes - 1}: got {wrong[0]}.")


def _target_name(text: str) -> str:
    return f"the {text} class" if text in ("predicted", "true") else f"class {text}"


def _fill(fill: Any) -> Any:
    if isinstance(fill, str) and fill.startswith("blur:"):
        return fills.blur(float(fill.removeprefix("blur:")))
    return fill


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    return sizes[0], sizes[-1]


def _by(sizes: Sequence[int | None]) -> str:
    return " × ".join("any" if size is None else str(size) for size in sizes)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _class(number: int, names: Sequence[str] | None) -> str:
    known = names is not None and 0 <= number < len(names)
    return names[number] if known and names else str(int(number))
