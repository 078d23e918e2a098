"""Pictures: honest scales, nothing clipped, any image, and no trace of pyplot."""

import subprocess
import sys
from io import BytesIO
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from jaxviz import plot
from jaxviz.plot._scale import common_scale


def images_of(figure: Figure) -> list:
    return [artist for axes in figure.axes for artist in axes.images]


def maps_of(figure: Figure) -> list:
    return [artist for artist in images_of(figure) if artist.get_array().ndim == 2]


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    ticks = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    return found + ticks


def text_boxes(figure: Figure) -> list:
    renderer = figure.canvas.get_renderer()
    labels = [label for axes in figure.axes for label in axes.get_yticklabels()]
    shown = [t for t in [*figure.texts, *labels] if t.get_text().strip() and t.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


def pixels(figure: Figure) -> np.ndarray:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def example(rng, count: int, shape=(28, 28), channels=1):
    images = rng.random((count, *shape, channels))
    maps = rng.normal(size=(count, *shape))
    classes = rng.integers(0, 10, (count, *shape))
    return images, maps, classes


LONG = [f"Loxodonta africana number {i}, seen from the side" for i in range(10)]
LAYOUTS = [
    (1, (28, 28), None),
    (1, (66, 200), LONG),
    (2, (40, 20), LONG),
    (5, (10, 200), None),
    (8, (28, 28), LONG),
    (16, (28, 28), None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "shape", "names"), LAYOUTS)
def test_no_text_is_clipped_or_overlaps(rng, count, shape, names):
    images, maps, classes = example(rng, count, shape, channels=3)
    maps[0, 0, 0] = np.nan
    labels = np.arange(count) % 10
    figures = [
        plot.occlusion(
            images,
            1e-5 * maps,
            classes,
            true=labels,
            predicted=labels[::-1],
            class_names=names,
            label="drop in the log-odds of the class that each of these images belongs to",
            title="What a network needs to see, in a sentence that is long enough to be wrapped",
        ),
        plot.overlay(images, maps, robust=90, titles=[LONG[i % 10] for i in range(count)]),
        plot.heatmap(maps, image=images, label="drop", title="Drops"),
        plot.gallery(images, titles=[str(i) for i in range(count)], title="Perception of 0…9"),
    ]
    for figure in figures:
        boxes = text_boxes(figure)
        for text, box in boxes:
            assert box.x0 >= 0 and box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        for (one, a), (other, b) in combinations(boxes, 2):
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, (one, other)


@pytest.mark.slow
def test_activations_text_is_not_clipped(rng):
    maps = {
        "a_layer_with_a_name_longer_than_most": rng.random((1, 24, 24, 64)),
        "one": rng.random((9, 9, 1)),
        "wide": rng.normal(size=(6, 20, 3)),
        "dense": rng.random((1, 128)),
        "preds": rng.random(10),
    }
    figure = plot.activations(maps, image=rng.random((1, 9, 5, 3)), title="What each filter sees")
    boxes = text_boxes(figure)
    assert {
        "image",
        "1 map of 9 × 9",
        "64 maps of 24 × 24",
        "3 maps of 6 × 20",
        "128 units",
        "10 units",
    } <= set(texts(figure))
    for text, box in boxes:
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, (one, other)


@pytest.mark.slow
def test_signed_scale_is_centred_on_zero_and_shared(rng):
    images, maps, classes = example(rng, 4)
    maps[1] *= 7
    drawn = maps_of(plot.occlusion(images, maps, classes))
    bound = np.abs(maps).max()
    assert len(drawn) == 4
    assert {artist.norm.vmin for artist in drawn} == {-bound}
    assert {artist.norm.vmax for artist in drawn} == {bound}
    assert drawn[0].cmap.name == "RdBu_r"
    np.testing.assert_allclose(drawn[0].to_rgba(np.zeros((1, 1)))[0, 0, :3], 0.97, atol=0.02)


def test_values_without_a_sign_get_a_sequential_scale(rng):
    maps = rng.uniform(0.2, 0.9, (2, 5, 7))
    drawn = maps_of(plot.heatmap(maps))[0]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (maps.min(), maps.max())
    assert drawn.cmap.name == "viridis"
    stated = maps_of(plot.heatmap(maps, limits=(0, 1)))[0]
    assert (stated.norm.vmin, stated.norm.vmax) == (0, 1)
    assert maps_of(plot.heatmap(maps, signed=True))[0].norm.vmin == -maps.max()


def test_limits_decide_the_sign_and_rounding_is_no_excess(rng):
    maps = rng.uniform(0, 1, (2, 5, 7))
    maps[0, 0, 0] = -1e-9
    figure = plot.heatmap(maps, limits=(0, 1))
    drawn = maps_of(figure)[0]
    assert drawn.cmap.name == "viridis" and (drawn.norm.vmin, drawn.norm.vmax) == (0, 1)
    assert common_scale(maps, None, None, (0, 1), "").extend == "neither"
    assert common_scale(maps - 0.1, None, None, (0, 1), "").extend == "min"
    assert maps_of(plot.heatmap(maps, limits=(-1, 1)))[0].cmap.name == "RdBu_r"
    assert maps_of(plot.heatmap(maps - 2, limits=(-2, -1)))[0].cmap.name == "viridis"


def test_infinite_values_lie_at_the_ends_of_a_scale_of_the_finite_ones():
    maps = np.array([[[0.0, 1.0], [np.inf, np.nan]], [[-3.0, -np.inf], [2.0, 1.0]]])
    scale = common_scale(maps, None, None, None, "")
    assert (scale.norm.vmin, scale.norm.vmax) == (-3, 3) and scale.extend == "both"
    assert common_scale(np.full((1, 2, 2), np.inf), None, None, None, "").extend == "max"
    drawn = maps_of(plot.heatmap(maps))[0].get_array()
    assert drawn[1, 0] == 3 and drawn.mask.tolist() == [[False, False], [False, True]]
    plot.overlay(np.zeros((2, 2, 2, 1)), maps)


def test_robust_limits_ignore_outliers_and_the_bar_says_so(rng):
    maps = rng.normal(size=(3, 20, 20))
    maps[0, 0, 0] = 1e6
    plain, robust = plot.heatmap(maps), plot.heatmap(maps, robust=99)
    assert maps_of(plain)[0].norm.vmax == 1e6
    assert maps_of(robust)[0].norm.vmax == np.percentile(np.abs(maps), 99)
    sequential = maps_of(plot.heatmap(np.abs(maps), robust=98))[0].norm
    assert sequential.vmin == np.percentile(np.abs(maps), 2)
    arrows = [axes.child_axes + list(axes.patches) for axes in robust.axes]
    assert sum(map(len, arrows)) > sum(
        len(axes.child_axes + list(axes.patches)) for axes in plain.axes
    )


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e-300, 255.0])
def test_constant_map_and_image_plot_without_a_warning(value):
    constant = np.full((6, 5), value)
    for figure in (
        plot.heatmap(constant),
        plot.heatmap(constant, signed=True, robust=99),
        plot.overlay(constant, constant),
        plot.occlusion(constant, constant, constant.astype(int), outline=True),
        plot.gallery(constant[None]),
        plot.activations(constant[..., None]),
    ):
        assert pixels(figure).size


