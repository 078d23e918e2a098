"""Windows cut short: the bound keeps the tolerance, rests on what was measured, and is told."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from scorers import fading

from jaxviz.incremental.approximate import FIELDS
from jaxviz.occlusion import score, segments, tolerance
from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.result import Approximation, load_occlusion
from jaxviz.occlusion.segments import occlude_segments
from jaxviz.occlusion.tolerance import (
    AROUND,
    CONFIDENCE,
    FADING,
    MARGIN,
    MARGIN_OF_RARE,
    RANDOM,
    SAMPLED,
    approximate_evaluators,
    influence,
    margin_of,
    nearest,
    scales,
    shares_of,
    spread_at_random,
)
from jaxviz.perturbation.grid import make_grid
from jaxviz.scoring.evaluators import Costs, Incremental

SHAPE, HIDE = (44, 40, 3), dict(patch=6, stride=4, fill=0.5)


@pytest.fixture(scope="module")
def f():
    return fading()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((2, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def exact(f, images):
    return occlude(f, images, **HIDE, method="incremental")


@pytest.fixture(scope="module")
def rough(f, images):
    return occlude(f, images, **HIDE, method="incremental", tolerance=0.5)


def flat(occ):
    """Scores (N, positions scored, K) in float64, and starts of the positions."""
    scored = ~np.isnan(occ.scores[0, ..., 0])
    return np.float64(occ.scores[:, scored]), occ.grid.starts[scored]


def slow_sample(exact):
    """The sampled positions, and the scale of every image, by loops from the definition."""
    scores, starts = flat(exact)
    count, images = len(starts), range(len(scores))
    draws = np.random.default_rng(0).random(RANDOM)
    edges = [k * count // RANDOM for k in range(RANDOM + 1)]
    first = [edges[k] + int(draw * (edges[k + 1] - edges[k])) for k, draw in enumerate(draws)]
    change = np.abs(scores - exact.base[:, None]).max(2)
    most = [max(change[n][p] for p in first) for n in images]
    strength = {p: max(change[n][p] / most[n] for n in images) for p in first}
    top = sorted(first, key=lambda p: -strength[p])[:3]
    away = {
        p: min(max(abs(starts[p] - starts[q])) for q in top) for p in range(count) if p not in first
    }
    sample = first + sorted(away, key=lambda p: away[p])[:AROUND]
    return sample, [max(change[n][p] for p in sample) for n in images]


def slow_error(ours, exact, positions, size):
    """The largest error as a share of its image's scale."""
    pairs = zip(flat(ours)[0], flat(exact)[0], size, strict=True)
    return max(np.abs(a[p] - b[p]).max() / s for a, b, s in pairs for p in positions)


@pytest.mark.slow
def test_the_bound_rests_on_what_was_measured_and_holds(exact, rough):
    told = rough.approximation
    assert told.tolerance == 0.5 and told.checked == SAMPLED and told.confidence == CONFIDENCE
    sample, size = slow_sample(exact)
    assert len(set(sample)) == SAMPLED
    found = slow_error(rough, exact, sample, size)
    assert told.checked_error == pytest.approx(found, rel=1e-3) and found > 0.01
    assert MARGIN * told.checked_error <= told.bound * (1 + 1e-9) and told.bound <= 0.5
    everywhere = range(exact.grid.size)
    largest = np.abs(flat(exact)[0] - exact.base[:, None]).max((1, 2))
    assert slow_error(rough, exact, everywhere, largest) <= told.bound
    np.testing.assert_allclose(rough.base, exact.base, rtol=1e-5)


