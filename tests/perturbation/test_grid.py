"""Grids against walking along the axis, coverage and spreading against counting pixel by pixel."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import slow_bilinear, slow_spread, slow_starts, slow_stretch

from jaxviz._arguments import pair
from jaxviz._choices import Reduce
from jaxviz.perturbation.grid import Grid, make_grid


@st.composite
def grids(draw, *, max_size=12):
    """Any grid on a small image: every border, margins, strides beyond the patch."""
    shape = draw(st.tuples(*[st.integers(1, max_size)] * 2))
    border = draw(st.sampled_from(["clip", "valid", "shift"]))
    patch = [draw(st.integers(1, size)) for size in shape]
    stride = draw(st.tuples(st.integers(1, max_size), st.integers(1, max_size)))
    margin = [draw(st.integers(0, w - 1)) if border == "clip" else 0 for w in patch]
    return make_grid(shape, patch=tuple(patch), stride=stride, margin=tuple(margin), border=border)


def axes(grid):
    """(size, patch, stride, margin, starts) of either axis."""
    names = grid.image_shape, grid.patch, grid.stride, grid.margin
    return zip(*names, (grid.row_starts, grid.col_starts), strict=True)


@given(grids())
def test_starts_follow_the_border_rule(grid):
    for size, patch, stride, margin, starts in axes(grid):
        assert list(starts) == slow_starts(size, patch, stride, grid.border, margin)


@given(grids())
def test_starts_are_laid_out_rows_by_cols(grid):
    assert grid.starts.shape == (*grid.shape, 2) and grid.starts.dtype == np.int32
    assert grid.size == grid.shape[0] * grid.shape[1]
    for i, j in np.ndindex(grid.shape):
        assert grid.starts[i, j].tolist() == [grid.row_starts[i], grid.col_starts[j]]


@given(grids())
def test_every_patch_touches_the_image(grid):
    for size, patch, _, _, starts in axes(grid):
        assert all(-patch < start < size for start in starts)
        if grid.border != "clip":
            assert all(0 <= start <= size - patch for start in starts)


@given(grids())
def test_clip_and_shift_reach_both_edges(grid):
    assume(grid.border != "valid")
    for size, patch, stride, margin, starts in axes(grid):
        if margin or stride > patch:
            continue
        assert starts[0] == 0 and starts[-1] + patch >= size


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 11))
def test_a_margin_makes_one_position_per_cell(size, stride, margin):
    patch = max(margin + 1, 5)
    assume(patch <= size + 2 * margin)
    grid = make_grid((size, size), patch=patch, stride=stride, margin=margin)
    if margin:
        assert grid.shape == (-(-size // stride),) * 2
        assert grid.cells[:, 0, 0].tolist() == list(range(0, size, stride))


@given(grids())
def test_coverage_counts_patches(grid):
    count = np.zeros(grid.image_shape, int)
    for top, left in grid.starts.reshape(-1, 2):
        bottom, right = top + grid.patch[0], left + grid.patch[1]
        count[max(top, 0) : bottom, max(left, 0) : right] += 1
    np.testing.assert_array_equal(grid.coverage, count)


@given(grids())
def test_cells_partition_what_the_patches_span(grid):
    owners = np.zeros(grid.image_shape, int)
    for r0, c0, r1, c1 in grid.cells.reshape(-1, 4):
        assert 0 <= r0 < r1 and 0 <= c0 < c1
        owners[r0:r1, c0:c1] += 1
    spans = []
    for size, patch, _, margin, starts in axes(grid):
        end = size if margin else min(starts[-1] + patch, size)
        spans.append(np.arange(size) < end)
    np.testing.assert_array_equal(owners, np.outer(*spans))


@given(grids())
def test_without_margin_a_pixel_belongs_to_the_nearest_patch(grid):
    for axis, (_, patch, _, margin, starts) in enumerate(axes(grid)):
        if margin:
            continue
        middles = np.array(starts) + patch / 2
        cells = grid.cells[:, 0, (0, 2)] if axis == 0 else grid.cells[0, :, (1, 3)].T
        for owner, (low, high) in enumerate(cells):
            for pixel in range(low, high):
                away = np.abs(middles - (pixel + 0.5))
                assert away[owner] == away.min()


@pytest.mark.parametrize("patch, stride", [(3, 3), (5, 3), (3, 1), ((3, 5), (3, 5))])
def test_interior_cells_are_as_large_as_the_stride(patch, stride):
    grid = make_grid((30, 30), patch=patch, stride=stride)
    r0, c0, r1, c1 = grid.cells[2, 2]
    assert (r1 - r0, c1 - c0) == grid.stride


@settings(max_examples=50)
@given(grids(max_size=7), st.sampled_from(["mean", "sum"]), st.booleans(), st.booleans(), st.data())
def test_spread_equals_counting(grid, reduce, weighted, some_missing, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(-4, 5, grid.shape).astype(np.float64)
    if some_missing:
        for value in (np.nan, np.inf, -np.inf):
            values[rng.random(grid.shape) < 0.2] = value
    weights = rng.integers(0, 4, grid.patch).astype(np.float64) if weighted else None
    wanted = slow_spread(
        values, (grid.row_starts, grid.col_starts), grid.patch, grid.image_shape, reduce, weights
    )
    np.testing.assert_allclose(grid.spread(values, reduce, weights=weights), wanted, rtol=1e-12)


@given(grids())
def test_cell_writes_each_value_on_its_cell(grid):
    values = np.arange(grid.size, dtype=np.float64).reshape(grid.shape)
    spread = grid.spread(values, "cell")
    for i, j in np.ndindex(grid.shape):
        r0, c0, r1, c1 = grid.cells[i, j]
        assert np.all(spread[r0:r1, c0:c1] == values[i, j])
    assert np.isnan(spread).sum() == spread.size - sum(
        (r1 - r0) * (c1 - c0) for r0, c0, r1, c1 in grid.cells.reshape(-1, 4)
    )


@pytest.mark.slow
@given(grids())
def test_bilinear_lies_between_the_middles_of_patches(grid):
    values = np.random.default_rng(0).normal(size=grid.shape)
    starts = zip((grid.row_starts, grid.col_starts), grid.patch, strict=True)
    middles = [np.array(where) + patch / 2 for where, patch in starts]
    wanted = slow_bilinear(values, middles, grid.image_shape)
    np.testing.assert_allclose(grid.spread(values, "bilinear"), wanted, atol=1e-12)


@given(grids())
def test_stretch_equals_four_neighbours(grid):
    values = np.random.default_rng(0).normal(size=grid.shape)
    wanted = slow_stretch(values, grid.image_shape)
    np.testing.assert_allclose(grid.spread(values, "stretch"), wanted, atol=1e-12)


def centre_of_mass(grid, at, reduce):
    """Of the map of a scorer that sees one pixel only."""
    r, c = grid.starts[..., 0], grid.starts[..., 1]
    (ph, pw), (row, col) = grid.patch, at
    hit = (r <= row) & (row < r + ph) & (c <= col) & (col < c + pw)
    found = grid.spread(hit.astype(float), reduce)
    return [(axis * found).sum() / found.sum() for axis in np.indices(grid.image_shape)]


@pytest.mark.parametrize("at", [(10, 13), (16, 16), (25, 6)])
def test_bilinear_moves_nothing(at):
    grid = make_grid((32, 32), patch=5, stride=1)
    np.testing.assert_allclose(centre_of_mass(grid, at, "bilinear"), at, atol=1e-9)
    # Patches are centred on a pixel up to half a stride, if at all.
    grid = make_grid((32, 32), patch=6, stride=3)
    np.testing.assert_allclose(centre_of_mass(grid, at, "bilinear"), at, atol=1.5)


def test_stretch_moves_what_it_shows():
    grid = make_grid((32, 32), patch=5, stride=1)
    moved = centre_of_mass(grid, (10, 13), "stretch")
    np.testing.assert_allclose(moved, (9.2, 12.65), atol=0.05)


@pytest.mark.parametrize("reduce", ["bilinear", "stretch"])
def test_interpolation_leaves_missing_positions_out(reduce):
    grid = make_grid((12, 12), patch=3)
    values = np.ones(grid.shape)
    values[0, 0] = np.nan
    spread = grid.spread(values, reduce)
    assert np.isnan(spread[0, 0]) and not np.isnan(spread[3:, 3:]).any()
    np.testing.assert_allclose(spread[~np.isnan(spread)], 1)


@pytest.mark.parametrize("reduce", get_args(Reduce))
@pytest.mark.parametrize("end", [np.inf, -np.inf])
def test_an_infinite_value_is_infinite_wherever_it_has_a_part(reduce, end):
    grid = make_grid((6, 4), patch=2)
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    plain, values[0, 0] = grid.spread(values, reduce), end
    touched = grid.spread((values == end).astype(float), "mean" if reduce == "sum" else reduce) > 0
    found = grid.spread(values, reduce)
    assert touched[0, 0] and not touched[-1, -1]
    np.testing.assert_array_equal(found, np.where(touched, end, plain))


@pytest.mark.parametrize("reduce", ["mean", "sum", "bilinear", "stretch"])
def test_both_infinities_have_no_value(reduce):
    grid = make_grid((6, 1), patch=(4, 1), stride=2)
    found = grid.spread(np.array([[np.inf], [-np.inf]]), reduce)
    assert np.isnan(found[3]).all()


@given(grids(), st.sampled_from(get_args(Reduce)))
def test_spread_keeps_leading_axes(grid, reduce):
    values = np.random.default_rng(0).normal(size=(2, 3, *grid.shape))
    spread = grid.spread(values, reduce)
    assert spread.shape == (2, 3, *grid.image_shape)
    np.testing.assert_allclose(spread[1, 2], grid.spread(values[1, 2], reduce), rtol=1e-12)


@pytest.mark.parametrize("reduce", get_args(Reduce))
def test_transposing_the_image_transposes_the_map(reduce):
    values = np.random.default_rng(0).normal(size=make_grid((9, 14), patch=(3, 4)).shape)
    tall = make_grid((9, 14), patch=(3, 4), stride=(3, 4))
    wide = make_grid((14, 9), patch=(4, 3), stride=(4, 3))
    np.testing.assert_allclose(tall.spread(values, reduce).T, wide.spread(values.T, reduce))


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", get_args(Reduce))
def test_traced_values_are_spread_alike(reduce, weighted):
    grid = make_grid((7, 9), patch=(3, 2), stride=(2, 3), border="valid")
    values = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    values[0, 0, 0], values[1, 1, 1], values[1, 2, 2] = np.nan, np.inf, -np.inf
    weights = np.arange(6.0).reshape(3, 2) if weighted else None
    spread = partial(grid.spread, reduce=reduce, weights=weights)
    found = jax.jit(spread)(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, spread(values), rtol=1e-5, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda values: jnp.nansum(spread(values))))(
        np.ones(grid.shape, np.float32)
    )
    steps = np.eye(grid.size).reshape(-1, *grid.shape)
    wanted = np.nansum(spread(steps), (-2, -1)).reshape(grid.shape)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5)


def test_grid_is_a_value():
    one, two = (make_grid((5, 7), patch=2) for _ in range(2))
    assert one.starts is one.starts
    assert one == two and hash(one) == hash(two)
    assert one != make_grid((5, 7), patch=2, border="shift")


def test_str_names_what_is_set():
    assert str(make_grid((28, 28), patch=4)) == "7×7 positions, patch 4×4, stride 4×4"
    with_margin = make_grid((28, 28), patch=20, stride=4, margin=8)
    assert str(with_margin) == "7×7 positions, patch 20×20, stride 4×4, margin 8×8"
    assert str(make_grid((9, 9), patch=4, border="shift")).endswith(", shift")


def test_pair_takes_numpy_integers():
    assert pair(np.int64(3), "patch", least=1) == (3, 3)
    assert pair([np.int32(3), 4], "patch", least=1) == (3, 4)


@pytest.mark.parametrize(
    "options, error, match",
    [
        (dict(patch=0), ValueError, "`patch` must be at least 1: got 0"),
        (dict(patch=2, stride=0), ValueError, "`stride` must be at least 1: got 0"),
        (dict(patch=2, stride=(1, 0)), ValueError, r"`stride` must be at least 1: got \(1, 0\)"),
        (dict(patch=2, margin=-1), ValueError, "`margin` must be at least 0: got -1"),
        (dict(patch=9), ValueError, r"`patch` must not exceed the image: got \(9, 9\)"),
        (dict(patch=(2, 9)), ValueError, r"got \(2, 9\) for an image of \(5, 7\)"),
        (dict(patch=2, margin=2), ValueError, r"`margin` must be less than the patch: got"),
        (dict(patch=2, border="wrap"), ValueError, "`border` must be .* got 'wrap'"),
        (dict(patch=3, margin=1, border="valid"), ValueError, "`margin` needs border=.clip."),
        (dict(patch=2.0), TypeError, "`patch` must be a whole number or a .* got 2.0"),
        (dict(patch="2"), TypeError, "`patch` must be a whole number"),
        (dict(patch=True), TypeError, "`patch` must be a whole number .* got True"),
        (dict(patch=(2, 2.5)), TypeError, r"`patch` must be a whole number .* got \(2, 2.5\)"),
        (dict(patch=(2, 2, 1)), TypeError, "`patch` must be a whole number"),
    ],
)
def test_bad_sizes_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        make_grid((5, 7), **options)


@pytest.mark.slow
def test_spread_refuses_what_it_does_not_know():
    grid: Grid = make_grid((4, 4), patch=2)
    with pytest.raises(ValueError, match='`reduce` must be "mean", .* or "stretch": got'):
        grid.spread(np.zeros(grid.shape), "median")  # pyright: ignore
    with pytest.raises(ValueError, match=r"`weights` must have the patch's shape \(2, 2\): got"):
        grid.spread(np.zeros(grid.shape), weights=np.ones((3, 3)))
