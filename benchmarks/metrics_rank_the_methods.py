"""Every attribution method by several metrics: which maps say more than a map of nothing?

The bundled MNIST network with 1,000 digits of MNIST's test set (for methods by sampling a quarter
of them), and EfficientNet-Lite0 with the photographs that scikit-image and scikit-learn ship and
those of the test data. The scorer is the logit of the predicted class. Each method's maps of the
same images meet: the symmetric relevance gain with three fills (0, which is black to one network
and grey to the other; blur; neighbours), insertion into a blurred image, μFidelity, and randomised
weights (MPRT, of fewer images). A random map and an edge detector, which know nothing of the
network, are the floor. Means over images ± standard errors; "beyond the floors" counts the fills
with which the 95 % intervals of the paired differences in gain to both floors lie above 0. Times
are seconds of CPU, all cores together, without compiling. What each method was told is in the
table.

Each finished row is kept at once, and with --save a run that was stopped goes on behind them.

    python -m benchmarks.metrics_rank_the_methods [--quick] [--save] [--digits N]
        [--page docs/which_method.md]

With --digits there are fewer digits, and less to wait for (1,000 take some twenty minutes on two
cores).
With --page nothing is measured: the tables of the page are made of what was kept.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxviz as jv
from benchmarks import common
from benchmarks.render import kept_rows, load_results, markdown_table, replace_between
from jaxviz import attribution, metrics
from jaxviz.images.preprocessing import preprocess
from jaxviz.metrics.statistics import spearman

NAME = "metrics_rank_the_methods"
FLOORS = ("random", "edges")
SAMPLED = ("rise", "kernel_shap", "lime", "shapley_sampling", "sobol", "hsic", "score_cam")
SAMPLED += ("ablation_cam",)
# Whose sign says little: max |v|.
MAGNITUDES = ("saliency", "smooth", "guided", "deconvnet", "guided_grad_cam")
# Beside those of `jaxviz.datasets`, what scikit-image ships.
SHIPPED = ("astronaut.png", "camera.png", "coins.png", "motorcycle_left.png", "rocket.jpg")
SHIPPED += ("moon.png", "hubble_deep_field.jpg", "brick.png", "grass.png", "gravel.png")


class Case(NamedTuple):
    """A network, its images, and what fits their size.

    Attributes:
        name: for the table.
        f: the scorer.
        images: (N, H, W, C).
        by: parts that are removed.
        steps: of a curve.
        sigma: of the blur.
        grid: cells of μFidelity.
        masks: of μFidelity.
        batch: images at once.
        few: images of MPRT.
        layers: of MPRT; None: all.
        told: {method: options}.
        sampled: images for methods by sampling.
    """

    name: str
    f: Any
    images: np.ndarray
    by: Any
    steps: int
    sigma: float
    grid: int
    masks: int
    batch: int
    few: int
    layers: list[str] | None
    told: dict[str, dict[str, Any]]
    sampled: int

    def images_of(self, method: str) -> np.ndarray:
        """Return the images that a method is judged by."""
        return self.images[: self.sampled] if method in SAMPLED else self.images


class Kept:
    """What a run that was stopped left: its rows, and what each image gave.

    Attributes:
        rows: of the table.
    """

    def __init__(self, save: bool) -> None:
        """Read it, if results are to be saved."""
        self.file = common.RESULTS / f"{NAME}.partial.npz" if save else None
        partial_rows = common.RESULTS / f"{NAME}.partial.json"
        there = self.file is not None and self.file.exists() and partial_rows.exists()
        self.rows = json.loads(partial_rows.read_text())["rows"] if there else []
        told = {f"{row['network']}/{row['method']}" for row in self.rows}
        self.values: dict[str, np.ndarray] = {}
        if there and self.file is not None:
            with np.load(self.file) as archive:
                self.values = {key: archive[key] for key in archive.files if key in told}

    def has(self, case: Case, name: str) -> bool:
        """Say whether a method is done."""
        return f"{case.name}/{name}" in self.values

    def keep(self, case: Case, name: str, values: np.ndarray) -> None:
        """Keep what each image gave, (metrics, N)."""
        self.values[f"{case.name}/{name}"] = values
        if self.file is not None:
            np.savez(self.file, **self.values)  # pyright: ignore

    def of(self, case: Case) -> dict[str, np.ndarray]:
        """Return {method: (metrics, N)} of a network."""
        split = {tuple(key.split("/")): values for key, values in self.values.items()}
        return {name: values for (network, name), values in split.items() if network == case.name}

    def forget(self) -> None:
        """Remove it, as the run is at its end."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def digits(count: int) -> Case:
    """The MNIST network, by pixels."""
    images, _ = jv.datasets.load_mnist(common.data_folder() / "mnist.npz")
    cells = {"segments": 7}
    told: dict[str, dict[str, Any]] = {
        "occlusion": {"patch": 4, "stride": 2, "margin": 2, "fill": 0.0},
        "smooth": {"samples": 16},
        "integrated_gradients": {"points": 16},
        "rise": {"samples": 512},
        "kernel_shap": {**cells, "samples": 256},
        "lime": {**cells, "samples": 256},
        "shapley_sampling": {**cells, "samples": 5},
        "sobol": {"cells": 7, "samples": 4},
        "hsic": {"cells": 7, "samples": 256},
    }
    f = jv.logits(jv.models.mnist_cnn())
    few, sampled = min(32, count // 8), count // 4
    return Case("MNIST CNN", f, images[:count], None, 7, 3.0, 7, 20, 16, few, None, told, sampled)


def photographs() -> Case:
    """EfficientNet-Lite0, by cells of 14×14 pixels."""
    model = jv.models.efficientnet_lite0()
    shipped = Path(str(resources.files("skimage"))) / "data"
    files = [shipped / name for name in SHIPPED]
    files += sorted((common.data_folder() / "photos").iterdir())
    pictures = [*map(jv.datasets.load_photograph, jv.datasets.PHOTOGRAPHS), *files]
    images = np.stack([preprocess(picture, model, fit="crop") for picture in pictures])
    cells = {"segments": 7}
    told: dict[str, dict[str, Any]] = {
        "occlusion": {"patch": 56, "stride": 28, "margin": 28, "fill": 0.0},
        "smooth": {"samples": 8},
        "integrated_gradients": {"points": 8},
        "rise": {"samples": 128},
        "kernel_shap": {**cells, "samples": 128},
        "lime": {**cells, "samples": 128},
        "shapley_sampling": {**cells, "samples": 2},
        "sobol": {"cells": 7, "samples": 2},
        "hsic": {"cells": 7, "samples": 128},
        "score_cam": {"channels": 32},
    }
    layers = ["classifier", "block10.depthwise", "stem"]
    count = len(images)
    return Case("EfficientNet-Lite0", model, images, 14, 7, 11.0, 7, 30, 8, 4, layers, told, count)


def methods(case: Case) -> dict[str, Callable[[Any, np.ndarray, np.ndarray], np.ndarray]]:
    """Return {name: (f, images, classes) -> maps}, the floors first."""
    names = [n for n in attribution.__all__ if n not in ("presets", "rules", "MapReading")]
    floor = {name: partial(_floor, name) for name in FLOORS}
    return floor | {name: partial(_maps, case, name) for name in ("occlusion", *names)}


def _floor(name: str, f: Any, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    return metrics.floors(images)[name]


def _maps(case: Case, name: str, f: Any, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    options = {"batch_size": case.batch, **case.told.get(name, {})}
    if name == "occlusion":
        return jv.occlude(f, images, **options).heatmap(target)
    found = getattr(attribution, name)(f, images, target=target, **options)
    return found.heatmap("max_abs") if name in MAGNITUDES else found.heatmap()


def judges(case: Case) -> dict[str, Callable[..., Any]]:
    """Return the metrics by the columns of the table."""
    blur, batch = jv.fills.blur(case.sigma), {"batch_size": case.batch}
    fills = {"0": 0.0, "blur": blur, "neighbours": metrics.neighbours(iterations=10)}
    gain = partial(metrics.srg, by=case.by, steps=case.steps, **batch)
    found: dict[str, Callable[..., Any]] = {
        f"SRG, {name}": partial(gain, fill=fill) for name, fill in fills.items()
    }
    found["insertion"] = partial(
        metrics.insertion, by=case.by, steps=case.steps, fill=blur, **batch
    )
    found["μFidelity"] = partial(
        metrics.mu_fidelity, grid=case.grid, samples=case.masks, fill=0.0, **batch
    )
    return found


def measure(case: Case, only: list[str] | None, kept: Kept) -> Iterator[dict]:
    """Yield the row of each method that is not kept yet."""
    parts = [case.images[at : at + case.batch] for at in range(0, len(case.images), case.batch)]
    classes = np.concatenate([np.asarray(case.f(part)) for part in parts]).argmax(-1)
    for name, method in methods(case).items():
        if (only is None or name in only) and not kept.has(case, name):
            yield _row(case, name, method, classes[: len(case.images_of(name))], kept)


def _row(case: Case, name: str, method: Callable, classes: np.ndarray, kept: Kept) -> dict:
    images = case.images_of(name)
    row = {"network": case.name, "method": name, "images": len(images)}
    try:
        seconds, maps = _timed(case, method, images, classes)
        table = metrics.compare(case.f, images, {name: maps}, metrics=judges(case), target=classes)
    except (ValueError, TypeError, MemoryError) as error:
        kept.keep(case, name, np.full((5, len(images)), np.nan))
        return row | {"told": f"refused: {error}"}
    kept.keep(case, name, table.values[0])
    told = {c: _cell(v) for c, v in zip(table.metrics, table.values[0], strict=True)}
    return {
        **row,
        **told,
        "beyond the floors": "" if name in FLOORS else _beyond(kept.of(case), name),
        "MPRT": _randomised(case, name, method, classes),
        "CPU s an image": seconds,
        "told": _told(case, name),
    }


def _timed(
    case: Case, method: Callable, images: np.ndarray, classes: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return seconds of CPU per image, and maps: the first batch compiles, the rest is timed."""
    at = min(case.batch, len(images) // 2)
    first = method(case.f, images[:at], classes[:at])
    start = time.process_time()
    rest = method(case.f, images[at:], classes[at:])
    seconds = (time.process_time() - start) / len(rest)
    return seconds, np.concatenate([first, rest])


def _randomised(case: Case, name: str, method: Callable, classes: np.ndarray) -> str:
    few = slice(case.few)
    try:
        found = metrics.randomization(
            lambda f, images: method(f, images, classes[few]),
            case.f, case.images[few], layers=case.layers,
        )  # fmt: skip
    except (ValueError, TypeError) as error:  # such as a map that is not finite any more
        return f"undefined: {str(error)[:60]}"
    known = found.value[~np.isnan(found.value)]
    return _cell(known) + (f" (n = {len(known)})" if len(known) < case.few else "")


def _cell(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return "undefined"
    return f"{known.mean():.3g} ± {known.std(ddof=1) / np.sqrt(len(known)):.1g}"


def _beyond(kept: dict[str, np.ndarray], name: str) -> str:
    """In how many of the three gains a method is told apart from, and above, both floors."""
    rows, count = (name, *FLOORS), kept[name].shape[-1]
    values = np.stack([kept[n][:, :count] for n in rows])
    table = metrics.Comparison(values, rows, ("0", "blur", "near", *"ab"))
    found = [
        all(table.difference(name, floor, fill).low > 0 for floor in FLOORS)
        for fill in table.metrics[:3]
    ]
    return f"{sum(found)} of 3"


def _told(case: Case, name: str) -> str:
    options = ", ".join(f"{key} {value}" for key, value in case.told.get(name, {}).items())
    reading = "max over channels of |v|" if name in MAGNITUDES else ""
    return "; ".join(part for part in (options, reading) if part)


def _agree(case: Case, kept: dict[str, np.ndarray]) -> str:
    """How alike the metrics order the methods: Spearman's ρ of their means, floors left out."""
    known = [v for name, v in kept.items() if name not in FLOORS and not np.isnan(v).all(-1).any()]
    known = [np.nanmean(v, -1) for v in known]
    if len(known) < 3:
        return f"{case.name}: fewer than three methods, no order of them to compare."
    means = np.stack(known, -1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    gains = [float(spearman(means[a], means[b])) for a, b in pairs]
    others = {n: float(spearman(means[1], means[i])) for n, i in
              (("insertion", 3), ("μFidelity", 4))}  # fmt: skip
    told = ", ".join(f"{value:.2f} with {name}" for name, value in others.items())
    return (
        f"{case.name}: gains with two fills order {len(known)} methods at ρ {min(gains):.2f} to"
        f" {max(gains):.2f}; that with blur {told}."
    )


def page(path: Path) -> None:
    """Rewrite the tables of a page of the documentation."""
    rows, blocks = kept_rows(NAME), []
    result = next(r for r in load_results() if r["name"] == NAME)
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        plain = [{k: v for k, v in row.items() if k != "network"} for row in own]
        blocks.append(f"### {network}\n\n{markdown_table(plain)}")
    machine = result["machine"]
    notes = [*result["notes"], f"{result['date']}, {machine['cpu']}, {machine['cores']} cores."]
    blocks.append("\n".join(f"- {note}" for note in notes))
    path.write_text(replace_between(path.read_text(), "\n\n".join(blocks)))


def main(argv: list[str] | None = None) -> None:
    """Measure, or write the page."""
    argv = sys.argv[1:] if argv is None else argv
    if "--page" in argv:
        page(Path(argv[argv.index("--page") + 1]))
        return
    count = 1000
    if "--digits" in argv:
        at = argv.index("--digits")
        count = int(argv[at + 1])
        argv = [*argv[:at], *argv[at + 2 :]]
    settings = common.options(__doc__, argv)
    if settings.quick:
        few = digits(24)._replace(few=4, sampled=24)
        cases = [(few, [*FLOORS, "occlusion", "saliency", "grad_cam", "lrp"])]
    else:
        cases = [(digits(count), None), (photographs(), None)]
    kept = Kept(settings.save)
    new = (row for case, only in cases for row in measure(case, only, kept))
    done = common.collect(NAME, (row for rows in (kept.rows, new) for row in rows), settings)
    good = sum(row.get("beyond the floors") == "3 of 3" for row in done)
    judged = sum(bool(row.get("beyond the floors")) for row in done)
    common.finish(
        NAME,
        "Attribution methods against a random map and an edge detector.",
        f"{good} of {judged} rows lie above both floors by the gain with every fill",
        done,
        notes=[n for case, _ in cases for n in (_agree(case, kept.of(case)), _how(case))],
        packages=("flax", "scipy"),
        settings=settings,
    )
    kept.forget()


def _how(case: Case) -> str:
    parts = "pixels" if case.by is None else f"cells of {case.by}×{case.by} pixels"
    layers = "all layers" if case.layers is None else f"the layers {', '.join(case.layers)}"
    return (
        f"{case.name}: curves by {parts}, {case.steps} steps; blur of σ = {case.sigma:g} pixels;"
        f" μFidelity with {case.masks} masks of {case.grid}×{case.grid} cells, fill 0; MPRT:"
        f" Spearman's ρ, cascading, mean over {layers}, of {case.few} images."
    )


if __name__ == "__main__":
    main()
