"""Layer outputs by name, for every kind of scorer."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.tree_util import Partial

from jaxviz.attribution import grad_cam
from jaxviz.keras import load_keras
from jaxviz.layers import activations, as_scorer, capture, layer_names, resolve, tag, thaw
from jaxviz.scoring.scorer import split


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.dense(x))


class Wide(nnx.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


def nnx_net():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(Wide(2, 3, rngs=rngs), nnx.relu, Block(rngs), nnx.Linear(3, 1, rngs=rngs))


class LinenHead(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="dense")(x)


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), name="conv")(x))
        return LinenHead(name="head")(x.mean((1, 2)))


def tagged(images):
    hidden = tag("hidden", images * 2)
    return jax.jit(lambda x: tag("mean", x.mean((1, 2))))(hidden)


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.normal(size=(2, 5, 4, 2)), jnp.float32)


@pytest.mark.slow
def test_nnx_layers_go_by_attribute_path(images):
    net = nnx_net()
    found = activations(net, images)
    names = ["layers.0", "layers.2.dense", "layers.2.dense#2", "layers.2", "layers.3"]
    assert list(found) == names == layer_names(net, images)
    first = net.layers[0](images)
    np.testing.assert_allclose(found["layers.0"], first, rtol=1e-6)
    np.testing.assert_allclose(found["layers.2"], net.layers[2](nnx.relu(first)), rtol=1e-5)
    assert (found["layers.2.dense#2"] == found["layers.2"]).all()


@pytest.mark.slow
def test_nnx_classes_are_left_as_they_were(images):
    before = Wide.__call__, "__call__" in vars(Block), nnx.Linear.__call__
    activations(nnx_net(), images)
    assert before == (Wide.__call__, "__call__" in vars(Block), nnx.Linear.__call__)


def test_nnx_classes_are_left_as_they_were_when_a_call_fails(images):
    before = nnx.Linear.__call__
    with pytest.raises(TypeError, match="dot_general"):
        activations(nnx_net(), images[..., :1])
    assert before is nnx.Linear.__call__


class Looking(nnx.Module):
    """Reads the layers of one of its modules while it is called itself."""

    def __init__(self, inner, noted):
        self.inner, self.noted = inner, noted

    def __call__(self, x):
        found = activations(self.inner, x)
        self.noted(sorted(found))
        return self.inner(x) + found["layers.3"]


def in_time(*calls):
    """What the calls return, each in a thread of its own; an error where one never ends."""
    results = [None] * len(calls)

    def run(n):
        results[n] = calls[n]()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
        assert not thread.is_alive(), "a call hangs"
    return results


@pytest.mark.slow
def test_activations_inside_a_traced_call_are_those_of_the_inner_scorer(images):
    noted, inner = [], nnx_net()
    net = nnx.Sequential(Looking(inner, noted.append), nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    (found,) = in_time(lambda: activations(net, images))
    own = ["layers.0", "layers.2", "layers.2.dense", "layers.2.dense#2", "layers.3"]
    assert noted and all(names == own for names in noted)
    assert list(found) == [
        *(f"layers.0.inner.{name}" for name in list(activations(inner, images))),
        "layers.0.inner",
        "layers.0",
        "layers.1",
    ]
    np.testing.assert_allclose(found["layers.0"], 2 * inner(images), rtol=1e-5)


@pytest.mark.slow
def test_linen_activations_inside_a_traced_call_are_those_of_the_inner_scorer(images):
    inner, noted = LinenNet(), []
    variables = inner.init(jax.random.key(0), images)

    class Outer(linen.Module):
        @linen.compact
        def __call__(self, x):
            noted.append(list(activations((inner, variables), x)))
            return linen.Dense(1, name="own")(x).mean((1, 2))

    with_own = Outer().init(jax.random.key(0), images)
    assert list(activations((Outer(), with_own), images)) == ["own"]
    assert noted and all(names == ["conv", "head.dense", "head"] for names in noted)


@pytest.mark.slow
def test_two_threads_at_once_do_not_mix(images):
    meet = threading.Barrier(2)

    class Meeting(nnx.Module):
        """Waits inside its call until the other thread is inside its own."""

        def __init__(self):
            self.linear = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

        def __call__(self, x):
            meet.wait(600)
            return self.linear(x)

    class Other(Meeting):
        def __init__(self):
            super().__init__()
            self.last = nnx.Linear(1, 1, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.last(super().__call__(x))

    before = nnx.Linear.__call__, Meeting.__call__, Other.__call__
    found = in_time(
        *(lambda net=net: list(layer_names(net, images)) for net in (Meeting(), Other()))
    )
    assert found == [["linear"], ["linear", "last"]]
    assert before == (nnx.Linear.__call__, Meeting.__call__, Other.__call__)


@pytest.mark.slow
def test_linen_layers_go_by_path(images):
    net = LinenNet()
    variables = net.init(jax.random.key(0), images)
    for scorer in ((net, variables), Partial(net.apply, variables)):
        found = activations(scorer, images)
        assert list(found) == ["conv", "head.dense", "head"]
        _, kept = net.apply(variables, images, capture_intermediates=True, mutable="intermediates")
        expected = kept["intermediates"]["conv"]["__call__"][0]
        np.testing.assert_allclose(found["conv"], expected, rtol=1e-5, atol=1e-6)


def test_tags_are_found_inside_jit(images):
    for f in (tagged, jax.jit(tagged)):
        found = activations(f, images)
        assert list(found) == ["hidden", "mean"]
        np.testing.assert_allclose(found["hidden"], 2 * images)
        np.testing.assert_allclose(found["mean"], f(images), rtol=1e-6)


def test_keras_layers_go_by_their_names():
    layers = [
        {"class_name": "ReLU", "config": {"name": "relu", "batch_input_shape": [None, 2, 2, 1]}},
        {"class_name": "Flatten", "config": {"name": "flat"}},
    ]
    model = load_keras({"class_name": "Sequential", "config": layers})
    images = jnp.arange(-4.0, 4.0).reshape(2, 2, 2, 1)
    assert list(activations(model, images)) == ["relu", "flat"]
    assert activations(model, images, [-1])["flat"].shape == (2, 4)
    with pytest.raises(ValueError, match="nearest"):
        activations(model, images, "rely")


def keras_tower():
    """tanh in a nested model, called twice, between two calls of a ReLU."""
    relu = {"class_name": "ReLU", "name": "r", "config": {"name": "r", "negative_slope": 0.5},
            "inbound_nodes": [[["x", 0, 0, {}]], [["tower", 1, 0, {}]]]}  # fmt: skip
    tanh = {"class_name": "Activation", "config": {"name": "t", "activation": "tanh"}}
    tower = {"class_name": "Sequential", "name": "tower",
             "config": {"name": "tower", "layers": [tanh], "build_input_shape": [None, 2, 2, 1]},
             "inbound_nodes": [[["r", 0, 0, {}]], [["tower", 0, 0, {}]]]}  # fmt: skip
    first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
             "config": {"name": "x", "batch_input_shape": [None, 2, 2, 1]}}  # fmt: skip
    return load_keras({"class_name": "Functional", "config": {
        "name": "m", "layers": [first, relu, tower], "input_layers": [["x", 0, 0]],
        "output_layers": [["r", 1, 0]]}})  # fmt: skip


@pytest.mark.slow
def test_repeats_and_towers_of_keras_have_names_of_their_own():
    model, images = keras_tower(), jnp.linspace(-2.0, 2.0, 4).reshape(1, 2, 2, 1)
    names = ["r", "tower/t", "tower", "tower#2/t", "tower#2", "r#2"]
    found = activations(model, images)
    assert list(found) == model.layer_names == names == layer_names(model, images)
    x = np.asarray(images)
    relu = np.where(x > 0, x, 0.5 * x)
    once, twice = np.tanh(relu), np.tanh(np.tanh(relu))
    expected = [relu, once, once, twice, twice, np.where(twice > 0, twice, 0.5 * twice)]
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
        alone = activations(model, images, name)[name]  # another program
        np.testing.assert_allclose(alone, found[name], rtol=1e-6)
    np.testing.assert_allclose(activations(model, images, -1)["r#2"], model(images), rtol=1e-6)
    assert model.layer("tower#2/t") is model.layer("tower/t")


def test_names_that_repeat_stay_distinct(images):
    def f(x):
        return tag("a", tag("a#2", tag("a", x)) + 1).sum((1, 2))

    assert list(activations(f, images)) == ["a", "a#2", "a#3"]


def test_scorers_without_layers_that_can_be_seen_say_why(images):
    equinox = pytest.importorskip("equinox")
    of_equinox = equinox.nn.Lambda(lambda x: x.mean((1, 2)))
    for scorer in (of_equinox, lambda x: x.mean((1, 2))):
        with pytest.raises(ValueError, match=r"has none .* jv\.tag .* jv\.from_keras"):
            activations(scorer, images)


class Scanned(nnx.Module):
    """Three layers of one structure, run by NNX's own scan, between two others."""

    def __init__(self, rngs):
        make = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs), in_axes=0, out_axes=0)
        make = nnx.split_rngs(splits=3)(make)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.stack = make(rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        scan = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(scan(self.conv(x), self.stack).mean((1, 2)))


@pytest.mark.slow
def test_layers_around_a_scan_over_modules_are_found():
    model, images = Scanned(nnx.Rngs(0)), jnp.ones((2, 6, 6, 3))
    found = activations(model, images)
    assert list(found) == ["conv", "head"]
    np.testing.assert_allclose(found["head"], model(images), rtol=1e-5)
    assert grad_cam(model, images, target=1).values.shape == (2, 6, 6, 1)


@pytest.mark.slow
def test_modules_of_haiku_are_named_as_in_their_parameters(images):
    haiku = pytest.importorskip("haiku")

    class Block(haiku.Module):
        def __init__(self):
            super().__init__(name="block")
            self.conv = haiku.Conv2D(4, 3, name="conv")

        def __call__(self, x):
            return self.conv(self.conv(x))

    net = haiku.without_apply_rng(
        haiku.transform(lambda x: haiku.Linear(3)(Block()(x).mean((1, 2))))
    )
    params = net.init(jax.random.key(0), images[..., :1].repeat(4, -1))
    model = Partial(net.apply, params)
    found = activations(model, images[..., :1].repeat(4, -1))
    assert list(found) == ["block/~/conv", "block/~/conv#2", "block", "linear"]
    np.testing.assert_array_equal(found["block"], found["block/~/conv#2"])
    np.testing.assert_allclose(
        found["linear"], model(images[..., :1].repeat(4, -1)), rtol=1e-5, atol=1e-6
    )
    assert set(params) == {"block/~/conv", "linear"}


def test_layers_by_index_and_in_the_order_asked(images):
    found = activations(tagged, images, [-1, "hidden", 0])
    assert list(found) == ["mean", "hidden"]


@pytest.mark.slow
def test_capture_composes_with_jit_vmap_and_grad(images):
    def total(x):
        found = capture(tagged, x, ["hidden", None])
        return found["hidden"].sum() + found[None].sum()

    expected = np.full(images.shape, 2 + 2 / 20)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(images), expected, rtol=1e-6)
    batches = jnp.stack([images, images])
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(batches)[1], expected, rtol=1e-6)


