"""Time grows with the work: a straight line, on logarithmic axes, along every axis of a run.

One quantity varies, the others stay: the side of the image (at a fixed stride, and at a fixed
number of positions), the patch, the stride, the number of images, and the number of devices. The
slope of log(seconds) against log(quantity) is fitted and put next to the slope of the operations,
which is what a perfect machine would show; for devices that is −1.

Devices are host devices, each with a core of its own: a run on n of them is a process that may use
n cores. There are as many points as the machine has cores for: on two cores, one device and two.

    python -m benchmarks.scale_cost_grows_linearly [--quick] [--save]
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

WORKER = "--worker"
if WORKER in sys.argv:  # before JAX starts, which then sees n cores and n devices
    devices = json.loads(sys.argv[-1])["devices"]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:devices])
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

from benchmarks import common, networks  # noqa: E402
from jaxviz import occlude  # noqa: E402
from jaxviz.occlusion.occlude import Method  # noqa: E402
from jaxviz.perturbation.patches import Patches  # noqa: E402
from jaxviz.scale.run import make_run  # noqa: E402
from jaxviz.scale.sources import check_source, open_source  # noqa: E402

NAME = "scale_cost_grows_linearly"
PLOT = Path(__file__).parent.parent / "docs" / "cost_growth.png"
BLOCKS, WIDTHS = ((16,), (32,)), (10,)
BASE = {"side": 64, "patch": 8, "stride": 4, "images": 2, "devices": 1, "batch": 16}
LARGE = 128  # a batch beside which launching a block hardly counts
METHODS: tuple[Method, ...] = ("dense", "incremental")
REPEATS, QUICK_REPEATS = 5, 2
Point = dict[str, int]
Curves = dict[tuple[str, str], tuple[list[int], list[float], float]]
Measured = tuple[list[float], list[int]]  # seconds and operations of each point


def sweeps(quick: bool) -> dict[str, list[Point]]:
    """Return, for each quantity, the runs in which it varies."""
    some = slice(None, None, 2) if quick else slice(None)
    sides = (32, 48, 64, 96, 128)[some]
    counts = [n for n in (1, 2, 4, 8, 16) if n <= common.machine()["cores"]]
    return {
        "side, stride fixed": [{**BASE, "side": side} for side in sides],
        "side, positions fixed": [
            {**BASE, "side": s, "stride": s // 16, "patch": s // 8} for s in sides
        ],
        "patch": [{**BASE, "patch": patch} for patch in (4, 8, 16, 24, 32)[some]],
        "stride": [{**BASE, "stride": stride} for stride in (2, 3, 4, 6, 8)[some]],
        "images": [{**BASE, "images": n} for n in (1, 2, 4, 8, 16)[some]],
        "devices": [{**BASE, "images": 32, "devices": n} for n in counts],
        f"devices, batches of {LARGE}": [
            {**BASE, "images": 32, "devices": n, "batch": LARGE} for n in counts
        ],
    }


def quantity(sweep: str) -> str:
    """Return which part of a run varies in a sweep."""
    return sweep.split(",")[0]


def prepare(point: Point, method: Method) -> tuple[Callable[[], Any], int]:
    """Return the call of one run, compiled, and its floating-point operations."""
    side = point["side"]
    f = networks.in_jax(networks.make_network((side, side, 3), BLOCKS, WIDTHS))
    images = np.random.default_rng(0).random((point["images"], side, side, 3), np.float32)
    mesh = None
    if point["devices"] > 1:
        mesh = Mesh(np.array(jax.devices()[: point["devices"]]), ("images",))
    where = {"patch": point["patch"], "stride": point["stride"], "method": method, "mesh": mesh}

    def run() -> Any:
        return occlude(f, images, fill=0.5, batch_size=point["batch"], **where)

    run()
    patches = Patches(patch=point["patch"], stride=point["stride"], fill=0.5)
    source = check_source(open_source(images))
    planned = make_run(f, source, patches, batch_size=point["batch"], method=method, mesh=mesh)
    evaluator = planned.settle(None).program.evaluator
    return run, planned.operations(evaluator) * point["images"]


def measure(sweep: str, points: Sequence[Point], method: Method, repeats: int) -> Measured:
    """Return the fastest of several runs of every point, and its operations."""
    if quantity(sweep) == "devices":
        told = [
            common.in_process(NAME, WORKER, method, str(repeats), json.dumps(point))
            for point in points
        ]
        return [seconds for seconds, _ in told], [
            operations // point["devices"]
            for (_, operations), point in zip(told, points, strict=True)
        ]
    runs, operations = zip(*(prepare(point, method) for point in points), strict=True)
    timed = common.interleave({str(i): run for i, run in enumerate(runs)}, repeats)
    return [min(timing.seconds) for timing in timed.values()], list(operations)


def work(method: Method, repeats: str, point: str) -> None:
    """Measure one point in this process, which has the cores of its devices only."""
    run, operations = prepare(json.loads(point), method)
    print(json.dumps([min(common.once(run)[0] for _ in range(int(repeats))), operations]))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y against log x, fitted by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) > 1 else float("nan")


def draw(curves: Curves) -> None:
    """Draw every sweep on logarithmic axes."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(sweep for sweep, _ in curves))
    figure = Figure(figsize=(13, 6), layout="constrained")
    places = figure.subplots(2, 4).flat
    for unused in list(places)[len(names) :]:
        unused.remove()
    for axes, name in zip(figure.axes, names, strict=True):
        for method, marker in zip(METHODS, "os", strict=True):
            x, seconds, fitted = curves[name, method]
            axes.loglog(x, seconds, f"{marker}-", label=f"{method}: slope {fitted:.2f}")
        axes.set(title=name, xlabel=quantity(name), ylabel="seconds")
        axes.set_xticks(x, labels=[str(value) for value in x])
        axes.minorticks_off()
        axes.legend(fontsize=8)
    figure.savefig(PLOT, dpi=80)


