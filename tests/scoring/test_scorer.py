"""Anything that can be called on images is a scorer; its arrays are arguments, never constants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scorers import convolutional

from jaxviz.models import mnist_cnn
from jaxviz.occlusion.occlude import occlude
from jaxviz.scoring import scorer
from jaxviz.scoring.scorer import check_output, split

IMAGES = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
OPTIONS = dict(patch=4, stride=2, fill="mean")


@pytest.mark.slow
def test_a_plain_function():
    check_as_scorer(lambda images: images.mean((1, 2)) ** 2, leaves=0)


@pytest.mark.slow
def test_a_partial():
    check_as_scorer(convolutional(3, size=(8, 8)), leaves=2)


@pytest.mark.slow
def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.drop = nnx.Dropout(0.5, deterministic=True)
            self.dense = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, images):
            x = self.drop(nnx.relu(self.norm(self.conv(images))))
            return self.dense(x.mean((1, 2)))

    check_as_scorer(Net(nnx.Rngs(0)), leaves=8)


@pytest.mark.slow
def test_flax_linen():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, images):
            x = linen.relu(linen.Conv(4, (3, 3))(images))
            return linen.Dense(5)(x.mean((1, 2)))

    model = Net()
    params = model.init(jax.random.key(0), IMAGES)
    check_as_scorer(Partial(model.apply, params), leaves=4)


@pytest.mark.slow
def test_equinox():
    equinox = pytest.importorskip("equinox")

    class Net(equinox.Module):
        conv: equinox.nn.Conv2d
        dense: equinox.nn.Linear

        def __call__(self, images):
            def one(image):
                x = jax.nn.relu(self.conv(jnp.moveaxis(image, -1, 0)))
                return self.dense(x.mean((1, 2)))

            return jax.vmap(one)(images)

    conv, dense = jax.random.split(jax.random.key(0))
    net = Net(equinox.nn.Conv2d(3, 4, 3, key=conv), equinox.nn.Linear(4, 5, key=dense))
    check_as_scorer(net, leaves=4)


@pytest.mark.slow
def test_haiku():
    haiku = pytest.importorskip("haiku")

    def net(images):
        x = jax.nn.relu(haiku.Conv2D(4, 3)(images))
        return haiku.Linear(5)(x.mean((1, 2)))

    model = haiku.without_apply_rng(haiku.transform(net))
    check_as_scorer(Partial(model.apply, model.init(jax.random.key(0), IMAGES)), leaves=4)


def keras_model():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend than JAX: set KERAS_BACKEND=jax")
    keras.utils.set_random_seed(0)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(5, activation="softmax"),
            ]
        )
    return model


@pytest.mark.slow
def test_keras_on_jax():
    check_as_scorer(keras_model(), leaves=8)


@pytest.mark.slow
def test_keras_with_a_layer_of_ones_own_runs_on_jax_alone(monkeypatch):
    keras = pytest.importorskip("keras")
    model = keras_model()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = keras.Sequential([model, keras.layers.Lambda(lambda x: 2 * x)])
    check_as_scorer(model, leaves=9)
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="Keras .* KERAS_BACKEND=jax .* got tensorflow"):
        split(model)


@pytest.mark.slow
def test_a_bound_method_of_a_pytree():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Net:
        weights: jax.Array

        def logits(self, images):
            return images.mean((1, 2)) @ self.weights

    check_as_scorer(Net(jnp.arange(15.0).reshape(3, 5)).logits, leaves=1)


def test_a_bound_method_of_any_other_object():
    class Net:
        weights = np.arange(15, dtype=np.float32).reshape(3, 5)

        def logits(self, images):
            return images.mean((1, 2)) @ self.weights

    check_as_scorer(Net().logits, leaves=0)


def check_as_scorer(f, leaves):
    """Its arrays are taken out, and its occlusion scores are its own scores of occluded images."""
    parts = split(f)
    assert len(parts.arrays) == leaves and all(isinstance(a, jax.Array) for a in parts.arrays)
    occ = occlude(f, IMAGES, **OPTIONS)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(occ.base, f(jnp.asarray(IMAGES)), rtol=1e-5, atol=1e-6)
        for n, i, j in [(0, 0, 0), (1, 1, 2)]:
            occluded = IMAGES.copy()
            top, left = occ.grid.starts[i, j]
            occluded[n, top : top + 4, left : left + 4] = IMAGES[n].mean((0, 1))
            wanted = np.asarray(f(jnp.asarray(occluded[n : n + 1])))[0]
            np.testing.assert_allclose(occ.scores[n, i, j], wanted, rtol=1e-5, atol=1e-6)


def test_equal_structure_is_an_equal_call():
    one, two = split(convolutional(seed=0)), split(convolutional(seed=1))
    assert one.call == two.call and hash(one.call) == hash(two.call)
    assert one.call != split(Partial(lambda *xs: xs[-1])).call


def test_a_model_that_compares_by_value_is_traced_once(monkeypatch):
    traces = []
    trace = scorer.trace
    monkeypatch.setattr(scorer, "trace", lambda *a, **k: (traces.append(1), trace(*a, **k))[1])
    first, second = mnist_cnn(), mnist_cnn()
    for rows in (3, 5):  # of which no other test traces it
        for model in (first, second, mnist_cnn()):
            split(model).at((rows, 28, 28, 1), np.float32)
    assert len(traces) == 2

    # What is static is part of its value; what derives from it may do anything.
    layer = second.layer("conv2d")
    layer.spec = dataclasses.replace(layer.spec, activation=jnp.tanh)
    before, after = (split(m).at((3, 28, 28, 1), np.float32) for m in (first, second))
    assert before.content != after.content and len(traces) == 3
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    for model, lifted in ((first, before), (second, after)):
        np.testing.assert_allclose(lifted.call(lifted.arrays, images), model(images), rtol=1e-5)
    derived = type("Derived", (type(first),), {})
    first.__class__ = derived
    assert not split(first).by_value and split(second).by_value


def test_static_leaves_tell_calls_apart():
    one, two = (split(Partial(lambda_of, scale)) for scale in (1.0, 2.0))
    assert one.arrays == [] and one.call != two.call


def lambda_of(scale, images):
    return images.mean((1, 2)) * scale


def test_what_cannot_be_hashed_is_compared():
    class Odd(list):
        def __call__(self, images):
            return images.mean((1, 2))

    jax.tree_util.register_pytree_node(Odd, lambda x: ((), None), lambda _, __: Odd())
    leaves = [Partial(lambda _, images: images.mean((1, 2)), Unhashable()) for _ in range(2)]
    calls = [split(leaf).call for leaf in leaves]
    assert hash(calls[0]) == hash(calls[1]) and calls[0] != calls[1] and calls[0] == calls[0]


class Unhashable:
    __hash__ = None  # pyright: ignore

    def __eq__(self, other):
        return self is other


@pytest.mark.slow
def test_names_for_the_record():
    assert split(Partial(lambda_of, 1.0)).name == "Partial(lambda_of)"
    assert split(keras_model()).name.startswith("sequential")


@pytest.mark.parametrize("f", [3, None, np.ones(3)])
def test_what_cannot_be_called_is_refused(f):
    with pytest.raises(TypeError, match="`f` must be callable, images -> scores: got a "):
        split(f)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scores, match",
    [
        (np.zeros(4), r"a row per image: got \(4,\) for 4 images; give \(N, 1\)"),
        (np.zeros(3), r"got \(3,\) for 4 images\.$"),
        (np.zeros(()), r"got \(\) for 4 images"),
        (np.zeros((1, 3)), r"got \(1, 3\) for 4 images"),
        ([np.zeros((4, 3))], "`f` must return one array .* got a list; pick one output"),
        (None, "got a NoneType"),
    ],
)
def test_scores_of_another_shape_are_refused(scores, match):
    with pytest.raises(ValueError, match=match):
        check_output(scores, 4)
