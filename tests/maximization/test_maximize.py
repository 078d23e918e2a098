"""`maximize`: objectives rise, batches equal single runs, and trouble is named."""

import gc
import weakref
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.tree_util import Partial
from oracles import slow_blur

from jaxviz import load_keras, logits
from jaxviz import objectives as jo
from jaxviz import parametrize as jp
from jaxviz import regularize as jr
from jaxviz import transforms as jt
from jaxviz.jaxpr.compiled import PROGRAMS
from jaxviz.layers import tag
from jaxviz.maximization import loop
from jaxviz.maximization.maximize import NotFiniteError, maximize
from jaxviz.maximization.result import Maximized

KEY = jax.random.key(0)
SHAPE = (12, 10, 3)


def network(first, second, images):
    numbers = ("NHWC", "HWIO", "NHWC")
    hidden = jax.lax.conv_general_dilated(images, first, (1, 1), "VALID", dimension_numbers=numbers)
    hidden = tag("conv", jax.nn.relu(hidden))
    window = (1, 2, 2, 1)
    pooled = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, window, window, "VALID")
    return tag("pool", pooled).reshape(images.shape[0], -1) @ second


def small_network(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(3, 3, shape[2], 6)) / 3
    size = ((shape[0] - 2) // 2) * ((shape[1] - 2) // 2) * 6
    second = rng.normal(size=(size, 5)) / np.sqrt(size)
    return Partial(network, jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))


def plain(images):
    return images.mean((1, 2))


def dense(first, second, images):
    return jax.nn.relu(images.reshape(images.shape[0], -1) @ first) @ second


def dense_network(seed=0):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(np.prod(SHAPE), 8)) / 9, rng.normal(size=(8, 5))
    return Partial(dense, jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))


F, DENSE = small_network(), dense_network()
STILL = optax.sgd(0.0)
# Each distinct step takes seconds to compile: tests add to the smallest one what they are about.
OPTIONS = {"image_shape": SHAPE, "key": KEY, "regularizers": (), "transforms": ()}
OPTIONS |= {"parametrization": jp.pixels()}
JITTER = {"transforms": (jt.jitter(1),)}


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), name="conv")(x))
        return linen.Dense(2, name="head")(x.mean((1, 2)))


RISING = {
    "unit": jo.unit(3),
    "unit minimised": -jo.unit(3),
    "centre": jo.neuron("conv", 2),
    "neuron": jo.neuron("conv", 2, position=(0, 7)),
    "channel": jo.channel("conv", 1),
    "channel minimised": -jo.channel("pool", 1),
    "layer": jo.layer("conv"),
    "direction": jo.direction("conv", [1.0, -1.0, 0.5, 0.0, 0.0, 2.0]),
    "direction at": jo.direction("conv", [1.0, -1.0, 0.5, 0.0, 0.0, 2.0], position=(3, 3)),
    "interpolate": jo.interpolate("conv", 1, 2),
    "diversity": jo.diversity("conv"),
    "sum": jo.channel("conv", 1) + 2 * jo.unit(0) - jo.unit(1),
    "own": jo.objective(lambda acts: acts["pool"].max((1, 2, 3)), ["pool"]),
    "own of several layers": jo.objective(
        lambda acts: acts["conv"].mean((1, 2, 3)) * acts["pool"].max((1, 2, 3)) + acts[None][:, 1],
        ["conv", "pool", None],
    ),
}


def test_a_result_tells_in_a_line_what_it_is():
    images = np.zeros((2, 4, 6, 1), np.float32)
    found = Maximized(images, {"total": np.zeros((7, 2))}, images, {}, images[..., 0], None)
    assert repr(found) == "Maximized(2 images 4×6, 7 steps)"
    found = found._replace(images=images[:1], history={}, stopped="a callback ended it")
    assert repr(found) == "Maximized(1 image 4×6, 0 steps, stopped: a callback ended it)"


@pytest.mark.slow
def test_each_objective_rises_within_three_steps():
    result = maximize(F, list(RISING.values()), steps=4, seeds=2, **OPTIONS)
    values = result.history["objective"].reshape(4, -1, 2)
    assert values.shape[1] == len(RISING)
    for number, name in enumerate(RISING):
        assert (values[-1, number] > values[0, number]).all(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parametrization", "bounds"),
    [
        pytest.param(jp.pixels(), "sigmoid", marks=pytest.mark.slow),
        pytest.param(jp.pyramid(levels=2), "project", marks=pytest.mark.slow),
        pytest.param(jp.maco(), "sigmoid", marks=pytest.mark.slow),
        (jp.decorrelated(jp.fourier()), "project"),
    ],
    ids=["pixels", "pyramid", "maco", "colour fourier"],
)
def test_images_rise_and_stay_in_the_value_range(parametrization, bounds):
    options = OPTIONS | {"parametrization": parametrization, "bounds": bounds}
    result = maximize(plain, jo.unit(1), steps=12, value_range=(-2, 3), **options)
    assert result.images.shape == (1, *SHAPE) and result.images.dtype == jnp.float32
    assert float(result.images.min()) >= -2 and float(result.images.max()) <= 3
    values = result.history["objective"]
    assert values[-1] > values[0]


