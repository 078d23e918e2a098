"""Approximate occlusion: speed-up over dense evaluation against the error of the map.

`occlude` with a `tolerance` (windows cut short), with `refine` (coarse to fine) and with both, on a
grid of patch 16 and stride 4. What is timed is the whole call, once compiled, the exact scores and
the trials that a tolerance needs included. Dense evaluation is timed at some positions of the grid,
at the fastest of three batch sizes, and extrapolated. The largest error is that of the clean top
class's drops over all positions, relative to the largest exact drop; SSIM is of the map of these
drops, and of the heatmap over pixels, their mean over the patches that cover a pixel. VGG-16 has
random weights (He); SqueezeNet 1.0 is the real one, on a photograph.

    python -m benchmarks.incremental_approximation_trades_error_for_speed [--quick] [--save]
        [--only NETWORK]

With --only and --save, the rows of the other network are kept from the result that is there.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxviz
from benchmarks import common, networks
from benchmarks.render import kept_rows

NAME = "incremental_approximation_trades_error_for_speed"
HIDE = {"patch": 16, "stride": 4, "border": "valid", "fill": "mean"}
EXACT = (None, None)
CASES = {
    "SqueezeNet 1.0": (
        *((tolerance, None) for tolerance in (0.02, 0.05, 0.1, 0.15, 0.3)),
        *((None, (2, share)) for share in (0.1, 0.25, 0.4)),
        *((0.1, (2, share)) for share in (0.1, 0.25, 0.4)),
        *((0.1, (factor, 0.25)) for factor in (3, 4)),
    ),
    "VGG-16": (
        *((tolerance, None) for tolerance in (0.1, 0.25, 0.4)),
        (None, (2, 0.1)),
        (0.25, (2, 0.25)),
    ),
}
DENSE_BATCHES = (4, 8, 16)
NOTES = [
    "A tolerance is a share of the largest change of any score; the bound is what the run "
    "estimates of all positions and classes, and leaves interpolation out. The "
    "largest error is over all positions, of the clean top class, relative to its largest "
    "drop. Speed-ups are of whole calls for the whole map, once compiled, the exact scores "
    "and trials behind a tolerance included; of dense evaluation only some positions were "
    "timed. Batches of the size that `occlude` finds.",
    "Tried: windows that stop a number of pixels, the same in all layers, beyond the patch, "
    "instead of a number of cells. VGG-16's drops at 10.6 times fewer operations had an SSIM "
    "of 0.82, with cells 0.99; SqueezeNet's hardly differed.",
    "Tried: narrow windows everywhere, exact ones at every second to sixth row and column, "
    "and their difference interpolated: no better than wider windows at equal cost.",
]


class Network(NamedTuple):
    """A scorer, its image, the (height, width) in pixels of the part that is evaluated densely."""

    f: Callable
    image: np.ndarray
    dense: tuple[int, int]
    repeats: int


def random_vgg16() -> Network:
    """VGG-16 with random weights, on noise in blobs."""
    coarse = jnp.asarray(np.random.default_rng(0).standard_normal((14, 14, 3)), jnp.float32)
    image = jax.image.resize(coarse, (224, 224, 3), "cubic")
    return Network(networks.in_jax(networks.vgg16()), np.asarray(image), (4, 64), 1)


def squeezenet() -> Network:
    """SqueezeNet 1.0 without its softmax, on the photograph of a zebra."""
    from PIL import Image

    folder = common.data_folder()
    model = jaxviz.load_keras(folder / "imagenet" / "squeezenet_v1.0_derived.keras")
    photo = Image.open(folder / "photos" / "captum_zebra.jpg").convert("RGB").resize((227, 227))
    pixels = np.asarray(photo, np.float32)[..., ::-1] - np.array([104, 117, 123], np.float32)
    return Network(jaxviz.logits(model), pixels, (16, 227), 2)


def ssim(a: np.ndarray, b: np.ndarray, side: int = 7) -> float:
    """Mean structural similarity of two maps, uniform windows, range that of the second.

    Wang, Bovik, Sheikh, Simoncelli 2004, equation 13, K1 = 0.01, K2 = 0.03.
    """
    spread = float(b.max() - b.min())
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(m, (side, side)) for m in (a, b))
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    var_x, var_y = x.var((2, 3), ddof=1), y.var((2, 3), ddof=1)
    centred = (x - mean_x[..., None, None]) * (y - mean_y[..., None, None])
    covariance = centred.sum((2, 3)) / (side * side - 1)
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def measure(name: str, network: Network, settings: Any) -> Iterator[common.Row]:
    """Yield one row for each pair of tolerance and refinement, the exact map before them."""
    top, (height, width) = network.image.shape[0] // 2, network.dense
    some = {"region": (top, 64, top + height, 64 + width)}

    def run(**options: Any) -> Callable[[], jaxviz.Occlusion]:
        hide = {**HIDE, "stride": 16} if settings.quick else HIDE
        return lambda: jaxviz.occlude(network.f, network.image, **hide, **options)

    trials = {str(b): run(method="dense", batch_size=b, **some) for b in DENSE_BATCHES}
    wanted = [trial() for trial in trials.values()][0]
    times = common.interleave(trials, 1)
    slow = trials[min(trials, key=lambda batch: times[batch].median)]
    share = float(np.mean(~np.isnan(wanted.scores[..., 0])))
    exact = run(method="incremental")()
    there = ~np.isnan(wanted.scores)
    what = f"{name}, dense and incremental"
    common.check_equal(exact.scores[there], wanted.scores[there], within=1e-4, what=what)
    for case in (EXACT, *(CASES[name][-1:] if settings.quick else CASES[name])):
        fast = run(method="incremental", tolerance=case[0], refine=case[1])
        occ = exact if case == EXACT else fast()
        times = common.interleave(
            {"dense": slow, "fast": fast}, 1 if settings.quick else network.repeats
        )
        speed_up = common.ratio(times["dense"], times["fast"]) / share
        yield row(name, case, occ, exact, speed_up)


def heatmap(occ: jaxviz.Occlusion, target: int) -> np.ndarray:
    """Return the map of drops over the pixels that a patch covers."""
    return np.asarray(occ.heatmap(target, uncovered=0.0), np.float64)


def row(
    name: str, case: tuple, occ: jaxviz.Occlusion, exact: jaxviz.Occlusion, speed_up: float
) -> common.Row:
    """Compare a map with the exact one."""
    target, told = int(np.argmax(exact.base)), occ.approximation
    ours, wanted = (
        np.asarray(x.base[target] - x.scores[..., target], np.float64) for x in (occ, exact)
    )
    cut = told is not None and told.field is not None
    return {
        "network": name,
        "tolerance": case[0] or "none",
        "refine": str(case[1] or "no"),
        "cells followed": told.field if told is not None and cut else "all",
        "bound": told.bound if told is not None else 0.0,
        "scored": 1.0 if occ.exact is None else float(occ.exact.mean()),
        "largest error": float(np.abs(ours - wanted).max() / np.abs(wanted).max()),
        "SSIM of drops": ssim(ours, wanted),
        "SSIM of heatmap": ssim(heatmap(occ, target), heatmap(exact, target)),
        "speed-up": speed_up,
    }


def fastest(rows: list[common.Row], name: str, ssim: str) -> float:
    """Return the largest speed-up of a network at an SSIM of at least 0.95."""
    return max(x["speed-up"] for x in rows if x["network"] == name and x[ssim] >= 0.95)


def main() -> None:
    """Measure both networks, or one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=CASES)
    own, others = parser.parse_known_args()
    settings = common.options(__doc__, others)
    cases = {"SqueezeNet 1.0": squeezenet} if "JAXVIZ_DATA" in os.environ else {}
    if not (cases and settings.quick):
        cases["VGG-16"] = random_vgg16
    rows = []
    if own.only:
        rows = [row for row in kept_rows(NAME) if row["network"] != own.only]
        cases = {own.only: cases[own.only]}
    measured = (row for name, make in cases.items() for row in measure(name, make(), settings))
    rows += common.collect(NAME, measured, settings)
    rows.sort(key=lambda row: list(CASES).index(row["network"]))
    names, maps = {row["network"]: None for row in rows}, ("heatmap", "drops")
    best = {(name, kind): fastest(rows, name, f"SSIM of {kind}") for name in names for kind in maps}
    common.finish(
        NAME,
        "Cutting windows short and scoring coarse to fine make occlusion faster; how wrong the map "
        "becomes is measured.",
        "Over dense, at SSIM of at least 0.95 of heatmap and of drops: "
        + "; ".join(f"{x} {best[x, 'heatmap']:.1f}× and {best[x, 'drops']:.1f}×" for x in names),
        rows,
        notes=NOTES,
        settings=settings,
    )


if __name__ == "__main__":
    main()
