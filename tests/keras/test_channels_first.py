"""A model of Keras whose channels come first answers as its twin whose channels come last does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.keras.orders import gives_in_front, takes_in_front
from jaxviz.maximization.objectives import channel, unit

keras = pytest.importorskip("keras")

IMAGES = np.random.default_rng(0).random((2, 9, 8, 3), np.float32)
OWN = IMAGES.transpose(0, 3, 1, 2)


def made(data_format, shape=(9, 8, 3)):
    """The same weights and architecture, in either order of axes, a model inside it included."""
    order = {"data_format": data_format}
    first = data_format == "channels_first"
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((4, None, None) if first else (None, None, 4)),
            layers.Conv2D(5, 3, name="conv", **order),
            layers.BatchNormalization(axis=1 if first else -1, name="norm"),
        ],
        name="inner",
    )
    model = keras.Sequential(
        [
            keras.Input((shape[2], *shape[:2]) if first else shape),
            layers.Conv2D(4, 3, padding="same", name="first", **order),
            layers.ReLU(name="relu"),
            inner,
            layers.MaxPooling2D(2, name="pool", **order),
            layers.GlobalAveragePooling2D(name="mean", **order),
            layers.Dense(3, name="out"),
        ]
    )
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.random(weight.shape) - 0.4 * ("variance" not in weight.path))
    return jv.from_keras(model)


@pytest.fixture(scope="module")
def models():
    return made("channels_first"), made("channels_last")


def arrays(result):
    values = result if isinstance(result, dict) else getattr(result, "values", result)
    leaves = jax.tree.leaves(getattr(values, "scores", values))
    return [np.asarray(leaf, np.float64) for leaf in leaves]


KEY = jax.random.key(0)
RUNS = {
    "occlude": lambda f, x: jv.occlude(f, x, patch=(3, 2)),
    "one": lambda f, x: jv.occlude(f, x[0], patch=3, method="incremental").heatmap(0),
    "segments": lambda f, x: jv.occlude_segments(f, x, np.eye(9, 8, dtype=int)),
    "kernel": lambda f, x: jv.occlusion_scores(f, x[0], patch=3),
    "incremental": lambda f, x: jv.incremental(f, x[0], 3)[1](jnp.ones((3, 3, 3)), jnp.arange(2)),
    "explain": lambda f, x: jv.explain(f, x[0], patch=3).speedup > 0,
    "activations": lambda f, x: jv.activations(f, x),
    "inner": lambda f, x: jv.activations(f, x, ["inner/conv", "relu"]),
    "saliency": lambda f, x: jv.attribution.saliency(f, x, target=1),
    "traced": lambda f, x: jax.jit(lambda x: jv.attribution.saliency(f, x).values)(x),
    "grad_cam": lambda f, x: jv.attribution.grad_cam(f, x, layer="inner/conv"),
    "grad_cam of any": lambda f, x: jv.attribution.grad_cam(f, x),
    "lrp": lambda f, x: jv.attribution.lrp(f, x),
    "rise": lambda f, x: jv.attribution.rise(f, x, samples=5, target=0),
    "deletion": lambda f, x: jv.metrics.deletion(f, x, IMAGES[..., 0], steps=3).scores,
    "sensitivity": lambda f, x: jv.metrics.infidelity(f, x, IMAGES, samples=3),
    "kv.saliency": lambda f, x: jv.visualize_saliency(f, -1, 0, x[0]),
    "kv.cam": lambda f, x: jv.visualize_cam(f, -1, 0, x[0]),
    "kv.inner": lambda f, x: jv.visualize_cam(f, -1, 0, x[0], penultimate="relu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_question_is_answered_as_with_channels_last(models, name):
    first, last = models
    wanted = arrays(RUNS[name](last, IMAGES))
    assert wanted and any(np.ptp(array) > 0 or array.size == 1 for array in wanted)
    for given in (OWN, IMAGES):
        found = arrays(RUNS[name](first, given))
        assert [a.shape for a in found] == [a.shape for a in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_heatmaps_lie_over_rows_and_columns(models):
    assert jv.occlude(models[0], OWN, patch=3).heatmap().shape == (2, 9, 8)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [unit(0), channel("inner/conv", 2), channel("first", 1)])
def test_maximised_images_are_the_same(models, objective):
    options = {"key": KEY, "steps": 3, "transforms": ()}
    wanted = jv.maximize(models[1], objective, **options).images
    ours = jv.maximize(models[0], objective, image_shape=(3, 9, 8), **options).images
    assert ours.shape == (1, 9, 8, 3)
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
    np.testing.assert_array_equal(ours, jv.maximize(models[0], objective, **options).images)


@pytest.mark.slow
def test_a_start_may_lie_as_the_model_takes_it(models):
    options = {"key": KEY, "steps": 2, "transforms": ()}
    ours = jv.maximize(models[0], unit(0), start=OWN, **options).images
    wanted = jv.maximize(models[0], unit(0), start=IMAGES, **options).images
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.slow
def test_many_images_go_into_a_store_either_way(models, tmp_path):
    stores = {
        name: jv.occlude_dataset(models[0], images, tmp_path / name, patch=4, progress=False)
        for name, images in {"own": OWN, "last": IMAGES}.items()
    }
    np.testing.assert_array_equal(stores["own"][1].scores, stores["last"][1].scores)
    assert stores["own"][0].heatmap().shape == (9, 8)


@pytest.mark.slow
def test_where_both_orders_fit_it_is_the_model_s():
    model = made("channels_first", (4, 4, 4))
    images = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4) / 64
    ours = jv.occlude(model, images, patch=1)
    np.testing.assert_allclose(ours.base, model(images), rtol=1e-5)
    covered = images.copy()
    covered[0, :, 0, 1] = 0
    np.testing.assert_allclose(ours.scores[0, 0, 1], model(covered)[0], rtol=1e-5)


@pytest.mark.slow
def test_the_model_itself_takes_images_as_keras_does_and_with_channels_last(models):
    first, last = models
    np.testing.assert_allclose(first(OWN), last(IMAGES), rtol=1e-5)
    np.testing.assert_array_equal(first(OWN), first(IMAGES))
    assert first.activations(OWN, "relu")["relu"].shape == (2, 4, 9, 8)
    assert (first.input_shape, first.image_shape) == ((3, 9, 8), (9, 8, 3))
    with pytest.raises(ValueError, match=r"must have shape \(batch, 3, 9, 8\): got \(2, 3, 8, 8\)"):
        first(OWN[:, :, 1:])


@pytest.mark.slow
def test_further_training_is_seen(models):
    model = made("channels_first")
    before = jv.occlude(model, OWN, patch=4).base
    model.out.bias[...] += 1
    np.testing.assert_allclose(jv.occlude(model, OWN, patch=4).base, before + 1, rtol=1e-5)
    model.relu = lambda x: x * 0
    after = jv.occlude(model, OWN, patch=4)
    assert np.ptp(after.scores, axis=(0, 1, 2)).max() < 1e-5


@pytest.mark.slow
def test_layers_tell_the_order_in_front_of_them():
    conv = made("channels_first").first
    permute, back = keras.layers.Permute((2, 3, 1)), keras.layers.Permute((3, 1, 2))
    chain = keras.Sequential([keras.Input((3, 9, 8)), permute, keras.layers.Conv2D(2, 3), back])
    model = jv.from_keras(chain)
    assert model.data_format == "channels_first"
    assert takes_in_front([conv]) is True and takes_in_front([]) is None
    assert gives_in_front(model, True) is True and gives_in_front(model.layer(0), True) is False
    np.testing.assert_allclose(
        jv.activations(model, OWN)[model.layer_names[-1]], np.moveaxis(model(OWN), 1, -1)
    )
