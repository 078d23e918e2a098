"""The cases of `metrics_equal_their_peers` that concern Quantus."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import networks, peers
from benchmarks.metric_cases import COUNT, KEY, SIDE, STEPS, Both, Case, Setting, setting
from jaxviz import attribution, metrics
from jaxviz.jaxpr.keys import generator
from jaxviz.metrics.weights import weights_of

RAW: Any = {"disable_warnings": True, "display_progressbar": False, "normalise": False}


def ask(metric: Any, s: Setting, maps: np.ndarray | None, **more: Any) -> Any:
    """Call one of Quantus's metrics on maps (N, H, W) or (N, C, H, W)."""
    size = s.images.shape[1:3]
    given: dict[str, Any] = {
        "model": s.in_torch,
        "x_batch": peers.channels_first(s.images),
        "y_batch": s.classes,
        "a_batch": None if maps is None else maps.reshape(COUNT, -1, *size).copy(),
        "softmax": False,
        "device": "cpu",
        "channel_first": True,
    }
    return metric(**{**given, **more})


def curves() -> Iterator[Case]:
    """Pixel flipping: where it is right, and what it leaves to its reader."""
    quantus = peers.import_torch_peer("quantus")
    of_a_step, even = SIDE * SIDE // STEPS, 18  # steps of `even` lines of as many pixels

    def ours(s: Setting, maps: np.ndarray, steps: int = STEPS) -> metrics.Curve:
        how: Any = {"target": s.classes, "steps": steps, "fill": 0.0}
        return metrics.deletion(s.ours, s.images, maps, **how)

    def theirs(s: Setting, maps: np.ndarray, at_once: int) -> np.ndarray:
        metric = quantus.PixelFlipping(
            features_in_step=at_once, perturb_baseline=0.0, abs=False, **RAW
        )
        return np.asarray(ask(metric, s, maps))

    def gray() -> Both:
        s = setting()
        return ours(s, s.maps).scores[:, 1:], theirs(s, s.maps, of_a_step)

    def coloured() -> Both:
        s = setting(3, even)
        return ours(s, s.maps, even).scores[:, 1:], theirs(s, s.maps, 3 * even)

    def area() -> Both:
        s = setting()
        return ours(s, s.maps).auc, np.trapezoid(theirs(s, s.maps, of_a_step), axis=1)

    def apart() -> Both:
        s = setting(3, even)
        values = np.random.default_rng(2).standard_normal((COUNT, 3, even, even))
        first = theirs(s, values, 3 * even)[:, 0]
        return ours(s, values.sum(1), even).scores[:, 1], first

    yield Case("deletion", "Quantus", "1 channel, every score of the curve", gray)
    yield Case("deletion", "Quantus", "3 channels, one map for all of them", coloured)
    finding = "no clean point, and every step of width 1: the area grows with their number"
    yield Case("deletion", "Quantus", f"the area, {STEPS} steps, each image", area, finding)
    finding = "ranks channels apart, so that a pixel loses one colour and keeps the others"
    yield Case("deletion", "Quantus", "a map for each channel, after one step", apart, finding)


def maps_alone() -> Iterator[Case]:
    """What needs no network: sparseness, complexity, and where a map points."""
    quantus = peers.import_torch_peer("quantus")
    s = setting()
    masks = np.zeros((COUNT, SIDE, SIDE), bool)
    masks[:, 5:15, 3:12] = True
    positive = np.abs(s.maps)
    zeros, flat = s.maps.copy(), s.maps.copy()
    zeros[0], flat[0] = 0, 1  # a batch of nothing else is refused

    def theirs(metric: Any, maps: np.ndarray, absolute: bool) -> Any:
        inside = masks[:, None].astype(int)
        return np.asarray(ask(metric(abs=absolute, **RAW), s, maps, s_batch=inside), np.float64)

    for name in ("sparseness", "complexity"):
        peer = getattr(quantus, name.capitalize())

        def both(maps: np.ndarray, name: str = name, peer: Any = peer) -> Both:
            return getattr(metrics, name)(maps), theirs(peer, maps, True)

        yield Case(name, "Quantus", "each map", lambda both=both: both(s.maps))
    finding = "adds 1e-7 to every pixel: an empty map is as even as a constant one"

    def empty() -> Both:
        return _first((metrics.sparseness(zeros), theirs(quantus.Sparseness, zeros, True)))

    yield Case("sparseness", "Quantus", "a map of zeros among others", empty, finding)

    def pointing(maps: np.ndarray) -> Both:
        return metrics.pointing_game(maps, masks), theirs(quantus.PointingGame, maps, False)

    def energy(maps: np.ndarray) -> Both:
        found = metrics.energy_pointing_game(maps, masks)
        return found, theirs(quantus.RelevanceMassAccuracy, maps, False)

    yield Case("pointing_game", "Quantus", "each map", lambda: pointing(s.maps))
    finding = "a constant map hits whatever is there; it points nowhere"
    case = "a constant map among others"
    yield Case("pointing_game", "Quantus", case, lambda: _first(pointing(flat)), finding)
    yield Case("energy_pointing_game", "Quantus", "maps ≥ 0, each", lambda: energy(positive))
    finding = "divides by a sum in which signs cancel: the share leaves [0, 1]"
    yield Case("energy_pointing_game", "Quantus", "signed maps", lambda: energy(s.maps), finding)


