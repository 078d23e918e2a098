"""`method="auto"` is the faster of both methods, or hardly slower, with compiling counted.

For each network, size of image and grid: the whole of `occlude` from cold caches, dense and on
windows, scores compared first; and which of the two "auto" takes. "Loss" is how much longer that
takes than the better one. The choice is made of shapes alone, so it is asked for twice, before
anything is compiled and after both are: it must be the same. "Model" is what the choice goes by.

    python -m benchmarks.auto_chooses_the_faster_method [--quick] [--save]

JAX must not keep what it compiles on disk for this: the variable JAX_COMPILATION_CACHE_DIR unset.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxviz as jv
from benchmarks import common
from benchmarks.networks import in_jax, make_network
from jaxviz.jaxpr.cache import clear_caches
from jaxviz.perturbation.occluders import PatchOccluder
from jaxviz.perturbation.patches import Patches
from jaxviz.scoring.choice import Expected, choose_evaluators, expected_seconds
from jaxviz.scoring.evaluators import Dense
from jaxviz.scoring.task import make_task

NAME = "auto_chooses_the_faster_method"
flax = common.helper_of_tests("networks")
NOTES = [
    "Random weights. Plain networks are named by the channels of their convolutions, 3×3, a slash "
    "for each pool; the others are small variants of the networks that they are named after.",
]


class Case(NamedTuple):
    """A network, the side of its images, and the grid."""

    network: str
    side: int
    patch: int
    stride: int
    images: int = 1


PLAIN = {
    "4/4/": ((4,), (4,)),
    "8/16/": ((8,), (16,)),
    "16,16/32/": ((16, 16), (32,)),
    "32/64/128/": ((32,), (64,), (128,)),
    "64,64/128,128/": ((64, 64), (128, 128)),
}
FLAX: dict[str, Callable[[int], Any]] = {
    "MNIST CNN": lambda side: flax.mnist_cnn(nnx.Rngs(0)),
    "ResNet-18": lambda side: flax.resnet18(nnx.Rngs(0), width=16, classes=10),
    "MobileNetV2": lambda side: flax.mobilenet_v2(
        nnx.Rngs(0), rows=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)), last=64, classes=10
    ),
    "DenseNet": lambda side: flax.densenet121(
        nnx.Rngs(0), depths=(3, 3, 3), growth=12, stem=24, classes=10
    ),
    "ConvNeXt": lambda side: flax.convnext(
        nnx.Rngs(0), depths=(1, 1, 2), widths=(24, 48, 96), classes=10
    ),
    "ViT": lambda side: flax.vit(nnx.Rngs(0), size=side, patch=16, width=48, depth=3, classes=10),
}
QUICK = [
    Case("4/4/", 512, 32, 32),
    Case("4/4/", 64, 8, 8),
    Case("16,16/32/", 96, 16, 4),
    Case("MNIST CNN", 28, 4, 1, 8),
    Case("ViT", 64, 16, 16),
]
CASES = [
    *QUICK,
    Case("4/4/", 224, 16, 8),
    Case("4/4/", 512, 64, 128),
    Case("8/16/", 32, 4, 4),
    Case("8/16/", 128, 16, 8),
    Case("8/16/", 256, 32, 32),
    Case("8/16/", 256, 32, 8),
    Case("16,16/32/", 48, 8, 8),
    Case("16,16/32/", 160, 16, 16),
    Case("16,16/32/", 224, 32, 16),
    Case("32/64/128/", 64, 8, 8),
    Case("32/64/128/", 128, 16, 16),
    Case("32/64/128/", 128, 64, 64),
    Case("32/64/128/", 224, 32, 32),
    Case("64,64/128,128/", 64, 16, 16),
    Case("64,64/128,128/", 128, 16, 16),
    Case("64,64/128,128/", 192, 96, 96),
    Case("MNIST CNN", 28, 4, 4),
    Case("MNIST CNN", 28, 4, 1),
    Case("ResNet-18", 64, 8, 8),
    Case("ResNet-18", 128, 16, 8),
    Case("ResNet-18", 224, 32, 32),
    Case("MobileNetV2", 96, 16, 16),
    Case("MobileNetV2", 192, 16, 16),
    Case("DenseNet", 96, 16, 16),
    Case("DenseNet", 192, 16, 16),
    Case("ConvNeXt", 96, 16, 16),
    Case("ConvNeXt", 192, 32, 16),
    Case("ViT", 128, 16, 16),
]


def network(case: Case) -> Any:
    """Return the network of a case, as a scorer."""
    shape = (case.side, case.side, 1 if case.network == "MNIST CNN" else 3)
    if case.network in PLAIN:
        return in_jax(make_network(shape, PLAIN[case.network], (10,)))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return FLAX[case.network](case.side)


def chosen(f: Any, images: np.ndarray, case: Case) -> tuple[str, Expected]:
    """Return which method "auto" takes, and the seconds that its model expects of both."""
    grid = Patches(patch=case.patch, stride=case.stride).grid((case.side, case.side))
    occluder = PatchOccluder(jv.fills.constant(0.0), grid.patch)
    task = make_task(f, images, occluder, grid.starts.reshape(-1, 2))
    first = choose_evaluators("auto", grid, task, task.device.platform)[0]
    expected = expected_seconds(grid, task, task.device.platform)
    return "dense" if isinstance(first, Dense) else "incremental", expected


def from_cold(f: Any, images: np.ndarray, case: Case, method: Any) -> tuple[float, np.ndarray]:
    """Return the seconds of a whole call, and its scores."""
    clear_caches()
    jax.clear_caches()
    seconds, occ = common.once(
        lambda: jv.occlude(f, images, patch=case.patch, stride=case.stride, method=method)
    )
    return seconds, occ.scores


def measure(case: Case) -> common.Row:
    """Measure a case."""
    f = network(case)
    channels = 1 if case.network == "MNIST CNN" else 3
    shape = (case.images, case.side, case.side, channels)
    images = np.random.default_rng(0).random(shape, np.float32)
    clear_caches()
    before, expected = chosen(f, images, case)
    seconds, scores = {}, {}
    for method in ("dense", "incremental"):
        seconds[method], scores[method] = from_cold(f, images, case, method)
    common.check_equal(
        scores["incremental"], scores["dense"], within=1e-5, what=f"{case.network} at {case.side}"
    )
    after, _ = chosen(f, images, case)
    return {
        "network": case.network,
        "side": case.side,
        "patch, stride": f"{case.patch}, {case.stride}",
        "positions": scores["dense"][..., 0].size,
        "dense s": seconds["dense"],
        "incremental s": seconds["incremental"],
        "model, dense s": expected.dense,
        "model, incremental s": expected.incremental,
        "auto": before,
        "same when compiled": before == after,
        "loss": seconds[before] / min(seconds.values()) - 1,
    }


def main() -> None:
    """Measure, tell, keep."""
    settings = common.options(__doc__)
    jax.config.update("jax_enable_compilation_cache", False)
    jnp.zeros(1).block_until_ready()
    rows = common.collect(NAME, map(measure, QUICK if settings.quick else CASES), settings)
    worst = max(row["loss"] for row in rows)
    near = sum(row["loss"] <= 0.1 for row in rows)
    stable = all(row["same when compiled"] for row in rows)
    common.finish(
        NAME,
        '`method="auto"` takes the faster method, compiling counted.',
        f"within 10 % of the better one in {near} of {len(rows)} cases, {worst:.0%} off at "
        f"most; {'the same' if stable else 'NOT the same'} whatever is compiled",
        rows,
        notes=NOTES,
        settings=settings,
    )


if __name__ == "__main__":
    main()
