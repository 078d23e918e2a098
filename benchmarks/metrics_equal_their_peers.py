"""Each metric of `jaxviz.metrics` gives the number of the libraries that compute the same.

One small network, its weights drawn once and carried over to PyTorch and Keras, four random images
and maps. What a metric draws at random is drawn by ours and given to the peer. A row with a
difference, max |ours − theirs| / max |theirs| over the images, is a case in which both must agree,
or the run ends. A row with a finding is one in which the peer computes something else than it says,
or leaves out what matters; ours is beside it. The numbers of a row are means over images.

    python -m benchmarks.metrics_equal_their_peers [--quick] [--save]
"""

import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

from benchmarks import common, metrics_of_quantus, peers
from benchmarks.metric_cases import COUNT, KEY, SIDE, STEPS, Both, Case, setting
from jaxviz import attribution, metrics
from jaxviz.jaxpr.keys import generator
from jaxviz.perturbation.shifts import ShiftOccluder

NAME = "metrics_equal_their_peers"
CURVES: Any = {"deletion": metrics.deletion, "insertion": metrics.insertion}


def torch_cam_cases() -> Iterator[Case]:
    """Both curves, image by image, and the four pixels that are worked out by hand."""
    peers.import_torch_peer("torchcam")
    import torch
    from torchcam.metrics import DeletionInsertionMetric

    def area(model: Any, image: np.ndarray, values: np.ndarray, target: int, **how: Any) -> Any:
        extractor: Any = peers.GivenMaps(model, values[None])
        metric = DeletionInsertionMetric(extractor, **how)
        metric.update(peers.to_torch(image[None]), class_idx=target)
        return [metric.summary()[f"{kind}_auc"] for kind in CURVES]

    def by_hand() -> Both:
        four = np.asarray([[0.4, 0.3], [0.2, 0.1]], np.float32)
        image = four[..., None]
        found = [
            curve(lambda x: x.sum((1, 2)), image, four, steps=2, fill=0.0).auc
            for curve in CURVES.values()
        ]
        total: Any = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        theirs = area(total, 4 * image, four, 0, steps=2)  # the mean of four times as much
        if not np.allclose(found, (0.4, 0.6), rtol=1e-6):
            sys.exit(f"deletion and insertion must be 0.4 and 0.6: got {found}.")
        return found, theirs

    yield Case("deletion, insertion", "torch-cam", "four pixels, their sum: 0.4, 0.6", by_hand)
    for channels, fill in ((1, 0.0), (3, 0.5)):

        def both(channels: int = channels, fill: float = fill) -> Both:
            s = setting(channels)
            how: Any = {"target": s.classes, "steps": STEPS, "fill": fill}
            found = [curve(s.ours, s.images, s.maps, **how).auc for curve in CURVES.values()]
            given = {"steps": STEPS, "baseline": torch.tensor(fill)}
            rows = zip(s.images, s.maps, s.classes.tolist(), strict=True)
            return np.stack(found, -1), [area(s.in_torch, *row, **given) for row in rows]

        case = f"{channels} channel{'s' * (channels > 1)}, fill {fill:g}, each image"
        yield Case("deletion, insertion", "torch-cam", case, both)


