"""What can be read from a run: maps, classes, counts; a frozen pytree with a one-line repr."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import slow_spread

from jaxviz._choices import Reduce, Score
from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.result import Occlusion, load_occlusion
from jaxviz.perturbation.grid import make_grid
from jaxviz.perturbation.segments import make_segments

GRID = make_grid((6, 8), patch=(3, 4), stride=(2, 3))
STARTS = GRID.row_starts, GRID.col_starts


@pytest.fixture
def occ(rng):
    scores = rng.uniform(size=(2, *GRID.shape, 3)).astype(np.float32)
    return Occlusion(scores, rng.uniform(size=(2, 3)).astype(np.float32), GRID)


def one(occ, n=0):
    """One image's part of a result."""
    return Occlusion(occ.scores[n], occ.base[n], occ.grid, single=True)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("score", get_args(Score))
def test_a_heatmap_is_the_spread_comparison(occ, score, reduce):
    def odds(p):
        return np.log(p / (1 - p))

    heatmaps = occ.heatmap([0, 2], score, reduce)
    for n, k in enumerate([0, 2]):
        f, g = np.float64(occ.base[n, k]), occ.scores[n, ..., k].astype(np.float64)
        values = {
            "drop": f - g,
            "raw": g,
            "complement": 1 - g,
            "relative_drop": (f - g) / f,
            "log_odds_drop": odds(f) - odds(g),
        }[score]
        wanted = slow_spread(values, STARTS, GRID.patch, (6, 8), reduce)
        np.testing.assert_allclose(heatmaps[n], wanted, rtol=1e-5)


def test_a_heatmap_is_a_batch_or_a_single_map(occ):
    for options in (dict(), dict(reduce="cell"), dict(reduce="bilinear"), dict(target=1)):
        maps = occ.heatmap(**options)
        assert maps.shape == (2, 6, 8) and maps.dtype == np.float32
        np.testing.assert_array_equal(one(occ, 1).heatmap(**options), maps[1])


def test_no_target_is_the_clean_argmax(occ):
    np.testing.assert_array_equal(occ.heatmap(), occ.heatmap(occ.base.argmax(-1)))


def test_weights_count_the_pixels_of_a_patch(occ, rng):
    weights = rng.uniform(0.1, 1, GRID.patch)
    wanted = slow_spread(occ.scores[0, ..., 1], STARTS, GRID.patch, (6, 8), "mean", weights)
    ours = one(occ).heatmap(1, "raw", weights=weights)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5)


def test_uncovered_pixels_are_nan_or_what_is_asked(rng):
    grid = make_grid((5, 5), patch=2, border="valid")
    occ = Occlusion(rng.uniform(size=(2, 2, 3)), rng.uniform(size=3), grid, single=True)
    assert np.isnan(occ.heatmap()[4]).all() and not np.isnan(occ.heatmap()[:4, :4]).any()
    np.testing.assert_array_equal(occ.heatmap(uncovered=0.0)[4], 0)


@pytest.mark.parametrize("reduce", get_args(Reduce))
def test_what_is_not_known_is_nan_and_not_uncovered(rng, reduce):
    grid = make_grid((7, 7), patch=3, stride=2, border="valid")
    scores, base = rng.uniform(size=(*grid.shape, 2)).astype(np.float32), np.array([0.5, 0.0])
    scores[1:] = np.nan
    occ = Occlusion(scores, base.astype(np.float32), grid, single=True, partial=True)
    found = occ.heatmap(0, reduce=reduce, uncovered=-7.0)
    assert np.isnan(found[5]).all() and np.isfinite(found[0]).all()
    # From a base of 0 there is no relative drop, and from ∞ to ∞ no drop.
    assert np.isnan(occ.heatmap(1, "relative_drop", reduce, uncovered=-7.0)).all()
    endless = dataclasses.replace(occ, scores=scores + np.inf, base=occ.base + np.float32(np.inf))
    assert np.isnan(endless.heatmap(0, reduce=reduce, uncovered=-7.0)).all()