@pytest.mark.slow
def test_a_parametrisation_of_ones_own_is_moved():
    grey = jp.Parametrization(
        lambda key, shape: 0.1 * jax.random.normal(key, (*shape[:2], 1)),
        lambda drawn, shape: jnp.broadcast_to(drawn, shape),
    )
    options = OPTIONS | {"parametrization": grey}
    result = maximize(plain, [jo.unit(0), -jo.unit(0)], steps=4, **options)
    assert (result.images == result.images[..., :1]).all()
    values = result.history["objective"]
    assert (values[-1] > values[0]).all()


@pytest.mark.slow
def test_without_bounds_images_leave_the_value_range():
    options = OPTIONS | {"optimizer": optax.sgd(1e3), "bounds": "none", "start": 0.5}
    assert float(jnp.abs(maximize(plain, jo.unit(1), steps=3, **options).images).max()) > 1


@pytest.mark.slow
def test_every_kind_of_scorer_serves():
    def rises(f, objective):
        values = maximize(f, objective, steps=4, **OPTIONS).history["objective"]
        return bool(values[-1] > values[0])

    rngs = nnx.Rngs(0)
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))
    assert rises(net, jo.channel("layers.0", 2))
    module = LinenNet()
    variables = module.init(KEY, jnp.zeros((1, *SHAPE)))
    assert rises((module, variables), jo.channel("conv", 2) + jo.unit(0))
    layers = [
        {"class_name": "ReLU", "config": {"name": "relu", "batch_input_shape": [None, *SHAPE]}},
        {"class_name": "Flatten", "config": {"name": "flat"}},
        {"class_name": "Softmax", "config": {"name": "out"}},
    ]
    model = logits(load_keras({"class_name": "Sequential", "config": layers}))
    options = OPTIONS | {"image_shape": None}
    result = maximize(
        model, [jo.unit(3), jo.channel("relu", 1), jo.unit(0, layer=-1)], steps=4, **options
    )
    values = result.history["objective"]
    assert (values[-1] > values[0]).all()


OBJECTIVES = [jo.unit(0), jo.channel("conv", 2), jo.unit(4)]


