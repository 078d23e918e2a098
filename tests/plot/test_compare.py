"""Methods side by side: what is drawn, where scales end, and what is refused."""

import numpy as np
import pytest

from jaxviz import plot
from jaxviz.plot._glow import dimmed, glow


@pytest.fixture
def photos(rng):
    return rng.uniform(size=(2, 12, 10, 3))


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.images[0].get_array().ndim == 3]


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_each_image_has_a_row_and_each_method_a_column(photos, rng):
    maps = {"occlusion": rng.normal(size=(2, 12, 10)), "CAM": rng.uniform(size=(2, 3, 3))}
    pictures = rng.uniform(size=(2, 5, 5, 3))
    classes = rng.integers(0, 3, (2, 12, 10))
    figure = plot.compare(photos, {**maps, "class image": pictures}, class_maps=classes)
    assert len(panels(figure)) == 2 * 5 + 1  # and the key
    heads = {t.get_text() for t in figure.texts}
    assert {"occlusion", "CAM", "class image", "class when covered"} <= heads


def test_every_map_ends_at_its_own_strongest_value_or_at_the_shared_one(photos):
    maps = np.ones((2, 12, 10)) * np.array([1.0, 4.0])[:, None, None]
    maps[:, 0, 0] = 0
    assert texts(plot.compare(photos, {"m": maps})) == ["1", "4"]
    assert texts(plot.compare(photos, {"m": maps}, scaling="shared")) == ["4", "4"]
    drawn = panels(plot.compare(photos, {"m": maps}, scaling="shared"))
    np.testing.assert_allclose(
        drawn[2].images[0].get_array(), glow(photos[0], maps[0] / 4), atol=1e-6
    )


def test_a_map_that_shows_nothing_says_so(photos):
    maps = np.zeros((2, 12, 10))
    maps[1] = 0.5
    assert texts(plot.compare(photos, {"m": maps})) == ["zero everywhere", "0.5 everywhere"]


@pytest.mark.parametrize("scaling", ["image", "shared"])
@pytest.mark.parametrize("style", ["light", "contour"])
def test_the_key_says_whose_scale_it_is_and_stays_on_the_page(photos, scaling, style):
    figure = plot.compare(
        photos, {"m": np.eye(12)[None, :, :10] + [[[0]], [[1]]]}, scaling=scaling, style=style
    )
    told = " ".join(t.get_text() for t in figure.texts).replace("\n", " ")
    assert ("each map's own" if scaling == "image" else "one for a column") in told
    assert ("lines at half" if style == "contour" else "colours end") in told
    renderer = figure.canvas.get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0, text.get_text()


def test_contours_leave_the_strong_part_as_it_is(photos):
    maps = np.zeros((12, 10))
    maps[3:8, 2:7], maps[9:, :3] = 1.0, -0.8
    (drawn,) = [p for p in panels(plot.compare(photos[0], {"m": maps}, style="contour"))][1:2]
    np.testing.assert_array_equal(drawn.images[0].get_array()[3:8, 2:7], photos[0, 3:8, 2:7])
    np.testing.assert_array_equal(drawn.images[0].get_array()[0], dimmed(photos[0])[0])
    assert len(drawn.collections) == 2  # a line around each sign


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_an_image_of_other_channels_is_one_image_where_its_map_is_one(rng, channels):
    image, maps = rng.uniform(size=(12, 10, channels)), {"m": rng.uniform(size=(3, 3))}
    figure = plot.compare(image, maps)
    assert len(panels(figure)) == 3 and "channel" in " ".join(texts(figure))
    batch = plot.compare(image[None], {"m": maps["m"][None]})
    np.testing.assert_array_equal(
        panels(figure)[0].images[0].get_array(), panels(batch)[0].images[0].get_array()
    )


def test_no_value_sheds_no_light(photos):
    np.testing.assert_array_equal(glow(photos[0], np.full((12, 10), np.nan)), dimmed(photos[0]))


def test_the_class_map_leaves_the_image_where_the_class_stays(photos):
    classes = np.zeros((2, 12, 10), int)
    classes[:, :6] = 3
    names = ["cat", "dog", "owl", "$fox_"]
    figure = plot.compare(photos, {}, class_maps=classes, predicted=[0, 3], class_names=names)
    np.testing.assert_array_equal(panels(figure)[2].images[0].get_array()[6:], photos[0, 6:])
    np.testing.assert_array_equal(panels(figure)[3].images[0].get_array()[:6], photos[1, :6])
    assert sorted(texts(figure)) == ["$fox_", "$fox_", "cat", "cat"]
    figure.savefig("/dev/null", format="png")


def test_one_image_is_a_batch_of_one(photos):
    figure = plot.compare(photos[0], {"m": np.ones((12, 10))}, titles=["a photograph"])
    assert len(panels(figure)) == 3


def test_what_is_infinite_is_as_strong_as_the_strongest(photos):
    maps = np.ones((2, 12, 10))
    endless = maps.copy()
    endless[:, 0, 0] = np.inf
    one, other = (panels(plot.compare(photos, {"m": m})) for m in (maps, endless))
    np.testing.assert_array_equal(one[2].images[0].get_array(), other[2].images[0].get_array())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": {"m": np.ones((3, 12, 10))}}, "`maps` must hold one map per image: got 3"),
        ({"maps": {}, "scaling": "all"}, '`scaling` must be "image" or "shared"'),
        ({"maps": {}, "style": "tint"}, "`style` must be one of light, contour: got 'tint'"),
        ({"maps": {}, "robust": 20}, "`robust` must be a percentage"),
        ({"maps": {}, "class_maps": np.zeros((2, 3, 3), int)}, "`class_maps` must be as large"),
        ({"maps": {}, "class_maps": np.zeros((2, 12, 10), int), "predicted": [1]}, "`predicted`"),
        ({"maps": {}, "titles": ["one"]}, "titles"),
    ],
)
def test_what_does_not_fit_is_refused(photos, options, message):
    with pytest.raises(ValueError, match=message):
        plot.compare(photos, **options)


@pytest.mark.slow
def test_as_many_predicted_classes_as_images_are_needed():
    images, maps = np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="`predicted` must hold 2 classes: got 1"):
        plot.compare(images, {"m": maps}, class_maps=maps.astype(int), predicted=[0])
