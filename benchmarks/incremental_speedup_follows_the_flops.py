"""Incremental updates against dense evaluation, network by network, beside the ratio of FLOPs.

For each network: updates and dense evaluation are compared at a grid of positions over the whole
image first (the largest difference, relative to the largest score; "effect" is the largest change
that a patch makes, relative to the same). Then the same positions are timed: dense evaluation is
what `occlude(method="dense")` does, the network on batches of pasted images; updates go through
`jaxviz.incremental`; both in one compiled loop over batches, weights as arguments, each at the
fastest of several batch sizes. "Of the FLOP ratio" is the measured factor over the one that
`explain` states; "modelled" is what the planner's cost model expects. "Auto" is what
`occlude(method="auto")` does in a run so long that compiling does not count. "Over bare" is what
updates take over the convolutions and matrix products
alone, of the same shapes and carried out the same way, on inputs that lie ready: one after the
other, as in a network, and "at once", where XLA may run several at a time.

    python -m benchmarks.incremental_speedup_follows_the_flops [--quick] [--save] [--only A,B,…]

With --only and --save, the rows of other networks are kept from the result that is there.
"""

import argparse
import gc
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks import common
from benchmarks.render import kept_rows
from jaxviz import from_keras, load_keras, logits
from jaxviz.incremental import Plan, base, make_plan, update
from jaxviz.incremental.interpret import paste
from jaxviz.jaxpr import cpu
from jaxviz.jaxpr.cpu_gradient import forward
from jaxviz.jaxpr.split import split_arrays
from jaxviz.models import mnist_cnn

networks = common.helper_of_tests("networks")
NAME = "incremental_speedup_follows_the_flops"
WITHIN = 1e-5
PRODUCTS = ("conv_general_dilated", "dot_general")
NOTES = [
    "MNIST CNN: the bundled one; SqueezeNet 1.0 and mini-XCEPTION: real files; ResNet-18 and ViT: "
    "random weights, in Flax; the others: `keras.applications` with random weights, through the "
    "adapter. All but the MNIST CNN without their softmax.",
    "Factors can exceed the FLOP ratio: XLA's convolution of 512 channels runs at a third of the "
    "speed of its matrix product, and loops over small windows stay in the cache.",
    "Tried on VGG-16, one core, GFLOP/s at batches of 8 and 16: XLA's convolution of windows "
    "of 14x14x512 105 and 47; one product for each kernel row 213 and 176; one product of all "
    "nine taps side by side 186 and 170, which needs no copy of the weights: in the whole "
    "network 4 % faster than the rows, so that is what is done, from 128 channels on. From 64 "
    "or 32 on: no change.",
    "Tried on depthwise 3x3 and 7x7: XLA's convolution 1.0 and 2.3 GFLOP/s; one multiply-add "
    "for each tap, fused, 8 and 37. MobileNetV2's update: 14.9 ms before, 2.0 ms after. On whole "
    "images, which dense evaluation does the same way: MobileNetV2 61 to 10 ms an image, "
    "EfficientNet-B0 80 to 13, ConvNeXt-Tiny 154 to 60, mini-XCEPTION 3.7 to 0.4.",
    "Tried: `optimization_barrier` to keep XLA from fusing a pool into the matrix product "
    "behind it (VGG-16's head: 1330 ms for 4 images, 1460 ms for 8): no effect, XLA removes "
    "it first. A `reduce_precision` to the same precision: 31 and 35 ms.",
    "Tried: products without the unit axes that vmap puts into them: no effect by itself; "
    "kept, as it makes the products of an update those of a dense batch.",
    "Tried: cutting regions from the padded base by vmapped dynamic_slice (a gather) and "
    "pasting by vmapped dynamic_update_slice (a scatter): together 3 % of VGG-16's update, so "
    "no other form was tried.",
    "Tried on overlapping pools: maxima of shifted views, axis by axis, instead of XLA's "
    "reduce_window: mini-XCEPTION's update 0.096 to 0.079 ms, SqueezeNet's 1.66 to 1.55 ms. "
    "Without overlap XLA's own is as fast or faster.",
    "Tried: the batch as two independent halves, for two cores: 5 % faster on SqueezeNet, "
    "MobileNetV2 and mini-XCEPTION, nothing on ResNet-18: not kept. Gathers with two indices "
    "instead of four: a quarter faster at most, of a fifth of the time: not kept.",
    "Tried: giving up windows above 70 % or 85 % of an array: VGG-16 4.98 and 4.73 GFLOP. The "
    "share is now chosen by modelled time.",
    "EfficientNet-B0 is dense after its first squeeze-and-excitation, in the first of 16 blocks: "
    "what it takes over bare is swish and scaling of whole arrays, as in dense evaluation.",
    "Tried: one plan for each residue of the positions modulo 16 instead of one for all on "
    "VGG-16: 4.57 GFLOP instead of 4.73; not worth four compilations.",
]


