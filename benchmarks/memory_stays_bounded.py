"""Memory does not grow with the number of positions, but for the scores themselves.

VGG-16 with random weights on one image of 224×224, patch 16, at strides 16, 4 and 1: up to 43,681
positions, each run in a process of its own. On windows they are run to the last one, which takes
two cores half an hour. Dense, they would take hours: those runs are interrupted by Ctrl-C after a
stated number of positions; by then everything that depends on the number of positions has been
allocated, and `occlude` returns what it has. A peak above 3 GB ends the benchmark with an error.
Peak memory is the process's largest resident set; it is set against that of a process that only
runs the network on one batch. The resident set after a quarter of the positions and at the end
shows whether it creeps.

    python -m benchmarks.memory_stays_bounded [--quick] [--save]
"""

import json
import resource
import sys
import time
import warnings
from math import prod
from typing import cast

import jax
import numpy as np
import psutil
from jax.tree_util import Partial

from benchmarks import common, networks
from jaxviz import occlude
from jaxviz._choices import Method

NAME = "memory_stays_bounded"
SIDE, PATCH, BATCH, CLASSES = 224, 16, 16, 1000
STATED_PEAK_GB = 3.0
ALL = str(SIDE * SIDE)  # more than there are
MB = 1e6


def resident() -> float:
    """Return this process's resident set, in MB."""
    return psutil.Process().memory_info().rss / MB


def peak() -> float:
    """Return the largest that it ever was, in MB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024) / MB


def load() -> tuple[Partial, np.ndarray]:
    """Return the network, its NumPy copy let go, and an image."""
    scorer = networks.in_jax(networks.vgg16(SIDE))
    return scorer, np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)


def network_alone() -> common.Row:
    """Run the network once on one batch."""
    scorer, image = load()
    loaded = peak()
    images = np.repeat(image[None], BATCH, 0)
    jax.block_until_ready(jax.jit(lambda f, x: f(x))(scorer, images))
    return {"run": f"the network alone, a batch of {BATCH}", "peak, MB": peak(), "weights": loaded}


def occlusion(stride: int, stop: int, batch: str, method: Method) -> common.Row:
    """Occlude, and interrupt after `stop` positions."""
    scorer, image = load()
    seen: list[tuple[int, float]] = []

    def watch(done: int, total: int) -> None:
        seen.append((done, resident()))
        if stop <= done < total:
            raise KeyboardInterrupt

    warnings.filterwarnings("ignore", message="interrupted")
    batch_size = "auto" if batch == "auto" else int(batch)
    begin = time.perf_counter()
    occ = occlude(
        scorer,
        image,
        patch=PATCH,
        stride=stride,
        method=method,
        batch_size=batch_size,
        progress=watch,
    )
    seconds, positions = time.perf_counter() - begin, prod(occ.grid.shape)
    early = next(size for done, size in seen if done >= min(stop, positions) / 4)
    return {
        "run": f"{method}, stride {stride}, batch_size={batch}",
        "positions": positions,
        "positions run": int(np.sum(~np.isnan(np.asarray(occ.scores)[..., 0]))),
        "seconds": seconds,
        "scores, MB": positions * CLASSES * 4 / MB,
        "peak, MB": peak(),
        "resident after 1/4, MB": early,
        "at the end, MB": seen[-1][1],
    }


def main() -> None:
    """Start a process per run."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        arguments = sys.argv[2:]
        if arguments:
            stride, stop, batch, method = arguments
            row = occlusion(int(stride), int(stop), batch, cast(Method, method))
        else:
            row = network_alone()
        print(json.dumps(row))
        return
    settings = common.options(__doc__)
    stop = "32" if settings.quick else "96"
    strides = ("1",) if settings.quick else ("16", "4", "1")
    calls: list[tuple[str, ...]] = [()]
    calls += [(stride, stop, str(BATCH), "dense") for stride in strides]
    if not settings.quick:
        calls += [("1", "400", "auto", "dense"), ("1", ALL, "auto", "incremental")]
    measured = (common.in_process(NAME, "--worker", *call) for call in calls)
    rows = common.collect(NAME, measured, settings)
    alone = rows[0]
    weights = alone.pop("weights")
    for row in rows[1:]:
        row["above the network, MB"] = row["peak, MB"] - alone["peak, MB"]
    most = max(row["peak, MB"] for row in rows) / 1e3
    if most > STATED_PEAK_GB:
        sys.exit(f"the peak was {most:.2f} GB, above the stated {STATED_PEAK_GB} GB.")
    common.finish(
        NAME,
        "Memory does not grow with the number of positions, but for the scores themselves.",
        f"43,681 positions of VGG-16 peak at {most:.2f} GB, under the stated"
        f" {STATED_PEAK_GB:g} GB: of it, the network alone takes"
        f" {alone['peak, MB'] / 1e3:.2f} GB and the scores"
        f" {rows[-1]['scores, MB'] / 1e3:.2f} GB (held twice at the end)",
        rows,
        notes=[
            "Dense runs were interrupted, see the positions run; peaks and seconds are those with"
            " compiling.",
            f"A process with Python, JAX and the weights of VGG-16 peaks at {weights:,.0f} MB.",
            "Scores: positions × 1000 classes × 4 bytes; `occlude` lays them out once in the order"
            " of the run and once on the grid.",
        ],
        packages=["psutil"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
