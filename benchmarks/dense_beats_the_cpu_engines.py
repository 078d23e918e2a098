"""Occlusion on a CPU against the forward passes of other engines, and against captum.

An engine that occludes runs its forward pass at every position, so its images/s bound its
positions/s: what is compared is the whole of `occlude` (method "dense", and "incremental" over the
whole grid, at the better of two batch sizes) with the forward passes of JAX as it stands,
`jv.faster_on_cpu(f)`, PyTorch (channels_last), TensorFlow, ONNX Runtime and OpenVINO, and with
captum, each at the best of a few batch sizes. Two threads, float32, random weights, 224×224 pixels,
patch 16, stride 8, a region of 225 positions (the MNIST CNN: 28×28, patch 4, stride 1, all 625).
Networks: those of `jaxviz.bench`, normalisations folded, the same lines for every engine;
InceptionV3 is that of `keras.applications`, so only TensorFlow is beside it. Scores, and captum's
map, agree to 1e-5 of the largest first (1e-4 where an error is allowed). An engine that is not
installed is left out, and that is said. Compilation is left out.

    KERAS_BACKEND=tensorflow python -m benchmarks.dense_beats_the_cpu_engines [NETWORK ...]
        [--quick] [--save]

With names, only those networks are measured; the rows of the others are those of the newest result.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import common
from jaxviz import Occlusion, faster_on_cpu, occlude
from jaxviz.bench.networks import draw_weights, make_network
from jaxviz.bench.ported import keras_network, torch_network

NAME = "dense_beats_the_cpu_engines"
TARGET, THREADS = 3, 2


class Setting(NamedTuple):
    """What is occluded, and in what batches.

    Attributes:
        shape: of the image.
        patch: pixels.
        stride: pixels.
        region: of the dense run.
        batches: that engines choose from.
        at_once: positions at once that captum, and our windows, choose from.
        rows: rows of the grid that captum runs.
        repeats: runs of each, in turn.
    """

    shape: tuple[int, int, int] = (224, 224, 3)
    patch: int = 16
    stride: int = 8
    region: tuple[int, int, int, int] = (0, 0, 120, 120)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    at_once: tuple[int, ...] = (8, 16)
    rows: int = 2
    repeats: int = 3

    @property
    def side(self) -> int:
        """Positions of a row of the whole grid."""
        return (self.shape[1] - self.patch) // self.stride + 1


PHOTOGRAPH, QUICK = Setting(), (0, 0, 24, 40)
DIGIT = Setting((28, 28, 1), 4, 1, (0, 0, 28, 28), (8, 16, 48, 128), (64, 128), 25, 15)
NETWORKS = ("vgg16", "resnet50", "squeezenet", "mobilenet_v2", "efficientnet_lite0")
NETWORKS += ("InceptionV3", "mnist_cnn")
DENSE, WINDOWS = "ours, occlude", "ours, occlude on windows"
PEERS, HOW = ("PyTorch", "captum", "TensorFlow"), ("occlude", "incremental")
Forward = Callable[[np.ndarray], np.ndarray]


def installed(*packages: str) -> bool:
    """Say whether all of some packages can be imported; name the first that cannot."""
    for package in packages:
        if find_spec(package) is None:
            print(f"left out, as {package} is not installed: what needs it")
            return False
    return True


def of_jax(f: Any) -> Forward:
    """Return a compiled forward pass from and to NumPy."""
    return lambda images: np.asarray(f(images))


def of_torch(model: Any) -> Forward:
    """Return PyTorch's forward pass, channels last, without gradients."""
    import torch

    torch.set_num_threads(THREADS)

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # as it lies: channels last
            return model(pixels).numpy()

    return forward


def in_onnx(model: Any, shape: tuple[int, int, int]) -> bytes:
    """Return the ONNX file of a PyTorch model for images of a shape."""
    import io
    import warnings

    import torch

    class Module(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return model(images)

    file, axes = io.BytesIO(), {"images": {0: "batch"}, "scores": {0: "batch"}}
    names: Any = dict(input_names=["images"], output_names=["scores"], dynamic_axes=axes)
    height, width, channels = shape
    example = (torch.zeros(1, channels, height, width),)
    with warnings.catch_warnings():  # another exporter, which needs another package, is newer
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(Module().eval(), example, file, dynamo=False, **names)
    return file.getvalue()


def of_onnxruntime(file: bytes) -> Forward:
    """Return ONNX Runtime's forward pass."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file, settings)

    def forward(images: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.asarray(session.run(None, {"images": pixels})[0])

    return forward


def of_openvino(file: bytes) -> Forward:
    """Return OpenVINO's forward pass, in float32."""
    import io

    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
    program = core.compile_model(core.read_model(io.BytesIO(file)), "CPU", settings)

    def forward(images: np.ndarray) -> np.ndarray:
        return np.array(program(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))[0])

    return forward


