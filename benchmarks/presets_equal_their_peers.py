"""Each preset of `jaxviz.presets` makes the map that the named library makes, to 1e-5.

One small network with a softmax, its weights drawn once and carried over to PyTorch and to Keras
(TensorFlow backend); one random image per case, square and not, with windows and strides that
divide its sides and that do not; the target is the class with the largest score. The libraries
run as installed; the seed's loop, which was published as code and not as a library, is restated
here. The difference is max |ours − theirs| / (max theirs − min theirs), so that what a map has in
common everywhere does not count. A case beyond 1e-5 ends the run with an error.

    python -m benchmarks.presets_equal_their_peers [--quick] [--save]
"""

import contextlib
import io
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common, networks
from jaxviz import occlude, presets

NAME = "presets_equal_their_peers"
WITHIN = 1e-5


class Setting(NamedTuple):
    """The network in every library, an image, and the case that is run on it."""

    image: np.ndarray
    network: networks.Network
    model: Any  # in torch or in Keras
    target: int


class Case(NamedTuple):
    """One call of a peer, and the preset that should equal it.

    Attributes:
      peer: whose convention.
      shape: (height, width, channel) of the image.
      call: the peer's arguments, for the table.
      preset: ours.
      theirs: (setting) -> map (height, width).
      library: "torch" or "keras".
      scale: the image's values lie in [0, scale].
    """

    peer: str
    shape: tuple[int, int, int]
    call: str
    preset: presets.Preset
    theirs: Callable[[Setting], np.ndarray]
    library: str
    scale: float = 1.0


def seed_loop(image: np.ndarray, predict: Callable, size: int, target: int) -> np.ndarray:
    """Run the tutorial's loop: a square of 5·size set to 0.5 around each cell, image by image."""
    height, width, _ = image.shape
    heatmap, pad = np.zeros((height, width)), 2 * size
    for row in range(0, height, size):
        for col in range(0, width, size):
            padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
            padded[row : row + 5 * size, col : col + 5 * size] = 0.5
            scores = predict(padded[pad:-pad, pad:-pad][None])
            heatmap[row : row + size, col : col + size] = scores[0, target]
    return heatmap


def seed_cases() -> Iterator[Case]:
    """The published loop runs only where the size divides the image's sides."""
    for shape, size in (((28, 28, 1), 2), ((28, 28, 1), 4), ((28, 28, 1), 7), ((24, 36, 3), 6)):

        def theirs(setting: Setting, size: int = size) -> np.ndarray:
            return seed_loop(setting.image, setting.model.predict_on_batch, size, setting.target)

        yield Case("the seed's loop", shape, f"size={size}", presets.seed(size), theirs, "keras")


def captum_cases() -> Iterator[Case]:
    """Overlapping windows, last ones cut off, scalar, per-channel and image baselines."""
    square, wide = (32, 32, 3), (30, 23, 3)
    other = np.random.default_rng(7).random(wide, np.float32)
    channels = np.array([0.1, 0.5, 0.9], np.float32)
    for shape, window, stride, name, baseline in (
        (square, (8, 8), (4, 4), "0", 0.0),
        (square, (7, 5), (3, 4), "0.5", 0.5),
        (square, (4, 4), (1, 1), "0", 0.0),
        (wide, (8, 6), (8, 6), "0", 0.0),
        (wide, (9, 7), (4, 5), "per channel", channels),
        (wide, (9, 7), (4, 5), "an image", other),
    ):

        def theirs(setting: Setting, window=window, stride=stride, baseline=baseline) -> np.ndarray:
            import torch
            from captum.attr import Occlusion

            values = np.broadcast_to(np.asarray(baseline, np.float32), setting.image.shape)
            attributed = Occlusion(setting.model).attribute(
                _to_torch(setting.image),
                sliding_window_shapes=(3, *window),
                strides=(3, *stride),
                baselines=_to_torch(values),
                target=setting.target,
                perturbations_per_eval=16,
            )
            assert isinstance(attributed, torch.Tensor)
            return attributed[0, 0].numpy()

        call = f"window={window}, stride={stride}, baseline={name}"
        preset = presets.captum(window, stride, baseline=baseline)
        yield Case("captum", shape, call, preset, theirs, "torch")


def xplique_cases() -> Iterator[Case]:
    """Whole patches only; overlaps are summed; gaps and the uncovered rest are 0."""
    for shape, patch, stride, value in (
        ((32, 32, 3), 3, 3, 0.0),
        ((32, 32, 3), (8, 5), (3, 4), 0.5),
        ((30, 23, 3), (7, 6), (4, 9), 0.0),
    ):

        def theirs(setting: Setting, patch=patch, stride=stride, value=value) -> np.ndarray:
            from xplique.attributions import Occlusion

            peer = Occlusion(
                setting.model, patch_size=patch, patch_stride=stride, occlusion_value=value
            )
            target = np.eye(10, dtype=np.float32)[[setting.target]]
            return np.asarray(peer.explain(setting.image[None], target))[0, ..., 0]

        call = f"patch={patch}, stride={stride}, value={value}"
        preset = presets.xplique(patch, stride, value=value)
        yield Case("xplique", shape, call, preset, theirs, "keras")


