"""Reach against brute-force dependence: sets of pixels, one axis, every start of the patch."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxviz.incremental.reach import (
    POINT,
    Field,
    Positions,
    Stencil,
    Table,
    join_all,
    whole_axis,
)

STENCILS = st.builds(
    lambda extent, stride, low: Stencil(extent, stride, low),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(-2, 4),
)
GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(-5, 5))
# An operation: its kind, and what makes of the length of an axis what its outputs read.
LAYERS = st.lists(
    st.one_of(
        st.tuples(st.just("stencil"), STENCILS, st.integers(-2, 4)),
        st.tuples(st.just("enlarge"), st.integers(2, 3), st.integers(1, 4)),
        st.tuples(st.just("reverse"), st.none(), st.none()),
        st.tuples(st.just("take"), st.integers(0, 1 << 30), st.integers(1, 20)),
    ),
    max_size=4,
)


def operation(kind, how, more, dim):
    """What the outputs of a layer read of an axis of length `dim`, and how many there are."""
    if kind == "stencil":
        return how, (dim + how.low + more - how.extent) // how.stride + 1
    if kind == "enlarge":
        return Stencil(more, 1, more // 2, how), dim * how
    if kind == "reverse":
        back = np.arange(dim)[::-1]
        return Table(back, back), dim
    rng = np.random.default_rng(how)
    ends = np.sort(rng.integers(0, dim, (2, more)), axis=0)
    return Table(ends[0], ends[1]), more


def chain(dim, layers, grid):
    """For each output of a chain the pixels it depends on; the positions and their reach."""
    patch, step, offset = grid
    positions = Positions.on_grid(dim, patch, step, offset)
    pixels, reach = [{i} for i in range(dim)], positions.reach(0)
    for layer in layers:
        reads, count = operation(*layer, len(pixels))
        assume(1 <= count <= 200)
        pixels = [
            set().union(*(pixels[i] for i in range(lo, hi + 1) if 0 <= i < len(pixels)))
            for lo, hi in zip(*reads.reads(count), strict=True)
        ]
        reach = reach.through(reads, count)
    return pixels, positions, reach


def changed(pixels, start, patch):
    return [o for o, seen in enumerate(pixels) if seen & set(range(start, start + patch))]


@given(st.integers(4, 30), LAYERS, GRIDS)
def test_reach_and_window_hold_every_changed_output_for_every_start(dim, layers, grid):
    pixels, positions, reach = chain(dim, layers, grid)
    window = reach.window(len(pixels))
    assert 1 <= window.size <= len(pixels)
    for i, start in enumerate(positions.starts):
        outputs = set(changed(pixels, start, positions.patch))
        assert outputs <= set(range(reach.first[i], reach.last[i] + 1))
        assert outputs <= set(range(window.first[i], window.first[i] + window.size))
        assert 0 <= window.first[i] <= len(pixels) - window.size


@given(st.integers(4, 30), LAYERS, GRIDS)
def test_reach_is_tight_where_stencils_leave_no_gaps(dim, layers, grid):
    assume(all(kind == "reverse" or kind == "stencil" for kind, _, _ in layers))
    assume(all(s is None or s.extent >= s.stride for _, s, _ in layers))
    pixels, positions, reach = chain(dim, layers, grid)
    for i, start in enumerate(positions.starts):
        outputs = changed(pixels, start, positions.patch)
        assert reach.seen[i] == bool(outputs)
        if outputs:
            assert (reach.first[i], reach.last[i]) == (outputs[0], outputs[-1])
    sizes = (reach.last - reach.first + 1)[reach.seen]
    assert reach.window(len(pixels)).size == max(1, *sizes, 1)


@given(st.integers(4, 30), LAYERS, GRIDS, st.integers(2, 4))
def test_an_aligned_window_starts_and_ends_at_multiples(dim, layers, grid, up):
    pixels, positions, reach = chain(dim, [*layers, ("enlarge", up, 1)], grid)
    inner, outer = reach.window(len(pixels)), reach.window(len(pixels), up)
    assert outer.size % up == 0 and (outer.first % up == 0).all()
    reads = Stencil(1, 1, 0, up)
    region = outer.inputs(reads, len(pixels) // up, len(pixels))
    assert region.size * up == outer.size >= inner.size
    for i in np.flatnonzero(reach.seen):
        assert outer.first[i] <= reach.first[i]
        assert reach.last[i] < outer.first[i] + outer.size


@pytest.mark.slow
@given(st.integers(4, 30), LAYERS, GRIDS)
def test_the_region_of_a_window_holds_all_that_it_reads(dim, layers, grid):
    assume(layers)
    pixels, _, _ = chain(dim, layers[:-1], grid)
    _, positions, reach = chain(dim, layers, grid)
    reads, count = operation(*layers[-1], len(pixels))
    window = reach.window(count, reads.up)
    region = window.inputs(reads, len(pixels), count)
    lo, hi = reads.reads(count)
    for i in range(len(positions.starts)):
        outputs = range(window.first[i], window.first[i] + window.size)
        wanted = {x for o in outputs for x in range(lo[o], hi[o] + 1) if 0 <= x < len(pixels)}
        assert wanted <= set(range(region.first[i], region.first[i] + region.size))
        assert -region.size <= region.first[i] <= len(pixels)


@given(st.integers(4, 30), st.integers(0, 1 << 30), st.integers(1, 20))
def test_a_band_of_weights_is_what_made_it(dim, seed, count):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 3, (dim, count)) * (rng.random((dim, count)) < 0.2)
    band = Table.band(matrix)
    assert (band is None) == (not matrix.any())
    if band is not None:
        lo, hi = band.reads(count)
        for o in np.flatnonzero(matrix.any(0)):
            rows = np.flatnonzero(matrix[:, o])
            assert (lo[o], hi[o]) == (rows[0], rows[-1])
        assert (0 <= lo).all() and (hi < dim).all()


@given(st.integers(1, 30), GRIDS)
def test_grid_holds_every_start_that_touches_the_image(dim, grid):
    patch, step, offset = grid
    positions = Positions.on_grid(dim, patch, step, offset)
    touching = [s for s in range(-patch + 1, dim) if (s - offset) % step == 0]
    assert set(touching) <= set(positions.starts)
    assert positions.starts[0] <= -patch and positions.starts[-1] >= dim
    assert all((positions.starts - offset) % step == 0) and positions.step == step


@given(st.integers(1, 30), GRIDS, st.integers(-100, 100))
def test_place_is_the_index_of_a_start(dim, grid, start):
    patch, step, offset = grid
    positions = Positions.on_grid(dim, patch, step, offset)
    found = positions.starts[positions.place(np.int64(start))]
    assert positions.knows(start) == ((start - offset) % step == 0)
    if positions.knows(start) and -patch < start < dim:
        assert found == start


@given(st.integers(8, 40), st.lists(STENCILS, max_size=3))
def test_the_field_of_stencils_is_what_an_output_sees(dim, stencils):
    pixels, _, reach = chain(dim, [("stencil", s, s.extent) for s in stencils], (1, 1, 0))
    stride, left, right = reach.field
    for o, seen in enumerate(pixels):
        assert seen <= set(range(int(o * stride - left), int(o * stride + right) + 1))
    gapless = all(s.extent >= s.stride and 0 <= s.low < s.extent for s in stencils)
    middle = [o for o in range(len(pixels)) if o * stride >= left and o * stride + right < dim]
    if gapless and middle:
        assert len(pixels[middle[0]]) == left + right + 1


@given(st.integers(2, 3), st.integers(4, 9))
def test_the_field_of_a_table_is_that_of_the_stencil_that_made_it(stride, count):
    first, last = Stencil(3, stride, 1).reads(count)
    field = Field(2.0, 3.0, 4.0)
    assert field.through(Table(first, last), count) == field.through(Stencil(3, stride, 1), count)


@given(st.integers(4, 30), LAYERS, GRIDS, st.integers(0, 20))
def test_a_limit_keeps_the_middle_of_a_reach(dim, layers, grid, cells):
    _, positions, reach = chain(dim, layers, grid)
    limited = positions.limit(reach, cells)
    np.testing.assert_array_equal(limited.seen, reach.seen)
    inside = limited.seen
    assert (limited.first >= reach.first)[inside].all()
    assert (limited.last <= reach.last)[inside].all()
    wide = positions.limit(reach, 1 << 20)
    np.testing.assert_array_equal(wide.first, reach.first)
    stride, left, right = reach.field
    if stride and left + right > cells * abs(stride):
        across = positions.patch - 1 + cells * abs(stride)
        assert (limited.last - limited.first)[inside].max(initial=0) <= across / abs(stride) + 1


@given(st.integers(4, 30), LAYERS, GRIDS, STENCILS)
def test_join_is_the_smaller_first_and_the_larger_last(dim, layers, grid, stencil):
    pixels, positions, reach = chain(dim, layers, grid)
    other = reach.through(stencil._replace(stride=1), len(pixels))
    joined = join_all([reach, other])
    np.testing.assert_array_equal(joined.first, np.minimum(reach.first, other.first))
    np.testing.assert_array_equal(joined.last, np.maximum(reach.last, other.last))
    np.testing.assert_array_equal(joined.seen, reach.seen | other.seen)
    assert join_all([reach, reach._replace(axis=1)]) is None
    same = reach.through(POINT, len(pixels))
    np.testing.assert_array_equal(same.first, reach.first)
    assert same.field == reach.field


@pytest.mark.slow
def test_what_is_read_as_a_whole_changes_where_it_is_seen():
    seen = np.array([False, True, True])
    reach = whole_axis(1, seen, 5)
    assert reach.axis == 1 and reach.window(5).size == 5
    np.testing.assert_array_equal(reach.seen, seen)
    nowhere = whole_axis(0, np.zeros(3, bool), 5)
    assert nowhere.window(5).size == 1 and nowhere.window(4, 2).size == 2
