"""`jaxviz view`, and `occlude --html`."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxviz.cli.main import main
from jaxviz.cli.view import stored_pictures
from jaxviz.scale.reader import open_store


def page_of(path):
    html = path.read_text("utf-8")
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert text
    return json.loads(text[1])


def run(text):
    return main(text.split())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("sklearn")
    path = tmp_path_factory.mktemp("view") / "digits.zarr"
    command = f"occlude bundled digits --limit 4 --patch 14 --store {path}"
    assert run(command) == 0
    return path


def test_a_store_becomes_one_page(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(f"view {store} digits --limit 3") == 0
    assert "wrote 3 images to digits.html; 1 more" in capsys.readouterr().out
    data = page_of(tmp_path / "digits.html")
    assert data["kind"] == "probabilities" and len(data["images"]) == 3
    assert data["positions"]["patch"] == [14, 14]


def test_a_store_of_some_classes_shows_these(tmp_path):
    store, page = tmp_path / "two.zarr", tmp_path / "two.html"
    command = f"occlude bundled digits --limit 2 --patch 14 --keep top2 --store {store}"
    assert run(command) == 0
    assert run(f"view {store} digits --out {page}") == 0
    data = page_of(page)
    assert data["count"] == 10
    assert all(len(record["kept"]) == 2 for record in data["images"])


def test_other_images_are_refused(store, tmp_path, capsys):
    np.save(tmp_path / "other.npy", np.zeros((2, 28, 28), np.uint8))
    assert run(f"view {store} {tmp_path}/other.npy") == 2
    assert "IMAGES must" in capsys.readouterr().err


def test_pictures_of_subfolders_are_found_by_their_whole_names(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    for name, grey in (("a/1.png", 10), ("b/1.png", 200)):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(np.full((28, 28), grey, np.uint8)).save(folder / name)
    monkeypatch.chdir(tmp_path)
    assert run(f"occlude bundled {folder} --patch 14 --store two.zarr") == 0
    stored = open_store("two.zarr")
    found = stored_pictures(stored, [str(folder)], np.array([1, 0]))
    assert [round(255 * load().mean()) for _, load in found] == [200, 10]


def test_occlude_writes_a_page_beside_its_pictures(tmp_path):
    command = f"occlude bundled digits --limit 2 --patch 14 --html --out {tmp_path}/out"
    assert run(command) == 0
    data = page_of(tmp_path / "out" / "occlusion.html")
    assert len(data["images"]) == 2 and data["filled"] == "picture"


def test_a_span_without_finished_images_is_told(store, capsys):
    assert run(f"view {store} digits --span 4:9") == 2
    assert "`view` needs finished images" in capsys.readouterr().err
