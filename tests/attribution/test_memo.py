"""What was compiled for a model is found again without tracing, and is never out of date."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from jaxviz import attribution as att


class Counted(nnx.Module):
    """One convolution and a dense layer; counts how often it is traced."""

    def __init__(self, power=1, factor=None):
        rngs = nnx.Rngs(0)
        self.conv, self.dense = nnx.Conv(2, 3, (3, 3), rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
        self.power, self.factor = power, factor

    def __call__(self, x):
        TRACED.append(1)
        x = jax.nn.relu(self.conv(x)) ** self.power
        x = x if self.factor is None else self.factor(x)
        return self.dense(x.mean((1, 2)))


TRACED: list[int] = []


@pytest.fixture
def image(rng):
    TRACED.clear()
    return rng.normal(size=(4, 5, 2)).astype(np.float32)


def fresh(model, image, method=att.saliency, **options):
    """The same, of a function, which is traced at every run."""
    return method(lambda x: model(x), image, **options).values


@pytest.mark.slow
def test_a_model_is_traced_once(image):
    model = Counted()
    first = att.grad_cam(model, image, target=0)
    count = len(TRACED)
    again = att.grad_cam(model, image[::-1], target=1)
    assert len(TRACED) == count and dict(again.config) == dict(first.config)
    assert dict(first.config)["layer"] == "conv"
    expected = att.grad_cam(Counted(), image[::-1], target=1)
    np.testing.assert_allclose(again.values, expected.values, atol=1e-6)
    smooth = att.smooth(model, image, samples=2)
    assert att.smooth(model, image, samples=2).method == smooth.method == "smooth saliency"


def test_what_compares_by_value_is_traced_once_whichever_object_it_is(image):
    class Alike(Counted):
        compares_by_value = True

    first, second = Alike(), Alike()
    second.dense.kernel[...] = 2 * second.dense.kernel[...]
    att.saliency(first, image)
    count = len(TRACED)
    found = att.saliency(second, image)
    assert len(TRACED) == count
    np.testing.assert_allclose(found.values, fresh(second, image), atol=1e-6)
    count = len(TRACED)
    second.power = 2
    found = att.saliency(second, image)
    assert len(TRACED) > count
    np.testing.assert_allclose(found.values, fresh(second, image), atol=1e-6)


@pytest.mark.slow
def test_new_weights_and_another_structure_count(image):
    model = Counted()
    att.saliency(model, image, target=0)
    model.dense.kernel[...] = model.dense.kernel[...] * 2 + 1
    found = att.saliency(model, image, target=0).values
    np.testing.assert_allclose(found, fresh(model, image, target=0), atol=1e-6)
    model.power = 2
    found = att.saliency(model, image, target=0).values
    np.testing.assert_allclose(found, fresh(model, image, target=0), atol=1e-6)


@pytest.mark.slow
def test_options_and_baselines_count(image):
    model = Counted()
    for options in ({"baseline": 0.0}, {"baseline": 0.5}, {"baseline": 0.5, "points": 3}):
        found = att.integrated_gradients(model, image, target=0, **options).values
        expected = fresh(model, image, att.integrated_gradients, target=0, **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for backprop in (att.guided, att.deconvnet):
        expected = fresh(model, image, backprop, target=0)
        np.testing.assert_allclose(backprop(model, image, target=0).values, expected, atol=1e-6)


def test_arrays_that_a_model_brings_along_are_never_old(image):
    scale = [jnp.float32(2)]
    model = Counted(factor=lambda x: x * scale[0])
    first = att.saliency(model, image, target=0).values
    scale[0] = jnp.float32(6)
    np.testing.assert_allclose(att.saliency(model, image, target=0).values, 3 * first, rtol=1e-5)


def counted(weights, power=lambda: 1):
    """A function that counts how often it is traced, and closes over its weights."""

    def f(x):
        TRACED.append(1)
        return (jax.nn.relu(x) ** power()).mean((1, 2)) @ weights[0]

    return f


@pytest.mark.parametrize("method", [att.saliency, att.integrated_gradients])
def test_a_function_is_traced_once_a_run(image, method):
    f = counted([jnp.asarray([[1.0, 2.0], [3.0, 5.0]])])
    first = method(f, image, target=0)
    count = len(TRACED)
    again = method(f, image, target=0)
    assert len(TRACED) == count + 1
    np.testing.assert_array_equal(first.values, again.values)


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_what_a_function_closes_over_is_never_old(image, kind):
    weights, powers = [kind([[1.0, 2.0], [3.0, 5.0]], np.float32)], [1]
    f = counted(weights, lambda: powers[0])
    first = att.saliency(f, image, target=0).values
    weights[0] = 3 * weights[0]
    np.testing.assert_allclose(att.saliency(f, image, target=0).values, 3 * first, rtol=1e-6)
    powers[0] = 2
    found = att.saliency(f, image, target=0).values
    np.testing.assert_allclose(found, 6 * np.maximum(image, 0) * first, rtol=1e-5)


def test_functions_with_arrays_of_their_own_are_found_again(image):
    f = counted([jnp.ones((2, 2))])

    def scaled(factor, x):
        return factor * f(x)

    for factor in (1.0, 4.0):
        count = len(TRACED)
        found = att.saliency(Partial(scaled, jnp.float32(factor)), image, target=0).values
        assert (len(TRACED) == count + 1) == (factor == 4.0)
        np.testing.assert_allclose(found, factor * (image > 0) / 20, rtol=1e-6)


def test_two_functions_with_the_same_values_keep_their_own_derivatives(image):
    def make(slope):
        @jax.custom_vjp
        def same(x):
            return x

        same.defvjp(lambda x: (x, None), lambda _, g: (slope * g,))
        return lambda x: same(x).mean((1, 2))

    for slope in (1.0, 7.0):
        found = att.saliency(make(slope), image, target=0).values
        np.testing.assert_allclose(found[..., 0], slope / 20, rtol=1e-6)


def test_a_function_is_not_held(image):
    f = counted([jnp.ones((2, 2))])
    att.saliency(f, image, target=0)
    known = weakref.ref(f)
    del f
    gc.collect()
    assert known() is None
