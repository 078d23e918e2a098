"""Every update equals the dense evaluation, bit for bit on integer-valued data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxviz.incremental import base, incremental, make_plan, update
from jaxviz.incremental.interpret import paste


def integers(rng, shape, dtype=jnp.float32, low=-3, high=4):
    return jnp.asarray(rng.integers(low, high, shape), dtype)


def every_start(shape, patch, stride=(1, 1)):
    """All starts on a stride, from wholly off the image to wholly off it again."""
    rows = np.arange(-(-patch[0] // stride[0]) * -stride[0], shape[0] + 1, stride[0])
    columns = np.arange(-(-patch[1] // stride[1]) * -stride[1], shape[1] + 1, stride[1])
    return jnp.asarray(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2))


def windowed_names(plan):
    return [step.equation.primitive.name for step in plan.body.steps if not step.reason]


def dense_names(plan):
    return [step.equation.primitive.name for step in plan.body.steps if step.reason]


def check(f, rng, shape=(12, 15, 3), patch=(3, 4), step=(1, 1), dtype=jnp.float32, above=1.0):
    """Compare updates with dense evaluation at every start; return the plan."""
    image = integers(rng, shape, dtype)
    pixels = integers(rng, (*patch, shape[2]), dtype, 5, 9)
    plan = make_plan(f, image, patch, step=step, dense_above=above)
    clean = base(plan, f, image)
    starts = every_start(shape, patch, step)
    got = jax.jit(jax.vmap(lambda start: update(plan, clean, pixels, start)))(starts)
    wanted = jax.jit(jax.vmap(lambda start: jax.tree.map(lambda s: s[0], f(paste(image, pixels, start)[None]))))(starts)
    for ours, dense in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == dense.dtype
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(dense))
    return plan


CONVOLUTIONS = [
    dict(window_strides=(1, 1), padding="SAME"),
    dict(window_strides=(1, 1), padding="VALID"),
    dict(window_strides=(2, 2), padding="SAME"),
    dict(window_strides=(2, 3), padding=((0, 2), (3, 0))),
    dict(window_strides=(3, 1), padding=((-1, 2), (1, -2))),
    dict(window_strides=(1, 2), padding=((2, 2), (4, 1)), rhs_dilation=(2, 1)),
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_equals_dense(rng, options, groups):
    first = integers(rng, (3, 2, 3, 4))
    second = integers(rng, (2, 3, 4 // groups, 8))
    numbers = ("NHWC", "HWIO", "NHWC")

    def f(images):
        x = lax.conv_general_dilated(images, first, (1, 1), "SAME", dimension_numbers=numbers)
        return lax.conv_general_dilated(
            x, second, dimension_numbers=numbers, feature_group_count=groups, **options
        )

    plan = check(f, rng)
    assert windowed_names(plan).count("conv_general_dilated") == 2
    assert dense_names(plan) == []
