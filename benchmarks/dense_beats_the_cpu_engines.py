"""Dense occlusion on a CPU against the forward passes of other engines, and against captum.

An engine that occludes runs its forward pass at every position, so its images/s bound its
positions/s: what is compared is the whole of `occlude` (method "dense") with the forward passes
of `jv.faster_on_cpu(f)`, PyTorch (channels_last), TensorFlow, ONNX Runtime and OpenVINO, each at
the best of a few batch sizes, and with captum. Two threads, float32, random weights. Networks:
VGG-16 in plain layers, and architectures of `keras.applications`. Scores agree to 1e-5 of the
largest first (1e-4 where an error is allowed). An engine that is not installed is left out, and
that is said. Compilation is left out.

    KERAS_BACKEND=tensorflow python -m benchmarks.dense_beats_the_cpu_engines [--quick] [--save]
"""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks import common, networks
from benchmarks.incremental_beats_captum_on_vgg16 import COLS, make_captum
from jaxviz import faster_on_cpu, occlude

NAME = "dense_beats_the_cpu_engines"
SIDE, PATCH, STRIDE, POSITIONS = 224, 16, 8, 225
BATCHES, THREADS = (1, 4, 8, 16), 2
APPLICATIONS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "InceptionV3")
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
    model = model.to(memory_format=torch.channels_last)

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # as it lies: channels last
            return model(pixels).numpy()

    return forward