class Case(NamedTuple):
    """A network, its image and its grid, of which `axis` × `axis` positions are timed.

    Pixels are normally distributed, with a deviation of `scale`.
    """

    make: Callable[[], Callable]
    shape: tuple[int, int, int]
    patch: int
    stride: int
    batches: Sequence[int]
    axis: int = 4
    scale: float = 1.0


def flax(make: Callable[[nnx.Rngs], Any]) -> Callable[[], Callable]:
    """Make a network with random weights."""
    return lambda: make(nnx.Rngs(0))


def keras_file(path: str) -> Callable[[], Callable]:
    """Load a network from the folder of test data."""
    return lambda: logits(load_keras(Path(os.environ["JAXVIZ_DATA"]) / path))


def application(name: str) -> Callable[[], Callable]:
    """Build a network of Keras with random weights and statistics, and turn it into Flax."""

    def make() -> Callable:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        model = getattr(keras.applications, name)(weights=None)
        for variable in model.weights:
            shape = variable.shape
            if variable.name == "kernel":
                fan = np.prod(shape[:-1] if shape[-1] > 1 else shape[:2])  # 1: a depthwise one
                variable.assign(rng.normal(0, np.sqrt(2 / fan), shape))
            elif variable.name in ("gamma", "moving_variance"):
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif variable.name in ("bias", "beta", "moving_mean"):
                variable.assign(rng.normal(0, 0.2, shape))
        return logits(from_keras(model))

    return make


BIG, SMALL = (224, 224, 3), (4, 8, 16)
CASES = {
    "MNIST CNN": Case(mnist_cnn, (28, 28, 1), 4, 2, (8, 16, 48, 96), 15),
    "VGG-16": Case(application("VGG16"), BIG, 16, 8, (8, 16)),
    "ResNet-18": Case(flax(networks.resnet18), BIG, 16, 8, SMALL),
    "ResNet-50": Case(application("ResNet50"), BIG, 16, 8, SMALL),
    "MobileNetV2": Case(application("MobileNetV2"), BIG, 16, 8, SMALL),
    "InceptionV3": Case(application("InceptionV3"), (299, 299, 3), 16, 8, (4, 8)),
    "DenseNet-121": Case(application("DenseNet121"), BIG, 16, 8, (4, 8)),
    "EfficientNet-B0": Case(application("EfficientNetB0"), BIG, 16, 8, (4, 8), scale=100),
    "ConvNeXt-Tiny": Case(application("ConvNeXtTiny"), BIG, 16, 8, (4, 8), scale=100),
    "ViT-Tiny/16": Case(flax(networks.vit), BIG, 16, 8, SMALL),
    "SqueezeNet 1.0": Case(
        keras_file("imagenet/squeezenet_v1.0_derived.keras"), (227, 227, 3), 16, 8, SMALL
    ),
    "mini-XCEPTION": Case(
        keras_file("keras/oarriaga__face_classification/fer2013_mini_XCEPTION.102-0.66.hdf5"),
        (64, 64, 1),
        8,
        4,
        (8, 16, 48),
        15,
    ),
}
QUICK = ("MNIST CNN", "ResNet-18", "MobileNetV2")
REAL = ("SqueezeNet 1.0", "mini-XCEPTION")


