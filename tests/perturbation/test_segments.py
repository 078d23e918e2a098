"""Label images as positions, against loops over pixels."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxviz.perturbation.segments import Segments, make_segments

LABELS = np.array([[0, 0, 5], [9, 5, 5]])


@st.composite
def segments(draw):
    """A random label image with random, overlapping groups."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    labels = rng.choice([0, 2, 3, 70], size=draw(st.tuples(*[st.integers(1, 5)] * 2)))
    present = np.unique(labels).tolist()
    group = st.lists(st.sampled_from(present), min_size=1, max_size=3, unique=True)
    return make_segments(labels, draw(st.none() | st.lists(group, min_size=1, max_size=4)))


def holders(where, row, col):
    """Which groups hold a pixel's label."""
    return [g for g, group in enumerate(where.groups) if where.labels[row, col] in group]


def slow_spread(where, values, reduce):
    spread = np.full(where.image_shape, np.nan)
    for row, col in np.ndindex(where.image_shape):
        on = holders(where, row, col)
        known = [values[g] for g in on if not np.isnan(values[g])]
        if reduce == "cell" and on:
            spread[row, col] = values[on[0]]
        elif known:
            spread[row, col] = sum(known) / (len(known) if reduce == "mean" else 1)
    return spread


@given(segments(), st.sampled_from(["mean", "sum", "cell"]), st.booleans())
def test_spread_equals_the_loop(where, reduce, some_missing):
    values = np.arange(1.0, len(where.groups) + 1)
    if some_missing:
        values[::2] = np.nan
    np.testing.assert_allclose(
        where.spread(values, reduce), slow_spread(where, values, reduce), rtol=1e-12
    )


@pytest.mark.slow
@given(segments())
def test_spread_keeps_leading_axes(where):
    values = np.random.default_rng(0).normal(size=(2, 3, len(where.groups)))
    np.testing.assert_allclose(where.spread(values)[1, 2], where.spread(values[1, 2]))


@pytest.mark.slow
@given(segments())
def test_coverage_counts_groups(where):
    for row, col in np.ndindex(where.image_shape):
        assert where.coverage[row, col] == len(holders(where, row, col))


def test_each_label_is_a_position_of_its_own():
    where = make_segments(LABELS)
    assert where.groups == ((0,), (5,), (9,)) and where.shape == (3,)
    np.testing.assert_array_equal(where.indices, [[0, 0, 1], [2, 1, 1]])
    np.testing.assert_array_equal(where.table, np.eye(3, dtype=bool))


def test_groups_are_labels_or_lists_of_them():
    assert make_segments(LABELS, [0, [5, 9], np.array([9])]).groups == ((0,), (5, 9), (9,))


def test_large_labels_stay_themselves():
    where = make_segments(np.array([[2**40, 2**40 + 1]]))
    assert where.groups == ((2**40,), (2**40 + 1,))


def test_segments_are_values():
    one, two = make_segments(LABELS), make_segments(LABELS.copy())
    assert one == two and hash(one) == hash(two) and isinstance(one, Segments)
    assert one != make_segments(LABELS, [0]) and one != make_segments(LABELS.T)
    assert one != "segments"


def test_str_counts():
    assert str(make_segments(LABELS)) == "3 segments"
    assert str(make_segments(LABELS, [0])) == "1 segment"


@pytest.mark.parametrize(
    "labels", [LABELS.astype(float), LABELS[0], LABELS - 1, np.zeros((0, 2), int), LABELS > 0]
)
def test_what_is_no_label_image_is_refused(labels):
    with pytest.raises(ValueError, match="`labels` must be integers of at least 0"):
        make_segments(labels)


@pytest.mark.parametrize(
    "groups, match",
    [
        ([3], r"`groups` must name labels of the image: got \[3\]"),
        ([[0, 4], 7], r"got \[4, 7\]"),
        ([], "got an empty group"),
        ([[0], []], "got an empty group"),
        (5, "got an empty group"),
        ("a", r"got \['a'\]"),
        ([0.5], r"got \[0.5\]"),
    ],
)
def test_groups_of_other_labels_are_refused(groups, match):
    with pytest.raises(ValueError, match=match):
        make_segments(LABELS, groups)


@pytest.mark.parametrize("reduce", ["mean", "sum", "cell"])
def test_traced_and_infinite_values_are_spread_alike(reduce):
    where = make_segments(LABELS, [0, [0, 5]])
    values = np.array([[1.0, np.inf], [np.nan, 2.0], [-np.inf, 3.0]], np.float32)
    found = where.spread(values, reduce)
    np.testing.assert_allclose(jax.jit(lambda v: where.spread(v, reduce))(values), found)
    both, second = LABELS == 0, LABELS == 5
    first = {"mean": [np.inf, 2.0, -np.inf], "sum": [np.inf, 2.0, -np.inf]}
    for n, value in enumerate(first.get(reduce, [1.0, np.nan, -np.inf])):
        np.testing.assert_array_equal(found[n, both], value)
        np.testing.assert_array_equal(found[n, second], values[n, 1])
    assert np.isnan(found[:, LABELS == 9]).all()


def test_what_segments_cannot_do_is_refused():
    where = make_segments(LABELS)
    for reduce in ("bilinear", "stretch"):
        with pytest.raises(ValueError, match=f"for segments: got '{reduce}'"):
            where.spread(np.zeros(3), reduce)
    with pytest.raises(ValueError, match="without weights, for segments"):
        where.spread(np.zeros(3), weights=np.ones((1, 1)))