@pytest.mark.slow
def test_a_batch_equals_one_by_one():
    options = OPTIONS | JITTER | {"steps": 6, "regularizers": None}
    together = maximize(F, OBJECTIVES, **options)
    for number in (0, 2):  # of one structure, so that alone they are one program
        alone = maximize(F, OBJECTIVES[number], **options)
        np.testing.assert_allclose(together.images[number], alone.images[0], atol=2e-5)
        for name, term in alone.history.items():
            found = together.history[name][:, number]
            np.testing.assert_allclose(found, term[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_channels_of_a_layer_in_chunks_are_what_they_are_in_one_batch():
    seen, before = [], len(PROGRAMS)
    options = OPTIONS | {"steps": 5, "snapshot_every": 2, "redirect_steps": 0}
    channels = jo.every_channel(F, "conv", image_shape=SHAPE)
    whole = maximize(F, channels, **options)
    options |= {"progress": lambda done, total: seen.append((done, total))}
    parts = maximize(F, channels, batch_size=4, **options)
    assert len(channels) == 6 and seen == [(n, 10) for n in range(1, 11)]
    assert len(PROGRAMS) <= before + 4  # a step and its images, for both sizes of batch
    assert parts.images.shape == whole.images.shape and list(parts.snapshots) == [2, 4]
    np.testing.assert_allclose(parts.images, whole.images, atol=2e-5)
    np.testing.assert_allclose(parts.snapshots[4], whole.snapshots[4], atol=2e-5)
    np.testing.assert_allclose(parts.history["total"], whole.history["total"], rtol=1e-4, atol=1e-5)


def test_large_images_come_one_at_a_time_on_a_cpu_and_each_is_traced_once(monkeypatch):
    traced, seen = [], []
    advance = loop.advance
    monkeypatch.setattr(loop, "advance", lambda *args: (traced.append(1), advance(*args))[1])
    options = OPTIONS | {"steps": 2, "redirect_steps": 0, "image_shape": (128, 128, 3)}
    options |= {"progress": lambda done, total: seen.append(total)}
    objectives = [jo.unit(n) for n in range(3)]
    apart = maximize(plain, objectives, **options)
    assert seen[-1] == 6 and len(traced) == 1
    together = maximize(plain, objectives, batch_size=3, **options)
    assert seen[-1] == 2
    np.testing.assert_allclose(apart.images, together.images, atol=1e-6)
    heard = []
    told = {"callback": lambda step, images, terms: heard.append(len(images))}
    maximize(plain, objectives, **options | told)
    assert heard == [3, 3]


@pytest.mark.slow
def test_the_same_key_gives_the_same_images_bit_for_bit():
    options = OPTIONS | JITTER | {"steps": 5, "seeds": 2}
    first, again = (maximize(DENSE, jo.unit(2), **options).images for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    other = maximize(DENSE, jo.unit(2), **(options | {"key": jax.random.key(1)})).images
    assert (first != other).any()


def assert_one_loop_equals_the_other(host, scan):
    np.testing.assert_array_equal(host.images, scan.images)
    for name, term in host.history.items():
        np.testing.assert_array_equal(scan.history[name], term)


@pytest.mark.slow
def test_host_and_scan_give_the_same_images():
    options = OPTIONS | JITTER | {"steps": 18, "regularizers": None, "snapshot_every": 9}
    host = maximize(F, OBJECTIVES, loop="host", **options)
    scan = maximize(F, OBJECTIVES, loop="scan", redirect_steps=0, **options)
    assert_one_loop_equals_the_other(host, scan)
    assert list(host.snapshots) == list(scan.snapshots) == [9, 18]


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds", ["sigmoid", "project", pytest.param("none", marks=pytest.mark.slow)]
)
def test_start_images_are_started_from(bounds):
    start = jax.random.uniform(KEY, (2, *SHAPE), minval=0.1, maxval=0.9)
    options = OPTIONS | {"optimizer": STILL, "bounds": bounds}
    result = maximize(plain, [jo.unit(0), jo.unit(1)], start=start, steps=1, **options)
    assert result.images.shape == (4, *SHAPE)
    np.testing.assert_allclose(result.images[2:], start, atol=1e-5)
    grey = maximize(plain, [jo.unit(0), jo.unit(1)], start=0.25, seeds=2, steps=1, **options)
    assert float(grey.images.mean()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(optax.sgd(0.5), marks=pytest.mark.slow),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.02)),
        pytest.param(optax.adam(optax.cosine_decay_schedule(0.05, 10)), marks=pytest.mark.slow),
        optax.lbfgs(0.1, linesearch=None),
    ],
    ids=["sgd", "clipped", "schedule", "lbfgs"],
)
def test_any_optax_transformation_serves(optimizer):
    options = OPTIONS | {"optimizer": optimizer}
    values = maximize(DENSE, [jo.unit(0), jo.unit(2)], steps=6, **options).history["objective"]
    assert (values[-1] > values[0]).all()


