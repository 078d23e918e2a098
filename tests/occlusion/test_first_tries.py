"""What people try first works, or is answered by a sentence that says what to write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.tree_util import Partial

import jaxviz as jv

IMAGE = np.random.default_rng(0).random((6, 6, 2), np.float32)


def f(images):
    return images.mean((1, 2))


def pool(images):
    options = (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
    return jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, *options).mean((1, 2))


class Net(linen.Module):
    train: bool = False

    @linen.compact
    def __call__(self, images):
        x = linen.BatchNorm(use_running_average=not self.train)(images)
        return linen.Dropout(0.5, deterministic=True)(x).mean((1, 2))


NET = Net()
VARIABLES = NET.init(jax.random.key(0), IMAGE[None])


@pytest.mark.parametrize("wrap", [jax.jit, lambda run: lambda x: jax.vmap(run)(x[None])])
def test_a_driver_inside_a_trace_names_the_kernel(wrap):
    for run in (
        lambda x: jv.occlude(f, x, patch=3).scores,
        lambda x: jv.occlude_segments(f, x, np.zeros((6, 6), int)).scores,
    ):
        with pytest.raises(TypeError, match="`images` must be concrete.*occlusion_scores"):
            wrap(run)(IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_it_runs_where_jit_is_disabled(method):
    wanted = jv.occlude(f, IMAGE, patch=3, method=method).scores
    with jax.disable_jit():
        np.testing.assert_array_equal(jv.occlude(f, IMAGE, patch=3, method=method).scores, wanted)


RUNS = {
    "occlude": lambda f: jv.occlude(f, IMAGE, patch=3).scores,
    "segments": lambda f: jv.occlude_segments(f, IMAGE, np.zeros((6, 6), int)).scores,
    "kernel": lambda f: jv.occlusion_scores(f, IMAGE, patch=3),
    "incremental": lambda f: jv.incremental(f, IMAGE, 3)[0],
}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_linen_module_goes_with_its_variables(run):
    wanted = run(Partial(NET.apply, VARIABLES))
    np.testing.assert_array_equal(run((NET, VARIABLES)), wanted)
    for unbound in (NET, NET.apply):
        with pytest.raises(TypeError, match=r"`f` must have its variables.*\(module, variables\)"):
            run(unbound)


def test_a_linen_module_in_training_mode_is_told():
    with pytest.raises(ValueError, match="`f` must be in inference mode.*`train=False`"):
        jv.occlude((Net(train=True), VARIABLES), IMAGE, patch=3)
    with pytest.raises(ValueError, match="`f` must be in inference mode.*`train=False`"):
        jv.activations(Partial(Net(train=True).apply, VARIABLES), IMAGE[None])


@pytest.mark.parametrize("name", ["blur", "image_mean", "patch_mean", "noise", "constant"])
def test_a_fill_that_was_not_called_is_told(name):
    with pytest.raises(TypeError, match=rf"`fill` must be what `{name}` returns.*call it"):
        jv.occlude(f, IMAGE, patch=3, fill=getattr(jv.fills, name))


@pytest.mark.parametrize("progress", ["yes", 1, 0.5])
def test_progress_is_a_bool_or_a_function(progress):
    with pytest.raises(TypeError, match="`progress` must be True, False or a function"):
        jv.occlude(f, IMAGE, patch=3, progress=progress)
    with pytest.raises(TypeError, match="`progress` must be True, False or a function"):
        jv.occlude_segments(f, IMAGE, np.zeros((6, 6), int), progress=progress)


@pytest.mark.parametrize("tolerance", ["x", True, [0.1]])
def test_tolerance_is_a_number(tolerance):
    with pytest.raises(TypeError, match="`tolerance` must be a number from 0 to 1, or None"):
        jv.occlude(f, IMAGE, patch=3, tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("image", [None, "x.png"])
def test_the_kernel_refuses_what_is_no_image(image):
    with pytest.raises(TypeError, match="`image` must be an array of pixels: got a"):
        jv.occlusion_scores(f, image, patch=3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_images_fills_and_models_may_lie_on_other_devices(method):
    devices = jax.devices()
    weights = jnp.asarray(np.random.default_rng(0).random((2, 3)), jnp.float32)
    wanted = jv.occlude(lambda x: f(x) @ weights, IMAGE, patch=3, fill=IMAGE / 2, method=method)
    there = Partial(lambda w, x: f(x) @ w, jax.device_put(weights, devices[3]))
    image, fill = jax.device_put(IMAGE, devices[1]), jax.device_put(IMAGE / 2, devices[2])
    got = jv.occlude(there, image, patch=3, fill=fill, method=method)
    np.testing.assert_array_equal(got.scores, wanted.scores)


@pytest.mark.slow
def test_pools_are_no_error_where_infinity_is_one():
    patch = np.ones((2, 2, 2), np.float32)
    wanted = jv.occlude(pool, IMAGE, patch=3).scores
    alone = jv.incremental(pool, IMAGE, 2)[1](patch, [1, 1])
    with jax.debug_infs(True):
        got = jv.occlude(pool, IMAGE, patch=3, method="incremental").scores
        np.testing.assert_array_equal(jv.incremental(pool, IMAGE, 2)[1](patch, [1, 1]), alone)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
