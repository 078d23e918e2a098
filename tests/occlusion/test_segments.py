"""Segments on windows equal segments scored by the whole network, bit for bit on whole numbers."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scorers import integers

import jaxviz as jv
from jaxviz import fills
from jaxviz.occlusion import segments as driver
from jaxviz.occlusion.segments import occlude_segments
from jaxviz.perturbation.segments import Segments, make_segments
from jaxviz.scoring import execute
from jaxviz.scoring.size_classes import Seconds, assign_windows

SHAPE = (20, 26, 2)
RNG = np.random.default_rng(1)
SIZES = ((3, 3, 2, 3), (3, 3, 3, 2))
KERNELS = [jnp.asarray(RNG.integers(-1, 2, size), jnp.float32) for size in SIZES]
LAST = jnp.asarray(RNG.integers(-1, 2, (10 * 13 * 2, 3)), jnp.float32)


@pytest.fixture
def all_sizes(monkeypatch):
    """Operations alone count, and no program, so that most sizes of windows have their own."""

    def operations(costs, _):
        return Seconds(costs.dense, costs.window, 0.0)

    monkeypatch.setattr(driver, "seconds_of", operations)


def convolved(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def network(images):
    """Two convolutions, a pool, a dense layer: on whole numbers all sums are exact."""
    x = jax.nn.relu(convolved(images, KERNELS[0]))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return convolved(x, KERNELS[1]).reshape(len(x), -1) @ LAST


def patches_of_pixels(seed, count=6):
    """Labels (H, W): the nearest of some sites, so that segments are ragged, of many sizes, and
    touch every border."""
    sites = np.random.default_rng(seed).uniform(size=(count, 2)) * SHAPE[:2]
    pixels = np.stack(np.mgrid[: SHAPE[0], : SHAPE[1]], -1)[..., None, :]
    return (np.abs(pixels - sites).sum(-1)).argmin(-1)


def slow_segments(images, labels, groups, fill, complement=False, channels=None):
    """Scores of every group, one image after the other through the whole network."""
    scores = []
    for image, own, mine, value in zip(images, labels, groups, fill, strict=True):
        rows = []
        for group in mine:
            hidden = (np.isin(own, group) != complement)[..., None]
            if channels is not None:
                hidden = hidden & np.isin(np.arange(SHAPE[2]), channels)
            rows.append(np.where(hidden, value, image))
        scores.append(np.asarray(network(np.float32(rows))))
    return scores


OPTIONS = [
    dict(),
    dict(groups=[0, [1, 3], [2, 4], 5]),
    dict(complement=True),
    dict(channels=[1]),
    dict(batch_size=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_windows_equal_dense(options, all_sizes):
    images, labels = integers((2, *SHAPE)), patches_of_pixels(0)
    occ = occlude_segments(network, images, labels, fill=3.0, method="incremental", **options)
    given = {key: value for key, value in options.items() if key in ("complement", "channels")}
    groups = options.get("groups", range(6))
    wanted = slow_segments(images, [labels] * 2, [groups] * 2, [3.0] * 2, **given)
    np.testing.assert_array_equal(occ.scores, np.stack(wanted))
    np.testing.assert_array_equal(occ.base, network(images))
    assert "dense" not in dict(occ.config)["windows"]
    dense = occlude_segments(network, images, labels, fill=3.0, method="dense", **options)
    np.testing.assert_array_equal(dense.scores, occ.scores)
    np.testing.assert_array_equal(dense.heatmap(1), occ.heatmap(1))
    assert type(dense) is type(occ) and dense.grid == occ.grid


def turned(under, start):
    return under[::-1, ::-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fill",
    ["mean", "patch_mean", turned, fills.blur(1.0)],
    ids=["mean", "patch_mean", "turned", "blur"],
)
def test_a_fill_sees_the_whole_image_on_windows_too(fill):
    image, labels = integers(SHAPE), patches_of_pixels(1)
    scores = [
        occlude_segments(network, image, labels, fill=fill, method=method).scores
        for method in ("dense", "incremental")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-4)


def corners():
    """Five segments of a pixel, at the corners and inside, and what is around them."""
    labels = np.zeros(SHAPE[:2], int)
    for number, at in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1), (7, 9)], 1):
        labels[at] = number
    return labels


@pytest.mark.slow
def test_single_pixels_and_a_segment_as_large_as_the_image(all_sizes):
    labels = corners()
    image = integers(SHAPE)
    occ = occlude_segments(network, image, labels, fill=3.0, method="incremental")
    (wanted,) = slow_segments([image], [labels], [range(6)], [3.0])
    np.testing.assert_array_equal(occ.scores, wanted)
    assert dict(occ.config)["windows"] == "5 of 8×8, 1 of 20×26"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_labels_groups_and_fills_may_differ_from_image_to_image(method):
    images = integers((3, *SHAPE))
    labels = [patches_of_pixels(seed, count) for seed, count in ((2, 5), (3, 12), (4, 3))]
    groups = [[0, [1, 4]], range(12), [2, 1, 0]]
    fill = integers((3, *SHAPE), seed=5)
    segments = [make_segments(own, list(mine)) for own, mine in zip(labels, groups, strict=True)]
    occ = occlude_segments(network, images, segments, fill=fill, method=method)
    wanted = slow_segments(images, labels, groups, fill)
    assert occ.scores.shape == (3, 12, 3)
    for n, rows in enumerate(wanted):
        np.testing.assert_array_equal(occ.scores[n, : len(rows)], rows)
        assert np.isnan(occ.scores[n, len(rows) :]).all()
        alone = occlude_segments(network, images[n], segments[n], fill=fill[n], method=method)
        np.testing.assert_array_equal(alone.scores, rows)
        np.testing.assert_array_equal(occ.heatmap(0)[n], alone.heatmap(0))
        np.testing.assert_array_equal(occ.class_map()[n], alone.class_map())
    np.testing.assert_array_equal(occ.base, network(images))
    assert str(occ.grid) == "2 to 12 segments an image"


def test_labels_of_each_image_share_groups_and_programs(compilations):
    images = integers((3, *SHAPE))
    labels = np.stack([patches_of_pixels(seed, 4) for seed in range(3)])
    occlude_segments(network, images, labels, fill=3.0, groups=[[0, 1], 3], method="dense")
    compilations.start()
    other, options = integers((3, *SHAPE), seed=1), dict(groups=[[0, 1], 3], method="dense")
    occ = occlude_segments(network, other, labels[::-1], fill=3.0, **options)
    assert compilations.count == 0
    groups = [[[0, 1], 3]] * 3
    wanted = slow_segments(other, labels[::-1], groups, [3.0] * 3)
    np.testing.assert_array_equal(occ.scores, wanted)
    assert occ.grid.coverage.shape == (3, *SHAPE[:2])


def test_devices_change_nothing():
    images = integers((2, *SHAPE))
    labels = np.stack([patches_of_pixels(seed, 5) for seed in range(2)])
    one = occlude_segments(network, images, labels)
    several = occlude_segments(network, images, labels, mesh=jax.make_mesh((2,), ("positions",)))
    np.testing.assert_array_equal(one.scores, several.scores)


def test_a_result_of_each_images_segments_comes_back_from_disk(tmp_path):
    images = integers((2, *SHAPE))
    first = make_segments(patches_of_pixels(0, 4), [1, 3])
    occ = occlude_segments(network, images, [first, make_segments(patches_of_pixels(1, 3))])
    occ.save(tmp_path / "occ.npz")
    again = jv.load(tmp_path / "occ.npz")
    assert again.grid == occ.grid and again.config == occ.config
    np.testing.assert_array_equal(again.scores, occ.scores)
    np.testing.assert_array_equal(again.heatmap(), occ.heatmap())


@pytest.mark.slow
def test_auto_takes_windows_where_they_pay(all_sizes):
    labels = np.zeros(SHAPE[:2], int)
    labels[2:5, 3:6], labels[18:, 24:] = 1, 2
    image = integers(SHAPE)
    occ = occlude_segments(network, image, labels, fill=3.0)
    assert dict(occ.config)["windows"] == "2 of 8×8, 1 dense"
    (wanted,) = slow_segments([image], [labels], [range(3)], [3.0])
    np.testing.assert_array_equal(occ.scores, wanted)


def test_auto_is_dense_where_compiling_takes_longer_than_it_saves():
    occ = occlude_segments(network, integers(SHAPE), patches_of_pixels(0))
    assert dict(occ.config)["windows"] == "6 dense"


def by_area(window):
    return Seconds(1.0, window[0] * window[1] / 4096, 1.0)


def test_sizes_are_joined_where_a_program_is_dearer():
    sizes = [(9, 9)] * 20 + [(13, 9)] * 2
    assert Counter(assign_windows(sizes, (64, 64), by_area, dense=True)) == {(16, 12): 22}
    sizes = [(9, 9)] * 500 + [(31, 31)] * 500
    windows = assign_windows(sizes, (64, 64), by_area, dense=True)
    assert Counter(windows) == {(12, 12): 500, (32, 32): 500}


@pytest.mark.parametrize("dense", [True, False])
def test_every_window_holds_its_box(dense, rng):
    sizes = [tuple(size) for size in rng.integers(1, 40, (60, 2)).tolist()]
    windows = assign_windows(sizes, (40, 37), by_area, dense=dense)
    for size, window in zip(sizes, windows, strict=True):
        if window is None:
            assert dense
        else:
            assert min(size[0], 40) <= window[0] <= 40 and min(size[1], 37) <= window[1] <= 37


def test_windows_that_win_little_are_none():
    little, worse = Seconds(1.0, 0.9, 5.0), Seconds(1.0, 2.0, 5.0)
    sizes = [(9, 9)] * 50
    assert assign_windows(sizes, (64, 64), lambda w: little, dense=True) == [None] * 50
    assert (
        assign_windows(sizes, (64, 64), lambda w: little, images=9, dense=True) == [(12, 12)] * 50
    )
    assert assign_windows([(9, 9)], (64, 64), lambda w: worse, dense=False) == [(12, 12)]


def test_boxes_are_those_of_the_pixels():
    labels = patches_of_pixels(3)
    segments = make_segments(labels, [0, [1, 2]])
    for group, box in zip(segments.groups, segments.boxes, strict=True):
        rows, cols = np.nonzero(np.isin(labels, group))
        height, width = rows.max() - rows.min() + 1, cols.max() - cols.min() + 1
        assert box.tolist() == [rows.min(), cols.min(), height, width]


def test_what_is_finished_is_kept_after_an_interruption(all_sizes, monkeypatch):
    labels = corners()
    choose, asked = execute.choose, []

    def interrupted(task, batch_size):
        asked.append(task)
        if len(asked) > 1:
            raise KeyboardInterrupt
        return choose(task, batch_size)

    monkeypatch.setattr(execute, "choose", interrupted)
    image = integers(SHAPE)
    with pytest.warns(UserWarning, match="interrupted: 5 of 6 positions are scored"):
        occ = occlude_segments(network, image, labels, fill=3.0, method="incremental")
    (wanted,) = slow_segments([image], [labels], [range(6)], [3.0])
    np.testing.assert_array_equal(occ.scores[1:], wanted[1:])
    assert occ.partial and np.isnan(occ.scores[0]).all()
    with pytest.raises(KeyboardInterrupt):
        occlude_segments(network, image, labels, method="incremental")


def test_progress_counts_the_positions_of_all_sizes(all_sizes):
    labels, told = np.zeros(SHAPE[:2], int), []
    labels[0, 0] = 1
    images = integers((2, *SHAPE))
    occlude_segments(
        network, images, labels, method="incremental", progress=lambda *at: told.append(at)
    )
    assert told[-1] == (4, 4)


def test_a_page_needs_the_same_segments_in_all_images():
    images = integers((2, *SHAPE))
    labels = np.stack([patches_of_pixels(seed, 3) for seed in range(2)])
    occ = occlude_segments(network, images, labels)
    assert jv.viewer.report(
        occlude_segments(network, images[0], labels[0]), images[0, ..., :1]
    ).html
    with pytest.raises(ValueError, match="the same segments in all images: got 3 segments an im"):
        jv.viewer.report(occ, images[..., :1])


GOOD = make_segments(patches_of_pixels(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "labels, options, match",
    [
        ([GOOD, GOOD, GOOD], {}, "`labels` must be one image for all, or one for each of 2: got 3"),
        (GOOD, dict(groups=[0]), "or jaxviz.Segments with groups: got `groups` too"),
        ([GOOD, GOOD.labels], {}, "got arrays among them"),
        (
            [GOOD, Segments(GOOD.labels[1:], ((0,),))],
            {},
            r"images of one size: got \(19, 26\), \(20",
        ),
        (GOOD, dict(fill=np.zeros((3, *SHAPE))), "`fill` must have one image for each of 2: got 3"),
        (GOOD, dict(fill=np.zeros((2, 4, 4, 2))), "`fill` must have the image's shape"),
        (GOOD, dict(method="sparse"), '`method` must be "auto", "dense" or "incremental"'),
        (np.zeros((0, 20, 26), int), {}, "`labels` must be integers of at least 0"),
    ],
)
def test_what_is_wrong_is_told(labels, options, match):
    with pytest.raises(ValueError, match=match):
        occlude_segments(network, integers((2, *SHAPE)), labels, **options)
