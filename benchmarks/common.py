"""What the benchmarks share: options, timing, the machine, a table, and a result file.

A benchmark is a script named as its claim, run from the repository's root:

    python -m benchmarks.<name> [--quick] [--save]

Times are seconds of wall clock, compilation left out unless a column says so. A result is JSON: the
claim, one headline, rows of columns, notes, the machine and the versions; `render` makes Markdown
of it. Each row is told, and with --save written, as soon as it is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.render import cell, markdown_table
from jaxviz._files import whole
from jaxviz.bench.meters import machine
from jaxviz.scale.identity import versions

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


class Timing(NamedTuple):
    """Seconds of several runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """(slowest − fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def options(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options that every benchmark has: `quick` and `save`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under half a minute")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    return parser.parse_args(argv)


def once(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a call takes, and what it gives; it must block until it is done."""
    start = time.perf_counter()
    value = run()
    return time.perf_counter() - start, value


def interleave(
    runs: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = False
) -> dict[str, Timing]:
    """Time several calls in turn, so that a busy machine is busy for all of them alike; `warm`:
    each once more before it is timed, for calls of milliseconds, which the one before disturbs."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if warm:
                run()
            seconds[name].append(once(run)[0])
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """Return how many times longer `slow` takes: the median over runs that were taken in turn."""
    return float(np.median(np.divide(slow.seconds, fast.seconds)))


def in_process(script: str, *arguments: str, **environment: str) -> Any:
    """Run a benchmark's worker in a process of its own; return the JSON of its last line."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    room = {**os.environ, **environment}
    done = subprocess.run(command, env=room, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def helper_of_tests(name: str) -> ModuleType:
    """Import a module of tests/helpers from its file: some packages install a `tests` of theirs."""
    path = Path(__file__).parent.parent / "tests" / "helpers" / f"{name}.py"
    spec = spec_from_file_location(f"tests_helpers_{name}", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_folder() -> Path:
    """Return the folder of test data, or end with a sentence that says what is missing."""
    if "JAXVIZ_DATA" not in os.environ:
        sys.exit("this benchmark needs test data: set JAXVIZ_DATA to their folder.")
    return Path(os.environ["JAXVIZ_DATA"])


def mnist_model() -> Path:
    """Return the file of the bundled MNIST model."""
    return Path(str(resources.files("jaxviz.models") / "mnist_cnn.keras"))


def check_equal(
    ours: np.ndarray, theirs: np.ndarray, *, within: float, what: str, scale: float | None = None
) -> float:
    """End the benchmark unless two results are equal; return max |ours − theirs| / scale.

    The scale is max |theirs| unless given.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        sys.exit(f"{what}: shapes differ: {ours.shape} and {theirs.shape}.")
    difference = float(np.max(np.abs(ours - theirs)) / (scale or np.max(np.abs(theirs))))
    if not difference <= within:
        sys.exit(f"{what}: results differ by {difference:.2g}, more than {within:g}.")
    return difference


def collect(name: str, rows: Iterable[Row], settings: argparse.Namespace) -> list[Row]:
    """Return the rows, each printed and, if asked to, kept as soon as it is measured."""
    done: list[Row] = []
    for row in rows:
        done.append(row)
        print(", ".join(f"{key} {cell(value)}" for key, value in row.items()), flush=True)
        keep(name, done, settings)
    return done


def keep(name: str, rows: Sequence[Row], settings: argparse.Namespace) -> None:
    """Keep the rows so far if asked to, in benchmarks/results/<name>.partial.json.

    That is what a run that is stopped leaves; what was kept before it is as it was.
    """
    if settings.save:
        partial = {"name": name, "partial": True, "quick": settings.quick, "rows": list(rows)}
        _write(_partial(name), partial)


def logged(log: Path) -> list[Row]:
    """Return what the log of a run over many images tells after each chunk, the last one last."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "chunk"]


def finish(
    name: str,
    claim: str,
    headline: str,
    rows: Sequence[Row],
    *,
    notes: Sequence[str] = (),
    packages: Sequence[str] = (),
    settings: argparse.Namespace,
) -> None:
    """Print the table and, if asked to, keep the result."""
    print(f"\n{claim}\n{headline}\n\n{markdown_table(rows)}\n")
    print("\n".join(notes))
    if not settings.save:
        return
    now = datetime.now(UTC).date().isoformat()
    result = {
        "name": name,
        "claim": claim,
        "headline": headline,
        "date": now,
        "quick": settings.quick,
        "machine": machine(),
        "versions": versions(*packages),
        "rows": list(rows),
        "notes": list(notes),
    }
    path = RESULTS / f"{name}-{now}.json"
    _write(path, result)
    _partial(name).unlink(missing_ok=True)
    print(f"kept in benchmarks/results/{path.name}")


def _partial(name: str) -> Path:
    return RESULTS / f"{name}.partial.json"


def _write(path: Path, result: Row) -> None:
    path.parent.mkdir(exist_ok=True)
    with whole(path) as part:
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        part.write_text(text, encoding="utf-8")
