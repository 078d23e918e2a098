"""What each fill pastes, against the formula written out; fills are pytrees and follow dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import slow_blur, slow_fading, slow_paste

from jaxviz import fills
from jaxviz.perturbation.fill import check_fill, outside_range
from jaxviz.perturbation.occluders import PatchOccluder

SHAPE, PATCH = (6, 8, 3), (3, 4)
STARTS = [(0, 0), (1, 2), (-2, -3), (4, 6), (3, 4)]


@pytest.fixture
def image(rng):
    return rng.uniform(size=SHAPE).astype(np.float32)


def hidden(fill, image, start):
    """The image with one patch of a fill."""
    occluder = PatchOccluder(fills.make_fill(fill), PATCH)
    return np.asarray(occluder.hide(occluder.prepare(jnp.asarray(image)), jnp.asarray(start)))


def patch_pixels(image, start):
    """The part of the image that lies under the patch."""
    (top, left), (rows, cols) = start, PATCH
    return image[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + cols, 0)]


def slow_fill(kind, image, start):
    """(row, col, channel) -> value, from the definition of each fill."""
    under = patch_pixels(image, start).astype(np.float64)
    formulas = {
        "constant": lambda row, col, channel: 0.25,
        "per channel": lambda row, col, channel: (0.1, 0.2, 0.3)[channel],
        "baseline": lambda row, col, channel: 1 - image[row, col, channel],
        "image mean": lambda row, col, channel: image[..., channel].mean(dtype=np.float64),
        "image mean of all": lambda row, col, channel: image.mean(dtype=np.float64),
        "patch mean": lambda row, col, channel: under[..., channel].mean(),
        "patch mean of all": lambda row, col, channel: under.mean(),
        "function": lambda row, col, channel: image[row, col, channel] ** 2,
    }
    return formulas[kind]


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "kind, fill",
    {
        "constant": 0.25,
        "per channel": [0.1, 0.2, 0.3],
        "baseline": lambda image: 1 - image,
        "image mean": "mean",
        "image mean of all": fills.image_mean(per_channel=False),
        "patch mean": "patch_mean",
        "patch mean of all": fills.patch_mean(per_channel=False),
        "function": fills.function(lambda under, start: under**2),
    }.items(),
)
def test_fill_equals_its_formula(image, kind, fill, start):
    fill = fill(image) if kind == "baseline" else fill
    wanted = slow_paste(image, start, PATCH, slow_fill(kind, image, start))
    np.testing.assert_allclose(hidden(fill, image, start), wanted, atol=1e-6)


def test_blur_equals_the_double_sum(image):
    blurred = jax.jit(fills.blur(0.7).background)(jnp.asarray(image))
    np.testing.assert_allclose(blurred, slow_blur(image, 0.7), atol=1e-6)


@pytest.mark.slow
def test_noise_has_the_moments_asked_for(rng):
    image = jnp.asarray(rng.normal([1, 2, 3], [1, 2, 3], (64, 64, 3)), jnp.float32)
    own = jax.jit(fills.noise(jax.random.key(0)).background)(image)
    np.testing.assert_allclose(own.mean((0, 1)), image.mean((0, 1)), atol=0.2)
    np.testing.assert_allclose(own.std((0, 1)), image.std((0, 1)), rtol=0.05)
    given = fills.noise(jax.random.key(0), mean=5.0, std=0.5).background(image)
    np.testing.assert_allclose([given.mean(), given.std()], [5, 0.5], atol=0.02)


@pytest.mark.slow
def test_noise_is_the_same_for_the_same_key(image):
    background = jax.jit(lambda key: fills.noise(key).background(jnp.asarray(image)))
    images = [background(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("start", STARTS)
def test_soft_blends_by_its_mask(image, start):
    mask = fills.gaussian_mask(PATCH, sigma=(1.0, 2.0))

    def blended(row, col, channel):
        weight = mask[row - start[0], col - start[1]]
        return image[row, col, channel] * (1 - weight) + 0.5 * weight

    wanted = slow_paste(image, start, PATCH, blended)
    np.testing.assert_allclose(hidden(fills.soft(0.5, mask), image, start), wanted, atol=1e-6)


def test_soft_takes_any_fill(image):
    everything, nothing = np.ones(PATCH), np.zeros(PATCH)
    for fill in ("mean", "patch_mean", [0.1, 0.2, 0.3]):
        hard = hidden(fill, image, (1, 2))
        np.testing.assert_allclose(hidden(fills.soft(fill, everything), image, (1, 2)), hard)
        np.testing.assert_array_equal(hidden(fills.soft(fill, nothing), image, (1, 2)), image)


def test_gaussian_mask_is_the_formula():
    mask = fills.gaussian_mask((3, 6), sigma=(1.0, 2.0))
    for r, c in np.ndindex(3, 6):
        squares = ((r - 1) / 1.0) ** 2 + ((c - 2.5) / 2.0) ** 2
        assert mask[r, c] == pytest.approx(np.exp(-squares / 2), rel=1e-12)


def test_a_function_sees_the_pixels_and_the_start(image):
    seen = []

    def make(under, start):
        seen.append((np.asarray(under), np.asarray(start)))
        return under

    hidden(make, image, (1, 2))
    np.testing.assert_array_equal(seen[0][0], patch_pixels(image, (1, 2)))
    np.testing.assert_array_equal(seen[0][1], (1, 2))


@pytest.mark.slow
def test_a_fill_is_a_pytree(image):
    def red(fill, image):
        occluder = PatchOccluder(fill, PATCH)
        return occluder.hide(occluder.prepare(image), jnp.asarray((0, 0)))[..., 0].sum()

    slope = jax.grad(red, allow_int=True)(fills.constant(0.5), jnp.asarray(image))
    assert jax.tree.leaves(slope)[0] == PATCH[0] * PATCH[1]


def test_a_traced_number_is_a_fill(image):
    def total(value):
        return fills.make_fill(value).background(jnp.asarray(image)).sum()

    assert jax.jit(jax.grad(total))(0.5) == image.size


def test_fills_of_other_values_have_the_same_structure():
    one, two = fills.constant(0.0), fills.constant(1.0)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert jax.tree.structure(one) != jax.tree.structure(fills.image_mean())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "fill",
    [
        0.5,
        "mean",
        "patch_mean",
        fills.blur(1.0),
        fills.noise(jax.random.key(0)),
        fills.noise(jax.random.key(0), mean=0.0, std=1.0),
        fills.soft(0.5, np.ones(PATCH)),
        lambda under, start: under,
    ],
    ids=["constant", "mean", "patch mean", "blur", "noise", "n01", "soft", "function"],
)
def test_the_dtype_is_that_of_the_image(image, fill, dtype):
    occluder = PatchOccluder(fills.make_fill(fill), PATCH)

    def hide(image):
        return occluder.hide(occluder.prepare(image), jnp.asarray((1, 1)))

    assert jax.eval_shape(hide, jnp.asarray(image, dtype)).dtype == dtype


def test_float64_fills_are_exact():
    with jax.enable_x64(True):
        fill = fills.make_fill(0.1).background(jnp.zeros((1, 1, 1), jnp.float64))
        assert fill.dtype == jnp.float64 and float(fill[0, 0, 0]) == 0.1


@pytest.mark.parametrize(
    "fill, text",
    [
        (0.5, "constant 0.5"),
        ([1, 2], "constant [1.0, 2.0]"),
        (np.zeros((2, 2, 1)), "another image"),
        ("mean", "image mean"),
        ("patch_mean", "patch mean"),
        (fills.blur(2), "blur 2"),
        (fills.soft(0.0, np.ones((2, 2))), "soft constant 0.0"),
        (np.square, "function square"),
    ],
)
def test_str_says_what_it_is(fill, text):
    assert str(fills.make_fill(fill)) == text


def test_whole_tells_which_fills_can_cover_an_image():
    assert all(fills.make_fill(fill).whole for fill in (0.5, "mean", fills.blur(1.0)))
    assert not any(fills.make_fill(fill).whole for fill in ("patch_mean", lambda u, s: u))


@pytest.mark.parametrize(
    "fill, error, match",
    [
        ("median", ValueError, '`fill` must be "mean" or "patch_mean" .* got \'median\''),
        (object(), TypeError, "`fill` must be a number, .* got a object"),
        (None, TypeError, "`fill` must be a number, .* got a NoneType"),
        ({"a": 1}, TypeError, "`fill` must be a number, .* got a dict"),
        (lambda under: under, TypeError, r"\(under, start\) -> patch: <lambda> takes \(under\)"),
        (np.zeros((2, 2)), ValueError, r"`fill` must be a number, .* array of shape \(2, 2\)"),
        (float("nan"), ValueError, "`fill` must be finite"),
        ([0.0, np.inf], ValueError, "`fill` must be finite"),
    ],
)
def test_what_is_no_fill_is_refused(fill, error, match):
    with pytest.raises(error, match=match):
        fills.make_fill(fill)


@pytest.mark.parametrize(
    "fill, match",
    [
        ([0.0, 1.0], r"`fill` must hold one value per channel: got 2 for 3 channel"),
        (np.zeros((6, 8, 1)), r"`fill` must have the image's shape \(6, 8, 3\): got \(6, 8, 1\)"),
        (fills.soft([0.0, 1.0], np.ones(PATCH)), "`fill` must hold one value per channel"),
    ],
)
def test_a_fill_of_another_size_is_refused(image, fill, match):
    with pytest.raises(ValueError, match=match):
        check_fill(fills.make_fill(fill), image[None])


def test_bad_parameters_are_refused(image):
    with pytest.raises(ValueError, match="`sigma` must be above 0 pixels: got 0"):
        fills.blur(0)
    with pytest.raises(ValueError, match=r"`mask` must be \(patch rows, patch cols\) in \[0, 1\]"):
        fills.soft(0.0, np.full((2, 2), 1.5))
    with pytest.raises(ValueError, match=r"`mask` must be .* of shape \(4,\)"):
        fills.soft(0.0, np.ones(4))
    with pytest.raises(ValueError, match=r"`mask` must have the patch's shape \(3, 4\): got"):
        hidden(fills.soft(0.0, np.ones((2, 2))), image, (0, 0))
    with pytest.raises(ValueError, match=r"`fill` must make patches of shape .* it made \(3, 4\)"):
        hidden(lambda under, start: under[..., 0], image, (0, 0))


@pytest.mark.parametrize(
    "fill, outside",
    [(0.5, None), (1.02, None), (127.5, (127.5, 127.5)), ([0.0, 0.5, 9.0], (0.0, 9.0))],
)
def test_outside_range_tells_the_extremes(fill, outside):
    images = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    assert outside_range(fills.make_fill(fill), images) == outside


@pytest.mark.parametrize(
    "low, high, silent, told",
    [
        (13, 250, (0.0, 127.5, 255.0), (-20.0, 300.0)),  # photographs without black or white
        (0.2, 0.7, (0.0, 0.5, 1.0), (-1.0, 127.5)),
        (-0.9, 0.8, (-1.0, 0.0, 1.0), (2.0, 127.5)),
        (-120, 130, (-125.0, 0.0), (-255.0, 255.0)),  # the mean of a data set was taken off
    ],
)
def test_values_on_the_scale_of_the_images_are_not_told(low, high, silent, told):
    images = np.linspace(low, high, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    found = {v: outside_range(fills.make_fill(v), images) for v in (*silent, *told)}
    assert found == dict.fromkeys(silent) | {value: (value, value) for value in told}


def test_outside_range_is_silent_about_what_has_no_scale():
    assert outside_range(fills.make_fill(9.0), np.ones((1, 2, 2, 1))) is None
    assert outside_range(fills.make_fill("mean"), np.eye(2)[None, ..., None]) is None


@pytest.mark.slow
def test_the_fading_of_monai_is_zero_at_the_rim_and_one_in_the_middle():
    fading = slow_fading((4, 6))
    assert fading.min() == 0 and fading.max() == fading[2, 3] == 1
