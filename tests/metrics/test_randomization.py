"""Similarities against their definitions; which weights are destroyed, in which order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from judges import slow_spearman
from scorers import convolutional

import jaxviz as jv
from jaxviz.metrics.similarity import cosine, similarities, ssim
from jaxviz.metrics.weights import weights_of

IMAGE = jax.ShapeDtypeStruct((1, 6, 6, 1), jnp.float32)


def slow_ssim(x, y):
    """Windows of 11×11 one after another, over the mirrored image."""
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    span = max(x.max(), y.max()) - min(x.min(), y.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    px, py = np.pad(x, 5, mode="symmetric"), np.pad(y, 5, mode="symmetric")
    total = 0.0
    for r, c in np.ndindex(x.shape):
        a, b = px[r : r + 11, c : c + 11], py[r : r + 11, c : c + 11]
        ma, mb = (weights * a).sum(), (weights * b).sum()
        va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
        both = (weights * (a - ma) * (b - mb)).sum()
        luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        total += luminance * (2 * both + c2) / (va + vb + c2)
    return total / x.size


def test_similarities_equal_their_definitions(rng):
    first = rng.normal(size=(3, 9, 7))
    second = first + rng.normal(size=(3, 9, 7))
    found = similarities(first, second)
    for n in range(3):
        x, y = first[n].ravel(), second[n].ravel()
        assert found["ssim"][n] == pytest.approx(slow_ssim(first[n], second[n]), rel=1e-9)
        assert found["spearman"][n] == pytest.approx(slow_spearman(x, y), rel=1e-9)
        assert found["cosine"][n] == pytest.approx(x @ y / (x @ x) ** 0.5 / (y @ y) ** 0.5)


def test_a_map_is_like_itself_and_a_constant_is_like_nothing(rng):
    heatmap = rng.normal(size=(1, 8, 8))
    for name, value in similarities(heatmap, 3 * heatmap).items():
        np.testing.assert_allclose(value, 1, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(cosine(heatmap[0], -heatmap[0]), -1)
    assert np.isnan(ssim(heatmap, np.ones_like(heatmap))).all()
    assert np.isnan(similarities(heatmap, 0 * heatmap)["cosine"]).all()


class Small(nnx.Module):
    """Layers whose names do not tell their order."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.z_first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.a_last = nnx.Linear(4, 3, rngs=rngs)
        self.unused = nnx.Linear(4, 3, rngs=rngs)
        self.norm.scale[...] = jnp.arange(1.0, 5.0)
        self.z_first.bias[...] = jnp.arange(4.0)

    def __call__(self, x):
        return self.a_last(jnp.tanh(self.norm(self.z_first(x))).mean((1, 2)))


class LinenSmall(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3), name="z_first")(x)
        x = linen.BatchNorm(use_running_average=True, name="norm")(x)
        return linen.Dense(3, name="a_last")(jnp.tanh(x).mean((1, 2)))


def linen_small():
    module = LinenSmall()
    return module, module.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)))


def equinox_small():
    keys = jax.random.split(jax.random.key(0))
    layers = [
        eqx.nn.Conv2d(1, 4, 3, key=keys[0]), eqx.nn.Lambda(lambda x: jnp.tanh(x).mean((1, 2))),
        eqx.nn.Linear(4, 3, key=keys[1]),
    ]  # fmt: skip
    return jv.from_equinox(eqx.nn.Sequential(layers))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Small, ["z_first", "norm", "a_last"]),
        (linen_small, ["z_first", "norm", "a_last"]),
        (equinox_small, ["model.layers.0", "model.layers.2"]),
        (lambda: convolutional(size=(6, 6)), ["0.0", "0.1"]),
    ],
    ids=["nnx", "linen", "equinox", "partial"],
)
def test_layers_come_in_the_order_in_which_they_are_read(make, names):
    weights = weights_of(make(), IMAGE)
    assert list(weights.layers) == names


def test_a_model_of_keras_files_has_its_layers():
    image = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    weights = weights_of(jv.models.mnist_cnn(), image)
    assert list(weights.layers) == ["conv2d", "conv2d_1", "dense", "preds"]


