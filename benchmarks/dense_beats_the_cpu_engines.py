"""Dense occlusion on a CPU against the forward passes of other engines, and against captum.

An engine that occludes runs its forward pass at every position, so its images/s bound its
positions/s: what is compared is the whole of `occlude` (method "dense") with the forward passes
of JAX as it stands, `jv.faster_on_cpu(f)`, PyTorch (channels_last), TensorFlow, ONNX Runtime and
OpenVINO, each at the best of a few batch sizes, and with captum. Two threads, float32, random
weights, 224×224 pixels, patch 16, stride 8, a region of 225 positions. Networks: those of
`jaxviz.bench`, normalisations folded, the same lines for every engine; InceptionV3 is that of
`keras.applications`, so only TensorFlow is beside it. Scores agree to 1e-5
of the largest first (1e-4 where an error is allowed). An engine that is not installed is left out,
and that is said. Compilation is left out.

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
from typing import Any

import jax
import numpy as np

from benchmarks import common
from jaxviz import faster_on_cpu, occlude
from jaxviz.bench.networks import draw_weights, make_network
from jaxviz.bench.ported import keras_network, torch_network

NAME = "dense_beats_the_cpu_engines"
SIDE, PATCH, STRIDE, TARGET = 224, 16, 8, 3
REGION, POSITIONS, QUICK_REGION, QUICK_POSITIONS = (0, 0, 120, 120), 225, (0, 0, 24, 40), 15
BATCHES, THREADS, REPEATS = (1, 2, 4, 8), 2, 3
NETWORKS = ("vgg16", "resnet50", "squeezenet", "mobilenet_v2", "efficientnet_lite0", "InceptionV3")
CAPTUM_BATCH, CAPTUM_ROWS, CAPTUM_COLS = 8, 2, 27
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


def in_onnx(model: Any) -> bytes:
    """Return the ONNX file of a PyTorch model."""
    import io
    import warnings

    import torch

    class Module(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return model(images)

    file, axes = io.BytesIO(), {"images": {0: "batch"}, "scores": {0: "batch"}}
    names: Any = dict(input_names=["images"], output_names=["scores"], dynamic_axes=axes)
    example = (torch.zeros(1, 3, SIDE, SIDE),)
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


def of_captum(model: Any, image: np.ndarray) -> Callable[[], Any]:
    """Return captum's occlusion of the first rows of the grid."""
    import torch
    from captum.attr import FeatureAblation
    from captum.attr import Occlusion as Captum

    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    pixels = pixels.to(memory_format=torch.channels_last)
    ablate: Any = FeatureAblation.attribute

    def run() -> Any:
        # What `Occlusion.attribute` passes on, with the shifts of some rows instead of all.
        with torch.inference_mode():
            return ablate.__wrapped__(
                Captum(model),
                pixels,
                baselines=0,
                target=TARGET,
                perturbations_per_eval=CAPTUM_BATCH,
                sliding_window_tensors=(torch.ones(3, PATCH, PATCH),),
                shift_counts=((1, CAPTUM_ROWS, CAPTUM_COLS),),
                strides=((3, STRIDE, STRIDE),),
            )

    return run


def engines_of(name: str, image: np.ndarray) -> tuple[Any, dict[str, Forward], Any]:
    """Return a network as a scorer, the other engines' forward passes, and captum's run."""
    if name == "InceptionV3":
        return *inception(), None
    from jaxviz.bench import networks

    network = getattr(networks, name)
    weights, others, captum = draw_weights(network, SIDE), {}, None
    if installed("torch"):
        model = torch_network(network, weights, "cpu")
        others["PyTorch"] = of_torch(model)
        if installed("onnx"):
            file = in_onnx(model)
            if installed("onnxruntime"):
                others["ONNX Runtime"] = of_onnxruntime(file)
            if installed("openvino"):
                others["OpenVINO"] = of_openvino(file)
        captum = of_captum(model, image) if installed("captum") else None
    if installed("tensorflow", "keras"):
        keras = keras_network(network, weights, (SIDE, SIDE, 3))
        others["TensorFlow"] = of_tensorflow(keras)
    return make_network(network, SIDE), others, captum


def inception() -> tuple[Any, dict[str, Forward]]:
    """Return Keras's InceptionV3 with random weights: as a scorer, and in TensorFlow."""
    if not installed("tensorflow", "keras"):
        sys.exit("InceptionV3 needs tensorflow and keras.")
    import keras

    from jaxviz.keras import from_keras

    keras.utils.set_random_seed(0)
    options: Any = dict(weights=None, classifier_activation=None, input_shape=(SIDE, SIDE, 3))
    model = keras.applications.InceptionV3(**options)
    return from_keras(model), {"TensorFlow": of_tensorflow(model)}


def rows_of(name: str, quick: bool) -> Iterator[common.Row]:
    """Check one network's engines, choose their batches, time them in turn; yield their rows."""
    images = np.random.default_rng(1).random((max(BATCHES), SIDE, SIDE, 3), np.float32)
    f, others, captum = engines_of(name, images[0])
    forwards = {
        "JAX as it stands": of_jax(jax.jit(f)),
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
    batches, repeats = ((8,), 1) if quick else (BATCHES, REPEATS)
    region, count = (QUICK_REGION, QUICK_POSITIONS) if quick else (REGION, POSITIONS)

    def dense() -> Any:
        return occlude(f, images[0], patch=PATCH, stride=STRIDE, region=region, method="dense")

    dense()
    runs: dict[str, tuple[Any, int, Callable[[], Any]]] = {"ours, occlude": ("auto", count, dense)}
    for engine, forward in forwards.items():
        batch = fastest(lambda n, forward=forward: forward(images[:n]), batches)

        def some(forward: Forward = forward, batch: int = batch) -> None:
            for _ in range(max(BATCHES) // batch):
                forward(images[:batch])

        runs[engine] = (batch, max(BATCHES) // batch * batch, some)
    if captum is not None:
        captum()
        runs["captum"] = (CAPTUM_BATCH, CAPTUM_ROWS * CAPTUM_COLS, captum)
    timings = common.interleave({engine: run for engine, (*_, run) in runs.items()}, repeats)
    ours = count / timings["ours, occlude"].median
    for engine, (batch, done, _) in runs.items():
        rate = done / timings[engine].median
        yield {
            "network": name,
            "engine": engine,
            "batch": batch,
            "images/s": rate,
            "occlude, times it": ours / rate,
            "spread": timings[engine].spread,
            "difference": differences.get(engine),
        }


def fastest(run: Callable[[int], Any], batches: tuple[int, ...]) -> int:
    """Return the batch with the most images a second, of the second of two runs."""
    seconds = {}
    for batch in batches:
        run(batch)
        seconds[batch] = common.once(lambda batch=batch: run(batch))[0] / batch
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
    best = {
        name: min(
            row["occlude, times it"]
            for row in rows
            if row["network"] == name and row["engine"] in ("PyTorch", "captum", "TensorFlow")
        )
        for name in dict.fromkeys(row["network"] for row in rows)
    }
    common.finish(
        NAME,
        "Dense occlusion on a CPU against the forward passes of other engines.",
        "times the fastest of PyTorch, captum and TensorFlow: "
        + ", ".join(f"{name} {ratio:.2f}" for name, ratio in best.items()),
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
