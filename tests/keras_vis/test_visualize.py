"""keras-vis, number for number: against NumPy restatements with derivatives worked out by hand."""

import re
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import ndimage

from jaxviz import keras_vis as kv
from jaxviz.keras import load_keras, logits
from jaxviz.keras_vis import modifiers as parts
from jaxviz.layers import tag

SHAPE = (5, 4, 2)


def linear_net(weights, images):
    flat = images.reshape(images.shape[0], -1)
    return tag("scores", flat @ weights)


def tanh_net(first, second, images):
    flat = images.reshape(images.shape[0], -1)
    return jnp.tanh(flat @ first / 100) @ second


@pytest.fixture
def weights(rng):
    return rng.normal(size=(np.prod(SHAPE), 3)).astype(np.float32)


@pytest.fixture
def seed(rng):
    return rng.uniform(0, 255, SHAPE)


def slow_penalty_gradient(x, lp_weight, tv_weight):
    """Loss and gradient of LP (p = 6) and TV (β = 2) of one image (H, W, C), by the formulas."""
    size, p = x.size, 6
    power = (np.abs(x) ** p).sum()
    loss = lp_weight * power ** (1 / p) / size
    gradient = lp_weight * power ** (1 / p - 1) * np.abs(x) ** (p - 1) * np.sign(x) / size
    down, right = x[1:, :-1] - x[:-1, :-1], x[:-1, 1:] - x[:-1, :-1]
    loss += tv_weight * (down**2 + right**2).sum() / size
    gradient[1:, :-1] += tv_weight * 2 * down / size
    gradient[:-1, 1:] += tv_weight * 2 * right / size
    gradient[:-1, :-1] -= tv_weight * 2 * (down + right) / size
    return loss, gradient


def slow_visualize_activation(activation, seed, steps, input_range, weights=(1, 10, 10)):
    """keras-vis's loop in float64; `activation` gives A and its derivative."""
    x, cache, best, best_x = np.asarray(seed, np.float64), 0.0, np.inf, None
    for _ in range(steps):
        value, slope = activation(x)
        loss, gradient = slow_penalty_gradient(x, weights[1], weights[2])
        loss, gradient = loss + weights[0] * value, gradient + weights[0] * slope
        gradient = gradient / np.sqrt(max((gradient**2).sum(), 1e-12))
        cache = 0.95 * cache + 0.05 * gradient**2
        x = x - gradient / np.sqrt(cache + 1e-7)
        if loss < best:
            best, best_x = loss, x
    low, high = input_range
    a = best_x - best_x.mean()
    a = np.clip(0.1 * a / (a.std() + 1e-7) + 0.5, 0, 1)
    return (high - low) * a + low


def linear_activation(weights, filters):
    slope = -weights[:, filters].sum(1).astype(np.float64)
    return lambda x: (float(slope @ x.ravel()), slope.reshape(x.shape))


def tanh_activation(first, second, index):
    first, second = first.astype(np.float64), second.astype(np.float64)

    def activation(x):
        hidden = np.tanh(x.ravel() @ first / 100)
        slope = -first @ ((1 - hidden**2) * second[:, index]) / 100
        return -float(hidden @ second[:, index]), slope.reshape(x.shape)

    return activation


# Where steps change the sign of a gradient, rounding grows; before that, all digits agree.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "steps", "within"), [(1, 20, 1e-11), ([0, 2], 20, 1e-11), ([0, 2], 200, 0.1)]
)
def test_activation_of_a_linear_net_equals_the_oracle(weights, seed, filters, steps, within):
    oracle = linear_activation(weights, np.atleast_1d(filters))
    expected = slow_visualize_activation(oracle, seed, steps, (0.0, 255.0))
    options = {"seed_input": seed, "input_range": (0.0, 255.0), "max_iter": steps}
    with jax.enable_x64(True):
        f = Partial(linear_net, jnp.asarray(weights, jnp.float64))
        found = kv.visualize_activation(f, "scores", filters, **options)
    np.testing.assert_allclose(found, expected, atol=within)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "within"), [(20, 1e-11), (200, 0.1)])
