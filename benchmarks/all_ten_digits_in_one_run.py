"""All ten classes of the MNIST network in one run, against the fastest forms of two peers.

Ten class images of the bundled network, 200 steps: pixels, a random roll of up to two pixels, total
variation and Adam. tf-keras-vis runs its functional model on the batch of ten, without a clone of
it and without callbacks; PyTorch runs the loop that Lucent writes, channels last, on two threads.
All three take the same steps on the same batch, begin with the same images, and the derivatives of
the ten logits at them are checked to be equal first. What differs: ours and PyTorch move pixels
through a sigmoid, tf-keras-vis clips; each library has its own total variation, one pass over
neighbouring pixels in all; ours also keeps the history, the best images and their transparency.
Two rows more give each library's defaults. Each run has a process of its own, in turn; times leave
out compiling unless a column says so. Further rows do the same against PyTorch for VGG-16 (224×224,
random weights), one image, and with `JAXVIZ_DATA` set for SqueezeNet (227×227), one image and four.

    python -m benchmarks.all_ten_digits_in_one_run [--quick] [--save]
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import common, networks

STEPS, ROLL, TV, RATE = 200, 2, 0.1, 0.05
THREADS = 2
BATCHES = {"squeezenet, one": 1, "squeezenet, four": 4}
PHOTOGRAPHS = {"vgg16": (5, 20)} | dict.fromkeys(BATCHES, (5, 100))  # steps, --quick and else


def kernels(file: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The kernel and bias of every layer of a Keras file that has them."""
    from jaxviz.keras import load_keras

    model = load_keras(file)
    layers = {name: model.layer(name) for name in model.layer_names}
    return {
        name: (np.asarray(layer.kernel[...]), np.asarray(layer.bias[...]))
        for name, layer in layers.items()
        if hasattr(layer, "kernel")
    }


def case(network: str) -> tuple[Any, np.ndarray]:
    """A network's file, or itself, and the images (N, H, W, C) in [0, 1] to begin with."""
    rng = np.random.default_rng(0)
    if network == "mnist":
        return common.mnist_model(), rng.uniform(0.3, 0.7, (10, 28, 28, 1)).astype(np.float32)
    if network == "vgg16":
        images = rng.uniform(0.3, 0.7, (1, 224, 224, 3)).astype(np.float32)
        return networks.vgg16(), images
    file = common.data_folder() / "imagenet" / "squeezenet_v1.0_derived.keras"
    return file, rng.uniform(0.3, 0.7, (BATCHES[network], 227, 227, 3)).astype(np.float32)


def ours(network: str, steps: int) -> tuple[Callable[[], Any], np.ndarray]:
    """Our run, and the derivatives of the logits at the start."""
    import jax
    import jax.numpy as jnp

    import jaxviz as jv
    from jaxviz import objectives, parametrize, regularize, transforms

    given, images = case(network)
    model = _in_jax(given)
    scale = _scale(network)
    objective = [objectives.unit(n) for n in range(len(images))]

    def preprocess(x: jax.Array) -> jax.Array:
        return x * scale

    def run() -> Any:
        result = jv.maximize(
            model,
            objective,
            key=jax.random.key(0),
            image_shape=images.shape[1:],
            start=images[0],
            steps=steps,
            parametrization=parametrize.pixels(),
            bounds="sigmoid",
            transforms=(transforms.jitter(ROLL),),
            regularizers=(regularize.penalty(regularize.total_variation, TV),),
            preprocess=preprocess,
        )
        return jax.block_until_ready(result.images)

    def total(x: jax.Array) -> jax.Array:
        scores = model(preprocess(x))
        return scores[jnp.arange(len(images)), jnp.arange(len(images))].sum()

    return run, np.asarray(jax.jit(jax.grad(total))(images))


def defaults(network: str, steps: int) -> tuple[Callable[[], Any], np.ndarray]:
    """Our run with the defaults of `maximize`."""
    import jax

    import jaxviz as jv
    from jaxviz import objectives

    given, images = case(network)
    model = _in_jax(given)
    objective = [objectives.unit(n) for n in range(len(images))]
    options = {"image_shape": images.shape[1:], "steps": steps}
    run = lambda: jv.maximize(model, objective, key=jax.random.key(0), **options).images  # noqa: E731
    return lambda: jax.block_until_ready(run()), ours(network, steps)[1]


