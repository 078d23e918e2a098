"""Networks as graphs, and kernels as pictures."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import jaxviz as jv


def test_a_network_is_drawn_with_every_layer_and_window(tmp_path):
    drawing = jv.plot.architecture(jv.models.mnist_cnn(), patch=4, title="A <network> & more")
    root = ET.fromstring(drawing.svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "A <network> & more" in texts
    assert {layer.name for layer in drawing.layers} < set(texts)
    assert "26×26×32 · 320 parameters · sees 3×3" in texts
    tips = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("a patch changes 6×6" in tip for tip in tips)
    assert (
        drawing._repr_svg_() == drawing.svg == drawing.save(tmp_path / "x.svg").read_text("utf-8")
    )


def test_layers_of_one_row_stand_beside_each_other():
    def f(x):
        a, b = jv.tag("a", x * 2), jv.tag("b", x + 1)
        return jv.tag("c", a * b).mean((1, 2))

    drawing = jv.plot.architecture(f, image_shape=(4, 4, 1))
    root = ET.fromstring(drawing.svg)
    boxes = [
        (float(r.get("x")), float(r.get("y")))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
        if r.get("rx")
    ]
    assert len(boxes) == len(set(boxes)) == 5
    assert repr(drawing) == "Drawing(4 layers)"


def test_a_network_without_a_shape_or_layers_is_told():
    with pytest.raises(ValueError, match="`image_shape` must be given"):
        jv.plot.architecture(lambda x: x.mean((1, 2)))
    with pytest.raises(ValueError, match="must have layers with names"):
        jv.plot.architecture(lambda x: x.mean((1, 2)), image_shape=(4, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_kernels_are_drawn_one_panel_each(channels):
    weights = np.random.default_rng(0).normal(size=(3, 3, channels, 5))
    figure = jv.plot.kernels(weights, title="kernels")
    panels = [
        axes
        for axes in figure.axes
        if axes.get_images() and axes.get_images()[0].get_array().shape[0] == 3
    ]
    assert len(panels) == 5


@pytest.mark.slow
def test_the_kernels_of_a_layer_are_found_by_its_name():
    model = jv.models.mnist_cnn()
    assert jv.plot.kernels(model, layer="conv2d_1", most=4)
    with pytest.raises(ValueError, match="'preds' has none; found: conv2d.kernel"):
        jv.plot.kernels(model, layer="preds")
    with pytest.raises(ValueError, match="`weights` must be"):
        jv.plot.kernels(np.zeros((3, 3)))
