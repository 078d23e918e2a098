"""`estimate` foretells the time of a run over many images within 25 %, from a probe of seconds.

Each case is estimated, then run into a store, in one process, so that neither compiles again. The
ratio is that of the run's time, from its first image to its last, to the time foretold for it.

    python -m benchmarks.scale_estimates_are_within_a_quarter [--quick] [--save]
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from jaxviz.keras import load_keras
from jaxviz.occlusion import Method
from jaxviz.scale import networks
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.estimate import estimate

NAME = "scale_estimates_are_within_a_quarter"
CASES = {
    "mnist_cnn": (28, 4, 1, 200),
    "squeezenet": (128, 16, 8, 6),
    "mobilenet_v2": (96, 16, 8, 6),
    "vgg16": (64, 8, 4, 6),
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
    told = estimate(f, shape, count, patch, stride, fill=0.5, method=method)
    images = np.random.default_rng(1).random((count, *shape), np.float32)
    reports = []
    with tempfile.TemporaryDirectory() as place:
        occlude_dataset(
            f,
            images,
            Path(place) / "out.zarr",
            patch=patch,
            stride=stride,
            fill=0.5,
            method=method,
            progress=reports.append,
        )
    foretold = count * told.image_seconds
    return {
        "model": model,
        "side": side,
        "patch": patch,
        "stride": stride,
        "images": count,
        "method": method,
        "foretold, s": foretold,
        "taken, s": reports[-1].seconds,
        "ratio": reports[-1].seconds / foretold,
    }


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    methods: tuple[Method, ...] = ("dense", "incremental")
    rows = [measure(model, method, settings.quick) for model in CASES for method in methods]
    off = max(abs(row["ratio"] - 1) for row in rows)
    common.finish(
        NAME,
        "A run over many images takes what `estimate` foretold, within 25 %.",
        f"The estimates are off by {100 * off:.0f} % at most.",
        rows,
        settings=settings,
    )


if __name__ == "__main__":
    main()