@pytest.mark.slow
def test_a_sample_that_misses_is_told_by_the_next_narrower(f, images, rough, monkeypatch):
    field = rough.approximation.field
    narrower = FIELDS[FIELDS.index(field) - 1]
    largest = tolerance.Errors.largest
    missed = lambda self, field: {narrower: 0.4}.get(field, 1e-4)  # noqa: E731
    monkeypatch.setattr(tolerance.Errors, "largest", missed)
    grid = make_grid(SHAPE[:2], patch=6, stride=4)
    tasks = []
    monkeypatch.setattr(score, "execute", lambda task, **o: tasks.append(task) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        occlude(f, images, **HIDE, method="incremental")
    errors = tolerance.Errors(tasks[0], Incremental.on_grid(grid), 0.5, "auto")
    assert errors.bound(field) == pytest.approx(MARGIN * FADING * 0.4)
    monkeypatch.setattr(tolerance.Errors, "largest", largest)
    assert errors.bound(field) == pytest.approx(rough.approximation.bound, rel=0.5)


@pytest.mark.slow
def test_less_tolerance_means_wider_windows(f, images, exact, rough):
    fine = occlude(f, images, **HIDE, method="incremental", tolerance=0.2)
    assert fine.approximation.bound <= 0.2
    assert fine.approximation.field is None or fine.approximation.field > rough.approximation.field
    everywhere, ones = range(exact.grid.size), np.ones(2)
    assert slow_error(fine, exact, everywhere, ones) < slow_error(rough, exact, everywhere, ones)


@pytest.mark.slow
def test_no_tolerance_is_exact(f, images, exact):
    same = occlude(f, images, **HIDE, method="incremental", tolerance=0.0)
    np.testing.assert_array_equal(same.scores, exact.scores)
    assert same.approximation == Approximation(0.0, 0.0, 1.0, SAMPLED, 0.0, None)
    assert "approximate" not in repr(same)
    assert exact.approximation is None and "approximate" not in repr(exact)


def test_it_is_labelled_and_survives_the_disk(tmp_path, rough, exact):
    told = f"approximate, error up to {rough.approximation.bound:.2g} of the largest change"
    assert told in repr(rough)
    assert dict(rough.config)["tolerance"] == "0.5" and "tolerance" not in dict(exact.config)
    rough.save(tmp_path / "rough.npz")
    again = load_occlusion(tmp_path / "rough.npz")
    assert again.approximation == rough.approximation and repr(again) == repr(rough)


def test_what_older_files_hold_is_no_bound():
    assert Approximation.of([0.1, 0.05, 15, 7]) == Approximation(0.1, np.inf, 0.0, 15, 0.05, 7)
    assert Approximation.of([0.1, 0.0, 15, None]) == Approximation.none(0.1, 15)
    assert Approximation.of(None) is None


@pytest.mark.slow
def test_how_it_is_run_changes_nothing(f, images, rough):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("images", "positions"))
    how = dict(mesh=mesh, batch_size=5, progress=lambda done, total: None)
    other = occlude(f, images, **HIDE, method="incremental", tolerance=0.5, **how)
    assert other.approximation.field == rough.approximation.field
    np.testing.assert_allclose(other.scores, rough.scores, atol=1e-5)


@pytest.mark.slow
def test_a_single_image_a_region_and_channels(f, images):
    options = dict(HIDE, stride=3, region=(4, 4, 34, 34), channels=[0, 2], method="incremental")
    right = occlude(f, images[0], **options)
    near = occlude(f, images[0], **options, tolerance=0.8)
    right, near = (replace(x, scores=x.scores[None], base=x.base[None]) for x in (right, near))
    found = slow_error(near, right, *slow_sample(right))
    assert near.approximation.field is not None
    assert near.approximation.checked_error == pytest.approx(found, rel=1e-3)


def test_the_kernel_takes_the_width_that_a_run_found(f, images, rough, exact):
    how = dict(method="incremental", field=rough.approximation.field, batch_size=16)
    scores = jax.jit(lambda f, image: occlusion_scores(f, image, **HIDE, **how))(f, images[0])
    np.testing.assert_allclose(scores, rough.scores[0], atol=1e-5)
    assert np.abs(scores - exact.scores[0]).max() > 1e-4


def test_with_refine_what_is_scored_is_approximate_and_the_rest_interpolated(f, images, rough):
    both = occlude(f, images, **HIDE, method="incremental", tolerance=0.5, refine=(2, 0.1))
    assert both.approximation == rough.approximation
    np.testing.assert_allclose(both.scores[both.exact], rough.scores[both.exact], atol=1e-5)
    assert 0.25 < both.exact.mean() < 0.5
    assert f"{both.exact.mean():.0%} of the positions scored, interpolation off by" in repr(both)


@pytest.mark.slow
def test_auto_runs_exact_what_no_windows_can_speed_up():
    def f(images):
        return jnp.sort(images.reshape(len(images), -1))[:, -3:]

    image = np.random.default_rng(0).random((12, 12, 1), np.float32)
    ours = occlude(f, image, patch=4, stride=1, tolerance=0.3)
    assert ours.approximation == Approximation.none(0.3, 0)
    np.testing.assert_array_equal(ours.scores, occlude(f, image, patch=4, stride=1).scores)


@pytest.mark.slow
def test_auto_runs_on_windows_where_a_search_pays(f, images, rough, monkeypatch):
    monkeypatch.setattr(tolerance, "_worth_a_search", lambda *_: True)
    ours = occlude(f, images, **HIDE, tolerance=0.5)
    np.testing.assert_array_equal(ours.scores, rough.scores)
    assert ours.approximation == rough.approximation


def test_auto_is_exact_where_a_search_costs_more_than_narrow_windows_save(f, images):
    ours = occlude(f, images[:1], **HIDE, tolerance=0.5)
    np.testing.assert_array_equal(ours.scores, occlude(f, images[:1], **HIDE).scores)
    assert ours.approximation == Approximation.none(0.5, 0)


class Costed(NamedTuple):
    """A task of some positions and images, whose windows take a thousandth of a pass or a tenth."""

    positions: range
    images: range
    device: jax.Device = jax.devices()[0]

    def costs(self, evaluator):
        return Costs(0, 0, 0.1, 0.01 if evaluator.field is None else 1e-4, 100, 100)


