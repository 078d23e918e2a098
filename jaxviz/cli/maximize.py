"""`jaxviz maximize`: the images that the units of a layer respond to most."""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxviz import plot
from jaxviz.cli.inputs import class_name, input_shape, load_model, read_class_names
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.keras import logits
from jaxviz.layers import activations as layer_outputs
from jaxviz.maximization.maximize import maximize as maximize_objectives
from jaxviz.maximization.objectives import channel


def maximize(args: argparse.Namespace) -> None:
    """Write maximize.png and images.npz for some units of a layer."""
    model = load_model(args.model, args.weights)
    if len(args.range) != 2 or not args.range[0] < args.range[1]:
        raise ValueError(f"`--range` must be LO,HI with LO < HI: got {_listed(args.range)}.")
    scorer = logits(model) if args.layer is None else model
    shape = input_shape(model, args.size)
    units = args.units or tuple(range(10))
    if args.units is None:
        units = units[: _width(scorer, args.layer, shape)]
    objectives = [channel(args.layer, unit) for unit in units]
    names = read_class_names(args.classes) or model.class_names
    with output_folder(args.out) as folder:
        with stage(f"maximising {len(units)} units", "steps") as told:
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
        titles = [class_name(unit, names if args.layer is None else None) for unit in units]
        title = f"What maximises {args.layer or 'the output'}"
        low, high = args.range
        pictures = (images - low) / (high - low)
        plot.gallery(pictures, titles=titles, title=title).savefig(folder / "maximize.png")
    rows = [
        [t, float(a), float(b)] for t, a, b in zip(titles, reached[0], reached[-1], strict=True)
    ]
    table(title, ["unit", "objective at the start", "at the end"], rows)
    say(f"wrote maximize.png, images.npz to {args.out}")


def _width(model: Any, layer: str | None, shape: tuple[int, int, int]) -> int:
    spec = jax.ShapeDtypeStruct((1, *shape), np.float32)
    if layer is None:
        return jax.eval_shape(model, spec).shape[-1]
    return layer_outputs(model, np.zeros((1, *shape), np.float32), layer)[layer].shape[-1]


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
