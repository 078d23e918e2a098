"""Other libraries on the networks of `jaxviz bench`, where they are installed.

Those on PyTorch and those on TensorFlow run in a process each, so that no threads are shared:

    python -m jaxviz.bench.peers '["captum"]' '[["vgg16", 224]]' 5.0

prints one line of JSON per library and network. The weights are the same in every library, and its
map is compared with ours before it counts. What a library computes for a position depends neither
on the patch nor on the stride; so tiles of an eighth of the image are timed, 64 positions, as a
sample that any of them can run.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from math import ceil
from typing import Any

import numpy as np

from jaxviz.bench import networks
from jaxviz.bench.meters import PeakMemory, Power
from jaxviz.bench.networks import Network
from jaxviz.bench.ported import keras_network, torch_network
from jaxviz.occlusion import presets
from jaxviz.occlusion.occlude import occlude

# Which packages a library needs, and the batches that are tried.
PEERS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "captum": (("captum", "torch"), (8, 16, 32)),
    "xplique": (("xplique", "keras", "tensorflow"), (8, 16, 32)),
    "tf-explain": (("tf_explain", "keras", "tensorflow"), (8, 16, 32)),
    "seed's loop": (("keras", "tensorflow"), (1,)),
}
FILL, TARGET, TILES, WITHIN = 0.5, 3, 8, 1e-3
Run = Callable[[int], np.ndarray]  # batch -> map (H, W)
Found = dict[str, Any]


def installed() -> tuple[str, ...]:
    """Return the names of the libraries that can be measured here."""
    return tuple(
        name for name, (needs, _) in PEERS.items() if all(find_spec(need) for need in needs)
    )


def measure_in_process(
    names: Sequence[str], cases: Sequence[tuple[str, int]], seconds: float
) -> Iterator[Found]:
    """Yield what some libraries took for each network and side of its images.

    Raises:
        RuntimeError: a library failed, or its map is another one than ours.
    """
    what = [json.dumps(list(names)), json.dumps(list(cases)), str(seconds)]
    command = [sys.executable, "-m", "jaxviz.bench.peers", *what]
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            env={**os.environ, **quiet},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if child.wait():
            errors.seek(0)
            told = errors.read().strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"{', '.join(names)} could not be measured: {told[-1]}")


def measure(name: str, model: str, side: int, seconds: float) -> Found:
    """Time a library on one network; the best of its batch sizes counts."""
    network: Network = getattr(networks, model)
    channels = 1 if model == "mnist_cnn" else 3
    weights = networks.draw_weights(network, side, channels=channels)
    image = np.random.default_rng(0).random((side, side, channels), np.float32)
    tile = ceil(side / TILES)
    make, preset = _MAKERS[name]
    run = make(network, weights, image, tile)
    power, best = Power(), None
    with PeakMemory() as peak:
        for batch in PEERS[name][1]:
            begin = time.perf_counter()
            run(batch)
            first, times = time.perf_counter() - begin, []
            while not times or sum(times) < seconds / len(PEERS[name][1]):
                begin = time.perf_counter()
                run(batch)
                times.append(time.perf_counter() - begin)
            if best is None or np.median(times) < best[0]:
                best = (float(np.median(times)), batch, first)
    assert best is not None
    watts = power.watts()
    positions = ceil(side / tile) ** 2
    return {
        "model": model,
        "method": name,
        "batch": best[1],
        "positions timed": positions,
        "seconds": best[0] / positions,
        "compile s": max(0.0, best[2] - best[0]),
        "peak": peak.bytes,
        "watts": watts,
        "max deviation": _deviation(name, run(best[1]), network, side, image, preset(tile)),
    }


def _deviation(
    name: str,
    theirs: np.ndarray,
    network: Network,
    side: int,
    image: np.ndarray,
    preset: presets.Preset,
) -> float:
    """Return max |ours − theirs| / max |clean score| over the map."""
    f = networks.make_network(network, side, channels=image.shape[-1])
    with warnings.catch_warnings():  # tf-explain fills with 127.5, whatever the images are
        warnings.simplefilter("ignore", UserWarning)
        occ = occlude(f, image, **preset.occlude)
    ours = occ.heatmap(TARGET, **preset.heatmap)
    off = float(np.abs(ours - theirs).max() / np.abs(occ.base).max())
    if not off < WITHIN:
        raise ArithmeticError(f"the map of {name} is off ours by {off:.2g}; nothing is timed.")
    return off


def _captum(network: Network, weights: list[np.ndarray], image: np.ndarray, tile: int) -> Run:
    import torch
    from captum.attr import Occlusion

    device = "cuda" if torch.cuda.is_available() else "cpu"
    forward = torch_network(network, weights, device)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)
    pixels = pixels.to(memory_format=torch.channels_last)

    def run(batch: int) -> np.ndarray:
        with torch.inference_mode():
            found: Any = Occlusion(forward).attribute(
                pixels,
                sliding_window_shapes=(image.shape[-1], tile, tile),
                strides=(image.shape[-1], tile, tile),
                baselines=FILL,
                target=TARGET,
                perturbations_per_eval=batch,
            )
        return found[0, 0].cpu().numpy()

    return run


def _xplique(network: Network, weights: list[np.ndarray], image: np.ndarray, tile: int) -> Run:
    from xplique.attributions import Occlusion

    model = keras_network(network, weights, image.shape)
    target = np.eye(model.output_shape[-1], dtype=np.float32)[[TARGET]]

    def make(batch: int) -> Any:
        return Occlusion(
            model, batch_size=batch, patch_size=tile, patch_stride=tile, occlusion_value=FILL
        )

    peers = {batch: make(batch) for batch in PEERS["xplique"][1]}
    return lambda batch: np.asarray(peers[batch].explain(image[None], target))[0, ..., 0]


def _tf_explain(network: Network, weights: list[np.ndarray], image: np.ndarray, tile: int) -> Run:
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

    model = keras_network(network, weights, image.shape)

    def run(batch: int) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):  # it asks Keras for a progress bar
            peer = OcclusionSensitivity(batch_size=batch)
            return peer.get_sensitivity_map(model, image, TARGET, tile)

    return run


def _seed_loop(network: Network, weights: list[np.ndarray], image: np.ndarray, tile: int) -> Run:
    model = keras_network(network, weights, image.shape)
    height, width, _ = image.shape

    def run(batch: int) -> np.ndarray:
        heatmap, pad = np.zeros((height, width)), 2 * tile
        for row in range(0, height, tile):
            for col in range(0, width, tile):
                padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
                padded[row : row + 5 * tile, col : col + 5 * tile] = FILL
                scores = model.predict(padded[pad:-pad, pad:-pad][None], verbose=0)
                heatmap[row : row + tile, col : col + tile] = scores[0, TARGET]
        return heatmap

    return run


_MAKERS: dict[str, tuple[Callable[..., Run], Callable[[int], presets.Preset]]] = {
    "captum": (_captum, lambda tile: presets.captum(tile, tile, baseline=FILL)),
    "xplique": (_xplique, lambda tile: presets.xplique(tile, tile, value=FILL)),
    "tf-explain": (_tf_explain, lambda tile: presets.tf_explain(tile)),
    "seed's loop": (_seed_loop, presets.seed),
}


def main(names: str, cases: str, seconds: str) -> None:
    """Measure libraries, and print what they took."""
    for model, side in json.loads(cases):
        for name in json.loads(names):
            print(json.dumps(measure(name, model, side, float(seconds))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
