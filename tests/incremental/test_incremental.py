"""`incremental` composes with jit, vmap, lax.map and grad, and refuses what it cannot do."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from jax import lax
from scorers import depthwise_then_pool

from jaxviz.incremental import base, describe, incremental, make_plan, update
from jaxviz.incremental.interpret import paste
from jaxviz.jaxpr.walk import equations

SHAPE, PATCH = (20, 18, 3), (5, 4)


@pytest.fixture
def model():
    return networks.Chain(
        networks.conv(3, 8, strides=2, rngs=nnx.Rngs(0)),
        networks.conv(8, 8, rngs=nnx.Rngs(1)),
        networks.flatten,
        nnx.Linear(720, 4, rngs=nnx.Rngs(2)),
    )


@pytest.fixture
def image(rng):
    return jnp.asarray(rng.standard_normal(SHAPE), jnp.float32)


@pytest.fixture
def patches(rng):
    return jnp.asarray(rng.standard_normal((7, *PATCH, 3)), jnp.float32)


@pytest.fixture
def starts(rng):
    return jnp.asarray(rng.integers(-6, 21, (7, 2)), jnp.int32)


def dense(f, image, patch, start):
    return f(paste(image, patch, start)[None])[0]


@pytest.mark.slow
def test_scores_and_updates_equal_the_function(model, image, patches, starts):
    y, update = incremental(model, image, PATCH)
    np.testing.assert_allclose(y, model(image[None])[0], atol=1e-6)
    for patch, start in zip(patches, starts, strict=True):
        wanted = dense(model, image, patch, start)
        np.testing.assert_allclose(update(patch, start), wanted, atol=1e-6)
        np.testing.assert_allclose(update(np.asarray(patch), [*map(int, start)]), wanted, atol=1e-6)


@pytest.mark.slow
def test_a_side_is_a_square_patch(model, image, patches):
    patch, start = patches[0, :4], jnp.asarray([3, 9])
    got = incremental(model, image, np.int64(4))[1](patch, start)
    np.testing.assert_allclose(got, dense(model, image, patch, start), atol=1e-6)


@pytest.mark.slow
def test_composes_with_vmap_map_and_jit(model, image, patches, starts):
    @jax.jit
    def run(model, image, patches, starts):
        y, update = incremental(model, image, PATCH)
        return (
            jax.vmap(update)(patches, starts),
            lax.map(lambda pair: update(*pair), (patches, starts), batch_size=3),
            jax.vmap(update, (None, 0))(patches[0], starts),
        )

    batched, mapped, shared = run(model, image, patches, starts)
    wanted = jax.vmap(lambda p, s: dense(model, image, p, s))(patches, starts)
    np.testing.assert_allclose(batched, wanted, atol=1e-6)
    np.testing.assert_allclose(mapped, wanted, atol=1e-6)
    np.testing.assert_allclose(shared[0], wanted[0], atol=1e-6)


@pytest.mark.slow
def test_composes_with_vmap_over_images(model, image, patches, starts):
    images = jnp.stack([image, image * 2])
    run = jax.vmap(lambda x: incremental(model, x, PATCH)[1](patches[0], starts[0]))
    wanted = jax.vmap(lambda x: dense(model, x, patches[0], starts[0]))(images)
    np.testing.assert_allclose(run(images), wanted, atol=1e-6)


@pytest.mark.slow
def test_gradients_equal_dense_gradients(model, image, patches, starts):
    def ours(model, image, patch):
        return incremental(model, image, PATCH)[1](patch, starts[0]).sum()

    def theirs(model, image, patch):
        return dense(model, image, patch, starts[0]).sum()

    for argument in (0, 1, 2):
        got = jax.grad(ours, argument)(model, image, patches[0])
        wanted = jax.grad(theirs, argument)(model, image, patches[0])
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
def test_gradients_read_windows_by_gathers(image):
    _, update = incremental(depthwise_then_pool, image, 3)
    patch, start = jnp.ones((3, 3, 3)), jnp.array([4, 4])
    _, backwards = jax.vjp(lambda patch: update(patch, start), patch)
    names = {e.primitive.name for e in equations(jax.make_jaxpr(backwards)(jnp.ones(8)))}
    assert "gather" in names and "dynamic_slice" not in names


CRASHED = """
import sys
sys.path[:0] = {path}
import jax, jax.numpy as jnp
from jaxviz.incremental import incremental
from scorers import depthwise_then_pool
image, patch, start = jnp.ones((12, 12, 3)), jnp.ones((3, 3, 3)), jnp.array([4, 4])
_, update = incremental(depthwise_then_pool, image, 3)
print(jax.grad(lambda patch: update(patch, start).sum())(patch).sum())
"""


@pytest.mark.slow
def test_eager_gradients_through_pools_and_depthwise_convolutions_end_well():
    # In a process of its own: it used to end by a segmentation fault.
    run = subprocess.run(
        [sys.executable, "-c", CRASHED.format(path=sys.path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    image, patch = jnp.ones((12, 12, 3)), jnp.ones((3, 3, 3))
    wanted = jax.grad(lambda p: dense(depthwise_then_pool, image, p, (4, 4)).sum())(patch).sum()
    assert float(run.stdout) == wanted


@pytest.mark.slow
def test_gradients_pass_windows_of_integers(image, patches, starts):
    def f(images):
        kept = jnp.cumsum((images > 0).astype(jnp.int32), 3) > 1
        return jnp.where(kept[:, ::2], images[:, ::2], 0).sum((1, 2))

    _, update = incremental(f, image, PATCH)
    got = jax.vmap(jax.grad(lambda p, s: update(p, s).sum()))(patches, starts)
    wanted = jax.vmap(jax.grad(lambda p, s: dense(f, image, p, s).sum()))(patches, starts)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow
def test_gradients_follow_derivative_rules_of_the_function(image, patches, starts):
    @jax.custom_jvp
    def straight_through(x):
        return jnp.round(x)

    straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))

    def f(images):
        return (straight_through(images) * images).sum((1, 2))

    _, update = incremental(f, image, PATCH)
    got = jax.vmap(jax.grad(lambda p, s: update(p, s).sum()))(patches, starts)
    wanted = jax.vmap(jax.grad(lambda p, s: dense(f, image, p, s).sum()))(patches, starts)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.abs(got).sum() > 0


def test_arrays_of_the_scorer_stay_arguments(model, image, patches, starts):
    def run(model, image, patches, starts):
        return jax.vmap(incremental(model, image, PATCH)[1])(patches, starts)

    jaxpr = jax.make_jaxpr(run)(model, image, patches, starts)
    assert sum(np.size(const) for const in jaxpr.consts) < 200


@pytest.mark.slow
def test_captured_arrays_are_leaves_of_the_plan(image, patches, starts):
    weights = jnp.ones((720, 2))

    def f(images):
        return (images[:, ::2, ::2] * 8).reshape(1, -1)[:, :720] @ weights[:270]

    plan = make_plan(f, image, PATCH)
    assert [leaf.shape for leaf in jax.tree.leaves(plan)] == [weights.shape]
    clean = jax.jit(base, static_argnums=1)(plan, f, image)
    got = jax.jit(update)(plan, clean, patches[0], starts[0])
    np.testing.assert_allclose(got, dense(f, image, patches[0], starts[0]), rtol=1e-5)


@pytest.mark.slow
def test_no_convolution_over_the_whole_image(model, image, patches, starts):
    plan = make_plan(model, image, PATCH, dense_above=1.0)
    clean = base(plan, model, image)
    run = jax.vmap(lambda patch, start: update(plan, clean, patch, start))
    shapes = [
        eqn.outvars[0].aval.shape
        for eqn in equations(jax.make_jaxpr(run)(patches, starts).jaxpr)
        if eqn.primitive.name == "conv_general_dilated"
    ]
    assert shapes == [(7, 4, 3, 8), (7, 6, 5, 8)]


@pytest.mark.slow
def test_the_same_content_and_shapes_give_the_same_plan(model, image):
    body = make_plan(model, image, PATCH).body
    assert make_plan(model, image + 1, PATCH).body is body
    assert make_plan(jax.tree.map(lambda x: x + 1, model), image, PATCH).body is body
    assert make_plan(lambda images: model(images), image, PATCH).body is not body  # arrays captured
    assert make_plan(model, image, (4, 4)).body is not body
    assert make_plan(model, image[1:], PATCH).body is not body
    with jax.default_matmul_precision("highest"):
        assert make_plan(model, image, PATCH).body is not body


@pytest.mark.slow
def test_plans_are_by_content_and_never_out_of_date(image, patches, starts):
    scale, weights = 1.0, jnp.ones((1, 1, 1, 3))

    class Net:
        def __init__(self):
            self.weights = weights

        def __call__(self, images):
            return jax.jit(lambda x: (x * self.weights).sum((1, 2)))(images) * scale

    net = Net()
    bodies = set()
    for f in (lambda images: net(images), net.__call__, lambda images: net(images)):
        plan = make_plan(f, image, PATCH)
        assert [leaf.shape for leaf in plan.captured] == [(1, 1, 1, 3)]
        bodies.add(plan.body)
    assert len(bodies) == 1
    first = incremental(net.__call__, image, PATCH)[1](patches[0], starts[0])
    net.weights = weights * 2
    twice = incremental(net.__call__, image, PATCH)[1](patches[0], starts[0])
    assert make_plan(net.__call__, image, PATCH).body in bodies
    np.testing.assert_allclose(twice, first * 2, rtol=1e-6)
    scale = 0.5
    np.testing.assert_allclose(
        incremental(net.__call__, image, PATCH)[1](patches[0], starts[0]), first, rtol=1e-6
    )


def test_a_repeat_compiles_nothing(image, patches, starts, compilations):
    def update_of(weight):
        return incremental(lambda x: jnp.tanh(x * weight).sum((1, 2)), image, PATCH)[1]

    update_of(jnp.asarray(1.0))(patches[0], starts[0])
    compilations.start()
    update_of(jnp.asarray(2.0))(patches[0], starts[0])
    assert compilations.count == 0


def test_plans_that_captured_arrays_are_made_anew(image, patches, starts):
    weights = {"w": jnp.ones((1, 1, 1, 3))}

    def f(images):
        return (images * weights["w"]).sum((1, 2))

    first = incremental(f, image, PATCH)[1](patches[0], starts[0])
    weights["w"] = weights["w"] * 2
    second = incremental(f, image, PATCH)[1](patches[0], starts[0])
    np.testing.assert_allclose(second, first * 2, rtol=1e-6)


@pytest.mark.slow
def test_a_start_off_the_grid_gives_nan(model, image, patches):
    _, update = incremental(model, image, PATCH, step=(4, 2), offset=(1, 0))
    assert jnp.isfinite(update(patches[0], jnp.array([5, -2]))).all()
    assert jnp.isnan(update(patches[0], jnp.array([4, 2]))).all()
    assert jnp.isnan(update(patches[0], jnp.array([5, 3]))).all()


@pytest.mark.slow
def test_outputs_that_do_not_change_or_stay_windowed(image, patches, starts):
    def f(images):
        return {"map": images * 2, "fixed": jnp.ones((1, 3)), "sum": images.sum((1, 2))}

    y, update = incremental(f, image, PATCH)
    got = update(patches[0], starts[0])
    wanted = jax.tree.map(lambda s: s[0], f(paste(image, patches[0], starts[0])[None]))
    jax.tree.map(np.testing.assert_array_equal, y, jax.tree.map(lambda s: s[0], f(image[None])))
    np.testing.assert_array_equal(got["map"], wanted["map"])
    np.testing.assert_array_equal(got["fixed"], wanted["fixed"])
    np.testing.assert_allclose(got["sum"], wanted["sum"], rtol=1e-5)


@pytest.mark.slow
def test_nan_in_the_image_stays_where_it_is(image, patches):
    image = image.at[0, 0, 0].set(jnp.nan)
    _, update = incremental(lambda x: x * 2, image, PATCH)
    got = update(patches[0], jnp.array([9, 9]))
    assert int(jnp.isnan(got).sum()) == 1


def test_a_plan_is_described_line_by_line(model, image):
    plan = make_plan(model, image, 5, step=(4, 4))
    lines = describe(plan).splitlines()
    assert lines[0].split() == "operation result window share MFLOP dense window why dense".split()
    assert len(lines) == len(plan.body.steps) + 3
    mean = make_plan(lambda x: x.mean((1, 2)), image, 5, step=(4, 4))
    assert any("by difference" in line for line in describe(mean).splitlines())
    whole = make_plan(lambda x: model(x).max(-1) + x.max((1, 2, 3)), image, 5, step=(4, 4))
    assert "reads the windows' axes whole" in describe(whole)
    assert 1 < plan.speedup == plan.flops_dense / plan.flops_window
    assert f"speed-up {plan.speedup:.2f}" in lines[-1]
    assert lines[-1] == repr(plan)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            (jnp.zeros((4, 4)), (2, 2)),
            r"`image` must be \(height, width, channel\): got shape \(4, 4\)",
        ),
        ((jnp.zeros((4, 4, 1)), (0, 2)), r"`patch_shape` must be at least 1: got \(0, 2\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        incremental(lambda x: x.sum((1, 2)), *arguments)


@pytest.mark.parametrize("shape", [(2,), (2.5, 3), None])
def test_no_shapes_are_refused(image, shape):
    with pytest.raises(TypeError, match=r"`patch_shape` must be a whole number or a \(row, col\)"):
        incremental(lambda x: x.sum((1, 2)), image, shape)


def test_bad_steps_are_refused(image):
    with pytest.raises(ValueError, match=r"`step` must be at least 1: got \(0, 1\)"):
        incremental(lambda x: x.sum((1, 2)), image, PATCH, step=(0, 1))


def test_a_scorer_that_sums_the_batch_is_refused(image):
    with pytest.raises(ValueError, match="`f` must return one row per image"):
        incremental(lambda x: x.sum(), image, PATCH)


def test_something_that_cannot_be_called_is_refused(image):
    with pytest.raises(TypeError, match="`f` must be callable"):
        incremental(jnp.ones(3), image, PATCH)


def test_a_patch_of_another_shape_or_dtype_is_refused(image):
    _, update = incremental(lambda x: x.sum((1, 2)), image, PATCH)
    with pytest.raises(ValueError, match=r"`patch` must be \(5, 4, 3\) of float32"):
        update(jnp.zeros((4, 5, 3)), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match=r"`patch` must be \(5, 4, 3\) of float32"):
        update(jnp.zeros((5, 4, 3), jnp.int32), jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize(
    "start, error, match",
    [
        ([1, 2, 3], ValueError, r"got \[1, 2, 3\] of shape \(3,\)"),
        ([1], ValueError, r"got \[1\] of shape \(1,\)"),
        (1, ValueError, r"got 1 of shape \(\)"),
        ([1.5, 2], TypeError, r"got \[1.5, 2\]"),
        (jnp.ones(2), TypeError, "got Array"),
        ([True, False], TypeError, "got .True, False."),
        ("ab", TypeError, "got 'ab'"),
        (None, TypeError, "got None"),
        ([[1], [2, 3]], TypeError, "got "),
    ],
)
def test_a_start_is_two_whole_numbers(image, patches, start, error, match):
    _, update = incremental(lambda x: x.sum((1, 2)), image, PATCH)
    with pytest.raises(error, match="`start` must be two whole numbers, .*" + match):
        update(patches[0], start)
    if isinstance(start, jax.Array):
        with pytest.raises(error, match="`start` must be two whole numbers"):
            jax.jit(update)(patches[0], start)


@pytest.mark.slow
def test_a_start_of_any_integers_is_where_it_says(image, patches):
    image, patches = jnp.round(8 * image), jnp.round(8 * patches)  # their sums are exact
    y, update = incremental(lambda x: x.sum((1, 2)), image, PATCH)
    wanted = update(patches[0], [1, 2])
    for dtype in (np.int8, np.uint8, np.uint32, np.int64):
        np.testing.assert_array_equal(update(patches[0], np.array([1, 2], dtype)), wanted)
        traced = jax.jit(update)(patches[0], np.array([1, 2], dtype))
        np.testing.assert_allclose(traced, wanted, rtol=1e-6)
    np.testing.assert_array_equal(update(patches[0], (jnp.int32(1), jnp.int32(2))), wanted)
    far = ([10**12, 1], [-(10**12), 1], np.array([2**31 + 5, 1], np.uint32))
    for start in (*far, jnp.array([2**31 + 5, 1], jnp.uint32), jnp.array([-(2**31), 1])):
        np.testing.assert_array_equal(update(patches[0], start), y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, odd",
    [(jnp.int32, -(2**31)), (jnp.uint8, 255), (jnp.bool_, False), (jnp.complex64, jnp.nan)],
)
def test_off_the_grid_no_score_is_that_of_another_position(image, patches, dtype, odd):
    def f(images):
        return (images.sum((1, 2)) * 0 + 7).astype(dtype)

    y, update = incremental(f, image, PATCH, step=(2, 2))
    np.testing.assert_array_equal(update(patches[0], [2, 4]), y)
    for run in (update, jax.jit(update)):
        got = run(patches[0], jnp.array([2, 3]))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.full(3, odd, dtype))


@pytest.mark.parametrize("image", [None, [[[1.0]]], "x.png"])
def test_an_image_is_an_array(image):
    with pytest.raises(TypeError, match="`image` must be an array .* got a"):
        incremental(lambda x: x.sum((1, 2)), image, 1)


def test_a_patch_and_an_offset_are_numbers(image):
    _, update = incremental(lambda x: x.sum((1, 2)), image, PATCH)
    with pytest.raises(TypeError, match="`patch` must be an array: got a NoneType"):
        update(None, [1, 2])
    with pytest.raises(TypeError, match="`offset` must be a whole number or a .row, col. pair"):
        incremental(lambda x: x.sum((1, 2)), image, PATCH, step=2, offset=(0.5, 1))


@pytest.mark.slow
def test_complex_scores_keep_both_parts(image, patches):
    def f(images):
        return jnp.fft.fft(images.sum((1, 2)))

    _, update = incremental(f, image, PATCH)
    wanted = dense(f, image, patches[0], (3, 4))
    np.testing.assert_allclose(update(patches[0], [3, 4]), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["plain", "in a loop"])
def test_what_a_function_prints_it_prints_for_the_clean_image_alone(image, patches, capfd, where):
    def tell(carry, x):
        jax.debug.print("seen {}", x)
        return carry, None

    def f(images):
        if where == "plain":
            tell(None, images.max())
        else:
            lax.scan(tell, None, images.max()[None])
        return images.sum((1, 2))

    with pytest.warns(UserWarning, match="prints or calls back: for the clean image alone") as told:
        _, update = incremental(f, image, PATCH)
    jax.effects_barrier()
    assert capfd.readouterr().out.count("seen") == 1 and len(told) == 1
    got = update(patches[0], [3, 4])
    jax.effects_barrier()
    assert "seen" not in capfd.readouterr().out
    wanted = image.sum((0, 1)) + (patches[0] - image[3:8, 4:8]).sum((0, 1))
    np.testing.assert_allclose(got, wanted, atol=1e-4)
