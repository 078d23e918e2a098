"""Models of signals, Conv1D and vectors, work as models of images of one row."""

import jax
import numpy as np
import pytest
from scipy import ndimage

import jaxviz as jv
from jaxviz.maximization.objectives import channel, unit

keras = pytest.importorskip("keras")
layers = keras.layers

SIGNALS = np.random.default_rng(0).random((2, 12, 3), np.float32)
ROWS = SIGNALS[:, None]
RNG = np.random.default_rng(1)
KERNEL, BIAS = RNG.random((3, 3, 4)) - 0.5, RNG.random(4) - 0.3
DENSE = RNG.random((4, 2)) - 0.5


@pytest.fixture(scope="module")
def model():
    found = keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.Conv1D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling1D(name="mean"),
            layers.Dense(2, use_bias=False, name="out"),
        ]
    )
    for weight, value in zip(found.weights, (KERNEL, BIAS, DENSE), strict=True):
        weight.assign(value)
    return jv.from_keras(found)


def slow_map(signal):
    """The convolution's map (L', 4) in float64."""
    windows = np.stack([signal[i : i + 3] for i in range(len(signal) - 2)]).astype(np.float64)
    return np.maximum(np.einsum("lkc,kco->lo", windows, KERNEL) + BIAS, 0)


def slow_scores(signal):
    return slow_map(signal).mean(0) @ DENSE


@pytest.mark.slow
def test_occlusion_covers_stretches_of_the_signal(model):
    occ = jv.occlude(model, ROWS, patch=(1, 3))
    covered = SIGNALS[1].copy()
    covered[3:6] = 0
    np.testing.assert_allclose(occ.scores[1, 0, 1], slow_scores(covered), rtol=1e-4)
    assert occ.heatmap().shape == (2, 1, 12)


def test_cam_of_a_signal_equals_the_formula(model):
    found = jv.visualize_cam(model, -1, 1, ROWS[0])
    a = slow_map(SIGNALS[0])
    g = (a > 0) * 0 + DENSE[:, 1] / len(a)  # d out / d a
    g = g / (abs(g.max()) + 1e-7)
    heatmap = np.maximum(a @ g.mean(0), 0)[None]
    heatmap = ndimage.zoom(heatmap, (1, 12 / 10))
    wanted = (heatmap - heatmap.min()) / (np.ptp(heatmap) + 1e-7)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert found.shape == (1, 12)


@pytest.mark.slow
def test_facade_attribution_and_ascent_take_a_row(model):
    assert jv.visualize_saliency(model, -1, 0, ROWS[0]).shape == (1, 12)
    assert jv.visualize_activation(model, -1, 0, max_iter=2).shape == (1, 12, 3)
    cam = jv.attribution.grad_cam(model, ROWS, layer="conv", target=1)
    assert cam.heatmap().shape == (2, 1, 12)
    a = slow_map(SIGNALS[0])
    wanted = np.maximum(a @ (DENSE[:, 1] / len(a)), 0)
    np.testing.assert_allclose(np.asarray(cam.values)[0].ravel(), wanted, atol=1e-5)
    options = {"key": jax.random.key(0), "steps": 2}
    for objective in (unit(0), channel("conv", 1)):
        assert jv.maximize(model, objective, **options).images.shape == (1, 1, 12, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        lambda f, x: jv.occlude(f, x[0], patch=(1, 3)),
        lambda f, x: jv.occlusion_scores(f, x[0], patch=(1, 3)),
        lambda f, x: jv.attribution.saliency(f, x[0]),
        lambda f, x: jv.visualize_saliency(f, -1, 0, x[0]),
        lambda f, x: jv.metrics.deletion(f, x[0], np.ones((1, 12))),
    ],
)
def test_what_to_give_is_said_where_a_signal_is_given(model, run):
    hint = r"a signal is an image of one row: \w+.reshape\(-1, 1, 12, 3\)"
    with pytest.raises(ValueError, match=hint):
        run(model, SIGNALS)
    assert SIGNALS.reshape(-1, 1, 12, 3).shape == ROWS.shape


@pytest.mark.slow
def test_vectors_are_told_their_own_shape():
    inner = keras.Sequential([keras.Input((12,)), layers.Dense(2)])
    dense = jv.from_keras(inner)
    with pytest.raises(ValueError, match=r"images.reshape\(-1, 1, 12, 1\)"):
        jv.occlude(dense, SIGNALS[..., 0], patch=1)
    assert jv.occlude(dense, SIGNALS[..., 0].reshape(-1, 1, 12, 1), patch=(1, 4)).grid.size == 3
