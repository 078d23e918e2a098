"""Picking a target and comparing scores, against loops over images and positions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxviz.scoring.targets import compare, select

N, ROWS, COLS, K = 3, 2, 4, 5


@pytest.fixture
def scores(rng):
    return rng.uniform(size=(N, ROWS, COLS, K))


@pytest.fixture
def base(rng):
    return rng.uniform(size=(N, K))


def slow_select(scores, base, weigh):
    """`weigh` (image, class) -> the class's weight."""
    picked, clean = np.zeros(scores.shape[:-1]), np.zeros(len(base))
    for n in range(len(base)):
        for k in range(base.shape[1]):
            clean[n] += weigh(n, k) * base[n, k]
            for position in np.ndindex(scores.shape[1:-1]):
                picked[(n, *position)] += weigh(n, k) * scores[(n, *position, k)]
    return picked, clean


WEIGHTS = np.random.default_rng(1).normal(size=(N, K))


@pytest.mark.parametrize(
    "target, weigh",
    [
        (2, lambda n, k: k == 2),
        (np.int64(2), lambda n, k: k == 2),
        (-1, lambda n, k: k == K - 1),
        ([1, 0, 4], lambda n, k: k == [1, 0, 4][n]),
        (np.array([1, 0, -1]), lambda n, k: k == [1, 0, 4][n]),
        (np.eye(K)[3], lambda n, k: k == 3),
        (np.eye(K, dtype=int)[[1, 0, 4]], lambda n, k: k == [1, 0, 4][n]),
        ([0.5, 0.0, -0.5, 0.0, 0.0], lambda n, k: [0.5, 0, -0.5, 0, 0][k]),
        (WEIGHTS, lambda n, k: WEIGHTS[n, k]),
    ],
    ids=["int", "numpy", "last", "list", "array", "one hot", "one hots", "weights", "N weights"],
)
def test_select_equals_the_loop(scores, base, target, weigh):
    for ours, wanted in zip(
        select(scores, base, target), slow_select(scores, base, weigh), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_none_is_the_clean_argmax_of_each_image(scores, base):
    winners = base.argmax(-1)
    assert len(set(winners)) > 1
    for ours, wanted in zip(select(scores, base, None), select(scores, base, winners), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_none_is_never_taken_for_weights():
    scores, base = np.arange(16.0).reshape(2, 4, 2), np.array([[1.0, 0.0], [0.0, 1.0]])
    picked, clean = select(scores, base, None)  # the winners 0 and 1, which look one-hot
    np.testing.assert_array_equal(picked, [scores[0, :, 0], scores[1, :, 1]])
    np.testing.assert_array_equal(clean, [1.0, 1.0])


def test_none_passes_over_nan(scores, base):
    base[0] = [np.nan, 0.1, 0.9, np.nan, 0.2]
    picked, clean = select(scores, base, None)
    assert clean[0] == 0.9
    np.testing.assert_array_equal(picked[0], scores[0, ..., 2])


def test_an_infinite_score_of_another_class_does_no_harm(scores, base):
    scores[..., 4], base[:, 4] = -np.inf, -np.inf
    picked, clean = select(scores, base, 2)
    np.testing.assert_array_equal(picked, scores[..., 2])
    np.testing.assert_array_equal(clean, base[:, 2])


def test_a_function_reduces_what_follows_the_positions(rng):
    scores, base = rng.uniform(size=(N, ROWS, COLS, 6, 7, K)), rng.uniform(size=(N, 6, 7, K))
    picked, clean = select(scores, base, lambda scores: scores[..., 2].mean((-1, -2)))
    np.testing.assert_allclose(picked, scores[..., 2].mean((3, 4)))
    np.testing.assert_allclose(clean, base[..., 2].mean((1, 2)))


def test_segments_have_one_axis_of_positions(rng):
    scores, base = rng.uniform(size=(N, 6, K)), rng.uniform(size=(N, K))
    picked, _ = select(scores, base, [0, 1, 2])
    np.testing.assert_array_equal(picked[1], scores[1, :, 1])


@pytest.mark.parametrize(
    "target, match",
    [
        (5, "`target` must be a class from 0 to 4: got 5"),
        (-6, "`target` must be a class from 0 to 4: got -6"),
        ([0, 1, 7], r"`target` must be a class from 0 to 4: got \[0, 1, 7\]"),
        ([0, 1], r"`target` must be one class or one per image \(3\): got \[0, 1\]"),
        ([0, 0, 2, 0, 0], r"got \[0, 0, 2, 0, 0\]; give weights as floats"),
        ("zebra", r"`target` must be one class or one per image \(3\): got 'zebra'"),
        (True, "`target` must be one class or one per image"),
        (np.ones(4), r"`target` must weigh 5 classes, .* weights of shape \(4,\)"),
        (np.ones((2, 5)), r"`target` must weigh 5 classes, .* weights of shape \(2, 5\)"),
        (1.5, r"`target` must weigh 5 classes, .* weights of shape \(\)"),
        (lambda s: s, r"`target` must reduce scores of shape \(3, 2, 4, 5\) to \(3, 2, 4\)"),
        (lambda s: s.mean(), r"`target` must reduce scores .* got \(\)"),
    ],
)
def test_what_is_no_target_is_refused(scores, base, target, match):
    with pytest.raises(ValueError, match=match):
        select(scores, base, target)


def test_dense_scores_need_a_function(rng):
    with pytest.raises(ValueError, match=r"`target` must be a function for scores of shape \(6, 7"):
        select(rng.uniform(size=(1, 2, 2, 6, 7)), rng.uniform(size=(1, 6, 7)), 3)


FORMULAS = {
    "drop": lambda f, g: f - g,
    "raw": lambda f, g: g,
    "complement": lambda f, g: 1 - g,
    "relative_drop": lambda f, g: (f - g) / abs(f),
    "log_odds_drop": lambda f, g: np.log(f / (1 - f)) - np.log(g / (1 - g)),
}
INSIDE = st.floats(1e-6, 1 - 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("score", FORMULAS)
@given(f=INSIDE, g=INSIDE)
def test_compare_is_the_formula(score, f, g):
    ours = compare(np.full((2, 1, 3), g), np.full(2, f), score)
    assert ours.shape == (2, 1, 3) and ours.dtype == np.float64
    np.testing.assert_allclose(ours, FORMULAS[score](f, g), rtol=1e-9, atol=1e-9)


def test_each_image_is_compared_with_its_own_clean_score():
    drops = compare(np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([3.0, 5.0]), "drop")
    np.testing.assert_array_equal(drops, [[2, 1], [4, 3]])


def test_a_relative_drop_of_a_negative_score_keeps_its_sign():
    assert compare(np.array([[-3.0]]), np.array([-2.0]), "relative_drop") == 0.5


def test_a_relative_drop_from_nothing_is_unknown():
    assert np.isnan(compare(np.array([[0.5]]), np.array([0.0]), "relative_drop"))


def test_odds_of_certainty_are_finite():
    assert np.isfinite(compare(np.array([[0.0, 1.0]]), np.array([1.0]), "log_odds_drop")).all()


def test_odds_pass_over_what_was_not_computed():
    odds = compare(np.array([[np.nan, 0.5]]), np.array([0.5]), "log_odds_drop")
    np.testing.assert_array_equal(odds, [[np.nan, 0]])


@pytest.mark.parametrize(
    "picked, clean", [([1.5], 0.5), ([-0.1], 0.5), ([0.5], 2.0), ([np.nan, -1.0], 0.5)]
)
def test_odds_of_what_is_no_probability_are_refused(picked, clean):
    with pytest.raises(ValueError, match='`score` "log_odds_drop" needs probabilities'):
        compare(np.array([picked]), np.array([clean]), "log_odds_drop")


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match='`score` must be "drop", "raw", .* got .gain.'):
        compare(np.zeros((1, 1)), np.zeros(1), "gain")  # pyright: ignore


@pytest.mark.parametrize("kind", [int, bool, float])
def test_a_one_hot_vector_of_any_kind_picks_its_class(kind):
    scores, base = np.arange(24.0).reshape(2, 4, 3), np.arange(6.0).reshape(2, 3)
    picked, clean = select(scores, base, np.eye(3, dtype=kind)[1])
    np.testing.assert_array_equal(picked, scores[..., 1])
    np.testing.assert_array_equal(clean, base[:, 1])


def test_integers_that_may_be_one_hot_or_one_class_per_image_are_refused():
    scores, base = np.zeros((3, 4, 3)), np.zeros((3, 3))
    with pytest.raises(ValueError, match="give a one-hot vector as floats"):
        select(scores, base, np.array([0, 1, 0]))


def test_a_class_without_weight_does_not_count_even_at_minus_infinity():
    scores = np.array([[[-np.inf, 2.0, 1.0], [-np.inf, -np.inf, 4.0]]])
    base = np.array([[-np.inf, 3.0, 5.0]])
    picked, clean = select(scores, base, [0.0, 1.0, -1.0])
    np.testing.assert_array_equal(picked, [[1.0, -np.inf]])
    np.testing.assert_array_equal(clean, [-2.0])
    np.testing.assert_array_equal(compare(picked, clean, "drop"), [[-3.0, np.inf]])


def test_a_sum_without_a_value_is_nan():
    scores = np.array([[[np.inf, -np.inf], [np.nan, 1.0]]])
    picked, _ = select(scores, np.zeros((1, 2)), [1.0, 1.0])
    assert np.isnan(picked).all()
    picked, _ = select(scores, np.zeros((1, 2)), [0.0, 1.0])
    assert picked[0, 0] == -np.inf and np.isnan(picked[0, 1])


@pytest.mark.parametrize("score", ["drop", "relative_drop"])
def test_a_drop_from_minus_infinity_to_itself_has_no_value(score):
    assert np.isnan(compare(np.array([[-np.inf]]), np.array([-np.inf]), score))


@pytest.mark.parametrize(
    ("target", "match"),
    [([[1], [2, 3]], "lists of unequal length"), (3.0, "give a class as a whole number")],
)
def test_targets_that_are_no_array_or_no_integer_are_refused(scores, base, target, match):
    with pytest.raises(ValueError, match=f"`target` must .*{match}"):
        select(scores, base, target)
