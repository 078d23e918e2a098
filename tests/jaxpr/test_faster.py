"""`faster_on_cpu` gives the numbers of a function, from weights that it prepared once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

import jaxviz as jv
from jaxviz.jaxpr import faster
from jaxviz.jaxpr.convolution import forms

rng = np.random.default_rng(0)
WEIGHTS = {
    "w": jnp.asarray(rng.standard_normal((3, 3, 3, 16)) / 5, jnp.float32),
    "v": jnp.asarray(rng.standard_normal((3, 3, 16, 96)) / 12, jnp.float32),
    "u": jnp.asarray(rng.standard_normal((1, 1, 96, 8)) / 9, jnp.float32),
}
X = jnp.asarray(rng.standard_normal((4, 12, 10, 3)), jnp.float32)


def convolve(x, w, **options):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def network(weights, x):
    x = jax.nn.relu(convolve(x, weights["w"]))
    x = jax.nn.relu(convolve(x, weights["v"]))
    return convolve(x, weights["u"]).mean((1, 2))


F = Partial(network, WEIGHTS)


@pytest.fixture(autouse=True)
def tiles_of_small_images(monkeypatch):
    """Tiles, however little they save: the networks of these tests are small."""
    monkeypatch.setattr(forms, "LEAST_SAVED_BY_TILES", -1.0)


def near(mine, theirs, within=1e-5):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=within * scale)


def primitives(f, *args):
    text = str(jax.make_jaxpr(f)(*args))
    return {name: text.count(name) for name in ("conv_general_dilated", "dot_general")}


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.0, 1e-4])
def test_numbers_are_the_same(error):
    g = jv.faster_on_cpu(F, error=error)
    near(g(X), F(X), 1e-5 if not error else 1e-4)
    assert primitives(g, X) != primitives(F, X)


@pytest.mark.slow
def test_weights_are_a_snapshot_prepared_once(monkeypatch):
    prepared = []
    once = faster._Faster._ready
    monkeypatch.setattr(faster._Faster, "_ready", lambda *args: prepared.append(1) or once(*args))
    weights = dict(WEIGHTS)
    g = jv.faster_on_cpu(lambda x: network(weights, x))
    before = g(X)
    weights["v"] = 2 * weights["v"]
    np.testing.assert_array_equal(g(X), before)
    assert len(prepared) == 1
    g(X[:2])
    assert len(prepared) == 2 and len(g._prepared) == 1, "one set of kernels for every batch"


@pytest.mark.slow
def test_the_batch_does_not_change_the_form():
    g = jv.faster_on_cpu(F)
    assert primitives(g, X) == primitives(g, X[:1]) == primitives(g, jnp.tile(X, (5, 1, 1, 1)))
    near(g(X[:1]), g(X)[:1], 1e-6)


@pytest.mark.slow
def test_it_composes_with_jit_vmap_and_grad():
    g = jv.faster_on_cpu(F)
    near(jax.jit(g)(X), F(X))
    near(jax.vmap(lambda x: g(x[None])[0])(X), F(X))
    near(*(jax.grad(lambda x, f=f: (f(x) ** 2).sum())(X) for f in (g, F)))
    near(jax.jvp(g, (X,), (X,))[1], jax.jvp(F, (X,), (X,))[1])


@pytest.mark.slow
def test_derivative_rules_of_the_function_are_kept():
    @jax.custom_jvp
    def step(x):
        return jnp.floor(x)

    step.defjvp(lambda primals, tangents: (step(*primals), 7 * tangents[0]))
    g = jv.faster_on_cpu(lambda x: step(convolve(x, WEIGHTS["w"])).sum())
    near(jax.grad(g)(X), jax.grad(lambda x: 7 * convolve(x, WEIGHTS["w"]).sum())(X))


@pytest.mark.slow
def test_any_tree_of_arguments():
    g = jv.faster_on_cpu(lambda pair, more: {"y": F(pair["x"]) + more})
    near(g({"x": X}, jnp.ones((4, 8)))["y"], F(X) + 1)


@pytest.mark.parametrize("operation", ["max", "sum"])
def test_pools_that_overlap_are_views_and_their_derivative_stays(operation):
    start, combine = {"max": (-np.inf, lax.max), "sum": (0.0, lax.add)}[operation]

    def pooled(x):
        x = lax.reduce_window(x, start, combine, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        return lax.reduce_window(x, start, combine, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    whole = jnp.round(4 * X)  # sums of whole numbers are exact, and pixels of a window alike
    mine = jv.faster_on_cpu(pooled)
    np.testing.assert_array_equal(mine(whole), pooled(whole))
    assert str(jax.make_jaxpr(pooled)(X)).count("reduce_window") == 2
    assert str(jax.make_jaxpr(mine)(X)).count("reduce_window") == 1, "side by side: as it stands"
    gradient = jax.grad(lambda f, x: f(x).sum(), argnums=1)
    np.testing.assert_array_equal(gradient(mine, whole), gradient(pooled, whole))


@pytest.mark.slow
def test_the_highest_precision_takes_no_tiles():
    with jax.default_matmul_precision("highest"):
        g = jv.faster_on_cpu(lambda x: convolve(x, WEIGHTS["v"]), error=1e-3)
        x = jnp.tile(X, (1, 1, 1, 6))[..., :16]
        assert " sub " not in str(jax.make_jaxpr(g)(x))
        near(g(x), convolve(x, WEIGHTS["v"]), 1e-6)
    assert " sub " in str(jax.make_jaxpr(jv.faster_on_cpu(lambda x: convolve(x, WEIGHTS["v"])))(x))


def test_elsewhere_it_is_the_function_itself(monkeypatch):
    monkeypatch.setattr(faster, "platform_of", lambda *trees: "gpu")
    g = jv.faster_on_cpu(F)
    assert str(jax.make_jaxpr(g)(X)) == str(jax.make_jaxpr(F)(X))


@pytest.mark.slow
def test_occlusion_takes_it():
    options = dict(patch=4, stride=4)
    mine = jv.occlude(jv.faster_on_cpu(F), np.asarray(X[:1]), **options)
    near(mine.scores, jv.occlude(F, np.asarray(X[:1]), **options).scores)


@pytest.mark.slow
def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="`f` must be callable: got a int"):
        jv.faster_on_cpu(3)
    for error in (-1e-6, 2, float("nan")):
        with pytest.raises(ValueError, match=r"`error` must be in \[0, 1\]: got"):
            jv.faster_on_cpu(F, error=error)
