"""Deletion, insertion and the symmetric gain against loops, and what they must survive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from judges import slow_area, slow_curve
from scorers import convolutional, integers, weighted_sums

import jaxviz as jv

SHAPE = (6, 5, 2)
SEGMENTS = np.asarray([[0, 0, 1, 1, 1]] * 2 + [[4, 4, 4, 9, 9]] * 4)


def cells(size):
    rows, cols = np.arange(SHAPE[0]) // size, np.arange(SHAPE[1]) // size
    return rows[:, None] * 10 + cols[None]


PARTS = {"pixels": None, "cells": 2, "segments": SEGMENTS}
LABELS = {"pixels": cells(1), "cells": cells(2), "segments": SEGMENTS}


@pytest.fixture(scope="module")
def case():
    """A linear scorer, three images and maps with equal values in them."""
    images = np.stack([integers(SHAPE, seed) for seed in range(3)])
    maps = np.random.default_rng(5).integers(-3, 4, (3, *SHAPE[:2])).astype(np.float64)
    return weighted_sums(SHAPE), images, maps


@pytest.mark.slow
@pytest.mark.parametrize("by", PARTS)
@pytest.mark.parametrize("order", ["most_first", "least_first"])
@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_it_equals_the_loop(case, by, order, kind):
    f, images, maps = case
    curve = getattr(jv.metrics, kind)(
        f, images, maps, target=1, steps=7, fill=2.0, by=PARTS[by], order=order
    )
    for n, (image, heatmap) in enumerate(zip(images, maps, strict=True)):
        scores, fraction = slow_curve(
            lambda x: np.asarray(f(x[None]))[0, 1], image, 2.0, heatmap, LABELS[by], 7,
            order == "most_first", kind == "insertion",
        )  # fmt: skip
        np.testing.assert_array_equal(curve.scores[n], scores)
        np.testing.assert_allclose(curve.fraction[n], fraction, rtol=1e-15)
        np.testing.assert_allclose(curve.auc[n], slow_area(scores, fraction), rtol=1e-12)


def test_the_worked_example_of_four_pixels():
    image = np.asarray([[0.4, 0.3], [0.2, 0.1]], np.float32)[..., None]
    for kind, area in [("deletion", 0.4), ("insertion", 0.6)]:
        judge = getattr(jv.metrics, kind)
        curve = judge(lambda x: x.sum((1, 2)), image, image[..., 0], steps=2, fill=0.0)
        np.testing.assert_allclose(curve.auc, area, rtol=1e-6)
        assert curve.scores.shape == curve.fraction.shape == (3,)


@pytest.mark.slow
def test_the_gain_is_the_difference_of_both_curves(case):
    f, images, maps = case
    gain = jv.metrics.srg(f, images, maps, target=[0, 1, 2], steps=5)
    for order, curve in [("most_first", gain.most_first), ("least_first", gain.least_first)]:
        alone = jv.metrics.deletion(f, images, maps, target=[0, 1, 2], steps=5, order=order)
        np.testing.assert_array_equal(curve.scores, alone.scores)
    np.testing.assert_array_equal(gain.value, gain.least_first.auc - gain.most_first.auc)


@pytest.mark.parametrize("key", [None, 3])
def test_a_constant_map_gains_nothing(case, key):
    f, images, maps = case
    key = None if key is None else jax.random.key(key)
    gain = jv.metrics.srg(f, images, np.ones_like(maps), steps=4, key=key)
    np.testing.assert_array_equal(gain.value, 0)


@pytest.mark.slow
def test_a_key_draws_the_order_of_equal_values(case):
    f, images, maps = case
    flat = np.zeros_like(maps)
    one, same, other = (
        jv.metrics.deletion(f, images, flat, steps=6, key=jax.random.key(seed)).scores
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    strategies.lists(strategies.integers(-2, 2), min_size=30, max_size=30),
    strategies.sampled_from([1e-30, 1.0, 1e30]),
)
def test_only_the_order_of_a_map_counts(values, scale):
    f, image = weighted_sums(SHAPE), integers(SHAPE)
    heatmap = np.asarray(values, np.float64).reshape(SHAPE[:2])
    plain, scaled = (
        jv.metrics.deletion(f, image, m, target=0, steps=3).scores
        for m in (heatmap, np.sign(heatmap) * heatmap**2 * scale)
    )
    np.testing.assert_array_equal(plain, scaled)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing(case, batch_size):
    f, images, maps = case
    plain = jv.metrics.srg(f, images, maps, steps=5)
    other = jv.metrics.srg(f, images, maps, steps=5, batch_size=batch_size)
    np.testing.assert_array_equal(plain.value, other.value)


@pytest.mark.slow
def test_devices_change_nothing(case):
    f, images, maps = case
    mesh = jax.make_mesh((2, 4), ("images", "rows"))
    plain = jv.metrics.srg(f, images, maps, steps=5)
    np.testing.assert_array_equal(
        jv.metrics.srg(f, images, maps, steps=5, mesh=mesh).value, plain.value
    )


@pytest.mark.slow
def test_segments_of_each_images_own(case):
    f, images, maps = case
    own = np.stack([SEGMENTS, SEGMENTS[::-1], cells(3)])
    together = jv.metrics.deletion(f, images, maps, target=0, steps=3, by=own)
    for n in range(3):
        alone = jv.metrics.deletion(f, images[n], maps[n], target=0, steps=3, by=own[n])
        np.testing.assert_array_equal(together.scores[n], alone.scores)
        np.testing.assert_array_equal(together.fraction[n], alone.fraction)


@pytest.mark.slow
@pytest.mark.parametrize("fill", [0.5, "mean", "patch_mean", "blur", "image"])
def test_fills_are_those_of_occlusion(case, fill):
    f, images, maps = case
    fill = {"blur": jv.fills.blur(1.0), "image": 8 - images[0]}.get(fill, fill)
    curve = jv.metrics.deletion(f, images, maps, target=2, steps=2, fill=fill, by=SEGMENTS)
    whole = jv.occlude_segments(f, images, np.zeros(SHAPE[:2], int), fill=fill)
    np.testing.assert_allclose(curve.scores[:, -1], whole.scores[:, 0, 2], rtol=1e-5)
    np.testing.assert_allclose(curve.scores[:, 0], whole.base[:, 2], rtol=1e-6)


@pytest.mark.slow
def test_low_precision_images_keep_their_dtype_and_the_ranks_stay_exact(case):
    _, images, _ = case
    seen = []

    def f(x):
        seen.append(x.dtype)
        return jnp.sum(x, (1, 2, 3)).astype(jnp.float32)[:, None]

    image = np.ones((20, 20, 1), jnp.bfloat16)
    heatmap = np.arange(400.0).reshape(20, 20)  # bfloat16 tells 256 whole numbers apart
    jv.metrics.deletion(f, image, heatmap, steps=400, fill=0.0)
    assert set(seen) == {jnp.dtype("bfloat16")}
    count = jv.metrics.deletion(
        lambda x: jnp.sum(x.astype(jnp.float32), (1, 2)), image, heatmap, steps=400, fill=0.0
    )
    np.testing.assert_array_equal(count.scores, np.arange(400, -1, -1))


def test_results_are_read_by_their_heatmap(case):
    f, images, _ = case
    occ = jv.occlude(f, images, patch=2, fill=0.0)
    maps = occ.heatmap(target=1)
    ours = jv.metrics.deletion(f, images, occ, target=1, steps=3)
    np.testing.assert_array_equal(
        ours.scores, jv.metrics.deletion(f, images, maps, target=1, steps=3).scores
    )


@pytest.mark.slow
def test_a_second_model_of_the_structure_compiles_nothing(compilations):
    images, maps = np.ones((2, 28, 28, 1), np.float32), np.ones((2, 28, 28))
    jv.metrics.srg(convolutional(), images, maps, steps=3)
    compilations.start()
    jv.metrics.srg(convolutional(seed=1), images + 1, maps * 2, steps=3, fill=0.5)
    jv.metrics.srg(convolutional(seed=2), images + 1, maps * 2, steps=3, fill=0.25)
    constant_fill = compilations.count
    jv.metrics.srg(convolutional(seed=3), images, maps, steps=3)
    assert compilations.count == constant_fill


@pytest.mark.slow
def test_a_pytree_of_numbers(case):
    f, images, maps = case
    gain = jv.metrics.srg(f, images, maps, steps=2)
    doubled = jax.tree.map(lambda x: 2 * x, gain)
    np.testing.assert_allclose(doubled.value, 4 * gain.value, rtol=1e-6)
    assert repr(gain).startswith("SymmetricGain(3 images, 2 steps, gain ")
    assert repr(gain.most_first).startswith("Curve(deletion, most first, 3 images, 2 steps")


@pytest.mark.slow
def test_curves_are_drawn(case):
    f, images, maps = case
    gain = jv.metrics.srg(f, images, maps, steps=2)
    (axes,) = gain.plot(title="A gain").axes
    assert [line.get_label() for line in axes.lines] == ["least first", "most first"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), gain.most_first.scores.mean(0))
    assert len(gain.most_first.plot().axes[0].lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "`steps` must be a whole number from 1: got 0"),
        ({"steps": 2.5}, ValueError, "`steps` must be a whole number from 1: got 2.5"),
        ({"order": "first"}, ValueError, '`order` must be "most_first" or "least_first"'),
        ({"by": 0}, ValueError, "`by` must be at least 1"),
        ({"by": np.zeros((3, 3), int)}, ValueError, "`by` must be None, a number of pixels"),
        ({"by": np.zeros(SHAPE[:2])}, ValueError, "integer labels"),
        ({"fill": [1.0]}, ValueError, "`fill` must hold one value per channel"),
        ({"target": 3}, ValueError, "`target` must be a class from 0 to 2"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"maps": np.zeros((2, 6, 5))}, ValueError, "`maps` must be one per image"),
        ({"maps": np.zeros(SHAPE[:2])}, ValueError, "`maps` must be one per image"),
        ({"maps": np.zeros((3, *SHAPE))}, ValueError, "reduce the channels"),
        ({"maps": np.full((3, 6, 5), np.nan)}, ValueError, "`maps` must be finite"),
        ({"maps": np.full((3, 6, 5), "a")}, TypeError, "`maps` must be real numbers"),
        ({"maps": [[1.0], [1.0, 2.0]]}, ValueError, "`maps` must be .* unequal shapes"),
    ],
)
def test_what_breaks_a_rule_is_told(case, options, error, message):
    f, images, maps = case
    options = {"maps": maps, **options}
    with pytest.raises(error, match=message):
        jv.metrics.deletion(f, images, options.pop("maps"), **options)


@pytest.mark.slow
def test_scores_of_nan_are_told(case):
    _, images, maps = case
    with pytest.warns(UserWarning, match="`f` gave NaN"):
        curve = jv.metrics.deletion(
            lambda x: jnp.log(x.sum((1, 2)) - 60), images, maps, target=0, fill=0.0, steps=3
        )
    assert np.isnan(curve.auc).any()
