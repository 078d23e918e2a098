"""`jaxviz inspect` and `jaxviz convert`: what a Keras file holds."""

import argparse
from pathlib import Path
from typing import Any

from jaxviz.cli.inputs import PHOTOGRAPHS, model_sources
from jaxviz.cli.output import say, table
from jaxviz.keras import convert_keras, inspect_keras


def inspect(args: argparse.Namespace) -> int:
    """Print what a Keras file holds; 1 if it cannot be loaded."""
    report = inspect_keras(_keras_file(args))
    if report.layers:
        table(args.model, ["layer", "class"], report.layers)
    say(str(report))
    return 0 if report.loadable else 1


def convert(args: argparse.Namespace) -> None:
    """Write the Flax parameters of a Keras file."""
    say(f"wrote {convert_keras(_keras_file(args), args.out)}")


def _keras_file(args: argparse.Namespace) -> Any:
    if args.model == PHOTOGRAPHS and not Path(PHOTOGRAPHS).exists():
        raise ValueError(
            f"`MODEL` must be a Keras file, or bundled: {PHOTOGRAPHS} is Flax already, "
            "jaxviz.models.efficientnet_lite0()."
        )
    return model_sources(args.model, args.weights)
