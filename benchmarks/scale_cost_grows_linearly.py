"""Time grows with the work: a straight line, on logarithmic axes, along every axis of a run.

One quantity varies, the others stay: the side of the image (at a fixed stride, and at a fixed
number of positions), the patch, the stride, the number of images, and the number of devices. The
slope of log(seconds) against log(quantity) is fitted and put next to the slope of the operations,
which is what a perfect machine would show. Devices are host devices of one process: they share its
cores, so that more of them can only be as fast.

    python -m benchmarks.scale_cost_grows_linearly [--quick] [--save]
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

from benchmarks import common, networks  # noqa: E402
from jaxviz import occlude  # noqa: E402
from jaxviz.scale.run import make_run  # noqa: E402
from jaxviz.scale.sources import check_source, open_source  # noqa: E402

NAME = "scale_cost_grows_linearly"
BLOCKS, WIDTHS = ((16,), (32,)), (10,)
BASE = {"side": 64, "patch": 8, "stride": 4, "images": 2, "devices": 1}
Point = dict[str, int]


def sweeps(quick: bool) -> dict[str, list[Point]]:
    """Return, for each quantity, the runs in which it varies."""
    some = slice(None, None, 2) if quick else slice(None)
    sides = (32, 48, 64, 96, 128)[some]
    return {
        "side, stride fixed": [{**BASE, "side": side} for side in sides],
        "side, positions fixed": [
            {**BASE, "side": s, "stride": s // 16, "patch": s // 8} for s in sides
        ],
        "patch": [{**BASE, "patch": patch} for patch in (4, 8, 16, 24, 32)[some]],
        "stride": [{**BASE, "stride": stride} for stride in (2, 3, 4, 6, 8)[some]],
        "images": [{**BASE, "images": n} for n in (1, 2, 4, 8, 16)[some]],
        "devices": [{**BASE, "images": 8, "devices": n} for n in (1, 2, 4, 8)],
    }


def quantity(sweep: str) -> str:
    """Return which part of a run varies in a sweep."""
    return sweep.split(",")[0]


def prepare(point: Point, method: str) -> tuple[Callable[[], Any], int]:
    """Return the call of one run, compiled, and its floating-point operations."""
    side = point["side"]
    f = networks.in_jax(networks.make_network((side, side, 3), BLOCKS, WIDTHS))
    images = np.random.default_rng(0).random((point["images"], side, side, 3), np.float32)
    mesh = None
    if point["devices"] > 1:
        mesh = Mesh(np.array(jax.devices()[: point["devices"]]), ("images",))
    where = {"patch": point["patch"], "stride": point["stride"], "method": method, "mesh": mesh}

    def run():
        return occlude(f, images, fill=0.5, batch_size=16, **where)

    run()
    planned = make_run(f, check_source(open_source(images)), fill=0.5, batch_size=16, **where)
    engine = planned.settle(None).program.engine
    return run, planned.operations(engine) * point["images"]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y against log x, fitted by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(curves: dict[tuple[str, str], tuple[list[int], list[float], float]]) -> None:
    """Draw every sweep on logarithmic axes, and keep the picture with the results."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(sweep for sweep, _ in curves))
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, names, strict=True):
        for method, marker in (("dense", "o"), ("incremental", "s")):
            x, seconds, fitted = curves[name, method]
            axes.loglog(x, seconds, f"{marker}-", label=f"{method}: slope {fitted:.2f}")
        axes.set(title=name, xlabel=quantity(name), ylabel="seconds")
        axes.set_xticks(x, labels=[str(value) for value in x])
        axes.minorticks_off()
        axes.legend(fontsize=8)
    common.RESULTS.mkdir(exist_ok=True)
    figure.savefig(common.RESULTS / f"{NAME}.png", dpi=100)


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    rows, curves = [], {}
    for sweep, points in sweeps(settings.quick).items():
        for method in ("dense", "incremental"):
            runs, operations = zip(*(prepare(point, method) for point in points), strict=True)
            timed = common.interleave(
                {str(i): run for i, run in enumerate(runs)}, 2 if settings.quick else 5
            )
            seconds = [min(timing.seconds) for timing in timed.values()]
            x = [point[quantity(sweep)] for point in points]
            fitted = slope(x, seconds)
            curves[sweep, method] = (x, seconds, fitted)
            rows.append(
                {
                    "varies": sweep,
                    "method": method,
                    "from": x[0],
                    "to": x[-1],
                    "seconds, first": seconds[0],
                    "seconds, last": seconds[-1],
                    "slope of seconds": fitted,
                    "slope of operations": slope(x, operations),
                }
            )
    off = max(
        abs(row["slope of seconds"] - row["slope of operations"])
        for row in rows
        if row["varies"] == "images"
    )
    if settings.save:
        draw(curves)
    common.finish(
        NAME,
        "Time grows with the work along every axis of a run.",
        f"With the number of images, the slope is 1 within {off:.2f}.",
        rows,
        notes=[
            "One network of two convolutions; " + ", ".join(f"{k} {v}" for k, v in BASE.items()),
            f"The plot is results/{NAME}.png. Host devices share the cores of one processor.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
