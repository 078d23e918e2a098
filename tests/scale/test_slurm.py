"""The SLURM script of examples/: what it starts, and what it does when the time is up."""

import os
import signal
import subprocess
from pathlib import Path

import jax
import pytest
from scale_run import ROOT, wait_for

from jaxviz.cli import stores as commands
from jaxviz.cli.commands import make_parser

SCRIPT = ROOT / "examples" / "slurm.sh"


@pytest.fixture
def cluster(tmp_path):
    """A folder of commands that stand for SLURM's and ours, and note how they are called."""
    for name, body in {
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "jaxviz": 'printf "%s\\n" "$@" > called; [[ -e slow ]] && exec sleep 9999; exit 0',
        "scontrol": 'echo "$@" > requeued',
    }.items():
        file = tmp_path / name
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return tmp_path, {**os.environ, "PATH": path, "SLURM_JOB_ID": "7"}


def test_slurm_script_starts_a_command_that_exists(cluster):
    folder, environment = cluster
    words = ["bash", SCRIPT, "model.keras", "photos", "out.zarr", "--patch", "16", "--stride", "8"]
    subprocess.run(words, cwd=folder, env=environment, check=True)
    called = (folder / "called").read_text().splitlines()
    args = make_parser().parse_args(called)
    assert "--distributed" in called and args.distributed
    assert (args.model, args.images) == ("model.keras", ["photos"])
    assert args.store == "out.zarr" and args.log == Path("out.zarr.log.jsonl")
    assert not (folder / "requeued").exists()


def test_slurm_script_asks_for_another_turn_when_the_time_is_up(cluster):
    folder, environment = cluster
    (folder / "slow").touch()
    words = ["bash", str(SCRIPT), "model.keras", "photos", "out.zarr"]
    with subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True) as job:
        try:
            wait_for(folder / "called", job)
            job.send_signal(signal.SIGTERM)
            assert job.wait() == 0
        finally:
            os.killpg(job.pid, signal.SIGKILL)
    assert (folder / "requeued").read_text().split() == ["requeue", "7"]


@pytest.mark.slow
def test_slurm_script_tells_how_it_is_used(cluster):
    folder, environment = cluster
    told = subprocess.run(
        ["bash", SCRIPT, "model.keras"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert told.returncode == 2 and "usage: sbatch" in told.stderr


@pytest.mark.slow
def test_distributed_joins_the_processes_that_the_cluster_started(monkeypatch, tmp_path):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *where: joined.append(where))
    words = ["occlude", "bundled", "digits", "--limit", "2", "--patch", "14", "--distributed"]
    args = make_parser().parse_args([*words, "--store", str(tmp_path / "out.zarr")])
    assert commands.occlude_store(args) == 0
    assert joined == [()]
