"""Coarse to fine: exact where it says so, linear in between, and exact altogether at share 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.occlusion.refinement import Refinement, check_refinement, make_stages

SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 13))


def refined(truth, factor, share):
    """What the stages make of scores (rows, cols, K); and which are exact."""
    stages = make_stages(truth.shape[:2], Refinement(factor, share))
    coarse = stages.coarse
    first = truth[*coarse.T]
    finer = stages.finer(first)
    asked = np.concatenate([coarse, finer])
    assert len(np.unique(asked, axis=0)) == len(asked) and len(finer) == stages.count
    exact = np.zeros(truth.shape[:2], bool)
    exact[*asked.T] = True
    return stages.scores(first, finer, truth[*finer.T]), exact


def slow_between(truth, known, at):
    """The score at (row, col), of the coarse rows and cols next to it, each weighed by nearness."""
    sides = []
    for place, lines in zip(at, known, strict=True):
        low, high = max(k for k in lines if k <= place), min(k for k in lines if k >= place)
        share = (place - low) / (high - low) if low < high else 0.0
        sides.append([(low, 1 - share), (high, share)] if share else [(low, 1.0)])
    total = np.zeros(truth.shape[2])
    with np.errstate(invalid="ignore"):
        for i, a in sides[0]:
            # Along a row first: which infinities meet there is part of the answer.
            total = total + a * sum(b * truth[i, j] for j, b in sides[1])
    return total


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(2, 5), st.floats(0, 1), st.integers(0, 99), st.floats(0, 0.3))
def test_exact_positions_are_exact_and_the_others_between_their_neighbours(
    shape, factor, share, seed, bad
):
    rng = np.random.default_rng(seed)
    truth = rng.random((*shape, 2))
    for value in (np.nan, np.inf, -np.inf):
        truth[rng.random(truth.shape) < bad / 3] = value
    scores, exact = refined(truth, factor, share)
    known = [sorted({*range(0, size, factor), size - 1}) for size in shape]
    coarse = len(known[0]) * len(known[1])
    assert exact.sum() == min(coarse + round(share * exact.size), exact.size)
    np.testing.assert_array_equal(scores[exact], truth[exact])
    for at in np.argwhere(~exact):
        np.testing.assert_allclose(scores[*at], slow_between(truth, known, at), rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(2, 5))
def test_scores_that_are_linear_in_the_position_are_interpolated_exactly(shape, factor):
    i, j = np.indices(shape)
    truth = np.stack([2.0 * i + 3.0 * j, 1.0 - i], -1)
    np.testing.assert_allclose(refined(truth, factor, 0.0)[0], truth, atol=1e-12)


def test_finer_positions_lie_where_the_scores_vary():
    truth = np.zeros((17, 17, 1))
    truth[8:, :] = 1.0
    _, exact = refined(truth, 4, 0.2)
    finer = np.argwhere(exact & (np.indices((17, 17)) % 4 != 0).any(0))
    assert finer[:, 0].min() >= 4 and finer[:, 0].max() < 8


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_window_spoils_its_neighbours_only(value):
    truth = np.arange(36.0).reshape(6, 6, 1)
    truth[2, 2] = value
    scores, exact = refined(truth, 2, 0.0)
    assert np.isfinite(scores).sum() == 36 - 9 and exact.sum() == 16
    rows, cols = np.nonzero(~np.isfinite(scores[..., 0]))
    assert {*rows, *cols} == {1, 2, 3}
    # With positions to spare, those are scored that would have been spoilt.
    scores, exact = refined(truth, 2, 12 / 36)
    assert np.isfinite(scores).sum() == 35 and exact.sum() == 28


@pytest.mark.parametrize("refine", [(1, 0.5), (2.5, 0.5), (4, 1.5), (4, -0.1)])
def test_a_refinement_out_of_range_is_refused(refine):
    with pytest.raises(ValueError, match="`refine` must be"):
        check_refinement(refine)