def grow(quick: bool, curves: Curves) -> Iterator[common.Row]:
    """Yield the row of every sweep and method, and add its curve."""
    for sweep, points in sweeps(quick).items():
        for method in METHODS:
            seconds, operations = measure(
                sweep, points, method, QUICK_REPEATS if quick else REPEATS
            )
            x = [point[quantity(sweep)] for point in points]
            curves[sweep, method] = (x, seconds, slope(x, seconds))
            yield {
                "varies": sweep,
                "method": method,
                "from": x[0],
                "to": x[-1],
                "seconds, first": seconds[0],
                "seconds, last": seconds[-1],
                "slope of seconds": slope(x, seconds),
                "slope of operations": slope(x, operations),
            }


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    curves: Curves = {}
    rows = common.collect(NAME, grow(settings.quick, curves), settings)
    found = {(row["varies"], row["method"]): row["slope of seconds"] for row in rows}
    if settings.save:
        draw(curves)
    common.finish(
        NAME,
        "Time grows with the work along every axis of a run.",
        "Slopes on logarithmic axes, dense and incremental: "
        + ", ".join(
            f"{name} {found[name, 'dense']:.2f} and {found[name, 'incremental']:.2f}"
            for name in ("images", "stride", "devices")
        )
        + "; perfect are 1, −2 (of large images) and −1.",
        rows,
        notes=[
            "One network of two convolutions; " + ", ".join(f"{k} {v}" for k, v in BASE.items()),
            "n devices are host devices of one process that has n cores; their operations are those"
            " of one device; there are 32 images. A machine of two cores shows one device and two.",
            "Smaller windows make smaller products, which run at a smaller share of the peak; so"
            " incremental gains less from a smaller patch than the operations say.",
            f"The plot is docs/{PLOT.name}.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    if WORKER in sys.argv:
        work(*sys.argv[2:])  # pyright: ignore
    else:
        main()
