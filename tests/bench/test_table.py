"""The table of `jaxviz bench`: the networks are those of the papers, every row is checked."""

import json
from dataclasses import replace
from math import prod

import pytest

from jaxviz.bench import networks, peers
from jaxviz.bench import table as bench
from jaxviz.cli import main as cli
from jaxviz.cli import stores as commands
from jaxviz.scoring.evaluators import Incremental


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
        return bench.run_bench(
            quick=True, models=["mnist_cnn"], methods=bench.METHODS, tell=lambda text: None
        )


def test_every_method_has_a_row_that_agrees_with_the_loop(report):
    assert [row["method"] for row in report["rows"]] == list(bench.METHODS)
    for row in report["rows"]:
        assert row["model"] == "mnist_cnn" and row["windows"] == 9
        assert row["windows/s"] == pytest.approx(9 * row["images/s"])
        assert row["max deviation"] < (0.05 if row["method"] == "approximate" else 1e-4)
        assert row["peak MiB"] >= 0 and row["compile s"] > 0
    loop, dense, incremental, approximate = report["rows"]
    assert loop["Gflop/window"] == dense["Gflop/window"] > incremental["Gflop/window"]
    assert incremental["Gflop/window"] >= approximate["Gflop/window"]


def test_operations_of_shorter_windows_are_fewer():
    case = bench.Case("squeezenet", 64, 8, 16)
    f, image = bench._network(case)
    run = bench._run(f, image, case, "float32", "incremental")
    evaluator = Incremental.on_grid(run.grid)
    assert run.operations(replace(evaluator, field=0)) < 0.9 * run.operations(evaluator)


@pytest.mark.parametrize("method", ["dense", "approximate"])
def test_wrong_scores_are_not_timed(monkeypatch, method):
    monkeypatch.setattr(bench, "QUICK_CASES", (bench.Case("mnist_cnn", 28, 14, 7),))
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0.05)
    right = bench._Loop.score
    monkeypatch.setattr(bench._Loop, "score", lambda loop, start: right(loop, start) * 1.1)
    with pytest.raises(ArithmeticError, match=f"the {method} scores of mnist_cnn are off by"):
        bench.run_bench(quick=True, methods=[method], tell=lambda text: None)


def test_report_becomes_table_and_plot(report, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "run_bench", lambda **options: report)
    args = cli._parser().parse_args(["bench", "--quick", "--methods", "dense, captum"])
    assert args.methods == ("dense", "captum")
    args.json, args.markdown, args.png = (tmp_path / name for name in ("a.json", "a.md", "a.png"))
    commands.bench(args)
    assert json.loads(args.json.read_text()) == report
    lines = args.markdown.read_text().splitlines()
    assert lines[0].startswith("| model | side |") and len(lines) == 2 + len(bench.METHODS) + 2
    assert ("not told" in lines[2]) == (report["rows"][0]["J/window"] is None)
    assert args.png.stat().st_size > 1000
    assert "mnist_cnn" in capsys.readouterr().out


def test_other_libraries_have_rows_beside_ours(monkeypatch, report):
    def measured(names, cases, seconds):
        assert names == ["captum"] and cases == [("mnist_cnn", 28)]
        found = {"model": "mnist_cnn", "method": "captum", "batch": 8, "seconds": 0.01}
        yield found | {"compile s": 0.0, "peak": 2**20, "watts": 50.0, "max deviation": 0.0}

    monkeypatch.setattr(bench, "QUICK_CASES", (bench.Case("mnist_cnn", 28, 14, 7),))
    monkeypatch.setattr(peers, "installed", lambda: ("captum",))
    monkeypatch.setattr(peers, "measure_in_process", measured)
    rows = bench.run_bench(quick=True, methods=["captum"], tell=lambda text: None)["rows"]
    assert [row["method"] for row in rows] == ["captum"] and list(rows[0]) == list(
        report["rows"][0]
    )
    assert rows[0]["windows/s"] == 100 and rows[0]["images/s"] == pytest.approx(100 / 9)
    assert rows[0]["J/window"] == 0.5 and rows[0]["peak MiB"] == 1
    dense = report["rows"][1]["Gflop/window"] * 9 / 10  # ours has the clean image besides
    assert rows[0]["Gflop/window"] == pytest.approx(dense)


def test_unknown_model_or_method_is_refused():
    with pytest.raises(ValueError, match="`models` must be some of mnist_cnn"):
        bench.run_bench(models=["alexnet"])
    with pytest.raises(ValueError, match="`methods` must be some of loop, dense"):
        bench.run_bench(methods=["sparse"])
