"""Each method of `jaxviz.attribution` makes the map of the library that computes the same, to 1e-5.

One small network of convolutions, ReLUs and max pools that gives logits, its weights drawn once and
carried over to PyTorch and to Keras (TensorFlow backend); a square image and one that is not; the
target is the class with the largest score. The libraries run as installed; a CAM is read as
`jaxviz.attribution.presets` has it. Noise is drawn by ours and given to the peer. The difference is
max |ours − theirs| / (max theirs − min theirs). A case beyond the limit ends the run.

    python -m benchmarks.attribution_equals_its_peers [--quick] [--save]
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from benchmarks import common, networks, peers
from jaxviz import attribution
from jaxviz.attribution import presets, rules

NAME = "attribution_equals_its_peers"
WITHIN = 1e-5
SQUARE, WIDE = (32, 32, 3), (30, 23, 3)
LAST = 2  # the last convolution: one, a pool, one, a pool, dense
KEY = jax.random.key(3)
SAMPLES, SIGMA = 8, 0.2


class Setting(NamedTuple):
    """The network, an image, and the class explained."""

    network: networks.Network
    image: np.ndarray
    target: int

    @property
    def in_torch(self) -> Any:
        """The network in PyTorch, with weights that have gradients, as hooks need them."""
        return networks.in_torch(self.network).requires_grad_(True)

    @property
    def pixels(self) -> Any:
        """The image in PyTorch, (1, C, H, W)."""
        return peers.to_torch(self.image[None])

    @property
    def in_keras(self) -> Any:
        """The network in Keras."""
        return networks.in_keras(self.network, self.image.shape)  # pyright: ignore

    @property
    def one_hot(self) -> np.ndarray:
        """The class as a row."""
        return np.eye(10, dtype=np.float32)[[self.target]]


class Case(NamedTuple):
    """One call of a peer, and ours.

    Attributes:
      peer: whose.
      method: ours, by name.
      call: the peer's, for the table.
      ours: (scorer, image, target) -> map or values.
      theirs: (setting) -> the same.
      shape: of the image.
      pools: whether the network has its max pools.
    """

    peer: str
    method: str
    call: str
    ours: Callable[..., Any]
    theirs: Callable[[Setting], Any]
    shape: tuple[int, int, int] = SQUARE
    pools: bool = True


CAMS = ("grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", "hires_cam", "elementwise_cam")


def _cam(method: str, preset: dict[str, Any], f: Any, image: np.ndarray, target: int) -> Any:
    """Our map of the last convolution, read as a library does."""
    explain = getattr(attribution, method)
    return explain(f, image, target=target, layer=f"layer{LAST}", **preset).heatmap()


def _values(method: str, f: Any, image: np.ndarray, target: int, **options: Any) -> Any:
    return getattr(attribution, method)(f, image, target=target, **options).values


def _shaped(tensor: Any) -> np.ndarray:
    """(1, C, H, W) in PyTorch -> (H, W, C)."""
    return tensor.detach().numpy()[0].transpose(1, 2, 0)


def _torch_layer(model: Any, network: networks.Network) -> Any:
    return model.get_submodule(networks.torch_name(network, LAST))


def grad_cam_cases() -> Iterator[Case]:
    """The six methods that both have."""
    library = peers.import_torch_peer("pytorch_grad_cam")
    targets = peers.import_torch_peer("pytorch_grad_cam.utils.model_targets")
    theirs = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM")
    for method, name in zip(CAMS, (*theirs, "GradCAMElementWise"), strict=True):
        for shape in (SQUARE, WIDE):

            def run(s: Setting, name: str = name) -> Any:
                model = s.in_torch
                cam = getattr(library, name)(model, [_torch_layer(model, s.network)])
                return cam(s.pixels, [targets.ClassifierOutputTarget(s.target)])[0]

            ours = partial(_cam, method, presets.pytorch_grad_cam(method))  # pyright: ignore
            yield Case("pytorch-grad-cam", method, name, ours, run, shape)


def torch_cam_cases() -> Iterator[Case]:
    """The four methods that both have, at the layer's size."""
    methods = peers.import_torch_peer("torchcam.methods")
    for method, name in zip(CAMS, ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM"), strict=False):

        def run(s: Setting, name: str = name) -> Any:
            model = s.in_torch
            cam = getattr(methods, name)(model, networks.torch_name(s.network, LAST))
            return cam(s.target, model(s.pixels))[0].numpy()[0]

        ours = partial(_cam, method, presets.torch_cam(method))  # pyright: ignore
        yield Case("torch-cam", method, name, ours, run, WIDE)


def tf_keras_vis_cases() -> Iterator[Case]:
    """Three CAMs, and saliency as the largest |g| of the channels."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    kinds = {"grad_cam": Gradcam, "grad_cam_pp": GradcamPlusPlus, "layer_cam": Layercam}
    for method, kind in kinds.items():

        def run(s: Setting, kind: Any = kind) -> Any:
            cam = kind(s.in_keras, clone=False)
            layer = cam.model.layers[LAST].name
            return cam(CategoricalScore(s.target), s.image[None], penultimate_layer=layer)[0]

        ours = partial(_cam, method, presets.tf_keras_vis(method))  # pyright: ignore
        yield Case("tf-keras-vis", method, kind.__name__, ours, run, WIDE)

    def saliency(s: Setting) -> Any:
        peer = Saliency(s.in_keras, clone=False)
        return peer(CategoricalScore(s.target), s.image[None], normalize_map=False)[0]

    def ours(f: Any, image: np.ndarray, target: int) -> Any:
        return attribution.saliency(f, image, target=target).heatmap("max_abs")

    yield Case("tf-keras-vis", "saliency", "Saliency, normalize_map=False", ours, saliency)


def captum_cases() -> Iterator[Case]:
    """Gradients, the path from a baseline, noise, and Grad-CAM."""
    from captum import attr

    def plain(name: str, **options: Any) -> Callable[[Setting], Any]:
        def run(s: Setting) -> Any:
            peer = getattr(attr, name)(s.in_torch)
            return _shaped(peer.attribute(s.pixels, target=s.target, **options))

        return run

    for method, name, options in (
        ("saliency", "Saliency", {"abs": False}),
        ("input_x_gradient", "InputXGradient", {}),
        ("guided", "GuidedBackprop", {}),
        ("deconvnet", "Deconvolution", {}),
    ):
        yield Case("captum", method, name, partial(_values, method), plain(name, **options))
    deep_lift = plain("DeepLift", baselines=0.2)
    ours, call = partial(_values, "deep_lift", baseline=0.2), "DeepLift, baselines=0.2, no max pool"
    yield Case("captum", "deep_lift", call, ours, deep_lift, pools=False)
    for rule, theirs in (("gauss_legendre", "gausslegendre"), ("right", "riemann_right")):
        ours = partial(_values, "integrated_gradients", rule=rule, baseline=0.2, points=50)
        run = plain("IntegratedGradients", method=theirs, baselines=0.2, n_steps=50)
        call = f"IntegratedGradients, {theirs}, n_steps=50, baselines=0.2"
        yield Case("captum", "integrated_gradients", call, ours, run, WIDE)
    for reduce, kind in (
        ("mean", "smoothgrad"),
        ("square", "smoothgrad_sq"),
        ("variance", "vargrad"),
    ):

        def noisy(s: Setting, kind: str = kind) -> Any:
            import torch

            drawn = peers.to_torch(_noise(s.image.shape))
            peer = attr.NoiseTunnel(attr.Saliency(s.in_torch))
            with mock.patch.object(torch, "normal", lambda *_: drawn):
                how = {"nt_type": kind, "nt_samples": SAMPLES, "stdevs": SIGMA, "abs": False}
                return _shaped(peer.attribute(s.pixels, target=s.target, **how))

        ours = partial(_values, "smooth", reduce=reduce, **_SMOOTH)
        yield Case("captum", "smooth", f"NoiseTunnel, {kind}", ours, noisy)

    def cam(s: Setting) -> Any:
        model = s.in_torch
        peer = attr.LayerGradCam(model, _torch_layer(model, s.network))
        small = peer.attribute(s.pixels, target=s.target)
        return _shaped(attr.LayerAttribution.interpolate(small, s.image.shape[:2]))[..., 0]

    ours = partial(_cam, "grad_cam", presets.captum())
    yield Case("captum", "grad_cam", "LayerGradCam, interpolate", ours, cam, WIDE)


_SMOOTH: Any = {"samples": SAMPLES, "noise": SIGMA, "scale": "absolute", "key": KEY}


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """What `smooth` adds to an image, (SAMPLES, H, W, C)."""
    keys = [jax.random.fold_in(KEY, i) for i in range(SAMPLES)]
    return np.stack([SIGMA * jax.random.normal(key, shape, np.float32) for key in keys])


def xplique_cases() -> Iterator[Case]:
    """Gradients, read as xplique reads them: the mean or the largest of the channels."""
    from xplique import attributions

    def run(s: Setting, name: str, **options: Any) -> Any:
        peer = getattr(attributions, name)(s.in_keras, **options)
        if "conv_layer" in options:
            peer = getattr(attributions, name)(peer.model, conv_layer=peer.model.layers[LAST].name)
        with mock.patch("tensorflow.random.normal", lambda *_, **__: _noise(s.image.shape)):
            return np.asarray(peer.explain(s.image[None], s.one_hot))[0, ..., 0]

    def mean(method: str, f: Any, image: np.ndarray, target: int, **options: Any) -> Any:
        return _values(method, f, image, target, **options).mean(-1)

    def largest(f: Any, image: np.ndarray, target: int) -> Any:
        return attribution.saliency(f, image, target=target).heatmap("max_abs")

    yield Case("xplique", "saliency", "Saliency", largest, partial(run, name="Saliency"))
    ours = partial(mean, "input_x_gradient")
    yield Case(
        "xplique", "input_x_gradient", "GradientInput", ours, partial(run, name="GradientInput")
    )
    ours = partial(mean, "integrated_gradients", rule="trapezoid", points=50)
    theirs = partial(run, name="IntegratedGradients", steps=50)
    yield Case("xplique", "integrated_gradients", "IntegratedGradients, 50", ours, theirs)
    ours = partial(mean, "smooth", **_SMOOTH)
    theirs = partial(run, name="SmoothGrad", nb_samples=SAMPLES, noise=SIGMA)
    yield Case("xplique", "smooth", "SmoothGrad", ours, theirs)
    ours = partial(_cam, "grad_cam", presets.xplique())
    theirs = partial(run, name="GradCAM", conv_layer=LAST)
    yield Case("xplique", "grad_cam", "GradCAM", ours, theirs)


def zennit_cases() -> Iterator[Case]:
    """LRP: one rule for convolutions, ε for what is dense; γ and αβ with their biases."""
    zennit = {
        name: peers.import_torch_peer(f"zennit.{name}")
        for name in ("attribution", "composites", "rules", "types")
    }
    theirs = zennit["rules"]
    box = {"low": 0.0, "high": 1.0}
    for rule, peer, call in (
        (rules.epsilon(), theirs.Epsilon(), "Epsilon()"),
        (rules.gamma(0.25), theirs.Gamma(0.25), "Gamma(0.25)"),
        (rules.alpha_beta(2, 1), theirs.AlphaBeta(2, 1), "AlphaBeta(2, 1)"),
        (rules.z_plus(), theirs.ZPlus(), "ZPlus()"),
        (rules.flat(), theirs.Flat(), "Flat()"),
        (rules.w_square(), theirs.WSquare(zero_params="bias"), 'WSquare(zero_params="bias")'),
        (rules.z_box(0, 1), theirs.ZBox(**box), "ZBox(0, 1)"),
    ):
        first = call.startswith(("Flat", "WSquare", "ZBox"))  # rules for the first layer alone

        def run(s: Setting, peer: Any = peer, first: bool = first) -> Any:
            kinds = zennit["types"]
            convolutions = peer if not first else theirs.Gamma(0.25)
            layers = [
                (kinds.Activation, theirs.Pass()),
                (kinds.Convolution, convolutions),
                (kinds.Linear, theirs.Epsilon()),
            ]
            composite: Any
            if first:
                composite = zennit["composites"].SpecialFirstLayerMapComposite(
                    layers, [(kinds.Convolution, peer)]
                )
            else:
                composite = zennit["composites"].LayerMapComposite(layers)
            model = s.in_torch
            score = model(s.pixels).detach()[0, s.target].item()
            with zennit["attribution"].Gradient(model, composite) as attributor:
                import torch

                _, found = attributor(s.pixels, score * torch.from_numpy(s.one_hot))
            return _shaped(found)

        given: dict[Any, Any] = {"convolution": rule, "dense": rules.epsilon()}
        if first:
            given = {"first": rule, "convolution": rules.gamma(0.25), "dense": rules.epsilon()}
        ours = partial(_values, "lrp", rules=given)
        where = "first convolution, then γ" if first else "convolutions"
        yield Case("zennit", "lrp", f"{call}: {where}; ε", ours, run)


def compare(case: Case, index: int) -> common.Row:
    """Run one case both ways."""
    image = np.random.default_rng(index).random(case.shape, np.float32)
    network = networks.make_network(case.shape, ((8,), (16,)), (10,), seed=index, pools=case.pools)
    scorer = networks.with_names(network)
    target = int(np.asarray(scorer(image[None])).argmax())
    ours = np.asarray(case.ours(scorer, image, target))
    theirs = np.asarray(case.theirs(Setting(network, image, target)))
    spread = float(np.ptp(theirs))
    what = f"{case.peer} {case.call} {case.shape}"
    off = common.check_equal(ours, theirs, within=WITHIN, what=what, scale=spread)
    row = {"peer": case.peer, "method": case.method, "image": "×".join(map(str, case.shape))}
    return {
        **row,
        "call": case.call,
        "min": float(theirs.min()),
        "max": float(theirs.max()),
        "difference": off,
    }


MAKERS = (
    grad_cam_cases,
    torch_cam_cases,
    tf_keras_vis_cases,
    captum_cases,
    xplique_cases,
    zennit_cases,
)


def main() -> None:
    """Run every case."""
    settings = common.options(__doc__)
    peers.quiet()
    made = [list(make()) for make in MAKERS]
    cases = [case for group in made for case in (group[:1] if settings.quick else group)]
    compared = (compare(case, index) for index, case in enumerate(cases, 1))
    rows = common.collect(NAME, compared, settings)
    worst = max(row["difference"] for row in rows)
    common.finish(
        NAME,
        "Each attribution method makes the map of the library that computes the same.",
        f"{len(rows)} cases of {len(made)} libraries agree; the largest difference is {worst:.1g}"
        " of the map's range",
        rows,
        notes=[
            "iNNvestigate is compared in the tests, by the files that it keeps of itself.",
            "captum's DeepLift is compared without max pools: with them its map does not add up to"
            " the change of the score, as its own convergence delta tells.",
            "xplique's Grad-CAM is compared where the map doubles; from 11 to 23 sites the bicubic"
            " enlargements differ by 0.0003 of the range.",
            "zennit takes biases into w², unless told not to.",
        ],
        packages=[
            *("captum", "grad-cam", "tf-keras-vis", "torchcam", "xplique", "zennit"),
            *("torch", "tensorflow"),
        ],
        settings=settings,
    )


if __name__ == "__main__":
    main()