def xplique_cases() -> Iterator[Case]:
    """One number for all images; steps that do not divide the pixels; masks; maps of zeros."""
    import keras
    from xplique.metrics import Deletion, Insertion, MuFidelity

    for name, peer in (("deletion", Deletion), ("insertion", Insertion)):

        def curve(name: str = name, peer: Any = peer) -> Both:
            s = setting(3)
            how: Any = {"target": s.classes, "steps": STEPS, "fill": 0.5}
            found = CURVES[name](s.ours, s.images, s.maps, **how).auc.mean()
            theirs = peer(s.in_keras, s.images, s.one_hot, steps=STEPS, baseline_mode=0.5)
            return found, theirs.evaluate(s.maps)

        yield Case(name, "xplique", "3 channels, the mean over images: it has no other", curve)

    def uneven() -> Both:
        values = np.arange(10, 0, -1, dtype=np.float32).reshape(1, 2, 5)
        images = np.full((1, 2, 5, 1), 0.1, np.float32)
        found = metrics.deletion(lambda x: x.sum((1, 2)), images, values, steps=4, fill=0.0)
        inputs = keras.Input((2, 5, 1))
        total = keras.Model(inputs, keras.ops.sum(inputs, (1, 2)))
        theirs = Deletion(total, images, np.ones((1, 1), np.float32), steps=4)
        return found.auc, [theirs.evaluate(values)]

    finding = "takes steps of 2 and 3 pixels as equally wide; under a straight line lies ½"
    yield Case("deletion", "xplique", "ten equal pixels, their sum, 4 steps", uneven, finding)
    samples, grid = 50, 9

    def masked() -> Both:
        s = setting(3, 2 * grid)
        drawn = generator(KEY).random((samples, grid * grid)).astype(np.float32)
        how: Any = {"grid": grid, "samples": samples, "fill": 0.5, "key": KEY}
        found = metrics.mu_fidelity(s.ours, s.images, s.maps, target=s.classes, **how)
        theirs = []
        with mock.patch("tensorflow.random.uniform", lambda *_, **__: drawn):
            for i in range(COUNT):
                one = (s.images[i : i + 1], s.one_hot[i : i + 1])
                peer = MuFidelity(s.in_keras, *one, nb_samples=samples, baseline_mode=0.5)
                theirs.append(peer.evaluate(s.maps[i : i + 1]))
        return found, theirs

    yield Case("mu_fidelity", "xplique", f"{samples} masks of {grid}×{grid}, each image", masked)

    def nothing() -> Both:
        s = setting(3, 2 * grid)
        zeros = np.zeros_like(s.maps)
        found = metrics.mu_fidelity(s.ours, s.images, zeros, target=s.classes, samples=samples)
        peer = MuFidelity(s.in_keras, s.images, s.one_hot, nb_samples=samples)
        return found, np.full(COUNT, peer.evaluate(zeros))

    finding = "says 0 of a map that has no correlation with anything; ours counts as undefined"
    yield Case("mu_fidelity", "xplique", "maps of zeros", nothing, finding)


def captum_cases() -> Iterator[Case]:
    """Infidelity, plain and scaled, and sensitivity, under the same noise."""
    import torch
    from captum.attr import Saliency
    from captum.metrics import infidelity, sensitivity_max

    samples, noise, radius = 20, 0.1, 0.02
    for scaled in (False, True):

        def shifted(scaled: bool = scaled) -> Both:
            s = setting(3)
            values = attribution.saliency(s.ours, s.images, target=s.classes).values
            how: Any = {"noise": noise, "samples": samples, "scaled": scaled, "key": KEY}
            found = metrics.infidelity(s.ours, s.images, values, target=s.classes, **how)
            occluder, shape = ShiftOccluder(KEY, jnp.float32(noise)), s.images.shape[1:]
            at = [jnp.asarray([i]) for i in range(samples)]
            shifts = peers.to_torch(np.stack([occluder.shift(shape, np.float32, i) for i in at]))
            theirs = [
                infidelity(
                    s.in_torch,
                    lambda x: (shifts, x - shifts),  # pyright: ignore
                    peers.to_torch(s.images[i : i + 1]),
                    peers.to_torch(values[i : i + 1]),
                    target=int(s.classes[i]),
                    n_perturb_samples=samples,
                    normalize=scaled,
                ).item()
                for i in range(COUNT)
            ]
            return found, theirs

        case = f"saliency{', scaled' * scaled}, {samples} draws, each image"
        yield Case("infidelity", "captum", case, shifted, within=1e-4)

    def largest(ours: Any, theirs: Any) -> Both:
        s, draw = setting(), generator(KEY)
        moves = iter([draw.uniform(-radius, radius, s.images.shape) for _ in range(samples)])
        found = metrics.max_sensitivity(ours, s.images, samples=samples, radius=radius, key=KEY)
        peer = sensitivity_max(
            lambda x: (theirs(x[0]),) if isinstance(x, tuple) else theirs(x),
            peers.to_torch(s.images),
            lambda x: x + peers.to_torch(next(moves).astype(np.float32)),
            n_perturb_samples=samples,
            max_examples_per_batch=COUNT,
        )
        return found, peer.numpy()

    def saliency() -> Both:
        s = setting()
        explain = Saliency(s.in_torch)
        target = torch.from_numpy(s.classes)
        return largest(
            lambda x: attribution.saliency(s.ours, x, target=s.classes),
            lambda x: explain.attribute(x, target, abs=False),
        )

    def zeros() -> Both:
        at = setting().images
        return largest(lambda x: (x - at)[..., 0], lambda x: x - peers.to_torch(at))

    case = f"saliency, {samples} draws, each image"
    yield Case("max_sensitivity", "captum", case, saliency, within=1e-4)
    finding = "divides by 1 where the map is all zeros: an absolute number among relative ones"
    yield Case("max_sensitivity", "captum", "maps of zeros", zeros, finding)


