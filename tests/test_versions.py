"""What a report of a fault begins with."""

import jax
import pytest

import jaxviz as jv
from jaxviz import _versions
from jaxviz.cli.main import main


def test_versions_and_devices_are_told_and_packages_that_are_missing_left_out(capsys, monkeypatch):
    monkeypatch.setattr(_versions, "_PACKAGES", ("jax", "no-such-package"))
    jv.show_versions()
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told["jaxviz"] == jv.__version__
    assert told["jax"] == jax.__version__
    assert told["x64"] == "False"
    assert told["devices"].count("cpu:") == jax.device_count()
    assert "no-such-package" not in told


@pytest.mark.parametrize("there", [True, False])
def test_another_package_of_this_name_is_told(there, capsys, monkeypatch):
    monkeypatch.setattr(_versions, "_installed", lambda package: "1.0" if there else None)
    jv.show_versions()
    assert ("another package that is called jaxviz" in capsys.readouterr().err) == there


@pytest.mark.slow
def test_the_command_line_tells_of_another_package(capsys, monkeypatch):
    monkeypatch.setattr(_versions, "_installed", lambda package: "1.0")
    assert main(["inspect", "no-such-file.keras"]) == 2
    assert "jaxviz inspect: note: another package" in capsys.readouterr().err
