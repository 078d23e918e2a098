"""Class activation maps against the papers' formulas in NumPy, and how layers are found."""

from functools import partial

import jax
import jax.numpy as jnp
import keras
import networks
import numpy as np
import pytest
from flax import linen, nnx
from PIL import Image
from scipy import ndimage
from small_network import (
    SHAPE,
    scorer,
    slow_features,
    slow_pooled,
    slow_rest,
    slow_scores,
    slow_slope,
)

import jaxviz as jv
from jaxviz import attribution as att
from jaxviz.attribution import presets
from jaxviz.attribution.cut import cut
from jaxviz.jaxpr.walk import equations

TARGET = 1


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def layer(image):
    """A and G of the layer "pooled", (3, 4, 4)."""
    a = slow_pooled(slow_features(image))
    return a, slow_slope(lambda x: slow_rest(x)[TARGET], a)


def relu(x):
    return np.maximum(x, 0)


def slow_pp(a, g, epsilon=0.0):
    """α of Grad-CAM++, entry by entry."""
    alpha = np.zeros_like(g)
    for index in np.ndindex(g.shape):
        if g[index] != 0:
            total = a[..., index[2]].sum()
            alpha[index] = g[index] ** 2 / (2 * g[index] ** 2 + total * g[index] ** 3 + epsilon)
    return alpha


def slow_xgrad(a, g):
    weights = [
        (g[..., c] * a[..., c]).sum() / a[..., c].sum() if a[..., c].any() else 0 for c in range(4)
    ]
    return relu(a @ np.array(weights))


def slow_eigen(a):
    sites = a.reshape(-1, a.shape[-1])
    sites = sites - sites.mean(0)
    values, vectors = np.linalg.eigh(sites.T @ sites)
    first = vectors[:, values.argmax()]
    return (sites @ (first * np.sign(first[np.abs(first).argmax()]))).reshape(a.shape[:2])