def of_tensorflow(model: Any) -> Forward:
    """Return TensorFlow's forward pass of a Keras model, as one graph."""
    import tensorflow as tf

    call = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return lambda images: call(tf.constant(images)).numpy()


def of_captum(model: Any, image: np.ndarray, s: Setting) -> Callable[[int], Any]:
    """Return captum's occlusion of the first rows of the grid, so many positions at once."""
    import torch
    from captum.attr import FeatureAblation
    from captum.attr import Occlusion as Captum

    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    pixels = pixels.to(memory_format=torch.channels_last)
    ablate: Any = FeatureAblation.attribute

    def run(at_once: int) -> Any:
        # What `Occlusion.attribute` passes on, with the shifts of some rows instead of all.
        with torch.inference_mode():
            return ablate.__wrapped__(
                Captum(model),
                pixels,
                baselines=0,
                target=TARGET,
                perturbations_per_eval=at_once,
                sliding_window_tensors=(torch.ones(s.shape[2], s.patch, s.patch),),
                shift_counts=((1, s.rows, s.side),),
                strides=((s.shape[2], s.stride, s.stride),),
            )

    return run


def engines_of(name: str, image: np.ndarray, s: Setting) -> tuple[Any, dict[str, Forward], Any]:
    """Return a network as a scorer, the other engines' forward passes, and captum's run."""
    if name == "InceptionV3":
        return *inception(), None
    from jaxviz.bench import networks

    network = getattr(networks, name)
    side, channels = s.shape[1:]
    weights, others, captum = draw_weights(network, side, channels=channels), {}, None
    if installed("torch"):
        model = torch_network(network, weights, "cpu")
        others["PyTorch"] = of_torch(model)
        if installed("onnx"):
            file = in_onnx(model, s.shape)
            if installed("onnxruntime"):
                others["ONNX Runtime"] = of_onnxruntime(file)
            if installed("openvino"):
                others["OpenVINO"] = of_openvino(file)
        captum = of_captum(model, image, s) if installed("captum") else None
    if installed("tensorflow", "keras"):
        keras = keras_network(network, weights, s.shape)
        others["TensorFlow"] = of_tensorflow(keras)
    return make_network(network, side, channels=channels), others, captum


def inception() -> tuple[Any, dict[str, Forward]]:
    """Return Keras's InceptionV3 with random weights: as a scorer, and in TensorFlow."""
    if not installed("tensorflow", "keras"):
        sys.exit("InceptionV3 needs tensorflow and keras.")
    import keras

    from jaxviz.keras import from_keras

    keras.utils.set_random_seed(0)
    options: Any = dict(weights=None, classifier_activation=None, input_shape=PHOTOGRAPH.shape)
    model = keras.applications.InceptionV3(**options)
    return from_keras(model), {"TensorFlow": of_tensorflow(model)}


