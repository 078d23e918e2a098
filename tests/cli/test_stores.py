"""The commands of runs over many images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxviz.cli import stores as commands
from jaxviz.cli.commands import make_parser
from jaxviz.images.files import read_pictures
from jaxviz.scale.lock import hold
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import connect


def parse(*words):
    return make_parser().parse_args([str(word) for word in words])


def occlude(*words):
    return commands.occlude_store(parse("occlude", "bundled", *words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five digits as pictures, one of them in a subfolder, and one that is broken."""
    from jaxviz.datasets import load_digits

    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    for i, digit in enumerate(load_digits("test")[0][:5]):
        name = f"sub/{i}.png" if i == 4 else f"{i}.png"
        Image.fromarray((255 * digit[..., 0]).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "out.zarr"
    words = ["--store", store, "--patch", 7, "--stride", 7, "--chunk", 2]
    with pytest.warns(UserWarning, match="1 of 6 images are bad"):
        assert occlude(folder, *words) == 0
    return store


@pytest.mark.slow
def test_occlude_scores_a_folder_into_a_store(store, capsys):
    stored = open_store(store)
    assert stored.names == ["0.png", "1.png", "2.png", "3.png", "broken.png", "sub/4.png"]
    assert stored[0].scores.shape == (4, 4, 10)
    assert [error.name for error in stored.errors] == ["broken.png"]


@pytest.mark.slow
def test_occlude_store_reads_what_occlude_reads(tmp_path):
    words = ["--patch", 7, "--stride", 7, "--limit", 3, "--keep", "top2", "--stored", "float16"]
    assert occlude("digits", "--store", tmp_path / "out.zarr", *words) == 0
    stored = open_store(tmp_path / "out.zarr")
    assert len(stored) == 3 and stored.names == ["digits[0]", "digits[1]", "digits[2]"]
    assert stored[:].scores.shape == (3, 4, 4, 2)
    with pytest.raises(ValueError, match="`--keep` must be"):
        occlude("digits", "--store", tmp_path / "b.zarr", "--keep", "best")


@pytest.mark.slow
def test_shares_are_done_one_by_one(tmp_path, capsys):
    words = ["--store", tmp_path / "out.zarr", "--patch", 14, "--limit", 4, "--chunk", 2]
    occlude("digits", *words, "--share", "1/2")
    assert open_store(tmp_path / "out.zarr").done.tolist() == [False, False, True, True]
    occlude("digits", *words, "--share", "0/2")
    assert open_store(tmp_path / "out.zarr").done.all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("occlude", "digits", "--share", "2"), "must be I/N, 0 ≤ I < N: got '2'"),
        (("occlude", "digits", "--share", "2/2"), "must be I/N, 0 ≤ I < N: got '2/2'"),
        (("export", "out.zarr", "--images", "a:3"), "must be A:B or A, whole numbers: got 'a:3'"),
    ],
)
def test_wrong_word_is_refused_in_a_sentence(words, told, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert told in capsys.readouterr().err


def test_wrong_coordinator_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`--coordinator` must be HOST:PORT,N,I"):
        occlude("digits", "--store", tmp_path / "out.zarr", "--coordinator", "localhost")


def test_interrupted_run_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "occlude_dataset", interrupt)
    assert occlude("digits", "--store", tmp_path / "out.zarr") == 130
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_status_tells_how_far_the_run_is(store, capsys):
    commands.status(parse("status", store))
    told = capsys.readouterr().out
    assert "6 of 6 done (100.0 %)" in told and "broken.png" in told and "nobody" in told
    with hold(connect(store), (0, 1)):
        commands.status(parse("status", store, "--json"))
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["done"], facts["bad"]) == (6, 6, 1)
    assert facts["in_use"].startswith("process ")
    assert facts["run"]["grid"]["patch"] == [7, 7]


