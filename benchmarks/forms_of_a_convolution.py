"""What each form of a convolution gives on this machine, and whether the model chooses well.

The distinct convolutions of four networks at 224×224, in batches of eight, float32, random numbers:
each form that could be chosen (XLA as it stands, with its result kept higher, a product of shifted
views, taps, Winograd's tiles), prepared kernels given, results equal first. Rates are those of the
sums as they stand, in GFLOP/s, the least of a few runs taken in turn. `chosen` is what
`jaxviz.jaxpr.convolution` takes; `lost` how many times longer that takes than the best of those
that are exact. The headline weighs by how often a network has each.

`--one-core` counts the processor's seconds on one core instead of wall clock: what to go by while
other work runs on the machine.

    python -m benchmarks.forms_of_a_convolution [--quick] [--save] [--one-core]
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from jaxviz.bench import networks
from jaxviz.jaxpr.convolution.forms import Form, candidates, choose
from jaxviz.jaxpr.convolution.shapes import Sizes
from jaxviz.jaxpr.walk import trace

NAME = "forms_of_a_convolution"
SIDE, BATCH, REPEATS = 224, 8, 4
NETWORKS = ("vgg16", "resnet50", "squeezenet", "mobilenet_v2")
ALLOWED = 1e-4  # so that tiles of four are measured too


class Layer(NamedTuple):
    """A convolution of a network: its parameters, and the shapes of image and kernel."""

    params: dict[str, Any]
    image: tuple[int, ...]
    kernel: tuple[int, ...]


def layers_of(name: str) -> Iterator[tuple[Layer, int]]:
    """Yield the distinct convolutions of a network of `jaxviz.bench`, and how often it has each."""
    f = networks.make_network(getattr(networks, name), SIDE)
    _, flat, _, _ = trace(f, jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), jnp.float32))
    found, counts = {}, Counter[str]()
    for equation in flat.equations:
        if equation.primitive.name == "conv_general_dilated":
            image, kernel = (flat.aval(operand).shape for operand in equation.operands)
            layer = Layer(equation.params, image, kernel)
            found[repr(layer)] = layer
            counts[repr(layer)] += 1
    yield from ((found[key], count) for key, count in counts.items())


def timed(runs: dict[str, Callable[[], Any]], clock: Callable[[], float]) -> dict[str, float]:
    """Return the least seconds of each of some calls, taken in turn."""
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for name, run in runs.items():
            begin = clock()
            run()
            least[name] = min(least[name], clock() - begin)
    return least


def measured(layer: Layer, clock: Callable[[], float]) -> tuple[dict[str, float], Sizes, str]:
    """Return the seconds of each form of a convolution, its sizes, and the form that is chosen."""
    rng = np.random.default_rng(0)
    draw = (rng.standard_normal(shape, np.float32) for shape in (layer.image, layer.kernel))
    x, kernel = map(jnp.asarray, draw)
    sizes = Sizes.of(layer.params, x, kernel)
    runs, wanted = {}, None
    for form in candidates(layer.params, x, kernel, ALLOWED):
        runs[form.name] = run = of_form(form, x, kernel)
        y = np.asarray(run())
        wanted = y if wanted is None else wanted
        common.check_equal(y, wanted, within=ALLOWED, what=form.name)
    chosen = choose(layer.params, x, kernel)
    return timed(runs, clock), sizes, "as it stands" if chosen is None else chosen.name


def of_form(form: Form, x: jax.Array, kernel: jax.Array) -> Callable[[], Any]:
    """Return a compiled convolution by one form, its kernel prepared."""
    ready, apply = jax.jit(form.prepare)(kernel), jax.jit(form.apply)
    return lambda: jax.block_until_ready(apply(x, ready))


def rows_of(name: str, clock: Callable[[], float], quick: bool) -> Iterator[common.Row]:
    """Yield a row for each distinct convolution of a network."""
    for number, (layer, count) in enumerate(layers_of(name)):
        if quick and number % 4:
            continue
        seconds, sizes, chosen = measured(layer, clock)
        exact = {form: s for form, s in seconds.items() if "of 4" not in form}
        strides = layer.params["window_strides"]
        yield {
            "network": name,
            "times": count,
            "image": "×".join(map(str, layer.image[1:])),
            "kernel": "×".join(map(str, layer.kernel)) + (f"/{max(strides)}" * (max(strides) > 1)),
            **{form: sizes.operations * BATCH / s / 1e9 for form, s in seconds.items()},
            "chosen": chosen,
            "lost": seconds[chosen] / min(exact.values()),
            "ms": seconds[chosen] / BATCH * 1e3,
        }


def one_core() -> Callable[[], float]:
    """Keep to one core; return the clock that counts the seconds on it."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("`--one-core` needs an operating system that can keep a process to one core.")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return time.process_time


def main() -> None:
    """Measure network by network."""
    alone = "--one-core" in sys.argv
    only = [arg for arg in sys.argv[1:] if arg in NETWORKS]
    settings = common.options(__doc__, [a for a in sys.argv[1:] if a not in ("--one-core", *only)])
    clock = one_core() if alone else time.perf_counter
    rows = common.collect(
        NAME,
        (row for name in only or NETWORKS for row in rows_of(name, clock, settings.quick)),
        settings,
    )
    lost = {}
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [(row["times"] * row["ms"], row["lost"]) for row in rows if row["network"] == name]
        lost[name] = sum(ms for ms, _ in mine) / sum(ms / factor for ms, factor in mine)
    common.finish(
        NAME,
        "Forms of a convolution on a CPU, and which of them is chosen.",
        "the chosen forms take "
        + ", ".join(f"{factor:.2f} ({name})" for name, factor in lost.items())
        + " times what the fastest exact form of each convolution takes",
        rows,
        notes=[
            f"GFLOP/s, batches of {BATCH}, the least of {REPEATS} runs in turn; "
            + ("the processor's seconds on one core." if alone else "wall clock, all cores."),
            "ms: of the chosen form, for one image. Tiles of 4 serve where an error is allowed.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
