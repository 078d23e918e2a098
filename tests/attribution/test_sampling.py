"""Attribution by masked images against the formulas in NumPy, float64, in loops."""

from itertools import permutations, product
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import attribution as att
from jaxviz.attribution.coalitions import shapley_coalitions
from jaxviz.attribution.sampled import grid_labels
from jaxviz.attribution.sensitivity import sobol_designs
from jaxviz.perturbation.masks import RandomGrids

SHAPE = (6, 9, 2)
W = np.random.default_rng(0).normal(size=(6 * 9 * 2, 3)).astype(np.float32) / 4
LABELS = np.repeat(np.repeat([[3, 0, 5], [7, 7, 9]], 3, 0), 3, 1)
METHODS = {
    "rise": (att.rise, {"samples": 30, "cells": 3}),
    "sobol": (att.sobol, {"samples": 4, "cells": 2}),
    "hsic": (att.hsic, {"samples": 30, "cells": 2}),
    "kernel_shap": (att.kernel_shap, {"segments": LABELS}),
    "lime": (att.lime, {"segments": LABELS, "samples": 30}),
    "shapley_sampling": (att.shapley_sampling, {"segments": LABELS, "samples": 5}),
}


def scorer(images):
    return jnp.tanh(images.reshape(images.shape[0], -1) @ jnp.asarray(W, images.dtype)) + 1


def slow_scores(image):
    return np.tanh(image.reshape(-1).astype(np.float64) @ W) + 1


@pytest.fixture
def images(rng):
    return rng.normal(size=(2, *SHAPE)).astype(np.float32)


def spread(shares, labels=LABELS):
    """One value per segment, in the order of their labels, over the pixels."""
    return np.asarray(shares)[np.unique(labels, return_inverse=True)[1].reshape(labels.shape)]