def test_activation_of_a_tanh_net_equals_the_oracle(rng, weights, seed, steps, within):
    second = rng.normal(size=(3, 4)).astype(np.float32)
    oracle = tanh_activation(weights, second, 3)
    expected = slow_visualize_activation(oracle, seed, steps, (0.0, 255.0))
    options = {"seed_input": seed, "input_range": (0.0, 255.0), "max_iter": steps}
    with jax.enable_x64(True):
        arrays = jnp.asarray(weights, jnp.float64), jnp.asarray(second, jnp.float64)
        found = kv.visualize_activation(Partial(tanh_net, *arrays), None, 3, **options)
    np.testing.assert_allclose(found, expected, atol=within)


@pytest.mark.slow
def test_float32_drifts_by_less_than_one_grey_level_in_twenty_steps(rng, weights, seed):
    second = rng.normal(size=(3, 4)).astype(np.float32)
    oracle = tanh_activation(weights, second, 3)
    expected = slow_visualize_activation(oracle, seed, 20, (0.0, 255.0))
    f = Partial(tanh_net, jnp.asarray(weights), jnp.asarray(second))
    options = {"seed_input": seed, "input_range": (0.0, 255.0), "max_iter": 20}
    np.testing.assert_allclose(kv.visualize_activation(f, None, 3, **options), expected, atol=0.1)


def test_weights_of_zero_leave_their_terms_out(weights, seed):
    f, seen = Partial(linear_net, jnp.asarray(weights)), []
    found = kv.visualize_activation(
        f,
        None,
        0,
        seed_input=seed,
        input_range=(0.0, 1.0),
        lp_norm_weight=0,
        tv_weight=2.5,
        max_iter=30,
        callbacks=[lambda *args: seen.append(args)],
    )
    oracle = linear_activation(weights, [0])
    expected = slow_visualize_activation(oracle, seed, 30, (0.0, 1.0), (1, 0, 2.5))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert list(seen[0][1]) == ["activation", "total_variation"]


def test_the_whole_layer_is_its_mean(weights, seed):
    f, seen = Partial(linear_net, jnp.asarray(weights)), []
    kv.visualize_activation(
        f, None, None, seed_input=seed, max_iter=1, callbacks=[lambda *args: seen.append(args)]
    )
    expected = -(seed.ravel() @ weights).mean()
    assert seen[0][1]["activation"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_without_a_seed_it_starts_from_standardised_noise(weights):
    f, seen = Partial(linear_net, jnp.asarray(weights)), []
    kv.visualize_activation(
        f,
        None,
        0,
        image_shape=SHAPE,
        input_range=(0, 100),
        max_iter=1,
        callbacks=[lambda *args: seen.append(args)],
    )
    noise = seen[0][4]
    assert noise.mean() == pytest.approx(50, abs=1e-3)
    assert noise.std() == pytest.approx(5, rel=1e-4)


def test_integer_bounds_give_uint8_truncated(weights, seed):
    f = Partial(linear_net, jnp.asarray(weights))
    real = kv.visualize_activation(f, None, 1, seed_input=seed, input_range=(0.0, 255), max_iter=5)
    whole = kv.visualize_activation(f, None, 1, seed_input=seed, max_iter=5)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, real.astype(np.uint8))


def test_the_best_image_is_the_one_after_the_step_from_the_smallest_loss(seed):
    target = jnp.asarray(seed, jnp.float32) + 0.01
    losses = []

    def f(images):
        return -jnp.square(images - target[None]).mean((1, 2))

    options = {"seed_input": seed, "input_range": (0.0, 255.0), "lp_norm_weight": 0}
    options |= {"tv_weight": 0, "callbacks": [lambda *args: losses.append(args[2])]}
    found = kv.visualize_activation(f, None, 0, max_iter=6, **options)
    assert losses[0] < min(losses[1:])
    first = kv.visualize_activation(f, None, 0, max_iter=1, **options)
    np.testing.assert_array_equal(found, first)


