"""The demo: what networks look at, on real handwritten digits and, if asked for, photographs.

Everything is computed from the data asked for: nothing is taken from a cache or a file of results.
"""

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import numpy as np

from jaxviz import plot
from jaxviz.cli.inputs import bundled_model, load_model
from jaxviz.cli.output import output_folder, say, stage, table, write_json
from jaxviz.cli.photographs import begin_photographs, draw_photographs, print_photographs
from jaxviz.datasets import load_digits, load_mnist
from jaxviz.keras import logits
from jaxviz.layers import activations
from jaxviz.maximization.maximize import maximize
from jaxviz.maximization.objectives import unit
from jaxviz.occlusion.occlude import Occlusion, occlude
from jaxviz.scale.identity import versions

OCCLUSION: dict[str, Any] = {"patch": 7, "stride": 1, "margin": 3, "fill": 0.0}
LAYERS = ("conv2d", "conv2d_1")
# What a trial finds on two quiet cores.
RUN: dict[str, Any] = {"method": "incremental", "batch_size": 64}
COMPILED = "/jax/core/compile/backend_compile_duration"  # an event of jax.monitoring
BATCH = 500
STEPS = 256  # of class images; twice as many show the same


def demo(args: argparse.Namespace) -> None:
    """Write occlusion.png, classes.png, activations.png and summary.json; print a short table."""
    start = time.perf_counter()
    seconds: dict[str, float] = {}
    with output_folder(args.out) as folder, ThreadPoolExecutor(1) as pool:
        begun = begin_photographs(pool, args.seed) if args.photos else None
        model = load_model("bundled")
        images, labels = read_digits(args.data)
        with stage(f"classifying {len(images)} digits"):
            accuracy = float(np.mean(predict(model, images).argmax(-1) == labels))
        count = len(images)
        first = np.unique(labels, return_index=True)[1]
        images, labels = images[first], labels[first]
        occ = draw_occlusion(folder, model, images, labels, seconds)
        perceived = draw_classes(folder, model, args.seed, seconds)
        draw_activations(folder, model, images[len(images) // 2], seconds)
        photographs = None if begun is None else draw_photographs(folder, begun, seconds)
        summary = summarise(args, model, occ, labels, perceived)
        seconds["total"] = time.perf_counter() - start
        summary |= {"images": count, "accuracy": accuracy}
        summary |= {} if photographs is None else {"photographs": photographs}
        summary |= {"seconds": {k: round(v, 3) for k, v in seconds.items()}}
        write_json(folder / "summary.json", summary)
    if photographs is not None:
        print_photographs(args.out, photographs, seconds["photographs"])
    print_summary(args.out, summary)


def read_digits(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the digits that --data names, none of which the bundled network was trained on."""
    with stage(f"reading {data}"):
        if data == "digits" and not Path(data).exists():
            return load_digits("test")
        return load_mnist(None if data == "mnist" and not Path(data).exists() else data, "test")


def predict(model: Any, images: np.ndarray) -> np.ndarray:
    """Return probabilities (N, 10), in batches of one shape so that one program serves all."""
    padded = np.pad(images, ((0, -len(images) % BATCH), (0, 0), (0, 0), (0, 0)))
    score = jax.jit(lambda model, batch: model(batch))
    batches = padded.reshape(-1, BATCH, *images.shape[1:])
    return np.concatenate([np.asarray(score(model, b)) for b in batches])[: len(images)]


def draw_occlusion(
    folder: Path, model: Any, images: np.ndarray, labels: np.ndarray, seconds: dict[str, float]
) -> Occlusion:
    """Write occlusion.png: image, drop of the true class and class map of each digit."""
    with stage(f"occluding {len(images)} digits", "positions") as told:
        occ = timed(
            "occlusion", seconds, lambda: occlude(model, images, **OCCLUSION, **RUN, progress=told)
        )
    figure = plot.occlusion(
        images,
        occ.heatmap(target=labels),
        occ.class_map(),
        true=labels,
        predicted=np.asarray(occ.base).argmax(-1),
        signed=True,
        outline=True,
        label="drop in the probability of the true class",
        title="What the network needs to see",
        columns=5,
    )
    figure.savefig(folder / "occlusion.png")
    return occ


def draw_classes(folder: Path, model: Any, seed: int, seconds: dict[str, float]) -> list[float]:
    """Write classes.png; return the probability that each image has for its class."""
    scorer, key = logits(model), jax.random.key(seed)
    objectives = [unit(digit) for digit in range(10)]

    def run() -> Any:
        found = maximize(scorer, objectives, key=key, steps=STEPS, progress=told)
        return np.asarray(found.images)

    with stage("maximising ten classes", "steps") as told:
        images = timed("class images", seconds, run)
    probabilities = np.diagonal(predict(model, images)).tolist()
    titles = [f"{digit}   (p = {p:.3f})" for digit, p in enumerate(probabilities)]
    title = "Network's perception of 0…9"
    plot.gallery(images, titles=titles, title=title).savefig(folder / "classes.png")
    return probabilities


def draw_activations(
    folder: Path, model: Any, image: np.ndarray, seconds: dict[str, float]
) -> None:
    """Write activations.png: what the filters of the first layers see in one digit."""
    run = timed("activations", seconds, lambda: activations(model, image[None], LAYERS))
    figure = plot.activations(run, image=image, title="What each filter sees")
    figure.savefig(folder / "activations.png")


def timed(name: str, seconds: dict[str, float], run: Callable[[], Any]) -> Any:
    """Run, and tell apart what XLA took to compile and the rest."""
    compiling, thread = [], threading.get_ident()  # photographs compile in another one

    def note(event: str, took: float, **_: Any) -> None:
        if event == COMPILED and threading.get_ident() == thread:
            compiling.append(took)

    jax.monitoring.register_event_duration_secs_listener(note)
    start = time.perf_counter()
    try:
        result = jax.block_until_ready(run())
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    seconds[f"{name}, compile"] = sum(compiling)
    seconds[f"{name}, run"] = max(time.perf_counter() - start - sum(compiling), 0.0)
    return result


def summarise(
    args: argparse.Namespace,
    model: Any,
    occ: Occlusion,
    labels: np.ndarray,
    perceived: list[float],
) -> dict[str, Any]:
    """Return what summary.json holds, but for the accuracy and the times."""
    digits = []
    class_counts: Any = occ.class_counts()
    for label, base, counts in zip(labels, occ.base, class_counts, strict=True):
        digits.append(
            {
                "true": int(label),
                "predicted": int(base.argmax()),
                "probability of the true digit": round(float(base[label]), 4),
                "class counts": {str(c): n for c, n in counts.items()},
            }
        )
    return {
        "data": args.data,
        "model": bundled_model().name,
        "occlusion": OCCLUSION | {"positions": int(np.prod(occ.grid.shape))},
        "digits": digits,
        "class images": {str(i): round(p, 4) for i, p in enumerate(perceived)},
        "versions": versions("flax"),
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
    }


def print_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Print the demo's table."""
    positions = summary["occlusion"]["positions"]
    rows = []
    for digit in summary["digits"]:
        counts = digit["class counts"]
        kept = counts.get(str(digit["predicted"]), 0)
        others = sorted(
            (c for c in counts if c != str(digit["predicted"])), key=lambda c: -counts[c]
        )
        rows.append(
            [
                digit["true"],
                digit["predicted"],
                digit["probability of the true digit"],
                f"{100 * (1 - kept / sum(counts.values())):.1f} %",
                ", ".join(others) or "-",
                summary["class images"][str(digit["true"])],
            ]
        )
    columns = ["digit", "predicted", "p(digit)", "covering changes it", "to", "class image's p"]
    what = {"digits": "the UCI digits", "mnist": "MNIST"}.get(summary["data"], summary["data"])
    table(f"The bundled network on {what}", columns, rows)
    seconds = summary["seconds"]
    right, images = f"{100 * summary['accuracy']:.2f} %", f"{summary['images']:,} digits"
    occluded = f"{positions} positions a digit, all ten in {seconds['occlusion, run']:.2f} s"
    say(f"accuracy {right} of {images}; {occluded}; {seconds['total']:.1f} s in all")
    say(f"wrote occlusion.png, classes.png, activations.png, summary.json to {folder}")
