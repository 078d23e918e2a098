"""Coarse to fine: exact where it says so, linear in between, and exact altogether at share 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.occlusion.refinement import Refinement, check_refinement, coarse_to_fine

SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 13))


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(2, 5), st.floats(0, 1), st.integers(0, 99))
def test_exact_positions_are_exact_and_as_many_as_asked(shape, factor, share, seed):
    truth = np.random.default_rng(seed).random((*shape, 3))
    asked = []

    def score(positions):
        asked.append(positions)
        return truth[positions[:, 0], positions[:, 1]]

    scores, exact = coarse_to_fine(score, shape, Refinement(factor, share))
    np.testing.assert_array_equal(scores[exact], truth[exact])
    everything = np.concatenate(asked)
    assert len(np.unique(everything, axis=0)) == len(everything) == exact.sum()
    coarse = len(asked[0])
    assert exact.sum() == min(coarse + round(share * exact.size), exact.size)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(2, 5))
def test_scores_that_are_linear_in_the_position_are_interpolated_exactly(shape, factor):
    i, j = np.indices(shape)
    truth = np.stack([2.0 * i + 3.0 * j, 1.0 - i], -1)
    scores, _ = coarse_to_fine(lambda p: truth[p[:, 0], p[:, 1]], shape, Refinement(factor, 0.0))
    np.testing.assert_allclose(scores, truth, atol=1e-12)


def test_finer_positions_lie_where_the_scores_vary():
    truth = np.zeros((17, 17, 1))
    truth[8:, :] = 1.0
    _, exact = coarse_to_fine(lambda p: truth[p[:, 0], p[:, 1]], (17, 17), Refinement(4, 0.2))
    finer = np.argwhere(exact & (np.indices((17, 17)) % 4 != 0).any(0))
    assert finer[:, 0].min() >= 4 and finer[:, 0].max() < 8


@pytest.mark.parametrize("refine", [(1, 0.5), (2.5, 0.5), (4, 1.5), (4, -0.1)])
def test_a_refinement_out_of_range_is_refused(refine):
    with pytest.raises(ValueError, match="`refine` must be"):
        check_refinement(refine)
