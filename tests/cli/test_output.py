"""Output: a folder gets all files or none, and nothing is announced that is quick."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxviz.cli import output
from jaxviz.cli.output import output_folder, stage, table, write_arrays


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_arrive_together_and_others_stay(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    (tmp_path / "new.txt").write_text("old")
    with output_folder(tmp_path) as part:
        (part / "new.txt").write_text("new")
        assert (tmp_path / "new.txt").read_text() == "old"
    assert everything_in(tmp_path) == ["kept.txt", "new.txt"]
    assert (tmp_path / "new.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_a_failure(tmp_path, error):
    with pytest.raises(error), output_folder(tmp_path / "a" / "b") as part:
        (part / "half.txt").write_text("half")
        raise error
    assert everything_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"the output folder .* cannot be written: .*name"):
            with output_folder(target):
                pytest.fail("the work was begun")
    assert everything_in(tmp_path) == ["file"]


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="b is a folder, not a file"):
        with output_folder(tmp_path) as part:
            (part / "a").write_text("")
            (part / "b").write_text("")
    assert everything_in(tmp_path) == ["b"]


def test_arrays_of_any_name_are_read_back(tmp_path):
    arrays = {"file": np.arange(3), "block/conv": np.eye(2, dtype=np.float32), "text": "å"}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as read:
        assert sorted(read) == sorted(arrays)
        np.testing.assert_array_equal(read["block/conv"], np.eye(2))
        assert str(read["text"]) == "å"


class Clock:
    """Stands for `threading.Timer`: its second is over at once, or never."""

    over = True

    def __init__(self, seconds, act):
        assert seconds == output.WAIT
        self.act = act

    def start(self):
        if self.over:
            self.act()

    def cancel(self):
        pass

    join = cancel


@pytest.mark.parametrize(("over", "told"), [(True, "slow …\n"), (False, "")])
def test_only_slow_stages_are_announced(capsys, monkeypatch, over, told):
    monkeypatch.setattr(Clock, "over", over)
    monkeypatch.setattr(output.threading, "Timer", Clock)
    with stage("slow") as tell:
        tell(1, 4)
    assert capsys.readouterr().err == told


def test_a_terminal_sees_how_far_the_work_is(monkeypatch):
    screen = io.StringIO()

    def console(**options):
        return Console(file=screen, force_terminal=True, width=80)

    monkeypatch.setattr("rich.console.Console", console)
    monkeypatch.setattr(output.threading, "Timer", Clock)
    with stage("slow", "images") as tell:
        tell(1, 4)
        tell(2, 4)
    assert "slow" in screen.getvalue() and "2/4" in screen.getvalue()


def test_the_clock_is_stopped_where_the_work_ends():
    with pytest.raises(KeyboardInterrupt), stage("quick"):
        raise KeyboardInterrupt
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_table_prints_what_it_is_given(capsys):
    table("Title [x]", ["name", "value"], [["[red]a[/red]", 0.123456], ["b", 2.0]])
    printed = capsys.readouterr().out
    assert "Title [x]" in printed and "[red]a[/red]" in printed and "0.1235" in printed


@pytest.mark.slow
def test_a_table_without_names_has_no_row_of_names(capsys):
    table("Facts", ["", ""], [["images", "5"]])
    assert len(capsys.readouterr().out.splitlines()) == 4
    table("Facts", ["what", ""], [["images", "5"]])
    assert len(capsys.readouterr().out.splitlines()) == 6
