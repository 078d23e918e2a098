"""`jaxviz bench`: how fast this machine occludes, by network, grid and method, in one table.

Every row is measured by a probe: blocks of positions of one image, as in a run over many. It is
checked first: scores at some positions must be those that the network gives for images made by
hand, one at a time. That loop, the obvious one, is measured too.
"""

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.engines import Dense
from jaxviz.scale import networks
from jaxviz.scale.estimate import seconds_per_image
from jaxviz.scale.identity import versions
from jaxviz.scale.pipeline import Chunk, Waits, score
from jaxviz.scale.run import Run, Settled, make_run
from jaxviz.scale.sources import check_source, open_source
from jaxviz.scorer import Scorer, split

METHODS = ("loop", "dense", "incremental")
FILL = 0.5
QUICK_SECONDS, SECONDS = 1.0, 5.0  # of measuring, for each row
CHECKED = 4  # positions that are compared with the loop
Row = dict[str, Any]
Report = dict[str, Any]


class Case(NamedTuple):
    """A network on a grid."""

    model: str
    side: int
    patch: int
    stride: int


LARGE = ("vgg16", "resnet50", "mobilenet_v2", "squeezenet")
CASES = (
    Case("mnist_cnn", 28, 4, 1),
    *(Case(model, 224, 16, stride) for model in LARGE for stride in (8, 4)),
)
QUICK_CASES = (Case("mnist_cnn", 28, 4, 1), *(Case(model, 64, 16, 8) for model in LARGE))


def run_bench(
    *,
    quick: bool = False,
    models: Sequence[str] | None = None,
    dtype: str = "float32",
    tell: Callable[[str], Any] = print,
) -> Report:
    """Measure this machine.

    Args:
        quick: images of 64 pixels instead of 224, and shorter probes: under two minutes.
        models: which ones; None: all five.
        dtype: of the forward pass.
        tell: called with a sentence before each row.

    Returns:
        {"machine", "versions", "dtype", "quick", "matmul", "rows"}; a row is one network on one
        grid by one method. "matmul" is the operations per second of a large matrix product, the
        measure of the device's speed.

    Raises:
        ValueError: a model is unknown.
    """
    known = sorted({case.model for case in CASES})
    wanted = known if models is None else list(models)
    if set(wanted) - set(known):
        raise ValueError(f"`models` must be some of {', '.join(known)}: got {', '.join(wanted)}.")
    speed = matmul_speed(dtype)
    rows = []
    for case in QUICK_CASES if quick else CASES:
        if case.model in wanted:
            rows += _measure(case, dtype, quick, speed, tell)
    return {
        "machine": machine(),
        "versions": versions(),
        "dtype": dtype,
        "quick": quick,
        "matmul": speed,
        "rows": rows,
    }


