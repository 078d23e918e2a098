"""A run remembers how it is read; an argument given wins; a reading is a value."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.result import Occlusion
from jaxviz.perturbation.grid import make_grid

GRID = make_grid((5, 5), patch=2, border="valid")
WEIGHTS = np.array([[1.0, 2.0], [3.0, 4.0]])
READING = Reading("raw", "sum", 0.0, WEIGHTS)


@pytest.fixture
def occ(rng):
    return Occlusion(rng.uniform(size=(2, 2, 3)), rng.uniform(size=3), GRID, single=True)


def test_without_a_reading_it_is_drops_averaged(occ):
    wanted = occ.heatmap(1, "drop", "mean", uncovered=np.nan)
    np.testing.assert_array_equal(occ.heatmap(1), wanted)
    np.testing.assert_array_equal(replace(occ, reading=Reading()).heatmap(1), wanted)


def test_what_is_not_given_is_the_reading_s(occ):
    wanted = occ.heatmap(1, "raw", "sum", uncovered=0.0, weights=WEIGHTS)
    np.testing.assert_array_equal(replace(occ, reading=READING).heatmap(1), wanted)


@pytest.mark.parametrize(
    "given", [{"score": "drop"}, {"reduce": "mean"}, {"uncovered": 7.0}, {"weights": np.eye(2)}]
)
def test_an_argument_given_wins(occ, given):
    own = {"score": "raw", "reduce": "sum", "uncovered": 0.0, "weights": WEIGHTS}
    ours = replace(occ, reading=READING).heatmap(1, **given)
    np.testing.assert_array_equal(ours, occ.heatmap(1, **{**own, **given}))


def test_a_reading_is_a_value():
    again = Reading.of(READING.record())
    assert again == READING and hash(again) == hash(READING) and Reading() == Reading()
    assert Reading() != READING and Reading() != "reading" and Reading.of(None) is None


def test_it_is_a_static_part_of_the_pytree(occ):
    read = replace(occ, reading=READING)
    twice = jax.tree.map(
        lambda a, b: a + b, read, replace(occ, reading=Reading.of(READING.record()))
    )
    assert len(jax.tree.leaves(read)) == 2 and twice.reading == READING


@pytest.mark.parametrize(
    "options, match",
    [
        ({"score": "gain"}, '`score` must be one of "drop", "raw", .*: got .gain.'),
        ({"reduce": "median"}, '`reduce` must be one of "mean", "sum", .*: got .median.'),
    ],
)
def test_what_is_unknown_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Reading(**options)
