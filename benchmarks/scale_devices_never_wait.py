"""A run over a folder of pictures waits for neither reading nor writing.

JPEG pictures of 500×375 pixels are decoded, stretched to the network's input and occluded, and all
scores written to a store. Two clocks run: the seconds in which computing stood still because no
image was ready, and those in which it stood still because results were still to be written, from
the second chunk on: the first must be read before anything can be computed. The memory that the
process takes is told for two lengths of the run.

    python -m benchmarks.scale_devices_never_wait [--quick] [--save]
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import common

NAME = "scale_devices_never_wait"
CASES = {
    "mnist_cnn": {"side": 28, "patch": 4, "stride": 2},
    "squeezenet": {"side": 128, "patch": 16, "stride": 16},
}


def make_pictures(folder: Path, count: int) -> None:
    """Write smooth random pictures, of the size of those of ImageNet."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg")


def work(model: str, count: int) -> None:
    """Run once, in a process of its own; print what was measured as JSON."""
    from jaxviz.bench import networks
    from jaxviz.keras import load_keras
    from jaxviz.scale.dataset import occlude_dataset

    case = CASES[model]
    if model == "mnist_cnn":
        f, channels = load_keras(common.mnist_model()), 1
    else:
        f, channels = networks.make_network(getattr(networks, model), case["side"]), 3
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place) / "pictures"
        pictures.mkdir()
        make_pictures(pictures, count)
        log = Path(place) / "log.jsonl"
        occlude_dataset(
            f,
            pictures,
            Path(place) / "out.zarr",
            patch=case["patch"],
            stride=case["stride"],
            fill=0.5,
            image_shape=(case["side"], case["side"], channels),
            progress=False,
            log=log,
        )
        first, *_, last = common.logged(log)
    reading = last["waited_for_images"] - first["waited_for_images"]
    writing = last["waited_for_writing"] - first["waited_for_writing"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {
        "model": model,
        "pictures": count,
        "images/s": last["images_per_second"],
        "positions/s": last["positions_per_second"],
        "seconds": last["seconds"],
        "waited for images, s": reading,
        "waited for writing, s": writing,
        "waited, %": 100 * (reading + writing) / (last["seconds"] - first["seconds"]),
        "peak MiB": memory,
    }
    print(json.dumps(told))


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    counts = {"mnist_cnn": (200, 800), "squeezenet": (16, 64)}
    if settings.quick:
        counts = {"mnist_cnn": (100, 400), "squeezenet": (8, 16)}
    measured = (
        common.in_process(NAME, model, str(count)) for model in counts for count in counts[model]
    )
    rows = common.collect(NAME, measured, settings)
    most = max(row["waited, %"] for row in rows)
    common.finish(
        NAME,
        "A run over a folder of pictures waits for neither reading nor writing.",
        f"Computing stood still for {most:.2f} % of the time at most.",
        rows,
        notes=["Two CPU cores decode and compute at once: neither is idle while the other works."]
        if common.machine()["cores"] == 2
        else [],
        settings=settings,
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in CASES:
        work(sys.argv[1], int(sys.argv[2]))
    else:
        main()