def test_a_sum_of_which_a_part_is_unfinished_is_nan(rng):
    grid = make_grid((5, 1), patch=(3, 1), stride=1, border="valid")
    scores = np.array([[[1.0]], [[2.0]], [[np.nan]]])
    occ = Occlusion(scores, np.array([3.0]), grid, single=True, partial=True)
    assert occ.heatmap(0, reduce="sum")[:2, 0].tolist() == [2, 3]
    assert np.isnan(occ.heatmap(0, reduce="sum")[2:]).all()
    assert dataclasses.replace(occ, partial=False).heatmap(0, reduce="sum")[2, 0] == 3
    assert occ.heatmap(0, reduce="mean")[2, 0] == 1.5


def test_uncovered_pixels_are_those_of_no_patch_even_where_others_are_unfinished():
    grid = make_grid((5, 5), patch=2, border="valid")
    scores = np.full((*grid.shape, 1), np.nan)
    occ = Occlusion(scores, np.zeros(1), grid, single=True, partial=True)
    found = occ.heatmap(0, uncovered=0.0)
    assert np.isnan(found[:4, :4]).all() and np.all(found[4] == 0) and np.all(found[:, 4] == 0)


@pytest.mark.parametrize("reduce", get_args(Reduce))
@pytest.mark.parametrize(
    "score, end", [("raw", np.inf), ("drop", -np.inf), ("complement", -np.inf)]
)
def test_an_infinite_score_is_infinite_on_the_map(occ, reduce, score, end):
    occ.scores[0, 1, 1, 0] = np.inf
    assert np.isposinf(occ.heatmap(0, score, reduce) * np.sign(end)).any()
    assert np.isfinite(occ.heatmap(1, score, reduce)).all()


@pytest.mark.slow
@pytest.mark.parametrize("score", get_args(Score))
@pytest.mark.parametrize("target", [None, 0, [0, 2], [0.5, 0.0, 2.0], lambda s: s[..., 1] ** 2])
def test_a_traced_result_is_read_alike(occ, score, target):
    if isinstance(target, list) and len(target) == 3:
        occ = dataclasses.replace(occ, scores=occ.scores / 3, base=occ.base / 3)
    found = jax.jit(lambda occ: occ.heatmap(target, score))(occ)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, occ.heatmap(target, score), rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reduce", get_args(Reduce))
def test_every_reduction_is_traced_and_has_a_gradient(occ, reduce):
    occ = dataclasses.replace(occ, class_names=("cat", "dog", "hen"))
    found = jax.jit(lambda occ: occ.heatmap("dog", reduce=reduce))(occ)
    np.testing.assert_allclose(found, occ.heatmap(1, reduce=reduce), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda occ: occ.heatmap("dog", reduce=reduce).sum(), allow_int=True)(occ)
    moved = np.array(occ.scores, float)
    moved[0, 1, 1, 1] += 1
    wide = dataclasses.replace(occ, scores=np.array(occ.scores, float))
    change = dataclasses.replace(occ, scores=moved).heatmap(1, reduce=reduce).sum()
    change -= wide.heatmap(1, reduce=reduce).sum()
    assert gradient.scores[0, 1, 1, 1] == pytest.approx(change, rel=1e-4, abs=1e-6)
    assert np.all(gradient.scores[..., [0, 2]] == 0)


@pytest.mark.slow
def test_a_traced_target_and_a_traced_class_map(occ):
    for target in (np.int32(1), np.array([2, 0]), np.array([0.5, 0.0, 2.0], np.float32)):
        found = jax.jit(lambda occ, target: occ.heatmap(target))(occ, target)
        np.testing.assert_allclose(found, occ.heatmap(target), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jax.jit(lambda occ: occ.class_map())(occ), occ.class_map())


