"""What is printed reaches any terminal, and a reader that leaves ends nothing in a traceback."""

import io
import json
import os
import subprocess
import sys

import pytest

from jaxviz.cli import streams
from jaxviz.cli.main import main

COMMAND = [sys.executable, "-m", "jaxviz"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
def test_letters_that_an_encoding_lacks_are_put_plainly(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    streams.make_printable()
    print("1 − x ≤ 4σ … café 猫", flush=True)
    told = written.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert told == "1 − x ≤ 4σ … café 猫\n"
    else:
        accent = "?" if encoding == "ascii" else "é"
        dots = "…" if encoding == "cp1252" else "..."
        bound, sigma = ("≤", "σ") if encoding == "cp437" else ("<=", "sigma")
        assert told == f"1 - x {bound} 4{sigma} {dots} caf{accent} ?\n"


@pytest.mark.parametrize("command", ["demo", "occlude", "maximize", "export", "bench"])
def test_help_is_printed_in_the_letters_of_windows(monkeypatch, command):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    sys.stdout.flush()
    assert f"usage: jaxviz {command}" in written.getvalue().decode("cp1252")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a name and a reason that cp1252 cannot write."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    Image.new("L", (28, 28)).save(folder / "ok.png")
    (folder / "猫−.png").touch()
    command = f"occlude bundled {folder} --patch 14 --store {folder}/out.zarr"
    assert main(command.split()) == 0
    return folder / "out.zarr"


@pytest.mark.slow
def test_status_is_printed_in_the_letters_of_windows(store, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    assert main(["status", str(store)]) == 0 == main(["status", str(store), "--json"])
    sys.stdout.flush()
    table, facts = written.getvalue().decode("cp1252").strip().rsplit("\n", 1)
    assert "2 of 2 done" in table and "?-.png" in table
    assert json.loads(facts)["errors"][0]["name"] == "猫−.png"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unbuffered"), [("status", ""), ("status", "1"), ("status --json", "1"), ("", "")]
)
def test_a_reader_that_leaves_ends_it_quietly(store, words, unbuffered):
    command = [*COMMAND, *words.split(), *[str(store)] * bool(words)]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **streams) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_a_broken_pipe_of_something_else_is_an_error(monkeypatch, capsys):
    def broken(*arguments):
        raise BrokenPipeError("the server hung up")

    monkeypatch.setattr("jaxviz.cli.stores.open_store", broken)
    assert main(["status", "out.zarr"]) == 2
    assert "the server hung up" in capsys.readouterr().err
