"""`occlude(method="dense")` scores windows nearly as fast as the network scores finished images.

Windows per second of `occlude`, with everything that it does (making the occluded images, checks,
moving scores to the host), against the images per second of the network alone: the same network,
compiled by `jax.jit`, on batches that already lie in memory, as many images as there are windows.
The network alone gets the fastest of several batch sizes; `occlude` chooses its own. Two networks:
the bundled MNIST CNN on 28×28 (patch 4, stride 1), and VGG-16 on 64×64 images (patch 8, stride 4).
At least 0.9 is expected.

    python -m benchmarks.dense_occlusion_costs_only_the_forward_pass [--quick] [--save]
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import common, networks
from jaxviz import occlude
from jaxviz.keras import load_keras
from jaxviz.scoring.scorer import split

BATCHES = (8, 16, 32, 64, 128, 256)


def plain_runs(f: Any, image: np.ndarray, windows: int) -> dict[int, Callable[[], jax.Array]]:
    """Return, per batch size, a call that runs `windows` images through the network."""
    scorer = split(f)
    forward = jax.jit(scorer.call)

    def make(batch: int) -> Callable[[], jax.Array]:
        images = jax.device_put(np.repeat(image[None], batch, 0))

        def run() -> jax.Array:
            scores = forward(scorer.arrays, images)
            for _ in range(-(-windows // batch) - 1):
                scores = forward(scorer.arrays, images)
            return jax.block_until_ready(scores)

        run()
        return run

    return {batch: make(batch) for batch in BATCHES}


def measure(name: str, f: Any, images: np.ndarray, *, patch: int, stride: int, repeats: int):
    """Return the row of one network."""

    def ours():
        return occlude(f, images, patch=patch, stride=stride, fill=0.5, method="dense")

    first, occ = common.once(ours)
    scorer = split(f)
    start = occ.grid.starts[1, 1]
    by_hand = images[:1].copy()
    by_hand[:, start[0] : start[0] + patch, start[1] : start[1] + patch] = 0.5
    expected = np.asarray(scorer.call(scorer.arrays, by_hand))[0]
    common.check_equal(occ.scores[0, 1, 1], expected, within=1e-4, what=name)
    windows = occ.grid.size * len(images)
    batches = plain_runs(f, images[0], windows)
    tried = common.interleave({str(batch): run for batch, run in batches.items()}, 3)
    best = min(batches, key=lambda b: min(tried[str(b)].seconds) * _share(windows, b))
    timings = common.interleave({"plain": batches[best], "ours": ours}, repeats)
    share = _share(windows, best)
    return {
        "network": name,
        "windows": windows,
        "plain images/s": windows / (timings["plain"].median * share),
        "at batch": best,
        "occlude windows/s": windows / timings["ours"].median,
        "ratio": common.ratio(timings["plain"], timings["ours"]) * share,
        "spread, plain": timings["plain"].spread,
        "spread, ours": timings["ours"].spread,
        "first call, s": first,
    }


def _share(windows: int, batch: int) -> float:
    """`windows`, of the images that whole batches of this size run."""
    return windows / (-(-windows // batch) * batch)


def main() -> None:
    """Measure both networks."""
    settings = common.options(__doc__)
    rng = np.random.default_rng(0)
    digits = rng.random((2 if settings.quick else 4, 28, 28, 1), np.float32)
    photos = rng.random((1, 64, 64, 3), np.float32)
    repeats = 3 if settings.quick else 11
    rows = [
        measure(
            "MNIST CNN",
            load_keras(common.mnist_model()),
            digits,
            patch=4,
            stride=1,
            repeats=repeats,
        ),
        measure(
            "VGG-16 at 64×64",
            networks.in_jax(networks.vgg16(64)),
            photos,
            patch=8,
            stride=4,
            repeats=min(repeats, 5),
        ),
    ]
    ratios = " and ".join(f"{row['ratio']:.2f} ({row['network']})" for row in rows)
    common.finish(
        "dense_occlusion_costs_only_the_forward_pass",
        "Dense occlusion costs what the network's forward passes cost.",
        f"{ratios} of the network's own images/s",
        rows,
        notes=[
            f"Medians of {repeats} runs in turn, of each pair for the ratio; spread is"
            " (slowest − fastest) / median.",
            "The first call compiles, checks the scorer and tries batch sizes.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
