"""Every update equals the dense evaluation, bit for bit on integer-valued data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from updates import check, dense_names, integers, windowed_names

from jaxviz.incremental import base, incremental, make_plan
from jaxviz.incremental.interpret import paste
from jaxviz.incremental.program import Known, trace_scorer
from jaxviz.jaxpr.walk import Constant

CONVOLUTIONS = [
    dict(window_strides=(1, 1), padding="SAME"),
    dict(window_strides=(1, 1), padding="VALID"),
    dict(window_strides=(2, 2), padding="SAME"),
    dict(window_strides=(2, 3), padding=((0, 2), (3, 0))),
    dict(window_strides=(3, 1), padding=((-1, 2), (1, -2))),
    dict(window_strides=(1, 2), padding=((2, 2), (4, 1)), rhs_dilation=(2, 1)),
]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    "product": lambda x, **o: lax.reduce_window(jnp.sign(x - 3), 1.0, lax.mul, **o),
    "any": lambda x, **o: lax.reduce_window(x > 5, False, lax.bitwise_or, **o),
    "all bits": lambda x, **o: lax.reduce_window(x.astype(jnp.int32), -1, lax.bitwise_and, **o),
    "flax max": lambda x, **o: nnx.max_pool(x, (3, 2), (2, 1), "SAME"),
    "flax average": relaxed(lambda x: nnx.avg_pool(x, (3, 2), (2, 2), "SAME")),
    "flax average inside": relaxed(
        lambda x: nnx.avg_pool(x, (2, 3), (1, 2), "SAME", count_include_pad=False)
    ),
}
POOL_OPTIONS = dict(
    window_dimensions=(1, 3, 2, 1),
    window_strides=(1, 2, 1, 1),
    padding=((0, 0), (1, 2), (0, 1), (0, 0)),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", POOLS)
def test_pool_equals_dense(rng, name):
    dilation = dict(window_dilation=(1, 1, 2, 1)) if name in ("max", "min", "sum") else {}
    plan = check(lambda x: POOLS[name](x, **POOL_OPTIONS, **dilation), rng)
    assert dense_names(plan) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "initial, combine",
    [
        (1.5, lax.add),
        (2.0, lax.mul),
        (4.0, lax.max),
        (3.0, lax.min),
        (1.0, lambda a, b: jnp.maximum(a, b) + 0 * a),  # nothing is known of it
        (0.0, lambda a, b: a),
    ],
    ids=["add", "mul", "max", "min", "any", "first"],
)
def test_a_pool_that_starts_from_a_value_that_counts_equals_dense(rng, initial, combine):
    plan = check(lambda x: lax.reduce_window(x, initial, combine, **POOL_OPTIONS), rng)
    assert dense_names(plan)[0] == "reduce_window"


@pytest.mark.slow
def test_integer_pool_equals_dense(rng):
    def f(images):
        least = jnp.asarray(jnp.iinfo(images.dtype).min, images.dtype)
        return lax.reduce_window(images, least, lax.max, **POOL_OPTIONS)

    assert dense_names(check(f, rng, dtype=jnp.int32)) == []
    assert dense_names(check(f, rng, dtype=jnp.uint8)) == []


def shuffle(x):
    return x[..., jnp.asarray([2, 0, 1, 1])]


WINDOWED = {
    "wrapped round": lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap"),
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


@pytest.mark.slow
def test_windowed_operations_equal_dense(rng):
    plan = check(lambda x: {name: f(x) for name, f in WINDOWED.items()}, rng)
    assert dense_names(plan) == []


ROUNDED = {
    "layer norm": lambda x: (
        (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1)
    ),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "row mean": lambda x: x - x.mean(2, keepdims=True),
}


def broadcast_pixels(x, rows, columns):
    _, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (1, height, rows, width, columns, channels))
    return wide.reshape(1, height * rows, width * columns, channels)


def shuffle_pixels(x):
    parts = jnp.concatenate([x, 2 * x, x + 1, -x], -1).reshape(1, 6, 4, 2, 2, 3)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(1, 12, 8, 3)


def transposed(x, strides, padding, dilation=(1, 1)):
    kernel = jnp.arange(3 * 2 * 3 * 2, dtype=x.dtype).reshape(3, 2, 3, 2) - 17
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def resized(x, rows, columns):
    return jax.image.resize(x, (1, rows, columns, 3), "bilinear", antialias=False)


ENLARGED = {
    "repeat": lambda x: jnp.repeat(jnp.repeat(x, 2, axis=1), 4, axis=2),
    "repeat in steps": lambda x: jnp.repeat(jnp.repeat(x, 2, axis=2)[:, 1:] * 2, 2, axis=2),
    "broadcast": lambda x: broadcast_pixels(x, 2, 2),
    "pixel shuffle": shuffle_pixels,
    "enlarged, then pooled": lambda x: POOLS["max"](broadcast_pixels(x, 2, 4), **POOL_OPTIONS),
    "enlarged, then added": lambda x: broadcast_pixels(x, 2, 2) + broadcast_pixels(2 * x, 2, 2),
    "pool by reshape": lambda x: x.reshape(1, 3, 2, 2, 2, 3).max((2, 4)),
    "windows of pixels": lambda x: x.reshape(1, 3, 2, 4, 3).sum(2, keepdims=True) + 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "patch", [(3, 4), *(pytest.param(p, marks=pytest.mark.slow) for p in [(1, 1), (5, 16)])]
)
def test_enlarged_images_equal_dense(rng, patch):
    def f(images):
        x = images.reshape(1, 6, 2, 4, 4, 3).sum((2, 4))
        return {name: enlarge(x) for name, enlarge in ENLARGED.items()}

    assert dense_names(check(f, rng, (12, 16, 3), patch)) == []
    assert check(f, rng, (12, 16, 3), patch, (2, 4)).flops_window > 0


def transposed_first(x):
    kernel = jnp.arange(3 * 2 * 2 * 3, dtype=x.dtype).reshape(2, 3, 3, 2) - 17
    x = lax.conv_general_dilated(
        jnp.transpose(x, (0, 3, 1, 2)),
        kernel,
        (1, 1),
        ((2, 1), (1, 1)),
        lhs_dilation=(2, 2),
        dimension_numbers=CHANNELS_FIRST,
    )
    return jnp.transpose(x, (0, 2, 3, 1))


def beside(x):
    return jnp.concatenate([resized(x, 24, 16), broadcast_pixels(x, 2, 2), transposed_first(x)], -1)


def shrunk_by_a_matrix(x):
    weights = jnp.where(jnp.arange(12)[None] // 2 == jnp.arange(6)[:, None], 0.5, 0.0)
    return jnp.einsum("kh,nhwc->nkwc", weights, x)


INTERPOLATED = {
    "channels first": transposed_first,
    "beside each other": beside,
    "beside each other, then cut": lambda x: beside(x)[:, 3:21, 1::2],
    "shrunk by a matrix": shrunk_by_a_matrix,
    "transposed convolution": lambda x: transposed(x, (2, 4), ((1, 2), (-1, 5))),
    "cropped": lambda x: transposed(x, (2, 4), ((-2, 5), (6, -2))),
    "dilated": lambda x: transposed(x, (2, 2), ((4, 1), (1, 2)), (2, 1)),
    "transposed, then pooled": lambda x: POOLS["max"](
        transposed(x, (2, 2), ((2, 1), (0, 2))), **POOL_OPTIONS
    ),
    "bilinear": lambda x: resized(x, 24, 32),
    "bilinear, then convolved": lambda x: blur(resized(x, 24, 16)),
    "bilinear, smaller": lambda x: resized(blur(x), 6, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "patch, step", [((1, 1), (3, 2)), pytest.param((3, 4), (1, 1), marks=pytest.mark.slow)]
)
def test_interpolated_and_transposed_images_equal_dense(rng, patch, step):
    def f(images):
        x = images.reshape(1, 12, 2, 8, 4, 3).sum((2, 4))
        return {name: enlarge(x) for name, enlarge in INTERPOLATED.items()}

    assert dense_names(check(f, rng, (24, 32, 3), patch, step)) == []


@pytest.mark.slow
def test_a_long_chain_of_known_values_equals_dense(rng):
    def f(images):
        weights = jnp.eye(12, 12, dtype=jnp.float32)
        for _ in range(600):
            weights = weights * 1.0
        return jnp.einsum("nhwc,hk->nkwc", images, weights)

    plan = check(f, rng, (12, 8, 1))
    assert dense_names(plan) == [] and plan.speedup > 5


def test_large_known_values_are_not_evaluated():
    def f(images):
        return images.reshape(1, -1) @ jnp.ones((3 * 256 * 256, 9))

    program = trace_scorer(f, jax.ShapeDtypeStruct((256, 256, 3), jnp.float32)).program
    known = Known(program, {"broadcast_in_dim", "iota"})
    (product,) = (eqn for eqn in program.equations if eqn.primitive.name == "dot_general")
    assert known.value(product.operands[1]) is None
    assert Known(program, {"broadcast_in_dim"}).value(Constant(3)) == 3


@pytest.mark.slow
def test_products_of_another_dtype_equal_dense(rng):
    kernel = integers(rng, (3, 3, 3, 2), jnp.bfloat16)
    f = partial(
        lax.conv_general_dilated,
        rhs=kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )
    assert dense_names(check(f, rng, dtype=jnp.bfloat16)) == []


def test_a_pool_without_a_result_equals_dense(rng):
    def f(images):
        return lax.reduce_window(images, -jnp.inf, lax.max, (1, 16, 3, 1), (1, 1, 2, 1), "VALID")

    assert "reduce_window_max" not in windowed_names(check(f, rng, (12, 15, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("max", marks=pytest.mark.slow), "min"])
def test_gradients_of_overlapping_pools_with_ties_are_the_usual_ones(rng, name):
    combine, neutral = {"max": (lax.max, -jnp.inf), "min": (lax.min, jnp.inf)}[name]

    def f(images):
        sizes, strides = (1, 3, 3, 1), (1, 2, 2, 1)
        x = lax.reduce_window(images, neutral, combine, sizes, strides, "VALID")
        return (x * jnp.arange(1.0, 1 + x.size).reshape(x.shape)).sum((1, 2, 3))

    image, patch = integers(rng, (13, 13, 1), low=0, high=2), jnp.ones((4, 4, 1))
    _, changed = incremental(f, image, 4)
    start = jnp.asarray([5, 3])
    got = jax.grad(lambda patch: changed(patch, start))(patch)
    wanted = jax.grad(lambda patch: f(paste(image, patch, start)[None])[0])(patch)
    np.testing.assert_array_equal(got, wanted)
    assert np.abs(wanted).max() > 0


def test_the_base_takes_depthwise_convolutions_by_taps(rng):
    kernel, image = integers(rng, (3, 3, 1, 3)), integers(rng, (9, 9, 3))
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3)

    def f(images):
        return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", **options)

    text = str(jax.make_jaxpr(lambda image: base(make_plan(f, image, (2, 2)), f, image))(image))
    assert "conv_general_dilated" not in text and "conv_general_dilated" in str(
        jax.make_jaxpr(f)(image[None])
    )


@pytest.mark.slow
def test_windowed_operations_equal_dense_to_rounding(rng):
    plan = check(lambda x: {name: f(x) for name, f in ROUNDED.items()}, rng, tolerance=1e-6)
    assert dense_names(plan) == []


IMAGE = jax.ShapeDtypeStruct((12, 15, 3), jnp.float32)
BLUR = jnp.asarray([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).reshape(3, 3, 1, 1)


def blur(x, stride=1):
    """Three channels to one, by a 3x3 kernel of integers."""
    kernel = jnp.broadcast_to(BLUR, (3, 3, x.shape[3], 1)).astype(x.dtype)
    numbers = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=numbers)


def soften(x):
    """Every channel plus the blurred sum of all."""
    return x + blur(x)


def sharp(x):
    return x * 2 + 1


@jax.custom_jvp
def own_jvp(x):
    return x * 3


own_jvp.defjvp(lambda primals, tangents: (own_jvp(*primals), tangents[0] * 100))


@jax.custom_vjp
def own_vjp(x):
    return x * 3


own_vjp.defvjp(lambda x: (own_vjp(x), None), lambda _, g: (g * 100,))

INLINED = {
    "jit in jit": lambda x: jax.jit(lambda y: jax.jit(sharp)(y) - 1)(x),
    "custom_jvp": own_jvp,
    "custom_vjp": own_vjp,
    "remat": jax.checkpoint(sharp),
    "named": lambda x: checkpoint_name(x, "x") * 2,
}


@pytest.mark.slow
def test_calls_are_inlined(rng):
    plan = check(lambda x: {name: blur(f(soften(x))) for name, f in INLINED.items()}, rng)
    assert dense_names(plan) == []


DENSE = {
    "scan": lambda x: lax.scan(lambda c, row: (c + row, c), x[0, 0], x[0])[1][None],
    "long scan": lambda x: lax.scan(lambda c, _: (c + x, None), x, None, length=2000)[0],
    "while": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + x), (0, x))[
        1
    ],
    "cond": lambda x: lax.cond(x.sum() > 0, sharp, lambda y: y - 1, x),
    "cond with a fixed predicate": lambda x: lax.cond(jnp.bool_(True), sharp, lambda y: y - 1, x),
    "switch": lambda x: lax.switch(jnp.int32(1), [sharp, lambda y: y, lambda y: -y], x),
    "global pool": lambda x: x.sum((1, 2)),
    "self product": lambda x: jnp.einsum("nhwc,nijc->nhwij", x, x),
    "flatten": lambda x: x.reshape(1, -1) @ jnp.ones((12 * 15 * 3, 2)),
    "gather by content": lambda x: jnp.take(
        x, x[0, 5, 5, :1].astype(jnp.int32), axis=3, mode="clip"
    ),
    "slice at a changed index": lambda x: lax.dynamic_slice(
        x, (0, x[0, 5, 5, 0].astype(jnp.int32), 0, 0), (1, 3, 15, 3)
    ),
    "scatter": lambda x: x.at[:, 2:4, 3:5].add(1.0),
    "turn": lambda x: x[:, :12, :12] + jnp.transpose(x[:, :12, :12], (0, 2, 1, 3)),
    "squeeze and excitation": lambda x: x * (x.sum((1, 2), keepdims=True) + 1),
    "changed kernel": lambda x: lax.conv_general_dilated(
        x,
        x[:, :3, :3].reshape(3, 3, 3, 1),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "changed padding": lambda x: lax.pad(
        x, x[0, 6, 6, 0], ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0))
    ),
    "changed predicate": lambda x: lax.select_n(x[0, 6, 6, 0] > 5, x, -x),
    "grouped batch": lambda x: lax.conv_general_dilated(
        jnp.concatenate([x, x]),
        jnp.ones((3, 3, 3, 2)),
        (1, 1),
        "SAME",
        batch_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
}


HALF = {
    "product over space": lambda x: jnp.einsum("nhwc,hk->nkwc", x, jnp.arange(24.0).reshape(12, 2)),
    "product with a drawn matrix": lambda x: jnp.einsum(
        "nhwc,hk->nkwc", x, jax.random.randint(jax.random.key(0), (12, 2), 0, 5).astype(x.dtype)
    ),
    "gather over space": lambda x: x[:, jnp.asarray([3, 1, 2])],
    "sort over space": lambda x: jnp.sort(x, axis=1),
    "cumulative sum over space": lambda x: jnp.cumsum(x, axis=1),
    "reverse": lambda x: x[:, ::-1] * 2,
    "merge rows": lambda x: x.reshape(1, 6, 30, 3) * 2,
    "larger than the image": lambda x: jnp.repeat(x, 2, axis=1) * 2,
    "padding between": lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))),
}


@pytest.mark.slow
def test_an_axis_read_as_a_whole_leaves_the_other_windowed(rng):
    plan = check(lambda x: {name: f(soften(x)) for name, f in HALF.items()}, rng)
    assert dense_names(plan) == []


@pytest.mark.slow
def test_everything_else_equals_dense(rng):
    check(lambda x: {name: f(soften(x)) for name, f in DENSE.items()}, rng)


@pytest.mark.parametrize("name", DENSE)
def test_everything_else_goes_dense(name):
    plan = make_plan(lambda x: DENSE[name](soften(x)), IMAGE, (3, 4), dense_above=1.0)
    assert windowed_names(plan)[:2] == ["broadcast_in_dim", "conv_general_dilated"]
    assert dense_names(plan) != []


triple_p = Primitive("triple")
triple_p.def_impl(lambda x: x * 3)
triple_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(triple_p, mlir.lower_fun(lambda x: x * 3, multiple_results=False))
batching.primitive_batchers[triple_p] = lambda args, axes: (triple_p.bind(*args), axes[0])


@pytest.mark.slow
def test_an_invented_primitive_goes_dense(rng):
    plan = check(lambda x: blur(triple_p.bind(soften(x))), rng)
    assert dense_names(plan)[0] == "triple"
    assert plan.body.steps[-1].reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, patch",
    [((9, 14, 3), (1, 1)), ((14, 9, 1), (2, 7)), ((8, 10, 3), (8, 10)), ((8, 10, 2), (11, 3))],
)
def test_any_patch_equals_dense(rng, shape, patch):
    check(
        lambda x: blur(lax.reduce_window(soften(x), -jnp.inf, lax.max, **POOL_OPTIONS), 2),
        rng,
        shape,
        patch,
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", [(2, 2), (3, 5), (8, 4)])
def test_starts_on_a_grid_equal_dense_with_smaller_windows(rng, step):
    def f(x):
        return blur(blur(blur(soften(x), 2), 2), 2)

    shape = (40, 44, 3)
    plan = check(f, rng, shape, step=step)
    free = make_plan(f, jnp.zeros(shape), (3, 4), dense_above=1.0)
    assert plan.flops_window <= free.flops_window
    assert step != (8, 4) or plan.flops_window < 0.9 * free.flops_window


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_equals_dense(rng, dtype):
    def f(x):
        return lax.reduce_window(soften(x), dtype(-jnp.inf), lax.max, **POOL_OPTIONS)

    check(f, rng, dtype=dtype)


@pytest.mark.slow
def test_double_precision_equals_dense(rng):
    with jax.enable_x64():
        check(soften, rng, dtype=jnp.float64)


def test_bytes_equal_dense(rng):
    check(lambda x: blur(x.astype(jnp.float32) / 4), rng, dtype=jnp.uint8)


@pytest.mark.slow
def test_complex_numbers_equal_dense(rng):
    check(lambda x: jnp.abs(lax.complex(soften(x), x)), rng, tolerance=1e-4)


@pytest.mark.slow
def test_keras_layers_are_windowed(rng):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    forms = [
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.ZeroPadding2D(((0, 1), (2, 0))),
        layers.DepthwiseConv2D(3, strides=2),
        layers.SeparableConv2D(4, 3, padding="same"),
        layers.BatchNormalization(),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.MaxPooling2D(2, strides=1, padding="same"),
        layers.UpSampling2D((2, 4)),
        layers.Cropping2D(((0, 1), (1, 0))),
        layers.LeakyReLU(),
    ]
    model = keras.Sequential([keras.Input((24, 26, 3)), *forms])
    plan = check(lambda x: model(x, training=False), rng, (24, 26, 3), tolerance=1e-3)
    assert dense_names(plan) == []


@pytest.mark.slow
def test_keras_decoders_are_windowed(rng):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    forms = [
        layers.Conv2D(4, 3, strides=4, padding="same"),
        layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        layers.UpSampling2D(2, interpolation="bilinear"),
    ]
    model = keras.Sequential([keras.Input((40, 32, 3)), *forms])
    plan = check(lambda x: model(x, training=False), rng, (40, 32, 3), tolerance=1e-3)
    assert dense_names(plan) == []
