"""`jaxviz bench`: how fast this machine occludes, by network, grid and method, in one table.

Ours are measured by `jaxviz.bench.rows`; other libraries, where they are installed, by
`jaxviz.bench.peers`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np

from jaxviz._choices import BenchDtype, BenchModel, OwnMethod, Peer
from jaxviz.bench import peers
from jaxviz.bench.meters import machine, matmul_speed
from jaxviz.bench.rows import Case, Row, measure, measure_peers
from jaxviz.bench.summary import cell, missing
from jaxviz.scale.identity import versions

METHODS: tuple[str, ...] = get_args(OwnMethod)
MODELS: tuple[str, ...] = get_args(BenchModel)
LARGE = MODELS[1:]
CASES = (
    Case("mnist_cnn", 28, 4, 1),
    *(Case(model, 224, 16, stride) for model in LARGE for stride in (8, 4)),
)
QUICK_MODELS = ("mnist_cnn", "squeezenet")  # of "approximate" and other libraries, when quick
QUICK_CASES = (Case("mnist_cnn", 28, 4, 1), *(Case(model, 64, 16, 8) for model in LARGE))
QUICK_SECONDS, SECONDS = 0.5, 4.0  # of measuring, for each row
Report = dict[str, Any]


def run_bench(
    *,
    quick: bool = False,
    models: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    dtype: BenchDtype = "float32",
    tell: Callable[[str], object] = print,
    keep: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Measure this machine.

    Args:
        quick: images of 64 pixels instead of 224, shorter probes, and "approximate" and other
            libraries on two networks only: under two minutes.
        models: which ones; None: all five.
        methods: some of "loop", "dense", "incremental", "approximate", and of the other libraries
            "captum", "xplique", "tf-explain", "seed's loop"; None: all that are installed.
        dtype: of the forward pass; other libraries run in float32 only.
        tell: called with a sentence before each row, and one after it.
        keep: called with the report so far after each row, so that a run that is stopped loses
            nothing; such a report has "partial", which is True.

    Returns:
        {"machine", "versions", "dtype", "quick", "matmul", "missing", "rows"}; a row is one network
        on one grid by one method, None where something is not told. "matmul" is the operations per
        second of a large matrix product, the measure of the device's speed; "missing" tells which
        rows there are not, and why.

    Raises:
        ValueError: a model or a method is unknown, or not installed.
        RuntimeError: another library failed.
    """
    others = peers.installed() if dtype == "float32" else ()
    wanted = _known("models", models, sorted(MODELS))
    chosen = _known("methods", methods, [*METHODS, *others])
    report: Report = {
        "machine": machine(),
        "versions": versions(),
        "dtype": dtype,
        "quick": quick,
        "matmul": matmul_speed(dtype),
        "missing": missing(methods, dtype, [m for m in wanted if quick and m not in QUICK_MODELS]),
        "rows": [],
    }
    for row in _rows(wanted, chosen, report, tell):
        tell(f"… {row['method']}: {cell(row['positions/s'])} positions/s")
        rows = [*report["rows"], row]
        report["rows"] = sorted(rows, key=lambda r: (MODELS.index(r["model"]), -r["stride"]))
        keep(report | {"partial": True})
    return report


def _rows(
    wanted: Sequence[str], chosen: Sequence[str], report: Report, tell: Callable[[str], object]
) -> Iterator[Row]:
    """Yield every row as it is measured: ours by network, then those of other libraries."""
    quick, dtype, speed = report["quick"], report["dtype"], report["matmul"]
    cases = [case for case in (QUICK_CASES if quick else CASES) if case.model in wanted]
    seconds = QUICK_SECONDS if quick else SECONDS
    for case in cases:
        costly = not quick or case.model in QUICK_MODELS
        ours = [m for m in METHODS if m in chosen and (costly or m != "approximate")]
        yield from measure(case, ours, dtype, seconds, speed, tell)
    if quick:
        cases = [case for case in cases if case.model in QUICK_MODELS]
    for library in ("torch", "tensorflow"):
        names = [n for n in get_args(Peer) if n in chosen and library in peers.PEERS[n][0]]
        if names and cases:
            yield from measure_peers(names, cases, seconds, speed, tell)


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
        lines.append("| " + " | ".join(cell(row[column]) for column in columns) + " |")
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    used = ", ".join(f"{key} {value}" for key, value in report["versions"].items())
    part = "Partial: the run was stopped. " if report.get("partial") else ""
    speed = f"{report['dtype']}; a matrix product runs at {report['matmul'] / 1e9:,.0f} Gflop/s."
    return "\n".join([*lines, "", f"{part}{speed} {facts}. {used}."])


def plot(report: Report, file: Any) -> None:
    """Draw positions/s against the operations of a whole image, on logarithmic axes."""
    from matplotlib.figure import Figure

    rows = report["rows"]
    whole = [row for row in rows if row["method"] in ("loop", "dense")]
    if not whole:
        raise ValueError("`report` must hold rows of loop or dense, which tell a network's cost.")
    dense = {(row["model"], row["stride"]): row["Gflop/position"] for row in whole}
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for method, marker in zip((*METHODS, *peers.PEERS), "xosD^v<>", strict=True):
        found = [r for r in rows if r["method"] == method and (r["model"], r["stride"]) in dense]
        if found:
            cost = [dense[row["model"], row["stride"]] for row in found]
            speed = [row["positions/s"] for row in found]
            face = "none" if method == "approximate" else None  # it may hide others
            axes.plot(cost, speed, marker, label=method, alpha=0.8, markerfacecolor=face)
    costs = sorted({model: cost for (model, _), cost in dense.items()}.items(), key=lambda m: m[1])
    for place, (model, cost) in enumerate(costs):
        axes.axvline(cost, color="0.9", zorder=0)
        at = (cost, 1.01 + 0.04 * (place % 2))  # names of neighbours at two heights
        axes.annotate(model, at, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    span = np.array([min(dense.values()) / 2, max(dense.values()) * 2])
    peak = report["matmul"] / 1e9 / span
    axes.plot(span, peak, "--", color="0.6", label="whole images at\nmatrix product's speed")
    axes.set(xscale="log", yscale="log", xlim=span, ylabel="positions per second")
    axes.set_xlabel("cost of one position by the whole network, Gflop")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=90)
