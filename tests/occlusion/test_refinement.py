"""Coarse to fine: exact where it says so, linear in between, and exact altogether at share 1."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.refinement import Refinement, check_refinement, make_stages
from jaxviz.occlusion.result import load_occlusion
from jaxviz.scoring.task import Task

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


@pytest.mark.parametrize(
    "refine", [(1, 0.5), (2.5, 0.5), (4, 1.5), (4, -0.1), (4, 0.5, 1.5), (4,), (4, 0.5, 0.1, 0.1)]
)
def test_a_refinement_out_of_range_is_refused(refine):
    with pytest.raises(ValueError, match="`refine` must be"):
        check_refinement(refine)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_by_rank_the_same_positions_come_in_the_order_of_how_much_scores_vary(share):
    truth = np.random.default_rng(0).random((11, 9, 2)) ** 4
    stages = make_stages(truth.shape[:2], Refinement(3, share))
    first = truth[*stages.coarse.T]
    ranked, sorted_ = stages.finer(first, by_rank=True), stages.finer(first)
    assert {*map(tuple, ranked)} == {*map(tuple, sorted_)}
    few = make_stages(truth.shape[:2], Refinement(3, share / 2))
    assert {*map(tuple, few.finer(first))} == {*map(tuple, ranked[: few.count])}


def bumpy(images):
    """Scores that vary much where the first image row is occluded, and hardly elsewhere."""
    weights = np.linspace(0, 1e-3, images.shape[1] * images.shape[2]).reshape(images.shape[1:3])
    weights[:3] += np.random.default_rng(0).random((3, images.shape[2]))
    weights = jnp.asarray(weights, images.dtype)[None, :, :, None]
    return jnp.stack([(images * weights).sum((1, 2, 3)), images.mean((1, 2, 3))], -1)


IMAGES = np.random.default_rng(1).random((3, 24, 24, 1), np.float32)


@pytest.mark.parametrize("error", [0.0, 0.02, 1.0])
def test_rounds_end_once_interpolation_is_right(error):
    everything = occlude(bumpy, IMAGES, patch=3, stride=1)
    plain = occlude(bumpy, IMAGES, patch=3, stride=1, refine=(4, 0.6))
    occ = occlude(bumpy, IMAGES, patch=3, stride=1, refine=(4, 0.6, error))
    np.testing.assert_array_equal(occ.scores[occ.exact], everything.scores[occ.exact])
    assert (plain.exact >= occ.exact).all()
    counts = occ.exact.sum((1, 2))
    if error == 0.0:
        np.testing.assert_array_equal(occ.exact, plain.exact)
    elif error == 1.0:  # after the first of four rounds
        coarse = 49 + round(0.6 * plain.exact[0].size) / 4
        np.testing.assert_allclose(counts, coarse, atol=1)
    else:
        assert (counts < plain.exact.sum((1, 2))).all() and (counts > 49).all()
        assert (occ.interpolation_error <= error).all()
        # What is told is about what the interpolated positions are off by.
        change = np.abs(everything.scores - everything.base[:, None, None]).max((1, 2, 3))
        wrong = np.abs(occ.scores - everything.scores).max((1, 2, 3)) / change
        assert (wrong <= 2 * error).all()
    one = occlude(bumpy, IMAGES[1], patch=3, stride=1, refine=(4, 0.6, error))
    np.testing.assert_array_equal(one.exact, occ.exact[1])
    np.testing.assert_allclose(one.interpolation_error, occ.interpolation_error[1], rtol=1e-3)


def test_the_error_that_is_told_is_that_where_scores_vary_least():
    everything = occlude(bumpy, IMAGES[0], patch=3, stride=1)
    occ = occlude(bumpy, IMAGES[0], patch=3, stride=1, refine=(4, 0.2))
    coarse = occlude(bumpy, IMAGES[0], patch=3, stride=1, refine=(4, 0.0))
    assert np.isnan(coarse.interpolation_error)
    stages = make_stages(occ.grid.shape, Refinement(4, 0.2))
    ranked = stages.finer(everything.scores[*stages.coarse.T], by_rank=True)
    quarter = ranked[-(-len(ranked) // 4) * -1 :].T
    wrong = np.abs(everything.scores - coarse.scores)[*quarter].max()
    change = np.abs(occ.scores - occ.base)[occ.exact].max()
    np.testing.assert_allclose(occ.interpolation_error, wrong / change, rtol=1e-4)
    assert f"off by {occ.interpolation_error:.2g}" in repr(occ)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_without_a_value_does_not_hinder_the_error(value):
    def hole(images):
        scores = bumpy(images)
        there = images[:, 10, 10, 0] == 0
        return jnp.where(there[:, None], jnp.asarray(value, scores.dtype), scores)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        warnings.filterwarnings("ignore", "`f` gave NaN")
        occ = occlude(hole, IMAGES[:1], patch=3, stride=1, refine=(4, 0.6, 1.0))
    assert occ.interpolation_error <= 1 and occ.exact.mean() < 0.5


@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_rounds_cost_no_more_than_the_positions_that_they_score(method, monkeypatch):
    launched = []
    of_positions = Task.positions_from

    def counted(task, row, block):
        launched.append(block.positions * block.images)
        return of_positions(task, row, block)

    monkeypatch.setattr(Task, "positions_from", counted)
    occ = occlude(bumpy, IMAGES, patch=4, stride=2, refine=(3, 0.3, 0.0), method=method)
    asked = occ.exact.sum() + len(IMAGES)
    launched = sum(launched[1:])  # the first is the one that is compiled for
    assert asked <= launched <= 1.5 * asked


def test_an_interruption_at_the_end_loses_nothing():
    def stop(done, total):
        if done >= total:
            raise KeyboardInterrupt

    occ = occlude(bumpy, IMAGES, patch=3, stride=1, refine=(4, 0.6, 1.0), progress=stop)
    assert not np.isnan(occ.scores).any() and not np.isnan(occ.interpolation_error).any()


def test_images_that_were_finished_before_an_interruption_tell_their_error():
    def stop(done, total):
        if done > 0.5 * total:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        occ = occlude(bumpy, IMAGES, patch=3, stride=1, refine=(4, 0.6), progress=stop)
    assert np.isnan(occ.interpolation_error).tolist() == [False, True, True]


def test_a_scorer_that_changes_nothing_is_interpolated_without_error():
    occ = occlude(lambda x: jnp.ones((len(x), 2)), IMAGES, patch=3, refine=(2, 0.5, 0.1))
    np.testing.assert_array_equal(occ.interpolation_error, 0)


def test_the_error_is_saved(tmp_path):
    occ = occlude(bumpy, IMAGES, patch=3, refine=(2, 0.5, 0.01))
    occ.save(tmp_path / "occ.npz")
    again = load_occlusion(tmp_path / "occ.npz")
    np.testing.assert_array_equal(again.interpolation_error, occ.interpolation_error)


def test_the_kernel_cannot_end_early():
    with pytest.raises(ValueError, match=r"`refine` must be \(factor, share\) here"):
        occlusion_scores(bumpy, IMAGES[0], patch=3, refine=(2, 0.5, 0.1))