def test_gradients_of_a_heatmap_are_those_of_differences(occ):
    weigh = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)

    def total(occ):
        return (occ.heatmap([0, 2], "drop") * weigh).sum()

    found = jax.jit(jax.grad(total))(occ)
    wide = dataclasses.replace(occ, scores=occ.scores.astype(float), base=occ.base.astype(float))
    for name in ("scores", "base"):
        gradient = getattr(found, name)
        for index in ((0, 0, 0, 0)[-gradient.ndim :], (1, 2, 1, 2)[-gradient.ndim :]):
            moved = getattr(wide, name).copy()
            index = index if name == "scores" else (0, 0)
            moved[index] += 1.0
            change = total(dataclasses.replace(wide, **{name: moved})) - total(wide)
            assert gradient[index] == pytest.approx(change, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_map_of_the_kernel_s_scores_has_a_gradient(rng):
    image = rng.uniform(size=(4, 6, 1)).astype(np.float32)
    grid = make_grid((4, 6), patch=2)

    def f(images):
        return jnp.stack([(images**2).sum((1, 2, 3)), images.mean((1, 2, 3))], -1)

    def top(image):
        scores = occlusion_scores(f, image, patch=2)
        return Occlusion(scores, f(image[None])[0], grid, single=True).heatmap(0).sum()

    # The drop of a patch that becomes 0 is its sum of squares, on each of its four pixels.
    np.testing.assert_allclose(jax.jit(jax.grad(top))(image), 8 * image, rtol=1e-4)


def test_a_relative_drop_beyond_float32_is_silent(occ):
    occ.base[:] = 1e-40
    occ.scores[:] = 1e3
    assert np.all(occ.heatmap(0, "relative_drop") == -np.inf)


def test_the_class_map_says_what_is_predicted_when_a_cell_is_covered(occ):
    classes = occ.class_map()
    assert classes.dtype == np.int32 and classes.shape == (2, 6, 8)
    for n, i, j in np.ndindex(2, *GRID.shape):
        r0, c0, r1, c1 = GRID.cells[i, j]
        assert np.all(classes[n, r0:r1, c0:c1] == occ.scores[n, i, j].argmax())
    np.testing.assert_array_equal(one(occ, 1).class_map(), classes[1])


def test_the_counts_are_of_positions(occ):
    for counts, scores in zip(occ.class_counts(), occ.scores, strict=True):
        winners = scores.argmax(-1).ravel().tolist()
        assert counts == {k: winners.count(k) for k in sorted(set(winners))}
        assert sum(counts.values()) == GRID.size
        assert all(type(x) is int for pair in counts.items() for x in pair)
    assert one(occ).class_counts() == occ.class_counts()[0]


def test_one_score_is_a_class_by_half(occ):
    single = Occlusion(occ.scores[0, ..., :1], occ.base[0, :1], GRID, single=True)
    over = int((occ.scores[0, ..., 0] > 0.5).sum())
    counts = {0: GRID.size - over, 1: over}
    assert single.class_counts() == {k: count for k, count in counts.items() if count}
    assert set(np.unique(single.class_map())) == set(single.class_counts())


def test_what_was_not_computed_has_no_class(occ):
    occ.scores[0, 0, 0] = np.nan
    r0, c0, r1, c1 = GRID.cells[0, 0]
    assert np.all(occ.class_map()[0, r0:r1, c0:c1] == -1)
    assert sum(occ.class_counts()[0].values()) == GRID.size - 1
    assert np.isnan(occ.heatmap(0)[0, 0, 0]) and not np.isnan(occ.heatmap(0)[1]).any()


def test_it_is_frozen(occ):
    with pytest.raises(dataclasses.FrozenInstanceError):
        occ.scores = occ.scores


def test_it_is_a_pytree(occ):
    leaves, structure = jax.tree.flatten(occ)
    assert len(leaves) == 2
    again = jax.tree.unflatten(structure, leaves)
    assert again.grid == GRID and again.scores is occ.scores
    twice = jax.jit(lambda occ: jax.tree.map(lambda x: 2 * x, occ))(occ)
    np.testing.assert_array_equal(twice.heatmap(1), 2 * occ.heatmap(1))


def test_two_runs_on_equal_segments_are_one_structure(rng):
    runs = [
        Occlusion(rng.uniform(size=(2, 3)), rng.uniform(size=3), make_segments(labels), True)
        for labels in (np.array([[0, 1]]), np.array([[0, 1]]))
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *runs)
    assert mean.scores.shape == (2, 3) and mean.grid == runs[0].grid


def test_repr_is_one_readable_line(occ):
    assert repr(occ) == "Occlusion(2 images 6×8, 3×3 positions, patch 3×4, stride 2×3, 3 classes)"
    part = dataclasses.replace(one(occ), partial=True)
    assert repr(part).startswith("Occlusion(1 image 6×8") and repr(part).endswith(", interrupted)")


def test_a_notebook_is_shown_a_picture(occ):
    assert occ._repr_png_().startswith(b"\x89PNG")
    assert one(occ)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(target=3), "`target` must be a class from 0 to 2: got 3"),
        (dict(score="gain"), "`score` must be"),
        (dict(reduce="median"), "`reduce` must be"),
        (dict(weights=np.ones((2, 2))), "`weights` must have the patch's shape"),
    ],
)
def test_what_is_unknown_is_refused(occ, options, match):
    with pytest.raises(ValueError, match=match):
        occ.heatmap(**options)


