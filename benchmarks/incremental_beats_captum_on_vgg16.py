"""Positions per second on VGG-16: captum's `Occlusion` against `occlude`, dense and incremental.

VGG-16 with the same random weights in PyTorch and in JAX; one image of 224×224, patch 16, stride 8,
fill 0. captum runs with 2 threads, channels_last, without gradients, at the best of
`perturbations_per_eval` 8, 16 and 32; `occlude` at the best batch size of the same three, each
tried on the grid's first rows. Then all three run the whole grid of 729 positions, in turn; a
speed-up is the median over the turns. Maps of drops are checked first: they differ by at most 1e-5
of the largest clean score.
Compilation is left out; the first call, which compiles for one batch size, is stated apart.

    python -m benchmarks.incremental_beats_captum_on_vgg16 [--quick] [--save]
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common, networks
from jaxviz import Occlusion, occlude

SIDE, PATCH, STRIDE, TARGET = 224, 16, 8, 3
# 5 rows are cut into blocks of the same size as the whole grid is: nothing compiles again.
TRIED_ROWS, QUICK_ROWS = 5, 1
METHODS = ("dense", "incremental")
BATCHES = (8, 16, 32)
CHECKED_BATCH = 9  # not one that is timed
COLS = (SIDE - PATCH) // STRIDE + 1


def make_captum(network: networks.Network, image: np.ndarray) -> Callable[[int, int], np.ndarray]:
    """Return captum's attribution of the first rows: (rows, perturbations) -> map (H, W)."""
    import torch
    from captum.attr import FeatureAblation
    from captum.attr import Occlusion as Captum

    torch.set_num_threads(2)
    model = networks.in_torch(network).to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    pixels = pixels.to(memory_format=torch.channels_last)
    ablate: Any = FeatureAblation.attribute

    def run(rows: int, perturbations: int) -> np.ndarray:
        # What `Occlusion.attribute` passes on, with the shifts of some rows instead of all.
        with torch.inference_mode():
            attributed = ablate.__wrapped__(
                Captum(model),
                pixels,
                baselines=0,
                target=TARGET,
                perturbations_per_eval=perturbations,
                sliding_window_tensors=(torch.ones(3, PATCH, PATCH),),
                shift_counts=((1, rows, COLS),),
                strides=((3, STRIDE, STRIDE),),
            )
        return attributed[0, 0].numpy()

    return run


def make_ours(network: networks.Network, image: np.ndarray) -> Callable[..., Occlusion]:
    """Return `occlude` of the first rows: (rows, method, batch size) -> result."""
    scorer = networks.in_jax(network)

    def run(rows: int, method: Any, batch_size: int) -> Occlusion:
        edge = (PATCH - STRIDE) // 2 + rows * STRIDE
        return occlude(
            scorer,
            image,
            patch=PATCH,
            stride=STRIDE,
            region=(0, 0, edge, SIDE),
            method=method,
            batch_size=batch_size,
        )

    return run


def offered(run: Callable[..., Occlusion]) -> list[str]:
    """Return the methods that `occlude` knows."""
    known = []
    for method in METHODS:
        try:
            run(1, method, CHECKED_BATCH)
        except ValueError as error:
            print(f"skipped: {error}")
        else:
            known.append(method)
    return known


def main() -> None:
    """Check, choose batch sizes, and measure."""
    settings = common.options(__doc__)
    rows, repeats = (QUICK_ROWS, 1) if settings.quick else (COLS, 2)
    tried = min(rows, TRIED_ROWS)
    batches = (16,) if settings.quick else BATCHES
    network = networks.vgg16(SIDE)
    image = np.random.default_rng(1).random((SIDE, SIDE, 3), np.float32)
    captum, ours = make_captum(network, image), make_ours(network, image)
    methods = offered(ours)
    theirs = captum(1, CHECKED_BATCH)
    differences: dict[str, float | None] = {"captum": None}
    for method in methods:
        occ = ours(1, method, CHECKED_BATCH)
        heatmap = occ.heatmap(TARGET)
        covered = np.isfinite(heatmap)
        differences[method] = common.check_equal(
            heatmap[covered],
            theirs[covered],
            within=1e-5,
            what=f"captum and {method}",
            scale=float(np.abs(occ.base).max()),
        )
    tables: dict[str, Callable[[int, int], Any]] = {"captum": captum}
    for method in methods:
        tables[method] = lambda rows, batch, method=method: ours(rows, method, batch)
    best, first = {}, {}
    for name, run in tables.items():
        first[name] = {b: common.once(lambda b=b, run=run: run(tried, b))[0] for b in batches}
        again = {b: common.once(lambda b=b, run=run: run(tried, b))[0] for b in batches}
        best[name] = min(again, key=lambda b, again=again: again[b])
    runs = {name: lambda n=name, run=run: run(rows, best[n]) for name, run in tables.items()}
    timings = common.interleave(runs, repeats)
    table = [
        {
            "method": name,
            "batch": best[name],
            "positions": rows * COLS,
            "positions/s": rows * COLS / timings[name].median,
            "times captum": common.ratio(timings["captum"], timings[name]),
            "times dense": common.ratio(timings["dense"], timings[name]),
            "first call, s": first[name][best[name]],
            "spread": timings[name].spread,
            "difference": differences[name],
        }
        for name in tables
    ]
    common.finish(
        "incremental_beats_captum_on_vgg16",
        "VGG-16, 224×224, patch 16, stride 8: positions per second against captum.",
        "; ".join(f"{row['method']} {row['times captum']:.1f}× captum's best" for row in table[1:])
        + f", {table[-1]['times dense']:.1f}× our dense",
        table,
        notes=[
            f"Medians of {repeats} runs in turn.",
            "captum evaluates the clean image once more per call, and so does ours.",
        ],
        packages=["captum", "torch"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