def pair_cases() -> Iterator[Case]:
    """Every whole window, summed."""
    for shape, size, value in (((32, 32, 3), 15, 0), ((30, 23, 3), 6, 1)):

        def theirs(setting: Setting, size=size, value=value) -> np.ndarray:
            from saliency.core import OUTPUT_LAYER_VALUES, Occlusion

            def call(batch, call_model_args=None, expected_keys=None):
                scores = setting.model(_to_torch(batch[0].astype(np.float32)))
                return {OUTPUT_LAYER_VALUES: scores[:, setting.target].numpy()}

            image = setting.image.astype(np.float64)
            return Occlusion().GetMask(image, call, size=size, value=value)[..., 0]

        preset = presets.pair(size, value=value)
        yield Case("PAIR saliency", shape, f"size={size}, value={value}", preset, theirs, "torch")


def tf_explain_cases() -> Iterator[Case]:
    """Square images only: on others the library takes rows for columns."""
    for side, size in ((32, 8), (30, 7)):

        def theirs(setting: Setting, size=size) -> np.ndarray:
            from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

            with contextlib.redirect_stdout(io.StringIO()):  # it asks Keras for a progress bar
                peer = OcclusionSensitivity(batch_size=16)
                return peer.get_sensitivity_map(setting.model, setting.image, setting.target, size)

        preset = presets.tf_explain(size)
        call = f"patch_size={size}"
        yield Case("tf-explain", (side, side, 3), call, preset, theirs, "keras", 255.0)


def monai_cases() -> Iterator[Case]:
    """All four ways to fill; the last window is moved inside; overlap from none to its default."""
    square, wide = (32, 32, 3), (30, 23, 3)
    calls: list[tuple[tuple[int, int, int], tuple[int, int], float, Any]] = [
        (square, (16, 16), 0.6, "gaussian"),
        (wide, (9, 8), 0.5, "gaussian"),
        (square, (7, 10), 0.25, 0.5),
        (wide, (9, 8), 0.6, "mean_patch"),
        (wide, (8, 8), 0.0, "mean_img"),
        (wide, (30, 8), 0.4, "gaussian"),
    ]
    for shape, window, overlap, mode in calls:

        def theirs(setting: Setting, window=window, overlap=overlap, mode=mode) -> np.ndarray:
            from monai.visualize import OcclusionSensitivity

            peer = OcclusionSensitivity(
                setting.model,
                mask_size=window,
                overlap=overlap,
                mode=mode,
                activate=False,
                verbose=False,
            )
            scores, _ = peer(_to_torch(setting.image))
            return np.asarray(scores)[0, setting.target]

        call = f"mask_size={window}, overlap={overlap}, mode={mode}"
        preset = presets.monai(window, image_shape=shape[:2], overlap=overlap, mode=mode)
        yield Case("MONAI", shape, call, preset, theirs, "torch")


def _to_torch(image: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])


def compare(case: Case, index: int) -> dict[str, Any]:
    """Run one case both ways."""
    image = np.random.default_rng(index).random(case.shape, np.float32) * np.float32(case.scale)
    first, *others = networks.make_network(case.shape, ((8,), (16,)), (10,), seed=index)
    assert isinstance(first, networks.Conv)
    network = (first._replace(kernel=first.kernel / np.float32(case.scale)), *others)
    scorer = networks.in_jax(network, softmax=True)
    ours = occlude(scorer, image, **case.preset.occlude)
    target = int(np.argmax(ours.base))
    build = networks.in_torch if case.library == "torch" else networks.in_keras
    shape = () if case.library == "torch" else (case.shape,)
    model = build(network, *shape, softmax=True)
    theirs = case.theirs(Setting(image, network, model, target))
    spread = float(np.ptp(theirs))
    heatmap = ours.heatmap(target, **case.preset.heatmap)
    what = f"{case.peer} {case.shape} {case.call}"
    largest = common.check_equal(heatmap, theirs, within=WITHIN, what=what, scale=spread)
    row = {"peer": case.peer, "image": "×".join(map(str, case.shape)), "call": case.call}
    return {**row, "min": float(theirs.min()), "max": float(theirs.max()), "difference": largest}


def main() -> None:
    """Run every case."""
    settings = common.options(__doc__)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="monai|torch")
    makers = (seed_cases, captum_cases, xplique_cases, pair_cases, tf_explain_cases, monai_cases)
    cases = [list(make()) for make in makers]
    picked = [case for group in cases for case in (group[:1] if settings.quick else group)]
    compared = (compare(case, index) for index, case in enumerate(picked))
    rows = common.collect(NAME, compared, settings)
    worst = max(row["difference"] for row in rows)
    common.finish(
        NAME,
        "Each preset makes the map of the library that it names.",
        f"{len(rows)} cases of {len(cases)} peers agree; the largest difference is {worst:.1g}"
        " of the map's range",
        rows,
        notes=[
            "tf-explain confuses rows and columns on images that are not square; only square ones"
            " are compared.",
            'MONAI 1.6 with mode="mean_patch" multiplies a window by its mean, where its'
            " documentation says that the mean replaces it; the preset does what MONAI does.",
            "The seed's loop fails where the size does not divide the image; ours clips there.",
        ],
        packages=["captum", "xplique", "saliency", "tf-explain", "monai", "torch", "tensorflow"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
