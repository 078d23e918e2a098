"""The table of `jaxviz bench`: the networks are those of the papers, every row is checked."""

import argparse
import json
from math import prod

import numpy as np
import pytest

from jaxviz.scale import bench, commands, networks


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (networks.vgg16, 138_357_544),
        (networks.resnet50, 25_557_032 - 26_560),
        (networks.mobilenet_v2, 3_504_872 - 17_056),
        (networks.squeezenet, 1_235_496),
    ],
)
def test_networks_have_the_published_number_of_weights(network, count):
    # The published numbers have two weights per normalised channel; folded, one is left.
    assert sum(map(prod, networks.weight_shapes(network, 224))) == count


@pytest.fixture(scope="module")
def report():
    small = (bench.Case("mnist_cnn", 28, 14, 7), bench.Case("squeezenet", 32, 16, 16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "QUICK_CASES", small)
        patch.setattr(bench, "QUICK_SECONDS", 0.05)
        return bench.run_bench(quick=True, models=["mnist_cnn"], tell=lambda text: None)


def test_every_method_has_a_row_that_agrees_with_the_loop(report):
    assert [row["method"] for row in report["rows"]] == ["loop", "dense", "incremental"]
    for row in report["rows"]:
        assert row["model"] == "mnist_cnn" and row["windows"] == 9
        assert row["windows/s"] == pytest.approx(9 * row["images/s"])
        assert row["max deviation"] < 1e-4
    loop, dense, incremental = report["rows"]
    assert incremental["Gflop/window"] < dense["Gflop/window"] == dense["Gflop/window dense"]


def test_wrong_scores_are_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "QUICK_CASES", (bench.Case("mnist_cnn", 28, 14, 7),))
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0.05)
    right = bench._Loop.score
    monkeypatch.setattr(bench._Loop, "score", lambda loop, start: right(loop, start) + 1)
    with pytest.raises(ArithmeticError, match="the dense scores of mnist_cnn are off by"):
        bench.run_bench(quick=True, models=["mnist_cnn"], tell=lambda text: None)


def test_report_becomes_table_and_plot(report, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "run_bench", lambda **options: report)
    args = argparse.Namespace(quick=True, models=None, dtype="float32")
    args.json, args.markdown, args.png = (tmp_path / name for name in ("a.json", "a.md", "a.png"))
    commands.bench(args)
    assert json.loads(args.json.read_text()) == report
    lines = args.markdown.read_text().splitlines()
    assert lines[0].startswith("| model | side |") and len(lines) == 2 + 3 + 2
    assert args.png.stat().st_size > 1000
    assert "mnist_cnn" in capsys.readouterr().out


def test_unknown_model_is_refused():
    with pytest.raises(ValueError, match="`models` must be some of mnist_cnn"):
        bench.run_bench(models=["alexnet"])


def test_energy_is_told_only_where_a_counter_is(monkeypatch):
    power = bench._Power()
    monkeypatch.setattr(bench, "_joules", lambda: None)
    assert power.watts() is None
    monkeypatch.setattr(bench, "_joules", lambda: 5.0)
    assert np.isfinite(bench._Power().watts())
