"""The command line: whole folders or none, one sentence for what goes wrong, examples that work."""

import csv
import json
import shlex
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxviz import fills, load_occlusion, occlude, presets
from jaxviz._choices import PresetName
from jaxviz.cli import inputs
from jaxviz.cli.commands import make_parser
from jaxviz.cli.inputs import bundled_model, make_preset, read_class_names
from jaxviz.cli.main import _in_options, main
from jaxviz.datasets import load_digits
from jaxviz.images.preprocessing import Preprocessing
from jaxviz.keras import load_keras
from jaxviz.maximization.maximize import maximize
from jaxviz.scale.reader import open_store

COMMANDS = ["demo", "inspect", "occlude", "attribute", "judge", "maximize", "activations"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(command: str, capsys) -> tuple[int, str, str]:
    status = main(shlex.split(command))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "new" / "jaxviz-demo"
    assert main(["demo", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model():
    return load_keras(bundled_model())


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.slow  # `make demo` is run by itself
def test_demo_writes_three_pictures_and_a_summary(demo_folder):
    assert names_in(demo_folder) == [
        "activations.png",
        "classes.png",
        "occlusion.png",
        "summary.json",
    ]
    for name in ("activations", "classes", "occlusion"):
        picture = Image.open(demo_folder / f"{name}.png")
        assert min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 20
    summary = json.loads((demo_folder / "summary.json").read_text())
    assert summary["accuracy"] >= 0.97
    assert [digit["true"] for digit in summary["digits"]] == list(range(10))
    positions = summary["occlusion"]["positions"]
    for digit in summary["digits"]:
        assert sum(digit["class counts"].values()) == positions
    assert min(summary["class images"].values()) >= 0.99
    assert set(summary["versions"]) >= {"jaxviz", "jax", "jaxlib", "flax", "numpy", "python"}
    seconds = summary["seconds"]
    assert {"occlusion, run", "occlusion, compile", "total"} <= set(seconds)


@pytest.mark.slow
def test_a_tolerance_is_told(tmp_path, capsys, model):
    out = tmp_path / "out"
    command = f"occlude bundled digits --limit 1 --patch 4 --stride 3 --tolerance 1 --out {out}"
    status, printed, _ = run(f"{command} --method incremental", capsys)
    assert status == 0 and "approximate: off by at most 0." in printed
    approximation = load_occlusion(out / "scores.npz").approximation
    assert approximation.tolerance == 1 and approximation.field is not None
    status, printed, _ = run(f"{command} --method auto", capsys)
    assert status == 0 and ("exact: no narrower" in printed or "approximate: off" in printed)
    stored = command.replace("--out", "--store").replace(str(out), str(tmp_path / "out.zarr"))
    assert run(f"{stored} --method incremental", capsys)[0] == 0
    assert open_store(tmp_path / "out.zarr")[0].approximation == approximation


@pytest.mark.parametrize("text", ["2", "1,0.5", "2,2", "2,0.5,-1", "2,0.1,0.1,0.1", "2.5,0.1"])
def test_a_refinement_that_is_none_is_refused(capsys, text):
    with pytest.raises(SystemExit, match="2"):
        run(f"occlude bundled digits --patch 4 --refine {text}", capsys)
    assert "--refine: must be FACTOR,SHARE or FACTOR,SHARE,ERROR" in capsys.readouterr().err


@pytest.mark.slow
def test_a_refinement_is_told(tmp_path, capsys, model):
    out = tmp_path / "out"
    command = (
        f"occlude bundled digits --limit 1 --patch 4 --stride 2 --refine 2,0.2,0.5 --out {out}"
    )
    status, printed, _ = run(command, capsys)
    occ = load_occlusion(out / "scores.npz")
    assert status == 0 and f"coarse to fine: {occ.exact.mean():.0%} of the positions" in printed
    assert f"off by {occ.interpolation_error.max():.2g} of the largest change" in printed
    stored = command.replace("--out", "--store").replace(str(out), str(tmp_path / "out.zarr"))
    assert run(stored, capsys)[0] == 0
    np.testing.assert_array_equal(open_store(tmp_path / "out.zarr")[:1].exact, occ.exact)
    assert "refine [2, 0.2, 0.5]" in run(f"status {tmp_path / 'out.zarr'}", capsys)[1]


@pytest.mark.slow
def test_ink_on_paper_is_told_to_whoever_asks_the_bundled_network(tmp_path, capsys):
    for name, ground in (("paper.png", 240), ("board.png", 10)):
        picture = np.full((40, 40), ground, np.uint8)
        picture[10:30, 18:22] = 250 - ground
        Image.fromarray(picture).save(tmp_path / name)
    command = f"attribute bundled {tmp_path} --method saliency --out {tmp_path}/out"
    for more, expected in (("", True), (" --invert", False)):
        status, _, told = run(command + more, capsys)
        assert status == 0 and ("paper.png: dark on a bright ground" in told) == expected
        assert "board" not in told


def test_occlude_writes_what_the_api_computes(tmp_path, capsys, model):
    out = tmp_path / "out"
    command = f"occlude bundled digits --limit 2 --patch 8 --stride 4 --target true --out {out}"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "6×6 positions, patch 8×8" in printed
    assert names_in(out) == ["maps.npz", "occlusion.png", "overlay.png", "scores.npz"]
    images, labels = load_digits("test")
    occ = occlude(model, images[:2], patch=8, stride=4)
    with np.load(out / "maps.npz") as maps:
        np.testing.assert_allclose(maps["heatmaps"], occ.heatmap(labels[:2]), atol=1e-6)
        np.testing.assert_array_equal(maps["class_maps"], occ.class_map())
        settings = json.loads(str(maps["settings"]))
        assert settings["patch"] == [8, 8] and settings["score"] == "drop"
        assert list(maps["names"]) == ["digits[0]", "digits[1]"]
    np.testing.assert_allclose(load_occlusion(out / "scores.npz").scores, occ.scores, atol=1e-6)


@pytest.mark.slow
def test_every_option_reaches_the_api(tmp_path, capsys, photo, model):
    classes = tmp_path / "names.json"
    classes.write_text(json.dumps({str(i): [f"n{i}", f"digit_{i}"] for i in range(10)}))
    command = (
        f"occlude bundled {photo} --invert --mean 0.25 --std 2 --patch 9,7 --stride 5,6"
        f" --margin 2,3 --border clip --fill 0.1 --method dense --batch-size 3 --target 'digit 4'"
        f" --score log_odds_drop --reduce sum --robust 99 --outline --top 2 --classes {classes}"
        f" --out {tmp_path / 'out'}"
    )
    status, printed, _ = run(command, capsys)
    assert status == 0 and "(1 − x − 0.25) / 2" in printed and printed.count("digit ") == 2
    grey = np.asarray(Image.open(photo), np.float32) / 255 @ np.float32([0.299, 0.587, 0.114])
    small = Image.fromarray(grey).resize((28, 28), Image.Resampling.BILINEAR)
    image = ((0.75 - np.asarray(small)) / 2)[..., None]
    occ = occlude(model, image, patch=(9, 7), stride=(5, 6), margin=(2, 3), fill=0.1)
    expected = occ.heatmap(4, "log_odds_drop", "sum")
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        np.testing.assert_allclose(maps["heatmaps"][0], expected, rtol=1e-3, atol=1e-4)


def preset_of(options):
    return make_preset(make_parser().parse_args(["occlude", "m", "x", *options.split()]), (28, 28))


@pytest.mark.parametrize(
    "name", ["seed:4", "captum:14,7", "xplique:7,7", "pair:15", "tf_explain:7", "monai:16"]
)
def test_presets_are_those_of_the_api(name):
    word, sizes = name.split(":")
    extra = {"image_shape": (28, 28)} if word == "monai" else {}
    preset = getattr(presets, word)(*map(int, sizes.split(",")), **extra)
    assert repr(preset_of(f"--preset {name}")) == repr(preset)
    assert word in get_args(PresetName)


def test_every_preset_that_has_a_name_is_one():
    assert all(callable(getattr(presets, name)) for name in get_args(PresetName))


def test_options_win_over_a_preset():
    preset = preset_of("--preset captum:14,7 --fill 0.5 --score raw --reduce cell")
    assert preset.occlude == presets.captum(14, 7).occlude | {"fill": 0.5}
    assert preset.heatmap == {"score": "raw", "reduce": "cell"}


@pytest.mark.parametrize(
    ("word", "fill"),
    [("mean", "mean"), ("patch_mean", "patch_mean"), ("0.5", 0.5), ("0.1,0.2", (0.1, 0.2))],
)
def test_fills_have_names(word, fill):
    assert preset_of(f"--fill {word}").occlude["fill"] == fill
    assert repr(preset_of("--fill blur:2").occlude["fill"]) == repr(fills.blur(2.0))


def test_an_unsaid_patch_is_a_quarter_of_the_input():
    where = {"patch": (7, 7), "stride": (1, 1), "margin": (0, 0), "fill": 0.0, "border": "clip"}
    assert preset_of("").occlude == where


@pytest.fixture
def one_score(tmp_path) -> Path:
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten()]
    layers.append(keras.layers.Dense(1, "sigmoid", kernel_initializer="ones"))
    net = keras.Sequential(layers)
    net.layers[-1].set_weights([np.full((64, 1), 0.5, np.float32), np.full(1, -7, np.float32)])
    net.save(tmp_path / "one.keras")
    return tmp_path / "one.keras"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras on saving
def test_a_model_of_one_score_has_two_classes(tmp_path, capsys, one_score):
    images = np.stack([np.ones((8, 8, 1)), np.zeros((8, 8, 1))]).astype(np.float32)
    images[0, :, 3:] = 0  # 24 pixels · 0.5 − 7 > 0; 8 pixels are too few, 16 are not
    labels = np.array([1, 0])
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    (tmp_path / "names").write_text("dark\nbright\n")
    command = f"occlude {one_score} {tmp_path}/two.npz --patch 8,2 --stride 2 --out {tmp_path}/out"
    status, printed, _ = run(f"{command} --classes {tmp_path}/names", capsys)
    assert status == 0 and "class (score; 1 above 0.5)" in printed
    rows = [line for line in printed.splitlines() if "two.npz" in line]
    assert "bright (0.993)" in rows[0] and "25.0 %" in rows[0]
    assert "dark (0.000911)" in rows[1] and "0.0 %" in rows[1]
    status, _, errors = run(f"{command} --target true", capsys)
    assert status == 2 and "`--target` must be left out: the model has a single score" in errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras on saving
def test_a_model_that_is_no_classifier_of_images_is_refused(tmp_path, capsys):
    keras = pytest.importorskip("keras")
    image, volume = keras.layers.Input((8, 8, 1)), keras.layers.Input((4, 4, 4, 1))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(tmp_path / "dense.keras")
    keras.Model(volume, keras.layers.Conv3D(2, 3)(volume)).save(tmp_path / "volume.keras")
    for name, match in (
        ("dense", "must give scores (K,)"),
        ("volume", "must take images (H, W, C)"),
    ):
        status, _, errors = run(f"occlude {tmp_path}/{name}.keras digits --limit 1", capsys)
        assert status == 2 and match in errors, errors


@pytest.mark.parametrize("option", ["--steps"])
def test_the_help_tells_the_default_of_the_api(capsys, option):
    with pytest.raises(SystemExit, match="0"):
        main(["maximize", "--help"])
    default = signature(maximize).parameters[option.strip("-")].default
    assert f"{option} N       default: {default}" in capsys.readouterr().out


@pytest.mark.slow
def test_maximize_writes_images_in_the_range(tmp_path, capsys):
    command = f"maximize bundled --units 3,8 --steps 40 --range=-1,1 --out {tmp_path}"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "wrote maximize.png" in printed
    assert names_in(tmp_path) == ["images.npz", "maximize.png"]
    with np.load(tmp_path / "images.npz") as arrays:
        assert arrays["images"].shape == (2, 28, 28, 1)
        assert arrays["images"].min() < -0.1 and np.abs(arrays["images"]).max() <= 1
        assert (arrays["objective"][-1] > arrays["objective"][0]).all()


@pytest.mark.slow
def test_activations_are_those_of_the_model(tmp_path, capsys, model):
    command = f"activations bundled digits --layers conv2d,preds --out {tmp_path}"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "26 × 26 × 32" in printed
    image = load_digits("test")[0][:1]
    with np.load(tmp_path / "activations.npz") as arrays:
        assert sorted(arrays) == ["conv2d", "preds"]
        np.testing.assert_allclose(arrays["preds"], model(image), atol=1e-6)


def test_inspect_tells_what_the_model_is(capsys):
    status, printed, _ = run("inspect bundled", capsys)
    assert status == 0
    for word in ("loadable    yes", "conv2d", "Conv2D", "preds", "28", "1,199,882"):
        assert word in printed


@pytest.mark.slow
def test_architecture_and_weights_may_lie_in_two_files(tmp_path, capsys, data_folder):
    stem = data_folder / "keras" / "DeepImportance__deepimportance_code_release" / "LeNet1"
    command = f"activations {stem}.json --weights {stem}.h5 digits --out {tmp_path}"
    assert run(command, capsys)[0] == 0
    status, printed, _ = run(f"inspect {stem}.json", capsys)
    assert status == 1 and "loadable    no: " in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_the_help_works(tmp_path, monkeypatch, capsys, name):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    example = capsys.readouterr().out.split("example:\n")[1].strip()
    assert example.startswith(f"jaxviz {name}")
    if name == "demo":  # which `make demo` runs, and a slow test
        return
    monkeypatch.chdir(tmp_path)
    assert run(example.removeprefix("jaxviz "), capsys)[0] == 0


def wrong_commands(folder: Path) -> dict[str, str]:
    (folder / "cut.keras").write_bytes(bundled_model().read_bytes()[:5000])
    (folder / "text.h5").write_text("no model")
    (folder / "file").write_text("")
    (folder / "names").write_text("{")
    (folder / "nine").write_text("name\n" * 9)
    Image.new("L", (28, 28)).save(folder / "x.png")
    x = folder / "x.png"
    np.savez(folder / "y.npz", images=np.zeros((1, 28, 28)), labels=np.array([11]))
    return {
        "inspect no.keras": "no.keras",
        "inspect efficientnet_lite0": "must be a Keras file, or bundled: efficientnet_lite0 is",
        f"inspect {folder}/text.h5": "text.h5.* is not a Keras file",
        f"occlude {folder}/cut.keras {x}": "truncated or damaged",
        "occlude bundled no.png": "there is no file or folder no.png",
        f"occlude bundled {folder}/file": "file is empty, 0 bytes long",
        f"occlude bundled {x} --patch 40": "`--patch` must",
        f"occlude bundled {x} --stride 0": "`--stride` must",
        f"occlude bundled {x} --fill 1,2,3": "`--fill`",
        f"occlude bundled {x} --fill blur:0": "`sigma` must be above 0",
        f"occlude bundled {x} --target 10": "`--target` must be a class from 0 to 9",
        f"occlude bundled {x} --target true": "`--target true` needs labels",
        f"occlude bundled {x} --target zebra": "`--target` must be a number",
        f"occlude bundled {x} --preset lime:3": "`--preset` must be NAME:SIZE",
        f"occlude bundled {x} --preset seed:4,4": "`--preset` must be NAME:SIZE",
        f"occlude bundled {x} --preset seed:0": "`--preset` seed:0: size must",
        f"occlude bundled {x} --preset seed": "`--preset` must be NAME:SIZE",
        f"occlude bundled {x} --preset captum:3,9": "`--preset` captum:3,9: stride must not",
        f"occlude bundled {x} --preset seed:4 --patch 4": "`--patch` and --preset both",
        f"occlude bundled {x} --preset seed:4 --margin 0": "`--margin` and --preset both",
        f"occlude bundled {x} --robust 20": r"`--robust` must be a percentage in \(50, 100\]",
        f"occlude bundled {x} --robust nan": "`--robust` must be a percentage",
        f"occlude bundled {x} --keep top3": "`--keep` is for runs into a store",
        f"occlude bundled {x} --on-error skip": "`--on-error` is for runs into a store",
        f"occlude bundled {x} --store s.zarr --target 3": "`--target` draws nothing with --store",
        f"occlude bundled {x} --store s.zarr --out o": "`--out` draws nothing with --store",
        f"occlude bundled {folder}/y.npz --target true": "must be a class from 0 to 9: got 11",
        f"occlude bundled {x} --std 0": "`--std` must be finite and not 0: got 0",
        f"occlude bundled {x} --mean nan": "`--mean` must be finite: got nan",
        f"occlude bundled {x} --scale inf": "`--scale` must be finite: got inf",
        f"occlude bundled {x} --size 0": "`--size` must be at least 1: got 0",
        f"occlude bundled {x} --size 32": "`--size` must suit the model, .* 28 × 28",
        f"occlude bundled {x} --classes {folder}/names": "must be JSON",
        f"occlude bundled {x} --classes {folder}/none": "`--classes` must name a text file: .*none",
        f"occlude bundled {x} --classes {x}": "`--classes` .* it is not UTF-8 text",
        f"occlude bundled {x} --classes {folder}/nine": "`--classes` must name all.* 9 names",
        f"maximize bundled --classes {folder}/nine": "`--classes` must name all.* 9 names",
        f"maximize bundled --layer conv2d --classes {folder}/nine": "`--classes` names",
        f"occlude bundled {x} --mean 1,2": "`--mean` must be one number or one per channel",
        f"occlude bundled {x} --out {folder}/file/out": "the output folder .* cannot be written",
        f"occlude bundled {x} --out {folder}/file": "the output folder .* cannot be written",
        "demo --data no.npz": "no.npz",
        f"demo --out {folder}/file": "the output folder .* cannot be written",
        "maximize bundled --units 10": "10",
        "maximize bundled --layer convolution": "conv2d",
        "maximize bundled --range 1,0": "`--range` must be LO,HI .* got 1,0",
        "activations bundled digits --layers conv": "conv2d",
    }


@pytest.mark.slow
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    commands = wrong_commands(tmp_path)
    workplace = tmp_path / "workplace"
    workplace.mkdir()
    monkeypatch.chdir(workplace)
    before = names_in(tmp_path)
    for command, match in commands.items():
        status, printed, errors = run(command, capsys)
        said = [line for line in errors.splitlines() if not line.endswith("…")]
        assert status == 2, command
        assert printed == "" and len(said) == 1 and "Traceback" not in errors, (command, errors)
        assert said[0].startswith(f"jaxviz {command.split()[0]}: ")
        with pytest.raises(ValueError, match=match):
            raise ValueError(said[0])
        assert names_in(workplace) == [] and names_in(tmp_path) == before, command


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("fly", "invalid choice: 'fly'"),
        ("occlude bundled", "required: IMAGES"),
        ("occlude m x --patch 1,2,3", "must be one or two numbers: got '1,2,3'"),
        ("occlude m x --patch a", "must be a whole number, or A,B,…: got 'a'"),
        ("occlude m x --top 0", "must be a whole number from 1: got '0'"),
        ("occlude m x --batch-size all", 'must be "fastest" or a whole number from 1: got '),
        ("occlude m x --limit many", "must be a whole number from 1: got 'many'"),
        ("occlude m x --store s --share 3", "must be I/N, 0 ≤ I < N: got '3'"),
        ("occlude m x --store s --chunk 0", "must be a whole number from 1: got '0'"),
        ("export s --images first", "must be A:B or A, whole numbers: got 'first'"),
        (
            "occlude m x --fill grey",
            "one per channel, mean, patch_mean or blur:SIGMA, such as blur:10: got 'grey'",
        ),
    ],
)
def test_wrong_usage_exits_with_2(capsys, command, match):
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    errors = capsys.readouterr().err
    assert "usage: jaxviz" in errors and match in errors


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    told = capsys.readouterr()
    assert "usage: jaxviz" in told.out and "occlude" in told.out and told.err == ""


