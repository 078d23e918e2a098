"""Maps over photographs: styles, scales, originals, channels, and axes of the caller's own."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxviz import plot
from jaxviz.plot._channels import channels_note, in_colour
from jaxviz.plot._glow import dimmed
from jaxviz.plot._inputs import fitted
from jaxviz.plot._scale import common_scale, strength


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def notes(figure):
    return [t.get_text() for axes in panels(figure) for t in axes.texts]


def told(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


@pytest.fixture
def photos(rng):
    return rng.uniform(size=(2, 30, 40, 3))


@pytest.fixture
def maps(rng):
    maps = rng.normal(size=(2, 6, 8))
    maps[1] *= 0.1
    return maps


@pytest.mark.parametrize("style", ["light", "tint", "contour"])
def test_an_original_keeps_its_size_under_a_smaller_map(photos, maps, style):
    drawn = panels(plot.overlay(photos, maps, style=style))
    assert [axes.images[0].get_array().shape for axes in drawn[:2]] == [(30, 40, 3)] * 2


def test_colours_decide_the_style_that_is_not_said(photos, maps):
    of = {"light": photos, "tint": photos.mean(-1)}
    for style, images in of.items():
        unsaid, said = (plot.overlay(images, maps, style=s) for s in (None, style))
        np.testing.assert_array_equal(
            panels(unsaid)[0].images[0].get_array(), panels(said)[0].images[0].get_array()
        )


def test_light_leaves_the_dimmed_photograph_where_the_map_is_zero(photos):
    values = np.zeros((2, 30, 40))
    values[:, 0, 0] = [1, -1]
    drawn = panels(plot.overlay(photos, values, alpha=1.0))
    for axes, photo, ends in zip(drawn, photos, ("red", "blue"), strict=False):
        picture = axes.images[0].get_array()
        np.testing.assert_allclose(picture[5:], dimmed(photo)[5:], atol=1e-12)
        assert (picture[0, 0, 0] >= picture[0, 0, 2]) == (ends == "red")


def test_lines_run_at_half_of_the_end_and_close_at_the_border(photos):
    values = np.zeros((30, 40))
    values[:10, :10] = 2.0
    figure = plot.overlay(photos[0], values, style="contour", label="drop")
    (axes,) = [a for a in panels(figure) if a.collections]
    (path,) = axes.collections[0].get_paths()
    low, high = path.vertices.min(0), path.vertices.max(0)
    np.testing.assert_allclose([*low, *high], [-0.25, -0.25, 9.5, 9.5], atol=0.3)
    assert "≥ 1 drop" in told(figure)


@pytest.mark.parametrize("style", ["light", "tint", "contour"])
def test_each_map_may_have_a_scale_of_its_own_and_says_so(photos, maps, style):
    own = plot.overlay(photos, maps, style=style, scaling="image")
    ends = np.abs(maps).max((1, 2))
    assert notes(own) == [f"±{end:.2g}" for end in ends]
    assert "corner" in told(own)
    shared = plot.overlay(photos, maps, style=style)
    assert notes(shared) == []
    if style != "contour":
        assert "one scale for all" in told(shared)


def test_shares_of_own_scales_are_what_is_drawn(maps):
    drawn = panels(plot.heatmap(maps, scaling="image"))
    for axes, values in zip(drawn, maps, strict=False):
        np.testing.assert_allclose(axes.images[0].get_array(), values / np.abs(values).max())
    figure = plot.heatmap(np.abs(maps) + 1, scaling="image", cmap="magma")
    image = panels(figure)[0].images[0]
    assert (image.norm.vmin, image.norm.vmax) == (0, 1) and image.cmap.name == "magma"
    low, high = np.abs(maps[0]).min() + 1, np.abs(maps[0]).max() + 1
    assert notes(figure)[0] == f"{low:.2g} … {high:.2g}"


@pytest.mark.slow
def test_maps_that_show_nothing_say_so_wherever_they_are_drawn(photos):
    flat = np.stack([np.zeros((6, 8)), np.full((6, 8), -0.5)])
    words = ["zero everywhere", "−0.5 everywhere"]
    for draw in (
        lambda **how: plot.heatmap(flat, **how),
        lambda **how: plot.overlay(photos, flat, **how),
        lambda **how: plot.overlay(photos, flat, style="contour", **how),
        lambda **how: plot.occlusion(photos[:, :6, :8], flat, **how),
    ):
        for scaling in ("shared", "image"):
            assert notes(draw(scaling=scaling)) == words
    assert notes(plot.heatmap(np.full((2, 2), np.nan))) == ["no value"]


def test_a_map_is_drawn_in_axes_of_the_callers_own(photos, maps):
    figure = Figure()
    left, middle, right = figure.subplots(1, 3)
    assert plot.heatmap(maps[0], ax=left, label="drop", title="mine") is figure
    plot.overlay(photos[0], maps[0], ax=middle, titles=["over"])
    plot.overlay(photos[0], maps[0], ax=right, style="contour")
    assert (left.get_title(), middle.get_title()) == ("mine", "over")
    assert left.child_axes[0].get_ylabel() == "drop"
    assert f"≥ {np.abs(maps[0]).max() / 2:.2g}" in right.get_xlabel()
    figure.savefig("/dev/null", format="png")
    with pytest.raises(TypeError, match="`ax` must be axes of matplotlib: got a Figure"):
        plot.heatmap(maps[0], ax=figure)


def test_no_value_stays_none_in_another_size():
    values = np.ones((4, 4))
    values[:2] = np.nan
    large = fitted(values[None], (16, 16))[0]
    assert np.isnan(large[:7]).all() and np.allclose(large[9:], 1)
    assert fitted(values[None], (4, 4))[0] is not None


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 4, 7])
def test_channels_become_colours_and_the_picture_says_which(rng, channels):
    images = rng.uniform(size=(2, 6, 8, channels))
    figure = plot.gallery(images)
    assert notes(figure) == [channels_note(channels)] and channels_note(channels)
    drawn = panels(figure)[0].images[0].get_array()
    assert drawn.shape == (6, 8, 3) and 0 <= drawn.min() <= drawn.max() <= 1
    plot.overlay(images, images[..., 0])
    plot.heatmap(images[..., 0], image=images)
    plot.occlusion(images, images[..., 0])


def test_two_channels_add_up_to_white_and_four_are_rgb_with_one_more(rng):
    pair = in_colour(np.array([[[[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]]))[0, 0]
    np.testing.assert_allclose(pair[:2], [[1, 1, 1], [0, 0, 0]], atol=1e-12)
    assert pair[2, 0] > pair[2, 2] and pair[3, 2] > pair[3, 0]
    four = rng.uniform(size=(1, 2, 2, 4))
    np.testing.assert_array_equal(in_colour(four), four[..., :3])


@pytest.mark.slow
def test_main_colours_follow_the_main_directions(rng):
    strength = rng.uniform(size=(1, 20, 20, 1))
    images = 0.5 + (strength - 0.5) * np.linspace(0.2, 1, 7)  # one direction: shades of grey
    drawn = in_colour(images)
    np.testing.assert_allclose(np.ptp(drawn, -1), 0, atol=1e-6)
    order = np.argsort(strength.ravel())
    assert (np.diff(drawn[..., 0].ravel()[order]) >= -1e-9).all()
    np.testing.assert_allclose(in_colour(np.full((1, 2, 2, 5), 0.3)), 0.5)


def test_a_scale_is_signed_where_that_is_said():
    maps = np.array([[[-1.0, 0.0, 1.0]]])
    plain = common_scale(maps, False, None, (-1, 1), "")
    assert strength(maps, plain)[0, 0].tolist() == [0, 0.5, 1]
    signed = common_scale(maps, None, None, (-1, 1), "")
    assert strength(maps, signed)[0, 0].tolist() == [1, 0, 1]
