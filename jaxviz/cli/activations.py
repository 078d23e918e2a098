"""`jaxviz activations`: what each filter sees of one image."""

import argparse

import numpy as np

from jaxviz import plot
from jaxviz.cli.inputs import load_model, preprocessing, read_images
from jaxviz.cli.output import output_folder, say, stage, table, write_arrays
from jaxviz.layers import activations as layer_outputs


def activations(args: argparse.Namespace) -> None:
    """Write activations.png and activations.npz for one image."""
    model = load_model(args.model, args.weights)
    pictures, images = read_images(args, model, [args.image], 1)
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
    say(f"input {preprocessing(args, model).describe()}")
    say(f"wrote activations.png, activations.npz to {args.out}")