def test_the_table_names_calls_that_exist():
    rows = [line.split("|")[1:3] for line in kv.__doc__.splitlines() if line.startswith("| `")]
    assert len(rows) == 11
    ours = {name for _, cell in rows for name in re.findall(r"`(\w+)\(", cell)}
    assert {"logits", "Roll", "find_layer", "stitch", "overlay"} <= ours
    theirs = {name for cell, _ in rows[:3] for name in re.findall(r"`(\w+)\(", cell)}
    assert theirs == {"visualize_activation", "visualize_saliency", "visualize_cam"}
    for name in theirs | ours - {"f"}:
        assert name in kv.__all__ and callable(getattr(kv, name)), name


def test_modifiers_run_before_and_in_reverse_after(weights, seed):
    f, order = Partial(linear_net, jnp.asarray(weights)), []

    class Noting:
        def __init__(self, name):
            self.name = name

        def pre(self, image):
            order.append(f"pre {self.name}")
            return image

        def post(self, image):
            order.append(f"post {self.name}")
            return image

    modifiers = [Noting("a"), Noting("b")]
    kv.visualize_activation(f, None, 0, seed_input=seed, max_iter=1, input_modifiers=modifiers)
    assert order == ["pre a", "pre b", "post b", "post a"]


def test_grad_modifier_acts_on_the_unit_gradient(weights, seed):
    f, seen = Partial(linear_net, jnp.asarray(weights)), []
    options = {"seed_input": seed, "max_iter": 1, "callbacks": [lambda *a: seen.append(a[3])]}
    kv.visualize_activation(f, None, 0, **options)
    kv.visualize_activation(f, None, 0, grad_modifier="negate", **options)
    assert np.square(seen[0]).sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(seen[1], -seen[0])


def test_jitter_is_scipys_shift(rng):
    image = rng.normal(size=(1, 7, 6, 2)).astype(np.float32)
    for down, right in [(0, 0), (2, -3), (-7, 6), (1, 1), (-4, 5)]:
        expected = ndimage.shift(image, (0, down, right, 0), mode="wrap", order=0)
        np.testing.assert_array_equal(parts.Jitter.shifted(image, down, right), expected)
        rolled = np.roll(image, (down, right), (1, 2))
        np.testing.assert_array_equal(parts.Roll.shifted(image, down, right), rolled)


def test_jitter_draws_within_its_share_and_repeats():
    image = np.arange(400.0).reshape(1, 20, 20, 1)
    first, again = parts.Roll(0.1), parts.Roll(0.1)
    for _ in range(10):
        moved = np.asarray(first.pre(image))
        np.testing.assert_array_equal(moved, again.pre(image))
        row, col = np.argwhere(moved[0, :, :, 0] == 0)[0]
        assert min(row, 20 - row) <= 2 and min(col, 20 - col) <= 2


def relu_net(weights, images):
    hidden = tag("hidden", jax.nn.relu(images))
    return tag("out", (hidden * weights).sum((1, 2)))


@pytest.fixture
def relu_case(rng):
    weights = rng.normal(size=SHAPE).astype(np.float32)
    image = rng.normal(size=SHAPE).astype(np.float32)
    return Partial(relu_net, jnp.asarray(weights)[None]), weights, image


def test_saliency_is_the_largest_absolute_gradient(relu_case):
    f, weights, image = relu_case
    gradient = np.where(image > 0, weights, 0)
    gradient[..., 0] = 0
    expected = parts.normalize(np.abs(gradient).max(-1))
    np.testing.assert_allclose(kv.visualize_saliency(f, None, 1, image), expected, atol=1e-6)
    kept = kv.visualize_saliency(f, None, 1, image, keepdims=True)
    np.testing.assert_allclose(kept, parts.normalize(np.abs(gradient)), atol=1e-6)


