"""Deletion, insertion and weight randomisation against Quantus, xplique and torch-cam, timed.

Ten images, 100 steps, networks with the same random weights everywhere: the layers of the MNIST
CNN, and a small network of six convolutions. Quantus has no insertion, so that ours is timed
without it there. Results are equal first: per image, or, as xplique has no other, in the mean.
torch-cam is tried at two batch sizes; the others' batch is a step of all images. The randomisation
test makes saliency maps of every network that is randomised from the top down; ours compares them
by three measures, Quantus by one. First calls, which compile, stand beside the second ones, which
are timed in turn. Memory is the peak of a process of its own, above what it held before the call.

    python -m benchmarks.metrics_beat_their_peers [--quick] [--save]
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common, networks, peers
from jaxviz import attribution, metrics
from jaxviz.bench.meters import PeakMemory

NAME = "metrics_beat_their_peers"
WITHIN = 1e-4
MB = 1e6
COUNT, STEPS = 10, 100
MNIST = ("layers of the MNIST CNN", 30, ((32, 64),), (128, 10))
SIX = ("six convolutions", 60, ((16, 16), (32, 32), (64, 64)), (10,))


class Setting(NamedTuple):
    """A network, what is judged on it, and how often it is timed."""

    name: str
    network: networks.Network
    images: np.ndarray
    maps: np.ndarray
    classes: np.ndarray
    repeats: int

    @property
    def scorer(self) -> Any:
        """The network in JAX."""
        return networks.in_jax(self.network)

    @property
    def in_torch(self) -> Any:
        """The network in PyTorch."""
        return networks.in_torch(self.network)


Curves = Callable[[], np.ndarray]  # -> areas (2,), or scores (N, steps)


def make_setting(of: Any, *, count: int = COUNT, repeats: int = 3) -> Setting:
    """Draw a network, images and maps."""
    name, side, blocks, widths = of
    shape = (side, side, 1)
    network = networks.make_network(shape, blocks, widths)
    rng = np.random.default_rng(1)
    images = rng.random((count, *shape), np.float32)
    maps = rng.standard_normal(images.shape[:3], np.float32)
    classes = np.asarray(networks.in_jax(network)(images)).argmax(-1)
    return Setting(name, network, images, maps, classes, repeats)


def ours(s: Setting, *, both: bool) -> Curves:
    """The mean areas of deletion and insertion, or deletion's scores without the clean one."""
    how: Any = {"target": s.classes, "steps": STEPS, "fill": 0.0}

    def run() -> np.ndarray:
        deletion = metrics.deletion(scorer, s.images, s.maps, **how)
        if not both:
            return deletion.scores[:, 1:]
        insertion = metrics.insertion(scorer, s.images, s.maps, **how)
        return np.asarray([deletion.auc.mean(), insertion.auc.mean()])

    scorer = s.scorer
    return run


def torch_cam(s: Setting, batch_size: int) -> Curves:
    """Both at once."""
    peers.import_torch_peer("torchcam")
    from torchcam.metrics import DeletionInsertionMetric

    given: Any = peers.GivenMaps(s.in_torch, s.maps)
    images, classes = peers.to_torch(s.images), s.classes.tolist()

    def run() -> np.ndarray:
        metric = DeletionInsertionMetric(given, steps=STEPS, batch_size=batch_size)
        metric.update(images, class_idx=classes)
        return np.asarray(list(metric.summary().values()))

    return run


def xplique(s: Setting, batch_size: int) -> Curves:
    """One after the other; a step of all images is a batch."""
    from xplique.metrics import Deletion, Insertion

    model = networks.in_keras(s.network, s.images.shape[1:])  # pyright: ignore
    targets = np.eye(10, dtype=np.float32)[s.classes]
    made = [
        kind(model, s.images, targets, steps=STEPS, batch_size=batch_size)
        for kind in (Deletion, Insertion)
    ]
    return lambda: np.asarray([metric.evaluate(s.maps) for metric in made])


def quantus(s: Setting, batch_size: int) -> Curves:
    """Deletion, as pixel flipping."""
    library = peers.import_torch_peer("quantus")
    at_once = s.maps[0].size // STEPS
    off: Any = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
    metric = library.PixelFlipping(features_in_step=at_once, perturb_baseline=0.0, abs=False, **off)
    given: Any = {"model": s.in_torch, "x_batch": peers.channels_first(s.images)}
    given |= {"y_batch": s.classes, "softmax": False, "channel_first": True, "device": "cpu"}
    return lambda: np.asarray(
        metric(**given, a_batch=s.maps[:, None].copy(), batch_size=batch_size)
    )


def fastest(make: Callable[[Setting, int], Curves], s: Setting, sizes: tuple[int, ...]) -> Any:
    """Return a peer at its best batch size, that size, and the seconds of its first call."""
    tried = {}
    for size in sizes:
        run = make(s, size)
        first = common.once(run)[0]
        tried[size] = (common.once(run)[0], first, run)
    size = min(tried, key=lambda n: tried[n][0])
    _, first, run = tried[size]
    return run, size, first


