"""Full disks, read-only stores, two runs at once: a sentence, and nothing corrupted."""

import json
import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scale_run import files, images, scorer, start, wait_for

from jaxviz.scale import lock
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import connect

SETTINGS = {"patch": 4, "stride": 2, "chunk": 4, "progress": False}


def run(store, n=20, **options):
    return occlude_dataset(scorer(), images(n), store, **{**SETTINGS, **options})


def test_two_runs_on_one_store_are_refused_and_the_first_goes_on(tmp_path):
    store = tmp_path / "out.zarr"
    first = start(store, gate=[0, str(tmp_path / "gate")], log=str(tmp_path / "log"))
    try:
        wait_for(tmp_path / "log", first)
        with pytest.raises(ValueError, match=rf"another run works on .*\(process {first.pid} on"):
            run(store)
        with pytest.raises(ValueError, match="must not be in use"):
            run(store, share=(0, 2))
    finally:
        first.kill()
        first.wait()
    assert run(store).done.all()
    assert not lock.beside(store, ".lock").exists()


def test_shares_hold_locks_of_their_own(tmp_path):
    kvstore = connect(tmp_path / "out.zarr")
    with lock.hold(kvstore, (0, 2)):
        with lock.hold(kvstore, (1, 2)):
            pass
        with pytest.raises(ValueError, match="process 0 of 2"), lock.hold(kvstore, (0, 2)):
            pass
        with pytest.raises(ValueError, match="another run"), lock.hold(kvstore, (0, 1)):
            pass
    assert list(tmp_path.iterdir()) == []


def test_lock_object_is_respected_until_it_is_old(monkeypatch):
    kvstore = connect("memory://locks/out.zarr")
    place = connect("memory://locks/")
    with lock.hold(kvstore, (0, 1)):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
            with lock.hold(kvstore, (0, 1)):
                pass
        held = place.read("out.zarr.lock.0-of-1").result().value
    assert place.list().result() == []
    place.write("out.zarr.lock.0-of-1", held).result()
    monkeypatch.setattr(lock, "STALE", 0.0)
    with lock.hold(kvstore, (0, 1)):
        pass


def test_lock_object_is_renewed(monkeypatch):
    monkeypatch.setattr(lock, "RENEWED", 0.01)
    place = connect("memory://renewed/")
    with lock.hold(connect("memory://renewed/out.zarr"), (0, 1)):
        before = json.loads(place.read("out.zarr.lock.0-of-1").result().value)
        after = before
        while after["renewed"] == before["renewed"]:
            after = json.loads(place.read("out.zarr.lock.0-of-1").result().value)
    assert after["renewed"] > before["renewed"]


@pytest.fixture
def small_files():
    """Files cannot grow over a few kilobytes, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, old[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_file_that_cannot_grow_stops_the_run_which_then_goes_on(tmp_path, small_files):
    store = tmp_path / "out.zarr"
    with pytest.raises(OSError, match="cannot be written: .*File too large; what was finished"):
        run(store, chunk=10)
    assert not open_store(store).done.any()
    small_files()
    run(store, chunk=10)
    run(tmp_path / "whole.zarr", chunk=10)
    assert files(store) == files(tmp_path / "whole.zarr")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk_stops_the_run_which_then_goes_on(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("disks cannot be mounted here")
    try:
        with pytest.raises(OSError, match="cannot be written: .*No space left on device"):
            run(disk / "out.zarr", n=60)
        done = open_store(disk / "out.zarr").done.sum()
        assert 0 < done < 60 and done % 4 == 0
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        run(disk / "out.zarr", n=60)
        run(tmp_path / "whole.zarr", n=60)
        assert files(disk / "out.zarr") == files(tmp_path / "whole.zarr")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def nobody():
    """Be a user who owns nothing. All modules are imported: the clone may be closed to others."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_read_only_place_and_store_are_told(tmp_path):
    store = tmp_path / "out.zarr"
    run(store, n=4)
    before = files(store)
    for path in (*tmp_path.rglob("*"), tmp_path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents[:3]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(0o755)
    try:
        with nobody(), pytest.raises(OSError, match="`store`.*out.zarr.lock: Permission denied"):
            run(store, n=4)
        with nobody(), pytest.raises(OSError, match="`store`.* cannot be written"):
            run(tmp_path / "new" / "out.zarr", n=4)
        tmp_path.chmod(0o777)
        (store / "status" / "c" / "0").unlink()
        with nobody(), pytest.raises(OSError, match="`store`.*Permission denied"):
            run(store, n=4)
    finally:
        for path in (tmp_path, *tmp_path.rglob("*")):
            path.chmod(0o755)
    (store / "status" / "c" / "0").write_bytes(before["status/c/0"])
    assert files(store) == before


def test_damaged_chunk_is_told_and_not_believed(tmp_path):
    store = tmp_path / "out.zarr"
    run(store, n=8)
    chunk = store / "scores" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    stored = open_store(store)
    assert np.isfinite(stored[0].scores).all()
    with pytest.raises(OSError, match="cannot be read: .*scores/c/1"):
        stored[5]