@pytest.mark.slow
def test_history_holds_every_term_before_every_step():
    regularizers = (
        jr.penalty(jr.total_variation, 2.0),
        jr.penalty(jr.lp_norm, lambda step: 0.1 * step, name="size"),
        jr.penalty(jr.total_variation, 1.0, options={"beta": 1.0}),
    )
    options = OPTIONS | {"regularizers": regularizers, "start": 0.3}
    result = maximize(plain, jo.unit(2), steps=5, snapshot_every=1, **options)
    names = ["objective", "total_variation", "size", "total_variation#2", "total"]
    assert list(result.history) == names
    assert all(term.shape == (5, 1) for term in result.history.values())
    image = result.snapshots[3][0]
    expected = {
        "objective": plain(image[None])[0, 2],
        "total_variation": 2 * jr.total_variation(image),
        "size": 0.1 * 3 * jr.lp_norm(image),
        "total_variation#2": jr.total_variation(image, beta=1.0),
    }
    for name, value in expected.items():
        assert result.history[name][3, 0] == pytest.approx(float(value), rel=1e-4, abs=1e-6)
    penalties = sum(result.history[name] for name in names[1:4])
    np.testing.assert_allclose(
        result.history["total"], result.history["objective"] - penalties, rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_the_best_images_are_those_of_the_highest_total():
    start = jax.random.uniform(KEY, (1, *SHAPE), minval=0.1, maxval=0.9)
    options = OPTIONS | {"optimizer": optax.sgd(-0.5), "start": start}
    falling = maximize(plain, jo.unit(0), steps=4, **options)
    np.testing.assert_allclose(falling.best, start, atol=1e-5)
    assert (falling.history["total"][0] >= falling.history["total"]).all()


@pytest.mark.slow
def test_blur_steps_blur_when_due():
    start = jax.random.uniform(KEY, SHAPE)
    options = OPTIONS | {"optimizer": STILL, "bounds": "project", "start": start}
    options |= {"regularizers": (jr.blur_steps(every=2, sigma=0.7),)}
    result = maximize(plain, jo.unit(0), steps=3, snapshot_every=1, **options)
    blurred = slow_blur(np.asarray(start), 0.7)
    np.testing.assert_allclose(result.snapshots[1][0], start, atol=1e-5)
    np.testing.assert_allclose(result.snapshots[2][0], blurred, atol=1e-5)
    np.testing.assert_allclose(result.snapshots[3][0], blurred, atol=1e-5)


@pytest.mark.slow
def test_transforms_that_change_the_size_are_resized_to_the_image():
    shapes = []

    def seen(images):
        shapes.append(images.shape)
        return images

    transforms = (jt.pad(3), jt.crop(9, 9), jt.scale(0.9, 1.1))
    options = OPTIONS | {"transforms": transforms}
    maximize(plain, jo.unit(0), steps=1, preprocess=seen, **options)
    assert {shape[1:] for shape in shapes} == {SHAPE}


@pytest.mark.slow
def test_views_average_their_objectives():
    def noisy(key, images):
        return images + jax.random.normal(key, ())

    def f(images):
        return images.mean((1, 2))

    options = OPTIONS | {"transforms": (noisy,), "steps": 1, "bounds": "none", "start": 0.0}
    key = jax.random.fold_in(KEY, 0)
    drawn = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 0), v), 0))
        for v in range(3)
    ]
    result = maximize(f, jo.unit(0), views=3, optimizer=STILL, **options)
    expected = float(result.images[..., 0].mean()) + float(np.mean(drawn))
    assert result.history["objective"][0, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_preprocess_and_grad_modifier_are_applied():
    def brighter(images):
        return 10 * images

    options = OPTIONS | {"steps": 1, "optimizer": optax.sgd(0.01)}
    inside = maximize(lambda x: brighter(x).mean((1, 2)), jo.unit(0), **options)
    wrapped = maximize(lambda x: x.mean((1, 2)), jo.unit(0), preprocess=brighter, **options)
    np.testing.assert_allclose(inside.images, wrapped.images, atol=1e-6)
    start = jax.random.uniform(KEY, (1, *SHAPE), minval=0.1, maxval=0.9)
    options |= {"start": start, "grad_modifier": jnp.zeros_like}
    still = maximize(plain, jo.unit(0), **options)
    np.testing.assert_allclose(still.images, start, atol=1e-5)


@pytest.mark.slow
def test_an_image_with_opacity_is_laid_over_noise():
    def opacity(image):
        return image[..., -1].mean()

    options = OPTIONS | {"image_shape": (*SHAPE[:2], 4), "transforms": (jt.over_noise(),)}
    options |= {"regularizers": (jr.penalty(opacity, 3.0),)}
    middle = lambda images: images[:, 5:8, 4:7].mean((1, 2))  # noqa: E731
    result = maximize(middle, 10 * jo.unit(1), steps=8, **options)
    assert result.images.shape == (1, *SHAPE[:2], 4)
    inside = result.images[0, 5:8, 4:7, -1].mean()
    assert float(inside) > float(result.images[0, :3, :, -1].mean())


@pytest.mark.slow
@pytest.mark.parametrize("backprop", ["guided", pytest.param("rectified", marks=pytest.mark.slow)])
def test_a_changed_backpropagation_moves_the_image_elsewhere(backprop):
    options = OPTIONS | {"steps": 3}
    images = [
        maximize(DENSE, jo.unit(0), backprop=b, **options).images for b in ("plain", backprop)
    ]
    assert float(jnp.abs(images[0] - images[1]).max()) > 1e-3


def dead(images):
    return tag("relu", jax.nn.relu(images - 2.0)).mean((1, 2))


def dead_for_ever(images):
    return jax.nn.relu(images - 9.0).mean((1, 2))


def half_dead(images):
    return jnp.stack([dead(images)[:, 0], images.mean((1, 2, 3))], -1)


@pytest.mark.slow
def test_a_dead_start_is_woken_and_only_the_dead_one():
    options = OPTIONS | {"steps": 30, "value_range": (0.0, 4.0), "start": 1.0}
    options |= {"optimizer": optax.adam(0.3)}
    result = maximize(half_dead, [jo.unit(0), jo.unit(1)], **options)
    values = result.history["objective"]
    assert values[0, 0] == 0 and values[-1, 0] > 0.1
    alone = maximize(half_dead, jo.unit(1), redirect_steps=0, **options)
    np.testing.assert_allclose(result.images[1], alone.images[0], atol=1e-5)


def test_from_black_one_program_takes_all_steps_and_as_two_would(monkeypatch):
    options = OPTIONS | {"steps": 20, "value_range": (0.0, 4.0), "start": 0.0}
    options |= {"optimizer": optax.adam(0.3), "redirect_steps": 12, "bounds": "project"}
    made, compiled = [], loop.compiled

    def f(images):
        faint = tag("relu", jax.nn.relu(images - 0.5)).mean((1, 2))
        return jnp.stack([faint[:, 0], images.mean((1, 2, 3))], -1)

    monkeypatch.setattr(loop, "compiled", lambda *a, **k: made.append(k) or compiled(*a, **k))

    def run():
        made.clear()
        result = maximize(f, [jo.unit(0), jo.unit(1)], **options)
        return result, sum("donated" in options for options in made)

    one, programs = run()
    assert programs == 1 and one.history["objective"][-1, 0] > 0
    monkeypatch.setattr(loop, "_may_be_dead", lambda data, schedule: False)
    two, programs = run()
    assert programs == 2
    np.testing.assert_allclose(one.images, two.images, atol=1e-5)


@pytest.mark.slow
def test_without_redirection_a_dead_start_stays_dead_and_says_so():
    options = OPTIONS | {"value_range": (0.0, 4.0), "start": 1.0}
    message = "its gradient was zero at every pixel in all 20 steps.*`jaxviz.logits"
    with pytest.raises(ValueError, match=message):
        maximize(dead, jo.unit(0), steps=20, redirect_steps=0, **options)


@pytest.mark.slow
def test_so_many_steps_are_redirected_from_the_first_on():
    start = jnp.full(SHAPE, 0.5)
    options = OPTIONS | {"steps": 3, "optimizer": optax.sgd(1.0), "snapshot_every": 1}
    options |= {"value_range": (0.0, 4.0), "start": start, "bounds": "project"}

    def moved(redirect_steps):  # by an ascent that stays dead: the objective reads x − 9 > 0
        result = maximize(dead_for_ever, jo.unit(0), redirect_steps=redirect_steps, **options)
        images = [start, *(image[0] for image in result.snapshots.values())]
        return [bool((a != b).any()) for a, b in zip(images[:-1], images[1:], strict=True)]

    assert [moved(n) for n in range(4)] == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def tent(images):
    """Three scores that stop to rise at images of mean 0.6, 0.7 and 0.8."""
    return -jnp.abs(images.mean((1, 2)) - jnp.asarray([[0.6, 0.7, 0.8]]))


@pytest.mark.slow
def test_a_plateau_stops_each_image_for_itself_whatever_the_batch_and_the_loop():
    options = OPTIONS | {"optimizer": optax.sgd(0.05 * np.prod(SHAPE[:2])), "start": 0.5}
    options |= {"steps": 64, "patience": 6, "min_improvement": 0.01, "bounds": "none"}
    objectives = [jo.unit(n) for n in range(3)]
    host = maximize(tent, objectives, loop="host", snapshot_every=13, **options)
    taken = np.isfinite(host.history["total"]).sum(0)
    assert host.stopped == "no total grew by 0.01 of its size for 6 steps"
    assert taken[0] < taken[1] < taken[2] == len(host.history["total"]) < 20
    best = [int(np.nanargmax(total.round(4))) for total in host.history["total"].T]
    np.testing.assert_array_equal(taken, np.asarray(best) + 7)
    assert np.isnan(host.history["objective"][taken[0] :, 0]).all()
    assert list(host.snapshots) == [13]
    scan = maximize(tent, objectives, loop="scan", redirect_steps=0, **options)
    assert_one_loop_equals_the_other(host, scan)
    for number, objective in enumerate(objectives):
        alone = maximize(tent, objective, loop="host", **options)
        np.testing.assert_allclose(alone.images[0], host.images[number], atol=1e-6)
        total = host.history["total"][: taken[number], number]
        np.testing.assert_allclose(alone.history["total"][:, 0], total, atol=1e-6)


@pytest.mark.slow
def test_without_patience_or_while_it_rises_a_run_goes_on():
    options = OPTIONS | {"steps": 30, "patience": 5}
    rising = maximize(plain, jo.unit(0), **options)
    assert rising.stopped is None and len(rising.history["total"]) == 30


@pytest.mark.slow
def test_a_callback_stops_the_batches_to_come_too():
    calls = []

    def callback(step, images, terms):
        calls.append(step)
        return len(calls) == 4

    options = OPTIONS | {"steps": 3, "batch_size": 1, "snapshot_every": 1, "callback": callback}
    result = maximize(plain, [jo.unit(0), jo.unit(1), jo.unit(2)], **options)
    assert calls == [1, 2, 3, 1] and result.stopped == "the callback asked for it after step 1"
    assert result.images.shape == (3, *SHAPE) and result.transparency.shape == (3, *SHAPE[:2])
    taken = [[True, True, False], [True, False, False], [True, False, False]]
    np.testing.assert_array_equal(np.isfinite(result.history["total"]), taken)
    for number, found in enumerate((result.images, result.best, result.transparency)):
        finite = np.isfinite(np.asarray(found)).reshape(3, -1)
        assert finite.all(1).tolist() == finite.any(1).tolist() == [True, True, False], number
    assert list(result.snapshots) == [1, 2, 3]
    assert bool(jnp.isnan(result.snapshots[2][1]).all())


@pytest.mark.slow
def test_a_callback_sees_arrays_and_can_stop():
    seen = []

    def callback(step, images, terms):
        seen.append((step, images.shape, sorted(terms), terms["total"].shape))
        return step == 3

    objectives = [jo.unit(0), jo.unit(1), jo.unit(4)]
    result = maximize(DENSE, objectives, steps=9, callback=callback, **OPTIONS)
    assert [step for step, *_ in seen] == [1, 2, 3]
    assert seen[0][1:] == ((3, *SHAPE), ["objective", "total"], (3,))
    assert result.stopped == "the callback asked for it after step 3"
    assert len(result.history["total"]) == 3


def exploding(images):
    score = images.mean((1, 2))
    return jnp.where(score > 0.6, jnp.nan, score)


DOWN, UP = -1.0 * jo.unit(0), 1.0 * jo.unit(0)  # of one structure: one program for any of them


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["host", pytest.param("scan", marks=pytest.mark.slow)])
def test_a_nan_names_step_and_term_and_keeps_the_best_images(loop):
    options = OPTIONS | {"steps": 60, "loop": loop, "redirect_steps": 0}
    with pytest.raises(
        NotFiniteError, match=r"`objective` of image 1 at step \d+; lower"
    ) as raised:
        maximize(exploding, [DOWN, UP], **options)
    result = raised.value.result
    assert result.images.shape == (2, *SHAPE) and np.isfinite(np.asarray(result.images)).all()
    step = int(str(raised.value).split("step ")[1].split(";")[0])
    history = result.history["objective"]
    assert np.isnan(history[step, 1]) and np.isfinite(history[:step]).all()
    best = float(result.images[1, ..., 0].mean())
    assert best == pytest.approx(float(np.nanmax(history[:, 1])), abs=1e-5)