def curve_rows(s: Setting, quick: bool) -> Iterator[common.Row]:
    """Time deletion and insertion."""
    calls: Any = (
        ("xplique", xplique, True, (COUNT,)),  # a step is what it runs at once
        ("torch-cam", torch_cam, True, (64,) if quick else (16, 64)),
        ("Quantus", quantus, False, (COUNT,)),
    )
    for peer, make, both, sizes in calls:
        theirs, size, their_first = fastest(make, s, sizes)
        mine = ours(s, both=both)
        first = common.once(mine)[0]
        what = f"{s.name}: {peer}"
        off = common.check_equal(mine(), theirs(), within=WITHIN, what=what)
        what = "deletion and insertion" if both else "deletion"
        yield timed_row(s, what, peer, mine, theirs, first, their_first, off) | {
            "at": f"batches of {size}"
        }


def timed_row(
    s: Setting,
    what: str,
    peer: str,
    mine: Callable[[], Any],
    theirs: Callable[[], Any],
    first: float,
    their_first: float,
    off: float,
) -> common.Row:
    """Time both in turn."""
    timings = common.interleave({"ours": mine, peer: theirs}, s.repeats)
    return {
        "network": s.name,
        "metric": what,
        "peer": peer,
        "ours, s": timings["ours"].median,
        "theirs, s": timings[peer].median,
        "times faster": common.ratio(timings[peer], timings["ours"]),
        "our first call, s": first,
        "their first call, s": their_first,
        "spread, ours": timings["ours"].spread,
        "spread, theirs": timings[peer].spread,
        "difference": off,
    }


def randomization_row(s: Setting) -> common.Row:
    """Time the randomisation test on saliency; the clean maps are equal first."""
    import torch

    library = peers.import_torch_peer("quantus")
    off: Any = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
    spearman = library.similarity_func.correlation_spearman
    metric = library.MPRT(similarity_func=spearman, abs=False, **off)
    model, scorer = s.in_torch, s.scorer
    pixels, target = peers.channels_first(s.images), s.classes

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        x = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
        picked = model(x).gather(1, torch.as_tensor(targets).reshape(-1, 1)).sum()
        return torch.autograd.grad(picked, x)[0].numpy()

    def theirs() -> Any:
        return metric(
            model=model, x_batch=pixels, y_batch=target, explain_func=explain,
            softmax=False, channel_first=True, device="cpu",
        )  # fmt: skip

    def saliency(f: Any, x: np.ndarray) -> Any:
        return attribution.saliency(f, x, target=target)

    def mine() -> Any:
        return metrics.randomization(saliency, scorer, s.images)

    clean = saliency(scorer, s.images).values[..., 0]
    difference = common.check_equal(
        clean, explain(model, pixels, target)[:, 0], within=WITHIN, what="saliency"
    )
    first, their_first = common.once(mine)[0], common.once(theirs)[0]
    return timed_row(
        s, "randomization", "Quantus", mine, theirs, first, their_first, difference
    ) | {"at": f"{len(mine().layers)} layers"}


def memory(steps: int, count: int) -> common.Row:
    """Return the peak of a process that computes a deletion curve."""
    s = make_setting(SIX, count=count)
    scorer = s.scorer
    how: Any = {"target": s.classes, "fill": 0.0, "batch_size": 16}
    metrics.deletion(scorer, s.images[:2], s.maps[:2], steps=4, **how | {"target": s.classes[:2]})
    with PeakMemory() as meter:
        metrics.deletion(scorer, s.images, s.maps, steps=steps, **how)
    return {"metric": "memory of deletion", "network": s.name, "peak, MB": meter.bytes / MB} | {
        "at": f"{count} images, {steps} steps"
    }


def rows(quick: bool) -> Iterator[common.Row]:
    """Time both networks, then look at the memory."""
    for of in (MNIST,) if quick else (MNIST, SIX):
        s = make_setting(of, repeats=1 if quick else 3)
        yield from curve_rows(s, quick)
        yield randomization_row(s)
    for steps, count in ((50, 2),) if quick else ((50, 4), (800, 4), (50, 64)):
        yield common.in_process(NAME, "--worker", str(steps), str(count))


def main() -> None:
    """Time everything."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        print(json.dumps(memory(int(sys.argv[2]), int(sys.argv[3]))))
        return
    settings = common.options(__doc__)
    peers.quiet()
    peers.threads()
    found = common.collect(NAME, rows(settings.quick), settings)
    timed = [row for row in found if "times faster" in row]
    curves = [row["times faster"] for row in timed if row["metric"] != "randomization"]
    random = [row["times faster"] for row in timed if row["metric"] == "randomization"]
    common.finish(
        NAME,
        "Curves are faster than in the libraries that have them; the randomisation test of the "
        "MNIST CNN's layers is not.",
        f"curves {min(curves):.1f} to {max(curves):.1f}× as fast, the randomisation test"
        f" {min(random):.1f} to {max(random):.1f}×",
        found,
        notes=[
            f"{COUNT} images, {STEPS} steps, fill 0; images of 30×30 and of 60×60, one channel.",
            "Ours compares randomised maps by SSIM, Spearman and cosine, Quantus by Spearman.",
            "Ours takes the batch size by itself, but for memory: 16.",
        ],
        packages=["quantus", "torchcam", "xplique", "torch", "tensorflow"],
        settings=settings,
    )


if __name__ == "__main__":
    main()
