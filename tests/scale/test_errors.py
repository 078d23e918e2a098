"""Full disks, read-only stores, two runs at once: a sentence, and nothing corrupted."""

import json
import os
import resource
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from scale_run import SHAPE, files, images, scorer, start, wait_for

from jaxviz.scale import lease, lock
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import connect

SETTINGS = {"patch": 4, "stride": 2, "chunk": 4, "progress": False}


def run(store, n=20, **options):
    return occlude_dataset(scorer(), images(n), store, **{**SETTINGS, **options})


@pytest.mark.slow
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


@pytest.mark.parametrize("place", ["{folder}/out.zarr", "memory://shares/out.zarr"])
def test_shares_hold_locks_of_their_own(tmp_path, place):
    kvstore = connect(place.format(folder=tmp_path))
    with lock.hold(kvstore, (0, 2)):
        with lock.hold(kvstore, (1, 2)):
            assert lock.in_use(kvstore) == ", ".join(
                [f"process {os.getpid()} on {gethostname()}"] * 2
            )
        with pytest.raises(ValueError, match="process 0 of 2"), lock.hold(kvstore, (0, 2)):
            pass
        with pytest.raises(ValueError, match="another run"), lock.hold(kvstore, (0, 1)):
            pass
    with lock.hold(kvstore, (0, 1)):
        with pytest.raises(ValueError, match="another run"), lock.hold(kvstore, (1, 2)):
            pass
    assert list(tmp_path.iterdir()) == [] == connect("memory://shares/").list().result()
    assert lock.in_use(kvstore) == ""


def test_a_lock_is_of_its_store_alone(tmp_path):
    with lock.hold(connect(tmp_path / "out[1].zarr"), (0, 1)):
        assert lock.in_use(connect(tmp_path / "out[1].zarr"))
        for name in ("out1.zarr", "out[1]", "1].zarr"):
            assert lock.in_use(connect(tmp_path / name)) == ""
            with lock.hold(connect(tmp_path / name), (0, 1)):
                pass


@pytest.mark.parametrize("place", ["{folder}/out.zarr", "memory://alone/out.zarr"])
def test_who_makes_a_store_is_waited_for(tmp_path, place, monkeypatch):
    monkeypatch.setattr(lease, "LOOKED", 0.001)
    kvstore, done = connect(place.format(folder=tmp_path)), []

    def enter():
        with lock.hold(kvstore, (0, 2)):
            done.append("entered")

    other = threading.Thread(target=enter)
    with lock.alone(kvstore):
        other.start()
        other.join(0.2)  # it is given time that it must not use
        done.append("made")
    other.join()
    assert done == ["made", "entered"]


def test_the_lock_of_a_process_that_died_is_free_and_removed(tmp_path):
    left = tmp_path / "out.zarr.lock.3-of-4"
    left.write_bytes(b" process 1 on nowhere")
    assert lock.in_use(connect(tmp_path / "out.zarr")) == "" and not left.exists()
    left.write_bytes(b" process 1 on nowhere")
    with lock.hold(connect(tmp_path / "out.zarr"), (0, 1)):
        assert not left.exists()


def test_a_lock_that_cannot_be_removed_while_it_is_open_is_removed_after(tmp_path, monkeypatch):
    """As on Windows."""
    unlink, refused = Path.unlink, []

    def unlink_closed(path, missing_ok=False):
        if any(os.path.samestat(os.stat(path), os.fstat(fd)) for fd in descriptors()):
            refused.append(path.name)
            raise PermissionError("it is open")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_closed)
    with lock.hold(connect(tmp_path / "out.zarr"), (0, 1)):
        pass
    assert refused == ["out.zarr.lock", "out.zarr.lock.0-of-1"] and list(tmp_path.iterdir()) == []


def descriptors():
    """The files that this process has open."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            os.fstat(int(name))
            yield int(name)


def test_a_share_repairs_its_own_chunks_only(tmp_path):
    store, source = tmp_path / "out.zarr", list(images(16))
    source[1] = source[6] = np.full(SHAPE, np.nan)
    with pytest.warns(UserWarning, match="2 of 16 images are bad"):
        occlude_dataset(scorer(), source, store, on_error="skip", **SETTINGS)
    run(store, n=16, share=(0, 2))
    assert [error.image for error in open_store(store).errors] == [6]
    assert open_store(store).done.all()
    run(store, n=16, share=(1, 2))
    run(tmp_path / "whole.zarr", n=16)
    assert files(store) == files(tmp_path / "whole.zarr")


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
    monkeypatch.setattr(lease, "STALE", 0.0)
    with lock.hold(kvstore, (0, 1)):
        pass


def test_lock_object_that_another_took_is_left_to_it():
    place = connect("memory://taken/")
    with lock.hold(connect("memory://taken/out.zarr"), (0, 1)):
        place.write("out.zarr.lock.0-of-1", b"another").result()
    assert place.read("out.zarr.lock.0-of-1").result().value == b"another"


def test_lock_object_is_renewed(monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    place = connect("memory://renewed/")
    with lock.hold(connect("memory://renewed/out.zarr"), (0, 1)):
        before = json.loads(place.read("out.zarr.lock.0-of-1").result().value)
        after = before
        while after["renewed"] == before["renewed"]:
            after = json.loads(place.read("out.zarr.lock.0-of-1").result().value)
    assert after["renewed"] > before["renewed"]
    assert place.list().result() == []


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
    # A write that was under way when another failed may leave its temporary file, as root again.
    after = {name: held for name, held in files(store).items() if not name.endswith(".__lock")}
    assert after == before


@pytest.mark.slow
def test_damaged_chunk_is_told_and_not_believed(tmp_path):
    store = tmp_path / "out.zarr"
    run(store, n=8)
    chunk = store / "scores" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    stored = open_store(store)
    assert np.isfinite(stored[0].scores).all()
    with pytest.raises(OSError, match="cannot be read: .*scores/c/1"):
        stored[5]
