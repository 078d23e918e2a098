"""Functions of another shape as scorers."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxviz as jv

IMAGES = np.arange(2 * 6 * 6 * 3, dtype=np.float32).reshape(2, 6, 6, 3) / 216
Outputs = namedtuple("Outputs", ["features", "logits"])


def means(weight, images):
    return images.mean((1, 2)) * jnp.expand_dims(weight, 0)


def two(shape, weight, images):
    scores = means(weight, images)
    return {
        "tuple": (images, scores),
        "dict": {"features": images, "logits": scores},
        "fields": Outputs(images, scores),
    }[shape]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "key"), [("tuple", 1), ("dict", "logits"), ("fields", "logits"), ("tuple", -1)]
)
def test_a_picked_output_scores_as_the_function_that_returns_it_alone(shape, key):
    weight = jnp.arange(1.0, 4.0)
    picked = jv.pick(Partial(Partial(two, shape), weight), key)
    assert [leaf.shape for leaf in jax.tree.leaves(picked)] == [(3,)]
    got = jv.occlude(picked, IMAGES, patch=3)
    right = jv.occlude(Partial(means, weight), IMAGES, patch=3)
    np.testing.assert_array_equal(got.scores, right.scores)


@pytest.mark.parametrize(
    ("shape", "key", "said"),
    [
        ("tuple", 2, "got 2, it returns 2 outputs, 0 to 1"),
        ("dict", "logit", "got 'logit', it returns a dict with 'features', 'logits'"),
        ("tuple", "logits", "got 'logits', it returns 2 outputs"),
    ],
)
def test_an_output_that_is_not_there_is_named(shape, key, said):
    with pytest.raises(ValueError, match=said):
        jv.occlude(jv.pick(lambda x: two(shape, jnp.ones(3), x), key), IMAGES, patch=3)


@pytest.mark.slow
def test_an_equinox_module_of_one_image_scores_a_batch():
    eqx = pytest.importorskip("equinox")
    convolution = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0))
    model = eqx.nn.Sequential(
        [convolution, eqx.nn.Dropout(0.5), eqx.nn.Lambda(lambda x: x.mean((1, 2)))]
    )
    scorer = jv.from_equinox(model)
    weight = np.asarray(convolution.weight)
    views = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), (1, 2))  # n h w c kh kw
    bias = np.asarray(convolution.bias)[:, 0]
    right = np.einsum("nhwcij,ocij->nhwo", views, weight).mean((1, 2)) + bias[..., 0]
    np.testing.assert_allclose(scorer(jnp.asarray(IMAGES)), right, rtol=1e-5, atol=1e-6)
    occ = jv.occlude(scorer, IMAGES, patch=3)
    np.testing.assert_allclose(occ.base, right, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_equinox_module_with_a_state_and_a_key_is_called_with_them():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __call__(self, x, state, *, key):
            x, state = self.norm(x, state)
            return x.mean((1, 2)) + jax.random.uniform(key), state

    model, state = eqx.nn.make_with_state(lambda: Net(eqx.nn.BatchNorm(3, "batch", mode="batch")))()
    scorer = jv.from_equinox(model, state=state, key=jax.random.key(1))
    scores = scorer(jnp.asarray(IMAGES))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores[:1], scorer(jnp.asarray(IMAGES[:1])), rtol=1e-6)


@pytest.mark.slow
def test_what_is_no_equinox_module_is_refused():
    pytest.importorskip("equinox")
    with pytest.raises(TypeError, match="`model` must be an Equinox module: got a int"):
        jv.from_equinox(3)
