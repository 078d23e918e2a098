"""Approximate updates: speed-up over dense evaluation against the error, as windows stop growing.

For each network and each field (the pixels beyond the patch to which its effect is followed): the
map of score drops of the clean top class over the whole grid is compared with the exact one
(largest difference relative to the largest exact drop; SSIM), and some positions are timed against
dense evaluation. VGG-16 has random weights (He); SqueezeNet 1.0 is the real one, on a photograph.

    python -m benchmarks.incremental_approximation_trades_error_for_speed [--quick] [--save]
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, networks
from benchmarks.incremental_speedup_follows_the_flops import blocking, in_batches
from jaxviz.incremental import Plan, base, calibrate, make_plan, update
from jaxviz.incremental.interpret import paste
from jaxviz.incremental.program import split_arrays

PATCH, STRIDE, BATCHES = 16, 8, (8, 16)
FIELDS = (None, 128, 96, 64, 48, 32, 24, 16, 8, 0)


def random_vgg16() -> tuple[Callable, jax.Array]:
    """VGG-16 with random weights, on noise in blobs."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((14, 14, 3))
    image = jax.image.resize(jnp.asarray(coarse, jnp.float32), (224, 224, 3), "cubic")
    return networks.in_jax(networks.vgg16()), image


def squeezenet() -> tuple[Callable, jax.Array]:
    """SqueezeNet 1.0 without its softmax, on the photograph of a zebra."""
    from PIL import Image

    import jaxviz

    folder = common.data_folder()
    model = jaxviz.load_keras(folder / "imagenet" / "squeezenet_v1.0_derived.keras")
    photo = Image.open(folder / "photos" / "captum_zebra.jpg").convert("RGB").resize((227, 227))
    pixels = np.asarray(photo, np.float32)[..., ::-1] - np.array([104, 117, 123], np.float32)
    return jaxviz.logits(model), jnp.asarray(pixels)


def ssim(a: np.ndarray, b: np.ndarray, side: int = 7) -> float:
    """Mean structural similarity of two maps, uniform windows, range that of the second.

    Wang, Bovik, Sheikh, Simoncelli 2004, equation 13, K1 = 0.01, K2 = 0.03.
    """
    spread = float(b.max() - b.min())
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(m, (side, side)) for m in (a, b))
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    var_x, var_y = x.var((2, 3), ddof=1), y.var((2, 3), ddof=1)
    centred = (x - mean_x[..., None, None]) * (y - mean_y[..., None, None])
    covariance = centred.sum((2, 3)) / (side * side - 1)
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def measure(
    name: str, f: Callable, image: jax.Array, settings: Any
) -> tuple[list[common.Row], str]:
    """Return one row for each field, and what calibration finds."""
    last = [dim - PATCH for dim in image.shape[:2]]
    axes = [np.arange(0, end + 1, STRIDE) for end in last]
    starts = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2), jnp.int32)
    some = starts[:: max(1, len(starts) // 48)][:48]
    patch = jnp.broadcast_to(image.mean((0, 1)), (PATCH, PATCH, 3))
    arrays, skeleton = split_arrays(f)

    def dense(starts: jax.Array, arrays: Any, image: jax.Array) -> Any:
        return skeleton.fill(arrays)(jax.vmap(partial(paste, image, patch))(starts))

    def incremental(plan: Plan) -> Callable[..., Any]:
        return lambda starts, clean: jax.vmap(partial(update, plan, clean, patch))(starts)

    loops = {batch: in_batches(dense, batch) for batch in (4, 8, 16)}
    trial = {batch: blocking(loop, some[:16], arrays, image) for batch, loop in loops.items()}
    times = common.interleave({str(batch): run for batch, run in trial.items()}, 2)
    quickest = min(trial, key=lambda batch: min(times[str(batch)].seconds))
    rows, exact = [], np.zeros(0)
    for field in FIELDS if not settings.quick else (None, 32, 0):
        plan = make_plan(f, image, (PATCH, PATCH), step=(STRIDE, STRIDE), field=field)
        clean = jax.jit(lambda a, x, plan=plan: base(plan, skeleton.fill(a), x))(arrays, image)
        target = int(jnp.argmax(clean.scores))
        loop = in_batches(incremental(plan), 16)
        drops = np.asarray(clean.scores[target] - loop(starts, clean)[:, target], np.float64)
        drops = drops.reshape(len(axes[0]), len(axes[1]))
        exact = drops if field is None else exact
        pair = {"dense": trial[quickest], "update": blocking(loop, some[:16], clean)}
        timings = common.interleave(pair, 3 if settings.quick else 5)
        rows.append(
            {
                "network": name,
                "field": "exact" if field is None else field,
                "FLOP ratio": plan.speedup,
                "speed-up": common.ratio(timings["dense"], timings["update"]),
                "largest error": float(np.abs(drops - exact).max() / np.abs(exact).max()),
                "SSIM": ssim(drops, exact),
            }
        )
        print(rows[-1], flush=True)
    sample = starts[:: len(starts) // 12]
    patches = jnp.broadcast_to(patch, (len(sample), *patch.shape))
    scale = float(np.abs(exact).max())
    found = calibrate(f, image, patches, sample, tolerance=0.05 * scale, step=(STRIDE, STRIDE))
    note = (
        f"{name}: `calibrate` on {found.checked} positions, tolerance 5 % of the largest drop: "
        f"field {found.field}, largest error {found.error / scale:.1%}."
    )
    return rows, note


def main() -> None:
    """Measure both networks."""
    settings = common.options(__doc__)
    cases = {"VGG-16": random_vgg16}
    if "JAXVIZ_DATA" in os.environ:
        cases["SqueezeNet 1.0"] = squeezenet
    rows, notes = [], []
    for name, make in cases.items():
        some, note = measure(name, *make(), settings)
        rows, notes = rows + some, [*notes, note]
    good = [row for row in rows if row["SSIM"] >= 0.95]
    best = {
        name: max((row["speed-up"] for row in good if row["network"] == name), default=0.0)
        for name in cases
    }
    common.finish(
        "incremental_approximation_trades_error_for_speed",
        "Cutting the windows short makes updates faster; how wrong that makes the map is measured.",
        "; ".join(f"{name}: {best[name]:.1f}× dense at SSIM of at least 0.95" for name in cases),
        rows,
        notes=[
            "Dense and updates in batches of 16 of the same 16 positions, dense at its fastest of "
            "4, 8 and 16; maps over the whole grid.",
            *notes,
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
