"""Reach algebra against brute-force dependence: sets of pixels, one axis."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxviz.incremental.reach import POINT, Positions, Reach, Stencil, join_all

STENCILS = st.builds(
    lambda extent, stride, low: Stencil(extent, stride, low),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(-2, 4),
)


def slow_dependence(inputs, stencil, high):
    """For each output of a stencil padded by (low, high): the pixels its inputs depend on."""
    count = (len(inputs) + stencil.low + high - stencil.extent) // stencil.stride + 1
    outputs = []
    for o in range(count * stencil.up):
        first = o // stencil.up * stencil.stride - stencil.low
        taps = range(first, first + stencil.extent)
        outputs.append(set().union(*(inputs[i] for i in taps if 0 <= i < len(inputs))))
    return outputs


def chain(dim, layers):
    """Dependence and reach behind several stencils."""
    pixels, reach = [{i} for i in range(dim)], Reach(0)
    for stencil, high in layers:
        assume(dim + stencil.low + high >= stencil.extent)
        pixels, reach = slow_dependence(pixels, stencil, high), reach.through(stencil)
        dim = len(pixels)
        assume(dim >= 1 and reach is not None)
    return pixels, reach


LAYERS = st.lists(st.tuples(STENCILS, st.integers(-2, 4)), max_size=4)
ENLARGED = st.builds(
    lambda up, extent, low, before, after: [
        *before,
        (Stencil(up, up), 0),
        (Stencil(extent, 1, low, up), extent - 1 - low),
        *after,
    ],
    st.integers(2, 3),
    st.integers(1, 4),
    st.integers(-1, 4),
    LAYERS,
    LAYERS,
)


@given(st.integers(4, 30), st.one_of(LAYERS, ENLARGED))
def test_reach_holds_every_pixel_an_output_depends_on(dim, layers):
    pixels, reach = chain(dim, layers)
    for o, seen in enumerate(pixels):
        inside = range(o * reach.stride - reach.left, o * reach.stride + reach.right + 1)
        assert seen <= set(inside)


@given(st.integers(8, 30), st.lists(st.tuples(STENCILS, st.integers(0, 2)), max_size=3))
def test_reach_is_tight_without_gaps_and_away_from_the_border(dim, layers):
    assume(all(stencil.extent >= stencil.stride for stencil, _ in layers))
    assume(all(0 <= stencil.low < stencil.extent for stencil, _ in layers))
    pixels, reach = chain(dim, layers)
    for o, seen in enumerate(pixels):
        first, last = o * reach.stride - reach.left, o * reach.stride + reach.right
        if first >= 0 and last < dim:
            assert {first, last} <= seen


GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(-5, 5))


@given(st.integers(4, 30), st.one_of(LAYERS, ENLARGED), GRIDS)
def test_window_holds_every_changed_output_for_every_start(dim, layers, grid):
    patch, step, offset = grid
    pixels, reach = chain(dim, layers)
    positions = Positions.on_grid(dim, patch, step, offset)
    window = positions.window(reach, len(pixels))
    assert 1 <= window.size <= len(pixels)
    for start, first in zip(positions.starts, window.first, strict=True):
        changed = [o for o, seen in enumerate(pixels) if seen & set(range(start, start + patch))]
        assert 0 <= first <= len(pixels) - window.size
        assert set(changed) <= set(range(first, first + window.size))


@given(st.integers(2, 5), st.integers(2, 4), st.integers(1, 6), GRIDS)
def test_a_window_of_repeated_inputs_is_their_window_repeated(up, times, count, grid):
    patch, step, offset = grid
    reach = Reach(0).through(Stencil(up * times, up * times))
    positions = Positions.on_grid(count * up * times, patch, step, offset)
    inputs = positions.window(reach, count)
    outputs = positions.window(reach.through(Stencil(up=up)), count * up)
    assert outputs.size == inputs.size * up
    np.testing.assert_array_equal(outputs.first, inputs.first * up)
    assert outputs.inputs(Stencil(up=up)).size == inputs.size
    assert Reach(0, up + 1).through(Stencil(up=up)) is None


@given(STENCILS, st.integers(1, 3), st.integers(1, 9))
def test_a_band_of_weights_is_the_stencil_that_made_it(stencil, up, times):
    stencil = stencil._replace(up=up, stride=1) if up > 1 else stencil
    inputs, outputs = times * stencil.stride, times * stencil.up
    matrix = np.zeros((inputs, outputs))
    for o, seen in enumerate(np.arange(outputs) // stencil.up * stencil.stride - stencil.low):
        matrix[max(0, seen) : max(0, seen + stencil.extent), o] = 0.5
    band = Stencil.band(matrix)
    assert (band is None) == (not matrix.any())
    if band is not None:
        assert (band.stride, band.up) == (stencil.stride, stencil.up)
        assert -stencil.low <= -band.low
        assert band.extent - band.low <= stencil.extent - stencil.low
        for i, o in np.argwhere(matrix):
            assert 0 <= i - (o // band.up * band.stride - band.low) < band.extent
    assert Stencil.band(np.ones((3, 5))) is None


@given(st.integers(4, 30), LAYERS, GRIDS)
def test_window_is_no_larger_than_the_largest_change_plus_gaps(dim, layers, grid):
    patch, step, offset = grid
    assume(
        all(
            s.extent >= s.stride and 0 <= s.low < s.extent and h == s.extent - 1 - s.low
            for s, h in layers
        )
    )
    pixels, reach = chain(dim, layers)
    positions = Positions.on_grid(dim, patch, step, offset)
    spread = 0
    for start in positions.starts:
        changed = [o for o, seen in enumerate(pixels) if seen & set(range(start, start + patch))]
        spread = max(spread, changed[-1] - changed[0] + 1 if changed else 0)
    assert positions.window(reach, len(pixels)).size == max(1, spread)


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


@given(STENCILS, STENCILS, STENCILS)
def test_composition_is_associative(a, b, c):
    both = Stencil(
        a.extent + (b.extent - 1) * a.stride, a.stride * b.stride, a.low + b.low * a.stride
    )
    assert Reach(0).through(a).through(b).through(c) == Reach(0).through(both).through(c)


@given(st.lists(STENCILS, max_size=4), st.integers(1, 3), st.integers(0, 20))
def test_a_limit_keeps_the_middle_of_a_reach(stencils, up, field):
    reach = Reach(0)
    for stencil in [*stencils, Stencil(up, up), Stencil(up=up)]:
        reach = reach.through(stencil)
    limited, cells = reach.limit(field), (field + up - 1) * reach.stride
    excess = max(0, reach.left + reach.right - cells)
    assert limited.left + limited.right == reach.left + reach.right - excess
    assert 0 <= (reach.right - limited.right) - (reach.left - limited.left) <= 1
    assert limited._replace(left=reach.left, right=reach.right) == reach


@given(STENCILS, STENCILS)
def test_join_is_the_larger_of_both(a, b):
    left, right = Reach(0).through(a), Reach(0).through(b)
    joined = join_all([left, right])
    assert (joined is None) == (a.stride != b.stride)
    if joined is not None:
        assert joined.left == max(left.left, right.left)
        assert joined.right == max(left.right, right.right)


def test_what_does_not_align_joins_to_nothing():
    assert join_all([Reach(0), Reach(1)]) is None
    assert join_all([Reach(0), None]) is None
    assert join_all([None, Reach(0)]) is None
    assert Reach(0).through(POINT) == Reach(0)
