"""Gradients, Grad-CAM and RISE against captum, pytorch-grad-cam, xplique and tf-keras-vis, timed.

EfficientNet-Lite0 and VGG-16 with the same random weights everywhere, images of 224×224. Each
method gives the same map first: noise and masks are drawn by ours and given to the peer for that,
and the peer's rule or reading is ours. Then both are timed in turn, without that; a peer that can
evaluate several points at once does so at the better of two sizes. `first call` is what each took
at first, with what it compiles. PyTorch runs channels_last and takes no gradient of weights that it
does not need. IG has 50 points, SmoothGrad 25 samples; RISE runs a share of its 4,000 masks, as all
take as long.

    python -m benchmarks.attribution_speed_against_peers [--quick] [--save]
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import attribution_twins, common, peers
from benchmarks.attribution_twins import SIDE, Twins
from jaxviz import attribution
from jaxviz.attribution import presets
from jaxviz.perturbation.masks import RandomGrids

NAME = "attribution_speed_against_peers"
NETWORKS = ("EfficientNet-Lite0", "VGG-16")
# At a kink, a ReLU6's or a pool's, the rounding of float32 decides a gradient: from a pass in
# float64, IG of EfficientNet-Lite0 differs by 2.4e-3 of the range here and by 2.6e-3 in captum, at
# a few pixels. So maps of gradients are compared by the root of their mean square.
WITHIN, WITHIN_OF_GRADIENTS = 1e-4, 2e-2
KEY = jax.random.key(0)
POINTS, SAMPLES, SIGMA, CHECKED_MASKS = 50, 25, 0.2, 32


class Duel(NamedTuple):
    """A method of ours against a peer's.

    Attributes:
      method: its name.
      peer: whose.
      ours: () -> map.
      theirs: several ways to call the peer, of which the fastest counts; () -> map.
      same: a context in which both give the same.
      checked: the call that does then, if it is not one of `theirs`.
      within: how closely.
    """

    method: str
    peer: str
    ours: Callable[[], np.ndarray]
    theirs: Sequence[Callable[[], np.ndarray]]
    same: Callable[[], AbstractContextManager[Any]] = nullcontext
    checked: Callable[[], np.ndarray] | None = None
    within: float = WITHIN


class Bench(NamedTuple):
    """The network, an image, the class explained, and how much of RISE is run."""

    twins: Twins
    image: np.ndarray
    target: int
    masks: int

    @property
    def pixels(self) -> Any:
        """The image in PyTorch, channels_last."""
        import torch

        return peers.to_torch(self.image[None]).to(memory_format=torch.channels_last)

    @property
    def one_hot(self) -> np.ndarray:
        """The class as a row."""
        return np.eye(1000, dtype=np.float32)[[self.target]]

    def explain(self, method: str, read: Callable[[Any], Any], **options: Any) -> Any:
        """Explain the image by a method of ours, and read the result."""
        explain = getattr(attribution, method)
        return read(explain(self.twins.scorer, self.image, target=self.target, **options))


def _shaped(tensor: Any) -> np.ndarray:
    """(1, C, H, W) in PyTorch -> (H, W, C)."""
    return tensor.detach().numpy()[0].transpose(1, 2, 0)


def _values(result: Any) -> np.ndarray:
    return result.values


def _mean(result: Any) -> np.ndarray:
    return result.values.mean(-1)


def _noise(scale: float) -> np.ndarray:
    """What `smooth` adds, (SAMPLES, H, W, C)."""
    draw = jax.jit(lambda i: jax.random.normal(jax.random.fold_in(KEY, i), (SIDE, SIDE, 3)))
    return np.stack([np.float32(scale) * draw(i) for i in range(SAMPLES)])


def integrated_gradients(b: Bench) -> Iterator[Duel]:
    """50 points."""
    from captum.attr import IntegratedGradients
    from xplique.attributions import IntegratedGradients as Xplique

    def captum(at_once: int) -> np.ndarray:
        return _shaped(
            IntegratedGradients(b.twins.in_torch).attribute(
                b.pixels, target=b.target, n_steps=POINTS, internal_batch_size=at_once
            )
        )

    how: Any = {"points": POINTS}
    ours = partial(b.explain, "integrated_gradients", _values, **how)
    yield Duel(f"IG, {POINTS}", "captum", ours, [partial(captum, n) for n in (8, 16)])

    def xplique(peer: Any) -> np.ndarray:
        return np.asarray(peer.explain(b.image[None], b.one_hot))[0, ..., 0]

    made = [Xplique(b.twins.in_keras, steps=POINTS, batch_size=n) for n in (8, 16)]
    ours = partial(b.explain, "integrated_gradients", _mean, rule="trapezoid", **how)
    yield Duel(f"IG, {POINTS}", "xplique", ours, [partial(xplique, peer) for peer in made])


def smooth(b: Bench) -> Iterator[Duel]:
    """25 noisy copies."""
    import torch
    from captum.attr import NoiseTunnel, Saliency
    from tf_keras_vis.saliency import Saliency as KerasVis
    from tf_keras_vis.utils.scores import CategoricalScore
    from xplique.attributions import SmoothGrad

    name = f"SmoothGrad, {SAMPLES}"
    how: Any = {"samples": SAMPLES, "noise": SIGMA, "scale": "absolute", "key": KEY}

    def captum(at_once: int) -> np.ndarray:
        tunnel = NoiseTunnel(Saliency(b.twins.in_torch))
        how: Any = {"nt_samples": SAMPLES, "nt_samples_batch_size": at_once, "stdevs": SIGMA}
        return _shaped(tunnel.attribute(b.pixels, target=b.target, abs=False, **how))

    def torch_noise() -> Any:
        drawn = iter(peers.to_torch(_noise(SIGMA)))
        give = lambda mean, spread: torch.stack([next(drawn) for _ in range(len(spread))])  # noqa: E731
        return mock.patch.object(torch, "normal", give)

    ours = partial(b.explain, "smooth", _values, **how)
    yield Duel(name, "captum", ours, [partial(captum, n) for n in (5, 13)], torch_noise)

    def xplique(peer: Any) -> np.ndarray:
        return np.asarray(peer.explain(b.image[None], b.one_hot))[0, ..., 0]

    def keras_noise() -> Any:
        drawn = _noise(SIGMA)
        return mock.patch("tensorflow.random.normal", lambda *_, **__: drawn)

    # Two: TensorFlow keeps the noise of the one that is given ours as a constant of its program.
    timed, checked = (
        SmoothGrad(b.twins.in_keras, nb_samples=SAMPLES, noise=sigma, batch_size=SAMPLES)
        for sigma in (SIGMA / 2, SIGMA)
    )
    ours = partial(b.explain, "smooth", _mean, **how)
    theirs = [partial(xplique, timed)]
    yield Duel(name, "xplique", ours, theirs, keras_noise, partial(xplique, checked))
    loops, score = KerasVis(b.twins.in_keras, clone=False), CategoricalScore(b.target)

    def keras_vis() -> np.ndarray:
        how: Any = {"gradient_modifier": None, "keepdims": True, "normalize_map": False}
        how |= {"smooth_samples": SAMPLES, "smooth_noise": SIGMA}
        return np.asarray(loops(score, b.image[None], **how))[0]

    def numpy_noise() -> Any:
        drawn = _noise(SIGMA * float(np.ptp(b.image)))
        return mock.patch("numpy.random.normal", lambda *_: drawn[:, None])

    ours = partial(b.explain, "smooth", _values, **{**how, "scale": "range"})
    yield Duel(name, "tf-keras-vis", ours, [keras_vis], numpy_noise)


def grad_cam(b: Bench) -> Iterator[Duel]:
    """One map of the last layer, enlarged to the image."""
    from captum.attr import LayerAttribution, LayerGradCam
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore
    from xplique.attributions import GradCAM

    library = peers.import_torch_peer("pytorch_grad_cam")
    targets = peers.import_torch_peer("pytorch_grad_cam.utils.model_targets")
    t = b.twins

    def ours(**preset: Any) -> Callable[[], np.ndarray]:
        read = lambda result: result.heatmap()  # noqa: E731
        return partial(b.explain, "grad_cam", read, layer=t.layer, **preset)

    def captum() -> np.ndarray:
        small = LayerGradCam(t.in_torch, t.torch_layer).attribute(b.pixels, target=b.target)
        return _shaped(LayerAttribution.interpolate(small, (SIDE, SIDE)))[..., 0]  # pyright: ignore

    yield Duel("Grad-CAM", "captum", ours(**presets.captum()), [captum])
    # Its maker keeps hooks on the layer: made here, and let go of when the next peer comes.
    peer = library.GradCAM(t.in_torch, [t.torch_layer])

    def pytorch_grad_cam() -> np.ndarray:
        return peer(b.pixels, [targets.ClassifierOutputTarget(b.target)])[0]

    preset = presets.pytorch_grad_cam()
    yield Duel("Grad-CAM", "pytorch-grad-cam", ours(**preset), [pytorch_grad_cam])
    peer.activations_and_grads.release()
    other = GradCAM(t.in_keras, conv_layer=t.keras_layer)

    def xplique() -> np.ndarray:
        return np.asarray(other.explain(b.image[None], b.one_hot))[0, ..., 0]

    # TensorFlow's bicubic enlargement looks its weights up in a table: 3e-4 of the range.
    yield Duel("Grad-CAM", "xplique", ours(**presets.xplique()), [xplique], within=1e-3)
    cam, score = Gradcam(t.in_keras, clone=False), CategoricalScore(b.target)

    def keras_vis() -> np.ndarray:
        how: Any = {"penultimate_layer": t.keras_layer, "seek_penultimate_conv_layer": False}
        return cam(score, b.image[None], **how)[0]  # pyright: ignore

    yield Duel("Grad-CAM", "tf-keras-vis", ours(**presets.tf_keras_vis()), [keras_vis])


def rise(b: Bench) -> Iterator[Duel]:
    """Masks of 7×7 cells; checked with fewer than are timed."""
    from xplique.attributions import Rise

    grids = RandomGrids(KEY, jnp.float32(0.5), 7)
    state = {"masks": b.masks}

    def ours() -> np.ndarray:
        how: Any = {"samples": state["masks"], "key": KEY}
        return b.explain("rise", lambda result: result.values[..., 0], **how)

    def theirs(at_once: int) -> np.ndarray:
        peer = Rise(b.twins.in_keras, nb_samples=state["masks"], batch_size=at_once)
        return np.asarray(peer.explain(b.image[None], b.one_hot))[0, ..., 0]

    def drawn() -> np.ndarray:
        make = jax.jit(jax.vmap(lambda k: grids(k, (SIDE, SIDE))))
        return np.asarray(make(jnp.arange(CHECKED_MASKS, dtype=jnp.int32)[:, None]))[..., None]

    masks = drawn()

    class Same:
        """Give ours to xplique, which divides by the sum of the masks, and undo that."""

        def __enter__(self) -> None:
            state["masks"] = CHECKED_MASKS
            apply = staticmethod(lambda image, some, value: (image[None] * some, some))
            make = staticmethod(lambda *_: masks)
            self.patch = mock.patch.multiple(Rise, _get_masks=make, _apply_masks=apply)
            self.patch.__enter__()

        def __exit__(self, *error: Any) -> None:
            state["masks"] = b.masks
            self.patch.__exit__(*error)

    def read(at_once: int) -> np.ndarray:
        found = theirs(at_once)
        if state["masks"] != CHECKED_MASKS:
            return found
        return found * (masks.sum(0)[..., 0] + 1e-4) / (CHECKED_MASKS * 0.5)

    name = f"RISE, {b.masks} masks"
    yield Duel(name, "xplique", ours, [partial(read, n) for n in (16, 32)], Same)


def compare(b: Bench, duel: Duel, repeats: int, quick: bool, smooth: bool) -> common.Row:
    """Check that both give the same, and time them."""
    calls = duel.theirs[:1] if quick else duel.theirs
    what = f"{b.twins.name}, {duel.method}, {duel.peer}"
    first = common.once(duel.ours)[0]
    firsts = [common.once(call)[0] for call in calls]
    again = [common.once(call)[0] for call in calls]
    at = int(np.argmin(again))
    with duel.same():
        mine, theirs = duel.ours(), (duel.checked or calls[at])()
    if smooth:
        spread = float(np.ptp(theirs))
        off = common.check_equal(mine, theirs, within=duel.within, what=what, scale=spread)
    else:
        off = np.sqrt(np.mean(np.square(mine - theirs)) / np.mean(np.square(theirs)))
        off = common.check_equal(off, np.zeros(()), within=WITHIN_OF_GRADIENTS, what=what, scale=1)
    timings = common.interleave({"ours": duel.ours, "theirs": calls[at]}, repeats)
    return {
        "network": b.twins.name,
        "method": duel.method,
        "peer": duel.peer,
        "ours, s": timings["ours"].median,
        "theirs, s": timings["theirs"].median,
        "times faster": common.ratio(timings["theirs"], timings["ours"]),
        "our first call, s": first,
        "their first call, s": firsts[at],
        "spread, ours": timings["ours"].spread,
        "spread, theirs": timings["theirs"].spread,
        "difference": off,
    }


METHODS = {"grad_cam": grad_cam, "ig": integrated_gradients, "smooth": smooth, "rise": rise}


def rows(quick: bool) -> Iterator[common.Row]:
    """Every network, method and peer."""
    for name in NETWORKS[:1] if quick else NETWORKS:
        twins = attribution_twins.make_twins(name)
        image = np.random.default_rng(1).random((SIDE, SIDE, 3), np.float32)
        target = int(np.asarray(jax.jit(lambda f, x: f(x))(twins.scorer, image[None])).argmax())
        large = name == "VGG-16"
        b = Bench(twins, image, target, 64 if large or quick else 500)
        for method, make in METHODS.items():
            repeats = 1 if quick else 5 if method == "grad_cam" else 1 if large else 3
            for duel in make(b):
                yield compare(b, duel, repeats, quick or large, method in ("grad_cam", "rise"))


def main() -> None:
    """Time everything."""
    settings = common.options(__doc__)
    peers.quiet()
    peers.threads()
    peers.import_torch_peer("captum")
    found = common.collect(NAME, rows(settings.quick), settings)
    worst: dict[tuple[str, str], float] = {}
    for row in found:
        key = (row["network"], row["method"].split(",")[0])
        worst[key] = min(worst.get(key, np.inf), row["times faster"])
    told = [f"{network}: " + ", ".join(
        f"{method} {ratio:.2f}×" for (of, method), ratio in worst.items() if of == network
    ) for network in dict.fromkeys(row["network"] for row in found)]  # fmt: skip
    common.finish(
        NAME,
        "Attribution methods, timed beside the libraries that have them.",
        "Against the fastest of them, " + "; ".join(told),
        found,
        notes=[
            "Medians of five runs in turn for Grad-CAM, else of three, one for VGG-16.",
            "tf-keras-vis takes the samples of SmoothGrad one at a time.",
            "RISE: of 4,000 masks, 500 are run on EfficientNet-Lite0 and 64 on VGG-16.",
        ],
        packages=[
            *("captum", "grad-cam", "tf-keras-vis", "xplique", "torch", "tensorflow"),
        ],
        settings=settings,
    )


if __name__ == "__main__":
    sys.exit(main())
