"""Axes that are wrapped round: against sets of pixels, and updates against dense evaluation."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from updates import check, dense_names, every_start, integers

import jaxviz as jv
from jaxviz.incremental import base, circle, make_plan, update
from jaxviz.incremental.interpret import paste
from jaxviz.incremental.program import trace_scorer
from jaxviz.incremental.reach import Positions, Span, Stencil, Table, Turn
from jaxviz.incremental.turn import padded_round

NUMBERS = ("NHWC", "HWIO", "NHWC")
KERNEL = jnp.asarray(np.arange(3 * 3 * 3 * 3).reshape(3, 3, 3, 3) % 5 - 2, jnp.float32)
EIGHT = ((0, 0), (3, 5), (0, 0), (0, 0))
ROUND = ((0, 0), (1, 1), (1, 1), (0, 0))


def convolve(x, strides=(1, 1), padding="VALID"):
    y = lax.conv_general_dilated(x, KERNEL, strides, padding, dimension_numbers=NUMBERS)
    return jnp.clip(y, -9, 9)


def wrapped(x, low=1, high=1):
    return jnp.pad(x, ((0, 0), (low, high), (high, low), (0, 0)), mode="wrap")


def pooled(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 2, 3, 1), "VALID")


def peaks(x):
    """The largest of three by three in steps, over the rim too."""
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def padded_by(x, value):
    return lax.pad(x, value, [(0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)])


def averaged(x):
    """The mean of what lies in the map, which divides by counts that a gap has none of."""
    how = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    total = lax.reduce_window(x, 0.0, lax.add, *how)
    return total * 36 / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *how)


def pads(x):
    """Zeros round it, twice as many as are read."""
    return convolve(padded_by(x, jnp.float32(0)), padding="SAME")[:, 1:-1, 1:-1]


def rolled(f, rows=2, columns=-4):
    """An operation on a rolled map, which is rolled back."""
    return lambda x: jnp.roll(f(jnp.roll(x, (rows, columns), (1, 2))), (-rows, -columns), (1, 2))


def in_windows(x, rows=4, columns=5):
    """Attention of whole numbers in windows, of which some are masked."""
    _, height, width, channels = x.shape
    down, across = height // rows, width // columns
    x = x.reshape(1, down, rows, across, columns, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, channels)
    tokens = np.arange(down * across * (rows * columns) ** 2)
    mask = jnp.asarray(tokens.reshape(-1, *2 * (rows * columns,)) % 3 - 1, x.dtype)
    weights = jnp.clip(jnp.einsum("wqc,wkc->wqk", x, 1 - x) + mask, -2, 2)
    x = jnp.clip(jnp.einsum("wqk,wkc->wqc", weights, x), -9, 9)
    x = x.reshape(1, down, across, rows, columns, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(1, height, width, channels)


def far(x):
    """Rolled by nearly half of the rows: shifts that would add up."""
    return jnp.roll(x, 7, 1) * 2 - 1


def merged(x):
    """Two by two pixels beside each other."""
    return jnp.concatenate([x[:, r::2, c::2] for r in range(2) for c in range(2)], -1)


# On maps of 16 by 30: windows remain but for what the second table says.
KEPT = {
    "wrapped": lambda x: convolve(wrapped(x)),
    "twice": lambda x: convolve(wrapped(convolve(wrapped(x)))),
    "by more than is read": lambda x: wrapped(x, 3, 2),
    "its middle": lambda x: wrapped(x, 3, 2)[:, 3:-2, 2:-3],
    "unequal": lambda x: convolve(wrapped(x, 0, 2)),
    "pooled": lambda x: convolve(wrapped(pooled(convolve(wrapped(x))))),
    "with a stride": lambda x: convolve(wrapped(x, 0, 1), (2, 2)),
    "biased": lambda x: convolve(wrapped(x) + jnp.arange(3.0)[None, None, None]),
    "rolled": lambda x: jnp.roll(x, (5, -11), (1, 2)),
    "rolled far": lambda x: jnp.roll(x, 19, 2) * 2,
    "and back": lambda x: x + rolled(lambda y: y * 2)(x),
    "shifted windows": lambda x: x + rolled(in_windows)(x + in_windows(x)),
    "merged": lambda x: merged(jnp.roll(x, 1, 1)),
    "enlarged": lambda x: convolve(wrapped(jnp.repeat(jnp.roll(x, 1, 1), 2, axis=1))),
    "enlarged by indices": lambda x: jnp.roll(x, 1, 1)[:, jnp.arange(32) // 2],
    "biased by an array": lambda x: convolve(
        wrapped(x) + jnp.broadcast_to(jnp.arange(3.0), (1, 18, 32, 3))
    ),
    "round and round": lambda x: far(far(far(x))) + jnp.roll(x, 15, 1) + jnp.roll(x, -1, 1),
    "slices of a slice": lambda x: jnp.roll(x[:, 1:, 2:], (1, 1), (1, 2)),
    "beside itself": lambda x: jnp.concatenate([jnp.roll(x, 1, 1), x], -1),
    "of equal periods": lambda x: jnp.roll(x, 1, 1)[:, ::2] + jnp.roll(x[:, :8], 1, 1),
    "with zeros beside": lambda x: jnp.roll(x, 1, 1) + jnp.pad(x, ROUND)[:, 2:, 2:],
    "times a map": lambda x: jnp.roll(x, 1, 1) * jnp.arange(16.0)[None, :, None, None],
    # On a larger circle, with a gap.
    "zeros before it": lambda x: convolve(jnp.roll(x, 1, 1), padding=((2, 0), (1, 1))),
    "zeros behind it": lambda x: convolve(jnp.roll(x, 1, 1), padding=((0, 2), (1, 1))),
    "zeros round both": lambda x: convolve(convolve(wrapped(x), padding="SAME"), padding="SAME"),
    "ones round it": lambda x: convolve(jnp.pad(jnp.roll(x, 3, 2), ROUND, constant_values=1.0)),
    "a computed number round it": lambda x: convolve(
        padded_by(jnp.roll(x, 3, 2), jnp.arange(3.0).sum())
    ),
    "pooled over the rim": lambda x: convolve(peaks(convolve(wrapped(x))), padding="SAME"),
    "residual": lambda x: x * 2 + convolve(convolve(wrapped(x)), padding="SAME"),
    "of two gaps": lambda x: convolve(jnp.roll(x, 1, 1), padding="SAME") + pads(jnp.roll(x, 2, 1)),
    "averaged over the rim": lambda x: averaged(jnp.roll(x, 1, 1)),
    "wrapped after zeros": lambda x: convolve(wrapped(convolve(wrapped(x), padding="SAME"))),
    "enlarged with zeros": lambda x: lax.conv_transpose(
        jnp.roll(x, 1, 1), KERNEL, (2, 1), "SAME", dimension_numbers=NUMBERS
    ),
    "turned along one axis": lambda x: jnp.roll(convolve(wrapped(x), padding="SAME"), 1, 1),
    "padded, then rolled": lambda x: jnp.roll(wrapped(x), 1, 1),
    "padded twice": lambda x: convolve(wrapped(wrapped(x, 3, 3))),
    "in steps": lambda x: lax.conv_general_dilated(
        jnp.pad(x, ((0, 0), (0, 0), (2, 1), (0, 0)), mode="wrap"),
        KERNEL[:1],
        (2, 1),
        ((0, 0), (1, 1)),
        dimension_numbers=NUMBERS,
    ),
    "part": lambda x: jnp.roll(x, 3, 1)[:, 2:-1],
    "a map on the padding": lambda x: wrapped(x) * jnp.arange(18.0)[None, :, None, None],
    "a stride that does not divide": lambda x: convolve(wrapped(x, 0, 2), (3, 4)),
}
SUMMED = {
    "mean": lambda x: convolve(wrapped(x)).mean((1, 2)),
    "sum of what lies there twice": lambda x: wrapped(x, 2, 2).sum((1, 2)),
    "mean of a part": lambda x: convolve(jnp.roll(x, 1, 1), padding="SAME")[:, 1:-2].sum((1, 2)),
    "sum of steps": lambda x: peaks(jnp.roll(x, 3, 1)).sum((1, 2)),
    "rows": lambda x: jnp.roll(x, 3, 1).sum(1),
    "largest": lambda x: jnp.roll(x, 3, 1).max((1, 2)),
    "sorted": lambda x: jnp.sort(jnp.roll(x, 3, 1), 1),
}
# Each leaves the circle along one axis, which is read whole.
OFF_THE_CIRCLE = {
    "beside itself, rolled": (1, lambda x: jnp.roll(jnp.concatenate([x, x], 1), 1, 1)),
    "indices that repeat": (
        1,
        lambda x: jnp.roll(x, 1, 1)[:, (jnp.arange(32) // 2)[:, None], jnp.arange(30)[None, :]],
    ),
    "indices of two axes": (1, lambda x: jnp.roll(x, 1, 1)[:, (jnp.arange(32) // 2)[:, None]]),
    "reversed": (2, lambda x: jnp.roll(x, 3, 2)[:, :, ::-1]),
    "known indices": (2, lambda x: jnp.roll(x, 3, 2)[:, :, jnp.asarray([1, 29, 0, 7])]),
    "two periods": (1, lambda x: jnp.pad(x[:, :8], EIGHT, mode="wrap") + jnp.roll(x, 1, 1)),
    "rows and columns": (
        1,
        lambda x: jnp.roll(x[:, :, :16], 1, 1) + x[:, :, :16].transpose(0, 2, 1, 3),
    ),
}


EVERY = KEPT | SUMMED | {name: f for name, (_, f) in OFF_THE_CIRCLE.items()}
QUICK = (
    "twice",
    "and back",
    "biased by an array",
    "mean",
    "largest",
    "padded, then rolled",
    "pooled over the rim",
    "residual",
    "ones round it",
    "sum of steps",
    "part",
)


@pytest.mark.slow
@pytest.mark.parametrize("patch, step", [((1, 1), (2, 3)), ((3, 4), (1, 1)), ((9, 2), (4, 4))])
def test_windows_equal_dense_at_every_position(rng, patch, step):
    check(lambda x: {name: f(x) for name, f in EVERY.items()}, rng, (16, 30, 3), patch, step)


def test_some_windows_equal_dense_at_every_position(rng):
    check(lambda x: {name: EVERY[name](x) for name in QUICK}, rng, (16, 30, 3), (2, 3), (2, 5))


OPERATIONS = {
    "roll": lambda x, n, axis: jnp.roll(x, n, axis),
    "wrap": lambda x, n, axis: jnp.pad(x, around(axis, abs(n) % 4, n % 3), mode="wrap"),
    "convolve": lambda x, n, axis: convolve(x, (1 + n % 2, 1)),
    "circular": lambda x, n, axis: convolve(wrapped(x)),
    "pool": lambda x, n, axis: pooled(x),
    "add": lambda x, n, axis: x - 2 * jnp.roll(x, n, axis),
    "reverse": lambda x, n, axis: jnp.flip(x, axis),
    "repeat": lambda x, n, axis: jnp.repeat(x, 2, axis),
    "cut": lambda x, n, axis: lax.slice_in_dim(x, n % 3, None, 1 + n % 2, axis),
    "zeros": lambda x, n, axis: jnp.pad(x, around(axis, n % 2, n % 3)),
    "mean": lambda x, n, axis: x - x.sum(axis, keepdims=True),
    "same": lambda x, n, axis: convolve(x, (1, 1 + n % 2), "SAME"),
    "peaks": lambda x, n, axis: peaks(x),
    "residual": lambda x, n, axis: x + convolve(convolve(x, padding="SAME"), padding="SAME"),
    "map": lambda x, n, axis: x * tilted(x.shape[axis], axis),
    "select": lambda x, n, axis: jnp.where(x > jnp.roll(x, n, axis), x, -x),
    "taken": lambda x, n, axis: jnp.take(x, jnp.arange(n, n + 9), axis, mode="wrap"),
    "joined": lambda x, n, axis: jnp.concatenate([lax.slice_in_dim(x, 0, 3, axis=axis), x], axis),
    "largest": lambda x, n, axis: x - x.max(axis, keepdims=True),
    "transposed": lambda x, n, axis: x.transpose(0, 2, 1, 3),
    "looped": lambda x, n, axis: lax.fori_loop(0, 2, lambda _, y: convolve(y, padding="SAME"), x),
}


def tilted(dim, axis):
    return jnp.expand_dims(jnp.arange(float(dim)) % 3, (0, 3, 3 - axis))


def around(axis, low, high):
    return tuple((low, high) if a == axis else (0, 0) for a in range(4))


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(-20, 20), st.integers(1, 2)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([(1, 1), (2, 3), (5, 1)]),
)
def test_random_networks_that_go_round_equal_dense(operations, step):
    def f(x):
        for name, n, axis in operations:
            if min(x.shape[1:3]) < 6 or max(x.shape[1:3]) > 60:
                break
            x = jnp.clip(OPERATIONS[name](x, n, axis), -99, 99)
        return x

    check(f, np.random.default_rng(0), (12, 15, 3), (2, 3), step)


@pytest.mark.parametrize("name", KEPT)
def test_windows_are_kept(name):
    shape = jax.ShapeDtypeStruct((16, 30, 3), jnp.float32)
    plan = make_plan(KEPT[name], shape, (1, 1), step=(4, 5), dense_above=1.0)
    assert dense_names(plan) == []


@pytest.mark.parametrize("name", OFF_THE_CIRCLE)
def test_what_leaves_the_circle_is_read_whole(name):
    shape = jax.ShapeDtypeStruct((16, 30, 3), jnp.float32)
    axis, f = OFF_THE_CIRCLE[name]
    last = make_plan(f, shape, (2, 2), dense_above=1.0).body.steps[-1]
    assert last.window[axis - 1] > last.result[axis - 1] // 2  # of what has no batch axis any more


@pytest.mark.slow
@pytest.mark.parametrize("dense_above", [0.05, 0.1, 0.2, 0.3, 0.6])
def test_a_map_held_whole_is_read_round_its_ends(rng, dense_above):
    """Small shares make the first layers dense, while what is pooled behind them is not."""

    def f(x):
        y = convolve(wrapped(x))
        return convolve(wrapped(pooled(pooled(jnp.roll(wrapped(y, 2, 0)[:, 2:], 2, 2)))), (2, 1))

    image, patch = integers(rng, (32, 36, 3)), integers(rng, (8, 3, 3), low=5, high=9)
    plan = make_plan(f, image, (8, 3), dense_above=dense_above)
    starts = every_start(image.shape, patch.shape)[::7]
    clean = base(plan, f, image)
    got = jax.jit(jax.vmap(lambda start: update(plan, clean, patch, start)))(starts)
    pasted = jax.vmap(lambda start: paste(image, patch, start))(starts)
    np.testing.assert_array_equal(got, jax.vmap(lambda x: f(x[None])[0])(pasted))


def test_an_axis_that_would_read_its_window_twice_is_whole(rng):
    """A patch of 9 of 16 rows at the lower end is held there, and read on from its first row."""
    for rows, kept in ((8, 1), (9, 0)):
        plan = check(KEPT["wrapped"], rng, (16, 30, 3), (rows, 3))
        rolled_rows, rolled_columns = (
            step for step in plan.body.steps if step.equation.primitive.name == "turn"
        )
        assert (rolled_rows.window[1] == rows) == kept
        assert rolled_columns.window[2] == 3 and dense_names(plan) == []


@pytest.mark.parametrize(
    "name", ["shifted windows", "pooled over the rim", "averaged over the rim"]
)
def test_gradients_go_through_the_windows(rng, name):
    f = KEPT[name]
    image, patch = integers(rng, (16, 30, 3)), integers(rng, (3, 4, 3))
    plan = make_plan(f, image, (3, 4), dense_above=1.0)

    def ours(image, patch):
        return jnp.sin(update(plan, base(plan, f, image), patch, jnp.asarray([13, 28]))).sum()

    def dense(image, patch):
        return jnp.sin(f(paste(image, patch, jnp.asarray([13, 28]))[None])).sum()

    got, wanted = (jax.jit(jax.grad(g, (0, 1)))(image, patch) for g in (ours, dense))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_a_branch_that_no_start_reaches_goes_round_no_circle(rng):
    """Columns 3, 7 and 11 are never under a patch one wide at every fourth."""

    def f(x):
        y = jnp.cumsum(x[:, :, 3::4], 2)
        y = jnp.pad(y, ((0, 0), (0, 0), (0, 14 - y.shape[2]), (0, 0)))
        return jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="wrap") * 2 + y

    check(f, rng, (8, 12, 3), (2, 1), (2, 4))


def test_explain_tells_the_speed_up(capsys):
    def f(x):
        for _ in range(3):
            x = jax.nn.relu(convolve(wrapped(x)))
        return x.mean((1, 2))

    shape = jax.ShapeDtypeStruct((224, 224, 3), jnp.float32)
    assert jv.explain(f, shape, patch=16, stride=8).speedup > 12.7
    assert "global mean" in capsys.readouterr().out


def test_explain_tells_the_speed_up_of_windows_shifted_by_a_roll():
    def f(x):
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 4, 4, 1), (1, 4, 4, 1), "VALID")
        x = x + in_windows(x, 7, 7)
        x = x + rolled(lambda y: in_windows(y, 7, 7), -3, -3)(x)
        return x.mean((1, 2))

    shape = jax.ShapeDtypeStruct((224, 224, 3), jnp.float32)
    assert jv.explain(f, shape, patch=16, stride=8, verbose=False).speedup > 6


# Recognising it.


def turns(f, shape=(12, 15, 3)):
    program = trace_scorer(f, jax.ShapeDtypeStruct(shape, jnp.float32)).program
    return [
        (e.params["axis"], e.params["shift"], e.params["size"])
        for e in program.equations
        if e.primitive.name == "turn"
    ]


def test_rolls_and_wrapped_paddings_are_turns():
    assert turns(lambda x: jnp.roll(x, (2, -4), (1, 2))) == [(1, -2, 12), (2, 4, 15)]
    assert turns(lambda x: jnp.roll(x, 10, 1)) == [(1, 2, 12)]
    assert turns(wrapped) == [(1, -1, 14), (2, -1, 17)]
    assert turns(lambda x: jnp.roll(x[:, 2:], 1, 1)) == [(1, -1, 10)]
    assert turns(lambda x: jnp.concatenate([x, x], 1)) == [(1, 0, 24)]


def test_other_joins_are_none():
    others = (
        lambda x: jnp.concatenate([x[:, 3:], 2 * x[:, :3]], 1),
        lambda x: jnp.concatenate([x[:, 4:], x[:, :3]], 1),
        lambda x: jnp.concatenate([x[:, :3], x[:, 3:]], 1),
        lambda x: jnp.concatenate([x[:, 3:], x[:, 1:4]], 1),
        lambda x: jnp.concatenate([x[:, ::2], x[:, 1::2]], 1),
        lambda x: jnp.concatenate([x[:, 3:, 1:], x[:, :3, 1:]], 1),
        lambda x: jnp.concatenate([x[:, :, :2], jnp.ones_like(x)], 2),
        lambda x: jnp.concatenate([x[:, :0], x[:, :0]], 1),
        lambda x: jnp.pad(x, ROUND, mode="edge"),
    )
    for f in others:
        assert turns(f) == []


# The arithmetic, against sets of pixels.

LAYERS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(-9, 9), st.integers(0, 6)),
        st.tuples(st.just("stencil"), st.integers(1, 4), st.integers(1, 3)),
        st.tuples(st.just("padded"), st.integers(1, 4), st.integers(0, 2)),
        st.tuples(st.just("strides"), st.integers(1, 4), st.integers(2, 3)),
        st.tuples(st.just("enlarge"), st.integers(1, 2), st.integers(2, 3)),
        st.tuples(st.just("cut"), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("reverse"), st.none(), st.none()),
    ),
    max_size=5,
)


def operation(kind, how, more, dim):
    if kind == "turn":
        return Turn(how), dim + more
    if kind == "stencil":
        return Stencil(how, more), (dim - how) // more + 1
    if kind == "padded":
        return Stencil(how, 1, more), dim + 2 * more - how + 1
    if kind == "strides":
        return Stencil(how, more, how // 2), (dim - 1) // more + 1
    if kind == "enlarge":
        return Stencil(how, 1, 0, more), (dim - how + 1) * more
    if kind == "cut":
        return Stencil(low=-how), dim - how - more
    back = np.arange(dim)[::-1]
    return Table(back, back), dim


@given(
    st.integers(4, 24), LAYERS, st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(-5, 5))
)
def test_reach_holds_every_changed_output_for_every_start(dim, layers, grid):
    patch, step, offset = grid
    positions = Positions.on_grid(dim, patch, step, offset)
    pixels, reach = [{i} for i in range(dim)], positions.reach(0)
    for kind, how, more in layers:
        length = len(pixels)
        reads, count = operation(kind, how, more, length)
        assume(1 <= count <= 100)
        ends = zip(*reads.reads(count), strict=True)
        lines = [range(lo, hi + 1) for lo, hi in ends]
        if kind == "turn":
            lines = [[i % length for i in line] for line in lines]
        pixels = [
            set().union(*(pixels[i] for i in line if 0 <= i < length), set()) for line in lines
        ]
        reach = circle.through(reach, reads, length, count)
    line = circle.on_line(reach, len(pixels))
    for i, start in enumerate(positions.starts):
        outputs = {o for o, seen in enumerate(pixels) if seen & set(range(start, start + patch))}
        held = set(range(reach.first[i], reach.last[i] + 1)) if reach.seen[i] else set()
        if reach.period:
            held = {o for o in range(len(pixels)) for h in held if (o - h) % reach.period == 0}
        assert outputs <= held
        assert outputs <= set(range(line.first[i], line.last[i] + 1))
        if outputs and all(kind == "turn" and not more for kind, _, more in layers):
            assert outputs == held
    if reach.period:  # the array is a circle of what it depends on, or is shorter
        for o, later in enumerate(pixels[reach.period :]):
            assert pixels[o] == later


def test_shifts_do_not_add_up():
    shape = jax.ShapeDtypeStruct((16, 30, 3), jnp.float32)
    plan = make_plan(lambda x: convolve(wrapped(far(far(far(far(x)))))), shape, (2, 2))
    assert plan.speedup > 4
    assert all(max(ends) < 16 for saved in plan.body.saved for ends in saved.padding)
    reach = Positions.on_grid(16, 2, 1, 0).reach(0)
    a, b = (circle.through(reach, Turn(shift), 16, 16) for shift in (15, -1))
    first, second = circle.together([a, b], {16}, 16, True)
    joined = first.join(second)
    assert joined is not None and joined.window(16).size == 2


@pytest.mark.parametrize("field", [0, 2, 1000])
def test_windows_cut_short_go_round_too(rng, field):
    """As short for a rolled image as for the image itself, and as right."""
    image, patch = integers(rng, (16, 30, 3)), integers(rng, (3, 4, 3), low=5, high=9)
    starts = every_start(image.shape, patch.shape)

    def right(shift):
        def f(x):
            return convolve(wrapped(convolve(wrapped(jnp.roll(x, shift, 1)))))

        plan = make_plan(f, image, (3, 4), field=field, dense_above=1.0)
        assert plan.body.steps[-1].window[0] == min(3 + field, 7)
        clean = base(plan, f, image)
        got = jax.jit(jax.vmap(lambda start: update(plan, clean, patch, start)))(starts)
        wanted = jax.vmap(lambda start: f(paste(image, patch, start)[None])[0])(starts)
        return (got == wanted).all(-1).mean()

    assert right(5) == right(0) == 1 if field == 1000 else 0.9 < right(5) == right(0) < 1


def test_a_roll_of_what_wraps_stays_as_small():
    reach = Positions.on_grid(12, 3, 1, 0).reach(0)
    turned = circle.through(reach, Turn(5), 12, 12)
    assert turned.window(12).size == 3 and turned.period == 12
    wider = circle.through(turned, Stencil(3, 1), 12, 10)
    assert wider.period == 12 and wider.window(10).size == 5  # no circle of 10
    again = circle.through(circle.through(reach, Turn(-1), 12, 14), Stencil(3, 1), 14, 12)
    assert again.period == 12 and again.window(12).size == 5


@pytest.mark.parametrize(
    "held, ask, fits",
    [
        (Span(0, np.array([0]), 3), Span(0, np.array([-1]), 5, 12), True),
        (Span(0, np.array([11]), 3, 12), Span(0, np.array([-2]), 5, 12), True),
        (Span(0, np.array([0]), 6), Span(0, np.array([3]), 8, 12), True),
        (Span(0, np.array([0]), 6), Span(0, np.array([3]), 10, 12), False),
        (Span(0, np.array([3]), 4, 12), Span(0, np.array([2]), 6), False),
        (Span(0, np.array([3]), 2, 12), Span(0, np.array([2]), 4, 10), False),
        (Span(0, np.array([3]), 2, 10), Span(0, np.array([2]), 4, 12), True),
        (Span(0, np.array([9]), 2, 10), Span(0, np.array([10]), 6, 12), True),
        (Span(0, np.array([9]), 4, 10), Span(0, np.array([2]), 8, 12), False),
        (Span(0, np.array([10]), 4, 12), None, True),
        (None, Span(0, np.array([10]), 4, 12), True),
        (Span(0, np.array([10]), 4), Span(0, np.array([-2]), 4), True),
    ],
)
def test_a_window_meets_a_region_once(held, ask, fits):
    assert circle.meets_once(held, ask, 12) is fits


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30), st.integers(0, 4))
def test_padding_round_repeats_the_period(period, low, high, more):
    x = np.arange(period)[np.arange(period + more) % period]
    padded = np.asarray(padded_round(jnp.asarray(x)[None], 1, low, high, period))[0]
    assert len(padded) == len(x) + low + high
    assert (padded[low : low + len(x)] == x).all()
    assert all((b - a) % period == 1 % period for a, b in pairwise(padded))


def test_equations_without_a_result_are_no_slices():
    def f(x):
        jax.debug.print("{}", x.sum())
        return jnp.roll(x, 1, 1).max((1, 2))

    with pytest.warns(UserWarning, match="prints or calls back"):
        y, update = jv.incremental(f, jnp.zeros((6, 6, 1)), 2)
    assert y.tolist() == [0] and update(jnp.ones((2, 2, 1)), jnp.array([1, 5])).tolist() == [1]
