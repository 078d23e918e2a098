"""What it costs to occlude the 50,000 validation images of ImageNet, at every fourth pixel.

Patch 16, stride 4, images of 224×224: 2,809 windows an image, 140 million windows. `estimate`
counts the operations, and measures this machine. Other devices are not here: their time is the
operations divided by what such a device sustains, which is assumed to be the stated share of its
maker's peak. Those rows are arithmetic, not measurement.

    python -m benchmarks.scale_what_imagenet_costs [--quick] [--save]
"""

from benchmarks import common
from jaxviz.scale import networks
from jaxviz.scale.estimate import Estimate, duration, estimate

NAME = "scale_what_imagenet_costs"
IMAGES = 50_000
# Devices, how many, peak operations per second of one in bfloat16, and the share that is assumed.
ELSEWHERE = {
    "1 GPU (H100, bfloat16, assumed)": (1, 989e12, 0.3),
    "64 TPU cores (32 chips v4, bfloat16, assumed)": (32, 275e12, 0.3),
}


def rows_of(model: str, told: Estimate) -> list[common.Row]:
    """Return the rows of one network by one method."""
    common_to_all = {
        "model": model,
        "method": told.method,
        "windows": told.windows,
        "Pflop": told.operations / 1e15,
        "scores, GB": told.stored / 1e9,
    }
    here = {**common_to_all, "on": "this CPU, measured", "time": duration(told.seconds)}
    others = [
        {
            **common_to_all,
            "on": f"{name}, {share:.0%} of {peak / 1e12:,.0f} Tflop/s each",
            "time": duration(told.elsewhere(share * peak, count)),
        }
        for name, (count, peak, share) in ELSEWHERE.items()
    ]
    return [here, *others]


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    models = ("squeezenet",) if settings.quick else ("squeezenet", "resnet50", "vgg16")
    rows = []
    for model in models:
        f = networks.make_network(getattr(networks, model), 224)
        for method in ("dense", "incremental"):
            told = estimate(
                f,
                (224, 224, 3),
                IMAGES,
                16,
                4,
                fill=0.5,
                method=method,
                probe_seconds=3 if settings.quick else 20,
            )
            rows += rows_of(model, told)
    last = rows[-len(ELSEWHERE) - 1]
    common.finish(
        NAME,
        "What occluding ImageNet's 50,000 validation images at stride 4 costs.",
        f"{last['model']}, {last['method']}: {last['time']} on this CPU.",
        rows,
        notes=[
            "Scores of all 1,000 classes in float32; `top=5` with float16 takes a 400th of it.",
            "Rows marked assumed were not measured: no such device was at hand.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
