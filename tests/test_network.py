"""What a network is made of, read off its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxviz as jv
from jaxviz.network import layers_of


class Net(nnx.Module):
    """Two convolutions, a shortcut around the second, a pool and a dense layer."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        x = jv.tag("sum", x + self.second(x))
        x = jv.tag("pool", nnx.max_pool(x, (2, 2), (2, 2)))
        return nnx.softmax(self.head(x.mean((1, 2))))


@pytest.fixture(scope="module")
def layers():
    return {layer.name: layer for layer in layers_of(Net(nnx.Rngs(0)), (32, 32, 3), patch=4)}


@pytest.mark.slow
def test_layers_come_with_shapes_parameters_and_what_they_read(layers):
    assert list(layers) == ["first", "second", "sum", "pool", "head", "output"]
    assert layers["first"].shape == (16, 16, 4) and layers["head"].shape == (5,)
    assert [layer.parameters for layer in layers.values()] == [112, 148, 0, 0, 25, 0]
    assert layers["first"].inputs == ("input",)
    assert layers["sum"].inputs == ("first", "second")
    assert layers["head"].inputs == ("pool",)


def test_kinds_are_told_in_words(layers):
    assert layers["first"].kind == "convolution 3×3, stride 2"
    assert layers["pool"].kind == "max pooling 2×2, stride 2"
    assert layers["head"].kind == "dense, mean or sum"
    assert layers["output"].kind.startswith("softmax")


@pytest.mark.slow
def test_the_field_of_a_site_holds_every_pixel_that_it_depends_on():
    """The slow way: which pixels change the middle site, by the sum of absolute gradients."""
    layers = layers_of(lambda x: _tagged(x).mean((1, 2)), (24, 24, 1))
    for name, stride in (("one", 1), ("two", 2), ("three", 4)):
        layer = next(layer for layer in layers if layer.name == name)

        def site(image, name=name, stride=stride):
            return jv.activations(_tagged, image[None], [name])[name][0, 12 // stride, 12 // stride]

        image = np.zeros((24, 24, 1), np.float32)
        seen = []
        for axis in (0, 1):
            along = []
            for i in range(24):
                changed = image.copy()
                changed[(i, slice(None)) if axis == 0 else (slice(None), i)] = 1
                along.append(not np.array_equal(site(changed), site(image)))
            seen.append(int(np.sum(along)))
        assert layer.field == tuple(seen)


def _tagged(x):
    def conv(x, size, stride):
        kernel = jnp.ones((size, size, 1, 1))
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = jv.tag("one", conv(x, 3, 1))
    x = jv.tag("two", conv(x, 3, 2))
    return jv.tag("three", conv(x, 3, 2))


def test_windows_are_those_of_the_plan(layers):
    assert layers["first"].window == (3, 3)
    assert layers["sum"].window == (5, 5)
    assert layers["head"].window is None


def test_a_dropout_is_a_layer_that_changes_nothing():
    layers = {layer.name: layer for layer in layers_of(jv.models.mnist_cnn(), (28, 28, 1))}
    assert layers["dropout"].inputs == ("max_pooling2d",)
    assert layers["dropout"].kind == "" and layers["dropout"].parameters == 0
    assert layers["preds"].kind == "dense, softmax"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "patch", "said"),
    [((28, 28), 1, "`image_shape` must be"), ((8, 8, 1), 9, "`patch` must not exceed the image")],
)
def test_what_does_not_fit_is_told(shape, patch, said):
    with pytest.raises(ValueError, match=said):
        layers_of(lambda x: x.mean((1, 2)), shape, patch=patch)
