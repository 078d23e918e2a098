"""EfficientNet-Lite0 here against efficientnet-lite-pytorch, on the same images.

The same weights, read here by the reader of `jaxviz.models.torch_file` and there by torch, the
same images in the network's units, one at a time; the difference is relative to the largest logit.
Photographs of the folder of test data, those that come with packages, and noise. Needs torch,
efficientnet-lite-pytorch and the extra `photos`.

    python -m benchmarks.efficientnet_equals_torch [--quick] [--save]
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import common
from jaxviz import datasets, images, models
from jaxviz.models.efficientnet import WEIGHTS, _installed
from jaxviz.models.torch_file import read_torch

NAME = "efficientnet_equals_torch"
LIMIT = 1e-5


def cases(model: Any, quick: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and images in the network's units."""
    for name in datasets.PHOTOGRAPHS:
        yield name, images.preprocess(datasets.load_photograph(name), model)
    if not quick:
        files = sorted((common.data_folder() / "photos").iterdir())
        for file in files:
            yield file.name, images.preprocess(file, model)
    noise = np.random.default_rng(0).uniform(-1, 1, model.input_shape).astype(np.float32)
    yield "noise", noise


def rows(quick: bool) -> Iterator[common.Row]:
    """Compare, image by image."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    weights = str(_installed(*WEIGHTS))
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    loaded = torch.load(weights, weights_only=True)
    theirs.load_state_dict(loaded)
    tensors = read_torch(weights)
    same = all(np.array_equal(tensors[name], loaded[name].numpy()) for name in loaded)
    if not same or set(tensors) != set(loaded):
        raise SystemExit("the reader and torch read different tensors.")
    model = models.efficientnet_lite0()
    score = jax.jit(lambda model, batch: model(batch))
    for name, image in cases(model, quick):
        ours = np.asarray(score(model, image[None]))
        with torch.no_grad():
            channels_first = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
            reference = theirs(channels_first).numpy()
        off = common.check_equal(ours, reference, within=LIMIT, what=name)
        chance = np.exp(ours[0] - ours[0].max())
        best = int(ours[0].argmax())
        yield {
            "image": name,
            "largest difference": off,
            "same class": "yes" if best == reference[0].argmax() else "no",
            "class": model.class_names[best],
            "probability": float(chance[best] / chance.sum()),
        }


def main() -> None:
    """Compare all images."""
    settings = common.options(__doc__)
    found = common.collect(NAME, rows(settings.quick), settings)
    most = max(row["largest difference"] for row in found)
    common.finish(
        NAME,
        "EfficientNet-Lite0 computes what its torch implementation computes.",
        f"Off by at most {most:.1g} of the largest logit on {len(found)} images, every class the"
        " same; all tensors of the file are read as torch reads them, bit for bit.",
        found,
        notes=[
            "Batch normalisation is folded into the convolutions here, and computed by itself"
            " there: equal in real arithmetic."
        ],
        packages=("torch", "efficientnet-lite-pytorch", "flax"),
        settings=settings,
    )


if __name__ == "__main__":
    main()