@pytest.mark.parametrize("modifier", ["guided", "rectified"])
def test_saliency_through_modified_relu(relu_case, modifier):
    f, weights, image = relu_case
    passes = (weights > 0) & ((image > 0) | (modifier == "rectified"))
    gradient = np.where(passes, weights, 0)
    gradient[..., 0] = 0
    found = kv.visualize_saliency(f, None, 1, image, backprop_modifier=modifier)
    np.testing.assert_allclose(found, parts.normalize(gradient.max(-1)), atol=1e-6)


def test_saliency_by_a_layer(relu_case):
    f, weights, image = relu_case
    found = kv.visualize_saliency(f, "out", 1, image, wrt="hidden", grad_modifier=None)
    gradient = np.stack([np.zeros(SHAPE[:2]), weights[..., 1]], -1)
    np.testing.assert_allclose(found, parts.normalize(gradient.max(-1)), atol=1e-6)


def test_activation_by_a_layer_leaves_the_image_alone(relu_case):
    f, weights, image = relu_case
    seen = []
    kv.visualize_activation(
        f,
        "out",
        1,
        seed_input=image,
        wrt="hidden",
        max_iter=2,
        callbacks=[lambda *args: seen.append(args)],
    )
    np.testing.assert_allclose(seen[1][4][0], np.maximum(image, 0))
    gradient = np.stack([np.zeros(SHAPE[:2]), -weights[..., 1]], -1)
    gradient = gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(seen[1][3][0], gradient, rtol=1e-5, atol=1e-6)


def coarse_net(weights, images):
    coarse = tag("coarse", images.reshape(1, 2, 4, 2, 4, 2).mean((2, 4)))
    return (jnp.tanh(coarse) * weights).sum((1, 2))


def slow_cam(image, weights):
    """keras-vis's Grad-CAM of `coarse_net`'s first score, which is the first channel."""
    coarse = image.reshape(2, 4, 2, 4, 2).mean((1, 3))
    gradient = (1 - np.tanh(coarse) ** 2) * weights[0] * np.asarray([1.0, 0.0])
    share = (gradient / (gradient.max() + 1e-7)).mean((0, 1))
    return parts.normalize(ndimage.zoom(np.maximum((coarse * share).sum(-1), 0), (4.0, 4.0)))


def test_cam_equals_the_oracle(rng):
    weights = rng.normal(size=(1, 2, 2, 2)).astype(np.float32)
    image = rng.normal(size=(8, 8, 2)).astype(np.float32)
    found = kv.visualize_cam(Partial(coarse_net, jnp.asarray(weights)), None, 0, image)
    np.testing.assert_allclose(found, slow_cam(image, weights), atol=1e-4)


def test_cam_shows_no_light_where_all_evidence_is_against():
    def f(images):
        coarse = tag("coarse", images.reshape(1, 2, 4, 2, 4, 1).mean((2, 4)))
        return -(coarse * jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1)).sum((1, 2))

    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    # keras-vis divides the gradients −1 … −4 by the largest, −1: relu(Σ w·A) lights up.
    assert (kv.visualize_cam(f, None, 0, image) == 0).all()
    assert kv.visualize_cam(lambda images: -f(images), None, 0, image).max() > 0.99


def test_the_output_is_the_layer_none_or_minus_one(relu_case):
    f, weights, image = relu_case
    named = kv.visualize_saliency(f, None, 1, image)
    np.testing.assert_array_equal(kv.visualize_saliency(f, -1, 1, image), named)
    # A function without any layer has an output, too.
    plain = lambda images: (images * weights[None]).sum((1, 2))  # noqa: E731
    expected = parts.normalize(np.abs(weights * np.asarray([0.0, 1.0])).max(-1))
    np.testing.assert_allclose(kv.visualize_saliency(plain, -1, 1, image), expected, atol=1e-6)
    cam = kv.visualize_cam(f, -1, 1, image)
    np.testing.assert_array_equal(cam, kv.visualize_cam(f, None, 1, image))


