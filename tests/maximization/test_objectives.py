"""Objectives mean what they say, compose, and check what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz import objectives as jo
from jaxviz.layers import tag
from jaxviz.maximization.objective import check


@pytest.fixture
def acts(rng):
    conv = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    scores = rng.normal(size=(3, 7)).astype(np.float32)
    return {"conv": jnp.asarray(conv), None: jnp.asarray(scores)}


def shapes(acts):
    return {name: value.shape[1:] for name, value in acts.items()}


def slow_diversity(conv):
    conv = np.asarray(conv, np.float64)
    grams = [np.tensordot(a, a, ((0, 1), (0, 1))).ravel() for a in conv]
    grams = [gram / np.linalg.norm(gram) for gram in grams]
    values = []
    for s in range(len(grams)):
        cosines = [float(grams[s] @ grams[t]) for t in range(len(grams)) if t != s]
        values.append(-sum(cosines) / len(cosines))
    return values


def test_each_objective_is_its_formula(acts):
    conv, scores = np.asarray(acts["conv"], np.float64), np.asarray(acts[None], np.float64)
    vector = np.arange(6.0)
    t = np.asarray([0, 0.5, 1])
    channels = conv.mean((1, 2))
    cases = {
        "unit": (jo.unit(3), scores[:, 3]),
        "channel": (jo.channel("conv", 2), channels[:, 2]),
        "centre": (jo.neuron("conv", 2), conv[:, 2, 2, 2]),
        "neuron": (jo.neuron("conv", 2, position=(0, 4)), conv[:, 0, 4, 2]),
        "layer": (jo.layer("conv"), (conv**2).mean((1, 2, 3))),
        "direction": (jo.direction("conv", vector), channels @ vector),
        "at": (jo.direction("conv", vector, position=(3, 1)), conv[:, 3, 1] @ vector),
        "interpolate": (
            jo.interpolate("conv", 0, 5),
            (1 - t) * channels[:, 0] + t * channels[:, 5],
        ),
        "diversity": (jo.diversity("conv"), slow_diversity(conv)),
        "own": (jo.objective(lambda a: a["conv"].max((1, 2, 3)), ["conv"]), conv.max((1, 2, 3))),
    }
    objectives = {name: objective for name, (objective, _) in cases.items()}
    found = jax.jit(lambda: {name: o(acts) for name, o in objectives.items()})()
    for name, (objective, expected) in cases.items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6, err_msg=name)
        check(objective, shapes(acts))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(a=st.integers(0, 6), b=st.integers(0, 6), k=st.floats(-4, 4, width=32))
def test_composition_is_arithmetic(a, b, k):
    acts = {None: jnp.arange(14.0).reshape(2, 7)}
    x, y = np.arange(14.0).reshape(2, 7)[:, a], np.arange(14.0).reshape(2, 7)[:, b]
    first, second = jo.unit(a), jo.unit(b)
    cases = [
        (first - second, x - y),
        (first + second, x + y),
        (first * second, x * y),
        (-first, -x),
        (k * first + 1, k * x + 1),
        (1 - first * k, 1 - x * k),
        (2 + first - 3, x - 1),
    ]
    for objective, expected in cases:
        np.testing.assert_allclose(objective(acts), expected, rtol=1e-5, atol=1e-5)


def test_a_sum_reads_each_layer_once():
    objective = jo.channel("conv", 1) + jo.channel("conv", 2) - 2 * jo.unit(0)
    assert objective.layers == ("conv", None)


def test_alike_objectives_share_a_structure_and_unlike_ones_do_not():
    def structure(objective):
        return jax.tree.structure(objective)

    assert structure(jo.unit(1)) == structure(jo.unit(2))
    assert structure(jo.unit(1) - 2 * jo.unit(2)) == structure(jo.unit(3) - 4 * jo.unit(0))
    assert structure(jo.unit(1) - jo.unit(2)) != structure(jo.unit(1) + jo.unit(2))
    assert structure(jo.channel("a", 1)) != structure(jo.channel("b", 1))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-18, 1e-4, 1.0, 1e10, 1e18])
def test_diversity_does_not_depend_on_the_size_of_the_activations(acts, size):
    def total(scale, conv):
        return jo.diversity("conv")({"conv": scale * conv})

    conv = acts["conv"]
    np.testing.assert_allclose(total(size, conv), slow_diversity(conv), rtol=2e-5)
    # cos(G(c·a)) = cos(G(a)): the derivative is 1/c of that at c = 1, nothing lost.
    slope, expected = (jax.grad(lambda a, s=s: total(s, a).sum())(conv) for s in (size, 1.0))
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-5)


def test_x64_changes_no_dtype(acts):
    cases = [jo.unit(1), jo.interpolate("conv", 0, 1), 2 * jo.layer("conv") - 1]
    with jax.enable_x64(True):
        for one in [*cases, jo.diversity("conv")]:
            assert jax.eval_shape(lambda one=one: one(acts)).dtype == jnp.float32
        alone = {"conv": acts["conv"][:1]}
        assert jo.diversity("conv")(alone).dtype == jnp.float32


def test_diversity_of_one_image_is_zero_and_of_dead_images_finite():
    assert jo.diversity("c")({"c": jnp.ones((1, 2, 2, 3))}).tolist() == [0.0]
    total = lambda c: jo.diversity("c")({"c": c}).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(total))(jnp.zeros((2, 2, 2, 3)))
    assert np.isfinite(np.asarray(gradient)).all()


def test_objectives_are_computed_in_float32(acts):
    half = {name: value.astype(jnp.bfloat16) for name, value in acts.items()}
    for objective in (jo.unit(1), jo.channel("conv", 1), jo.layer("conv"), jo.diversity("conv")):
        assert jax.eval_shape(lambda o=objective: o(half)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (jo.unit(7), r"`index` must be in 0…6 for the scores: got 7"),
        (jo.channel("conv", -1), r"`index` must be in 0…5 for layer 'conv': got -1"),
        (jo.interpolate("conv", 0, 6), r"got 6"),
        (jo.unit(0, layer="conv"), r"`unit` needs a layer with output \(N, K\)"),
        (jo.neuron(None, 0), r"`position` needs a layer with output \(N, h, w, C\)"),
        (jo.neuron("conv", 0, position=(4, 0)), r"`position` must lie inside layer 'conv'"),
        (jo.direction("conv", [1.0, 2.0]), r"`vector` must have one entry a channel"),
        (jo.unit(0) + 2 * jo.channel("conv", 9), r"got 9"),
    ],
)
def test_what_does_not_fit_the_layer_is_refused(acts, objective, message):
    with pytest.raises(ValueError, match=message):
        check(objective, shapes(acts))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`index` must be an integer: got 1.5"):
        jo.unit(1.5)
    with pytest.raises(ValueError, match=r"`vector` must have shape \(channels,\)"):
        jo.direction("conv", np.ones((2, 2)))
    with pytest.raises(ValueError, match="composes with objectives and numbers"):
        jo.unit(1) + np.ones(3)


@pytest.mark.slow
def test_every_channel_of_a_layer():
    def f(images):
        return tag("wide", jnp.repeat(images, 4, -1)).mean((1, 2))

    channels = jo.every_channel(f, "wide", image_shape=(3, 3, 2))
    assert [int(objective.values[0]) for objective in channels] == list(range(8))
    assert channels[5].layers == ("wide",)
