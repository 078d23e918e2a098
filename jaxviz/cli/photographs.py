"""The demo's second half: photographs, and what the package says of a colour network on them."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from jaxviz import attribution, plot
from jaxviz.attribution.result import Attribution
from jaxviz.cli.output import say, stage, table
from jaxviz.datasets import load_photograph
from jaxviz.images.preprocessing import preprocess
from jaxviz.maximization.maximize import maximize
from jaxviz.maximization.objectives import unit
from jaxviz.maximization.regularize import penalty, total_variation
from jaxviz.models import efficientnet_lite0
from jaxviz.occlusion.occlude import Occlusion, occlude

# How each is brought to 224×224: the cat fills its photograph from side to side.
PHOTOGRAPHS: dict[str, Any] = {"cat": "stretch", "coffee": "crop", "flower": "crop"}
# A patch of middle grey, which is 0 to the network; the first ones hang over the border by half.
OCCLUSION: dict[str, Any] = {"patch": 56, "stride": 24, "margin": 28, "fill": 0.0}
# Smaller and smoother than the defaults, for the time it takes.
CLASS_IMAGE: dict[str, Any] = {
    "image_shape": (128, 128, 3),
    "steps": 64,
    "regularizers": (penalty(total_variation, 60),),
}
FAINTEST, BRIGHTEST = 1, 99  # percentiles of a class image that are drawn black and white
POINTS = 8  # of integrated gradients, on the way from grey


class Begun(NamedTuple):
    """What is computed beside the digits.

    Attributes:
        explained: the model, the images that it gets, and where Grad-CAM says that it looks.
        imagined: an image of each predicted class.
        followed: gradients on the way from grey.
    """

    explained: "Future[tuple[Any, np.ndarray, Attribution]]"
    imagined: "Future[np.ndarray]"
    followed: "Future[Attribution]"


def begin_photographs(pool: ThreadPoolExecutor, seed: int) -> Begun:
    """Begin with what takes longest; half of it is compilation, which takes one core."""
    explained = pool.submit(_explain)

    def imagine() -> np.ndarray:
        model, _, cam = explained.result()
        return _class_images(model, _predicted(cam), seed)

    def follow() -> Attribution:
        model, images, cam = explained.result()
        return attribution.integrated_gradients(
            model, images, target=_predicted(cam), points=POINTS
        )

    return Begun(explained, pool.submit(imagine), pool.submit(follow))


def _explain() -> tuple[Any, np.ndarray, Attribution]:
    model = efficientnet_lite0()
    images = np.stack(
        [preprocess(load_photograph(name), model, fit=fit) for name, fit in PHOTOGRAPHS.items()]
    )
    return model, images, attribution.grad_cam(model, images, layer="head")


def _predicted(result: Attribution) -> np.ndarray:
    return np.asarray(result.base).argmax(-1)


def draw_photographs(folder: Path, begun: Begun, seconds: dict[str, float]) -> dict[str, Any]:
    """Write photographs.png; return what summary.json says of it."""
    start = time.perf_counter()
    with stage("following gradients in photographs"):
        model, images, cam = begun.explained.result()
    predicted = _predicted(cam)
    with stage(f"occluding {len(images)} photographs", "positions") as told:
        occ = occlude(
            Partial(_probabilities, model), images, **OCCLUSION, method="dense", progress=told
        )
    with stage(f"maximising {len(predicted)} classes"):
        class_images = begun.imagined.result()
    with stage("following gradients from grey"):
        path = begun.followed.result()
    columns = {
        "occlusion": occ.heatmap(reduce="bilinear"),
        "Grad-CAM": cam.heatmap(),
        "integrated gradients": path.heatmap(),
        "class image, stretched": _stretched(class_images),
    }
    names, sure = model.class_names, np.asarray(occ.base).max(-1)
    figure = plot.compare(
        model.preprocessing.undo(images),
        columns,
        class_maps=occ.class_map(),
        predicted=predicted,
        class_names=names,
        robust=99.5,
        titles=[f"{names[c]}, {p:.0%}" for c, p in zip(predicted, sure, strict=True)],
        title="What a network looks at, and what it imagines",
    )
    figure.savefig(folder / "photographs.png")
    seconds["photographs"] = time.perf_counter() - start
    return _summary(occ, predicted, names)


def _probabilities(model: Any, images: jax.Array) -> jax.Array:
    return jax.nn.softmax(model(images))


def _class_images(model: Any, classes: np.ndarray, seed: int) -> np.ndarray:
    """Return an image that each class responds to, (N, 128, 128, 3) in [0, 1]."""
    preprocessing = model.preprocessing
    mean, std = preprocessing.mean[0], preprocessing.std[0]
    found = maximize(
        model,
        [unit(int(c)) for c in classes],
        key=jax.random.key(seed),
        preprocess=lambda images: (images * preprocessing.scale - mean) / std,
        **CLASS_IMAGE,
    )
    return np.asarray(found.images)


def _stretched(images: np.ndarray) -> np.ndarray:
    """Stretch the contrast of each image, all channels alike: few steps leave them pale."""
    low, high = np.percentile(images, (FAINTEST, BRIGHTEST), axis=(1, 2, 3), keepdims=True)
    return ((images - low) / np.maximum(high - low, 1e-6)).clip(0, 1)


def _summary(occ: Occlusion, predicted: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what summary.json holds of the photographs, and print it as a table."""
    rows = []
    counts: Any = occ.class_counts()
    for name, base, c, found in zip(PHOTOGRAPHS, occ.base, predicted, counts, strict=True):
        others = sorted((k for k in found if k != c), key=lambda k: -found[k])
        changed = 1 - found.get(int(c), 0) / sum(found.values())
        rows.append(
            {
                "photograph": name,
                "class": names[c],
                "probability": round(float(base[c]), 4),
                "covering changes it": round(changed, 4),
                "to": [names[k] for k in others[:3]],
            }
        )
    return {
        "model": "EfficientNet-Lite0",
        "occlusion": OCCLUSION | {"positions": int(np.prod(occ.grid.shape))},
        "photographs": rows,
    }


def print_photographs(folder: Path, summary: dict[str, Any], seconds: float) -> None:
    """Print what the photographs gave."""
    columns = ["photograph", "class", "p(class)", "covering changes it", "to"]
    rows = [
        [
            row["photograph"],
            row["class"],
            row["probability"],
            f"{100 * row['covering changes it']:.1f} %",
            ", ".join(row["to"]) or "-",
        ]
        for row in summary["photographs"]
    ]
    table(f"{summary['model']} on photographs", columns, rows)
    positions = summary["occlusion"]["positions"]
    say(f"{positions} positions a photograph; {seconds:.1f} s more for the photographs")
    say(f"wrote photographs.png to {folder}")
