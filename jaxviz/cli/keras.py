"""`jaxviz inspect` and `jaxviz convert`: what a Keras file holds."""

import argparse

from jaxviz.cli.inputs import model_sources
from jaxviz.cli.output import say, table
from jaxviz.keras import convert_keras, inspect_keras


def inspect(args: argparse.Namespace) -> int:
    """Print what a Keras file holds; 1 if it cannot be loaded."""
    report = inspect_keras(model_sources(args.model, args.weights))
    if report.layers:
        table(args.model, ["layer", "class"], report.layers)
    say(str(report))
    return 0 if report.loadable else 1


def convert(args: argparse.Namespace) -> None:
    """Write the Flax parameters of a Keras file."""
    say(f"wrote {convert_keras(model_sources(args.model, args.weights), args.out)}")
