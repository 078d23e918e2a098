"""`jaxviz bench`: how fast this machine occludes, by network, grid and method, in one table.

Every row of ours is measured by a probe: blocks of positions of one image, as in a run over many.
It is checked first: scores at some positions must be those that the network gives for images made
by hand, one at a time. That loop, the obvious one, is measured too; and so are other libraries,
where they are installed, see `jaxviz.bench.peers`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.bench import networks, peers
from jaxviz.bench.meters import PeakMemory, Power, machine, matmul_speed
from jaxviz.occlusion.tolerance import approximate_evaluators
from jaxviz.scale.estimate import seconds_per_image
from jaxviz.scale.identity import versions
from jaxviz.scale.pipeline import Chunk, Waits, score
from jaxviz.scale.run import Run, Settled, make_run
from jaxviz.scale.sources import check_source, open_source
from jaxviz.scoring.compiled import choose
from jaxviz.scoring.evaluators import Dense
from jaxviz.scoring.scorer import Scorer, split

METHODS = ("loop", "dense", "incremental", "approximate")
TOLERANCE = 0.05  # of approximate, as `occlude` defines it
FILL = 0.5
QUICK_SECONDS, SECONDS = 0.5, 4.0  # of measuring, for each row
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
QUICK_MODELS = ("mnist_cnn", "squeezenet")  # of "approximate" and other libraries, when quick
QUICK_CASES = (Case("mnist_cnn", 28, 4, 1), *(Case(model, 64, 16, 8) for model in LARGE))


def run_bench(
    *,
    quick: bool = False,
    models: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    dtype: str = "float32",
    tell: Callable[[str], Any] = print,
) -> Report:
    """Measure this machine.

    Args:
        quick: images of 64 pixels instead of 224, shorter probes, and "approximate" and other
            libraries on two networks only: under two minutes.
        models: which ones; None: all five.
        methods: some of "loop", "dense", "incremental", "approximate", and of the other libraries
            "captum", "xplique", "tf-explain", "seed's loop"; None: all that are installed.
        dtype: of the forward pass; other libraries run in float32 only.
        tell: called with a sentence before each row.

    Returns:
        {"machine", "versions", "dtype", "quick", "matmul", "rows"}; a row is one network on one
        grid by one method, None where something is not told. "matmul" is the operations per second
        of a large matrix product, the measure of the device's speed.

    Raises:
        ValueError: a model or a method is unknown, or not installed.
        RuntimeError: another library failed.
    """
    others = peers.installed() if dtype == "float32" else ()
    wanted = _known("models", models, sorted({case.model for case in CASES}))
    chosen = _known("methods", methods, [*METHODS, *others])
    cases = [case for case in (QUICK_CASES if quick else CASES) if case.model in wanted]
    speed = matmul_speed(dtype)
    seconds = QUICK_SECONDS if quick else SECONDS
    rows = []
    for case in cases:
        costly = not quick or case.model in QUICK_MODELS
        ours = [m for m in METHODS if m in chosen and (costly or m != "approximate")]
        rows += _measure(case, ours, dtype, seconds, speed, tell)
    if quick:
        cases = [case for case in cases if case.model in QUICK_MODELS]
    for library in ("torch", "tensorflow"):
        names = [n for n in others if n in chosen and library in peers.PEERS[n][0]]
        if names and cases:
            rows += _measure_peers(names, cases, seconds, speed, tell)
    order = [case.model for case in CASES]
    return {
        "machine": machine(),
        "versions": versions(),
        "dtype": dtype,
        "quick": quick,
        "matmul": speed,
        "rows": sorted(rows, key=lambda row: (order.index(row["model"]), -row["stride"])),
    }


def _known(name: str, asked: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    asked = list(known if asked is None else asked)
    if set(asked) - set(known):
        raise ValueError(f"`{name}` must be some of {', '.join(known)}: got {', '.join(asked)}.")
    return asked


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


def _cell(value: Any) -> str:
    if value is None:
        return "not told"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def plot(report: Report, file: Any) -> None:
    """Draw windows/s against the operations of a whole window, on logarithmic axes."""
    from matplotlib.figure import Figure

    rows = report["rows"]
    dense = {(r["model"], r["stride"]): r["Gflop/window"] for r in rows if r["method"] == "dense"}
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for method, marker in zip((*METHODS, *peers.PEERS), "xosD^v<>", strict=True):
        found = [r for r in rows if r["method"] == method and (r["model"], r["stride"]) in dense]
        if found:
            cost = [dense[row["model"], row["stride"]] for row in found]
            speed = [row["windows/s"] for row in found]
            face = "none" if method == "approximate" else None  # it may hide others
            axes.plot(cost, speed, marker, label=method, alpha=0.8, markerfacecolor=face)
    costs = sorted({model: cost for (model, _), cost in dense.items()}.items(), key=lambda m: m[1])
    for place, (model, cost) in enumerate(costs):
        axes.axvline(cost, color="0.9", zorder=0)
        at = (cost, 1.01 + 0.04 * (place % 2))  # names of neighbours at two heights
        axes.annotate(model, at, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    span = np.array([min(dense.values()) / 2, max(dense.values()) * 2])
    peak = report["matmul"] / 1e9 / span
    axes.plot(span, peak, "--", color="0.6", label="whole windows at\nmatrix product's speed")
    axes.set(xscale="log", yscale="log", xlim=span, ylabel="windows per second")
    axes.set_xlabel("cost of one window by the whole network, Gflop")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=90)


def _measure(
    case: Case,
    methods: Sequence[str],
    dtype: str,
    seconds: float,
    speed: float,
    tell: Callable[[str], Any],
) -> Iterator[Row]:
    """Yield the row of each of our methods."""
    f, image = _network(case)
    loop = _Loop(f, image, case, dtype)
    for method in methods:
        tell(f"{case.model} at {case.side}, patch {case.patch}, stride {case.stride}: {method} …")
        power, off = Power(), 0.0
        with PeakMemory() as peak:
            begin = time.perf_counter()
            run = _run(f, image, case, dtype, "dense" if method in ("loop", "dense") else "auto")
            if method == "loop":
                compiling, batch, evaluator = loop.compile(), 1, Dense()
                each = loop.seconds(seconds)
            else:
                settled = _settle(run, method)
                compiling = time.perf_counter() - begin
                batch, evaluator = settled.batch, settled.program.evaluator
                off = _deviation(run, settled, loop, method)
                each = seconds_per_image(run, settled, seconds) / run.grid.size
        cost = run.operations(evaluator) / run.grid.size
        found = {"batch": batch, "compile s": compiling, "peak": peak.bytes, "max deviation": off}
        found |= {"method": method, "watts": power.watts(), "seconds": each}
        yield _row(case, run.grid.size, cost, found, speed)


def _run(f: Scorer, image: np.ndarray, case: Case, dtype: str, method: Any) -> Run:
    source = check_source(open_source(image[None]))
    where = {"patch": case.patch, "stride": case.stride, "fill": FILL}
    return make_run(f, source, **where, dtype=dtype, method=method, batch_size="fastest")


def _settle(run: Run, method: str) -> Settled:
    """Compile, and take the fastest batch, which a long run tries."""
    if method == "approximate":
        evaluators, _ = approximate_evaluators("incremental", run.grid, run.task, TOLERANCE, "auto")
        program = choose(replace(run.task, evaluators=evaluators), "auto")
        return Settled(program, prod(program.block), 1)
    return replace(run, method=method).settle(None)


def _measure_peers(
    names: Sequence[str],
    cases: Sequence[Case],
    seconds: float,
    speed: float,
    tell: Callable[[str], Any],
) -> Iterator[Row]:
    """Yield the rows of other libraries: one per network, on its first grid."""
    first = {case.model: case for case in reversed(cases)}
    sides = [(case.model, case.side) for case in reversed(first.values())]
    tell(f"{', '.join(model for model, _ in sides)}: {', '.join(names)} …")
    for found in peers.measure_in_process(names, sides, seconds):
        case = first[found["model"]]
        run = _run(*_network(case), case, "float32", "dense")
        cost = run.operations(Dense()) / run.task.rows
        yield _row(case, run.grid.size, cost, found, speed)


def _row(case: Case, windows: int, cost: float, found: Row, speed: float) -> Row:
    each, watts = found["seconds"], found["watts"]
    return {
        **case._asdict(),
        "windows": windows,
        "method": found["method"],
        "batch": found["batch"],
        "windows/s": 1 / each,
        "images/s": 1 / (each * windows),
        "compile s": found["compile s"],
        "peak MiB": found["peak"] / 2**20,
        "J/window": None if watts is None else watts * each,
        "Gflop/window": cost / 1e9,
        "share of matmul speed": cost / each / speed,
        "max deviation": found["max deviation"],
    }


def _network(case: Case) -> tuple[Scorer, np.ndarray]:
    """A network and a random image for it."""
    channels = 1 if case.model == "mnist_cnn" else 3
    f = networks.make_network(getattr(networks, case.model), case.side, channels=channels)
    return f, np.random.default_rng(0).random((case.side, case.side, channels), np.float32)


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


def _deviation(run: Run, settled: Settled, loop: _Loop, method: str) -> float:
    """Return max |program − loop| / max |loop| over some positions spread over the grid."""
    task = run.task.replicated()
    picked = np.linspace(0, run.grid.size - 1, CHECKED).round().astype(int)
    task = replace(task, positions=task.positions[picked])
    images = np.repeat(task.images, settled.program.scores.shape[0], 0)
    chunks = iter([Chunk(0, images, [""] * len(images))])
    ((_, values),) = score(task, settled.program, chunks, Waits())
    expected = np.stack([loop.score(start) for start in task.positions])
    off = np.abs(values[0, 1:] - expected).max() / np.abs(expected).max()
    exact = 1e-3 if loop.dtype == jnp.float32 else 0.2
    if not off < (exact if method != "approximate" else exact + TOLERANCE):
        raise ArithmeticError(
            f"the {method} scores of {loop.name} are off by {off:.2g}; nothing is timed."
        )
    return float(off)