def test_nan_is_drawn_grey_and_named():
    values = np.ones((4, 4))
    values[0, 0] = np.nan
    figure = plot.heatmap(values, limits=(0, 2), label="drop")
    grey = np.array([round(255 * v) for v in to_rgb("#bdbdbd")])
    assert (pixels(figure) == grey).all(-1).mean() > 0.02
    assert "drop\ngrey: no value" in texts(figure)
    assert (pixels(plot.heatmap(values * np.nan)) == grey).all(-1).mean() > 0.4


def test_bytes_and_floats_draw_the_same_image(rng):
    image = rng.integers(0, 256, (1, 9, 6, 3), dtype=np.uint8)
    as_floats = [image / 255, image.astype(np.float32), jnp.asarray(image, jnp.bfloat16)]
    expected = images_of(plot.gallery(image))[0].get_array()
    np.testing.assert_array_equal(expected[0, 0], image[0, 0, 0] / 255)
    for floats in as_floats:
        drawn = images_of(plot.gallery(floats))[0].get_array()
        np.testing.assert_allclose(drawn, expected, atol=0.003)
    signed = images_of(plot.gallery(np.array([[[-2.0, 0.0, 2.0]]])))[0].get_array()
    np.testing.assert_array_equal(signed[0, :, 0], [0, 0.5, 1])


@pytest.mark.slow
@settings(max_examples=8)
@given(
    count=st.integers(1, 9),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 1, 3]),
    columns=st.none() | st.integers(1, 12),
)
def test_any_number_of_images_of_any_size_gets_a_panel(count, height, width, channels, columns):
    shape = (count, height, width) + ((channels,) if channels else ())
    images = np.zeros(shape, np.uint8)
    maps = np.zeros((count, height, width), np.float32)
    assert len(images_of(plot.gallery(images, columns=columns))) == count
    assert (
        len(images_of(plot.occlusion(images, maps, maps.astype(int), columns=columns))) == 3 * count
    )