def test_export_draws_the_heatmaps_of_good_images(store, tmp_path, capsys):
    commands.export(parse("export", store, "--png", tmp_path / "maps"))
    assert "wrote 5 heatmaps" in capsys.readouterr().out
    with open(tmp_path / "maps" / "index.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "sub/4.png"]
    stored = open_store(store)
    with Image.open(tmp_path / "maps" / rows[1]["file"]) as picture:
        facts = json.loads(picture.info["jaxviz"])
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    values = stored[1].heatmap()
    assert facts["class"] == stored.predicted[1] and facts["greatest"] == float(values.max())
    redness = pixels[..., 0] - pixels[..., 2]
    assert (redness > 100).any() and (redness < -100).any()  # the bar, at least, has both ends


def test_export_draws_the_photograph_the_class_and_the_scale(store, folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(commands.plot, "heatmap", lambda *a, **k: drawn.append((a, k)) or Kept())

    class Kept:
        def savefig(self, file, **how):
            Path(file).write_bytes(b"")

    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {i}" for i in range(10)))
    words = ["export", store, "--png", tmp_path / "maps", "--photos", folder, "--classes", names]
    commands.export(parse(*words, "--span", "3:6", "--score", "log_odds_drop"))
    stored = open_store(store)
    assert len(drawn) == 2  # number 4 is broken
    (values,), how = drawn[1]
    predicted = stored.predicted[5]
    np.testing.assert_array_equal(values, stored[5].heatmap(score="log_odds_drop"))
    wanted = read_pictures([folder / "sub" / "4.png"], (28, 28, 3)).values[0]
    np.testing.assert_array_equal(how["image"], wanted)
    assert how["titles"] == [f"digit {predicted}: {stored.base[5, predicted]:.3g}"]
    assert (how["title"], how["label"]) == ("4.png", "drop in the log-odds")
    with pytest.raises(ValueError, match="--photos must hold the images of the store: 1 are miss"):
        commands.export(
            parse("export", store, "--png", tmp_path, "--photos", folder / "0.png", "--span", "1")
        )
    with pytest.raises(ValueError, match="`--photos` is drawn in pictures: give --png"):
        commands.export(parse("export", store, "--npz", tmp_path, "--photos", folder))
    names.write_text("one\ntwo")
    for command in (
        ["export", store, "--png", tmp_path],
        ["occlude", "bundled", "digits", "--store", tmp_path / "new.zarr"],
    ):
        run = commands.export if command[0] == "export" else commands.occlude_store
        with pytest.raises(ValueError, match="`--classes` must name all classes of the model, 10"):
            run(parse(*command, "--classes", names))


def test_export_writes_arrays(store, tmp_path):
    words = ["--npz", tmp_path / "maps", "--images", "1:3", "--target", 3, "--score", "raw"]
    commands.export(parse("export", store, *words, "--reduce", "cell"))
    files = sorted((tmp_path / "maps").glob("*.npz"))
    assert [file.name for file in files] == ["000001-1.npz", "000002-2.npz"]
    with np.load(files[0]) as arrays:
        wanted = open_store(store)[1].heatmap(3, "raw", "cell")
        np.testing.assert_array_equal(arrays["heatmap"], wanted)


@pytest.mark.slow
def test_export_reads_a_store_as_its_preset_says_unless_told_otherwise(tmp_path):
    occlude("digits", "--store", tmp_path / "out.zarr", "--limit", 1, "--preset", "seed:7")
    occ = open_store(tmp_path / "out.zarr")[0]
    for words, how in ([], {}), (["--score", "drop"], {"score": "drop"}):
        commands.export(parse("export", tmp_path / "out.zarr", "--npz", tmp_path / "maps", *words))
        (file,) = (tmp_path / "maps").glob("*.npz")
        with np.load(file) as arrays:
            np.testing.assert_array_equal(arrays["heatmap"], occ.heatmap(**how))
            assert json.loads(str(arrays["facts"]))["score"] == how.get("score", "raw")


@pytest.mark.slow
def test_export_finds_kept_classes(tmp_path):
    words = ["--patch", 14, "--limit", 2, "--keep", "5,3"]
    occlude("digits", "--store", tmp_path / "out.zarr", *words)
    words = ["export", tmp_path / "out.zarr", "--npz", tmp_path / "maps", "--target"]
    commands.export(parse(*words, 3))
    with np.load(tmp_path / "maps" / "000001-digits[1].npz") as arrays:
        wanted = open_store(tmp_path / "out.zarr")[1].heatmap(1)
        np.testing.assert_array_equal(arrays["heatmap"], wanted)
    with pytest.raises(ValueError, match="keeps of image 0: got 7, kept are 5, 3"):
        commands.export(parse(*words, 7))


@pytest.mark.slow
def test_export_refuses_what_it_cannot_do(store, tmp_path):
    with pytest.raises(ValueError, match="needs one of --png FOLDER and --npz"):
        commands.export(parse("export", store))
    with pytest.raises(ValueError, match="needs finished images"):
        commands.export(parse("export", store, "--png", tmp_path / "maps", "--images", "4"))