def test_calls_are_taken_as_keras_vis_takes_them(relu_case):
    f, _, image = relu_case
    named = {"layer_idx": -1, "filter_indices": 1}
    found = kv.visualize_saliency(f, -1, 1, image, None, "guided", None, True)
    options = {"backprop_modifier": "guided", "grad_modifier": None, "keepdims": True}
    ours = kv.visualize_saliency(f, None, 1, image, **options)
    theirs = kv.visualize_saliency(f, seed_input=image, wrt_tensor=None, **named, **options)
    np.testing.assert_array_equal(found, ours)
    np.testing.assert_array_equal(theirs, ours)
    cam = kv.visualize_cam(f, None, 1, image, penultimate="hidden")
    for other in (
        kv.visualize_cam(f, -1, 1, image, "hidden"),
        kv.visualize_cam(f, seed_input=image, penultimate_layer_idx=0, **named),
    ):
        np.testing.assert_array_equal(other, cam)
    ours = kv.visualize_activation(f, None, 1, seed_input=image, tv_weight=0, max_iter=1)
    theirs = kv.visualize_activation(
        *(f, -1, 1, None, image, (0, 255), None, None, 1, 10, 0),
        max_iter=1,
        input_modifiers=None,
        callbacks=None,
    )
    np.testing.assert_array_equal(theirs, ours)
    with pytest.raises(TypeError, match="`layer` must be given once: got a second value, 3"):
        kv.visualize_saliency(f, None, 1, image, layer_idx=3)
    with pytest.raises(TypeError, match="`visualize_cam` takes 7 positional arguments, model, la"):
        kv.visualize_cam(f, -1, 1, image, "hidden", None, None, 8)


def test_verbose_prints_the_losses_of_every_step(weights, seed, capsys):
    f = Partial(linear_net, jnp.asarray(weights))
    options = {"seed_input": seed, "max_iter": 2, "lp_norm_weight": 0, "tv_weight": 0}
    kv.visualize_activation(f, None, 0, **options)
    assert capsys.readouterr().out == ""
    kv.visualize_activation(f, None, 0, verbose=True, **options)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and re.match(r"step 1: loss \S+ \(activation \S+\)$", lines[0])


def test_a_second_call_compiles_nothing(relu_case, compilations):
    f, weights, image = relu_case
    again = Partial(relu_net, 2 * jnp.asarray(weights)[None])
    kv.visualize_saliency(f, -1, 1, image)
    compilations.start()
    kv.visualize_saliency(again, -1, 1, image + 1)
    kv.visualize_saliency(Partial(lambda w, x: relu_net(w, x), again.args[0]), -1, 1, image)
    assert compilations.count == 0


@pytest.mark.slow
def test_the_seed_is_the_same_with_and_without_x64():
    f = lambda images: images.mean((1, 2))  # noqa: E731
    options = {"image_shape": (4, 4, 1), "max_iter": 1, "lp_norm_weight": 0, "tv_weight": 0}
    options |= {"input_range": (0.0, 255.0)}
    narrow = kv.visualize_activation(f, None, 0, **options)
    with jax.enable_x64(True):
        wide = kv.visualize_activation(f, None, 0, **options)
    assert narrow.dtype == wide.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, atol=1e-3)


