"""`occlude(method="dense")` scores positions nearly as fast as the network scores finished images.

Positions per second of `occlude`, with everything that it does (making the occluded images, checks,
moving scores to the host), against the images per second of the network alone: the same network,
compiled by `jax.jit`, on batches that already lie in memory, as many images as there are positions.
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
from jaxviz import Occlusion, occlude
from jaxviz.keras import load_keras
from jaxviz.scoring.scorer import split

NAME = "dense_occlusion_costs_only_the_forward_pass"
BATCHES = (8, 16, 32, 64, 128, 256)


def plain_runs(f: Any, image: np.ndarray, positions: int) -> dict[int, Callable[[], jax.Array]]:
    """Return, per batch size, a call that runs `positions` images through the network."""
    scorer = split(f)
    forward = jax.jit(scorer.call)

    def make(batch: int) -> Callable[[], jax.Array]:
        images = jax.device_put(np.repeat(image[None], batch, 0))

        def run() -> jax.Array:
            scores = forward(scorer.arrays, images)
            for _ in range(-(-positions // batch) - 1):
                scores = forward(scorer.arrays, images)
            return jax.block_until_ready(scores)

        run()
        return run

    return {batch: make(batch) for batch in BATCHES}


def measure(
    name: str, f: Any, images: np.ndarray, *, patch: int, stride: int, repeats: int
) -> common.Row:
    """Return the row of one network."""

    def ours() -> Occlusion:
        return occlude(f, images, patch=patch, stride=stride, fill=0.5, method="dense")

    first, occ = common.once(ours)
    scorer = split(f)
    start = occ.grid.starts[1, 1]
    by_hand = images[:1].copy()
    by_hand[:, start[0] : start[0] + patch, start[1] : start[1] + patch] = 0.5
    expected = np.asarray(scorer.call(scorer.arrays, by_hand))[0]
    common.check_equal(occ.scores[0, 1, 1], expected, within=1e-4, what=name)
    positions = occ.grid.size * len(images)
    batches = plain_runs(f, images[0], positions)
    tried = common.interleave({str(batch): run for batch, run in batches.items()}, 3)
    best = min(batches, key=lambda b: min(tried[str(b)].seconds) * _share(positions, b))
    timings = common.interleave({"plain": batches[best], "ours": ours}, repeats)
    share = _share(positions, best)
    return {
        "network": name,
        "positions": positions,
        "plain images/s": positions / (timings["plain"].median * share),
        "at batch": best,
        "occlude positions/s": positions / timings["ours"].median,
        "ratio": common.ratio(timings["plain"], timings["ours"]) * share,
        "spread, plain": timings["plain"].spread,
        "spread, ours": timings["ours"].spread,
        "first call, s": first,
    }


def _share(positions: int, batch: int) -> float:
    """Return `positions` over the images that whole batches of this size run."""
    return positions / (-(-positions // batch) * batch)


def main() -> None:
    """Measure both networks."""
    settings = common.options(__doc__)
    rng = np.random.default_rng(0)
    digits = rng.random((2 if settings.quick else 4, 28, 28, 1), np.float32)
    photos = rng.random((1, 64, 64, 3), np.float32)
    repeats = 3 if settings.quick else 11
    mnist, vgg16 = load_keras(common.mnist_model()), networks.in_jax(networks.vgg16(64))
    cases = (
        ("MNIST CNN", mnist, digits, {"patch": 4, "stride": 1, "repeats": repeats}),
        ("VGG-16 at 64×64", vgg16, photos, {"patch": 8, "stride": 4, "repeats": min(repeats, 5)}),
    )
    measured = (measure(name, f, images, **how) for name, f, images, how in cases)
    rows = common.collect(NAME, measured, settings)
    ratios = " and ".join(f"{row['ratio']:.2f} ({row['network']})" for row in rows)
    common.finish(
        NAME,
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
