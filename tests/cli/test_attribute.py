"""`jaxviz attribute`: maps equal to the library's, side by side, for names and several targets."""

import shlex
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz import attribution
from jaxviz._choices import MapMethod
from jaxviz.cli.inputs import bundled_model
from jaxviz.cli.main import main
from jaxviz.datasets import load_digits


def run(command, capsys):
    status = main(shlex.split(command))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_every_method_can_be_asked_for():
    functions = [n for n in attribution.__all__ if callable(getattr(attribution, n))]
    known = {"occlusion", *functions} - {"MapReading"}
    assert known == set(get_args(MapMethod))


def test_maps_are_those_of_the_library(tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {n}" for n in range(10)))
    out = tmp_path / "out"
    command = (
        f"attribute bundled digits --limit 2 --method grad_cam,saliency --layer conv2d_1 --logits"
        f" --target predicted,'digit 3' --classes {names} --out {out}"
    )
    status, printed, _ = run(command, capsys)
    assert status == 0 and "conv2d_1" in printed and "probabilities" not in printed
    model = jv.logits(jv.load_keras(bundled_model()))
    images = load_digits("test")[0][:2]
    cam = attribution.grad_cam(model, images, layer="conv2d_1")
    three = attribution.saliency(model, images, target=3)
    with np.load(out / "maps.npz") as maps:
        np.testing.assert_allclose(maps["grad_cam, the predicted class"], cam.heatmap(), atol=1e-5)
        np.testing.assert_allclose(maps["saliency, digit 3"], three.heatmap(), atol=1e-5)
    kept = jv.load(out / "saliency-digit-3.npz")
    np.testing.assert_allclose(kept.values, three.values, atol=1e-6)
    assert np.asarray(Image.open(out / "attribution.png").convert("L")).std() > 20


def test_probabilities_are_told(tmp_path, capsys):
    command = f"attribute bundled digits --limit 1 --method saliency --out {tmp_path}"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "the scores are probabilities" in printed
    assert (tmp_path / "saliency.npz").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--method gradcam", "`--method` must hold some of"),
        ("--method saliency --layer conv2d", "`--layer` is for class activation maps"),
        ("--method grad_cam --layer conv", "`--layer` must name a layer: got 'conv'"),
        ("--method saliency --target 10", "`--target` must be a class from 0 to 9"),
        ("--method saliency --target zebra", "`--target` must be a number"),
        ("--method saliency --robust 20", "`--robust` must be a percentage"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(tmp_path, capsys, options, said):
    out = tmp_path / "out"
    status, _, told = run(f"attribute bundled digits --limit 1 {options} --out {out}", capsys)
    assert status == 2 and said in told
    assert not out.exists()
