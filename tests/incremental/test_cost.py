"""One model of costs: scans count as often as they run, conditionals as their dearest branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.incremental import make_plan
from jaxviz.incremental.cost import cost
from jaxviz.incremental.unroll import MOST_EQUATIONS
from jaxviz.jaxpr.walk import trace

IMAGE = jax.ShapeDtypeStruct((16, 16, 4), jnp.float32)
KERNEL = np.ones((3, 3, 4, 4), np.float32)
CONVOLUTION = 2 * 16 * 16 * 4 * 9 * 4


def convolve(x):
    return jax.lax.conv_general_dilated(
        x, jnp.asarray(KERNEL), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def of(f):
    flat = trace(f, jax.ShapeDtypeStruct((1, *IMAGE.shape), IMAGE.dtype)).flat
    equation = flat.equations[-1]
    shapes = [flat.aval(x).shape for x in equation.operands]
    return cost(
        equation.primitive.name, equation.params, shapes, flat.avals[equation.results[0]].shape
    )


def test_a_scan_costs_its_body_times_its_length():
    once, eight = (
        of(lambda x, n=n: jax.lax.scan(lambda c, _: (convolve(c), None), x, None, length=n)[0])
        for n in (1, 8)
    )
    assert (once.flops, eight.flops) == (CONVOLUTION, 8 * CONVOLUTION)
    assert eight.seconds == 8 * once.seconds == 8 * of(convolve).seconds


def test_a_scan_inside_a_scan_multiplies():
    def inner(c):
        return jax.lax.scan(lambda c, _: (convolve(c), None), c, None, length=3)[0]

    found = of(lambda x: jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=2)[0])
    assert found.flops == 6 * CONVOLUTION


def test_a_conditional_costs_its_dearest_branch():
    found = of(lambda x: jax.lax.cond(True, lambda x: convolve(convolve(x)), convolve, x))
    assert found.flops == 2 * CONVOLUTION


def test_a_while_costs_its_body_once():
    found = of(lambda x: jax.lax.while_loop(lambda c: c.sum() < 0, convolve, x))
    assert CONVOLUTION < found.flops < 1.2 * CONVOLUTION


def test_scanned_blocks_are_a_speed_up_where_they_are_short():
    def f(images, length):
        x, _ = jax.lax.scan(lambda c, _: (convolve(c), None), images * 2, None, length=length)
        return x.mean((1, 2))

    image = jax.ShapeDtypeStruct((64, 64, 4), jnp.float32)
    short, long = (
        make_plan(lambda x, n=n: f(x, n), image, 4, step=(4, 4)) for n in (3, MOST_EQUATIONS + 1)
    )
    assert short.flops_dense > 3 * 16 * CONVOLUTION and short.speedup > 10
    assert long.speedup < 1.1


@pytest.mark.slow
def test_a_convolution_of_few_channels_takes_longer_than_its_operations():
    def rate(channels):
        kernel = np.ones((3, 3, channels, channels), np.float32)

        def f(x):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        flat = trace(f, jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)).flat
        shapes = [(1, 16, 16, channels), kernel.shape]
        found = cost("conv_general_dilated", flat.equations[-1].params, shapes, shapes[0])
        return found.flops / found.seconds

    assert rate(4) < rate(64) / 10 and rate(64) < rate(512) < 2.1e11
