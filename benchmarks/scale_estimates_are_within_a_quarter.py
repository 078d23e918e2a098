"""`estimate` foretells the time of a run over many images within 25 %, from a probe of seconds.

Each case is estimated, then run into a store, in one process, so that neither compiles again; and
once more, in turn, several times, since a machine's own speed changes from minute to minute. The
ratio is that of a run's time, from its first image to its last, to the time foretold just before.
The median of the ratios is the estimate's error; the least and the most are told too.

    python -m benchmarks.scale_estimates_are_within_a_quarter [--quick] [--save]
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from jaxviz._choices import Method
from jaxviz.bench import networks
from jaxviz.keras import load_keras
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.estimate import estimate

NAME = "scale_estimates_are_within_a_quarter"
REPEATS = 3
CASES = {
    "mnist_cnn": (28, 4, 1, 100),
    "squeezenet": (128, 16, 8, 6),
    "mobilenet_v2": (96, 16, 8, 6),
    "vgg16": (64, 8, 4, 4),
}


def measure(model: str, method: Method, quick: bool) -> common.Row:
    """Return the row of one case."""
    side, patch, stride, count = CASES[model]
    f: Any = load_keras(common.mnist_model())
    shape = (28, 28, 1)
    if model != "mnist_cnn":
        f = networks.make_network(getattr(networks, model), side)
        shape = (side, side, 3)
    count = max(2, count // 4) if quick else count
    pairs = [
        foretold_and_taken(f, shape, count, patch, stride, method, seed)
        for seed in range(2 if quick else REPEATS)
    ]
    ratios = [taken / foretold for foretold, taken in pairs]
    return {
        "model": model,
        "side": side,
        "patch": patch,
        "stride": stride,
        "images": count,
        "method": method,
        "foretold, s": float(np.median([foretold for foretold, _ in pairs])),
        "taken, s": float(np.median([taken for _, taken in pairs])),
        "ratio": float(np.median(ratios)),
        "least": min(ratios),
        "most": max(ratios),
    }


def foretold_and_taken(
    f: Any,
    shape: tuple[int, int, int],
    count: int,
    patch: int,
    stride: int,
    method: Method,
    seed: int,
) -> tuple[float, float]:
    """Return the seconds that a run was foretold, and those that it took."""
    told = estimate(f, shape, count, patch=patch, stride=stride, fill=0.5, method=method)
    images = np.random.default_rng(seed).random((count, *shape), np.float32)
    with tempfile.TemporaryDirectory() as place:
        occlude_dataset(
            f,
            images,
            Path(place) / "out.zarr",
            patch=patch,
            stride=stride,
            fill=0.5,
            method=method,
            progress=False,
            log=Path(place) / "log.jsonl",
        )
        taken = common.logged(Path(place) / "log.jsonl")[-1]["seconds"]
    return count * told.image_seconds, taken


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    methods: tuple[Method, ...] = ("dense", "incremental")
    measured = (measure(model, method, settings.quick) for model in CASES for method in methods)
    rows = common.collect(NAME, measured, settings)
    off = max(abs(row["ratio"] - 1) for row in rows)
    single = max(max(row["most"] - 1, 1 - row["least"]) for row in rows)
    common.finish(
        NAME,
        "A run over many images takes what `estimate` foretold, within 25 %.",
        f"The estimates are off by {100 * off:.0f} % at most, and single ones by"
        f" {100 * single:.0f} %.",
        rows,
        notes=[f"Medians of {REPEATS} estimates and runs in turn; least and most of the ratios."],
        settings=settings,
    )


if __name__ == "__main__":
    main()