@pytest.mark.slow
def test_one_image_works_without_a_batch_axis(rng):
    images, maps, classes = example(rng, 1)
    single = plot.occlusion(images[0, ..., 0], maps[0], classes[0], true=3, predicted=4)
    batch = plot.occlusion(images, maps, classes, true=[3], predicted=[4])
    np.testing.assert_array_equal(pixels(single), pixels(batch))


def test_a_wrong_prediction_is_marked(rng):
    images, maps, _ = example(rng, 2)
    figure = plot.occlusion(images, maps, true=[0, 1], predicted=[0, 2], class_names=["a", "b"])
    colours = {text.get_text(): text.get_color() for text in figure.texts}
    assert colours["predicted: a"] != colours["predicted: 2"]
    assert "true: b" in colours


@pytest.mark.slow
def test_a_class_keeps_its_colour(rng):
    images, maps, _ = example(rng, 2)
    zeros = np.zeros(maps.shape, int)
    mixed = zeros.copy()
    mixed[0, :9] = 7
    one, two = (images_of(plot.occlusion(images, maps, c)) for c in (zeros + 7, mixed))
    np.testing.assert_array_equal(one[2].get_array()[0, 0], two[2].get_array()[0, 0])
    assert not np.array_equal(two[2].get_array()[0, 0], two[2].get_array()[20, 0])


def test_many_classes_are_summed_up_and_no_class_is_named():
    classes = np.arange(36).reshape(6, 6) * 25
    classes[0] = 500
    classes[5, 5] = -1
    figure = plot.occlusion(np.zeros((6, 6)), np.zeros((6, 6)), classes)
    assert {"500", "19 others", "not covered"} <= set(texts(figure))


def test_overlay_is_grey_where_the_map_is_zero_and_coloured_at_its_end(rng):
    image = rng.random((4, 4, 3))
    values = np.zeros((4, 4))
    values[0, 0], values[3, 3] = 1, -1
    figure = plot.overlay(image, values, alpha=1.0, style="tint")
    blend = images_of(figure)[0].get_array()
    np.testing.assert_allclose(np.ptp(blend[1:3, 1:3], axis=-1), 0, atol=1e-12)
    assert blend[0, 0, 0] > 3 * blend[0, 0, 2] and blend[3, 3, 2] > 3 * blend[3, 3, 0]


def test_activations_mark_dead_maps_and_leave_no_space(rng):
    maps = rng.random((1, 3, 3, 5)) * np.array([1, 0, 2, 0, 3])
    figure = plot.activations({"conv": maps})
    assert "5 maps of 3 × 3, 2 zero everywhere (×)" in texts(figure)
    assert len(maps_of(figure)) == 3
    ink = np.argwhere((pixels(figure) < 250).any(-1))
    free = (np.array(pixels(figure).shape[:2]) - 1 - ink.max(0)) / 160  # below and on the right
    assert free.max() < 0.6
    both = plot.activations({"a": maps[..., :3], "b": maps[..., 2:4]}, image=np.ones((6, 6, 3)))
    assert both.get_figheight() < 1.3 * figure.get_figheight()  # all three beside each other


def test_activations_keep_the_strongest_maps(rng):
    maps = rng.random((1, 3, 3, 10)) * np.arange(10)
    figure = plot.activations({"conv": maps}, max_maps=4, columns=2)
    drawn = [artist.get_array() for artist in maps_of(figure)]
    np.testing.assert_array_equal(np.stack(drawn, -1), maps[0, ..., 6:])
    assert "10 maps of 3 × 3, the 4 strongest shown" in texts(figure)


@pytest.mark.slow
def test_notebooks_get_a_png_and_pyplot_is_never_imported():
    assert plot.gallery(np.zeros((1, 4, 4)))._repr_png_()[1:4] == b"PNG"
    code = "import sys, jaxviz.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


