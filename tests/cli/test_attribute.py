"""`jaxviz attribute`: maps equal to the library's, side by side, for names and several targets."""

import csv
import json
import re
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_probabilities_are_told(tmp_path, capsys):
    command = f"attribute bundled digits --limit 1 --method saliency --out {tmp_path}"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "the scores are probabilities" in printed
    assert (tmp_path / "saliency.npz").is_file()


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Maps of five digits by two methods, of two targets each."""
    store = tmp_path_factory.mktemp("maps") / "out.zarr"
    words = ["attribute", "bundled", "digits", "--limit", "5", "--chunk", "2", "--logits"]
    words += ["--method", "saliency,grad_cam", "--layer", "conv2d_1", "--target", "predicted,3"]
    assert main([*words, "--store", str(store)]) == 0
    return store


@pytest.mark.slow
def test_maps_go_into_a_store(store, capsys):
    stored = jv.open_attribution(store)
    assert stored.done.all() and len(stored) == 5 and len(stored.maps) == 4
    model = jv.logits(jv.load_keras(bundled_model()))
    images = load_digits("test")[0][:5]
    cam = attribution.grad_cam(model, images, layer="conv2d_1", target=3)
    found = stored.read("grad_cam, 3")
    np.testing.assert_allclose(found.values, cam.values, atol=1e-5)
    np.testing.assert_allclose(found.heatmap(), cam.heatmap(), atol=1e-5)
    status, printed, _ = run(f"status {store}", capsys)
    assert status == 0 and "grad_cam, 3" in printed and "layer='conv2d_1'" in printed
    assert "5 of 5 done" in printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "npz"])
def test_maps_of_a_store_are_exported(store, tmp_path, capsys, kind):
    status, printed, _ = run(f"export {store} --{kind} {tmp_path}/out --images 1:3", capsys)
    assert status == 0 and "wrote 8 heatmaps" in printed
    files = sorted(path.name for path in (tmp_path / "out").glob(f"*.{kind}"))
    assert len(files) == 8 and files[0].startswith("000001-")
    with open(tmp_path / "out" / "index.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["map"] for row in rows} == set(jv.open_attribution(store).maps)
    assert [row["file"] for row in rows if row["map"] == "saliency, 3"][0] in files
    if kind == "npz":
        with np.load(tmp_path / "out" / rows[-1]["file"]) as found:
            wanted = jv.open_attribution(store)[2][rows[-1]["map"]].heatmap()
            np.testing.assert_array_equal(found["heatmap"], wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, told",
    [
        ("attribute bundled digits --store x --robust 99", "`--robust` draws nothing with --store"),
        ("attribute bundled digits --chunk 3", "`--chunk` is for runs into a store"),
        ("attribute bundled digits --store x --target true", "`--target` must be a number"),
        ("attribute bundled digits --store x --target 12", "must be a class from 0 to 9"),
        ("attribute bundled digits --store x --method lim", "`--method` must hold some of"),
        ("export STORE --png y --target 3", "`--target` is for stores of scores"),
        ("view STORE digits", "must hold scores: .* holds attribution maps"),
    ],
)
def test_what_a_store_cannot_do_is_told(store, tmp_path, capsys, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    status, _, printed = run(words.replace("STORE", str(store)), capsys)
    assert status == 2 and re.search(told, " ".join(printed.split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from jaxviz.cli import attribute_store

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(attribute_store, "attribute_dataset", stop)
    status, printed, _ = run(f"attribute bundled digits --store {tmp_path}/out.zarr", capsys)
    assert status == 130 and "the same command goes on" in printed


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_keeps_what_was_finished(tmp_path, capsys, monkeypatch):
    asked = []

    def interrupted(name, layer):
        def method(f, images, *, target, batch_size, progress):
            def stop(done, total):
                if done:
                    raise KeyboardInterrupt

            asked.append(name)
            return attribution.saliency(f, images, target=target, batch_size=1, progress=stop)

        return method

    monkeypatch.setattr("jaxviz.cli.attribute.method_of", interrupted)
    command = "attribute bundled digits --limit 2 --method saliency,grad_cam --target 1,2 --out"
    status, printed, _ = run(f"{command} {tmp_path}", capsys)
    assert status == 130 and asked == ["saliency"] and "1 results" in printed
    with np.load(tmp_path / "maps.npz") as maps:
        (label,) = set(maps.files) - {"names"}
        assert [np.isfinite(image).all() for image in maps[label]] == [True, False]


NODE = {"inbound_nodes": [[["x", 0, 0, {}]]]}
TWO_OUTPUTS = {
    "class_name": "Functional",
    "config": {
        "name": "two",
        "layers": [
            {
                "class_name": "InputLayer",
                "name": "x",
                "config": {"name": "x", "batch_input_shape": [None, 8, 8, 1]},
                "inbound_nodes": [],
            },
            {"class_name": "GlobalAveragePooling2D", "name": "mean", "config": {"name": "mean"}}
            | NODE,
            {"class_name": "GlobalMaxPooling2D", "name": "most", "config": {"name": "most"}} | NODE,
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["mean", 0, 0], ["most", 0, 0]],
    },
}


@pytest.mark.parametrize("command", ["attribute", "occlude", "judge", "maximize"])
def test_a_model_of_several_outputs_is_refused_in_a_sentence(tmp_path, capsys, command):
    (tmp_path / "two.json").write_text(json.dumps(TWO_OUTPUTS))
    np.save(tmp_path / "x.npy", np.zeros((8, 8)))
    words = [f"{tmp_path}/two.json", f"{tmp_path}/x.npy"]
    if command == "judge":
        words.insert(0, f"{tmp_path}/out.zarr")
    if command == "maximize":
        words.pop()
    status, _, told = run(" ".join([command, *words]), capsys)
    assert status == 2 and re.search("the model must give (scores|one array of scores)", told)
