"""Every option of `occlude` against a loop that pastes one patch at a time."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import scored, slow_paste, slow_scores, slow_starts
from scorers import convolutional, integers, weighted_sums

from jaxviz import fills
from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.segments import occlude_segments

SHAPE = (6, 8, 2)
IMAGE = integers(SHAPE)
F = weighted_sums(SHAPE)
LABELS = np.random.default_rng(3).integers(0, 4, SHAPE[:2])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
@pytest.mark.parametrize(
    "options",
    [
        dict(patch=(2, 3), stride=(2, 3)),
        dict(patch=(4, 3), stride=(1, 2)),
        dict(patch=(4, 3), stride=(3, 4), border="valid"),
        dict(patch=(4, 3), stride=(3, 4), border="shift"),
        dict(patch=(5, 3), stride=(2, 3), margin=(2, 0)),
        dict(patch=(6, 8), stride=(1, 1)),
        dict(patch=(1, 1), stride=(5, 7)),
    ],
    ids=lambda options: " ".join(str(value) for value in options.values()),
)
def test_scores_equal_the_loop(options, method):
    wanted = slow_scores(F, IMAGE, **options, fill=3.0)
    occ = occlude(F, IMAGE, **options, fill=3.0, method=method)
    np.testing.assert_array_equal(occ.scores, wanted)
    np.testing.assert_array_equal(occ.base, scored(F, IMAGE))
    kernel = jax.jit(lambda image: occlusion_scores(F, image, **options, fill=3.0, method=method))
    np.testing.assert_array_equal(kernel(IMAGE), wanted)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_any_grid_on_any_image(data):
    shape = data.draw(st.tuples(st.integers(2, 7), st.integers(2, 7), st.sampled_from([1, 3, 5])))
    patch = tuple(data.draw(st.integers(1, size)) for size in shape[:2])
    stride = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    border = data.draw(st.sampled_from(["clip", "valid", "shift"]))
    f, image = weighted_sums(shape), integers(shape)
    occ = occlude(f, image, patch=patch, stride=stride, border=border, fill="mean")
    mean = image.mean((0, 1))
    wanted = slow_scores(f, image, patch, stride, lambda row, col, c: mean[c], border)
    np.testing.assert_allclose(occ.scores, wanted, rtol=1e-5, atol=1e-3)


def test_one_number_is_both_axes_and_no_stride_means_tiles():
    np.testing.assert_array_equal(
        occlude(F, IMAGE, patch=2).scores, slow_scores(F, IMAGE, (2, 2), (2, 2))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "fill, value",
    [
        (3, lambda row, col, channel: 3),
        ([1.0, 2.0], lambda row, col, channel: channel + 1),
        (IMAGE[::-1], lambda row, col, channel: IMAGE[::-1][row, col, channel]),
        (lambda under, start: under + start.sum().astype(under.dtype), None),
    ],
    ids=["number", "channels", "image", "function"],
)
def test_fills_reach_the_patch(fill, value):
    occ = occlude(F, IMAGE, patch=2, stride=3, fill=fill)
    for i, j in np.ndindex(occ.grid.shape):
        start = occ.grid.starts[i, j].tolist()
        here = value or (lambda *pixel, start=start: IMAGE[pixel] + sum(start))
        occluded = slow_paste(IMAGE, start, (2, 2), here)
        np.testing.assert_array_equal(occ.scores[i, j], scored(F, occluded))


def test_channels_are_occluded_by_themselves():
    for channels in ([1], 1, np.array([1])):
        occ = occlude(F, IMAGE, patch=2, channels=channels, fill=3.0)
        wanted = slow_scores(
            F, IMAGE, (2, 2), (2, 2), lambda *pixel: 3.0 if pixel[2] == 1 else IMAGE[pixel]
        )
        np.testing.assert_array_equal(occ.scores, wanted)


def test_the_complement_keeps_the_patch():
    occ = occlude(F, IMAGE, patch=2, complement=True, fill=3.0)
    for i, j in np.ndindex(occ.grid.shape):
        kept = slow_paste(
            np.full_like(IMAGE, 3), occ.grid.starts[i, j], (2, 2), lambda *pixel: IMAGE[pixel]
        )
        np.testing.assert_array_equal(occ.scores[i, j], scored(F, kept))
    np.testing.assert_array_equal(occ.base, scored(F, IMAGE))


BOX = (1, 3, 4, 6)
MASK = np.zeros(SHAPE[:2], bool)
MASK[1:4, 3:6] = True


@pytest.mark.slow
@pytest.mark.parametrize("region", [BOX, MASK], ids=["box", "mask"])
@pytest.mark.parametrize("options", [dict(patch=2), dict(patch=5, stride=1, margin=2)])
def test_a_region_scores_the_positions_whose_cells_meet_it(region, options):
    everywhere, some = (occlude(F, IMAGE, **options, region=where) for where in (None, region))
    for i, j in np.ndindex(some.grid.shape):
        r0, c0, r1, c1 = some.grid.cells[i, j]
        wanted = everywhere.scores[i, j] if MASK[r0:r1, c0:c1].any() else np.full(3, np.nan)
        np.testing.assert_array_equal(some.scores[i, j], wanted)
    covered = ~np.isnan(some.heatmap(target=0))
    assert covered[MASK].all() and not covered.all()
    np.testing.assert_array_equal(some.base, everywhere.base)


@pytest.mark.slow
@pytest.mark.parametrize("complement", [False, True])
@pytest.mark.parametrize("groups", [None, [0, [1, 3], [2, 3]]])
def test_segments_equal_the_loop(groups, complement):
    images = integers((2, *SHAPE))
    occ = occlude_segments(F, images, LABELS, groups=groups, complement=complement, fill=3.0)
    assert occ.scores.shape == (2, len(groups or range(4)), 3)
    for n, g in np.ndindex(occ.scores.shape[:2]):
        hidden = np.isin(LABELS, (groups or range(4))[g]) != complement
        occluded = np.where(hidden[..., None], 3.0, images[n])
        np.testing.assert_array_equal(occ.scores[n, g], scored(F, occluded))
    assert occ.heatmap(target=1).shape == occ.class_map().shape == (2, *SHAPE[:2])


def test_a_mask_of_tiles_is_the_grid_of_tiles():
    tiles = np.arange(12).reshape(3, 4).repeat(2, 0).repeat(2, 1)
    as_segments, as_grid = occlude_segments(F, IMAGE, tiles), occlude(F, IMAGE, patch=2)
    np.testing.assert_array_equal(as_segments.scores, as_grid.scores.reshape(12, 3))
    np.testing.assert_array_equal(as_segments.heatmap(), as_grid.heatmap())


def test_a_batch_is_its_images():
    images = integers((3, *SHAPE))
    many = occlude(F, images, patch=2, fill="mean")
    for n, image in enumerate(images):
        one = occlude(F, image, patch=2, fill="mean")
        np.testing.assert_array_equal(many.scores[n], one.scores)
        np.testing.assert_array_equal(many.base[n], one.base)
    assert many.scores.shape == (3, 3, 4, 3) and one.scores.shape == (3, 4, 3)


@pytest.mark.slow
def test_a_signal_is_an_image_of_height_one():
    signal = integers((1, 12, 2))
    f = weighted_sums(signal.shape)
    occ = occlude(f, signal, patch=(1, 4), stride=(1, 2))
    np.testing.assert_array_equal(occ.scores, slow_scores(f, signal, (1, 4), (1, 2)))
    assert occ.heatmap(target=0).shape == (1, 12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, np.float64])
def test_images_of_any_dtype_never_wrap(dtype):
    image = np.full(SHAPE, 200 if dtype in (np.uint8, np.int64) else 1).astype(dtype)
    image[0, 0, 0] = 0
    occ = occlude(lambda x: 2.0 * x.sum((1, 2, 3))[:, None], image, patch=(6, 8))
    assert occ.base[0] == 2.0 * image.astype(np.float64).sum()
    assert occ.scores[0, 0, 0] == 0 and occ.scores.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_float64_is_kept_where_it_is_on(method):
    with jax.enable_x64(True):
        image = np.random.default_rng(0).normal(size=SHAPE)
        occ = occlude(weighted_sums(SHAPE), image, patch=2, fill=0.1, method=method)
        assert occ.scores.dtype == occ.base.dtype == occ.heatmap().dtype == np.float64
        wanted = slow_scores(
            lambda x: np.einsum("nhwc,hwck->nk", x, weights_of(SHAPE)), image, (2, 2), (2, 2), 0.1
        )
        np.testing.assert_allclose(occ.scores, wanted, rtol=1e-13, atol=1e-13)


def weights_of(shape):
    """The weights of `weighted_sums`, read off its unit vectors."""
    units = np.eye(np.prod(shape), dtype=np.float32).reshape(-1, *shape)
    return np.asarray(weighted_sums(shape)(units), np.float64).reshape(*shape, -1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_bfloat16_forward_passes_give_float32_maps(method):
    f, image = convolutional(size=(8, 8)), np.random.default_rng(0).uniform(size=(8, 8, 1))
    seen = []

    def spy(images):
        seen.append(images.dtype)
        return images.mean((1, 2))

    half = occlude(f, image, patch=2, dtype="bfloat16", method=method)
    full = occlude(f, image, patch=2)
    assert half.scores.dtype == half.heatmap().dtype == np.float32
    np.testing.assert_allclose(half.scores, full.scores, atol=0.03)
    assert np.any(half.scores != full.scores)
    occlude(spy, image, patch=2, dtype=jnp.bfloat16)
    assert set(seen) == {jnp.dtype("bfloat16")}
    assert ("dtype", "bfloat16") in half.config


def test_a_single_score_works():
    occ = occlude(lambda x: x.mean((1, 2, 3))[:, None] / 9, IMAGE, patch=2)
    assert occ.scores.shape == (3, 4, 1) and occ.heatmap(target=0).shape == (6, 8)
    np.testing.assert_array_equal(occ.heatmap(), occ.heatmap(target=0))
    assert set(np.unique(occ.class_map())) <= {0, 1}


def test_a_segmentation_scorer_is_read_through_a_function():
    def segment(images):
        return jnp.stack([images[..., 0], images.sum(-1)], -1)

    occ = occlude(segment, IMAGE, patch=2)
    assert occ.scores.shape == (3, 4, 6, 8, 2)

    def target(scores):
        return scores[..., 1].mean((-1, -2))

    for i, j in np.ndindex(3, 4):
        occluded = slow_paste(IMAGE, (2 * i, 2 * j), (2, 2), lambda *pixel: 0)
        drop = (IMAGE.sum(-1) - occluded.sum(-1)).mean()
        np.testing.assert_allclose(occ.heatmap(target)[2 * i, 2 * j], drop, rtol=1e-5)
    with pytest.raises(ValueError, match="`target` must be a function"):
        occ.heatmap()
    with pytest.raises(ValueError, match=r"a class map needs scores \(K,\) per image"):
        occ.class_map()


@pytest.mark.parametrize("method", ["dense", "incremental"])
class TestKernel:
    """`occlusion_scores` is a pure function of its arrays."""

    @pytest.mark.slow
    def test_chunks_change_nothing(self, method):
        def scores(batch_size):
            return occlusion_scores(F, IMAGE, patch=2, method=method, batch_size=batch_size)

        wanted = jax.jit(scores, static_argnums=0)(None)
        for batch_size in (1, 5, 99):
            np.testing.assert_array_equal(jax.jit(scores, static_argnums=0)(batch_size), wanted)

    @pytest.mark.parametrize("refine", [(3, 0.2), (2, 0.0), (9, 1.0)])
    @pytest.mark.parametrize("batch_size", [None, 4])
    def test_a_refinement_is_that_of_a_run(self, method, refine, batch_size):
        options = dict(patch=2, stride=1, fill=3.0, method=method, refine=refine)
        kernel = jax.jit(lambda x: occlusion_scores(F, x, **options, batch_size=batch_size))
        wanted = occlude(F, IMAGE, **options)
        np.testing.assert_allclose(kernel(IMAGE), wanted.scores, rtol=1e-6)
        np.testing.assert_array_equal(kernel(IMAGE)[wanted.exact], wanted.scores[wanted.exact])

    @pytest.mark.slow
    def test_jit_and_vmap(self, method):
        images = jnp.asarray(integers((3, *SHAPE)))

        def scores(image):
            return occlusion_scores(F, image, patch=(3, 2), fill="mean", method=method)

        one, many = jax.jit(scores), jax.jit(jax.vmap(scores))(images)
        for image, ours in zip(images, many, strict=True):
            np.testing.assert_allclose(ours, one(image), rtol=1e-5)

    @pytest.mark.slow
    def test_gradient_by_the_image(self, method):
        def total(image):
            return occlusion_scores(F, image, patch=2, method=method)[..., 1].sum()

        slope = jax.jit(jax.grad(total))(jnp.asarray(IMAGE))
        # Each pixel is hidden at one of the twelve positions, and counts in the other eleven.
        np.testing.assert_allclose(slope, 11 * weights_of(SHAPE)[..., 1], rtol=1e-5)

    @pytest.mark.slow
    def test_gradient_by_the_weights_and_the_fill(self, method):
        f = convolutional(2, size=(6, 8))

        def total(f, value):
            scores = occlusion_scores(f, IMAGE / 9, patch=3, fill=value, method=method)
            return scores[..., 1].sum()

        slopes = jax.jit(jax.grad(total, (0, 1)))(f, 0.5)
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))
        step = 1e-2
        forward = jax.jit(total)
        rise = (forward(f, 0.5 + step) - forward(f, 0.5 - step)) / (2 * step)
        np.testing.assert_allclose(slopes[1], rise, rtol=0.1)


@pytest.mark.slow
def test_the_record_says_how_it_was_made():
    occ = occlude(
        convolutional(2, size=(6, 8)), IMAGE, patch=2, fill=[1, 2], channels=[0], region=BOX
    )
    assert dict(occ.config) == {
        "model": "Partial(network)",
        "dtype": "float32",
        "fill": "constant [1.0, 2.0]",
        "channels": "(0,)",
        "region": "(1, 3, 4, 6)",
        "images": f"{IMAGE.min():g} to {IMAGE.max():g}",
    }
    assert ("region", "a mask") in occlude(F, IMAGE, patch=2, region=MASK).config
    assert ("complement", "True") in occlude_segments(F, IMAGE, LABELS, complement=True).config


@pytest.mark.slow
def test_fills_of_the_package_run():
    for fill in (fills.blur(1.0), fills.noise(jax.random.key(0), mean=0.0, std=1.0)):
        with warnings.catch_warnings():
            occ = occlude(F, IMAGE, patch=2, fill=fill)
        assert np.isfinite(occ.scores).all() and np.any(occ.scores != occ.base)


def test_starts_of_the_oracle_are_those_of_the_contract():
    assert slow_starts(10, 4, 3, "clip") == [0, 3, 6]
    assert slow_starts(10, 4, 4, "clip") == [0, 4, 8]
    assert slow_starts(10, 4, 4, "valid") == [0, 4]
    assert slow_starts(10, 4, 4, "shift") == [0, 4, 6]
    assert slow_starts(10, 20, 4, margin=8) == [-8, -4, 0]


def test_a_refined_run_is_exact_where_it_says_so():
    images = integers((2, *SHAPE))
    everything = occlude(F, images, patch=2, stride=1, fill=3.0)
    some = occlude(F, images, patch=2, stride=1, fill=3.0, refine=(3, 0.2))
    assert some.exact.shape == (2, *some.grid.shape) and 0 < some.exact.mean() < 0.7
    np.testing.assert_array_equal(some.scores[some.exact], everything.scores[some.exact])
    np.testing.assert_array_equal(some.base, everything.base)
    assert np.isfinite(some.scores).all()
    assert f"approximate, {some.exact.mean():.0%} of the positions exact" in repr(some)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_a_refinement_prepares_each_image_once_and_scores_it_clean_once(method, monkeypatch):
    from jaxviz.scoring import execute as blocks

    prepared, rows, told = [], [], []
    choose = blocks.choose

    def watch(task, batch_size):
        program = choose(task, batch_size)

        def prepare(*arguments):
            prepared.append(1)
            return program.prepare(*arguments)

        def evaluate(arrays, occluder, states, positions, clean):
            rows.extend(np.asarray(clean)[:1].tolist())
            return program.evaluate(arrays, occluder, states, positions, clean)

        return replace(program, prepare=prepare, evaluate=evaluate)

    monkeypatch.setattr(blocks, "choose", watch)
    images = integers((3, *SHAPE))
    options = dict(patch=2, stride=1, fill=3.0, method=method, batch_size=4)
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    occ = occlude(F, images, **options, refine=(3, 0.2), progress=progress)
    assert len(prepared) == 3 and sum(rows) == 3
    done, totals = zip(*told, strict=True)
    assert set(totals) == {occ.exact.sum()} and done[-1] == totals[0]
    assert list(done) == sorted(set(done)) and done[0] < done[-1]
    wanted = occlude(F, images, **options)
    np.testing.assert_array_equal(occ.scores[occ.exact], wanted.scores[occ.exact])
    np.testing.assert_array_equal(occ.base, wanted.base)


@pytest.mark.slow
def test_a_refined_score_that_is_not_finite_spoils_its_neighbours_only():
    image = np.zeros((6, 6, 1), np.float32)
    image[2, 2] = 1.0
    for bad in (np.nan, np.inf):
        f = lambda x, bad=bad: jnp.where(x[:, 2, 2] == 0, bad, x.sum((1, 2)))  # noqa: E731
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            occ = occlude(f, image, patch=1, refine=(2, 0.0))
        good = np.isfinite(occ.scores[..., 0])
        assert good.sum() == 36 - 9 and not good[1:4, 1:4].any()
        np.testing.assert_array_equal(occ.scores[good], 1.0)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_refinement_keeps_what_was_scored(after):
    images, told = integers((2, *SHAPE)), []

    def stop(done, total):
        told.append(done)
        if len(told) == after:
            raise KeyboardInterrupt

    options = dict(patch=2, stride=1, batch_size=16)
    everything = occlude(F, images, **options)
    with pytest.warns(UserWarning, match="others are interpolated or NaN"):
        occ = occlude(F, images, **options, refine=(3, 0.2), progress=stop)
    assert occ.partial and occ.exact[0].any() and len(told) == after
    np.testing.assert_array_equal(occ.scores[occ.exact], everything.scores[occ.exact])
    np.testing.assert_array_equal(occ.base[0], everything.base[0])
    unknown = ~occ.exact.any((1, 2))
    assert np.isnan(occ.scores[unknown]).all()


@pytest.mark.slow
def test_a_refinement_goes_on_with_smaller_blocks(monkeypatch):
    from jaxviz.scoring import execute as blocks

    calls, choose = [], blocks.choose

    def once(task, batch_size):
        program = choose(task, batch_size)

        def evaluate(*arguments):
            calls.append(1)
            if len(calls) == 3:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of this test")
            return program.evaluate(*arguments)

        return replace(program, evaluate=evaluate)

    monkeypatch.setattr(blocks, "choose", once)
    images = integers((2, *SHAPE))
    options = dict(patch=2, stride=1, fill=3.0, batch_size=8)
    with pytest.warns(UserWarning, match="out of memory at batch_size"):
        occ = occlude(F, images, **options, refine=(3, 0.2))
    wanted = occlude(F, images, **options)
    np.testing.assert_array_equal(occ.scores[occ.exact], wanted.scores[occ.exact])
    np.testing.assert_array_equal(occ.base, wanted.base)


def test_memory_may_be_a_text():
    told = occlude(F, IMAGE, patch=2, memory="1MB")
    np.testing.assert_array_equal(told.scores, occlude(F, IMAGE, patch=2).scores)
    with pytest.raises(MemoryError, match="and 1,000 were allowed"):
        occlude(F, IMAGE, patch=2, memory="1kB", batch_size="auto")


def test_segments_may_cover_some_channels_only():
    occ = occlude_segments(F, IMAGE, LABELS, fill=3.0, channels=[1])
    for g in range(4):
        covered = (LABELS == g)[..., None] & (np.arange(2) == 1)
        wanted = F(np.where(covered, np.float32(3.0), IMAGE)[None])[0]
        np.testing.assert_array_equal(occ.scores[g], wanted)
    assert ("channels", "(1,)") in occ.config


@pytest.mark.slow
def test_whole_numbers_are_not_rounded():
    def f(images):
        return images.sum((1, 2)).astype(jnp.int32) + 2**24

    image = np.ones((4, 6, 1), np.float32)
    for method in ("dense", "incremental"):
        occ = occlude(f, image, patch=2, method=method)
        np.testing.assert_array_equal(occ.scores[..., 0], np.full((2, 3), 2**24 + 20))
        assert occ.base[0] == 2**24 + 24


@pytest.mark.slow
def test_complex_scores_are_refused():
    with pytest.raises(
        ValueError, match="`f` must return real scores: got complex64; give jnp.abs"
    ):
        occlude(lambda x: x.mean((1, 2)).astype(jnp.complex64), np.ones((4, 4, 1)), patch=2)