SLOW = {
    "grad_cam": lambda a, g: relu(a @ g.mean((0, 1))),
    "grad_cam_pp": lambda a, g: relu(a @ (slow_pp(a, g) * relu(g)).sum((0, 1))),
    "xgrad_cam": slow_xgrad,
    "layer_cam": lambda a, g: relu((relu(g) * a).sum(-1)),
    "hires_cam": lambda a, g: relu((g * a).sum(-1)),
    "elementwise_cam": lambda a, g: relu(g * a).sum(-1),
    "eigen_cam": lambda a, g: slow_eigen(a),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_map_is_its_formula(image, layer, name):
    found = getattr(att, name)(scorer, image, target=TARGET, layer="pooled")
    assert found.values.shape == (3, 4, 1)
    np.testing.assert_allclose(found.values[..., 0], SLOW[name](*layer), atol=2e-4)
    assert dict(found.config)["layer"] == "pooled"
    np.testing.assert_allclose(found.base, slow_scores(image), atol=1e-4)


@pytest.mark.slow
def test_score_cam_is_its_formula(image, layer):
    a, _ = layer
    scores = []
    for c in range(4):
        mask = np.asarray(Image.fromarray(a[..., c].astype(np.float32)).resize((10, 8), 2))
        mask = (mask - mask.min()) / (np.ptp(mask) or 1)
        scores.append(slow_scores(image * mask[..., None])[TARGET])
    weights = np.exp(scores - np.max(scores))
    expected = relu(a @ (weights / weights.sum()))
    run = partial(att.score_cam, scorer, image, target=TARGET, layer="pooled")
    np.testing.assert_allclose(run().values[..., 0], expected, atol=1e-4)
    np.testing.assert_allclose(run(batch_size=3).values[..., 0], expected, atol=1e-4)
    best = np.argsort(-a.std((0, 1)))[:2]
    expected = relu(a[..., best] @ (weights[best] / weights[best].sum()))
    np.testing.assert_allclose(run(channels=2).values[..., 0], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_ablation_cam_is_its_formula(image, layer, sign):
    a, _ = layer
    whole, weights = sign * slow_rest(a)[TARGET], []
    for c in range(4):
        without = a.copy()
        without[..., c] = 0
        weights.append((whole - sign * slow_rest(without)[TARGET]) / abs(whole))
    found = att.ablation_cam(lambda x: sign * scorer(x), image, target=TARGET, layer="pooled")
    np.testing.assert_allclose(found.values[..., 0], relu(a @ np.array(weights)), atol=1e-4)


@pytest.mark.slow
def test_what_lies_before_a_layer_runs_once(image):
    (part,), _ = cut(scorer, jnp.asarray(image), ("pooled",), {})
    behind = jax.make_jaxpr(part.rest)(part.known, part.output)
    names = {e.primitive.name for e in equations(behind)}
    assert "dot_general" in names and not names & {"conv_general_dilated", "reduce_window_max"}
    (clean,) = scorer(image[None])
    np.testing.assert_allclose(part.rest(part.known, part.output), clean, atol=1e-5)


@pytest.mark.slow
def test_several_layers_are_fused(image):
    one, two = (
        att.grad_cam(scorer, image, target=TARGET, layer=name).values[..., 0]
        for name in ("features", "pooled")
    )
    two = np.asarray(Image.fromarray(two / two.max()).resize((8, 6), 2))
    both = np.stack([one / one.max(), two])
    for fuse, expected in (("mean", both.mean(0)), ("max", both.max(0))):
        found = att.grad_cam(scorer, image, target=TARGET, layer=["features", 1], fuse=fuse)
        np.testing.assert_allclose(found.values[..., 0], expected, atol=1e-5)
    assert dict(found.config)["layer"] == "features, pooled"


@pytest.mark.slow
def test_heatmaps_are_as_large_as_the_image(image):
    for way, resample in (("bilinear", 2), ("bicubic", 3)):
        found = att.grad_cam(scorer, image, layer="features", upsample=way)
        expected = Image.fromarray(found.values[..., 0]).resize((10, 8), resample)
        np.testing.assert_allclose(found.heatmap(), expected, atol=1e-5)
    assert att.grad_cam(scorer, image, upsample=None).heatmap().shape == (3, 4)


@pytest.mark.slow
def test_guided_grad_cam_is_a_product(image):
    cam = att.grad_cam(scorer, image, target=TARGET, layer="features").heatmap()
    guided = att.guided(scorer, image, target=TARGET).values
    found = att.guided_grad_cam(scorer, image, target=TARGET, layer="features")
    np.testing.assert_allclose(found.values, guided * cam[..., None], atol=1e-5)


def test_the_last_layer_with_positions_is_taken(image):
    found = att.grad_cam(scorer, image, target=TARGET)
    assert dict(found.config)["layer"] == "pooled"


def _conv_net(rngs):
    return networks.Chain(
        nnx.Conv(2, 3, (3, 3), rngs=rngs), nnx.Conv(3, 4, (3, 3), rngs=rngs),
        networks.global_mean, nnx.Linear(4, 3, rngs=rngs),
    )  # fmt: skip


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(3, (3, 3), name="first")(x)
        x = linen.relu(linen.Conv(4, (3, 3), name="second")(x))
        return linen.Dense(3)(x.mean((1, 2)))


def _keras_nested():

    inner = keras.Sequential(
        [
            keras.layers.Input(SHAPE),
            keras.layers.Conv2D(4, 3, activation="relu", name="deep"),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name="inner",
    )
    outer = keras.Sequential([keras.layers.Input(SHAPE), inner, keras.layers.Dense(3)])
    return jv.from_keras(outer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras on reading weights
def test_layers_of_every_kind_of_model_are_found(image):
    module = Linen()
    models = {
        "layers.1": _conv_net(nnx.Rngs(0)),
        "second": (module, module.init(jax.random.key(0), image[None])),
        "inner/deep": _keras_nested(),
    }
    for name, model in models.items():
        found = att.grad_cam(model, image, target=0)
        assert dict(found.config)["layer"] == name
        named = att.grad_cam(model, image, target=0, layer=name)
        assert np.array_equal(found.values, named.values)
        assert np.isfinite(found.values).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras on reading weights
def test_a_nested_layer_leads_to_the_scores(image):
    model = _keras_nested()
    weights = np.asarray(model.layer(-1).kernel)[:, 0]  # behind a global mean: G = w / sites
    output = np.asarray(jv.activations(model, image[None], "inner/deep")["inner/deep"][0])
    expected = relu(output @ weights) / (output.shape[0] * output.shape[1])
    found = att.grad_cam(model, image, target=0)
    np.testing.assert_allclose(found.values[..., 0], expected, atol=1e-5)


@pytest.mark.slow
def test_a_layer_that_is_reused_is_two(image):
    def twice(x):
        first = jv.tag("a", jax.nn.relu(x))
        second = jv.tag("a", first[:, ::2, ::2] * 2)
        return jnp.concatenate([first.sum((1, 2)), second.sum((1, 2))], -1)

    shapes = [att.grad_cam(twice, image, target=t, layer=n).values.shape for t, n in
              ((0, "a"), (2, "a#2"))]  # fmt: skip
    assert shapes == [(8, 10, 1), (4, 5, 1)]
    skip = att.hires_cam(twice, image, target=3, layer="a").values
    assert skip.any()  # the second reads the first


METHODS = {
    **{name: getattr(att, name) for name in SLOW},
    "guided_grad_cam": att.guided_grad_cam,
    "score_cam": att.score_cam,
    "ablation_cam": att.ablation_cam,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_one_by_one_and_traced(image, name):
    method, images = METHODS[name], np.stack([image, image[::-1], 0 * image])
    together = method(scorer, images, target=TARGET)
    for n, one in enumerate(images):
        alone = method(scorer, one, target=TARGET)
        np.testing.assert_allclose(alone.values, together.values[n], atol=1e-5)
    traced = jax.jit(jax.vmap(lambda x: method(scorer, x, target=TARGET).values))(images)
    np.testing.assert_allclose(traced, together.values, atol=1e-5)
    assert together.heatmap().shape == (3, *SHAPE[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_constant_scorer_gives_no_nan(image, name):
    found = METHODS[name](lambda x: scorer(0 * x) * 0, image)
    assert np.isfinite(found.values).all()
    if name not in ("eigen_cam", "score_cam"):
        assert not found.values.any()


@pytest.mark.slow
def test_a_second_image_compiles_nothing(image, compilations):
    for method in (att.grad_cam, att.ablation_cam, partial(att.integrated_gradients, points=2)):
        method(scorer, image, target=0)
        compilations.start()
        method(scorer, image[::-1].copy(), target=2)
        assert compilations.count == 0


def test_half_precision_is_near(image):
    full = att.grad_cam_pp(scorer, image, target=TARGET).values
    half = att.grad_cam_pp(scorer, image, target=TARGET, dtype="bfloat16").values
    np.testing.assert_allclose(half, full, atol=0.1 * full.max())


def _min_max(x, epsilon):
    return (x - x.min()) / (x.max() - x.min() + epsilon)


def _enlarged(x, way=2):
    return np.asarray(Image.fromarray(x.astype(np.float32)).resize((10, 8), way))


@pytest.mark.slow
def test_presets_are_what_the_libraries_do(image, layer):
    a, g = layer
    pp_torch = relu(a @ (g**2 * relu(g)).sum((0, 1)))
    alpha = slow_pp(a, g)
    sums = alpha.sum((0, 1))
    alpha = alpha / np.where(sums == 0, 1, sums)
    pp_tf = relu(a @ (alpha * relu(g)).sum((0, 1)))
    pp_pytorch = relu(a @ (slow_pp(a, g, 1e-6) * relu(g)).sum((0, 1)))
    plain = SLOW["grad_cam"](a, g)
    rows = np.arange(8) * 3 // 8
    cols = np.arange(10) * 4 // 10

    def twice(x):
        return _min_max(_enlarged(_min_max(x, 1e-7)), 1e-7)

    def zoomed(x):
        return _min_max(ndimage.zoom(x, (8 / 3, 10 / 4), order=1), 1e-7)

    expected = {
        ("pytorch_grad_cam", "grad_cam"): twice(plain),
        ("pytorch_grad_cam", "grad_cam_pp"): twice(pp_pytorch),
        ("pytorch_grad_cam", "elementwise_cam"): twice(SLOW["elementwise_cam"](a, g)),
        ("torch_cam", "grad_cam"): _min_max(plain, 1e-8),
        ("torch_cam", "grad_cam_pp"): _min_max(pp_torch, 1e-8),
        ("torch_cam", "xgrad_cam"): _min_max(SLOW["xgrad_cam"](a, g), 1e-8),
        ("tf_keras_vis", "grad_cam"): zoomed(plain),
        ("tf_keras_vis", "grad_cam_pp"): zoomed(pp_tf),
        ("xplique", "grad_cam"): _enlarged(plain, 3),
        ("captum", "grad_cam"): (a @ g.mean((0, 1)))[rows][:, cols],
    }
    for (library, name), values in expected.items():
        preset = getattr(presets, library)
        options = preset() if name == "grad_cam" else preset(name)
        found = getattr(att, name)(scorer, image, target=TARGET, layer="pooled", **options)
        np.testing.assert_allclose(found.heatmap(), values, atol=3e-4, err_msg=f"{library} {name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "error", "said"),
    [
        (att.grad_cam, {"layer": "featurs"}, ValueError, "did you mean 'features'"),
        (att.grad_cam, {"layer": 9}, ValueError, "`layer` must be an index below 3"),
        (att.grad_cam, {"layer": "hidden"}, ValueError,
         r"must have positions .*: 'hidden' gives \(5,\); those that have are \['features'"),
        (att.grad_cam, {"layer": []}, ValueError, "`layer` must name at least one"),
        (att.grad_cam, {"fuse": "sum"}, ValueError, '`fuse` must be "mean" or "max"'),
        (att.grad_cam, {"upsample": "cubic"}, ValueError, "`upsample` must be one of"),
        (att.grad_cam, {"reading": "min_max"}, TypeError, "`reading` must be a MapReading"),
        (att.grad_cam_pp, {"alpha": "one"}, ValueError, "`alpha` must be one of"),
        (att.guided_grad_cam, {"upsample": None}, ValueError, "`upsample` must enlarge"),
        (att.score_cam, {"channels": 0}, ValueError, "`channels` must be None or a whole number"),
        (att.score_cam, {"layer": "hidden"}, ValueError, "`layer` must have positions"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(image, method, options, error, said):
    with pytest.raises(error, match=said):
        method(scorer, image, **options)


@pytest.mark.slow
def test_a_scorer_without_layers_is_told(image):
    with pytest.raises(ValueError, match="`layer` must be given: no layer of this scorer"):
        att.grad_cam(lambda x: x.sum((1, 2)), image)
    with pytest.raises(ValueError, match="none has"):
        att.grad_cam(lambda x: jv.tag("a", x.sum((1, 2))), image, layer="a")
    with pytest.raises(ValueError, match="`layer` must lead to the scores: 'a' does not"):
        att.grad_cam(lambda x: (jv.tag("a", x), x.sum((1, 2)))[1], image, layer="a")
    with pytest.raises(ValueError, match="`f` must be differentiable"):
        att.grad_cam(lambda x: jnp.argmax(scorer(x), -1)[:, None], image)
    with pytest.raises(ValueError, match='`method` must be one of "grad_cam"'):
        presets.xplique("layer_cam")