def of_onnxruntime(model: Any) -> Forward:
    """Return ONNX Runtime's forward pass of a PyTorch model."""
    import io

    import onnxruntime
    import torch

    file, axes = io.BytesIO(), {"images": {0: "batch"}, "scores": {0: "batch"}}
    names: Any = dict(input_names=["images"], output_names=["scores"], dynamic_axes=axes)
    torch.onnx.export(model, (torch.zeros(1, 3, SIDE, SIDE),), file, dynamo=False, **names)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file.getvalue(), settings)

    def forward(images: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.asarray(session.run(None, {"images": pixels})[0])

    return forward


def of_openvino(model: Any, example: Any, *, channels_first: bool) -> Forward:
    """Return OpenVINO's forward pass of a PyTorch or TensorFlow model, in float32."""
    import openvino

    converted = openvino.convert_model(model, example_input=example)
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
    program = openvino.compile_model(converted, "CPU", settings)

    def forward(images: np.ndarray) -> np.ndarray:
        pixels = images.transpose(0, 3, 1, 2) if channels_first else images
        return np.array(program(np.ascontiguousarray(pixels))[0])

    return forward


def of_tensorflow(model: Any) -> Forward:
    """Return TensorFlow's forward pass of a Keras model, as one graph."""
    import tensorflow as tf

    call = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return lambda images: call(tf.constant(images)).numpy()


def plain_vgg16() -> tuple[Any, dict[str, Forward], networks.Network]:
    """Return VGG-16 as a scorer, the other engines' forward passes, and its layers."""
    network = networks.vgg16(SIDE)
    others: dict[str, Forward] = {}
    if installed("torch"):
        import torch

        others["PyTorch"] = of_torch(networks.in_torch(network))
        if installed("onnxruntime"):
            others["ONNX Runtime"] = of_onnxruntime(networks.in_torch(network))
        if installed("openvino"):
            model, example = networks.in_torch(network), torch.zeros(1, 3, SIDE, SIDE)
            others["OpenVINO"] = of_openvino(model, example, channels_first=True)
    if installed("tensorflow"):
        others["TensorFlow"] = of_tensorflow(networks.in_keras(network, (SIDE, SIDE, 3)))
    return networks.in_jax(network), others, network


def application(name: str) -> tuple[Any, dict[str, Forward]]:
    """Return an architecture of Keras, random weights, as a scorer and in TensorFlow."""
    import keras

    from jaxviz.keras import from_keras

    keras.utils.set_random_seed(0)
    options = dict(weights=None, classifier_activation=None, input_shape=(SIDE, SIDE, 3))
    model = getattr(keras.applications, name)(**options)
    others = {"TensorFlow": of_tensorflow(model)}
    if installed("openvino"):
        import tensorflow as tf

        example = tf.zeros((1, SIDE, SIDE, 3))
        others["OpenVINO"] = of_openvino(model, example, channels_first=False)
    return from_keras(model), others


def rows_of(
    name: str, f: Any, others: dict[str, Forward], captum: Any, quick: bool
) -> Iterator[common.Row]:
    """Check one network's engines, choose their batches, time them in turn; yield their rows."""
    images = np.random.default_rng(1).random((max(BATCHES), SIDE, SIDE, 3), np.float32)
    forwards = {
        "ours, forward": of_jax(faster_on_cpu(f)),
        "ours, forward, error 1e-5": of_jax(faster_on_cpu(f, error=1e-5)),
        **others,
    }
    wanted = of_jax(f)(images[:2])
    differences = {
        engine: common.check_equal(
            forward(images[:2]), wanted, within=1e-4 if "error" in engine else 1e-5, what=engine
        )
        for engine, forward in forwards.items()
    }
    batches, repeats = ((8,), 1) if quick else (BATCHES, 3)
    count = 15 if quick else POSITIONS
    runs: dict[str, tuple[int, int, Callable[[], Any]]] = {}
    for engine, forward in forwards.items():
        batch = fastest(lambda n, forward=forward: forward(images[:n]), batches)
        runs[engine] = (batch, batch, lambda forward=forward, n=batch: forward(images[:n]))
    side = int(np.sqrt(count)) * STRIDE
    region = (0, 0, side, side) if not quick else (0, 0, 3 * STRIDE, 5 * STRIDE)

    def dense() -> Any:
        return occlude(f, images[0], patch=PATCH, stride=STRIDE, region=region, method="dense")

    size = int(np.isfinite(dense().scores[..., 0]).sum())  # outside of the region they are NaN
    dense()
    runs = {"ours, occlude": (0, size, dense), **runs}
    if captum is not None:
        rows = 1 if quick else 8
        batch = fastest(lambda n: captum(1, n), batches)
        runs["captum"] = (batch, rows * COLS, lambda: captum(rows, batch))
    timings = common.interleave({engine: run for engine, (*_, run) in runs.items()}, repeats)
    ours = size / timings["ours, occlude"].median
    for engine, (batch, done, _) in runs.items():
        rate = done / timings[engine].median
        yield {
            "network": name,
            "engine": engine,
            "batch": batch or "auto",
            "images/s": rate,
            "ours, times": ours / rate,
            "spread": timings[engine].spread,
            "difference": differences.get(engine, 0.0),
        }


def fastest(run: Callable[[int], Any], batches: tuple[int, ...]) -> int:
    """Return the batch with the most images a second, of the second of two runs."""
    seconds = {}
    for batch in batches:
        run(batch)
        seconds[batch] = common.once(lambda batch=batch: run(batch))[0] / batch
    return min(seconds, key=lambda batch: seconds[batch])


def all_rows(quick: bool) -> Iterator[common.Row]:
    """Yield the rows of every network."""
    image = np.random.default_rng(1).random((SIDE, SIDE, 3), np.float32)
    f, others, network = plain_vgg16()
    captum = make_captum(network, image) if installed("torch", "captum") else None
    yield from rows_of("VGG-16", f, others, captum, quick)
    if not installed("tensorflow", "keras"):
        return
    for name in APPLICATIONS[:1] if quick else APPLICATIONS:
        yield from rows_of(name, *application(name), None, quick)


def main() -> None:
    """Check and measure, network by network."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    settings = common.options(__doc__)
    rows = common.collect(NAME, all_rows(settings.quick), settings)
    against = [row for row in rows if not row["engine"].startswith("ours")]
    best = {
        name: min(row["ours, times"] for row in against if row["network"] == name)
        for name in dict.fromkeys(row["network"] for row in against)
    }
    common.finish(
        NAME,
        "Dense occlusion on a CPU against the forward passes of other engines.",
        ", ".join(f"{name} {ratio:.2f}× the fastest" for name, ratio in best.items()),
        rows,
        notes=["images/s: of `occlude` and captum, positions/s.", "Medians of runs in turn."],
        packages=["captum", "torch", "tensorflow", "onnxruntime", "openvino"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
