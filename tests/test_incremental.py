"""Every update equals the dense evaluation, bit for bit on integer-valued data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
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


def check(f, rng, shape=(12, 15, 3), patch=(3, 4), step=(1, 1), dtype=jnp.float32, above=1.0, tolerance=0.0):
    """Compare updates with dense evaluation at every start; return the plan."""
    image = integers(rng, shape, dtype, 0, 7)
    pixels = integers(rng, (*patch, shape[2]), dtype, 5, 9)
    plan = make_plan(f, image, patch, step=step, dense_above=above)
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


CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_channels_first_equals_dense(rng, strides):
    kernel = integers(rng, (8, 3, 3, 2))

    def f(images):
        x = jnp.transpose(images, (0, 3, 1, 2))
        x = lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=CHANNELS_FIRST)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 1, 1), "SAME")
        return jnp.transpose(x, (0, 2, 3, 1))

    plan = check(f, rng)
    assert dense_names(plan) == []


def test_many_channels_as_matrix_products_equal_dense(rng):
    widen, kernel = integers(rng, (1, 1, 3, 128)), integers(rng, (3, 2, 128, 8))
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def f(images):
        x = lax.conv_general_dilated(images, widen, (1, 1), "VALID", **options)
        x = lax.conv_general_dilated(x, kernel, (2, 1), "SAME", rhs_dilation=(1, 2), **options)
        return jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))

    assert dense_names(check(f, rng)) == []


def test_depthwise_convolution_equals_dense(rng):
    kernel = integers(rng, (3, 3, 1, 6))

    def f(images):
        return lax.conv_general_dilated(
            images,
            kernel,
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )

    assert dense_names(check(f, rng)) == []


def relaxed(f):
    """Flax's average pool divides a float array by a NumPy integer."""

    def g(x, **options):
        with jax.numpy_dtype_promotion("standard"):
            return f(x)

    return g


POOLS = {
    "max": lambda x, **o: lax.reduce_window(x, -jnp.inf, lax.max, **o),
    "min": lambda x, **o: lax.reduce_window(x, jnp.inf, lax.min, **o),
    "sum": lambda x, **o: lax.reduce_window(x, 0.0, lax.add, **o),
    "any": lambda x, **o: lax.reduce_window(x, 1.0, lambda a, b: jnp.maximum(a, b) + 0 * a, **o),
    "flax max": lambda x, **o: nnx.max_pool(x, (3, 2), (2, 1), "SAME"),
    "flax average": relaxed(lambda x: nnx.avg_pool(x, (3, 2), (2, 2), "SAME")),
    "flax average inside": relaxed(
        lambda x: nnx.avg_pool(x, (2, 3), (1, 2), "SAME", count_include_pad=False)
    ),
}
POOL_OPTIONS = dict(
    window_dimensions=(1, 3, 2, 1), window_strides=(1, 2, 1, 1), padding=((0, 0), (1, 2), (0, 1), (0, 0))
)


@pytest.mark.parametrize("name", POOLS)
def test_pool_equals_dense(rng, name):
    dilation = dict(window_dilation=(1, 1, 2, 1)) if name in ("max", "min", "sum") else {}
    plan = check(lambda x: POOLS[name](x, **POOL_OPTIONS, **dilation), rng)
    assert dense_names(plan) == []


def test_integer_pool_equals_dense(rng):
    def f(images):
        least = jnp.asarray(jnp.iinfo(images.dtype).min, images.dtype)
        return lax.reduce_window(images, least, lax.max, **POOL_OPTIONS)

    assert dense_names(check(f, rng, dtype=jnp.int32)) == []
    assert dense_names(check(f, rng, dtype=jnp.uint8)) == []


def shuffle(x):
    return x[..., jnp.asarray([2, 0, 1, 1])]


WINDOWED = {
    "elementwise chain": lambda x: jnp.tanh(jnp.exp(x) / (1 + jnp.square(x)) - jnp.abs(x) ** 0.5),
    "activations": lambda x: jax.nn.gelu(jax.nn.silu(jax.nn.relu6(x)) + jax.nn.softplus(x)),
    "clamp": lambda x: lax.clamp(jnp.float32(-1), x, jnp.float32(2)),
    "select": lambda x: jnp.where(x > 0, x, 2 * x),
    "select scalar": lambda x: jnp.where(jnp.bool_(True), x, -x),
    "cast": lambda x: x.astype(jnp.int32).astype(jnp.float32),
    "bias": lambda x: x + jnp.arange(3, dtype=x.dtype).reshape(1, 1, 1, 3),
    "full-size constant": lambda x: x * jnp.arange(12 * 15, dtype=x.dtype).reshape(1, 12, 15, 1),
    "row constant": lambda x: x + jnp.broadcast_to(jnp.arange(15.0).reshape(1, 1, 15, 1), x.shape),
    "residual": lambda x: x + 2 * jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))[:, 1:, :-1],
    "pad": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 1)), constant_values=7.0),
    "negative pad": lambda x: lax.pad(x, 1.0, ((0, 0, 0), (-2, 3, 0), (1, -4, 0), (0, 0, 0))),
    "strided slice": lambda x: x[:, 1:11:3, 2::2],
    "slice of one row": lambda x: x[:, 4:5] + jnp.zeros((1, 12, 15, 3)),
    "transpose": lambda x: jnp.transpose(x, (0, 3, 2, 1)) * 2,
    "reshape of units": lambda x: x.reshape(1, 12, 1, 15, 3, 1)[:, :, 0].reshape(12, 15, 3)[None],
    "reshape of channels": lambda x: jnp.concatenate([x, x], -1).reshape(1, 12, 15, 2, 3).sum(3),
    "squeeze and expand": lambda x: jnp.expand_dims(jnp.squeeze(x, 0), (0, 3))[:, :, :, 0],
    "concatenate": lambda x: jnp.concatenate([x, x[..., :1] * 2, jnp.ones((1, 12, 15, 2))], -1),
    "split": lambda x: sum(jnp.split(x, 3, axis=-1)),
    "channel sum": lambda x: x / (1 + jnp.abs(x).sum(-1, keepdims=True)),
    "argmax": lambda x: jnp.argmax(x, -1)[..., None].astype(jnp.float32),
    "sort": lambda x: jnp.sort(x, axis=-1) + jnp.cumsum(x, axis=-1) + x[..., ::-1],
    "one channel": lambda x: x[..., 1] * 2.0,
    "channel shuffle": shuffle,
    "pointwise product": lambda x: x @ jnp.arange(12.0).reshape(3, 4),
    "bilinear product": lambda x: jnp.einsum("nhwc,nhwd->nhwcd", x, x),
    "two branches": lambda x: jnp.concatenate(
        [POOLS["max"](x, **POOL_OPTIONS)[:, :6], x[:, 1::2] * 3], -1
    ),
}


def test_windowed_operations_equal_dense(rng):
    plan = check(lambda x: {name: f(x) for name, f in WINDOWED.items()}, rng)
    assert dense_names(plan) == []


ROUNDED = {
    "layer norm": lambda x: (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "row mean": lambda x: x - x.mean(2, keepdims=True),
}


def test_windowed_operations_equal_dense_to_rounding(rng):
    plan = check(lambda x: {name: f(x) for name, f in ROUNDED.items()}, rng, tolerance=1e-6)
    assert dense_names(plan) == []