def grid(case: Case, per_axis: int) -> np.ndarray:
    """Starts spread over the whole image, borders and overhanging ones included."""
    rows, columns = (
        np.unique(np.linspace(-1, dim // case.stride, per_axis).round().astype(int)) * case.stride
        for dim in case.shape[:2]
    )
    return np.array([(row, column) for row in rows for column in columns], np.int32)


def in_batches(evaluate: Callable[..., Any], batch: int) -> Callable[..., Any]:
    """Return a compiled loop over batches of starts, the last one filled up."""

    @jax.jit
    def run(starts: jax.Array, *arguments: Any) -> Any:
        full = -(-len(starts) // batch) * batch
        filled = jnp.pad(starts, ((0, full - len(starts)), (0, 0)), mode="edge")
        scores = lax.map(lambda some: evaluate(some, *arguments), filled.reshape(-1, batch, 2))
        return jax.tree.map(lambda x: x.reshape(full, *x.shape[2:])[: len(starts)], scores)

    return run


def bare(
    plan: Plan, batch: int, count: int
) -> tuple[Callable[..., Any], Callable[..., Any], list[Any]]:
    """Return the convolutions and products of an update alone, and inputs for `count` batches.

    Twice: each begins when the one before it has ended; and all at once.
    """
    rng = np.random.default_rng(0)
    steps = [s for s in plan.body.steps if s.equation.primitive.name in PRODUCTS]
    shapes = [[plan.body.program.aval(x) for x in step.equation.operands] for step in steps]
    inputs = [
        jnp.asarray(rng.standard_normal((count, batch, *step.reads[0].shape)), left.dtype)
        for step, (left, _) in zip(steps, shapes, strict=True)
    ]
    weights = [
        jnp.asarray(rng.standard_normal(step.reads[1].shape), right.dtype)
        for step, (_, right) in zip(steps, shapes, strict=True)
    ]

    def apply(step: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
        (out,) = cpu.bind(step.equation.primitive, step.params, [image, kernel], platform="cpu")
        return cpu.fence(out)

    def run(in_order: bool, inputs: list[jax.Array], weights: list[jax.Array]) -> Any:
        def one(index: jax.Array) -> list[jax.Array]:
            outs, nothing = [], jnp.int32(0)
            for step, images, weight in zip(steps, inputs, weights, strict=True):
                some = lax.dynamic_index_in_dim(images, index + nothing, keepdims=False)
                out = jax.vmap(partial(apply, step), (0, None))(some, weight).reshape(batch, -1)
                outs.append(out[:, :1])
                if in_order:  # XLA does not know that this is zero: a float may be infinite
                    nothing = (0 * out[0, 0]).astype(jnp.int32)
            return outs

        return lax.map(one, jnp.arange(count))

    return jax.jit(partial(run, True)), jax.jit(partial(run, False)), [inputs, weights]


def blocking(run: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Compile a call, run it once, and return it."""
    jax.block_until_ready(run(*arguments))
    return lambda: jax.block_until_ready(run(*arguments))


def measure(name: str, case: Case, settings: Any) -> common.Row:
    """Check one network, time it, and return its row."""
    f = case.make()
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(0, case.scale, case.shape), jnp.float32)
    patch = jnp.full((case.patch, case.patch, case.shape[2]), 0.5 * case.scale)
    step = (case.stride, case.stride)
    plan = make_plan(f, image, patch.shape[:2], step=step)
    arrays, skeleton = split_arrays(f)
    clean = jax.block_until_ready(
        jax.jit(lambda a, x: base(plan, skeleton.fill(a), x))(arrays, image)
    )

    def dense(starts: jax.Array, arrays: Any, image: jax.Array) -> Any:
        pasted = jax.vmap(partial(paste, image, patch))(starts)
        return forward(lambda arrays, images: skeleton.fill(arrays)(images), arrays, pasted)

    def incremental(starts: jax.Array, clean: Any) -> Any:
        return jax.vmap(partial(update, plan, clean, patch))(starts)

    starts = jnp.asarray(grid(case, 3 if settings.quick else case.axis))
    runs: dict[str, Callable[[], Any]] = {}
    for batch in case.batches:
        runs[f"dense {batch}"] = blocking(in_batches(dense, batch), starts, arrays, image)
        runs[f"update {batch}"] = blocking(in_batches(incremental, batch), starts, clean)
    first = case.batches[0]
    wanted = np.asarray(runs[f"dense {first}"]())
    changed = np.asarray(runs[f"update {first}"]())
    difference = common.check_equal(changed, wanted, within=WITHIN, what=name)
    effect = np.abs(wanted - np.asarray(clean.scores)).max() / np.abs(wanted).max()
    trial = common.interleave(runs, 2)
    best = {
        kind: min(case.batches, key=lambda batch: min(trial[f"{kind} {batch}"].seconds))
        for kind in ("dense", "update")
    }
    pair = {kind: runs[f"{kind} {best[kind]}"] for kind in best}
    if not any(step.reads[1].windowed for step in _products(plan)):
        in_order, at_once, inputs = bare(plan, best["update"], -(-len(starts) // best["update"]))
        pair["bare"] = blocking(in_order, *inputs)
        pair["at once"] = blocking(at_once, *inputs)
    timings = common.interleave(pair, 3 if settings.quick else 9)
    factor = common.ratio(timings["dense"], timings["update"])
    over, at_once = (
        common.ratio(timings["update"], timings[kind]) if kind in timings else None
        for kind in ("bare", "at once")
    )
    windowed = sum(step.reason == "" for step in plan.body.steps)
    return {
        "network": name,
        "windowed": windowed,
        "dense": len(plan.body.steps) - windowed,
        "effect": float(effect),
        "difference": difference,
        "GFLOP": plan.flops_dense / 1e9,
        "FLOP ratio": plan.speedup,
        "speed-up": factor,
        "of the FLOP ratio": factor / plan.speedup,
        "over bare": over,
        "at once": at_once,
        "ms dense": timings["dense"].median / len(starts) * 1e3,
        "ms update": timings["update"].median / len(starts) * 1e3,
        "batches": f"{best['dense']}, {best['update']}",
        "spread": timings["update"].spread,
    }


def alone(name: str, settings: Any) -> common.Row:
    """Return the row of a network, and let go of what was compiled for it."""
    row = measure(name, CASES[name], settings)
    jax.clear_caches()
    gc.collect()
    return row


def _products(plan: Plan) -> list[Any]:
    return [step for step in plan.body.steps if step.equation.primitive.name in PRODUCTS]


def expected(case: Case) -> common.Row:
    """Return what the cost model expects, and what `auto` makes of it."""
    image = jax.ShapeDtypeStruct(case.shape, jnp.float32)
    patch, step = (case.patch, case.patch), (case.stride, case.stride)
    plan = make_plan(case.make(), image, patch, step=step)
    model = plan.seconds_dense / plan.seconds_window
    return {"modelled": model, "auto": "incremental" if model > 1 else "dense"}


def main() -> None:
    """Measure every network, or some."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only")
    own, others = parser.parse_known_args()
    settings = common.options(__doc__, others)
    names = [name for name in CASES if name in QUICK or not settings.quick]
    if "JAXVIZ_DATA" not in os.environ:
        names = [name for name in names if name not in REAL]
    rows: dict[str, common.Row] = {}
    if own.only:
        rows = {row["network"]: row for row in kept_rows(NAME)}
        names = own.only.split(",")
    measured = common.collect(NAME, (alone(name, settings) for name in names), settings)
    rows |= {row["network"]: row for row in measured}
    table = [rows[name] | expected(CASES[name]) for name in CASES if name in rows]
    least = min(row["of the FLOP ratio"] for row in table)
    equal = max(row["difference"] for row in table)
    common.finish(
        NAME,
        "Updates are as much faster than dense evaluation as they save operations, or more.",
        f"{len(table)} networks, at least {least:.2f} of the FLOP ratio; "
        f"scores within {equal:.1e} of the score scale",
        table,
        notes=NOTES,
        packages=("flax",),
        settings=settings,
    )


if __name__ == "__main__":
    main()
