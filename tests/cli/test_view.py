"""`jaxviz view`, and `occlude --html`."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxviz.cli.commands import make_parser
from jaxviz.cli.main import main
from jaxviz.cli.stores import occlude_store
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


@pytest.mark.slow
def test_a_store_becomes_one_page(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(f"view {store} digits --limit 3") == 0
    assert "wrote 3 images to digits.html; 1 more" in capsys.readouterr().out
    data = page_of(tmp_path / "digits.html")
    assert data["kind"] == "probabilities" and len(data["images"]) == 3
    assert data["positions"]["patch"] == [14, 14]


@pytest.mark.slow
def test_a_store_of_some_classes_shows_these(tmp_path):
    store, page = tmp_path / "two.zarr", tmp_path / "two.html"
    command = f"occlude bundled digits --limit 2 --patch 14 --keep top2 --store {store}"
    assert run(command) == 0
    assert run(f"view {store} digits --out {page}") == 0
    data = page_of(page)
    assert data["count"] == 10
    assert all(len(record["kept"]) == 2 for record in data["images"])


@pytest.mark.slow
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


@pytest.mark.slow
def test_occlude_writes_a_page_beside_its_pictures(tmp_path):
    command = f"occlude bundled digits --limit 2 --patch 14 --html --out {tmp_path}/out"
    assert run(command) == 0
    data = page_of(tmp_path / "out" / "occlusion.html")
    assert len(data["images"]) == 2 and data["filled"] == "picture"


@pytest.mark.slow
def test_a_span_without_finished_images_is_told(store, capsys):
    assert run(f"view {store} digits --span 4:9") == 2
    assert "`view` needs finished images" in capsys.readouterr().err


@pytest.fixture
def albums(tmp_path):
    """Two folders in one, whose pictures have the same names, as cameras give them."""
    for album, grey in (("summer", 255), ("winter", 80)):
        (tmp_path / "photos" / album).mkdir(parents=True)
        picture = Image.fromarray(np.full((28, 28), grey, np.uint8))
        picture.save(tmp_path / "photos" / album / "IMG_1.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    store = tmp_path / "albums.zarr"
    with pytest.warns(UserWarning, match="1 of 3 images are bad"):
        words = ["occlude", "bundled", tmp_path / "photos", "--patch", 28, "--store", store]
        assert occlude_store(make_parser().parse_args([str(word) for word in words])) == 0
    return store


def brightness(page):
    """Return {name: brightness} of a page's pictures."""
    pictures = [(r["name"], r["src"].partition(",")[2]) for r in page_of(page)["images"]]
    opened = ((name, Image.open(io.BytesIO(base64.b64decode(text)))) for name, text in pictures)
    return {name: round(float(np.asarray(picture).mean()), -1) for name, picture in opened}


@pytest.mark.slow
def test_each_image_has_its_own_picture_where_names_repeat_in_subfolders(albums, tmp_path):
    assert run(f"view {albums} {tmp_path}/photos --out {tmp_path}/a.html") == 0
    expected = {"summer/IMG_1.png": 260.0, "winter/IMG_1.png": 80.0}
    assert brightness(tmp_path / "a.html") == expected
    # In the order of the store, named one by one.
    named = f"{tmp_path}/photos/broken.png {tmp_path}/photos/summer/IMG_1.png"
    command = f"view {albums} {named} {tmp_path}/photos/winter/IMG_1.png --out {tmp_path}/b.html"
    assert run(command) == 0
    assert brightness(tmp_path / "b.html") == expected


@pytest.mark.slow
def test_names_that_do_not_tell_pictures_apart_are_refused(albums, tmp_path, capsys):
    photos = tmp_path / "photos"
    command = f"view {albums} {photos}/summer {photos}/winter --out {tmp_path}/c.html"
    assert run(command) == 2
    assert "or another file has their name, such as IMG_1.png" in capsys.readouterr().err
