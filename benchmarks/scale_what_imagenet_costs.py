"""What it costs to occlude the 50,000 validation images of ImageNet, at every fourth pixel.

Patch 16, stride 4, images of 224×224: 2,809 positions an image, 140 million in all. `estimate`
counts the operations, and measures this machine by a probe of some seconds. Other devices are not
here: their time is the operations divided by what such a device sustains, which is assumed to be
the stated share of its maker's peak. That is computed, not measured, and called so.

    python -m benchmarks.scale_what_imagenet_costs [--quick] [--save]

--save also writes the page docs/imagenet.md.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.render import markdown_table
from jaxviz._choices import Method
from jaxviz.bench import networks
from jaxviz.progress import duration
from jaxviz.scale.estimate import Estimate, estimate

NAME = "scale_what_imagenet_costs"
PAGE = Path(__file__).parent.parent / "docs" / "imagenet.md"
IMAGES, PATCH, STRIDE = 50_000, 16, 4
METHODS: tuple[Method, ...] = ("dense", "incremental")


class Elsewhere(NamedTuple):
    """Devices that are not here: how many, the peak of one by its maker, and the assumed share."""

    name: str
    count: int
    peak: float
    share: float

    def describe(self) -> str:
        """Say what is assumed."""
        each = f"{self.share:.0%} of {self.peak / 1e12:,.0f} Tflop/s in bfloat16"
        return f"{self.name}: {self.count} × {each}"


ELSEWHERE = (
    Elsewhere("1 GPU (H100 SXM)", 1, 989e12, 0.3),
    Elsewhere("64 TPU cores (32 chips v4)", 32, 275e12, 0.3),
)
PROSE = """# What ImageNet costs

Occluding the {images:,} validation images of ImageNet (224×224) with a patch of {patch} at stride
{stride}: {positions:,} positions an image, {total:,.0f} million in all. This page is made by
`python -m benchmarks.scale_what_imagenet_costs --save`, which asks `jaxviz.estimate`:

```python
jv.estimate(f, (224, 224, 3), {images}, patch={patch}, stride={stride}, method="incremental")
```

{table}

- **1 CPU, measured**: {cpu}, {cores} cores, in float32. A probe of some seconds ran blocks of one
  image's positions, with random weights; the time of the whole run is extrapolated from it.
{elsewhere}
  These are operations divided by the assumed rate, not measurements: no such device was at hand.
  Reading and decoding {images:,} JPEG pictures, which a CPU does beside, is not in them, and for
  the fastest rows takes longer than the computing. Windows are small, so that incremental may
  sustain a smaller share of the peak than dense.
- **Scores** of all 1,000 classes take {stored:,.0f} GB in float32 before compression; those of the
  five best classes of each image in float16 (`top=5, stored="float16"`) {small:,.1f} GB.
- A run of days is one that is interrupted: the same command goes on where it stopped. `--share i/n`
  or `--distributed` cut it into parts.
- Machines that are rented differ: another one of this kind, or the same one on another day, did
  the same work in a third of the time. `jv.estimate` measures yours.

Measured on {date}; {versions}.
"""


def row_of(model: str, told: Estimate) -> common.Row:
    """Return the row of one network by one method."""
    times = {
        f"{place.name}, computed": duration(told.elsewhere(place.share * place.peak, place.count))
        for place in ELSEWHERE
    }
    return {
        "network": model,
        "method": told.method,
        "Pflop": told.operations / 1e15,
        "images/s here": 1 / told.image_seconds,
        "1 CPU, measured": duration(told.seconds),
        **times,
    }


def page(rows: list[common.Row], told: Estimate, date: str) -> str:
    """Return the page, in Markdown."""
    machine = common.machine()
    return PROSE.format(
        images=IMAGES,
        patch=PATCH,
        stride=STRIDE,
        positions=told.positions // IMAGES,
        total=told.positions / 1e6,
        table=markdown_table(rows),
        cpu=machine["cpu"],
        cores=machine["cores"],
        elsewhere="\n".join(f"- **{place.describe()}**, computed." for place in ELSEWHERE),
        stored=told.stored / 1e9,
        small=told.positions * 5 * 2 / 1e9,
        date=date,
        versions=", ".join(f"{name} {version}" for name, version in common.versions().items()),
    )


def foretell(models: Sequence[str], quick: bool, told: list[Estimate]) -> Iterator[common.Row]:
    """Yield the row of each network by each method, and add what was estimated."""
    for model in models:
        f = networks.make_network(getattr(networks, model), 224)
        for method in METHODS:
            found = estimate(
                f,
                (224, 224, 3),
                IMAGES,
                patch=PATCH,
                stride=STRIDE,
                fill=0.5,
                method=method,
                probe_seconds=1 if quick else 8,
            )
            told.append(found)
            yield row_of(model, found)


def main() -> None:
    """Measure, print, and keep."""
    settings = common.options(__doc__)
    models = ("squeezenet", "mobilenet_v2", "resnet50", "vgg16")
    models = models[:1] if settings.quick else models
    told: list[Estimate] = []
    rows = common.collect(NAME, foretell(models, settings.quick, told), settings)
    if settings.save:
        PAGE.write_text(
            page(rows, told[-1], datetime.now(UTC).date().isoformat()), encoding="utf-8"
        )
    least, most = (rows[i]["1 CPU, measured"] for i in (1, -1))
    common.finish(
        NAME,
        "What occluding ImageNet's 50,000 validation images at stride 4 costs.",
        f"On this CPU, incremental: {rows[1]['network']} {least}, {rows[-1]['network']} {most}.",
        rows,
        notes=[
            *(f"{place.describe()}, computed, not measured." for place in ELSEWHERE),
            "The page is docs/imagenet.md.",
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