@pytest.mark.slow
def test_a_nan_in_a_later_batch_keeps_the_earlier_ones():
    options = OPTIONS | {"steps": 60, "batch_size": 2}
    with pytest.raises(NotFiniteError, match="of image 3 at step") as raised:
        maximize(exploding, [DOWN, DOWN, DOWN, UP, DOWN], **options)
    assert raised.value.result.images.shape == (4, *SHAPE)


@pytest.mark.slow
def test_a_penalty_that_fails_is_named():
    def broken(image):
        return jnp.log(-image.sum())

    options = OPTIONS | {"regularizers": (jr.penalty(broken, 1.0),), "steps": 3}
    with pytest.raises(NotFiniteError, match="`broken` of image 0 at step 0"):
        maximize(plain, jo.unit(0), **options)


@pytest.mark.slow
def test_an_image_that_fails_after_the_last_step_is_named():
    def modifier(gradient):
        return gradient * jnp.nan

    with pytest.raises(NotFiniteError, match="the image after the last step, 1"):
        maximize(plain, jo.unit(0), steps=1, grad_modifier=modifier, **OPTIONS)


@pytest.mark.slow
def test_zero_images_and_flat_patches_are_safe():
    regularizers = (
        jr.penalty(jr.total_variation, 1.0, options={"beta": 1.0}),
        jr.penalty(jr.lp_norm, 1.0),
    )
    options = OPTIONS | {"regularizers": regularizers, "bounds": "project"}
    result = maximize(plain, jo.unit(0), steps=3, start=jnp.zeros(SHAPE), **options)
    assert np.isfinite(np.asarray(result.images)).all()


