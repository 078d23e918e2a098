"""Files that are there whole or not at all, also where one is open and on Windows' terms."""

import errno
import os
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxviz import _files
from jaxviz._files import file_name, move, scratch, whole
from jaxviz.cli import streams
from jaxviz.cli.output import output_folder, say
from jaxviz.images.decode import image_files
from jaxviz.images.files import picture_entries
from jaxviz.scale.store import connect


@pytest.fixture
def held(monkeypatch):
    """Files that are open, as Windows sees them: path -> how often a move onto it fails."""
    fails, replace = {}, os.replace

    def replaced(part, path):
        if fails.get(Path(path), 0) > 0:
            fails[Path(path)] -= 1
            raise PermissionError(13, "Access is denied", str(path))
        replace(part, path)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(_files.time, "sleep", lambda seconds: None)
    return fails


def test_a_folder_beside_is_like_any_other_and_goes(tmp_path):
    with scratch(tmp_path) as place:
        (tmp_path / "other").mkdir()
        assert place.parent == tmp_path and list(place.iterdir()) == []
        assert place.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_refuses_is_told_at_once(tmp_path):
    with pytest.raises(OSError), scratch(tmp_path / "missing"):
        pass


def test_what_is_held_for_a_moment_is_replaced(tmp_path, held):
    part, path = tmp_path / "part", tmp_path / "path"
    part.write_text("new")
    path.write_text("old")
    held[path] = len(_files.PAUSES)
    move(part, path)
    assert path.read_text() == "new" and not part.exists()


def test_what_stays_open_stays_as_it_is(tmp_path, held):
    path = tmp_path / "a.npz"
    path.write_text("old")
    held[path] = 99
    with pytest.raises(PermissionError, match=r"a\.npz cannot be replaced: close it"):
        with whole(path) as part:
            part.write_text("new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_command_leaves_what_is_new_beside_what_is_open(tmp_path, held):
    (tmp_path / "index.csv").write_text("old")
    (tmp_path / "INDEX-2.csv").write_text("another")
    held[tmp_path / "index.csv"] = 99
    with pytest.warns(UserWarning, match=r"is it open\? The new one is .*index-3\.csv"):
        with output_folder(tmp_path) as part:
            (part / "index.csv").write_text("new")
            (part / "maps.npz").write_text("maps")
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    wanted = {"index.csv": "old", "INDEX-2.csv": "another", "index-3.csv": "new"}
    assert left == {**wanted, "maps.npz": "maps"}


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=9))
def test_every_text_is_a_name_of_its_own_on_every_system(texts):
    taken: set[str] = set()
    names = [file_name(text, taken) for text in texts]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert name and not set(name) & set('<>:"/\\|?*') and min(name) >= " "
        path = PureWindowsPath(f"{name}.npz")
        assert path.name == f"{name}.npz"
        assert not name.lower().startswith(("con.", "nul.", "aux.", "prn.", "com1.", "lpt9."))
        assert name == name.strip(" .")


def test_names_that_need_no_change_have_none():
    taken: set[str] = set()
    names = [
        "grad_cam-golden_retriever",
        "Grad_cam-golden_retriever",
        "a?b",
        "a:b",
        "nul",
        "com1.x",
    ]
    assert [file_name(name, taken) for name in names] == [
        "grad_cam-golden_retriever",
        "Grad_cam-golden_retriever-2",
        "a-b",
        "a-b-2",
        "nul_",
        "com1.x_",
    ]


def test_files_are_sorted_alike_on_all_systems(tmp_path):
    for name in ("b.png", "A.png", "a.png", "C.PNG"):
        (tmp_path / name).touch()
    assert [file.name for file in image_files(tmp_path)] == ["A.png", "C.PNG", "a.png", "b.png"]
    windows = sorted([PureWindowsPath("a.png"), PureWindowsPath("B.png")], key=lambda f: f.parts)
    assert [path.name for path in windows] == ["B.png", "a.png"]


def test_a_pattern_names_the_files_that_it_fits(tmp_path):
    for name in ("b.npy", "a.npy", "c.npz", "[x].npy"):
        if name != "c.npz":
            np.save(tmp_path / name, np.zeros((1, 4, 4, 3), np.float32))
    names = [name for name, _, _ in picture_entries(tmp_path / "?.npy")]
    assert names == ["a.npy[0]", "b.npy[0]"]
    assert [name for name, _, _ in picture_entries(tmp_path / "[x].npy")] == ["[x].npy[0]"]
    with pytest.raises(ValueError, match="there is no file or folder"):
        picture_entries(tmp_path / "*.jpg")


def test_a_disk_is_no_kind_of_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert connect("C://x/out.zarr").url.startswith("file://")
    assert connect("memory://x").url == "memory://x/"


def test_a_reader_of_windows_leaves_as_others_do(monkeypatch):
    class Gone:
        encoding, isatty = "utf-8", staticmethod(lambda: False)

        def write(self, text):
            raise OSError(errno.EINVAL, "Invalid argument")

        flush = fileno = lambda self: self.write("")

    monkeypatch.setattr("sys.stdout", Gone())
    for tell in (streams.write, say):
        with pytest.raises(OSError) as told:
            tell("text")
        assert not isinstance(told.value, streams.ReaderLeftError)
    with pytest.raises(OSError):
        streams.reader_left()
    monkeypatch.setattr(streams, "has_left", lambda error: error.errno == errno.EINVAL)
    monkeypatch.setattr("jaxviz.cli.output.has_left", streams.has_left)
    for tell in (streams.write, say):
        with pytest.raises(streams.ReaderLeftError):
            tell("text")
    assert streams.reader_left()


def test_what_windows_calls_invalid_is_a_reader_that_left(monkeypatch):
    gone, invalid = BrokenPipeError(errno.EPIPE, ""), OSError(errno.EINVAL, "")
    assert streams.has_left(gone) and not streams.has_left(invalid)
    monkeypatch.setattr(streams.os, "name", "nt")
    assert streams.has_left(gone) and streams.has_left(invalid)
    assert not streams.has_left(OSError(errno.ENOSPC, ""))
