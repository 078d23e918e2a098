"""What an attribution holds: maps of the image's size, scaled when asked, saved and read again."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz.attribution.reading import MapReading
from jaxviz.attribution.resize import resize
from jaxviz.attribution.result import Attribution, load_attribution


@pytest.fixture
def att(rng):
    values = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    base = np.array([[0.1, 2.0, 0.3], [5.0, 0.0, 1.0]], np.float32)
    return Attribution(
        values, base, np.array([1, 0]), np.zeros(2), method="a method", image_shape=(3, 4)
    )


def test_channels_become_one_number(att):
    v = att.values.astype(np.float64)
    for how, expected in {
        "sum": v.sum(-1),
        "abs_sum": np.abs(v).sum(-1),
        "max_abs": np.abs(v).max(-1),
        "norm": np.sqrt((v**2).sum(-1)),
    }.items():
        np.testing.assert_allclose(att.heatmap(how), expected, rtol=1e-6)
    assert np.array_equal(att.heatmap(), att.heatmap("sum"))


def test_scaling_is_per_map(att):
    raw = att.heatmap()
    for one, most, least in zip(raw, att.heatmap(normalize="max_abs"),
                                att.heatmap(normalize="min_max"), strict=True):  # fmt: skip
        np.testing.assert_allclose(most, one / np.abs(one).max(), rtol=1e-5)
        np.testing.assert_allclose(least, (one - one.min()) / np.ptp(one), rtol=1e-5, atol=1e-7)
    zero = replace(att, values=np.zeros_like(att.values))
    for how in ("max_abs", "min_max"):
        assert not zero.heatmap(normalize=how).any()


def test_readings_are_defaults(att):
    reading = MapReading("abs_sum", "min_max", None, epsilon=1e-3, rectify=True)
    one = np.abs(att.values.astype(np.float64)).sum(-1)
    low = one.min((1, 2), keepdims=True)
    expected = (one - low) / (one.max((1, 2), keepdims=True) - low + 1e-3)
    np.testing.assert_allclose(replace(att, reading=reading).heatmap(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`normalize` must be one of"):
        att.heatmap(normalize="most")
    with pytest.raises(ValueError, match="`channels` must be one of"):
        att.heatmap("red")


def test_every_class_can_be_read(att):
    values = np.arange(2 * 3 * 4 * 1 * 3, dtype=np.float32).reshape(2, 3, 4, 1, 3)
    every = replace(att, values=values, every=True, target=None)
    assert np.array_equal(every.heatmap(target=2), values[..., 0, 2])
    assert np.array_equal(every.heatmap()[0], values[0, ..., 0, 1])
    assert "all 3 classes" in repr(every)


def test_another_target_is_refused(att):
    assert np.array_equal(att.heatmap(target=[1, 0]), att.heatmap())
    with pytest.raises(ValueError, match="`target` must be what was explained, 2 of 3 classes"):
        att.heatmap(target=2)


def test_saved_results_come_back(att, tmp_path):
    single = Attribution(
        att.values[0], att.base[0], np.array([0.5, 0.5, 0]), np.array(0.1), np.array(0.2), "x",
        (3, 4), True, reading=MapReading(normalize="max_abs"), config=(("points", "9"),),
    )  # fmt: skip
    for result in (att, single):
        result.save(tmp_path / "a.npz")
        for back in (jv.load(tmp_path / "a.npz"), load_attribution(tmp_path / "a.npz")):
            assert isinstance(back, Attribution) and repr(back) == repr(result)
            assert (back.reading, back.config) == (result.reading, result.config)
            assert np.array_equal(back.heatmap(), result.heatmap())
            assert np.array_equal(back.target, result.target)


def test_load_reads_occlusion_too(tmp_path):
    occ = jv.occlude(lambda x: x.mean((1, 2)), np.ones((4, 4, 1), np.float32), patch=2)
    occ.save(tmp_path / "o.npz")
    assert np.array_equal(jv.load(tmp_path / "o.npz").scores, occ.scores)
    with pytest.raises(ValueError, match="must be a file that Attribution.save wrote"):
        load_attribution(tmp_path / "o.npz")
    np.savez(tmp_path / "n.npz", record='{"format": "new"}')
    with pytest.raises(ValueError, match="`path` must be a saved result: .* is new"):
        jv.load(tmp_path / "n.npz")
    with pytest.raises(FileNotFoundError, match="there is none"):
        jv.load(tmp_path / "none.npz")


def test_it_tells_what_it_is(att):
    assert repr(att) == "Attribution(a method of 2 images 3×4, 2 of 3 classes)"
    probable = replace(att, base=np.array([[0.2, 0.8, 0], [0, 0, 1]]))
    assert "jaxviz.logits" in repr(probable)
    assert "a function" in repr(replace(att, target=None))
    assert "a sum over 3" in repr(replace(att, target=np.ones((2, 3)) / 3))
    assert att._repr_png_()[1:4] == b"PNG"


@pytest.mark.parametrize("shapes", [((3, 5), (12, 7)), ((1, 1), (4, 3)), ((4, 4), (4, 9))])
def test_enlarging_is_that_of_pillow(rng, shapes):
    small, large = shapes
    maps = rng.normal(size=(2, *small)).astype(np.float32)
    for way, resample in (("bilinear", 2), ("bicubic", 3), ("nearest", 0)):
        expected = [Image.fromarray(m).resize(large[::-1], resample) for m in maps]
        np.testing.assert_allclose(resize(maps, large, way), np.stack(expected), atol=1e-5)


def test_enlarging_keeps_corners_or_floors():
    line = np.array([[[0.0, 1.0, 3.0]]])
    assert resize(line, (1, 5), "corners")[0, 0].tolist() == [0, 0.5, 1, 2, 3]
    assert resize(line, (1, 5), "floor")[0, 0].tolist() == [0, 0, 1, 1, 3]
    with pytest.raises(ValueError, match="`upsample` must be one of"):
        resize(line, (1, 5), "cubic")


def test_a_layers_map_is_enlarged_unless_told_not_to(rng):
    values = rng.random((3, 4, 1)).astype(np.float32)
    att = Attribution(values, np.zeros(2), np.array(0), image_shape=(6, 8), single=True)
    assert att.heatmap().shape == (6, 8)
    assert replace(att, reading=MapReading(upsample=None)).heatmap().shape == (3, 4)
