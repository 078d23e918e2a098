"""What `dtype="bfloat16"` changes in scores and heatmaps.

The same images and positions in float32 and in bfloat16: the bundled MNIST CNN on digits (patch 4,
stride 2, fill 0.5), and SqueezeNet 1.0 with its ImageNet weights on photographs (patch 32, stride
16, fill: the image's mean). Scores are probabilities. Deviations of scores are absolute; those of
a heatmap (the clean float32 class, drop, mean) are relative to the largest |value| of the float32
heatmap, the mean over pixels; rank correlation is Spearman's over the pixels of a heatmap, the mean
and the smallest over images. Needs JAXVIZ_DATA for SqueezeNet and the photographs.

    python -m benchmarks.bfloat16_deviation [--quick] [--save]
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import common
from jaxviz import Occlusion, datasets, fills, occlude
from jaxviz.keras import load_keras

NAME = "bfloat16_deviation"
SMALL = {"patch": 4, "stride": 2, "fill": 0.5}
MEAN_BGR = np.array([104, 117, 123], np.float32)


def photographs(folder: Path, count: int) -> np.ndarray:
    """Read photographs as SqueezeNet wants them: 227×227, BGR, minus the mean."""
    files = sorted(folder.glob("*.jpg"))[:count]
    images = [Image.open(file).convert("RGB").resize((227, 227)) for file in files]
    return np.stack([np.asarray(image, np.float32)[..., ::-1] - MEAN_BGR for image in images])


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(a.ravel()), ranks(b.ravel()))[0, 1])


def deviation(name: str, exact: Occlusion, coarse: Occlusion) -> common.Row:
    """Compare two runs."""
    scores = np.abs(exact.scores - coarse.scores)
    classes = np.argmax(exact.base, -1)
    maps, others = exact.heatmap(classes), coarse.heatmap(classes)
    scale = np.abs(maps).max((1, 2), keepdims=True)
    off = np.abs(maps - others) / scale
    correlations = [rank_correlation(a, b) for a, b in zip(maps, others, strict=True)]
    same = np.argmax(exact.scores, -1) == np.argmax(coarse.scores, -1)
    return {
        "network": name,
        "images": len(classes),
        "positions": prod(exact.grid.shape) * len(classes),
        "score, max": float(scores.max()),
        "score, mean": float(scores.mean()),
        "heatmap, max": float(off.max()),
        "heatmap, mean": float(off.mean()),
        "rank correlation": float(np.mean(correlations)),
        "smallest": float(np.min(correlations)),
        "same class": float(same.mean()),
    }


def measure(name: str, model: Any, images: np.ndarray, options: dict[str, Any]) -> common.Row:
    """Run both and compare; times are of one run each, compiled."""
    occs, seconds = {}, {}
    for dtype in (None, "bfloat16"):
        occlude(model, images[:1], dtype=dtype, method="dense", batch_size=16, **options)
        seconds[dtype], occs[dtype] = common.once(
            lambda dtype=dtype: occlude(
                model, images, dtype=dtype, method="dense", batch_size=16, **options
            )
        )
    row = deviation(name, occs[None], occs["bfloat16"])
    return {**row, "speed, times float32's": seconds[None] / seconds["bfloat16"]}


def main() -> None:
    """Measure both networks."""
    settings = common.options(__doc__)
    data = common.data_folder()
    digits, _ = datasets.load_digits("test")
    digits = digits[: 10 if settings.quick else 100]
    photos = photographs(data / "photos", 1 if settings.quick else 6)
    step = 32 if settings.quick else 16
    squeezenet = load_keras(data / "imagenet" / "squeezenet_v1.0_derived.keras")
    mean = fills.image_mean()
    cases: tuple[tuple[str, Any, np.ndarray, dict[str, Any]], ...] = (
        ("MNIST CNN", load_keras(common.mnist_model()), digits, SMALL),
        ("SqueezeNet 1.0", squeezenet, photos, {"patch": 32, "stride": step, "fill": mean}),
    )
    rows = common.collect(NAME, (measure(*case) for case in cases), settings)
    said = "; ".join(
        f"{row['network']}: heatmap off by {row['heatmap, mean']:.1%} of its largest value in the"
        f" mean, {row['heatmap, max']:.1%} at most, rank correlation {row['rank correlation']:.4f}"
        for row in rows
    )
    common.finish(
        NAME,
        'What dtype="bfloat16" changes in scores and heatmaps.',
        said,
        rows,
        notes=[
            "Scores are probabilities; heatmaps are accumulated in float64 either way.",
            "Same class: the share of positions whose predicted class is the same.",
            "Flat heatmaps (digits whose score hardly drops anywhere) make the largest relative"
            " deviations and the smallest rank correlations.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
