"""`jaxviz maximize`: the images that the units of a layer respond to most."""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxviz import plot
from jaxviz.cli.inputs import (
    before_softmax,
    check_class_names,
    class_name,
    input_shape,
    load_model,
    read_class_names,
    refuse,
)
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.images.preprocessing import Preprocessing, preprocessing_of
from jaxviz.layers import activations as layer_outputs
from jaxviz.maximization.maximize import maximize as maximize_objectives
from jaxviz.maximization.objectives import channel


def maximize(args: argparse.Namespace) -> None:
    """Write maximize.png and images.npz for some units of a layer."""
    if args.layer is not None:
        refuse(args, {"classes": None}, "names classes, not units of --layer: leave it out")
    model = load_model(args.model, args.weights)
    own = preprocessing_of(model) if args.range is None else None
    shape = input_shape(model, args.size)
    low, high = _range(args.range, own, shape[2])
    scorer = before_softmax(model) if args.layer is None else model
    names = read_class_names(args.classes) or model.class_names
    width = _width(scorer, args.layer, shape)
    check_class_names(args.classes, names, width)
    units = args.units or tuple(range(min(10, width)))
    objectives = [channel(args.layer, unit) for unit in units]
    with output_folder(args.out) as folder:
        with stage(f"maximising {len(units)} units", "steps") as told:
            result = maximize_objectives(
                scorer,
                objectives,
                image_shape=shape,
                key=jax.random.key(args.seed),
                value_range=(low, high),
                progress=told,
                **({} if args.steps is None else {"steps": args.steps}),
            )
        images = np.asarray(result.images).reshape(len(units), *shape)
        reached = np.asarray(result.history["objective"])
        arrays = {"images": images, "units": units, "objective": reached}
        write_arrays(folder / "images.npz", arrays)
        titles = [class_name(unit, names if args.layer is None else None) for unit in units]
        title = f"What maximises {args.layer or 'the output'}"
        pictures = (images - low) / (high - low) if own is None else own.undo(images)
        plot.gallery(pictures, titles=titles, title=title).savefig(folder / "maximize.png")
    rows = [
        [t, float(a), float(b)] for t, a, b in zip(titles, reached[0], reached[-1], strict=True)
    ]
    table(title, ["unit", "objective at the start", "at the end"], rows)
    say(f"wrote maximize.png, images.npz to {args.out}")


def _range(
    asked: Sequence[float] | None, own: Preprocessing | None, channels: int
) -> tuple[float, float]:
    """Return the range of a pixel: --range, or from black to white in the model's own units."""
    if asked is None:
        ends = np.stack([np.zeros(channels), np.ones(channels)]) if own else np.array([0.0, 1.0])
        values = ends if own is None else own(ends)
        return float(values.min()), float(values.max())
    if len(asked) != 2 or not asked[0] < asked[1]:
        raise ValueError(f"`--range` must be LO,HI with LO < HI: got {_listed(asked)}.")
    return asked[0], asked[1]


def _width(model: Any, layer: str | None, shape: tuple[int, int, int]) -> int:
    spec = jax.ShapeDtypeStruct((1, *shape), np.float32)
    if layer is None:
        output = jax.eval_shape(model, spec)
        if not hasattr(output, "shape"):
            raise ValueError(
                f"the model must give one array of scores: it gives a {type(output).__name__};"
                " name a layer by --layer."
            )
        return output.shape[-1]
    return layer_outputs(model, np.zeros((1, *shape), np.float32), layer)[layer].shape[-1]


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
