"""Each preset makes the map of the library it is named after, restated as a loop."""

import numpy as np
import pytest
from oracles import (
    slow_captum,
    slow_monai,
    slow_pair,
    slow_seed_loop,
    slow_tf_explain,
    slow_xplique,
)
from scorers import convolutional

from jaxviz import fills, presets
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.reading import Reading
from jaxviz.occlusion.segments import occlude_segments

SHAPE = (13, 16, 3)
IMAGE = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
IMAGE[0, 0], IMAGE[0, 1] = 0, 1  # a scale on which every fill below lies
F = convolutional(3, classes=4, size=SHAPE[:2])
TARGET = 2


def preset_map(preset, image=IMAGE, f=F):
    """The heatmap that a preset asks for."""
    return occlude(f, image, **preset).heatmap(TARGET)


def check(ours, oracle):
    np.testing.assert_allclose(ours, oracle, rtol=1e-5, atol=1e-5 * np.abs(oracle).max())


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_seed(size):
    check(preset_map(presets.seed(size)), slow_seed_loop(F, IMAGE, size, TARGET)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "window, stride, baseline",
    [(3, 1, 0.0), (5, 2, 0.5), ((4, 6), (3, 4), [0.1, 0.5, 0.9]), (4, 4, IMAGE[::-1])],
    ids=["default", "number", "channels", "image"],
)
def test_captum(window, stride, baseline):
    preset = presets.captum(window, stride, baseline=baseline)
    window, stride = np.broadcast_to(window, 2), np.broadcast_to(stride, 2)
    check(preset_map(preset), slow_captum(F, IMAGE, window, stride, TARGET, np.array(baseline)))


def test_captum_by_default_moves_by_a_pixel():
    assert presets.captum(15).occlude["stride"] == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, patch, stride, value",
    [
        (dict(), (3, 3), (3, 3), 0.0),
        (dict(patch=4, stride=2), (4, 4), (2, 2), 0.0),
        (dict(patch=(4, 5), stride=(5, 3), value=0.5), (4, 5), (5, 3), 0.5),
    ],
)
def test_xplique(options, patch, stride, value):
    ours = preset_map(presets.xplique(**options))
    oracle = slow_xplique(F, IMAGE, patch, stride, TARGET, value)
    check(ours, oracle)
    assert np.any(ours == 0) and np.array_equal(ours == 0, oracle == 0)


@pytest.mark.slow
@pytest.mark.parametrize("size, value", [(5, 0.0), (4, 0.5)])
def test_pair(size, value):
    check(preset_map(presets.pair(size, value=value)), slow_pair(F, IMAGE, size, TARGET, value))
    assert presets.pair().occlude["patch"] == 15


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 5])
def test_tf_explain(size):
    image, f = IMAGE[:, :13], convolutional(3, classes=4, size=(13, 13))
    ours = preset_map(presets.tf_explain(size, value=0.5), image, f)
    check(ours, slow_tf_explain(f, image, size, TARGET, 0.5))
    assert presets.tf_explain(4).occlude["fill"] == 127.5
    assert presets.tf_explain(4).heatmap["reduce"] == "stretch"


def test_an_interrupted_xplique_map_shows_no_zero_where_nothing_was_scored():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        occ = occlude(F, IMAGE, **presets.xplique(2, 2), batch_size=16, progress=stop)
    found, grid = occ.heatmap(TARGET), occ.grid
    assert occ.partial and np.isnan(found).any() and np.isfinite(found[:2, :2]).all()
    assert np.array_equal(
        np.isnan(found), np.isnan(occ.heatmap(TARGET, reduce="cell", uncovered=0.0))
    )
    np.testing.assert_array_equal(found[grid.coverage == 0], 0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0.5, "mean_patch", "mean_img", "gaussian"])
@pytest.mark.parametrize("window, overlap", [(6, 0.6), ((4, 16), 0.25)])
def test_monai(mode, window, overlap):
    preset = presets.monai(window, image_shape=SHAPE[:2], overlap=overlap, mode=mode)
    window = tuple(np.broadcast_to(window, 2).tolist())
    check(preset_map(preset), slow_monai(F, IMAGE, window, overlap, mode, TARGET))


def test_monai_s_defaults():
    preset = presets.monai(image_shape=(64, 64))
    assert preset.occlude["patch"] == (16, 16) and preset.occlude["stride"] == (6, 6)
    assert isinstance(preset.occlude["fill"], fills.Fill)


def test_a_preset_suits_many_images():
    images = np.stack([IMAGE, IMAGE[::-1]])
    maps = preset_map(presets.captum(4, 2), images)
    for image, ours in zip(images, maps, strict=True):
        np.testing.assert_array_equal(ours, preset_map(presets.captum(4, 2), image))


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: presets.captum(3, 4), "`stride` must not exceed the window: got"),
        (lambda: presets.captum(3, (1, 4)), r"got \(1, 4\) for a window of \(3, 3\)"),
        (lambda: presets.captum(0), "`window` must be at least 1"),
        (lambda: presets.seed(0), "`size` must be at least 1"),
        (lambda: presets.xplique(0), "`patch` must be at least 1"),
        (lambda: presets.xplique(3, (3, 0)), "`stride` must be at least 1"),
        (lambda: presets.pair(0), "`size` must be at least 1"),
        (lambda: presets.tf_explain(-4), "`size` must be at least 1"),
        (lambda: presets.monai(image_shape=(0, 9)), "`image_shape` must be at least 1"),
        (lambda: presets.monai(image_shape=(9, 9), overlap=1.0), "`overlap` must be in"),
        (lambda: presets.monai(image_shape=(9, 9), overlap=-0.1), "`overlap` must be in"),
        (lambda: presets.monai(image_shape=(9, 9), mode="max"), "`mode` must be .* got 'max'"),
    ],
)
def test_what_a_library_refuses_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_preset_is_the_arguments_of_occlude_and_how_to_read_it():
    preset = presets.xplique(4, 2)
    assert dict(preset) == {**preset.occlude, "reading": Reading(**preset.heatmap)}
    by_hand = occlude(F, IMAGE, **preset.occlude).heatmap(TARGET, **preset.heatmap)
    np.testing.assert_array_equal(preset_map(preset), by_hand)


@pytest.mark.slow
def test_labels_are_read_as_a_preset_has_it():
    labels = np.arange(2 * 3).reshape(2, 3).repeat(7, 0).repeat(6, 1)[: SHAPE[0], : SHAPE[1]]
    occ = occlude_segments(F, IMAGE, labels, reading=presets.seed(4).reading)
    np.testing.assert_array_equal(occ.heatmap(TARGET), occ.heatmap(TARGET, "raw", "cell"))