def slow_mask(grid, shifts, cells):
    """A grid enlarged bilinearly to one cell more than the image, then cut at the shifts."""
    out = np.zeros(SHAPE[:2])
    for row, col in np.ndindex(out.shape):
        at, parts = [], []
        for line, size, shift in zip((row, col), out.shape, shifts, strict=True):
            cell = -(-size // cells)
            x = (line + shift + 0.5) * cells / ((cells + 1) * cell) - 0.5
            x = min(max(x, 0), cells - 1)
            low = min(int(x), cells - 2)
            at.append(low)
            parts.append(x - low)
        for dy, dx in product((0, 1), (0, 1)):
            share = (parts[0] if dy else 1 - parts[0]) * (parts[1] if dx else 1 - parts[1])
            out[row, col] += share * grid[at[0] + dy, at[1] + dx]
    return out


def rise_masks(key, count, cells, keep):
    def draw(k):
        return jax.random.uniform(jax.random.fold_in(key, k), (cells**2 + 2,), jnp.float32)

    masks = []
    for drawn in np.asarray(jax.vmap(draw)(jnp.arange(count))):
        shifts = [int(u * -(-size // cells)) for u, size in zip(drawn, SHAPE[:2], strict=False)]
        masks.append(slow_mask((drawn[2:] < keep).reshape(cells, cells), shifts, cells))
    return np.stack(masks)


@pytest.mark.slow
def test_rise_is_the_weighted_mean_of_its_masks(images):
    key, cells, keep, count = jax.random.key(4), 3, 0.4, 28  # not a whole number of additions
    masks = rise_masks(key, count, cells, keep)
    found = att.rise(scorer, images, target="all", samples=count, cells=cells, keep=keep, key=key)
    assert found.values.shape == (2, 6, 9, 1, 3) and found.error.shape == (2, 3)
    for image, values, error in zip(images, found.values, found.error, strict=True):
        scores = np.stack([slow_scores(image * mask[..., None]) for mask in masks])
        terms = np.einsum("nk,nhw->nhwk", scores, masks) / keep
        np.testing.assert_allclose(values[:, :, 0], terms.mean(0), atol=1e-5)
        deviation = terms.std(0, ddof=1) / np.sqrt(count)
        spans = np.ptp(terms.mean(0), axis=(0, 1))
        np.testing.assert_allclose(error, deviation.max((0, 1)) / spans, rtol=1e-3)


@pytest.mark.slow
def test_rise_hides_by_its_baseline(images):
    found = att.rise(scorer, images[0], target=1, samples=3, cells=2, baseline=0.3)
    masks = rise_masks(jax.random.key(0), 3, 2, 0.5)[..., None]
    scores = [slow_scores(images[0] * m + 0.3 * (1 - m))[1] for m in masks]
    expected = np.einsum("n,nhw->hw", scores, masks[..., 0]) / 3 / 0.5
    np.testing.assert_allclose(found.values[..., 0], expected, atol=1e-5)


@pytest.mark.slow
def test_rise_stops_where_an_image_is_known_well_enough():
    """Each image by itself, at a whole number of rounds, with the masks of a longer run."""
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0, :4] = 1
    images[1, 2, 2] = 1
    f = lambda x: x.sum((1, 2))  # noqa: E731
    long = att.rise(f, images, samples=1000, cells=2)
    accuracy = float(long.error[0]) * 1.6
    found = att.rise(f, images, samples=1000, cells=2, accuracy=accuracy)
    first, second = (int(n) for n in dict(found.config)["used"].split(", "))
    assert 250 <= first < 1000 and first % 250 == 0 and second % 250 == 0
    assert found.error[0] <= accuracy
    alone = att.rise(f, images[0], samples=first, cells=2)
    np.testing.assert_array_equal(alone.values, found.values[0])


@pytest.mark.slow
def test_masks_are_as_likely_as_they_should_be():
    grids = RandomGrids(jax.random.key(1), jnp.float32(0.3), 4)
    masks = jax.vmap(lambda k: grids(k, (16, 12)))(jnp.arange(3000)[:, None])
    assert masks.min() >= 0 and masks.max() <= 1
    np.testing.assert_allclose(masks.mean(0), 0.3, atol=0.05)


def exact_shapley(image, baseline=0.0):
    """Shapley values (M, K) by the sum over all orders."""
    names = np.unique(LABELS)
    shares = np.zeros((len(names), 3))
    for order in permutations(range(len(names))):
        shown = np.full_like(image, baseline, dtype=np.float64)
        before = slow_scores(shown)
        for feature in order:
            shown = np.where((names[feature] == LABELS)[..., None], image, shown)
            after = slow_scores(shown)
            shares[feature] += after - before
            before = after
    return shares / factorial(len(names))


def test_kernel_shap_with_all_coalitions_is_shapley(images):
    found = att.kernel_shap(scorer, images, target="all", segments=LABELS, baseline=0.2)
    for image, values in zip(images, found.values, strict=True):
        np.testing.assert_allclose(values[:, :, 0], spread(exact_shapley(image, 0.2)), atol=1e-4)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)
    assert found.delta.shape == (2, 3) and found.every


def test_kernel_shap_solves_its_constrained_problem(images):
    """With some coalitions only: the Lagrangian's linear system, in place of elimination."""
    samples, key = 10, jax.random.key(3)
    found = att.kernel_shap(scorer, images[0], target=1, segments=LABELS, samples=samples, key=key)
    z = shapley_coalitions(5, samples, key)
    names = np.unique(LABELS)

    def score(coalition):
        kept = np.isin(LABELS, names[coalition == 1])[..., None]
        return slow_scores(np.where(kept, images[0], 0))[1]

    none, whole = score(np.zeros(5)), score(np.ones(5))
    v = np.array([score(row) for row in z]) - none
    system = np.block([[2 * z.T @ z, np.ones((5, 1))], [np.ones((1, 5)), np.zeros((1, 1))]])
    expected = np.linalg.lstsq(system, np.append(2 * z.T @ v, whole - none), rcond=None)[0][:5]
    np.testing.assert_allclose(found.values[..., 0], spread(expected), atol=1e-4)


def test_coalitions_are_drawn_by_their_weights():
    z = shapley_coalitions(12, 4001, jax.random.key(0))
    assert z.shape == (4001, 12)
    np.testing.assert_array_equal(z[0:4000:2] + z[1:4001:2], 1)  # each with its complement
    sizes = np.bincount(z.sum(1), minlength=13)[1:12] / len(z)
    weights = 1 / (np.arange(1, 12) * np.arange(11, 0, -1))
    np.testing.assert_allclose(sizes, weights / weights.sum(), atol=0.03)


def test_shapley_sampling_is_complete_and_exact_where_scores_add_up(images):
    found = att.shapley_sampling(scorer, images, target=2, segments=LABELS, samples=3)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)
    linear = lambda x: x.reshape(len(x), -1) @ W  # noqa: E731
    exact = att.shapley_sampling(linear, images[0], target=2, segments=LABELS, samples=2)
    gains = images[0] * W[:, 2].reshape(SHAPE)
    expected = [gains[name == LABELS].sum() for name in np.unique(LABELS)]
    np.testing.assert_allclose(exact.values[..., 0], spread(expected), atol=1e-4)
    np.testing.assert_allclose(exact.error, 0, atol=1e-5)


def test_shapley_sampling_nears_the_shapley_values_as_it_says(images):
    found = att.shapley_sampling(scorer, images[0], target=0, segments=LABELS, samples=200)
    expected = spread(exact_shapley(images[0])[:, 0])
    assert 0 < found.error < 0.1
    assert np.abs(found.values[..., 0] - expected).max() < 5 * found.error


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_lime_is_a_weighted_ridge_regression(images, distance):
    from sklearn.linear_model import Ridge

    key, samples = jax.random.key(2), 40
    options = {"distance": distance, "ridge": 0.7, "width": 0.8}
    found = att.lime(
        scorer, images[0], target="all", segments=LABELS, samples=samples, key=key, **options
    )
    data = np.asarray(jax.random.key_data(key))
    z = np.random.default_rng(data).integers(0, 2, (samples, 5))
    z = np.concatenate([np.ones((1, 5), int), z])
    names, v, weights = np.unique(LABELS), [], []
    for row in z:
        kept = np.isin(LABELS, names[row == 1])[..., None]
        v.append(slow_scores(np.where(kept, images[0], 0)))
        cosine = 1 - (row.sum() / np.sqrt(row.sum() * 5) if row.any() else 0)
        far = cosine if distance == "cosine" else np.sqrt(((1 - row) ** 2).sum())
        weights.append(np.exp(-(far**2) / 0.8**2))
    fitted = Ridge(alpha=0.7).fit(z, np.array(v), sample_weight=weights)
    np.testing.assert_allclose(found.values[:, :, 0], spread(fitted.coef_.T), atol=1e-4)


def test_sobol_is_jansen_s_estimator(images):
    found = att.sobol(scorer, images[0], target=1, cells=2, samples=8, key=jax.random.key(5))
    labels = grid_labels(SHAPE[:2], 2)
    a, b = sobol_designs(4, 8, jax.random.key(5)).astype(np.float32)

    def score(levels):
        return slow_scores(images[0] * levels[labels][..., None])[1]

    of_a, of_b = (np.array([score(row) for row in design]) for design in (a, b))
    variance = np.concatenate([of_a, of_b]).var()
    expected = []
    for cell in range(4):
        mixed = a.copy()
        mixed[:, cell] = b[:, cell]
        of_c = np.array([score(row) for row in mixed])
        expected.append(((of_a - of_c) ** 2).sum() / (2 * 8 * variance))
    np.testing.assert_allclose(found.values[..., 0], np.array(expected)[labels], rtol=1e-3)


@pytest.mark.slow
def test_sobol_of_a_sum_is_its_share_of_the_variance():
    """Of Σ w·level the total index of a cell is w²/Σw², for independent levels."""
    w = np.array([1.0, 2.0, 0.0, 3.0])
    labels = grid_labels((4, 4), 2)
    image = (w[labels] / 4).astype(np.float32)[..., None]
    found = att.sobol(lambda x: x.sum((1, 2)), image, cells=2, samples=256)
    np.testing.assert_allclose(found.values[..., 0], (w**2 / (w**2).sum())[labels], atol=0.05)


def test_hsic_is_its_trace(images):
    samples, key = 25, jax.random.key(6)
    found = att.hsic(scorer, images[0], target="all", cells=2, samples=samples, key=key)
    labels = grid_labels(SHAPE[:2], 2)
    data = np.asarray(jax.random.key_data(key))
    z = np.random.default_rng(data).integers(0, 2, (samples, 4), np.int32)
    v = np.stack([slow_scores(images[0] * row[labels][..., None]) for row in z])
    h = np.eye(samples) - 1 / samples
    for target in range(3):
        apart = np.abs(v[:, None, target] - v[None, :, target])
        width = np.median(apart[np.triu_indices(samples, 1)])
        kernel = np.exp(-(apart**2) / (2 * width**2))
        for cell in range(4):
            same = 0.5 - (z[:, None, cell] - z[None, :, cell]) ** 2
            expected = np.trace(same @ h @ kernel @ h) / (samples - 1) ** 2
            some = found.values[labels == cell][:, 0, target]
            np.testing.assert_allclose(some, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("traced", [False, True])
def test_hsic_of_scores_that_mostly_tie_is_not_zero(traced):
    def both(images):  # 1 where two of four cells are kept, else 0: most pairs of scores are equal
        return (images[:, :1, :1] * images[:, -1:, -1:]).reshape(len(images), 1)

    def explained(image):
        return att.hsic(both, image, target=0, cells=2, samples=200).values[..., 0]

    image = jnp.ones((4, 4, 1))
    found = np.asarray(jax.jit(explained)(image) if traced else explained(image))
    assert min(found[0, 0], found[3, 3]) > 5 * max(found[0, 3], found[3, 0], 1e-6)
    flat = att.hsic(lambda x: x[:, 0, 0] * 0 + 1, image, target=0, cells=2, samples=9)
    np.testing.assert_array_equal(flat.values, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_all_classes_are_those_explained_one_by_one(images, name):
    method, options = METHODS[name]
    every = method(scorer, images, target="all", **options)
    assert every.values.shape == (2, 6, 9, 1, 3) and every.target is None
    for target in (0, [2, 1]):
        one = method(scorer, images, target=target, **options)
        np.testing.assert_allclose(every.heatmap(target=target), one.heatmap(), atol=1e-5)
    default = method(scorer, images, **options)
    np.testing.assert_array_equal(default.target, default.base.argmax(-1))
    np.testing.assert_allclose(every.heatmap(), default.heatmap(), atol=1e-5)
    np.testing.assert_allclose(default.base, [slow_scores(x) for x in images], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_one_by_one_and_compiles_once(images, name, compilations):
    method, options = METHODS[name]
    together = method(scorer, images, target=1, batch_size=7, **options)
    compilations.start()
    alone = method(scorer, images[1], target=1, batch_size=7, **options)
    assert compilations.count == 0
    np.testing.assert_array_equal(alone.values, together.values[1])
    other = method(scorer, images, target=1, batch_size=4, **options)
    np.testing.assert_allclose(other.values, together.values, atol=1e-5)


@pytest.mark.parametrize("name", ["rise", "kernel_shap"])
def test_an_interruption_keeps_the_images_that_are_done(images, name):
    method, options = METHODS[name]
    told = []

    def stop(done, total):
        told.append((done, total))
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted: 1 of 2 images are explained; the rest is"):
        found = method(scorer, images, target=0, progress=stop, batch_size=4, **options)
    whole = method(scorer, images, target=0, batch_size=4, **options)
    assert found.partial and np.isnan(found.values[1]).all()
    np.testing.assert_array_equal(found.values[0], whole.values[0])
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1

    def at_once(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method(scorer, images[0], progress=at_once, **options)


class Named:
    class_names = ("cat", "dog", "fish")

    def __call__(self, images):
        return scorer(images)


def test_classes_have_names(images):
    found = att.kernel_shap(Named(), images, target=["dog", "cat"], segments=LABELS)
    assert found.target.tolist() == [1, 0]


@pytest.mark.slow
def test_many_devices_change_nothing(images):
    mesh = jax.make_mesh((2,), ("positions",))
    for name in ("rise", "kernel_shap"):
        method, options = METHODS[name]
        spread_out = method(scorer, images, target=0, mesh=mesh, batch_size=4, **options)
        alone = method(scorer, images, target=0, batch_size=4, **options)
        np.testing.assert_allclose(spread_out.values, alone.values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_constant_scores_give_no_nan(images, name):
    method, options = METHODS[name]
    found = method(lambda x: jnp.full((len(x), 2), 0.7), images, **options)
    assert np.isfinite(found.values).all()
    if name != "rise":  # whose map is then that of its masks
        np.testing.assert_allclose(found.values, 0, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_results_are_saved_whole(images, name, tmp_path):
    method, options = METHODS[name]
    found = method(scorer, images[0], target=lambda s: s[..., 0] - s[..., 1], **options)
    assert found.values.shape == (6, 9, 1) and found.target is None
    found.save(tmp_path / "found.npz")
    np.testing.assert_array_equal(jv.load(tmp_path / "found.npz").values, found.values)


def test_segments_may_be_groups_and_leave_pixels_out(images):
    segments = jv.Segments(LABELS, ((0, 3), (7,)))
    found = att.kernel_shap(scorer, images[0], target=0, segments=segments)
    assert not found.values[(LABELS == 5) | (LABELS == 9)].any()
    assert found.values[0, 0, 0] == found.values[0, 4, 0] != found.values[4, 0, 0]
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)
    one = att.kernel_shap(scorer, images[0], target=0, segments=1)
    np.testing.assert_allclose(
        one.values[..., 0], slow_scores(images[0])[0] - slow_scores(0 * images[0])[0], atol=1e-5
    )


def test_half_precision(images):
    found = att.kernel_shap(scorer, images[0], target=0, segments=LABELS, dtype="bfloat16")
    exact = att.kernel_shap(scorer, images[0], target=0, segments=LABELS)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, exact.values, atol=0.05)


@pytest.mark.parametrize(
    ("name", "options", "error", "told"),
    [
        ("rise", {"samples": 1}, ValueError, "`samples` must be a whole number from 2"),
        ("rise", {"cells": 0}, ValueError, "`cells` must be a whole number from 1"),
        ("rise", {"keep": 1.0}, ValueError, "`keep` must lie between 0 and 1"),
        ("rise", {"accuracy": 0}, ValueError, "`accuracy` must be above 0"),
        ("rise", {"target": 3}, ValueError, "class from 0 to 2"),
        ("rise", {"batch_size": 0}, ValueError, "`batch_size` must be"),
        ("sobol", {"samples": 1}, ValueError, "`samples` must be a whole number from 2"),
        ("hsic", {"cells": 1.5}, ValueError, "`cells` must be a whole number from 1"),
        ("lime", {"distance": "far"}, ValueError, '`distance` must be "cosine" or "l2"'),
        ("lime", {"width": 0}, ValueError, "`width` must be above 0"),
        ("lime", {"ridge": -1}, ValueError, "`ridge` must be at least 0"),
        ("kernel_shap", {"segments": LABELS.T}, ValueError, r"the image's size \(6, 9\)"),
        ("kernel_shap", {"segments": 0}, ValueError, "`segments` must be a whole number from 1"),
        (
            "kernel_shap",
            {"segments": jv.Segments(LABELS, ((0, 3), (3,)))},
            ValueError,
            "`segments` must not overlap",
        ),
        ("kernel_shap", {"baseline": np.ones((2, 2, 2))}, ValueError, "`baseline` must have"),
        ("kernel_shap", {"baseline": [0.0, "mean"]}, ValueError, "`baseline` must be one image"),
        ("shapley_sampling", {"samples": 0}, ValueError, "`samples` must be a whole number"),
    ],
)
def test_bad_arguments(images, name, options, error, told):
    method, usual = METHODS[name]
    with pytest.raises(error, match=told):
        method(scorer, images, **{**usual, **options})


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_kernels_compose_with_jit_vmap_and_grad(images, name):
    method, options = METHODS[name]
    wanted = method(scorer, images, target=[2, 0], **options)

    def one(image, target):
        return method(scorer, image, target=target, **options)

    found = jax.jit(jax.vmap(one))(images, jnp.array([2, 0]))
    for part in ("values", "base", "delta", "error"):
        expected = getattr(wanted, part)
        if expected is None:
            assert getattr(found, part) is None
        else:
            np.testing.assert_allclose(getattr(found, part), expected, rtol=2e-3, atol=2e-5)
    weights = np.random.default_rng(1).normal(size=wanted.values.shape[1:]).astype(np.float32)

    def number(image):
        return (method(scorer, image, target=0, **options).values * weights).sum()

    slope = jax.jit(jax.grad(number))(images[1])
    way = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    run = jax.jit(number)
    measured = (run(images[1] + 1e-2 * way) - run(images[1] - 1e-2 * way)) / 2e-2
    assert np.isfinite(slope).all()
    np.testing.assert_allclose((slope * way).sum(), measured, rtol=5e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hsic", "kernel_shap"])
def test_kernels_explain_all_classes_and_name_the_largest(images, name):
    method, options = METHODS[name]
    every = jax.jit(lambda x: method(scorer, x, target="all", **options))(images)
    wanted = method(scorer, images, target="all", **options)
    assert every.every and every.target is None
    np.testing.assert_allclose(every.values, wanted.values, rtol=2e-3, atol=2e-5)
    largest = jax.jit(lambda x: method(scorer, x, **options))(images[0])
    assert int(largest.target) == wanted.base[0].argmax() and largest.values.shape == (6, 9, 1)


@pytest.mark.slow
def test_a_kernel_is_differentiated_by_the_scorer_too(images):
    def number(weights):
        f = jax.tree_util.Partial(lambda w, x: x.reshape(x.shape[0], -1) @ w, weights)
        return att.kernel_shap(f, images[0], target=1, segments=LABELS).values[0, 0, 0]

    # The share of a segment is x·w summed over it: its slope by w is x there.
    slope = jax.jit(jax.grad(number))(jnp.asarray(W)).reshape(*SHAPE, 3)
    inside = (LABELS == LABELS[0, 0])[..., None]
    np.testing.assert_allclose(slope[..., 1], np.where(inside, images[0], 0), atol=1e-5)
    assert not slope[..., 0].any()


@pytest.mark.slow
def test_rise_stops_early_under_jit_too():
    image = np.random.default_rng(0).uniform(size=(8, 8, 1)).astype(np.float32)
    options = dict(samples=1000, cells=2, accuracy=0.5)
    f = lambda x: x.mean((1, 2))  # noqa: E731
    wanted = att.rise(f, image, **options)
    found = jax.jit(lambda x: att.rise(f, x, **options))(image)
    assert dict(wanted.config)["used"] == "250"
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-4)
    np.testing.assert_allclose(found.error, wanted.error, rtol=1e-2)


@pytest.mark.slow
def test_keys_may_be_traced_where_masks_are_made_on_the_device(images):
    keys = jax.random.split(jax.random.key(3), 2)
    one = lambda key: att.rise(scorer, images[0], key=key, samples=30).values  # noqa: E731
    values = jax.jit(jax.vmap(one))(keys)
    for key, found in zip(keys, values, strict=True):
        wanted = att.rise(scorer, images[0], key=key, samples=30).values
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    with pytest.raises(TypeError, match="`key` must be known, not traced"):
        jax.jit(lambda key: att.lime(scorer, images[0], key=key).values)(keys[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rise", "sobol", "hsic"])  # which divide by what varies
def test_kernels_of_constant_scores_have_no_nan(name):
    method, options = METHODS[name]
    f = lambda x: jnp.ones((len(x), 2)) + 0 * x.sum((1, 2, 3))[:, None]  # noqa: E731
    number = lambda x: method(f, x, target=0, **options).values.sum()  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(number))(jnp.ones(SHAPE))).all()


def test_kernels_demand_images_and_classes(images):
    maps = lambda x: x[..., :1]  # noqa: E731
    with pytest.raises(ValueError, match='`target` "all" needs scores'):
        jax.jit(lambda x: att.rise(maps, x, target="all").values)(images)
    with pytest.raises(ValueError, match="`images` must be"):
        jax.jit(lambda x: att.rise(scorer, x).values)(images[0, 0])


@pytest.mark.slow
def test_every_class_needs_classes(images):
    maps = lambda x: x[..., :1]  # noqa: E731
    with pytest.raises(ValueError, match='`target` "all" needs scores'):
        att.rise(maps, images, target="all")
