"""Windows cut short: no error above the tolerance where it was checked, and told as measured."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxviz.occlusion import occlude as occlusion
from jaxviz.occlusion import tolerance
from jaxviz.occlusion.occlude import occlude, occlude_segments
from jaxviz.occlusion.result import Approximation, load_occlusion
from jaxviz.occlusion.tolerance import CHECKED, SAMPLED, approximate_evaluators, largest_share, pick
from jaxviz.perturbation.grid import make_grid
from jaxviz.scoring.evaluators import Incremental

SHAPE, HIDE = (44, 40, 3), dict(patch=6, stride=4, fill=0.5)


@pytest.fixture(scope="module")
def f():
    """Eight convolutions, so that the effect of a patch fades towards the rim of its window."""
    rng = np.random.default_rng(1)
    sizes = [(3, 3, 3, 6), *[(3, 3, 6, 6)] * 7]
    kernels = [rng.normal(size=s).astype(np.float32) * np.sqrt(2 / np.prod(s[:3])) for s in sizes]
    head = rng.normal(size=(6, 4)).astype(np.float32)

    def run(kernels, head, images):
        x = images
        for kernel in kernels:
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = jax.nn.relu(x)
        return x.mean((1, 2)) @ head

    return Partial(run, [jnp.asarray(k, jnp.float32) for k in kernels], jnp.asarray(head))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((2, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def exact(f, images):
    return occlude(f, images, **HIDE, method="incremental")


@pytest.fixture(scope="module")
def rough(f, images):
    return occlude(f, images, **HIDE, method="incremental", tolerance=0.2)


def slow_checked(exact, scored=None):
    """The checked positions, and the scale of every image, by loops from the definition."""
    count, classes = len(exact.scores), exact.scores.shape[-1]
    flat = exact.scores.reshape(count, -1, classes).astype(np.float64)
    scored = range(flat.shape[1]) if scored is None else scored
    spread = [scored[round(i * (len(scored) - 1) / (SAMPLED - 1))] for i in range(SAMPLED)]
    change = {p: [np.abs(flat[n, p] - exact.base[n]).max() for n in range(count)] for p in spread}
    scales = [max(change[p][n] for p in spread) for n in range(count)]
    strength = {p: max(change[p][n] / scales[n] for n in range(count)) for p in spread}
    return sorted(spread, key=lambda p: -strength[p])[:CHECKED], scales


def slow_error(ours, exact, positions, scales):
    """The largest error as a share of its image's scale."""
    shape = len(exact.scores), -1, exact.scores.shape[-1]
    pairs = zip(ours.scores.reshape(shape), exact.scores.reshape(shape), scales, strict=True)
    errors = [(np.abs(np.float64(a[p]) - b[p]) / s).max() for a, b, s in pairs for p in positions]
    return max(errors)


def test_the_error_is_the_one_measured_and_keeps_the_tolerance(exact, rough):
    told = rough.approximation
    assert told.tolerance == 0.2 and told.checked == CHECKED and told.field is not None
    assert 0.001 < told.error <= 0.2
    assert told.error == pytest.approx(slow_error(rough, exact, *slow_checked(exact)), rel=1e-3)
    np.testing.assert_allclose(rough.base, exact.base, rtol=1e-5)


def test_less_tolerance_means_wider_windows(f, images, exact, rough):
    fine = occlude(f, images, **HIDE, method="incremental", tolerance=0.02)
    assert fine.approximation.error <= 0.02
    assert fine.approximation.field is None or fine.approximation.field > rough.approximation.field
    checked = slow_checked(exact)
    assert slow_error(fine, exact, *checked) < slow_error(rough, exact, *checked)


def test_no_tolerance_is_exact(f, images, exact):
    same = occlude(f, images, **HIDE, method="incremental", tolerance=0.0)
    np.testing.assert_array_equal(same.scores, exact.scores)
    assert same.approximation == Approximation(0.0, 0.0, CHECKED, None)
    assert "approximate" not in repr(same)
    assert exact.approximation is None and "approximate" not in repr(exact)


def test_it_is_labelled_and_survives_the_disk(tmp_path, rough, exact):
    error = rough.approximation.error
    told = f"approximate, error {error:.2g} of the largest change at 15 checked positions"
    assert told in repr(rough)
    assert dict(rough.config)["tolerance"] == "0.2" and "tolerance" not in dict(exact.config)
    rough.save(tmp_path / "rough.npz")
    again = load_occlusion(tmp_path / "rough.npz")
    assert again.approximation == rough.approximation and repr(again) == repr(rough)


