"""Parametrisations: each can hold any photograph, and means what its formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxviz import parametrize as jp

KEY = jax.random.key(0)
SHAPE = (12, 15, 3)


def photograph(data_folder):
    from PIL import Image

    with Image.open(data_folder / "photos" / "dog_cat_224.jpg") as file:
        small = file.convert("RGB").resize((40, 32))
    return jnp.asarray(np.asarray(small), jnp.float32) / 255


@pytest.mark.slow
@pytest.mark.parametrize(
    "parametrization",
    [
        jp.pixels(),
        jp.fourier(),
        jp.pyramid(levels=3),
        jp.decorrelated(jp.pixels()),
        jp.decorrelated(jp.fourier()),
        None,
    ],
    ids=["pixels", "fourier", "pyramid", "colour pixels", "colour fourier", "maco"],
)
def test_each_can_fit_a_photograph(data_folder, parametrization):
    target = photograph(data_folder) - 0.5
    shape = target.shape
    if parametrization is None:
        parametrization = jp.maco(jp.magnitude_spectrum(target[None] + 0.5))
    init, decode, _ = parametrization
    optimizer = optax.adam(0.05)

    def fit(parameters):
        def step(carry, _):
            parameters, memory = carry
            loss = lambda p: jnp.square(decode(p, shape) - target).sum()  # noqa: E731
            with jax.numpy_dtype_promotion("standard"):
                updates, memory = optimizer.update(jax.grad(loss)(parameters), memory)
            return (optax.apply_updates(parameters, updates), memory), None

        start = (parameters, optimizer.init(parameters))
        return jax.lax.scan(step, start, length=1000)[0][0]

    fitted = jax.jit(lambda key: decode(fit(init(key, shape)), shape))(KEY)
    assert np.abs(fitted - np.asarray(target)).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "parametrization",
    [jp.pixels(), jp.fourier(decay=0.5), jp.pyramid(), jp.decorrelated(jp.fourier())],
)
@pytest.mark.parametrize("shape", [(12, 15, 3), (7, 8, 1), (1, 5, 1)])
def test_encode_undoes_decode(rng, parametrization, shape):
    image = jnp.asarray(rng.normal(size=shape), jnp.float32)
    both = jax.jit(lambda x: parametrization.decode(parametrization.encode(x, shape), shape))
    again = both(image)
    np.testing.assert_allclose(again, image, atol=2e-5)


def test_fourier_is_its_formula(rng):
    height, width, channels = SHAPE
    spectrum = rng.normal(size=(2, height, width // 2 + 1, channels))
    rows, cols = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(rows**2 + cols**2)
    scale = np.sqrt(width * height) / np.maximum(frequency, 1 / max(width, height))
    scaled = (spectrum[0] + 1j * spectrum[1]) * scale[..., None]
    expected = np.fft.irfft2(scaled, s=(height, width), axes=(0, 1)) / 4
    found = jp.fourier().decode(jnp.asarray(spectrum, jnp.float32), SHAPE)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_fourier_starts_small():
    drawn = jp.fourier().init(KEY, SHAPE)
    assert float(drawn.std()) == pytest.approx(0.01, rel=0.1)


def test_colours_are_decorrelated_by_the_published_matrix(rng):
    matrix = np.asarray([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / np.linalg.norm(matrix, axis=0).max()
    image = rng.normal(size=SHAPE)
    found = jp.decorrelated(jp.pixels()).decode(jnp.asarray(image, jnp.float32), SHAPE)
    np.testing.assert_allclose(found, image @ matrix.T, atol=1e-6)


def test_for_one_channel_decorrelation_is_the_identity(rng):
    image = jnp.asarray(rng.normal(size=(5, 4, 1)), jnp.float32)
    np.testing.assert_array_equal(jp.decorrelated(jp.pixels()).decode(image, (5, 4, 1)), image)


def slow_power_law(height, width):
    """|frequency|^−1 of every entry of the whole spectrum, scaled to unit variance, its half."""
    rows, cols = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    law = 1 / np.where((rows == 0) & (cols == 0), np.inf, np.hypot(rows, cols))
    law = law * height * width / max(np.sqrt((law**2).sum()), 1e-9)
    return law[:, : width // 2 + 1]


SIZES = [(8, 8), (7, 8), (8, 7), (5, 7), (1, 6), (6, 1), (2, 2), (1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_maco_has_its_magnitude_everywhere(rng, size):
    def spectrum(maco, phase):
        image = np.asarray(maco.decode(jnp.asarray(phase, jnp.float32), (*size, 2)), np.float64)
        return np.abs(np.fft.rfft2(image, axes=(0, 1))), image

    phase = rng.uniform(-4, 4, (size[0], size[1] // 2 + 1, 2))
    found, image = spectrum(jp.maco(), phase)
    law = slow_power_law(*size)[..., None]
    np.testing.assert_allclose(found, np.broadcast_to(law, found.shape), rtol=1e-5, atol=1e-5)
    assert image.std() == pytest.approx(float(size != (1, 1)), rel=1e-5)
    photograph = rng.uniform(size=(1, *size, 2))
    own = jp.magnitude_spectrum(jnp.asarray(photograph, jnp.float32))
    found, _ = spectrum(jp.maco(own), phase)
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_macos_derivative_moves_every_phase_but_leaves_the_magnitude(rng):
    shape = (6, 8, 1)
    maco, phase = jp.maco(np.ones((6, 5, 1))), jnp.asarray(rng.uniform(-3, 3, (6, 5, 1)), "float32")

    def spectrum(phase):
        return jnp.fft.rfft2(maco.decode(phase, shape), axes=(0, 1))

    weights = jnp.asarray(rng.normal(size=shape[:2]), jnp.float32)[..., None]
    slope = jax.grad(lambda phase: (maco.decode(phase, shape) * weights).sum())(phase)
    magnitude_slope = jax.grad(lambda phase: jnp.abs(spectrum(phase))[1:3].sum())(phase)
    still = np.asarray(slope)[:, :, 0] == 0
    decided = [(4, 0), (4, 4), (5, 0), (5, 4)]  # by rows 2 and 1 of columns 0 and W / 2
    assert [tuple(at) for at in np.argwhere(still)] == decided
    np.testing.assert_allclose(magnitude_slope, 0, atol=1e-4)
    moved = jnp.abs(spectrum(phase + 0.5 * slope))
    np.testing.assert_allclose(moved, 1, atol=1e-5)


def test_equal_options_give_one_object():
    assert jp.pixels() is jp.pixels() and jp.fourier(decay=1.5) is jp.fourier(decay=1.5)
    assert jp.maco() is jp.maco() and jp.decorrelated(jp.pixels()) is jp.decorrelated(jp.pixels())


@pytest.mark.slow
def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="`levels` must be a whole number from 1: got 0"):
        jp.pyramid(levels=0)
    with pytest.raises(ValueError, match="needs images of 1 or 3 channels: got 2"):
        jp.decorrelated(jp.pixels()).decode(jnp.ones((4, 4, 2)), (4, 4, 2))
    with pytest.raises(ValueError, match=r"`magnitude` must have shape \(4, 3, 1\)"):
        jp.maco(np.ones((4, 4, 1))).decode(jnp.ones((4, 3, 1)), (4, 4, 1))
    magnitude = np.ones((4, 3, 1))
    magnitude[1, 2] = 2
    with pytest.raises(ValueError, match="`magnitude` must be that of a real image.*differ by 1"):
        jp.maco(magnitude).decode(jnp.ones((4, 3, 1)), (4, 4, 1))
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="`magnitude` must be finite and at least 0"):
            jp.maco(wrong * magnitude).decode(jnp.ones((4, 3, 1)), (4, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize("own", [jp.pixels(), jp.fourier(), jp.pyramid(levels=2), jp.maco()])
def test_a_key_draws_the_same_with_and_without_x64(own):
    shape = (4, 5, 1)
    narrow = own.init(KEY, shape)
    with jax.enable_x64(True):
        wide = own.init(KEY, shape)
        assert own.decode(wide, shape).dtype == jnp.float32
    for one, other in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == jnp.float32
