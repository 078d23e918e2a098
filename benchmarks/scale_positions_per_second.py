"""Positions per second of five networks, by every method of ours and by other libraries.

The table of `jaxviz bench`: the bundled MNIST network's shape with patch 4 and stride 1, and
VGG-16, ResNet-50, MobileNetV2 and SqueezeNet, of random weights, with patch 16 and stride 8 and 4
at 224 (--quick: stride 8 at 64). Ours are the obvious loop over one image at a time, compiled;
dense; incremental; and approximate, windows cut as short as a tolerance of 5 % allows. Beside them
run captum, xplique, tf-explain and the loop of Keras `predict` calls that this package started
from, in processes of their own and each at its best batch size, with the same weights. Ours are
checked against the loop before they are timed, the maps of the others against ours.

    python -m benchmarks.scale_positions_per_second [--quick] [--save] [--models A,B,…]

With --models and --save, the rows of other models are kept from the result that is there.
"""

import argparse
from pathlib import Path

from benchmarks import common
from benchmarks.render import kept_rows
from jaxviz.bench.peers import PEERS, TILES
from jaxviz.bench.rows import TOLERANCE
from jaxviz.bench.table import CASES, METHODS, plot, run_bench

NAME = "scale_positions_per_second"
PLOT = Path(__file__).parent.parent / "docs" / "positions_per_second.png"
Gains = dict[str, float]


def gains(rows: list[common.Row], fast: str, slow: str) -> Gains:
    """Return how many times as many positions per second one method makes, by network."""
    speed = {(r["model"], r["stride"], r["method"]): r["positions/s"] for r in rows}
    return {
        f"{model} /{stride}": value / speed[model, stride, slow]
        for (model, stride, method), value in speed.items()
        if method == fast and (model, stride, slow) in speed
    }


def span(found: Gains) -> str:
    """Return the least and the largest of some factors, in words."""
    least, most = (f"{pick(found.values()):.1f}" for pick in (min, max))
    return f"{least} to {most} times" if len(found) > 1 else f"{most} times"


def headline(rows: list[common.Row]) -> str:
    """Return how fast incremental is against the others."""
    factors = {slow: gains(rows, "incremental", slow) for slow in ("dense", "loop", *PEERS)}
    parts = [f"{slow} {span(found)}" for slow, found in factors.items() if found]
    return "Incremental makes the positions per second of " + ", of ".join(parts) + "."


def notes(matmul: float) -> list[str]:
    """Return what the columns mean."""
    return [
        f"A matrix product runs at {matmul / 1e9:,.0f} Gflop/s here; the share is of that.",
        "loop: our network, compiled, on one image at a time. approximate: `tolerance="
        f"{TOLERANCE}`; its deviation, as any, is a share of the largest score.",
        "Ours are measured by a probe of some seconds, of blocks of one image's positions.",
        f"Other libraries run {TILES}×{TILES} tiles (7×7 of MNIST), since neither patch nor stride"
        " changes what they compute for a position; images/s are these for the grid's positions.",
        "compile s: until the first scores, for ours with the trial of batch sizes and, where"
        " approximate, of window widths, which finds the program of incremental compiled; for"
        " others, what the first call took longer.",
        "peak MiB: resident memory above that before the row, weights and libraries left out,"
        " compiling included. J/position: of RAPL or NVML; not told where neither can be read.",
        "The plot is docs/positions_per_second.png.",
    ]


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--models")
    own, others = parser.parse_known_args()
    settings = common.options(__doc__, others)
    models = own.models.split(",") if own.models else None
    report = run_bench(
        quick=settings.quick,
        models=models,
        keep=lambda report: common.keep(NAME, report["rows"], settings),
    )
    rows = report["rows"]
    if models:
        rows = [row for row in kept_rows(NAME) if row["model"] not in models] + rows
    for row in rows:  # all by one measure, also those of an earlier run
        speed = 1e9 * row["Gflop/position"] * row["positions/s"]
        row["share of matmul speed"] = speed / report["matmul"]
    order = {case.model: place for place, case in enumerate(CASES)}
    methods = (*METHODS, *PEERS)
    rows.sort(key=lambda r: (order[r["model"]], -r["stride"], methods.index(r["method"])))
    report["rows"] = rows
    if settings.save:
        PLOT.parent.mkdir(exist_ok=True)
        plot(report, PLOT)
    common.finish(
        NAME,
        "Positions per second, by network, grid and method.",
        headline(rows),
        [{key: "not told" if value is None else value for key, value in r.items()} for r in rows],
        notes=notes(report["matmul"]),
        settings=settings,
    )


if __name__ == "__main__":
    main()