@pytest.mark.slow
def test_bfloat16_networks_rise():
    def cast(leaf):
        return leaf.astype(jnp.bfloat16)

    options = OPTIONS | {"dtype": jnp.bfloat16}
    result = maximize(jax.tree.map(cast, DENSE), [jo.unit(0), jo.unit(2)], steps=8, **options)
    values = result.history["objective"]
    assert result.images.dtype == jnp.float32 and (values[-1] > values[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("grad_modifier", [None, jnp.ones_like], ids=["plain", "constant"])
def test_transparency_shows_where_the_objective_looked(grad_modifier):
    def left(images):
        return images[:, :, :2].mean((1, 2))

    # The default recipe: penalties on every pixel, views shifted by one pixel at most.
    options = {"image_shape": (6, 6, 1), "key": KEY, "steps": 12, "grad_modifier": grad_modifier}
    seen = np.asarray(maximize(left, jo.unit(0), **options).transparency[0])
    assert seen.max() == 1 and (seen[:, :2] > 0).all() and seen[:, 3:].max() == 0


@pytest.mark.slow
def test_what_costs_nothing_and_is_not_read_stays():
    def left(images):
        return images[:, :, :2].mean((1, 2))

    terms = (
        jr.penalty(jr.ink, 1.0, options={"ground": 0.5}),
        jr.penalty(jr.lp_norm, 1.0, options={"p": 1.0}),
    )
    options = {"image_shape": (6, 6, 1), "key": KEY, "steps": 1, "transforms": ()}
    options |= {"value_range": (-1.0, 1.0), "start": jnp.full((6, 6, 1), 0.5)}
    pushed = maximize(left, jo.unit(0), regularizers=terms[0], **options).images[0, ..., 0]
    assert (pushed[:, 2:] == 0.5).all() and (pushed[:, :2] != 0.5).all()
    options |= {"start": jnp.zeros((6, 6, 1))}
    pushed = maximize(left, jo.unit(0), regularizers=terms[1], **options).images[0, ..., 0]
    assert (pushed[:, 2:] == 0).all() and (pushed[:, :2] != 0).all()


@pytest.mark.slow
def test_an_objective_that_does_not_rise_is_told():
    def weak(images):
        return 0.01 * images.mean((1, 2))

    options = {"image_shape": (6, 6, 1), "key": KEY, "steps": 20, "start": 0.4, "transforms": ()}
    message = r"`objective` did not rise for image 0 \(1 of 2\): where .* `jaxviz.logits\(model\)`"
    with pytest.warns(UserWarning, match=message):
        result = maximize(weak, [jo.unit(0), 1e5 * jo.unit(0)], **options)
    assert float(result.images[0].max()) < 0.1 < 0.9 < float(result.images[1].min())


@pytest.mark.slow
@pytest.mark.parametrize("scale, offset", [(1.0, -40.0), (60.0, -10.0)], ids=["at 0", "at 1"])
def test_probabilities_that_saturate_are_told_with_the_scores_before_them_named(scale, offset):
    def logit(images):
        return scale * images.mean((1, 2)) + offset

    options = {"image_shape": (6, 6, 1), "key": KEY, "steps": 40, "start": 0.2, "transforms": ()}
    options |= {"regularizers": ()}
    message = r"reads probabilities that are saturated for image 0 \(1 of 2\): .*`jaxviz.logits"
    with pytest.warns(UserWarning, match=message):
        maximize(
            lambda x: jnp.concatenate([jax.nn.sigmoid(logit(x)), logit(x)], -1),
            [jo.unit(0), jo.unit(1)],
            **options,
        )
    assert maximize(logit, jo.unit(0), **options).images.mean() > 0.3


@pytest.mark.slow  # what draws is tested where it is: parametrisations and transforms
def test_a_key_gives_the_same_images_with_and_without_x64():
    options = OPTIONS | JITTER | {"parametrization": jp.pyramid(levels=2), "steps": 2}
    narrow = maximize(plain, jo.unit(1), **options)
    with jax.enable_x64(True):
        wide = maximize(plain, jo.unit(1), **options)
    assert wide.images.dtype == jnp.float32
    np.testing.assert_allclose(wide.images, narrow.images, atol=1e-5)


@pytest.mark.slow
def test_functions_given_anew_compile_nothing_and_are_not_kept():
    def run(scale):
        preprocess, modifier = lambda x: scale * x, lambda g: 2.0 * g
        options = OPTIONS | {"preprocess": preprocess, "grad_modifier": modifier, "steps": 1}
        maximize(lambda x: plain(x), jo.unit(1), **options)
        return weakref.ref(preprocess), weakref.ref(modifier)

    run(2.0)
    before = len(PROGRAMS)
    known = run(2.0)
    assert len(PROGRAMS) == before
    run(3.0)
    assert len(PROGRAMS) == before + 1  # its step; the images' program knows no preprocess
    gc.collect()
    assert [one() for one in known] == [None, None]


@pytest.mark.slow
def test_a_second_call_compiles_nothing():
    options = OPTIONS | {"steps": 3, "regularizers": None}
    maximize(DENSE, [jo.unit(0), jo.unit(1)], **options)
    before = len(PROGRAMS)
    other = dense_network(seed=1)
    maximize(other, [jo.unit(3), jo.unit(2)], **(options | {"key": jax.random.key(4)}))
    assert len(PROGRAMS) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": None}, "`image_shape` must be three positive integers"),
        ({"image_shape": (12, None, 3)}, r"got \(12, None, 3\); give it"),
        (
            {"value_range": (1.0, 0.0)},
            r"`value_range` must be \(lowest, highest\).* got \(1.0, 0.0\)",
        ),
        ({"value_range": (0.0, np.inf)}, "`value_range` must be"),
        ({"steps": 0}, "`steps` must be a whole number from 1: got 0"),
        ({"views": 0}, "`views` must be a whole number from 1"),
        ({"seeds": 0}, "`seeds` must be a whole number from 1"),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1"),
        ({"snapshot_every": 0}, "`snapshot_every` must be a whole number from 1"),
        ({"patience": 0}, "`patience` must be a whole number from 1"),
        ({"bounds": "clip"}, "`bounds` must be one of auto, sigmoid, project, none: got 'clip'"),
        ({"loop": "while"}, "`loop` must be one of auto, host, scan: got 'while'"),
        ({"backprop": "deconv"}, "`backprop` must be one of plain"),
        ({"start": np.zeros((3, 3, 3))}, "`start` must have shape"),
        (
            {"start": np.zeros((2, *SHAPE)), "seeds": 3},
            "`seeds` must be one a start image, 2: got 3",
        ),
        ({"start": np.full(SHAPE, np.nan)}, "`start` must be finite"),
        (
            {"start": np.full(SHAPE, 127.0)},
            "`start` must lie inside `value_range`, 0 to 1: got 127",
        ),
        (
            {"start": -0.1, "value_range": (0, 255)},
            "`start` must lie inside `value_range`, 0 to 255",
        ),
        ({"optimizer": optax.lbfgs()}, "`optimizer` must need nothing but the gradient"),
        (
            {"start": np.zeros(SHAPE), "parametrization": jp.maco()},
            "`parametrization` must have `encode`",
        ),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        maximize(F, jo.unit(0), **(OPTIONS | changes))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (jo.channel("covn", 1), "got 'covn'; did you mean 'conv'"),
        (jo.unit(5), "`index` must be in 0…4 for the scores: got 5"),
        ([jo.unit(0), jo.channel("pool", 6)], "`index` must be in 0…5 for layer 'pool': got 6"),
        ([], "`objective` must be one at least: got none"),
        (
            jo.objective(lambda acts: jnp.ones(acts["conv"].shape[0]), ["conv"]),
            "`objective` must depend on the image: objective 0 does not",
        ),
    ],
)
def test_objectives_that_cannot_be_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        maximize(F, objective, **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regularizers": (jr.total_variation,)}, "`regularizers` must be made by .* total_variat"),
        ({"regularizers": jr.ink}, "`regularizers` must be made by `jaxviz.regularize`.* ink"),
        ({"regularizers": [jr.blur_steps(), 0.1]}, "`regularizers` must be made by .*: got 0.1"),
        ({"transforms": (3,)}, "`transforms` must be functions .*: got 3"),
        ({"parametrization": jp.fourier}, "`parametrization` must be made by .*: got fourier"),
        ({"optimizer": optax.adam}, "`optimizer` must be an optax transformation.*: got adam"),
        ({"optimizer": 0.05}, "`optimizer` must be an optax transformation.*: got 0.05"),
        ({"preprocess": 255.0}, "`preprocess` must be a function or None: got 255.0"),
        ({"grad_modifier": "relu"}, "`grad_modifier` must be a function or None: got 'relu'"),
        ({"callback": True}, "`callback` must be a function or None: got True"),
    ],
)
def test_what_is_no_such_option_is_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        maximize(F, jo.unit(0), **(OPTIONS | changes))


