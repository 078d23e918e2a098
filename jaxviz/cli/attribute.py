"""`jaxviz attribute`: several methods' maps of the same images, side by side."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz import plot
from jaxviz._files import file_name
from jaxviz.attribution.result import Attribution
from jaxviz.cli.inputs import (
    before_softmax,
    check_class_names,
    class_count,
    class_name,
    load_model,
    preprocessing,
    read_class_names,
    read_images,
    refuse,
)
from jaxviz.cli.methods import Result, check_methods, method_of
from jaxviz.cli.occlude import (
    DRAWN,
    check_target,
    predicted_classes,
    split_targets,
    target_name,
    target_of,
)
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.occlusion.result import Occlusion
from jaxviz.plot._scale import check_robust

# Options of one of the two uses alone, and what they are when they are not given.
OF_PICTURES: dict[str, Any] = {"out": Path("jaxviz-attribute"), "robust": None}
OF_STORES: dict[str, Any] = {
    "share": None,
    "on_error": None,
    "chunk": None,
    "stored": "float32",
    "log": None,
}


def attribute(args: argparse.Namespace) -> int:
    """Write attribution.png, maps.npz and each method's result; 130 if one was interrupted."""
    if args.store:
        refuse(args, OF_PICTURES, "draws nothing with --store: leave it out, see `jaxviz export`")
        from jaxviz.cli.attribute_store import attribute_store  # which few runs need

        return attribute_store(args)
    refuse(args, OF_STORES, "is for runs into a store: give --store too")
    check_robust(args.robust)
    check_methods(args.method, args.layer)
    model = load_model(args.model, args.weights)
    scorer = before_softmax(model) if args.logits else model
    pictures, images = read_images(args, model, args.images, args.limit)
    names = read_class_names(args.classes) or model.class_names
    check_class_names(args.classes, names, class_count(model.output_shape))
    targets = {word: target_of(word, pictures, names) for word in split_targets(args.target, names)}
    for target in targets.values():
        check_target(target, model.output_shape)
    results: dict[str, Result] = {}
    maps: dict[str, np.ndarray] = {}
    taken = {"maps"}
    with output_folder(args.out) as folder:
        for method in args.method:
            for word, target in targets.items():
                label = f"{method}, {target_name(word, names)}" if len(targets) > 1 else method
                with stage(label, "images") as told:
                    found = _explain(method, scorer, images, target, args, told)
                if isinstance(found, Occlusion):
                    maps[label] = found.heatmap(target)
                else:
                    maps[label] = found.heatmap()
                name = file_name(label.replace(", ", "-").replace(" ", "-"), taken)
                found.save(folder / f"{name}.npz")
                results[label] = found
                if found.partial:
                    break
            if found.partial:  # Ctrl-C ends the command, not a method alone
                break
        write_arrays(folder / "maps.npz", {**maps, "names": pictures.names})
        base = np.asarray(next(iter(results.values())).base)
        titles = [class_name(c, names) for c in predicted_classes(base[:DRAWN])]
        shown = {label: values[:DRAWN] for label, values in maps.items()}
        figure = plot.compare(
            pictures.values[:DRAWN], shown, titles=titles, robust=args.robust, scaling="image"
        )
        figure.savefig(folder / "attribution.png")
    _print(results, maps, len(images))
    if any(isinstance(r, Attribution) and r.probabilities for r in results.values()):
        say("the scores are probabilities, flat where the network is sure: see --logits")
    say(f"input {preprocessing(args, model).describe()}")
    say(f"wrote attribution.png, maps.npz and {len(results)} results to {args.out}")
    return 130 if any(result.partial for result in results.values()) else 0


def _explain(
    method: str, scorer: Any, images: np.ndarray, target: Any, args: argparse.Namespace, told: Any
) -> Result:
    options: dict[str, Any] = {"batch_size": args.batch_size or "auto", "progress": told}
    return method_of(method, args.layer)(scorer, images, target=target, **options)


def _print(results: Mapping[str, Result], maps: Mapping[str, np.ndarray], count: int) -> None:
    rows = []
    for label, result in results.items():
        known = maps[label][np.isfinite(maps[label])]
        delta = getattr(result, "delta", None)
        gap = "" if delta is None else f"{np.abs(delta).max():.2g}"
        layer = dict(result.config).get("layer", "")
        ends = (float(known.min()), float(known.max())) if known.size else ("none", "none")
        rows.append([label, layer, *ends, gap])
    columns = ["method", "layer", "least", "greatest", "largest gap of the sum"]
    table(f"Attribution of {count} images", columns, rows)