def test_sentences_of_the_api_speak_of_options_of_the_command():
    parser = make_parser().parse_args(["occlude", "m", "x"]).parser
    said = '`source`: image 1 is bad; go on by on_error="skip", `batch_size` or `store`.'
    told = "`source`: image 1 is bad; go on by --on-error skip, `--batch-size` or `--store`."
    assert _in_options(parser, said) == told
    other = make_parser().parse_args(["status", "s"]).parser
    assert _in_options(other, "`store` must be a store") == "`store` must be a store"


@pytest.mark.slow
def test_a_bad_image_is_told_with_the_option_that_goes_on(tmp_path, capsys):
    (tmp_path / "x.jpg").touch()
    Image.new("L", (28, 28)).save(tmp_path / "y.png")
    command = f"occlude bundled {tmp_path}/y.png {tmp_path}/x.jpg --store {tmp_path}/s --patch 14"
    status, _, errors = run(command, capsys)
    assert (
        status == 2
        and "x.jpg is empty" in errors
        and "without such images by --on-error skip" in errors
    )
    status, _, errors = run(f"{command} --on-error skip", capsys)
    assert status == 0 and "images are bad: the `errors` of the" in errors
    command = f"occlude bundled {tmp_path} --patch 14 --out {tmp_path}/out"
    status, printed, errors = run(command, capsys)
    assert status == 0 and "note: 1 of 2 images are left out" in errors and "y.png" in printed