def test_dense_scores_have_no_class_map(rng):
    occ = Occlusion(
        rng.uniform(size=(1, *GRID.shape, 4, 4, 3)), rng.uniform(size=(1, 4, 4, 3)), GRID
    )
    for read in (occ.class_map, occ.class_counts):
        with pytest.raises(ValueError, match=r"a class map needs scores \(K,\) per image"):
            read()


class Named:
    """A scorer that knows the names of its classes."""

    class_names = ("tench", "golden retriever", "crane", "crane")

    def __call__(self, images):
        return images.mean((1, 2)) @ jnp.ones((3, 4)) * jnp.arange(4.0)[None]


@pytest.mark.slow
def test_classes_are_called_by_name(tmp_path, rng):
    images = rng.uniform(size=(2, 6, 6, 3)).astype(np.float32)
    occ = occlude(Named(), images, patch=3)
    by_number = occ.heatmap(1)
    for name in ("golden retriever", "Golden_Retriever", [1, "golden retriever"]):
        np.testing.assert_array_equal(occ.heatmap(name), by_number)
    occ.save(tmp_path / "occ.npz")
    loaded = load_occlusion(tmp_path / "occ.npz")
    assert loaded.class_names == Named.class_names
    np.testing.assert_array_equal(loaded.heatmap("golden retriever"), by_number)
    given = occlude(lambda x: x.mean((1, 2)), images, patch=3, class_names=["r", "g", "b"])
    np.testing.assert_array_equal(given.heatmap("b"), given.heatmap(2))


@pytest.mark.slow
def test_a_name_that_is_none_tells_the_nearest(rng):
    images = rng.uniform(size=(2, 6, 6, 3)).astype(np.float32)
    occ = occlude(Named(), images, patch=3)
    for name, message in (
        ("golden retreiver", 'got .*; the nearest are "golden retriever"'),
        ("retriever", '"golden retriever"'),
        ("zzzz", "none is like it"),
        ("crane", r"is the name of \[2, 3\]; give a number"),
    ):
        with pytest.raises(ValueError, match=message):
            occ.heatmap(name)
    with pytest.raises(ValueError, match="must be a number where classes have no names"):
        occlude(lambda x: x.mean((1, 2)), images, patch=3).heatmap("tench")
    with pytest.raises(ValueError, match="`class_names` must name 3 classes: got 1 names"):
        occlude(lambda x: x.mean((1, 2)), images, patch=3, class_names=["a"])
