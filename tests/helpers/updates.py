"""Updates of `jaxviz.incremental` against dense evaluation, at every start of the patch."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz.incremental import base, make_plan, update
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


def check(
    f,
    rng,
    shape=(12, 15, 3),
    patch=(3, 4),
    step=(1, 1),
    dtype=jnp.float32,
    tolerance=0.0,
):
    """Compare updates with dense evaluation at every start; return the plan."""
    image = integers(rng, shape, dtype, 0, 7)
    pixels = integers(rng, (*patch, shape[2]), dtype, 5, 9)
    plan = make_plan(f, image, patch, step=step, dense_above=1.0)
    starts = every_start(shape, patch, step)

    @jax.jit
    def both(image, pixels, starts):
        clean = base(plan, f, image)
        got = jax.vmap(lambda start: update(plan, clean, pixels, start))(starts)
        pasted = jax.vmap(lambda start: paste(image, pixels, start))(starts)
        return got, jax.vmap(lambda x: jax.tree.map(lambda s: s[0], f(x[None])))(pasted)

    got, wanted = both(image, pixels, starts)
    for (path, ours), dense in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(wanted), strict=True
    ):
        assert ours.dtype == dense.dtype
        np.testing.assert_allclose(
            np.asarray(ours), np.asarray(dense), rtol=0, atol=tolerance, err_msg=str(path)
        )
    return plan
