"""Random transformations: what they do, that they repeat, and that they can be differentiated."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import slow_blur
from scipy import ndimage

from jaxviz import transforms as jt

KEY = jax.random.key(3)
KEEP_SIZE = [
    jt.jitter(3),
    jt.scale(0.8, 1.2),
    jt.magnify(0.2, 0.7),
    jt.rotate(20),
    jt.flip(),
    jt.noise(0.1),
    jt.blur(0.5, 1.5),
]


ALL = [*KEEP_SIZE, jt.pad(2), jt.crop(4, 5)]


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.uniform(size=(2, 9, 7, 3)), jnp.float32)


@cache
def facts(transform):
    """What there is to know of a transform, as one program: it compiles once for all tests."""

    def of(key, images):
        found, pull = jax.vjp(lambda x: transform(key, x), images)
        weights = jnp.sin(jnp.arange(found.size, dtype=found.dtype)).reshape(found.shape)
        return {
            "found": found,
            "mapped": jax.vmap(lambda x: transform(key, x))(images[None])[0],
            "second": transform(key, images[1:]),
            "moved": found - transform(key, jnp.zeros_like(images)),
            "weights": weights,
            "gradient": pull(weights)[0],
        }

    return jax.jit(of)


@pytest.mark.slow
@pytest.mark.parametrize("transform", ALL)
def test_the_same_key_gives_the_same_images_bit_for_bit(images, transform):
    first, again = (facts(transform)(KEY, images) for _ in range(2))
    np.testing.assert_array_equal(first["found"], again["found"])
    np.testing.assert_allclose(first["mapped"], first["found"], atol=1e-6)


@pytest.mark.parametrize("transform", KEEP_SIZE)
def test_images_of_a_call_share_one_draw(images, transform):
    found = facts(transform)(KEY, images)
    assert found["found"].shape == images.shape
    np.testing.assert_allclose(found["second"], found["found"][1:], rtol=1e-6, atol=1e-6)
    others = [facts(transform)(jax.random.key(n), images)["found"] for n in range(6)]
    assert any((np.asarray(other) != found["found"]).any() for other in others)


@pytest.mark.parametrize("transform", ALL)
def test_the_derivative_is_that_of_a_linear_map(images, transform):
    found = jax.tree.map(np.asarray, facts(transform)(KEY, images))
    total = (found["gradient"] * np.asarray(images)).sum()
    expected = (found["weights"] * found["moved"]).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [0, 3, 11])
def test_jitter_is_a_true_roll(images, pixels):
    jitter = jax.jit(jt.jitter(pixels))
    for n in range(8):
        key = jax.random.key(n)
        shifts = jax.random.randint(key, (2,), -pixels, pixels + 1)
        expected = np.roll(np.asarray(images), tuple(np.asarray(shifts)), (1, 2))
        np.testing.assert_array_equal(jitter(key, images), expected)


@pytest.mark.slow
def test_pad_and_crop_move_no_pixel(images):
    padded = jt.pad(2, value=0.25)(KEY, images)
    assert padded.shape == (2, 13, 11, 3) and float(padded[0, 0, 0, 0]) == 0.25
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], images)
    cut = np.asarray(jt.crop(4, 5)(KEY, images))
    places = [
        (row, col)
        for row in range(6)
        for col in range(3)
        if (np.asarray(images)[:, row : row + 4, col : col + 5] == cut).all()
    ]
    assert len(places) == 1


def test_flip_mirrors_about_half_of_the_time(images):
    images, flip = np.asarray(images), jax.jit(jt.flip())
    found = [np.asarray(flip(jax.random.key(n), images)) for n in range(20)]
    flipped = [bool((one == images[:, :, ::-1]).all()) for one in found]
    kept = [bool((one == images).all()) for one in found]
    assert all(a != b for a, b in zip(flipped, kept, strict=True)) and 3 < sum(flipped) < 17


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.6])
def test_scale_samples_bilinearly_about_the_centre(images, factor):
    found = np.asarray(jax.jit(jt.scale(factor, factor))(KEY, images))
    rows, cols = [(np.arange(n) - (n - 1) / 2) / factor + (n - 1) / 2 for n in (9, 7)]
    grid = np.meshgrid(rows, cols, indexing="ij")
    expected = ndimage.map_coordinates(
        np.asarray(images)[1, :, :, 2], grid, order=1, mode="nearest"
    )
    np.testing.assert_allclose(found[1, :, :, 2], expected, atol=1e-5)


@pytest.mark.slow
def test_magnify_enlarges_one_window(images):
    found = np.asarray(jax.jit(jt.magnify(0.5, 0.5))(KEY, images))
    row, col = np.asarray(jax.random.uniform(jax.random.split(KEY)[1], (2,))) * (4.0, 3.0)
    places = np.linspace(row, row + 4, 9), np.linspace(col, col + 3, 7)
    grid = np.meshgrid(*places, indexing="ij")
    expected = ndimage.map_coordinates(np.asarray(images)[0, :, :, 1], grid, order=1)
    np.testing.assert_allclose(found[0, :, :, 1], expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jt.magnify(1, 1))(KEY, images), images, atol=1e-5)


@pytest.mark.slow
def test_over_noise_shows_what_is_opaque(images):
    opacity = jnp.zeros((2, 9, 7, 1)).at[:, 4:].set(1.0)
    shown = np.asarray(jax.jit(jt.over_noise(0.1))(KEY, jnp.concatenate([images, opacity], -1)))
    np.testing.assert_array_equal(shown[:, 4:], images[:, 4:])
    ground = shown[:, :4]
    assert abs(ground.mean() - 0.5) < 0.05 and ground.std() == pytest.approx(0.1, rel=0.3)


def test_rotate_samples_bilinearly_about_the_centre(images):
    found = np.asarray(jax.jit(jt.rotate(40))(KEY, images))
    angle = np.deg2rad(float(jax.random.uniform(KEY, (), minval=-40, maxval=40)))
    y, x = np.meshgrid(np.arange(9) - 4.0, np.arange(7) - 3.0, indexing="ij")
    row = np.cos(angle) * y - np.sin(angle) * x + 4
    col = np.sin(angle) * y + np.cos(angle) * x + 3
    expected = ndimage.map_coordinates(
        np.asarray(images)[0, :, :, 1], [row, col], order=1, mode="nearest"
    )
    np.testing.assert_allclose(found[0, :, :, 1], expected, atol=1e-5)


@pytest.mark.slow
def test_blur_is_a_gaussian_of_a_width_in_its_range(images):
    found = np.asarray(jax.jit(jt.blur(0.5, 1.0))(KEY, images))
    sigma = float(jax.random.uniform(KEY, (), minval=0.5, maxval=1.0))
    expected = slow_blur(np.asarray(images)[1], sigma)
    np.testing.assert_allclose(found[1], expected, atol=1e-3)  # both cut: at 4·high and at 4σ


@pytest.mark.slow
def test_blur_is_cut_at_four_times_the_largest_width():
    dot = jnp.zeros((1, 1, 15, 1)).at[0, 0, 7, 0].set(1)
    shown = np.asarray(jt.blur(1.2, 1.2)(KEY, dot))[0, 0, :, 0]
    assert (shown[2:13] > 0).all() and (shown[:2] == 0).all() and (shown[13:] == 0).all()
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.2) ** 2)
    np.testing.assert_allclose(shown[2:13], bell / bell.sum(), rtol=1e-5)


@pytest.mark.slow
def test_compose_gives_each_its_own_key(images):
    both = jt.compose([jt.jitter(2), jt.noise(0.1)])(KEY, images)
    first = jt.jitter(2)(jax.random.fold_in(KEY, 0), images)
    expected = jt.noise(0.1)(jax.random.fold_in(KEY, 1), first)
    np.testing.assert_array_equal(both, expected)


def test_equal_options_give_one_function():
    assert jt.jitter(2) is jt.jitter(2) and jt.scale(0.9, 1.1) is jt.scale(0.9, 1.1)
    assert jt.compose([jt.flip()]) is jt.compose([jt.flip()])


@pytest.mark.slow
def test_bfloat16_stays_bfloat16_and_flat_stays_flat():
    flat = jnp.full((1, 9, 7, 1), 0.7, jnp.bfloat16)
    for transform in [*KEEP_SIZE, jt.pad(1, value=0.7), jt.crop(3, 3)]:
        if transform is jt.noise(0.1):
            assert jax.eval_shape(transform, KEY, flat).dtype == jnp.bfloat16
            continue
        found = jax.jit(transform)(KEY, flat)
        assert found.dtype == jnp.bfloat16 and (found == flat[0, 0, 0, 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("transform", [*ALL, jt.over_noise()])
def test_a_key_gives_the_same_with_and_without_x64(images, transform):
    keys = jax.random.split(KEY, 3)
    draws = jax.jit(jax.vmap(transform, (0, None)))
    narrow = draws(keys, images)
    with jax.enable_x64(True):
        wide = draws(keys, images)
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, narrow, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jt.jitter(-1), "`pixels` must be at least 0: got -1"),
        (lambda: jt.pad(-2), "`pixels` must be at least 0: got -2"),
        (lambda: jt.scale(1.2, 0.9), "`low, high` must be positive and in this order"),
        (lambda: jt.blur(0, 1), "`low, high` must be positive and in this order"),
        (lambda: jt.rotate(-1), "`degrees` must be at least 0: got -1"),
        (lambda: jt.noise(-1), "`sigma` must be at least 0: got -1"),
        (lambda: jt.over_noise(-1), "`sd` must be at least 0: got -1"),
        (lambda: jt.magnify(0.5, 2), "`low, high` must be shares in this order"),
        (lambda: jt.crop(10, 3)(KEY, jnp.ones((1, 9, 7, 3))), "`crop` must not exceed the image"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