def test_only_what_is_needed_is_computed(images):
    def f(x):
        return jnp.sin(tag("early", x)).sum((1, 2))

    parts = split(f)
    text = (
        jax.jit(lambda x: capture(thaw(parts.call, parts.arrays), x, ["early"]))
        .lower(images)
        .compile()
        .as_text()
    )
    assert "sine" not in text


def test_thaw_restores_the_scorer(images):
    net = nnx_net()
    parts = split(net)
    np.testing.assert_array_equal(thaw(parts.call, parts.arrays)(images), net(images))


def test_an_unknown_layer_names_the_nearest(images):
    with pytest.raises(ValueError, match=r"got 'hiden'; did you mean 'hidden'\?"):
        activations(tagged, images, "hiden")
    with pytest.raises(ValueError, match="this scorer has none; name one with jv.tag"):
        activations(lambda x: x, images, "conv")


def test_an_index_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`layer` must be an index below 2: got 2"):
        resolve(2, ["a", "b"])


@pytest.mark.slow
def test_a_single_image_is_refused(images):
    with pytest.raises(ValueError, match=r"add the batch axis with images\[None\]"):
        activations(tagged, images[0])


@pytest.mark.slow
def test_what_cannot_be_called_is_refused():
    with pytest.raises(ValueError, match="`f` must be a callable .* got str"):
        as_scorer("mnist.h5")
