"""`jaxviz occlude`: maps and pictures of some images, or a store of many."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz import plot
from jaxviz.cli.inputs import (
    check_class_names,
    class_count,
    class_name,
    load_model,
    make_preset,
    preprocessing,
    read_class_names,
    read_images,
    refuse,
)
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.images.files import Pictures
from jaxviz.occlusion.occlude import occlude as occlude_images
from jaxviz.occlusion.result import Approximation, Occlusion
from jaxviz.plot._scale import check_robust
from jaxviz.scoring.targets import by_name
from jaxviz.viewer import report

DRAWN = 16  # images in one picture
PAGE = 64  # and in one HTML file
# Options of one of the two uses of `occlude` alone, and what they are when they are not given.
OF_PICTURES: dict[str, Any] = {
    "out": Path("jaxviz-occlude"),
    "target": "predicted",
    "score": None,
    "reduce": None,
    "robust": None,
    "outline": False,
    "html": False,
    "top": 3,
}
OF_STORES: dict[str, Any] = {
    "distributed": False,
    "coordinator": None,
    "share": None,
    "on_error": None,
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


def occlude(args: argparse.Namespace) -> int:
    """Write occlusion.png, overlay.png, maps.npz and scores.npz for some images; or a store."""
    if args.store:
        refuse(args, OF_PICTURES, "draws nothing with --store: leave it out, see `jaxviz export`")
        from jaxviz.cli.stores import occlude_store  # which needs the functions below

        return occlude_store(args)
    refuse(args, OF_STORES, "is for runs into a store: give --store too")
    check_robust(args.robust)
    model = load_model(args.model, args.weights)
    pictures, images = read_images(args, model, args.images, args.limit)
    names = read_class_names(args.classes) or model.class_names
    args.targets = split_targets(args.target, names)
    targets = [target_of(one, pictures, names) for one in args.targets]
    for one in targets:
        check_target(one, model.output_shape)
    target = targets[0]
    check_class_names(args.classes, names, class_count(model.output_shape))
    preset = make_preset(args, images.shape[1:3])
    with output_folder(args.out) as folder:
        with stage(f"occluding {len(images)} images", "positions") as told:
            occ = occlude_images(
                model,
                images,
                **preset,
                method=args.method,
                batch_size=args.batch_size or "auto",
                tolerance=args.tolerance,
                refine=args.refine,
                progress=told,
                class_names=names if args.classes else None,
            )
        some = slice(_begun(occ))
        labels = None if pictures.labels is None else pictures.labels[some]
        pictures = Pictures(pictures.values[some], pictures.names[some], labels)
        maps, classes = occ.heatmap(target)[some], occ.class_map()[some]
        how = preprocessing(args, model).describe()
        occ = replace(occ, config=(*occ.config, ("preprocessing", how)))
        settings = {"model": args.model, "preprocessing": how}
        settings |= {"target": args.target} | dict(occ.config) | preset.occlude | preset.heatmap
        arrays = {"heatmaps": maps, "class_maps": classes, "names": pictures.names}
        arrays["settings"] = json.dumps(settings, default=str)
        occ.save(folder / "scores.npz")
        write_arrays(folder / "maps.npz", arrays)
        score = preset.heatmap["score"]
        _draw_occlusion(folder, args, pictures, occ.base[some], maps, classes, names, score)
        if len(targets) > 1:
            several = {
                target_name(name, names): occ.heatmap(one)[some][:DRAWN]
                for name, one in zip(args.targets, targets, strict=True)
            }
            _draw_targets(folder, pictures, several, args.robust)
        if args.html:
            _write_page(folder, occ, pictures, images, names, args.images)
    _print_occlusion(args, pictures, occ.base[some], classes, names)
    say(f"{occ.grid}; input {settings['preprocessing']}")
    if occ.approximation is not None:
        say(_how_exact(occ.approximation))
    if occ.exact is not None:
        say(_how_refined(occ.exact, np.asarray(occ.interpolation_error)))
    for note in occ.notes:
        print(f"jaxviz occlude: note: {note}", file=sys.stderr)
    more = ", targets.png" if len(targets) > 1 else ""
    more += ", occlusion.html" if args.html else ""
    say(f"wrote occlusion.png, overlay.png{more}, maps.npz, scores.npz to {args.out}")
    return 130 if occ.partial else 0


def _draw_targets(
    folder: Path, pictures: Pictures, maps: dict[str, np.ndarray], robust: float | None
) -> None:
    figure = plot.compare(pictures.values[:DRAWN], maps, robust=robust, scaling="image")
    figure.savefig(folder / "targets.png")


def _write_page(
    folder: Path,
    occ: Occlusion,
    pictures: Pictures,
    images: np.ndarray,
    names: Sequence[str] | None,
    sources: Sequence[str],
) -> None:
    """Write occlusion.html, of as many images as one file holds well."""
    some = slice(0, min(len(pictures.values), PAGE))
    first = replace(occ, scores=occ.scores[some], base=occ.base[some])
    page = report(
        first,
        images[some],
        pictures=pictures.values[some],
        class_names=names,
        names=pictures.names[some],
        title=f"What the network looks at: {', '.join(map(str, sources))}",
    )
    page.save(folder / "occlusion.html")


def _how_exact(found: Approximation) -> str:
    if found.field is None:
        return "exact: no narrower windows keep the tolerance, or none would be faster"
    return (
        f"approximate: off by at most {found.bound:.2g} of the largest change of a score, as"
        f" estimated from {found.checked} positions an image ({found.confidence:.0%} confidence)"
    )


def _how_refined(exact: np.ndarray, errors: np.ndarray) -> str:
    told = f"coarse to fine: {exact.mean():.0%} of the positions scored, others interpolated"
    if np.isnan(errors).all():
        return told
    return f"{told}, off by {np.nanmax(errors):.2g} of the largest change where it was checked"


def _begun(occ: Occlusion) -> int:
    """Return how many images an interrupted run came to; none is as if it had not begun."""
    count = int(np.sum(~np.isnan(occ.base).all(-1))) if occ.partial else len(occ.base)
    if count == 0:
        raise KeyboardInterrupt
    return count


def target_of(text: str, pictures: Pictures, names: Sequence[str] | None) -> Any:
    """Return the target that one word of --target names."""
    if text == "predicted":
        return None
    if text == "true":
        if pictures.labels is None:
            raise ValueError("`--target true` needs labels: an .npz with `labels`, or the digits.")
        return pictures.labels
    if text.lstrip("-").isdigit():
        return int(text)
    if names is None:
        raise ValueError(
            '`--target` must be a number, "predicted", "true" or a name that --classes holds: got '
            f"{text!r}."
        )
    return by_name(text, names)


def split_targets(text: str, names: Sequence[str] | None) -> list[str]:
    """Return the targets that --target names, A,B,…; a name may hold a comma itself."""
    if names is not None and text in names:
        return [text]
    return [part.strip() for part in text.split(",")]


def check_target(target: Any, output_shape: Any) -> None:
    """Refuse a class that the model lacks before anything is computed."""
    classes = class_count(output_shape)
    if target is None or not isinstance(classes, int):
        return
    if classes == 1 and np.any(np.asarray(target) != 0):
        raise ValueError("`--target` must be left out: the model has a single score.")
    wrong = [int(c) for c in np.ravel(target) if not -classes <= c < classes]
    if wrong:
        raise ValueError(f"`--target` must be a class from 0 to {classes - 1}: got {wrong[0]}.")


def target_name(text: str, names: Sequence[str] | None) -> str:
    """Return a word of --target, for a picture."""
    if text in ("predicted", "true"):
        return f"the {text} class"
    number = int(text) if text.lstrip("-").isdigit() else None
    return text if number is None else f"class {class_name(number, names)}"


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
    of = "" if base.shape[-1] == 1 else f" of {target_name(args.targets[0], names)}"
    signed = True if score.endswith("drop") else None
    scale: dict[str, Any] = {"signed": signed, "label": SCORE_NAMES[score] + of}
    scale["robust"] = args.robust
    predicted = predicted_classes(base[some])
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
    titles = [class_name(c, names) for c in predicted]
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
    for i, (name, clean) in enumerate(zip(pictures.names, predicted_classes(base), strict=True)):
        best = [clean] if single else np.argsort(-base[i], kind="stable")[: args.top]
        scores = ", ".join(
            f"{class_name(c, names)} ({base[i, 0 if single else c]:.3g})" for c in best
        )
        covered = classes[i][classes[i] >= 0]
        changed = float(np.mean(covered != clean)) if covered.size else 0.0
        true = [] if pictures.labels is None else [class_name(pictures.labels[i], names)]
        rows.append([name, *true, scores, f"{100 * changed:.1f} %"])
    true = [] if pictures.labels is None else ["true"]
    best = "class (score; 1 above 0.5)" if single else "best classes (score)"
    columns = ["image", *true, best, "pixels where covering changes the class"]
    hidden = len(rows) - DRAWN
    title = f"Occlusion of {len(rows)} images" + (f", {DRAWN} drawn" if hidden > 0 else "")
    table(title, columns, rows[:DRAWN])


def predicted_classes(base: np.ndarray) -> np.ndarray:
    """Return the class of each clean image, as `Occlusion.class_map` has it."""
    return (base[:, 0] > 0.5).astype(int) if base.shape[-1] == 1 else base.argmax(-1)