@pytest.mark.parametrize("objective", [3, "unit", None, [jo.unit(0), 3]])
def test_what_is_no_objective_is_refused(objective):
    with pytest.raises(TypeError, match="`objective` must be made by `jaxviz.objectives`"):
        maximize(F, objective, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [0, None, jax.random.split(jax.random.key(0)), jax.random.split(jax.random.PRNGKey(0)), "key"],
)
def test_what_is_no_key_is_refused(key):
    with pytest.raises(TypeError, match=r"`key` must be a random key, such as `jax.random.key\(0"):
        maximize(F, jo.unit(0), **(OPTIONS | {"key": key}))


@pytest.mark.slow
def test_a_scorer_that_ignores_the_image_is_refused():
    with pytest.raises(ValueError, match="`objective` must depend on the image"):
        maximize(lambda images: jnp.ones((images.shape[0], 3)), jo.unit(0), **OPTIONS)


@pytest.mark.slow
def test_default_images_of_the_ten_digits_are_read_by_other_networks(data_folder):
    model = load_keras(files("jaxviz.models") / "mnist_cnn.keras")
    digits = [jo.unit(digit) for digit in range(10)]
    result = maximize(logits(model), digits, key=KEY, steps=256)
    own = np.diagonal(model(result.images))
    assert own.min() >= 0.99
    others = data_folder / "keras"
    lenet = others / "DeepImportance__deepimportance_code_release"
    for path in (
        others / "Moonflower2022__MNIST-models" / "mnist_model.keras",
        (lenet / "LeNet5.json", lenet / "LeNet5.h5"),
    ):
        other = load_keras(path)
        images = result.images.reshape(10, *other.input_shape)
        assert np.diagonal(other(images)).mean() >= 0.5