def markdown(report: Report) -> str:
    """Return a report as a Markdown table, with the machine below it."""
    columns = list(report["rows"][0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in report["rows"]:
        lines.append("| " + " | ".join(_cell(row[column]) for column in columns) + " |")
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    used = ", ".join(f"{key} {value}" for key, value in report["versions"].items())
    speed = f"{report['dtype']}; a matrix product runs at {report['matmul'] / 1e9:,.0f} Gflop/s."
    return "\n".join([*lines, "", f"{speed} {facts}. {used}."])


def plot(report: Report, file: Path) -> None:
    """Draw windows/s against the operations of a window, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    for method, marker in zip(METHODS, "xos", strict=True):
        rows = [row for row in report["rows"] if row["method"] == method]
        cost = [row["Gflop/window dense"] for row in rows]
        axes.loglog(cost, [row["windows/s"] for row in rows], marker, label=method)
    for row in report["rows"]:
        if row["method"] == "dense":
            at = (row["Gflop/window dense"], row["windows/s"])
            text = f"{row['model']} /{row['stride']}"
            axes.annotate(text, at, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("cost of one window, Gflop (dense)")
    axes.set_ylabel("windows per second")
    axes.legend()
    figure.savefig(file, dpi=150)


def matmul_speed(dtype: str, size: int = 2048) -> float:
    """Return the operations per second of a matrix product on the default device."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def machine() -> dict[str, Any]:
    """Describe the machine: no name of it, and no path."""
    device = jax.devices()[0]
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        cpu = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _measure(
    case: Case, dtype: str, quick: bool, speed: float, tell: Callable[[str], Any]
) -> Iterator[Row]:
    """Yield the row of each method."""
    seconds = QUICK_SECONDS if quick else SECONDS
    f, image = _network(case)
    loop = _Loop(f, image, case, dtype)
    for method in METHODS:
        tell(f"{case.model} at {case.side}, patch {case.patch}, stride {case.stride}: {method} …")
        begin = time.perf_counter()
        run = make_run(
            f,
            check_source(open_source(image[None])),
            patch=case.patch,
            stride=case.stride,
            fill=FILL,
            dtype=dtype,
            method="dense" if method == "loop" else method,
            batch_size=1 if method == "loop" else "auto" if quick else "fastest",
        )
        settled = run.settle(None)
        compiling = time.perf_counter() - begin
        power = _Power()
        if method == "loop":
            compiling, each = loop.compile(), loop.seconds(seconds)
            off, memory = 0.0, None
        else:
            off = _deviation(run, settled, loop)
            each = seconds_per_image(run, settled, seconds) / run.grid.size
            memory = settled.program.bytes / 2**20
        watts = power.watts()
        cost = run.operations(settled.program.engine) / run.grid.size
        dense = run.operations(Dense()) / run.grid.size
        yield {
            "model": case.model,
            "side": case.side,
            "patch": case.patch,
            "stride": case.stride,
            "windows": run.grid.size,
            "method": method,
            "batch": settled.batch,
            "windows/s": 1 / each,
            "images/s": 1 / (each * run.grid.size),
            "compile s": compiling,
            "Gflop/window": cost / 1e9,
            "Gflop/window dense": dense / 1e9,
            "share of matmul speed": cost / each / speed,
            "MiB/block": memory,
            "peak MiB": _peak_memory() / 2**20,
            "J/window": None if watts is None else watts * each,
            "max deviation": off,
        }


def _network(case: Case) -> tuple[Scorer, np.ndarray]:
    """A network and a random image for it."""
    if case.model == "mnist_cnn":
        from jaxviz.keras import load_keras

        f: Any = load_keras(Path(str(files("jaxviz.models"))) / "mnist_cnn.keras")
        shape = f.input_shape
    else:
        f = networks.make_network(getattr(networks, case.model), case.side)
        shape = (case.side, case.side, 3)
    return f, np.random.default_rng(0).random(shape, np.float32)


class _Loop:
    """The obvious loop: paste, run the network on one image, take the scores, go on."""

    def __init__(self, f: Scorer, image: np.ndarray, case: Case, dtype: str):
        scorer = split(f)
        kind = jnp.dtype(dtype)
        self.arrays = [
            a.astype(kind) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in scorer.arrays
        ]
        self.forward = jax.jit(scorer.call)
        self.name, self.image, self.patch, self.dtype = case.model, image, case.patch, kind

    def score(self, start: np.ndarray) -> np.ndarray:
        """Return the scores (K,) of the image with the patch at a start."""
        row, col = start.tolist()
        image = self.image.copy()
        image[row : row + self.patch, col : col + self.patch] = FILL
        return np.asarray(self.forward(self.arrays, image[None].astype(self.dtype))[0], np.float32)

    def compile(self) -> float:
        """Return the seconds of the first call."""
        begin = time.perf_counter()
        self.score(np.zeros(2, int))
        return time.perf_counter() - begin

    def seconds(self, budget: float) -> float:
        """Return the seconds of a window, on the average of those that the budget allows."""
        begin, count = time.perf_counter(), 0
        while count < 3 or time.perf_counter() - begin < budget:
            self.score(np.zeros(2, int))
            count += 1
        return (time.perf_counter() - begin) / count


def _deviation(run: Run, settled: Settled, loop: _Loop) -> float:
    """Return max |program − loop| / max |loop| over some positions spread over the grid."""
    task = run.task.replicated()
    picked = np.linspace(0, run.grid.size - 1, CHECKED).round().astype(int)
    task = replace(task, positions=task.positions[picked])
    images = np.repeat(task.images, settled.program.scores.shape[0], 0)
    chunks = iter([Chunk(0, images, [""] * len(images))])
    ((_, values),) = score(task, settled.program, chunks, Waits())
    expected = np.stack([loop.score(start) for start in task.positions])
    off = np.abs(values[0, 1:] - expected).max() / np.abs(expected).max()
    if not off < (1e-3 if loop.dtype == jnp.float32 else 0.2):
        raise ArithmeticError(
            f"the {settled.method} scores of {loop.name} are off by {off:.2g}; nothing is timed."
        )
    return float(off)


def _peak_memory() -> int:
    """Bytes that the device, or else the process, has taken at most so far."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return (
        stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


class _Power:
    """Watts since it was made, where the processor (RAPL) or the GPU (NVML) tells its energy."""

    def __init__(self):
        self.begin, self.before = time.perf_counter(), _joules()

    def watts(self) -> float | None:
        """Return the mean power, None if nothing tells it."""
        now = _joules()
        if now is None or self.before is None:
            return None
        return (now - self.before) / (time.perf_counter() - self.begin)


def _joules() -> float | None:
    if jax.devices()[0].platform == "gpu":
        with suppress(Exception):  # whatever NVML, which need not be there, may raise
            nvml: Any = import_module("pynvml")
            nvml.nvmlInit()
            return (
                nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0)) / 1e3
            )
        return None
    counters = Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj")
    with suppress(OSError, ValueError):
        return sum(int(counter.read_text()) for counter in counters) / 1e6 or None
    return None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