def _first(both: Both) -> Both:
    return both[0][:1], both[1][:1]


def gradients(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    """∂s/∂x as Quantus asks for it."""
    import torch

    x = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
    scores = model(x)
    index = torch.as_tensor(np.asarray(targets)).reshape(-1, 1)
    (found,) = torch.autograd.grad(scores.gather(1, index).sum(), x)
    return found.numpy()


def sanity() -> Iterator[Case]:
    """Sensitivity to noise, to the weights, and to the class."""
    quantus = peers.import_torch_peer("quantus")
    spearman = quantus.similarity_func.correlation_spearman

    def moved() -> Both:
        s, radius, samples = setting(), 0.02, 5
        draw = generator(KEY)
        moves = iter([draw.uniform(-radius, radius, s.images.shape) for _ in range(samples)])

        def perturb(arr: np.ndarray, **_: Any) -> np.ndarray:
            return arr + next(moves).reshape(arr.shape).astype(np.float32)

        metric = quantus.MaxSensitivity(nr_samples=samples, perturb_func=perturb, abs=False, **RAW)
        how: Any = {"radius": radius, "samples": samples, "key": KEY}
        found = metrics.max_sensitivity(
            lambda x: attribution.saliency(s.ours, x, target=s.classes), s.images, **how
        )
        return found, ask(metric, s, None, explain_func=gradients)

    yield Case("max_sensitivity", "Quantus", "saliency, 5 draws, each image", moved, within=1e-4)

    def randomized(average: bool) -> Both:
        s, seen = setting(), []

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
            seen.append(gradients(model, inputs, targets))
            return seen[-1]

        metric = quantus.MPRT(
            similarity_func=spearman, return_average_correlation=average, abs=False, **RAW
        )
        theirs = ask(metric, s, None, explain_func=explain)
        # Ours is given the maps that Quantus's randomised networks made: clean, twice, then each.
        maps = iter([seen[0], *seen[2:]])
        found = metrics.randomization(lambda *_: next(maps)[:, 0], s.ours, s.images)
        if average:
            return found.value, theirs
        return found.similarity["spearman"], list(theirs.values())[1:]

    def parameters() -> Both:
        network = networks.make_network((8, 8, 8), ((8, 8),), (2,))
        ours = weights_of(networks.in_jax(network), _shape(8, 8, 8))
        mixed = ours.shuffled(list(ours.layers), KEY)
        kernels = [np.ravel(leaf) for leaf in _leaves(mixed) if leaf.shape == (3, 3, 8, 8)]
        torch_model = quantus.helpers.model.pytorch_model.PyTorchModel(
            networks.in_torch(network), softmax=False
        )
        *_, (_, last) = torch_model.get_random_layer_generator()
        theirs = [m.weight.detach().numpy().ravel() for m in last if hasattr(m, "weight")][:2]
        return [np.corrcoef(both)[0, 1] for both in (kernels, theirs)]  # pyright: ignore

    yield Case(
        "randomization",
        "Quantus",
        "Spearman of its maps, layer by layer",
        lambda: randomized(False),
    )
    finding = "its mean holds the clean network's similarity with itself, which is 1"
    yield Case(
        "randomization", "Quantus", "the mean over layers", lambda: randomized(True), finding
    )
    finding = "one seed for all layers: layers of one shape get the same weights"
    case = "correlation of two randomised layers' weights"
    yield Case("randomization", "Quantus", case, parameters, finding)

    def other_class() -> Both:
        s = setting(classes=2)
        found = metrics.random_logit(
            lambda x, classes: attribution.saliency(s.ours, x, target=classes),
            s.images,
            target=s.classes,
            classes=2,
        )
        metric = quantus.RandomLogit(similarity_func=spearman, num_classes=2, abs=False, **RAW)
        return found["spearman"], ask(metric, s, None, explain_func=gradients)

    yield Case("random_logit", "Quantus", "two classes, Spearman, each image", other_class)

    def structure() -> Both:
        from skimage.metrics import structural_similarity

        s = setting(classes=2)
        maps = [
            np.asarray(attribution.saliency(s.ours, s.images, target=k).heatmap()) for k in (0, 1)
        ]
        scaled = [m / np.abs(m).max((1, 2), keepdims=True) for m in maps]
        how: Any = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        theirs = []
        for a, b in zip(*scaled, strict=True):
            span = max(a.max(), b.max()) - min(a.min(), b.min())
            _, full = structural_similarity(a, b, data_range=span, full=True, **how)
            theirs.append(full.mean())
        given = iter(maps)
        found = metrics.random_logit(
            lambda *_: next(given), s.images, target=np.zeros(COUNT, int), classes=2
        )
        return found["ssim"], theirs

    yield Case("ssim", "scikit-image", "of maps, Gaussian windows, the whole map", structure)


def _shape(*size: int) -> Any:
    import jax

    return jax.ShapeDtypeStruct((1, *size), jnp.float32)


def _leaves(tree: Any) -> list[np.ndarray]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _with_squares(s: Setting) -> Setting:
    images = 0.3 * s.images
    for i in range(COUNT):
        images[i, 2 : 6 + 3 * i, 2 : 6 + 3 * i] += 3
    best = np.asarray(s.ours(images)).argmax(-1)
    return s._replace(images=images, classes=best, maps=images[..., 0])


def batches() -> Iterator[Case]:
    """ROAD and sensitivity-n, of which only the first batch counts."""
    quantus = peers.import_torch_peer("quantus")
    shares = [10, 30, 50, 70, 90]

    def road(batch_size: int) -> Both:
        # Theirs is the share of images that keep their class, the most important pixels gone; here
        # the pixels of bright squares, larger from image to image.
        s = _with_squares(setting())
        metric = quantus.ROAD(percentages=shares, noise=0.0, abs=False, **RAW)
        scores = ask(metric, s, s.maps, batch_size=batch_size)
        kept = []
        for i, best in enumerate(s.classes):
            same = lambda x, best=best: (x.argmax(-1) == best).astype(jnp.float32)  # noqa: E731
            how: Any = {"noise": 0.0, "iterations": 200, "target": same}
            kept.append(metrics.road(s.ours, s.images[i], s.maps[i], **how).most_first)
        return np.mean(kept, 0)[::2], [scores[share] for share in shares]

    yield Case("road", "Quantus", "share of images that keep their class", lambda: road(COUNT))
    finding = "only the first batch counts: here two of four images"
    yield Case("road", "Quantus", "the same in batches of 2", lambda: road(2), finding)

    def sensitivity() -> Both:
        s = setting()
        metric = quantus.SensitivityN(
            features_in_step=20, n_max_percentage=0.8, perturb_baseline=0.0, abs=False, **RAW
        )
        whole, halves = (
            np.asarray(ask(metric, s, s.maps, batch_size=size)).mean() for size in (COUNT, 2)
        )
        how: Any = {"target": s.classes, "fill": 0.0}
        joined = metrics.sensitivity_n(s.ours, s.images, s.maps, **how)
        alone = [
            metrics.sensitivity_n(
                s.ours, s.images[i], s.maps[i], target=int(s.classes[i]), fill=0.0
            )
            for i in range(COUNT)
        ]
        # By how much the result moves with the size of a batch: not at all, where images do not
        # depend on one another.
        return [np.abs(joined - np.stack(alone)).max()], [abs(whole - halves)]

    finding = (
        "correlates across images, of the first batch alone: another batch size, another result"
    )
    case = "how far the result moves with the batch size"
    yield Case("sensitivity_n", "Quantus", case, sensitivity, finding)