def test_how_it_is_run_changes_nothing(f, images, rough):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("images", "positions"))
    how = dict(mesh=mesh, batch_size=5, progress=lambda done, total: None)
    other = occlude(f, images, **HIDE, method="incremental", tolerance=0.2, **how)
    assert other.approximation.field == rough.approximation.field
    np.testing.assert_allclose(other.scores, rough.scores, atol=1e-5)


def test_a_single_image_a_region_and_channels(f, images):
    options = dict(HIDE, region=(4, 4, 34, 34), channels=[0, 2], method="incremental")
    right = occlude(f, images[0], **options)
    near = occlude(f, images[0], **options, tolerance=0.2)
    right, near = (replace(x, scores=x.scores[None], base=x.base[None]) for x in (right, near))
    checked = slow_checked(right, np.flatnonzero(~np.isnan(right.scores[0, ..., 0])))
    assert near.approximation.field is not None
    assert near.approximation.error == pytest.approx(slow_error(near, right, *checked), rel=1e-3)


def test_with_refine_what_is_scored_is_approximate_and_the_rest_interpolated(f, images, rough):
    both = occlude(f, images, **HIDE, method="incremental", tolerance=0.2, refine=(2, 0.1))
    assert both.approximation == rough.approximation
    np.testing.assert_allclose(both.scores[both.exact], rough.scores[both.exact], atol=1e-5)
    assert 0.25 < both.exact.mean() < 0.5
    assert f"{both.exact.mean():.0%} of the positions scored, error" in repr(both)


def test_auto_runs_exact_what_no_windows_can_speed_up():
    def f(images):
        return jnp.sort(images.reshape(len(images), -1))[:, -3:]

    image = np.random.default_rng(0).random((12, 12, 1), np.float32)
    ours = occlude(f, image, patch=4, stride=1, tolerance=0.3)
    assert ours.approximation == Approximation(0.3, 0.0, 0, None)
    np.testing.assert_array_equal(ours.scores, occlude(f, image, patch=4, stride=1).scores)


def test_auto_runs_on_windows(f, images, rough):
    ours = occlude(f, images, **HIDE, tolerance=0.2)
    np.testing.assert_array_equal(ours.scores, rough.scores)
    assert ours.approximation == rough.approximation


def test_few_positions_are_exact(f, images):
    ours = occlude(f, images, patch=6, stride=7, tolerance=0.5)
    assert ours.grid.size == 42 and ours.approximation == Approximation(0.5, 0.0, 0, None)


def test_the_positions_that_change_most_are_checked():
    clean, exact = np.array([[1.0, 0.0], [0.0, 8.0]]), np.zeros((2, 30, 2))
    exact[:] = clean[:, None]
    exact[0, 3:13, 1] = np.arange(1, 11)
    exact[1, 20:25, 0] = 0.25
    scale, checked = pick(exact, clean)
    np.testing.assert_array_equal(scale, [10, 0.25])
    np.testing.assert_array_equal(checked, [*range(3, 13), *range(20, 25)])


def test_changes_that_are_mostly_rounding_do_not_count():
    clean = np.array([[100.0], [0.0]])
    exact = clean[:, None] + np.array([[[1e-5]], [[0.0]]])
    scale, checked = pick(exact, clean)
    np.testing.assert_allclose(scale, [0.1, 0.0])
    assert largest_share(np.array([[[0.01]], [[0.0]]]), scale) == pytest.approx(0.1)
    assert largest_share(np.array([[[0.01]], [[1e-9]]]), scale) == np.inf


def test_nan_is_never_within_a_tolerance():
    assert largest_share(np.array([[[0.0, np.nan]]]), np.ones(1)) == np.inf


def test_ctrl_c_while_checking_is_ctrl_c(f, images, monkeypatch):
    execute = tolerance.execute
    stopped = lambda *args, **kw: execute(*args, **kw)._replace(partial=True)  # noqa: E731
    monkeypatch.setattr(tolerance, "execute", stopped)
    with pytest.raises(KeyboardInterrupt):
        occlude(f, images, **HIDE, tolerance=0.2)


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


def test_labels_have_no_windows(f, images, monkeypatch):
    tasks = []
    execute = occlusion.execute
    keep = lambda task, **options: tasks.append(task) or execute(task, **options)  # noqa: E731
    monkeypatch.setattr(occlusion, "execute", keep)
    occlude_segments(f, images, np.arange(44 * 40).reshape(44, 40) // 880)
    grid = make_grid(SHAPE[:2], patch=6)
    with pytest.raises(ValueError, match="`tolerance` cuts windows short, which only patches"):
        approximate_evaluators("incremental", grid, tasks[0], 0.1, "auto")
    assert Incremental.on_grid(grid).field is None
