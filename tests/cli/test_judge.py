"""`jaxviz judge`: a table of maps that goes on where it was interrupted."""

import json
from typing import get_args

import numpy as np
import pytest

from jaxviz._choices import JudgedBy
from jaxviz.cli import judge as command
from jaxviz.cli import stores
from jaxviz.cli.commands import make_parser
from jaxviz.cli.main import main
from jaxviz.datasets import load_digits
from jaxviz.metrics.judge import NAMED
from jaxviz.scale.judged import open_comparison

FEW = ["--steps", "4", "--metric", "srg,sparseness", "--limit", "5", "--chunk", "2"]


def test_the_metrics_are_those_that_need_no_masks():
    assert set(get_args(JudgedBy)) == set(NAMED) - {"pointing_game", "energy_pointing_game"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A judged store, and the arrays that were judged beside a method."""
    folder = tmp_path_factory.mktemp("judged")
    images, _ = load_digits("test")
    np.save(folder / "ink.npy", images[:5, ..., 0])
    words = ["judge", f"{folder}/out.zarr", "bundled", "digits", "--method", "saliency", "--logits"]
    words += ["--maps", f"ink={folder}/ink.npy", "--json", f"{folder}/table.json", *FEW]
    assert main(words) == 0
    return folder


@pytest.mark.slow
def test_it_judges_methods_and_files_beside_the_floors(folder):
    stored = open_comparison(folder / "out.zarr")
    assert stored.methods == ("saliency", "ink", "random", "edges")
    assert stored.done.all() and len(stored) == 5
    assert stored.identity["metrics"]["srg"] == "jaxviz.metrics.curves.srg(steps=4)"
    told = json.loads((folder / "table.json").read_text())
    assert told["methods"]["ink"]["srg"]["n"] == 5
    found = stored.table()
    assert found.mean[1, 0] > found.mean[2, 0]


@pytest.mark.slow
def test_it_prints_the_table_and_who_is_told_apart(folder, capsys):
    assert main(["judge", str(folder / "out.zarr")]) == 0
    told = capsys.readouterr().out
    assert "5 of 5 images done" in told and "srg ↑" in told
    assert "and the others, image by image" in told and "95 % interval" in told
    assert main(["status", str(folder / "out.zarr")]) == 0
    told = capsys.readouterr().out
    assert "saliency, ink, random, edges" in told and "nobody" in told
    assert main(["status", "--json", str(folder / "out.zarr")]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["kind"] == "judged maps"


def test_another_setting_is_refused_in_one_sentence(folder, capsys):
    words = ["judge", f"{folder}/out.zarr", "bundled", "digits", "--method", "saliency", "--logits"]
    words += ["--maps", f"ink={folder}/ink.npy", *FEW, "--seed", "3"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "seed is 0 there and 3 now" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bundled"], "`judge` needs images"),
        ([], "there is none at"),
        (["bundled", "digits", "--method", "magic"], "`--method` must hold some of"),
        (["bundled", "digits", "--metric", "beauty"], "`--metric` must hold some of"),
        (["bundled", "digits", "--maps", "a=none.npy"], "`--maps` a: none.npy cannot be read"),
        (["bundled", "digits", "--maps", "a=none.zarr"], "there is none at"),
    ],
)
def test_wrong_words_are_refused(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["judge", "new.zarr", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new.zarr").exists()


def test_maps_that_have_no_name_are_refused(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["judge", "out.zarr", "--maps", "maps.npy"])
    assert "must be NAME=FILE: got 'maps.npy'" in capsys.readouterr().err


def test_interrupted_run_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "judge_dataset", interrupt)
    assert main(["judge", str(tmp_path / "out.zarr"), "bundled", "digits"]) == 130
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_options_become_those_of_methods_and_metrics():
    parse = make_parser().parse_args
    args = parse(["judge", "s", "--fill", "blur:2", "--metric", "srg,sparseness,mu_fidelity"])
    found = command._metrics(args)
    assert list(found["srg"].keywords) == ["fill"] == list(found["mu_fidelity"].keywords)
    assert found["sparseness"] is NAMED["sparseness"]
    args = parse(["judge", "s", "--method", "grad_cam,saliency,occlusion", "--layer", "-3"])
    maps = command._maps(args)
    assert maps["grad_cam"].keywords == {"layer": -3}
    assert list(maps) == ["grad_cam", "saliency", "occlusion"]
    assert list(command._maps(parse(["judge", "s"]))) == list(command.DEFAULT)
    assert stores.on_error_of(["a.png"]) == "raise"