def rows_of(name: str, quick: bool) -> Iterator[common.Row]:
    """Check one network's engines, choose their batches, time them in turn; yield their rows."""
    s = DIGIT if name == "mnist_cnn" else PHOTOGRAPH
    most = max(s.batches)
    images = np.random.default_rng(1).random((most, *s.shape), np.float32)
    f, others, captum = engines_of(name, images[0], s)
    f = jax.jit(f)  # so that no run traces it again, as none of the others does
    forwards = {
        "JAX as it stands": of_jax(f),
        "ours, forward": of_jax(faster_on_cpu(f)),
        "ours, forward, error 1e-5": of_jax(faster_on_cpu(f, error=1e-5)),
        **others,
    }
    wanted = forwards["JAX as it stands"](images[:2])
    differences = {
        engine: common.check_equal(
            forward(images[:2]), wanted, within=1e-4 if "error" in engine else 1e-5, what=engine
        )
        for engine, forward in forwards.items()
    }
    batches, repeats = ((8,), 1) if quick else (s.batches, s.repeats)
    region, whole = (QUICK, QUICK) if quick else (s.region, None)
    how: Any = {"patch": s.patch, "stride": s.stride}

    def dense() -> Any:
        return occlude(f, images[0], **how, region=region, method="dense")

    some_rows = (0, 0, 5 * s.stride, s.shape[1])

    def incremental(batch: int, region: Any = some_rows) -> Any:
        return occlude(f, images[0], **how, region=region, method="incremental", batch_size=batch)

    first = dense()
    differences[DENSE] = common.check_equal(first.base, wanted[0], within=1e-5, what=DENSE)
    batch = fastest(incremental, s.at_once, whole=True)
    everything = incremental(batch, whole)
    scored = np.isfinite(first.scores)
    both = everything.scores[scored], first.scores[scored]
    differences[WINDOWS] = common.check_equal(*both, within=1e-5, what=WINDOWS)
    runs: dict[str, tuple[Any, int, Callable[[], Any]]] = {
        DENSE: ("auto", positions(first), dense),
        WINDOWS: (batch, positions(everything), lambda: incremental(batch, whole)),
    }
    for engine, forward in forwards.items():
        batch = fastest(lambda n, forward=forward: forward(images[:n]), batches)

        def some(forward: Forward = forward, batch: int = batch) -> None:
            for _ in range(most // batch):
                forward(images[:batch])

        runs[engine] = (batch, most // batch * batch, some)
    if captum is not None:
        at_once = fastest(captum, s.at_once, whole=True)
        edge = (s.patch - s.stride) // 2 + s.rows * s.stride
        occ = incremental(batch, (0, 0, edge, s.shape[1]))
        mine, theirs = occ.heatmap(TARGET), captum(at_once)[0, 0].numpy()
        here, scale = np.isfinite(mine), float(np.abs(occ.base).max())
        differences["captum"] = common.check_equal(
            mine[here], theirs[here], within=1e-5, what="captum", scale=scale
        )
        runs["captum"] = (at_once, s.rows * s.side, lambda: captum(at_once))
    turns = {engine: run for engine, (*_, run) in runs.items()}
    timings = common.interleave(turns, repeats, warm=s is DIGIT)
    rates = {engine: done / timings[engine].median for engine, (_, done, _) in runs.items()}
    for engine, (batch, *_) in runs.items():
        yield {
            "network": name,
            "engine": engine,
            "batch": batch,
            "images/s": rates[engine],
            "occlude, times it": rates[DENSE] / rates[engine],
            "incremental, times it": rates[WINDOWS] / rates[engine],
            "spread": timings[engine].spread,
            "difference": differences.get(engine),
        }


def positions(occ: Occlusion) -> int:
    """Count the positions that were scored."""
    return int(np.isfinite(occ.scores[..., 0]).sum())


def fastest(run: Callable[[int], Any], batches: tuple[int, ...], *, whole: bool = False) -> int:
    """Return the batch with the most images a second, of the second of two runs.

    `whole` says that a run does all there is to do, whatever the batch.
    """
    seconds = {}
    for batch in batches:
        run(batch)
        taken = common.once(lambda batch=batch: run(batch))[0]
        seconds[batch] = taken if whole else taken / batch
    return min(seconds, key=lambda batch: seconds[batch])


def distributions(*modules: str) -> list[str]:
    """Return the distributions that some modules come from, those that are installed."""
    known = packages_distributions()
    return [known[module][0] for module in modules if module in known]


def kept(names: tuple[str, ...]) -> list[common.Row]:
    """Return the rows of networks that are not measured now, of the newest result."""
    found = sorted(common.RESULTS.glob(f"{NAME}-*.json"))
    rows = json.loads(found[-1].read_text(encoding="utf-8"))["rows"] if found else []
    return [row for row in rows if row["network"] not in names]


def main() -> None:
    """Check and measure, network by network."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(THREADS))
    names = tuple(name for name in NETWORKS if name in sys.argv[1:])
    settings = common.options(__doc__, [word for word in sys.argv[1:] if word not in names])
    before = kept(names) if names else []
    names = names or (NETWORKS[2:3] if settings.quick else NETWORKS)
    rows = common.collect(
        NAME, (row for name in names for row in rows_of(name, settings.quick)), settings
    )
    rows = [*before, *rows]
    best = {}
    for name in dict.fromkeys(row["network"] for row in rows):
        peers = [r for r in rows if r["network"] == name and r["engine"] in PEERS]
        best[name] = [min(r.get(f"{how}, times it", np.nan) for r in peers) for how in HOW]
    common.finish(
        NAME,
        "Occlusion on a CPU against the forward passes of other engines.",
        "times the fastest of PyTorch, captum and TensorFlow, dense / on windows: "
        + ", ".join(
            f"{name} " + " / ".join(f"{x:.2f}" for x in both if not np.isnan(x))
            for name, both in best.items()
        ),
        rows,
        notes=[
            "images/s: of `occlude` and captum, positions/s.",
            "Medians of runs in turn, network by network, each network in a run of its own.",
        ],
        packages=distributions("captum", "torch", "tensorflow", "onnxruntime", "openvino"),
        settings=settings,
    )


if __name__ == "__main__":
    main()
