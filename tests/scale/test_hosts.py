"""Several processes on one run, joined by `jax.distributed`: the store of a single process."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from scale_run import ROOT, events, files, images, scorer, start, wait_for

from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store

N = 40
SETTINGS = {"patch": 4, "stride": 2, "chunk": 4, "progress": False}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run of one process."""
    store = tmp_path_factory.mktemp("whole") / "out.zarr"
    occlude_dataset(scorer(), images(N), store, **SETTINGS)
    return files(store)


@contextmanager
def cluster(store, count, **options):
    """Start `count` processes that know of each other; `dying` tells who is to kill itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    dying = options.pop("dying", None)
    log = str(store.parent / options.pop("log", "log.jsonl"))
    processes = []
    try:
        for i in range(count):
            own = {"die_at": 7} if i == dying else {}
            hosts = [address, count, i]
            processes.append(start(store, n=N, log=log, hosts=hosts, **own, **options))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def chunks_computed(folder, name):
    """How many chunks each process computed, by its number."""
    logs = sorted(folder.glob(f"{name}.*.jsonl"))
    return [sum(event["event"] == "chunk" for event in events(log)) for log in logs]


@pytest.mark.slow
def test_shares_that_start_together_keep_each_others_work(tmp_path, whole):
    """One of them sees no store, and is still being traced when the other has done its share."""
    store, gate = tmp_path / "out.zarr", tmp_path / "gate"
    slow = start(store, n=N, share=(1, 2), slow_trace=str(gate))
    try:
        wait_for(f"{gate}.reached", slow)
        fast = start(store, n=N, share=(0, 2))
        assert fast.wait() == 0
        assert open_store(store).done.sum() == N // 2
        gate.touch()
        assert slow.wait() == 0
    finally:
        slow.kill()
        slow.wait()
    assert files(store) == whole


def test_two_processes_share_the_work_and_make_the_same_store(tmp_path, whole):
    with cluster(tmp_path / "out.zarr", 2) as processes:
        assert [process.wait() for process in processes] == [0, 0]
    assert files(tmp_path / "out.zarr") == whole
    assert chunks_computed(tmp_path, "log") == [5, 5]


@pytest.mark.slow
def test_killed_process_loses_its_chunk_and_the_next_run_shares_what_is_left(tmp_path, whole):
    store = tmp_path / "out.zarr"
    with cluster(store, 4, dying=2) as processes:
        assert processes[2].wait() == -signal.SIGKILL
    first, done = chunks_computed(tmp_path, "log"), open_store(store).done.sum() // 4
    assert done < 10
    with cluster(store, 4, log="again.jsonl") as processes:
        assert [process.wait() for process in processes] == [0, 0, 0, 0]
    again = chunks_computed(tmp_path, "again")
    assert sum(again) == 10 - done and max(again) - min(again) <= 1
    assert sum(first) - done <= 4 * 2
    assert files(store) == whole


@pytest.mark.slow
def test_killed_process_is_restarted_alone_while_the_others_go_on(tmp_path, whole):
    store = tmp_path / "out.zarr"
    with cluster(store, 4, dying=2) as processes:
        assert processes[2].wait() == -signal.SIGKILL
        occlude_dataset(scorer(), images(N), store, share=(2, 4), **SETTINGS)
        stored = open_store(store)
        assert stored.done[8:12].all() and stored.done[24:28].all()
        while not stored.done.all():
            time.sleep(0.1)
    assert files(store) == whole


@pytest.mark.slow
def test_command_line_joins_processes_that_are_started_by_hand(tmp_path):
    store = tmp_path / "out.zarr"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [
        "occlude",
        "bundled",
        "digits",
        "--limit",
        "8",
        "--patch",
        "14",
        "--chunk",
        "2",
        "--store",
        str(store),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxviz", *words, "--coordinator", f"{address},2,{i}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for i in range(2)
    ]
    try:
        assert [process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert open_store(store).done.tolist() == [True] * 8
