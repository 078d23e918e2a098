"""The table of `jaxviz bench`: the networks are those of the papers, every row is checked."""

import json
from dataclasses import replace
from math import prod
from typing import get_args

import pytest

from jaxviz._choices import OwnMethod, Peer
from jaxviz.bench import networks, peers, rows, summary
from jaxviz.bench import table as bench
from jaxviz.cli import bench as command
from jaxviz.cli.commands import make_parser
from jaxviz.scoring.evaluators import Incremental


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (networks.vgg16, 138_357_544),
        (networks.resnet50, 25_557_032 - 26_560),
        (networks.mobilenet_v2, 3_504_872 - 17_056),
        (networks.squeezenet, 1_235_496),
        (networks.efficientnet_lite0, 4_652_008 - 21_008),
    ],
)
def test_networks_have_the_published_number_of_weights(network, count):
    # The published numbers have two weights per normalised channel; folded, one is left.
    assert sum(map(prod, networks.weight_shapes(network, 224))) == count


@pytest.fixture(scope="module", autouse=True)
def no_matrix_products():
    """Half a trillion operations say nothing about the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "matmul_speed", lambda dtype: 1e9)
        yield


@pytest.fixture(scope="module")
def report(no_matrix_products):
    small = (bench.Case("mnist_cnn", 28, 14, 7), bench.Case("squeezenet", 32, 16, 16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "QUICK_CASES", small)
        patch.setattr(bench, "QUICK_SECONDS", 0.05)
        return bench.run_bench(
            quick=True, models=["mnist_cnn"], methods=bench.METHODS, tell=lambda text: None
        )


@pytest.mark.slow
def test_every_method_has_a_row_that_agrees_with_the_loop(report):
    assert [row["method"] for row in report["rows"]] == list(bench.METHODS)
    for row in report["rows"]:
        assert row["model"] == "mnist_cnn" and row["positions"] == 9
        assert row["positions/s"] == pytest.approx(9 * row["images/s"])
        assert row["max deviation"] < (0.05 if row["method"] == "approximate" else 1e-4)
        assert row["peak MiB"] >= 0 and row["compile s"] > 0
    loop, dense, incremental, approximate = report["rows"]
    assert loop["Gflop/position"] == dense["Gflop/position"] > incremental["Gflop/position"]
    assert incremental["Gflop/position"] >= approximate["Gflop/position"]


@pytest.mark.slow
def test_operations_of_shorter_windows_are_fewer():
    case = bench.Case("squeezenet", 64, 8, 16)
    f, image = rows._network(case)
    run = rows._run(f, image, case, "float32", "incremental")
    evaluator = Incremental.on_grid(run.grid)
    assert run.operations(replace(evaluator, field=0)) < 0.9 * run.operations(evaluator)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "approximate"])
def test_wrong_scores_are_not_timed(monkeypatch, method):
    monkeypatch.setattr(bench, "QUICK_CASES", (bench.Case("mnist_cnn", 28, 14, 7),))
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0.05)
    right = rows._Loop.score
    monkeypatch.setattr(rows._Loop, "score", lambda loop, start: right(loop, start) * 1.1)
    with pytest.raises(ArithmeticError, match=f"the {method} scores of mnist_cnn are off by"):
        bench.run_bench(quick=True, methods=[method], tell=lambda text: None)


def asked(tmp_path, *more):
    files = [tmp_path / name for name in ("a.json", "a.md", "a.png")]
    words = ["--json", files[0], "--markdown", files[1], "--png", files[2], *more]
    return make_parser().parse_args(["bench", "--quick", *map(str, words)]), files


@pytest.mark.slow
def test_report_becomes_table_and_plot(report, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "run_bench", lambda **options: report)
    args, (json_file, table_file, plot_file) = asked(tmp_path, "--methods", "dense, captum")
    assert args.methods == ("dense", "captum")
    assert command.bench(args) == 0
    assert json.loads(json_file.read_text()) == report and "partial" not in report
    lines = table_file.read_text().splitlines()
    assert lines[0].startswith("| model | side |") and len(lines) == 2 + len(bench.METHODS) + 2
    assert ("not told" in lines[2]) == (report["rows"][0]["J/position"] is None)
    assert plot_file.stat().st_size > 1000
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 100 and len(printed) > len(bench.METHODS)
    for method, line in zip(bench.METHODS, printed[1:], strict=False):
        assert line.split()[:4] == ["mnist_cnn", "28", "14/7", method]


def test_rows_that_are_missing_are_told_with_their_reason(monkeypatch):
    monkeypatch.setattr(summary, "find_spec", lambda name: name == "captum")
    told = summary.missing(None, "float32", ["vgg16", "resnet50"])
    assert told[0] == "captum: not installed (torch)"
    assert "xplique: not installed (xplique, keras, tensorflow)" in told
    assert told[-1] == "approximate and other libraries on vgg16, resnet50: left out by --quick"
    assert summary.missing(None, "bfloat16", [])[0].endswith("they run in float32 only")
    assert summary.missing(["dense"], "bfloat16", ["vgg16"]) == []
    rows = [
        {
            "model": "mobilenet_v2",
            "side": 224,
            "patch": 16,
            "stride": 4,
            "positions": 3136,
            "method": "incremental",
            "batch": 256,
            "positions/s": 123456.7,
            "compile s": 123.45,
            "peak MiB": 12345.6,
            "max deviation": 1.234e-5,
        }
    ]
    printed = summary.summary({"rows": rows, "missing": told}).splitlines()
    assert max(map(len, printed)) <= 100 and "no row of captum: not installed (torch)" in printed


@pytest.mark.slow
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError("captum failed")])
def test_a_run_that_is_stopped_keeps_its_rows(report, tmp_path, capsys, monkeypatch, stop):
    args, (json_file, table_file, plot_file) = asked(tmp_path, "--models", "mnist_cnn")

    def measured(*arguments):
        yield report["rows"][0]
        yield report["rows"][1]
        assert json.loads(json_file.read_text())["partial"]  # before anything ends
        raise stop

    monkeypatch.setattr(bench, "measure", measured)
    if stop is KeyboardInterrupt:
        assert command.bench(args) == 130
    else:
        with pytest.raises(RuntimeError, match="captum failed"):
            command.bench(args)
    kept = json.loads(json_file.read_text())
    assert kept["partial"] and kept["rows"] == report["rows"][:2]
    assert "Partial: the run was stopped" in table_file.read_text() and plot_file.exists()
    assert "positions/s" in capsys.readouterr().out


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
    args, _ = asked(tmp_path / "missing")
    with pytest.raises(ValueError, match="`--json` must name a file in a folder that exists"):
        command.bench(args)


def test_a_plot_needs_the_cost_of_a_network(report, tmp_path):
    rest = report | {"rows": report["rows"][2:]}
    with pytest.raises(ValueError, match="`report` must hold rows of loop or dense"):
        bench.plot(rest, tmp_path / "a.png")


def test_the_command_line_knows_what_can_be_measured():
    assert set(get_args(Peer)) == set(peers.PEERS) == set(peers._MAKERS)
    assert set(get_args(OwnMethod)) == set(bench.METHODS)


def test_other_libraries_have_rows_beside_ours(monkeypatch, report):
    def measured(names, cases, seconds):
        assert names == ["captum"] and cases == [("mnist_cnn", 28)]
        row = {"model": "mnist_cnn", "method": "captum", "batch": 8, "seconds": 0.01}
        yield row | {"compile s": 0.0, "peak": 2**20, "watts": 50.0, "max deviation": 0.0}

    monkeypatch.setattr(bench, "QUICK_CASES", (bench.Case("mnist_cnn", 28, 14, 7),))
    monkeypatch.setattr(peers, "installed", lambda: ("captum",))
    monkeypatch.setattr(peers, "measure_in_process", measured)
    found = bench.run_bench(quick=True, methods=["captum"], tell=lambda text: None)["rows"]
    assert [row["method"] for row in found] == ["captum"]
    assert list(found[0]) == list(report["rows"][0])
    assert found[0]["positions/s"] == 100 and found[0]["images/s"] == pytest.approx(100 / 9)
    assert found[0]["J/position"] == 0.5 and found[0]["peak MiB"] == 1
    dense = report["rows"][1]["Gflop/position"] * 9 / 10  # ours has the clean image besides
    assert found[0]["Gflop/position"] == pytest.approx(dense)


@pytest.mark.slow
def test_unknown_model_or_method_is_refused():
    with pytest.raises(ValueError, match="`models` must be some of mnist_cnn"):
        bench.run_bench(models=["alexnet"])
    with pytest.raises(ValueError, match="`methods` must be some of loop, dense"):
        bench.run_bench(methods=["sparse"])
