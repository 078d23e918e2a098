"""μFidelity, sensitivity-n, infidelity and max-sensitivity against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judges import slow_pearson, slow_spearman
from scorers import convolutional, integers, weighted_sums

import jaxviz as jv
from jaxviz.jaxpr.keys import generator
from jaxviz.perturbation.shifts import ShiftOccluder

SHAPE = (7, 5, 2)


@pytest.fixture(scope="module")
def case():
    """A scorer that is not linear, three images and maps."""
    images = np.random.default_rng(1).random((3, *SHAPE)).astype(np.float32)
    maps = np.random.default_rng(2).normal(size=(3, *SHAPE[:2]))
    return convolutional(channels=2, size=SHAPE[:2]), images, maps


def score(f, image, target):
    return float(np.asarray(f(jnp.asarray(image)[None]))[0, target])


@pytest.mark.slow
def test_mu_fidelity_equals_the_loop(case):
    f, images, maps = case
    key = jax.random.key(4)
    ours = jv.metrics.mu_fidelity(
        f, images, maps, target=1, grid=(3, 2), share=0.3, samples=20, fill=0.0, key=key
    )
    masks = generator(key).random((20, 6)) < 0.3
    for n in range(3):
        given, drops = [], []
        for mask in masks:
            out = np.zeros(SHAPE[:2], bool)
            for r in range(SHAPE[0]):
                for c in range(SHAPE[1]):
                    out[r, c] = mask[(r * 3 // SHAPE[0]) * 2 + c * 2 // SHAPE[1]]
            given.append(maps[n][out].sum())
            without = np.where(out[..., None], 0, images[n]).astype(np.float32)
            drops.append(score(f, images[n], 1) - score(f, without, 1))
        assert ours[n] == pytest.approx(slow_spearman(given, drops), abs=0.02)


@pytest.mark.slow
def test_mu_fidelity_of_what_the_scorer_adds_up_is_1():
    f, image = weighted_sums(SHAPE), integers(SHAPE)
    weights = np.asarray(jax.jacobian(lambda x: f(x[None])[0, 2])(image))
    heatmap = (weights * image).sum(-1)
    judge = jv.metrics.mu_fidelity
    assert judge(f, image, heatmap, target=2, grid=5, fill=0.0) == 1
    assert judge(f, image, -heatmap, target=2, grid=5, fill=0.0) == -1


@pytest.mark.slow
def test_constant_maps_and_scorers_are_undefined(case):
    f, images, maps = case
    for judge in (jv.metrics.mu_fidelity, jv.metrics.sensitivity_n):
        grid = {"grid": 3} if judge is jv.metrics.mu_fidelity else {"by": 2}
        none = judge(f, images, np.zeros_like(maps), samples=5, **grid)
        assert np.isnan(none).all() and len(none) == 3
        assert np.isnan(judge(lambda x: 0 * x.sum((1, 2)), images, maps, samples=5, **grid)).all()


@pytest.mark.slow
def test_sensitivity_n_equals_the_loop(case):
    f, images, maps = case
    key = jax.random.key(6)
    ours = jv.metrics.sensitivity_n(
        f, images, maps, target=0, shares=(0.2, 0.6), samples=9, fill=0.5, key=key
    )
    assert ours.shape == (3, 2)
    parts = SHAPE[0] * SHAPE[1]
    orders = generator(key).permuted(np.tile(np.arange(parts), (18, 1)), axis=1)
    for j, n_removed in enumerate((7, 21)):
        for n in range(3):
            given, drops = [], []
            for order in orders[9 * j : 9 * j + 9]:
                out = (order < n_removed).reshape(SHAPE[:2])
                assert out.sum() == n_removed
                given.append(maps[n][out].sum())
                without = np.where(out[..., None], 0.5, images[n]).astype(np.float32)
                drops.append(score(f, images[n], 0) - score(f, without, 0))
            assert ours[n, j] == pytest.approx(slow_pearson(given, drops), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("by", [None, 2, np.arange(35).reshape(7, 5) // 3])
def test_sensitivity_n_of_what_the_scorer_adds_up_is_1(by):
    f, image = weighted_sums(SHAPE), integers(SHAPE)
    weights = np.asarray(jax.jacobian(lambda x: f(x[None])[0, 0])(image))
    found = jv.metrics.sensitivity_n(
        f, image, (weights * image).sum(-1), target=0, by=by, samples=10, fill=0.0
    )
    np.testing.assert_allclose(found, 1, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [False, True])
def test_infidelity_equals_the_loop(case, scaled):
    f, images, _ = case
    values = np.random.default_rng(3).normal(size=images.shape)
    key = jax.random.key(8)
    ours = jv.metrics.infidelity(
        f, images, values, target=1, noise=0.3, samples=6, scaled=scaled, key=key
    )
    occluder = ShiftOccluder(key, jnp.float32(0.3))
    shifts = [
        np.asarray(occluder.shift(SHAPE, jnp.float32, jnp.asarray([k], np.int32))) for k in range(6)
    ]
    assert np.std(shifts) == pytest.approx(0.3, rel=0.1)
    for n in range(3):
        u = np.asarray([np.sum(d.astype(float) * values[n]) for d in shifts])
        v = np.asarray([score(f, images[n], 1) - score(f, images[n] - d, 1) for d in shifts])
        beta = np.mean(u * v) / np.mean(u * u) if scaled else 1
        assert ours[n] == pytest.approx(np.mean((beta * u - v) ** 2), rel=1e-3)


@pytest.mark.slow
def test_the_weights_of_a_linear_scorer_are_faithful():
    f, image = weighted_sums(SHAPE), integers(SHAPE)
    weights = np.asarray(jax.jacobian(lambda x: f(x[None])[0, 1])(image))
    judge = jv.metrics.infidelity
    assert judge(f, image, weights, target=1) == pytest.approx(0, abs=1e-6)
    assert judge(f, image, 5 * weights, target=1) > 1
    assert judge(f, image, 5 * weights, target=1, scaled=True) == pytest.approx(0, abs=1e-6)
    assert np.isnan(judge(f, image, 0 * weights, target=1, scaled=True))


@pytest.mark.slow
def test_a_map_stands_for_every_channel(case):
    f, images, maps = case
    both = np.repeat(maps[..., None], 2, -1)
    one, other = (jv.metrics.infidelity(f, images, v, samples=3) for v in (maps, both))
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_values_of_results_are_read(case):
    f, images, maps = case
    for make in (jv.attribution.saliency, jv.attribution.input_x_gradient):
        for some in (images, images[0]):
            att = make(f, some, target=1)
            one, other = (
                jv.metrics.infidelity(f, some, v, target=1, samples=3) for v in (att, att.values)
            )
            np.testing.assert_array_equal(one, other)
    occ = jv.occlude(f, images, patch=3)  # of no channel, and coarse
    one, other = (
        jv.metrics.infidelity(f, images, v, target=1, samples=3)
        for v in (occ, occ.heatmap(target=1))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_max_sensitivity_equals_the_loop(case):
    f, images, _ = case

    def saliency(x):
        return np.abs(np.asarray(jax.grad(lambda y: f(y)[:, 0].sum())(jnp.asarray(x)))).sum(-1)

    key = jax.random.key(2)
    ours = jv.metrics.max_sensitivity(saliency, images, radius=0.1, samples=4, key=key)
    draw, clean, worst = generator(key), saliency(images).astype(float), np.zeros(3)
    for _ in range(4):
        moved = images + draw.uniform(-0.1, 0.1, images.shape).astype(np.float32)
        for n, changed in enumerate(saliency(moved).astype(float)):
            ratio = np.linalg.norm(changed - clean[n]) / np.linalg.norm(clean[n])
            worst[n] = max(worst[n], ratio)
    np.testing.assert_allclose(ours, worst, rtol=1e-6)
    assert (ours > 0).all()


def test_a_map_that_stays_is_not_sensitive(case):
    _, images, maps = case
    assert (jv.metrics.max_sensitivity(lambda x: maps, images) == 0).all()
    assert np.isnan(jv.metrics.max_sensitivity(lambda x: 0 * maps, images)).all()


@pytest.mark.slow
def test_other_images_change_nothing(case):
    f, images, maps = case
    for judge in (jv.metrics.mu_fidelity, jv.metrics.infidelity):
        options = {"grid": 3} if judge is jv.metrics.mu_fidelity else {}
        together = judge(f, images, maps, samples=8, batch_size=4, **options)
        alone = judge(f, images[1], maps[1], samples=8, batch_size=4, **options)
        assert alone.shape == () and together[1] == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mu_fidelity", {"grid": 8}, "`grid` must not have more cells than pixels"),
        ("mu_fidelity", {"grid": 3, "share": 1.0}, "`share` must lie between 0 and 1: got 1.0"),
        ("mu_fidelity", {"grid": 3, "samples": 1}, "`samples` must be a whole number from 2"),
        ("sensitivity_n", {"shares": (0.0,)}, "`shares` must be numbers between 0 and 1"),
        ("sensitivity_n", {"by": 9}, "`by` must make at least 2 parts"),
        ("sensitivity_n", {"by": np.zeros((3, 7, 5), int)}, "labels .* for all images"),
        ("infidelity", {"noise": 0.0}, "`noise` must be above 0: got 0.0"),
        ("infidelity", {"maps": np.zeros((3, 7, 5, 3))}, "`values` must have the shape of the"),
        ("infidelity", {"maps": np.full((3, *SHAPE), np.nan)}, "`values` must be finite"),
    ],
)
def test_what_breaks_a_rule_is_told(case, name, options, message):
    f, images, maps = case
    options = {"maps": maps, **options}
    with pytest.raises(ValueError, match=message):
        getattr(jv.metrics, name)(f, images, options.pop("maps"), **options)


@pytest.mark.slow
def test_what_a_function_must_make_is_told(case):
    _, images, maps = case
    with pytest.raises(ValueError, match="`radius` must be above 0"):
        jv.metrics.max_sensitivity(lambda x: maps, images, radius=-1.0)
    with pytest.raises(ValueError, match="`attribute` must make one map per image: got 2 for 3"):
        jv.metrics.max_sensitivity(lambda x: maps[:2], images)
    with pytest.raises(ValueError, match="`attribute` must be finite"):
        jv.metrics.max_sensitivity(lambda x: maps * np.nan, images)