@pytest.mark.slow
def test_a_keras_model_loses_its_softmax_and_finds_its_last_pool():
    model = load_keras(files("jaxviz.models") / "mnist_cnn.keras")
    seed = np.random.default_rng(0).uniform(size=(28, 28, 1))
    seen = []
    found = kv.visualize_activation(
        model,
        "preds",
        3,
        seed_input=seed,
        max_iter=2,
        callbacks=[lambda *args: seen.append(args)],
    )
    assert found.shape == (28, 28, 1) and found.dtype == np.uint8
    expected = logits(model)(seed[None].astype(np.float32))[0, 3]
    assert seen[0][1]["activation"] == pytest.approx(-float(expected), rel=1e-4)
    by_default = kv.visualize_cam(model, -1, 3, seed)
    named = kv.visualize_cam(model, -1, 3, seed, penultimate="max_pooling2d")
    np.testing.assert_array_equal(by_default, named)
    assert by_default.shape == (28, 28) and by_default.max() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_unknown_and_empty_requests_are_refused(weights, seed):
    f = Partial(linear_net, jnp.asarray(weights))
    cases = {
        "`filter_indices` must be in 0…2: got 3": lambda: kv.visualize_activation(
            f, None, 3, seed_input=seed
        ),
        "`filter_indices` must hold a filter, or be None for all": lambda: kv.visualize_activation(
            f, None, [], seed_input=seed
        ),
        "`max_iter` must be a whole number from 1": lambda: kv.visualize_activation(
            f, None, 0, seed_input=seed, max_iter=0
        ),
        "`input_range` must be": lambda: kv.visualize_activation(
            f, None, 0, seed_input=seed, input_range=(1, 0)
        ),
        "at least one weight must differ from 0": lambda: kv.visualize_activation(
            f, None, 0, seed_input=seed, act_max_weight=0, lp_norm_weight=0, tv_weight=0
        ),
        "`backprop_modifier` must be one of": lambda: kv.visualize_saliency(
            f, None, 0, seed, backprop_modifier="guide"
        ),
        "`grad_modifier` must be one of": lambda: kv.visualize_saliency(
            f, None, 0, seed, grad_modifier="abs"
        ),
        "`image_shape` must be": lambda: kv.visualize_activation(f, None, 0),
        "`seed_input` must be .* got an array of shape": lambda: kv.visualize_activation(
            f, None, 0, seed_input=seed[0]
        ),
        "`seed_input` must be one image": lambda: kv.visualize_saliency(
            f, None, 0, np.stack([seed, seed])
        ),
        "no step had a finite loss": lambda: kv.visualize_activation(
            f, None, 0, seed_input=seed * np.nan
        ),
        "`penultimate` must be given": lambda: kv.visualize_cam(f, None, 0, seed),
        "did you mean 'scores'": lambda: kv.visualize_activation(f, "score", 0, seed_input=seed),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_find_layer_stitch_and_overlay(rng):
    config = {"class_name": "ReLU", "config": {"name": "relu", "batch_input_shape": [None, 2]}}
    model = load_keras({"class_name": "Sequential", "config": [config]})
    assert parts.find_layer(model, "relu") == 0
    with pytest.raises(ValueError, match="`name` must be a layer: got 'rely'; .* 'relu'"):
        parts.find_layer(model, "rely")
    images = rng.normal(size=(3, 2, 4, 1))
    sheet = kv.stitch(images, margin=1, columns=2)
    assert sheet.shape == (5, 9, 1)
    np.testing.assert_array_equal(sheet[3:, :4], images[2])
    assert (sheet[2] == 0).all() and (sheet[3:, 5:] == 0).all()
    blended = parts.overlay(images[0], images[1], alpha=0.25)
    np.testing.assert_allclose(blended, images[0] / 4 + images[1] * 3 / 4)
    with pytest.raises(ValueError, match="`images` must have one shape"):
        kv.stitch([np.ones((2, 2, 1)), np.ones((3, 2, 1))])
    with pytest.raises(ValueError, match="`alpha` must be in 0…1: got 2"):
        parts.overlay(images[0], images[1], alpha=2)
    with pytest.raises(ValueError, match="`second` must have the shape of `first`"):
        parts.overlay(images[0], images[1][:1])
    with pytest.raises(ValueError, match="`jitter` must be one or two numbers"):
        parts.Jitter(-1)