@pytest.mark.slow
def test_a_note_is_printed_where_the_api_warns(tmp_path, capsys):
    command = f"occlude bundled digits --limit 1 --patch 14 --fill 9 --out {tmp_path}"
    status, _, errors = run(command, capsys)
    assert status == 0 and "jaxviz occlude: note: `--fill` leaves the range" in errors


def test_class_names_come_from_lines_or_json(tmp_path):
    file = tmp_path / "names"
    for text in ("cat\n\ndog \n", '["cat", "dog"]', '{"1": ["n2", "dog"], "0": ["n1", "cat"]}'):
        file.write_text(text)
        assert read_class_names(file) == ["cat", "dog"]


HELP = """
import sys
from jaxviz.cli.commands import make_parser
from jaxviz.cli.main import _in_options, main
commands = list(make_parser()._subparsers._group_actions[0].choices)
for words in (["--version"], ["--help"], *([name, "--help"] for name in commands)):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, words
main([])
heavy = {"jax", "numpy", "matplotlib", "flax", "tensorstore", "PIL", "rich"} & set(sys.modules)
sys.exit(str(heavy) if heavy else len(commands))
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 12, done.stderr[-300:]
    assert done.stdout.startswith("jaxviz 0.") and done.stdout.count("example:") == 12


def test_python_m_jaxviz_is_the_command():
    command = [sys.executable, "-m", "jaxviz", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("jaxviz 0.")


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxviz.cli.maximize.maximize_objectives", interrupt)
    status, _, errors = run(f"maximize bundled --out {tmp_path / 'out'}", capsys)
    assert status == 130 and errors == "jaxviz maximize: interrupted; nothing was written.\n"
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_an_interrupted_occlusion_writes_the_images_it_came_to(tmp_path, monkeypatch, capsys):
    def interrupted(*images, progress, **options):
        def stop(done, total):
            if done >= 25:
                raise KeyboardInterrupt

        return occlude(*images, progress=stop, **options)

    monkeypatch.setattr("jaxviz.cli.occlude.occlude_images", interrupted)
    command = (
        f"occlude bundled digits --limit 6 --patch 7 --stride 7 --batch-size 5 --out {tmp_path}"
    )
    status, printed, errors = run(command, capsys)
    assert status == 130 and "note: interrupted: " in errors
    assert "Occlusion of 2 images" in printed and "digits[2]" not in printed
    with np.load(tmp_path / "maps.npz") as maps:
        assert maps["heatmaps"].shape == (2, 28, 28) and list(maps["names"]) == [
            "digits[0]",
            "digits[1]",
        ]
    assert load_occlusion(tmp_path / "scores.npz").partial


def named_classes(folder):
    file = folder / "classes.txt"
    file.write_text("\n".join(f"digit {i}" for i in range(10)))
    return file


@pytest.mark.slow
def test_targets_are_called_by_name_and_drawn_side_by_side(tmp_path, capsys):
    names = named_classes(tmp_path)
    line = f"occlude bundled digits --limit 1 --patch 14 --out {tmp_path / 'out'} --classes {names}"
    assert main([*line.split(), "--target", "Digit 3,8"]) == 0
    assert "targets.png" in capsys.readouterr().out
    assert (tmp_path / "out" / "targets.png").stat().st_size > 1000
    occ = load_occlusion(tmp_path / "out" / "scores.npz")
    assert occ.class_names[3] == "digit 3" and ("preprocessing", "x") in occ.config
    assert main([*line.split(), "--target", "digt 3"]) == 2
    assert 'the nearest are "digit 3"' in capsys.readouterr().err


@pytest.mark.slow
def test_preprocessing_is_named_or_spelt_out(tmp_path, capsys):
    line = f"occlude bundled digits --limit 1 --patch 14 --out {tmp_path / 'out'} --preprocess"
    assert main([*line.split(), "raw"]) == 0
    assert "input raw: x · 255" in capsys.readouterr().out
    assert main([*line.split(), "raw", "--scale", "2"]) == 2
    assert "give one or the other" in capsys.readouterr().err
    assert main([*line.split(), "model"]) == 0
    (tmp_path / "other.keras").write_bytes(bundled_model().read_bytes())
    assert main([*line.replace("bundled", f"{tmp_path}/other.keras").split(), "model"]) == 2
    assert "needs a model that says what it takes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_store_and_its_export_know_the_names(tmp_path, capsys):
    names, store = named_classes(tmp_path), tmp_path / "out.zarr"
    line = f"occlude bundled digits --limit 2 --patch 14 --store {store} --classes {names}"
    assert main(line.split()) == 0
    export = f"export {store} --npz {tmp_path / 'maps'}".split()
    assert main([*export, "--target", "digit 3"]) == 0
    with open(tmp_path / "maps" / "index.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class name"] for row in rows] == ["digit 3"] * 2 and rows[0]["class"] == "3"
    (tmp_path / "short.txt").write_text("a\nb")
    assert main([*export, "--classes", str(tmp_path / "short.txt")]) == 2
    assert "must name all classes of the model, 10" in capsys.readouterr().err
    assert main([*line.split()[:-1], str(tmp_path / "short.txt")]) == 2
    assert "must name all classes of the model, 10" in capsys.readouterr().err


class Colours(nnx.Module):
    """The mean colour in [−1, 1], as a network of three classes that tells its own units."""

    input_shape, output_shape = (8, 8, 3), (3,)
    class_names = ("red", "green", "blue")
    preprocessing = Preprocessing(scale=255, mean=(127.5,), std=(127.5,))

    def __call__(self, images):
        return images.mean((1, 2))


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setattr(inputs, "efficientnet_lite0", Colours)


@pytest.mark.slow
def test_the_network_for_photographs_is_named(colours, tmp_path, photo, capsys):
    command = f"occlude efficientnet_lite0 {photo} --patch 4 --target green --out {tmp_path}/o"
    status, printed, _ = run(command, capsys)
    assert status == 0 and "red" in printed and "tf: (x · 255 − 127.5) / 127.5" in printed
    command = f"attribute efficientnet_lite0 {photo} --method saliency --logits --out {tmp_path}/a"
    assert run(command, capsys)[0] == 0
    with np.load(tmp_path / "a" / "saliency.npz") as arrays:
        np.testing.assert_allclose(np.abs(arrays["values"]).sum(), 1, rtol=1e-6)
    given = f"{photo} --method saliency --logits"
    assert run(f"attribute efficientnet_lite0 {given} --store {tmp_path}/m.zarr", capsys)[0] == 0
    command = f"judge {tmp_path}/j.zarr efficientnet_lite0 {given} --metric sparseness"
    assert run(command, capsys)[0] == 0


@pytest.mark.slow
def test_maximize_takes_pixels_from_black_to_white_in_the_models_units(colours, tmp_path, capsys):
    command = f"maximize efficientnet_lite0 --units 0 --steps 60 --out {tmp_path}"
    assert run(command, capsys)[0] == 0
    with np.load(tmp_path / "images.npz") as arrays:
        assert arrays["images"].min() < -0.1 and np.abs(arrays["images"]).max() <= 1
        assert arrays["images"][..., 0].mean() > 0.1


@pytest.mark.slow
def test_a_file_may_have_the_name_of_the_network_for_photographs(colours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("efficientnet_lite0").write_bytes(bundled_model().read_bytes())
    assert inputs.load_model("efficientnet_lite0").output_shape == (10,)


def test_names_of_classes_may_begin_with_a_byte_order_mark(tmp_path):
    for text in ("tench\nshark", '["tench", "shark"]'):
        (tmp_path / "names.txt").write_text(text, encoding="utf-8-sig")  # as Notepad may write it
        assert read_class_names(tmp_path / "names.txt") == ["tench", "shark"]