Z = np.zeros((2, 4, 4))
BAD = [
    (lambda: plot.heatmap(np.zeros(3)), r"`heatmap` must be \(height, width\) or"),
    (lambda: plot.heatmap(Z, robust=30), r"`robust` must be a percentage in \(50, 100\]: got 30"),
    (lambda: plot.heatmap(Z, limits=(1, 1)), r"`limits` must be \(low, high\)"),
    (lambda: plot.heatmap(Z, signed=True, limits=(-1, 2)), r"`limits` must be \(-bound, bound\)"),
    (lambda: plot.heatmap(Z, limits=(-1, 2)), r"`limits` must be \(-bound, bound\)"),
    (lambda: plot.heatmap(Z, limits=(0, 1, 2)), r"`limits` must be .* got \(0, 1, 2\)"),
    (lambda: plot.heatmap(Z, limits=3), "`limits` must be .* got 3"),
    (lambda: plot.heatmap(Z, limits=("a", "b")), "`limits` must be .* got"),
    (lambda: plot.heatmap(Z, columns=0), "`columns` must be None or a whole number .*: got 0"),
    (
        lambda: plot.heatmap(Z, columns=1.5),
        "`columns` must be None or a whole number from 1: got 1.5",
    ),
    (lambda: plot.heatmap(Z, robust="99"), r"`robust` must be a percentage .* got '99'"),
    (lambda: plot.heatmap(Z, titles=["one"]), "`titles` must hold one title per image"),
    (lambda: plot.heatmap(Z, titles="ab"), "`titles` must hold one title per image"),
    (
        lambda: plot.occlusion(np.zeros((2, 4, 5)), Z),
        "`images` must have as many images and pix",
    ),
    (lambda: plot.overlay(np.zeros((2, 4, 4, 40)), Z), "`image` must be .* with 1 to 32 channels"),
    (lambda: plot.overlay(np.zeros((1, 4, 4, 3)), Z), "`image` must have as many images as the"),
    (lambda: plot.overlay(Z, Z, style="glow"), "`style` must be one of .*: got 'glow'"),
    (lambda: plot.heatmap(Z, scaling="all"), '`scaling` must be "image" or "shared": got'),
    (lambda: plot.heatmap(Z, scaling="image", limits=(0, 1)), "`limits` are those of one scale"),
    (lambda: plot.heatmap(Z, cmap="reds"), "`cmap` must be a colour map of matplotlib, .*'reds'"),
    (lambda: plot.heatmap(Z, ax=Figure().add_subplot()), "`ax` is for a single map: got 2"),
    (
        lambda: plot.heatmap(Z[0], image=Z[0], ax=Figure().add_subplot()),
        "`ax` has no room for `image`",
    ),
    (lambda: plot.overlay(Z, Z, alpha=0), r"`alpha` must lie in \(0, 1\]: got 0"),
    (lambda: plot.gallery(Z + np.nan), "`images` must be finite: got 32 NaN or infinite"),
    (lambda: plot.gallery(np.zeros((0, 4, 4))), "`images` must be .*got"),
    (lambda: plot.occlusion(Z, Z, np.zeros((2, 4, 5), int)), "`class_maps` must have the shape of"),
    (lambda: plot.occlusion(Z, Z, true=[1]), "`true` must hold one class per image: got"),
    (lambda: plot.activations({}), "`maps` must hold at least one layer"),
    (lambda: plot.activations(np.zeros((2, 4, 4, 3))), "`maps` must hold one image's .* pick one"),
    (
        lambda: plot.activations({"a": np.full(3, np.inf)}),
        r"`maps\['a'\]` must hold numbers or NaN",
    ),
    (
        lambda: plot.activations(np.zeros(3), max_maps=0),
        "`max_maps` must be a whole number from 1",
    ),
]


@pytest.mark.parametrize(("call", "match"), BAD)
def test_bad_input_is_one_clear_sentence(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_classes_must_be_integers():
    with pytest.raises(TypeError, match="`class_maps` must hold integers: got float64"):
        plot.occlusion(Z, Z, Z)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["abc", [["a"]], {}])
def test_maps_must_be_numbers(value):
    with pytest.raises(TypeError, match="`heatmap` must hold numbers: got a (str|list|dict)"):
        plot.heatmap(value)
    with pytest.raises(TypeError, match=r"`maps\['a'\]` must hold numbers"):
        plot.activations({"a": value})


@pytest.mark.slow
def test_results_are_drawn_as_their_maps():
    class Result:
        def heatmap(self):
            return np.arange(24.0).reshape(2, 3, 4)

    photos = np.ones((2, 3, 4, 3)) / 2
    for draw in (
        lambda maps: plot.heatmap(maps, image=photos),
        lambda maps: plot.overlay(photos, maps),
        lambda maps: plot.occlusion(photos, maps),
    ):
        ours, plain = draw(Result()), draw(Result().heatmap())
        for one, other in zip(images_of(ours), images_of(plain), strict=True):
            assert np.array_equal(one.get_array(), other.get_array())
