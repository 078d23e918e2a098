"""Kills at any moment: the next run finishes the store to the same bits and redoes little."""

import random
import signal
import time

import pytest
from scale_run import events, files, images, scorer, start, wait_for

from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import connect, find

SETTINGS = {"patch": 4, "stride": 2, "chunk": 4, "progress": False}
WRITES = 5  # of arrays, per chunk: scores, base, predicted, error, status


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run that nothing interrupted."""
    store = tmp_path_factory.mktemp("whole") / "out.zarr"
    occlude_dataset(scorer(), images(20), store, **SETTINGS)
    return files(store)


@pytest.mark.slow
@pytest.mark.parametrize("write", [0, 2 * WRITES + 3, 2 * WRITES + 4])
def test_killed_run_is_finished_to_the_same_bits(tmp_path, whole, write):
    store, log = tmp_path / "out.zarr", tmp_path / "log"
    assert start(store, die_at=write).wait() == -signal.SIGKILL
    done = open_store(store).done.sum()
    assert done == write // WRITES * 4
    occlude_dataset(scorer(), images(20), store, log=log, **SETTINGS)
    assert files(store) == whole
    assert sum(event["event"] == "chunk" for event in events(log)) == (20 - done) // 4


def test_run_killed_while_the_store_is_made_leaves_none(tmp_path, whole):
    store = tmp_path / "out.zarr"
    assert start(store, die_making=3).wait() == -signal.SIGKILL
    assert find(connect(store)) is None
    occlude_dataset(scorer(), images(20), store, **SETTINGS)
    assert files(store) == whole


@pytest.mark.slow
def test_interrupted_run_keeps_what_was_computed(tmp_path, whole):
    store, log = tmp_path / "out.zarr", tmp_path / "log"
    gate = tmp_path / "gate"
    run = start(store, gate=[12, str(gate)], log=str(log))
    wait_for(log, run)
    while len(events(log)) < 3:
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    gate.touch()  # a thread that reads is waited for
    assert run.wait() != 0
    assert events(log)[-1]["event"] == "stopped"
    computed = sum(event["event"] == "chunk" for event in events(log))
    assert open_store(store).done.sum() == 4 * computed > 0
    assert not (tmp_path / "out.zarr.lock").exists()
    occlude_dataset(scorer(), images(20), store, **SETTINGS)
    assert files(store) == whole


@pytest.mark.slow
def test_runs_killed_at_random_moments_finish_to_the_same_bits(tmp_path, whole):
    store, log = tmp_path / "out.zarr", tmp_path / "log"
    moments = random.Random(0)
    kills = runs = 0
    while kills < 12:
        run = start(store, workers=1, log=str(log))
        runs += 1
        while run.poll() is None and not log.exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        run.kill()
        kills += run.wait() == -signal.SIGKILL
        log.rename(tmp_path / f"log{runs}")
        if run.returncode == 0:
            break
    occlude_dataset(scorer(), images(20), store, log=log, **SETTINGS)
    assert files(store) == whole
    logs = [event for path in tmp_path.glob("log*") for event in events(path)]
    chunks = sum(event["event"] == "chunk" for event in logs)
    # Under way when a run dies: what is being computed, and what waits to be written.
    assert 5 <= chunks <= 5 + 3 * kills