def grad_cam_cases() -> Iterator[Case]:
    """ROAD without noise: their sparse solver, our fixed number of steps."""
    road = peers.import_torch_peer("pytorch_grad_cam.metrics.road")
    removal = peers.import_torch_peer("pytorch_grad_cam.metrics.perturbation_confidence")

    def both() -> Both:
        s = setting(3)
        found = metrics.road(s.ours, s.images, s.maps, target=s.classes, noise=0.0).value
        # In 0…1, as theirs takes "the least relevant" from 1 − map.
        maps = (s.maps - s.maps.min()) / np.ptp(s.maps)
        targets = [lambda scores, k=k: scores[k] for k in s.classes]
        means = []
        for remove in (removal.RemoveLeastRelevantFirst, removal.RemoveMostRelevantFirst):
            scores = [
                removal.PerturbationConfidenceMetric(
                    remove(percent, road.NoisyLinearImputer(noise=0.0))
                )(peers.to_torch(s.images), maps, targets, s.in_torch)
                for percent in range(10, 100, 10)
            ]
            means.append(np.mean(scores, 0))
        return found, (means[0] - means[1]) / 2

    yield Case("road", "pytorch-grad-cam", "10…90 % of the pixels, no noise, each image", both)


def compare(case: Case) -> common.Row:
    """Run a case both ways."""
    ours, theirs = (np.asarray(x, np.float64) for x in case.run())
    row = {"metric": case.metric, "peer": case.peer, "case": case.case}
    row |= {"ours": _mean(ours), "theirs": _mean(theirs)}
    what = f"{case.metric}, {case.peer}, {case.case}"
    if case.finding is None:
        row["difference"] = common.check_equal(ours, theirs, within=case.within, what=what)
    elif np.allclose(ours, theirs, rtol=1e-3):
        sys.exit(f"{what}: both agree, and should not.")
    return {**row, "what the peer does": case.finding or "the same"}


def _mean(values: np.ndarray) -> float | str:
    return "undefined" if np.isnan(values).any() else float(values.mean())


def main() -> None:
    """Run every case."""
    settings = common.options(__doc__)
    peers.quiet()
    makers = (
        torch_cam_cases,
        xplique_cases,
        captum_cases,
        grad_cam_cases,
        metrics_of_quantus.curves,
        metrics_of_quantus.maps_alone,
        metrics_of_quantus.sanity,
        metrics_of_quantus.batches,
    )
    made = [list(make()) for make in makers]
    cases = [case for group in made for case in (group[:1] if settings.quick else group)]
    rows = common.collect(NAME, (compare(case) for case in cases), settings)
    equal = [row["difference"] for row in rows if "difference" in row]
    common.finish(
        NAME,
        "Each metric gives the number of the libraries that compute the same.",
        f"{len(equal)} cases agree, to {max(equal):.1e} at worst;"
        f" {len(rows) - len(equal)} show what a library computes otherwise",
        rows,
        notes=[
            f"{COUNT} images of {SIDE}×{SIDE}, or 18×18 where a peer must divide them; {STEPS}"
            " steps; logits.",
            "`road`: ours solves by 40 steps on the grid, theirs by a sparse direct solver.",
            "Quantus's area needs np.trapz, which NumPy 2.4 no longer has: its curve is taken, and"
            " np.trapezoid.",
            "Quantus's Infidelity is another quantity (a patch stays replaced while the next ones"
            " are) and is not compared.",
        ],
        packages=[
            *("captum", "grad-cam", "quantus", "torchcam", "xplique", "torch", "tensorflow"),
            *("scikit-image", "numpy"),
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
