"""The rows of `jaxviz bench`: a network on a grid by one method, measured and checked.

Every row of ours is measured by a probe: blocks of positions of one image, as in a run over many.
It is checked first: scores at some positions must be those that the network gives for images made
by hand, one at a time. That loop, the obvious one, is measured too.
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
from jaxviz.bench.meters import PeakMemory, Power
from jaxviz.occlusion.tolerance import approximate_evaluators
from jaxviz.perturbation.patches import Patches
from jaxviz.scale.estimate import seconds_per_image
from jaxviz.scale.pipeline import Chunk, Waits, score
from jaxviz.scale.run import Run, Settled, make_run
from jaxviz.scale.sources import check_source, open_source
from jaxviz.scoring.compiled import choose
from jaxviz.scoring.evaluators import Dense
from jaxviz.scoring.scorer import Scorer, split

TOLERANCE = 0.05  # of approximate, as `occlude` defines it
FILL = 0.5
CHECKED = 4  # positions that are compared with the loop
Row = dict[str, Any]


class Case(NamedTuple):
    """A network on a grid."""

    model: str
    side: int
    patch: int
    stride: int


def measure(
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
    patches = Patches(case.patch, case.stride, fill=FILL)
    return make_run(f, source, patches, dtype=dtype, method=method, batch_size="fastest")


def _settle(run: Run, method: str) -> Settled:
    """Compile, and take the fastest batch, which a long run tries."""
    if method == "approximate":
        evaluators, _ = approximate_evaluators("incremental", run.grid, run.task, TOLERANCE, "auto")
        program = choose(replace(run.task, evaluators=evaluators), "auto")
        return Settled(program, prod(program.block), 1)
    return replace(run, method=method).settle(None)


def measure_peers(
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


def _row(case: Case, positions: int, cost: float, found: Row, speed: float) -> Row:
    each, watts = found["seconds"], found["watts"]
    return {
        **case._asdict(),
        "positions": positions,
        "method": found["method"],
        "batch": found["batch"],
        "positions/s": 1 / each,
        "images/s": 1 / (each * positions),
        "compile s": found["compile s"],
        "peak MiB": found["peak"] / 2**20,
        "J/position": None if watts is None else watts * each,
        "Gflop/position": cost / 1e9,
        "share of matmul speed": cost / each / speed,
        "max deviation": found["max deviation"],
    }


def _network(case: Case) -> tuple[Scorer, np.ndarray]:
    """Return a network and a random image for it."""
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
        """Return the seconds of a position, on the average of those that the budget allows."""
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