def arrays_of(model):
    return {
        ".".join(map(str, path)): np.asarray(value[...])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


def test_shuffling_keeps_the_numbers_of_an_array_and_leaves_other_layers_alone():
    model = Small()
    clean = arrays_of(model)
    weights = weights_of(model, IMAGE)
    changed = arrays_of(weights.shuffled(["z_first", "norm"], jax.random.key(1)))
    for name, before in clean.items():
        after = changed[name]
        np.testing.assert_array_equal(np.sort(after.ravel()), np.sort(before.ravel()))
        mixed = name.startswith(("z_first", "norm")) and len(set(before.ravel())) > 1
        assert np.array_equal(before, after) != mixed, name
    np.testing.assert_array_equal(arrays_of(model)["z_first.kernel"], clean["z_first.kernel"])


def test_each_layer_has_its_own_key_and_is_the_same_in_every_row():
    twins = nnx.List([nnx.Linear(5, 5, rngs=nnx.Rngs(0)) for _ in range(2)])
    model = nnx.Sequential(*twins)
    image = jax.ShapeDtypeStruct((1, 4, 4, 5), jnp.float32)
    weights = weights_of(nnx.Sequential(*model.layers, lambda x: x.mean((1, 2))), image)
    first, second = weights.layers
    key = jax.random.key(3)
    both = weights.shuffled([first, second], key)
    one = weights.shuffled([second], key)
    kernels = [np.asarray(layer.kernel[...]) for layer in both.layers[:2]]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(np.asarray(one.layers[1].kernel[...]), kernels[1])


def test_tied_weights_stay_tied():
    shared = jnp.arange(9.0).reshape(3, 3)
    f = jax.tree_util.Partial(lambda a, b, x: x.mean((1, 2)) @ a @ b, shared, shared)
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    weights = weights_of(f, image)
    found = weights.shuffled(list(weights.layers), jax.random.key(0))
    np.testing.assert_array_equal(found.args[0], found.args[1])


def test_tied_weights_are_the_same_in_every_row_of_a_cascade(rng):
    shared, between = rng.random((2, 3, 3), np.float32)
    f = jax.tree_util.Partial(
        lambda a, b, c, x: x.mean((1, 2)) @ a @ b @ c, shared, between, shared
    )
    tops = []

    def attribute(model, images):
        tops.append(np.asarray(model.args[2]))
        return images.sum(-1)

    jv.metrics.randomization(attribute, f, rng.random((2, 4, 4, 3)))
    _, first, *rows = tops
    assert not np.array_equal(first, shared)
    assert len(rows) == 2
    for row in rows:
        np.testing.assert_array_equal(row, first)


def saliency(model, images):
    return jax.grad(lambda x: model(x)[:, 0].sum())(jnp.asarray(images))[..., 0]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_it_equals_the_loop(rng, order):
    model, images = Small(), rng.random((2, 6, 6, 1)).astype(np.float32)
    key = jax.random.key(9)
    found = jv.metrics.randomization(saliency, model, images, order=order, key=key)
    assert found.layers == ("a_last", "norm", "z_first")
    clean, weights = np.asarray(saliency(model, images), float), weights_of(model, IMAGE)
    for i, name in enumerate(found.layers):
        names = found.layers[: i + 1] if order == "cascading" else [name]
        other = np.asarray(saliency(weights.shuffled(names, key), images), float)
        for n in range(2):
            rho = slow_spearman(clean[n].ravel(), other[n].ravel())
            assert found.similarity["spearman"][i, n] == pytest.approx(rho, abs=1e-9)
    np.testing.assert_array_equal(found.value, found.similarity["spearman"].mean(0))
    assert found.value.max() < 1


def test_chosen_layers_and_single_images(rng):
    model, image = Small(), rng.random((6, 6, 1)).astype(np.float32)
    found = jv.metrics.randomization(
        lambda m, x: x[..., 0], model, image, layers=["z_first", "a_last"], magnitudes=True
    )
    assert found.layers == ("a_last", "z_first")
    assert {k: v.shape for k, v in found.similarity.items()} == {
        "ssim": (2,), "spearman": (2,), "cosine": (2,)
    }  # fmt: skip
    np.testing.assert_allclose(found.value, 1)
    assert repr(found).split("\n")[1] == "  a_last   ssim 1.000, spearman 1.000, cosine 1.000"
    assert len(found.plot(title="A check").axes[0].lines) == 4


def test_constant_maps_are_counted_and_left_out():
    rows = np.asarray([[0.5, np.nan, 0.1], [np.nan] * 3])
    found = jv.metrics.Randomization(("top", "low"), {"spearman": rows})
    assert repr(found).split("\n")[1:] == [
        "  top  spearman 0.300 (n = 2)", "  low  spearman undefined"
    ]  # fmt: skip
    drawn = found.plot().axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, [0.3, np.nan])
    assert np.isnan(found.value[1])


@pytest.mark.slow
def test_random_logits_are_other_classes(rng):
    images, seen = rng.random((40, 6, 6, 1)).astype(np.float32), []

    def attribute(x, targets):
        seen.append(targets)
        return x[..., 0] * np.where(targets == 2, 1, -1)[:, None, None]

    found = jv.metrics.random_logit(attribute, images, target=2, classes=4)
    assert (seen[0] == 2).all() and set(seen[1]) == {0, 1, 3}
    np.testing.assert_allclose(found["cosine"], -1, rtol=1e-6)
    found = jv.metrics.random_logit(attribute, images, target=2, classes=4, magnitudes=True)
    np.testing.assert_allclose(found["cosine"], 1, rtol=1e-6)


@pytest.mark.slow
def test_what_breaks_a_rule_is_told(rng):
    images = rng.random((2, 6, 6, 1)).astype(np.float32)

    def attribute(model, x):
        return x[..., 0]

    check = jv.metrics.randomization
    with pytest.raises(ValueError, match='`order` must be "cascading" or "independent"'):
        check(attribute, Small(), images, order="up")
    with pytest.raises(ValueError, match="`layers` must be some of a_last, norm, z_first: got 'b'"):
        check(attribute, Small(), images, layers=["b"])
    with pytest.raises(ValueError, match="`model` must hold the weights that its scores read"):
        check(attribute, lambda x: x.mean((1, 2)), images)
    with pytest.raises(ValueError, match="`attribute` must make one map per image"):
        check(lambda model, x: x[:1, ..., 0], Small(), images)
    shapes = iter([6, 5])
    with pytest.raises(ValueError, match="`attribute` must make maps of one shape"):
        check(lambda model, x: x[:, : next(shapes), :, 0], Small(), images)
    for target, classes in [(0.5, 3), ([1], 3), (3, 3), (-1, 3), (0, 1)]:
        with pytest.raises(ValueError, match="`target` must"):
            jv.metrics.random_logit(lambda x, t: x[..., 0], images, target=target, classes=classes)