def pytorch(network: str, steps: int) -> tuple[Callable[[], Any], np.ndarray]:
    """The loop that Lucent writes, and the derivatives of the logits at the start."""
    import torch

    torch.set_num_threads(THREADS)
    given, images = case(network)
    if network == "vgg16":
        net = networks.in_torch(given)
    else:
        net = (_torch_mnist if network == "mnist" else _torch_squeezenet)(kernels(given))
    net = net.eval().to(memory_format=torch.channels_last)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    start = torch.tensor(images.transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last)
    each = torch.arange(len(images))
    scale = _scale(network)

    def run() -> Any:
        free = torch.logit(start).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([free], lr=RATE)
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            image = torch.sigmoid(free)
            down, right = np.random.randint(-ROLL, ROLL + 1, 2).tolist()
            scores = net(torch.roll(image, (down, right), (2, 3)) * scale)
            rows = image[:, :, 1:, :-1] - image[:, :, :-1, :-1]
            cols = image[:, :, :-1, 1:] - image[:, :, :-1, :-1]
            variation = (rows.square() + cols.square()).mean((1, 2, 3)).sum()
            (TV * variation - scores[each, each].sum()).backward()
            optimizer.step()
        return torch.sigmoid(free).detach()

    image = start.clone().requires_grad_(True)
    net(image * scale)[each, each].sum().backward()
    assert image.grad is not None
    return run, image.grad.numpy().transpose(0, 2, 3, 1)


def tf_keras_vis(
    network: str, steps: int, *, defaults: bool = False
) -> tuple[Callable[[], Any], np.ndarray]:
    """tf-keras-vis on the functional model, and the derivatives of the logits at the start."""
    import keras
    import tensorflow as tf
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.activation_maximization.input_modifiers import Jitter
    from tf_keras_vis.activation_maximization.regularizers import TotalVariation2D
    from tf_keras_vis.utils.scores import CategoricalScore

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    file, images = case(network)
    model: Any = keras.models.load_model(file)
    model.layers[-1].activation = keras.activations.linear
    entry = keras.Input(images.shape[1:])
    output = entry
    for layer in model.layers:
        output = layer(output)
    functional = keras.Model(entry, output)
    maximization = ActivationMaximization(functional, clone=False)
    score = CategoricalScore(list(range(len(images))))

    def run() -> Any:
        if defaults:
            return maximization(score, tf.constant(images), (0.0, 1.0), steps=steps)
        return maximization(
            score,
            seed_input=tf.constant(images),
            input_range=(0.0, 1.0),
            input_modifiers=[Jitter(jitter=ROLL)],
            regularizers=[TotalVariation2D(weight=TV)],
            steps=steps,
            optimizer=keras.optimizers.Adam(RATE),
            callbacks=[],
        )

    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.linalg.diag_part(functional(x)))
    gradient: Any = tape.gradient(total, x)
    return run, gradient.numpy()


def _in_jax(given: Any) -> Any:
    import jaxviz as jv

    return networks.in_jax(given) if isinstance(given, tuple) else jv.logits(jv.load_keras(given))


def _scale(network: str) -> float:
    # SqueezeNet takes BGR less a mean; for its speed, pixels of about that size are enough.
    return 100.0 if network in BATCHES else 1.0


