"""Windows per second of five networks, by the loop, all positions at once, and incrementally.

The table of `jaxviz bench`: the bundled MNIST network with patch 4 and stride 1, and VGG-16,
ResNet-50, MobileNetV2 and SqueezeNet, of random weights, with patch 16 and stride 8 and 4 at 224
(--quick: stride 8 at 64). Scores are checked against the loop before anything is timed. Comparisons
with other libraries are the other benchmarks of this folder.

    python -m benchmarks.scale_windows_per_second [--quick] [--save]
"""

from benchmarks import common
from jaxviz.scale.bench import plot, run_bench

NAME = "scale_windows_per_second"


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    report = run_bench(quick=settings.quick)
    rows = report["rows"]
    loops = {(r["model"], r["stride"]): r["windows/s"] for r in rows if r["method"] == "loop"}
    gains = {
        f"{row['model']} /{row['stride']}": row["windows/s"] / loops[row["model"], row["stride"]]
        for row in rows
        if row["method"] == "incremental"
    }
    best = max(gains, key=lambda name: gains[name])
    least = min(gains, key=lambda name: gains[name])
    if settings.save:
        common.RESULTS.mkdir(exist_ok=True)
        plot(report, common.RESULTS / f"{NAME}.png")
    common.finish(
        NAME,
        "Windows per second, by network, grid and method.",
        f"Incremental against the loop: {gains[least]:.1f} ({least}) to {gains[best]:.1f} ({best})"
        " times as many windows per second.",
        rows,
        notes=[f"A matrix product runs at {report['matmul'] / 1e9:,.0f} Gflop/s here."],
        settings=settings,
    )


if __name__ == "__main__":
    main()
