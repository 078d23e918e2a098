"""Measures of a map alone, and of where it points."""

import numpy as np
import pytest
from hypothesis import given, strategies
from judges import slow_gini

import jaxviz as jv

NUMBERS = strategies.lists(strategies.integers(-9, 9), min_size=6, max_size=6)


@given(NUMBERS)
def test_sparseness_is_half_the_relative_mean_difference(numbers):
    heatmap = np.asarray(numbers, float).reshape(2, 3)
    found = jv.metrics.sparseness(heatmap)
    if not heatmap.any():
        assert np.isnan(found)
    else:
        np.testing.assert_allclose(found, slow_gini(heatmap), atol=1e-12)


@given(NUMBERS)
def test_complexity_is_the_entropy_of_the_shares(numbers):
    heatmap = np.asarray(numbers, float).reshape(2, 3)
    found = jv.metrics.complexity(heatmap)
    shares = [abs(v) / max(sum(map(abs, numbers)), 1) for v in numbers]
    expected = sum(-p * np.log(p) for p in shares if p > 0) if any(numbers) else np.nan
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_scale_does_not_count(scale):
    heatmap = np.asarray([[[1.0, 2.0], [-3.0, 0.0]]])
    for judge in (jv.metrics.sparseness, jv.metrics.complexity):
        np.testing.assert_allclose(judge(heatmap * scale), judge(heatmap), rtol=1e-12)


def test_the_extremes():
    one, all_alike = np.zeros((1, 4, 5)), np.ones((1, 4, 5))
    one[0, 2, 3] = -7
    np.testing.assert_allclose(jv.metrics.sparseness(one), 1 - 1 / 20)
    np.testing.assert_allclose(jv.metrics.sparseness(all_alike), 0, atol=1e-15)
    np.testing.assert_allclose(jv.metrics.complexity(one), 0)
    np.testing.assert_allclose(jv.metrics.complexity(all_alike), np.log(20))


def slow_pointing(heatmap, mask, tolerance):
    at = divmod(int(np.argmax(heatmap)), heatmap.shape[1])
    return any(np.hypot(r - at[0], c - at[1]) <= tolerance for r, c in np.argwhere(mask))


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2])
def test_pointing_equals_the_loop(rng, tolerance):
    maps = rng.normal(size=(30, 6, 7))
    masks = rng.random((30, 6, 7)) < 0.08
    masks[:, 3, 3] = True
    expected = [slow_pointing(m, o, tolerance) for m, o in zip(maps, masks, strict=True)]
    found = jv.metrics.pointing_game(maps, masks, tolerance=tolerance)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1


def test_energy_equals_the_loop(rng):
    maps, masks = rng.normal(size=(5, 4, 3)), rng.random((5, 4, 3)) < 0.5
    masks[:, 0, 0] = True
    for n, found in enumerate(jv.metrics.energy_pointing_game(maps, masks)):
        pairs = list(zip(maps[n].ravel(), masks[n].ravel(), strict=True))
        inside = sum(v for v, inside in pairs if inside and v > 0)
        assert found == pytest.approx(inside / sum(v for v, _ in pairs if v > 0))


def test_maps_that_point_nowhere_are_undefined():
    mask = np.ones((2, 2), bool)
    assert np.isnan(jv.metrics.pointing_game(np.ones((2, 2)), mask))
    assert np.isnan(jv.metrics.energy_pointing_game(-np.ones((2, 2)), mask))


def test_a_single_map_gives_a_number_and_labels_of_0_and_1_are_masks():
    heatmap = np.asarray([[1.0, 0.0], [0.0, 0.0]])
    for judge in (jv.metrics.pointing_game, jv.metrics.energy_pointing_game):
        assert judge(heatmap, np.asarray([[1, 0], [0, 0]])).shape == ()
    for judge in (jv.metrics.sparseness, jv.metrics.complexity):
        assert judge(heatmap).shape == ()


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        (np.zeros((2, 2), bool), {}, "`masks` must each hold a pixel of the object: 0 is empty"),
        (np.ones((2, 3), bool), {}, "`masks` must be bool, one per map"),
        (np.full((2, 2), 0.5), {}, "`masks` must be bool, one per map"),
        (np.ones((2, 2), bool), {"tolerance": -1}, "`tolerance` must be at least 0 pixels"),
    ],
)
def test_what_breaks_a_rule_is_told(masks, options, message):
    with pytest.raises(ValueError, match=message):
        jv.metrics.pointing_game(np.eye(2), masks, **options)