def _torch_mnist(weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    import torch
    from torch import nn

    class ChannelsLastFlatten(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 2, 3, 1).flatten(1)

    names = iter(weights)
    return nn.Sequential(
        _torch_convolution(weights[next(names)]),
        nn.ReLU(),
        _torch_convolution(weights[next(names)]),
        nn.ReLU(),
        nn.MaxPool2d(2),
        ChannelsLastFlatten(),
        _torch_dense(weights[next(names)]),
        nn.ReLU(),
        _torch_dense(weights[next(names)]),
    )


def _torch_squeezenet(weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    import torch
    from torch import nn

    class Fire(nn.Module):
        def __init__(self, name: str):
            super().__init__()
            self.squeeze = _torch_convolution(weights[f"{name}_conv1x1_1"])
            self.narrow = _torch_convolution(weights[f"{name}_conv1x1_2"])
            self.wide = _torch_convolution(weights[f"{name}_conv3x3_2"], padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.squeeze(x))
            return torch.cat([torch.relu(self.narrow(x)), torch.relu(self.wide(x))], 1)

    fires = {n: Fire(f"fire{n}") for n in range(2, 10)}
    return nn.Sequential(
        _torch_convolution(weights["conv1"], stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        *(fires[n] for n in (2, 3, 4)),
        nn.MaxPool2d(3, 2),
        *(fires[n] for n in (5, 6, 7, 8)),
        nn.MaxPool2d(3, 2),
        fires[9],
        _torch_convolution(weights["conv_final"], padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _torch_convolution(weights: tuple[np.ndarray, np.ndarray], **options: int) -> Any:
    import torch

    kernel, bias = weights
    rows, cols, inputs, outputs = kernel.shape
    layer = torch.nn.Conv2d(inputs, outputs, (rows, cols), **options)  # type: ignore[arg-type]
    layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
    layer.bias.data = torch.tensor(bias)
    return layer


def _torch_dense(weights: tuple[np.ndarray, np.ndarray]) -> Any:
    import torch

    kernel, bias = weights
    layer = torch.nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = torch.tensor(kernel.T), torch.tensor(bias)
    return layer


RUNS = {
    "ours": ours,
    "ours, defaults": defaults,
    "PyTorch": pytorch,
    "tf-keras-vis": tf_keras_vis,
    "tf-keras-vis, defaults": partial(tf_keras_vis, defaults=True),
}


def measure(name: str, network: str, steps: int, repeats: int) -> dict[str, Any]:
    """In this process: the seconds of the first run and of the next; some derivatives."""
    run, derivatives = RUNS[name](network, steps)
    first, images = common.once(run)
    assert np.isfinite(np.asarray(images)).all()
    seconds = [common.once(run)[0] for _ in range(repeats)]
    sample = derivatives.ravel()[:: max(1, derivatives.size // 5000)].tolist()
    return {"first": first, "seconds": seconds, "derivatives": sample}


def compare(network: str, names: list[str], steps: int, rounds: int) -> list[common.Row]:
    """Measure in turn, check the derivatives, and make a row for each."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for _ in range(rounds):
        for name in names:
            job = ("--worker", name, network, str(steps), "2")
            found[name].append(common.in_process("all_ten_digits_in_one_run", *job, **environment))
    times, rows = {}, []
    for name in names:
        theirs, mine = found[name][0]["derivatives"], found["ours"][0]["derivatives"]
        what = f"derivatives of the logits, {name}"
        # Two pixels of a pool may be equal but for rounding: then the derivative goes to either.
        within = 1e-5 if network == "mnist" else 1e-2
        difference = common.check_equal(
            np.asarray(mine), np.asarray(theirs), within=within, what=what
        )
        times[name] = common.Timing(tuple(min(once["seconds"]) for once in found[name]))
        rows.append(
            {
                "network": network,
                "run": name,
                "seconds": times[name].median,
                "ms/step": times[name].median / steps * 1e3,
                "times ours": common.ratio(times[name], times["ours"]),
                "with compilation, s": float(np.median([once["first"] for once in found[name]])),
                "difference": difference,
                "spread": times[name].spread,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Start a process for each run."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        print(json.dumps(measure(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))))
        return
    settings = common.options(__doc__)
    steps, rounds = (50, 1) if settings.quick else (STEPS, 3)
    rows = compare("mnist", list(RUNS), steps, rounds)
    for network, some in PHOTOGRAPHS.items():
        if network not in BATCHES or "JAXVIZ_DATA" in os.environ:
            rows += compare(network, ["ours", "PyTorch"], some[not settings.quick], rounds)
    factors = {row["run"]: row["times ours"] for row in rows if row["network"] == "mnist"}
    others = ", ".join(
        f"{row['times ours']:.2f}× for {row['network']}"
        for row in rows
        if row["network"] != "mnist" and row["run"] == "PyTorch"
    )
    common.finish(
        "all_ten_digits_in_one_run",
        "Ten class images in one compiled batch, faster than either peer.",
        f"{factors['tf-keras-vis']:.1f}× faster than tf-keras-vis and {factors['PyTorch']:.2f}× "
        f"than a PyTorch loop, for ten classes × {steps} steps; than PyTorch {others}",
        rows,
        notes=[
            f"mnist: a batch of ten, {steps} steps.",
            "Pixels through a sigmoid (tf-keras-vis: clipped at the end), a roll of up to two"
            " pixels, total variation, Adam at 0.05. `defaults` is what each library does unless"
            " told otherwise: ours shifts and pays for ink, tf-keras-vis shifts, rotates, pays for"
            " a norm and shows progress.",
            "The faster of two runs in each process; medians over the processes.",
        ],
        packages=["keras", "tensorflow", "torch", "tf-keras-vis"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
