"""`occlude_segments(method="auto")` scores superpixels faster than the whole network does.

Positions per second of `method="dense"`, `"incremental"` and `"auto"` on ragged segments, the cells
of random sites as SLIC makes them: 100 of a 224×224 image in SqueezeNet 1.1, and 64 of a 128×128
image in VGG-16. Scores are checked to be those of the dense run first.

    python -m benchmarks.segments_run_at_the_speed_of_windows [--quick] [--save]
"""

from typing import Any

import numpy as np

from benchmarks import common, networks
from jaxviz import Occlusion, occlude_segments
from jaxviz.bench.networks import make_network, squeezenet

NAME = "segments_run_at_the_speed_of_windows"
METHODS = ("dense", "incremental", "auto")


def ragged(size: int, across: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (size, size): the nearest of sites, one in each cell of a grid."""
    corners = np.indices((across, across)).reshape(2, -1).T
    sites = (corners + rng.uniform(0.2, 0.8, corners.shape)) * size / across
    pixels = np.moveaxis(np.indices((size, size)), 0, -1)[..., None, :]
    return ((pixels - sites) ** 2).sum(-1).argmin(-1)


def measure(name: str, f: Any, size: int, across: int, repeats: int) -> common.Row:
    """Return the row of one network."""
    rng = np.random.default_rng(0)
    image, labels = rng.random((size, size, 3), np.float32), ragged(size, across, rng)

    def run(method: Any) -> Occlusion:
        return occlude_segments(f, image, labels, fill=0.5, method=method)

    first = {method: common.once(lambda method=method: run(method)) for method in METHODS}
    dense = first["dense"][1].scores
    for method in METHODS[1:]:
        common.check_equal(first[method][1].scores, dense, within=1e-4, what=f"{name}, {method}")
    timings = common.interleave({m: lambda m=m: run(m) for m in METHODS}, repeats)
    count = across * across
    return {
        "network": name,
        "segments": count,
        "windows": dict(first["auto"][1].config)["windows"],
        **{f"{m} positions/s": count / timings[m].median for m in METHODS},
        "auto over dense": common.ratio(timings["dense"], timings["auto"]),
        "spread, dense": timings["dense"].spread,
        "spread, auto": timings["auto"].spread,
        **{f"first call {m}, s": first[m][0] for m in METHODS},
    }


def main() -> None:
    """Measure both networks."""
    settings = common.options(__doc__)
    cases = [("SqueezeNet 1.1 at 224×224", make_network(squeezenet, 224), 224, 10)]
    if not settings.quick:
        vgg16 = networks.in_jax(networks.vgg16(128))
        cases.append(("VGG-16 at 128×128", vgg16, 128, 8))
    repeats = 3 if settings.quick else 5
    rows = common.collect(NAME, (measure(*case, repeats) for case in cases), settings)
    ratios = " and ".join(f"{row['auto over dense']:.1f} ({row['network']})" for row in rows)
    common.finish(
        NAME,
        "Superpixels run at the speed of windows.",
        f"auto over dense: {ratios}",
        rows,
        notes=[
            f"Medians of {repeats} runs in turn; spread is (slowest − fastest) / median.",
            "The first call of a method compiles; auto finds the programs of the two before it.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
