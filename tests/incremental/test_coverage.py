"""Operations that real networks put between convolutions keep their windows, exactly.

Each is compared bit for bit with dense evaluation on whole numbers, with the patch at every start
from wholly off the image to wholly off it again; and `explain` must tell fewer operations.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from updates import check, dense_names, integers

import jaxviz as jv
from jaxviz.incremental import incremental, make_plan

NUMBERS = ("NHWC", "HWIO", "NHWC")
KERNEL = jnp.asarray(np.arange(3 * 3 * 3 * 3).reshape(3, 3, 3, 3) % 5 - 2, jnp.float32)


def convolve(x, strides=(1, 1), padding="SAME"):
    kernel = KERNEL.astype(x.dtype)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)


def padded(mode, low=1, high=2):
    def f(x):
        x = jnp.pad(x, ((0, 0), (low, high), (high, low), (0, 0)), mode=mode)
        return convolve(x, padding="VALID")

    return f


def resized(rows, columns, method, **options):
    return lambda x: jax.image.resize(x, (1, rows, columns, x.shape[3]), method, **options)


def shuffled(x):
    """Twice as many pixels from four times as many channels."""
    _, rows, columns, channels = x.shape
    x = jnp.concatenate([x, 2 * x, x + 1, -x], -1).reshape(1, rows, columns, 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(1, 2 * rows, 2 * columns, channels)


def constrained(x):
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",))
    return lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))


def two_barred(x):
    half, x = lax.optimization_barrier((x[:, ::2] * 2, x + 1))
    return {"half": convolve(half), "x": convolve(x)}


def known_axes(x):
    rows, columns = jnp.arange(1, 11, 2), jnp.arange(14, 3, -2)
    return x[:, rows[:, None], columns[None, :]]


def scanned(x, length=2, reverse=False):
    kernels = jnp.stack([KERNEL, KERNEL[::-1], KERNEL[:, ::-1]][:length])

    def block(carry, kernel):
        y = lax.conv_general_dilated(carry, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)
        return jnp.clip(y, -9, 9), y.sum(-1)

    return lax.scan(block, x, kernels, reverse=reverse)


def nested(x):
    def inner(_, y):
        return jnp.maximum(convolve(y), 0)

    return lax.fori_loop(0, 2, lambda _, y: lax.fori_loop(0, 1, inner, y) - 1, x)


def in_windows(x):
    """Attention without a softmax in windows of some pixels, which lie along the batch."""
    _, height, width, channels = x.shape
    rows, columns = (7, 7) if height % 7 == 0 else (3, 5)
    x = x.reshape(1, height // rows, rows, width // columns, columns, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, channels)
    three = jnp.stack([x, 1 - x, jnp.clip(x, -1, 1)])
    query, key, value = three  # an `unstack` since JAX 0.12
    x = jnp.einsum("wqk,wkc->wqc", jnp.clip(jnp.einsum("wqc,wkc->wqk", query, key), -2, 2), value)
    x = x.reshape(1, height // rows, width // columns, rows, columns, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(1, height, width, channels)


KEPT = {
    "attention in windows": in_windows,
    "nearest, twice": resized(24, 30, "nearest"),
    "nearest, twice and three times": resized(24, 45, "nearest"),
    "nearest, any ratio": resized(17, 20, "nearest"),
    "nearest, smaller": resized(7, 5, "nearest"),
    "known rows and columns": known_axes,
    "reversed": lambda x: convolve(x[:, ::-1, ::-1]),
    "reflected": padded("reflect"),
    "symmetric": padded("symmetric", 3, 2),
    "edge": padded("edge", 2, 1),
    "wrapped": padded("wrap"),
    "beside each other": lambda x: jnp.concatenate([x[:, 3:], 2 * x, jnp.ones((1, 2, 15, 3))], 1),
    "parts exchanged": lambda x: jnp.concatenate([x[:, :, 2:], x[:, :, :2]], 2)[:, :, 1:],
    "constrained": constrained,
    "barred": two_barred,
    "one channel added to": lambda x: convolve(x.at[..., 0].add(3.0)),
    "one channel set": lambda x: x.at[..., 1].set(x[..., 0] * 2),
    "two channels multiplied": lambda x: x.at[..., :2].multiply(2.0),
    "the largest with one channel": lambda x: x.at[..., 2].max(x[..., 0]),
    "updated along whole axes": lambda x: lax.dynamic_update_slice(x, x[..., :1] * 2, (0, 0, 0, 1)),
    "cut at a known index": lambda x: convolve(lax.dynamic_slice(x, (0, 3, 20, 0), (1, 7, 9, 3))),
    "scan": lambda x: scanned(x)[0],
    "scan, backwards": lambda x: jnp.moveaxis(scanned(x, reverse=True)[1], 0, -1),
    "loops in loops": nested,
    "finer than pixels": lambda x: convolve(shuffled(x)),
    "transposed at first": lambda x: lax.conv_transpose(
        x, KERNEL, (2, 2), "SAME", dimension_numbers=NUMBERS
    ),
    "repeated at first": lambda x: convolve(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))[:, ::2, ::4],
    "of unequal strides": lambda x: x[:, :6, :7] + x[:, ::2, 0:14:2],
    "and back": lambda x: resized(12, 15, "nearest")(convolve(x, (2, 2))) + x,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "patch, step",
    [((3, 4), (1, 1)), pytest.param((1, 1), (2, 3)), pytest.param((5, 2), (4, 4))],
)
def test_windows_equal_dense_at_every_position(rng, patch, step):
    plan = check(lambda x: {name: f(x) for name, f in KEPT.items()}, rng, patch=patch, step=step)
    # What is left is the rim of a border, or too small for windows on so small an image.
    small = {"broadcast_in_dim", "reshape", "slice", "rev", "scan", "concatenate"}
    assert set(dense_names(plan)) <= small


def through(f):
    """An operation between two convolutions of 3x3."""
    return lambda x: jax.tree.map(lambda y: convolve(y).mean((1, 2)), f(convolve(x)))


SPEED_UPS = {
    "attention in windows": 4,
    "nearest, twice": 4,
    "nearest, any ratio": 4,
    "reflected": 5,
    "symmetric": 5,
    "edge": 5,
    "wrapped": 5,
    "constrained": 5,
    "one channel added to": 5,
    "updated along whole axes": 5,
    "scan": 5,
    "finer than pixels": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEED_UPS)
def test_explain_tells_the_speed_up(name, capsys):
    image = jax.ShapeDtypeStruct((112, 112, 3), jnp.float32)
    f = through(lambda x: jax.tree.leaves(KEPT[name](x))[0])
    if name.startswith("nearest"):
        rows = 224 if name.endswith("twice") else 150
        f = through(resized(rows, rows, "nearest"))
    plan = jv.explain(f, image, patch=16, stride=8)
    assert "speed-up" in capsys.readouterr().out
    assert plan.speedup > SPEED_UPS[name]


RATIOS = {
    "bilinear, larger": resized(17, 22, "bilinear"),
    "bilinear, smaller": resized(7, 11, "bilinear"),
    "bilinear, smaller, no antialias": resized(7, 11, "bilinear", antialias=False),
    "cubic": resized(30, 31, "cubic"),
    "lanczos": resized(20, 9, "lanczos3"),
}


@pytest.mark.slow
def test_resizing_by_any_ratio_equals_dense(rng):
    def f(x):
        return {name: resize(x) for name, resize in RATIOS.items()}

    plan = check(f, rng, (12, 15, 3), (2, 3), tolerance=1e-5)
    assert dense_names(plan) == []
    image = jax.ShapeDtypeStruct((200, 180, 3), jnp.float32)
    resized_first = through(resized(224, 224, "bilinear"))
    assert jv.explain(resized_first, image, patch=16).speedup > 10


@pytest.mark.slow
def test_resizing_by_any_ratio_equals_dense_bit_for_bit_where_weights_are_quarters(rng):
    def f(x):  # from 8 to 6 and from 12 to 9, without antialiasing: weights n/6 are made n/8
        weights = jnp.round(resize_matrix(12, 9) * 8) / 8
        return jnp.einsum("nhwc,hk->nkwc", x, weights)

    assert dense_names(check(f, rng)) == []


def resize_matrix(inputs, outputs):
    place = (jnp.arange(outputs, dtype=jnp.float32) + 0.5) * (inputs / outputs) - 0.5
    away = jnp.abs(place[None] - jnp.arange(inputs, dtype=jnp.float32)[:, None])
    return jnp.maximum(0.0, 1.0 - away)


@pytest.mark.slow
def test_unknown_and_wrong_indices_equal_dense(rng):
    outside = jnp.asarray([0, 40, 3, -50])

    def f(x):
        changed = x[0, 5, 5, :1].astype(jnp.int32)
        return {
            "outside": jnp.nan_to_num(x.at[:, outside].get(mode="fill", fill_value=-1.0)),
            "clipped": x.at[:, outside].get(mode="clip"),
            "changed": jnp.take(x, changed, axis=1, mode="clip"),
            "set at a changed one": x.at[:, changed[0] % 12].set(0.0),
        }

    check(f, rng)


# A global mean by difference.


@pytest.mark.slow
def test_a_global_sum_equals_dense_bit_for_bit_on_whole_numbers(rng):
    def f(x):
        y = jnp.maximum(convolve(x), 0)
        return {
            "both": y.sum((1, 2)),
            "all": y.sum((1, 2, 3)),
            "rows": y.sum(1),
            "of ints": y.astype(jnp.int32).sum((1, 2)),
        }

    plan = check(f, rng, (24, 25, 3), (3, 3))
    assert [step.equation.primitive.name for step in plan.body.steps if step.difference] == [
        "reduce_sum"
    ] * 3


@pytest.mark.slow
def test_a_global_mean_stays_within_rounding(rng):
    image = jnp.asarray(rng.standard_normal((64, 64, 3)), jnp.float32)
    patch = jnp.asarray(rng.standard_normal((6, 6, 3)) * 5, jnp.float32)

    def f(x):
        return jax.nn.relu(convolve(x)).mean((1, 2))

    y, changed = incremental(f, image, (6, 6))
    for start in [(0, 0), (30, 31), (60, -3)]:
        pasted = np.pad(np.asarray(image), ((6, 6), (6, 6), (0, 0)))
        row, column = start[0] + 6, start[1] + 6
        pasted[row : row + 6, column : column + 6] = patch
        wanted = f(jnp.asarray(pasted[6:-6, 6:-6])[None])[0]
        got = changed(patch, jnp.asarray(start))
        assert np.abs(got - wanted).max() <= 1e-6 * np.abs(y).max()


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_a_clean_sum_that_is_not_finite_is_summed_anew(value):
    image = jnp.ones((32, 32, 1)).at[8:10, 8:10].set(value)

    def f(x):
        return (x * 2).sum((1, 2))

    y, changed = incremental(f, image, (4, 4))
    assert not np.isfinite(y).all()
    hidden = changed(jnp.zeros((4, 4, 1)), jnp.asarray([7, 7]))
    np.testing.assert_array_equal(hidden, [2.0 * (32 * 32 - 16)])
    elsewhere = changed(jnp.zeros((4, 4, 1)), jnp.asarray([20, 20]))
    np.testing.assert_array_equal(elsewhere, y)


@pytest.mark.slow
def test_gradients_go_through_a_sum_by_difference():
    image = integers(np.random.default_rng(0), (24, 24, 2))

    def f(x):
        return (x**2).sum((1, 2))

    _, changed = incremental(f, image, (3, 3))
    patch = jnp.full((3, 3, 2), 2.0)
    gradient = jax.grad(lambda patch: changed(patch, jnp.asarray([4, 5])).sum())(patch)
    np.testing.assert_array_equal(gradient, 2 * patch)


@pytest.mark.slow
def test_half_precision_is_summed_whole():
    image = jax.ShapeDtypeStruct((32, 32, 1), jnp.bfloat16)
    plan = make_plan(lambda x: lax.reduce(x * 2, jnp.bfloat16(0), lax.add, (1, 2)), image, 4)
    assert not any(step.difference for step in plan.body.steps)