@pytest.mark.parametrize(
    "positions, images, worth",
    [(200, 1, False), (2000, 1, True), (200, 20, True), (60, 1000, False)],
)
def test_a_search_is_worth_its_programs_and_samples(positions, images, worth):
    task: Any = Costed(range(positions), range(images))
    exact = Incremental((4, 4), (1, 1), (0, 0))
    narrowest = replace(exact, field=0)
    assert tolerance._worth_a_search(task, exact, narrowest) == worth


@pytest.mark.slow
def test_few_positions_are_exact(f, images):
    ours = occlude(f, images, patch=6, stride=7, tolerance=0.5)
    assert ours.grid.size == 42 and ours.approximation == Approximation.none(0.5, 0)


def test_the_sample_is_spread_and_then_lies_around_the_most_influential():
    for count in (SAMPLED + 1, 1000):
        first = spread_at_random(count)
        assert len(set(first.tolist())) == RANDOM and 0 <= first.min() and first.max() < count
        assert np.diff(first).max() < 2 * count / RANDOM + 1
    starts = make_grid((40, 40), patch=4, stride=2).starts.reshape(-1, 2)
    first = spread_at_random(len(starts))
    strength = np.zeros(RANDOM)
    strength[[5, 20, 40]] = 3, 2, 1
    around = nearest(starts, first, strength)
    assert len(set(around)) == AROUND and not set(around) & set(first)
    away = np.abs(starts[around][:, None] - starts[first[[5, 20, 40]]]).max(2).min(1)
    assert away.max() <= 2


def test_errors_are_shares_of_the_largest_change_of_an_image():
    clean, exact = np.array([[1.0, 0.0], [0.0, 8.0]]), np.zeros((2, 3, 2))
    exact[:] = clean[:, None]
    exact[0, 1, 1], exact[1, 2, 0] = 10, 0.25
    np.testing.assert_array_equal(scales(exact, clean), [10, 0.25])
    np.testing.assert_array_equal(influence(exact, clean), [0, 1, 1])


def test_changes_that_are_mostly_rounding_do_not_count():
    clean = np.array([[100.0], [0.0]])
    scale = scales(clean[:, None] + np.array([[[1e-5]], [[0.0]]]), clean)
    np.testing.assert_allclose(scale, [0.1, 0.0])
    assert shares_of(np.array([[[0.01]], [[0.0]]]), scale).max() == pytest.approx(0.1)
    assert shares_of(np.array([[[0.01]], [[1e-9]]]), scale).max() == np.inf


def test_where_large_errors_are_rare_the_margin_is_wider(rng):
    rare = np.zeros((2, 62))
    rare[1, :20] = rng.random(20)
    assert margin_of(rare) == MARGIN_OF_RARE > MARGIN
    assert margin_of(rare + 0.03 * rare.max()) == MARGIN
    assert margin_of(np.zeros((1, 62))) == MARGIN


def test_nan_is_never_within_a_tolerance():
    assert shares_of(np.array([[[0.0, np.nan]]]), np.ones(1)).max() == np.inf


def test_ctrl_c_while_checking_is_ctrl_c(f, images, monkeypatch):
    execute = tolerance.execute
    stopped = lambda *args, **kw: execute(*args, **kw)._replace(partial=True)  # noqa: E731
    monkeypatch.setattr(tolerance, "execute", stopped)
    with pytest.raises(KeyboardInterrupt):
        occlude(f, images, **HIDE, method="incremental", tolerance=0.2)


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(method="dense"), '`tolerance` cuts windows short, .* not with method "dense"'),
        (dict(method="fast"), "`method` must be"),
        (dict(tolerance=-0.1), "`tolerance` must be a share .* from 0 to 1: got -0.1"),
        (dict(tolerance=2), "`tolerance` must be a share .*: got 2"),
        (dict(tolerance=np.nan), "`tolerance` must be a share .*: got nan"),
    ],
)
def test_what_has_no_windows_or_is_no_share_is_refused(f, images, options, match):
    with pytest.raises(ValueError, match=match):
        occlude(f, images, **HIDE, **{"tolerance": 0.1, **options})


@pytest.mark.slow
def test_labels_have_no_windows(f, images, monkeypatch):
    tasks = []
    execute = segments.execute_each
    keep = lambda some, *rest, **options: tasks.extend(some) or execute(some, *rest, **options)  # noqa: E731
    monkeypatch.setattr(segments, "execute_each", keep)
    occlude_segments(f, images, np.arange(44 * 40).reshape(44, 40) // 880)
    grid = make_grid(SHAPE[:2], patch=6)
    with pytest.raises(ValueError, match="`tolerance` cuts windows short, which only patches"):
        approximate_evaluators("incremental", grid, tasks[0], 0.1, "auto")
    assert Incremental.on_grid(grid).field is None
