"""What the scripts in benchmarks/ share: rows are kept as they come, whatever stops the run."""

import argparse
import json
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def common(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    module = import_module("benchmarks.common")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def settings(save):
    return argparse.Namespace(save=save, quick=True)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit("the results differ")])
def test_a_run_that_is_stopped_keeps_its_rows(common, capsys, stop):
    file = common.RESULTS / "slow.partial.json"

    def rows():
        yield {"network": "a", "positions/s": 1234.0}
        assert len(json.loads(file.read_text())["rows"]) == 1  # what a kill would find
        yield {"network": "b", "positions/s": 2.0}
        raise stop

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        common.collect("slow", rows(), settings(save=True))
    kept = json.loads(file.read_text())
    assert kept["partial"] and [row["network"] for row in kept["rows"]] == ["a", "b"]
    assert "network a, positions/s 1,234" in capsys.readouterr().out
    assert import_module("benchmarks.render").load_results(common.RESULTS) == []


def test_a_finished_run_is_whole_and_nothing_is_kept_unasked(common, capsys):
    for save in (False, True):
        rows = common.collect("fast", iter([{"x": 1}]), settings(save))
        told = {"notes": ["Why."], "settings": settings(save)}
        common.finish("fast", "It is fast.", "One.", rows, **told)
        assert "| x |" in capsys.readouterr().out
        assert common.RESULTS.exists() == save
    (file,) = common.RESULTS.iterdir()
    (result,) = import_module("benchmarks.render").load_results(common.RESULTS)
    assert file.name == f"fast-{result['date']}.json" and "partial" not in result
    assert result["rows"] == [{"x": 1}] and result["versions"]["jax"]


def test_the_log_of_a_run_is_its_chunks(common, tmp_path):
    events = [{"event": "start"}, {"event": "chunk", "images": 4}, {"event": "end", "images": 4}]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, events)))
    assert common.logged(tmp_path / "log") == [{"event": "chunk", "images": 4}]
