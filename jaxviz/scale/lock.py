"""One run at a time on a store: a lock that dies with its process, beside the store.

Chunks are written whole and always with the same bits, so that even two runs could do no harm but
work twice. On a local file system the lock is the kernel's, on `STORE.lock`; elsewhere it is an
object of that name, which its holder renews, and which nobody respects once it is old.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import tensorstore as ts

from jaxviz.scale.hosts import Share
from jaxviz.scale.store import connect, plain_errors

RENEWED, STALE = 30.0, 180.0  # seconds between renewals of a lock object; until nobody respects it


@contextmanager
def hold(kvstore: ts.KvStore, share: Share) -> Iterator[None]:
    """Keep other runs from a store while the block runs.

    Args:
        kvstore: the store.
        share: (i, n): this process is the i-th of n that work on it together, each with its own
            lock.

    Raises:
        ValueError: another run holds it.
        OSError: the lock cannot be written.
    """
    index, count = share
    name = f"process {index} of {count}"
    with ExitStack() as stack:
        if kvstore.url.startswith("file://"):
            path = Path(kvstore.spec().to_json()["path"].rstrip("/"))
            stack.enter_context(
                _hold_file(beside(path, ".lock"), shared=count > 1, url=kvstore.url)
            )
            if count > 1:
                part = beside(path, f".lock.{index}-of-{count}")
                stack.enter_context(_hold_file(part, shared=False, url=f"{kvstore.url}, {name}"))
        else:
            stack.enter_context(_hold_object(kvstore, f".lock.{index}-of-{count}"))
        yield


def in_use(kvstore: ts.KvStore) -> str:
    """Return which process works on a store on a local disk, "" if none does."""
    if not kvstore.url.startswith("file://"):
        return ""
    path = beside(Path(kvstore.spec().to_json()["path"].rstrip("/")), ".lock")
    if not path.exists():
        return ""
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _holder(path)
        return ""


def beside(store: Path, suffix: str) -> Path:
    """Return the path of a file next to a store."""
    return store.with_name(store.name + suffix)


@contextmanager
def _hold_file(path: Path, *, shared: bool, url: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except BlockingIOError:
        raise ValueError(_in_use(url, _holder(path))) from None
    except OSError as error:
        raise OSError(f"`store` {url} cannot be written: {path}: {error.strerror}.") from error
    with file:
        try:
            yield
        finally:
            _remove(path, file)


def _lock(path: Path, kind: int) -> IO[str]:
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass  # its last holder removed it between our opening and our locking
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BlockingIOError from error
            raise
        file.close()
    if kind == fcntl.LOCK_EX:
        file.truncate(0)
        file.write(_me())
        file.flush()
    return file


def _remove(path: Path, file: IO[str]) -> None:
    """Remove a lock's file, unless others hold it too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "several processes"
    except OSError:
        return "unknown"


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def _hold_object(kvstore: ts.KvStore, suffix: str) -> Iterator[None]:
    place = connect({**kvstore.spec().to_json(), "path": kvstore.path.rstrip("/") + suffix})
    with plain_errors(kvstore, "written"):
        found = place.read("").result()
        held = json.loads(found.value) if found.state == "value" else None
        old = held is None or time.time() - held["renewed"] > STALE
        # Written only if it is still as it was read: of two who see no lock, one gets it.
        taken = (
            old and place.write("", _lease(), if_equal=found.stamp.generation).result().generation
        )
    if not taken:
        holder = held["holder"] if held else "which came at the same moment"
        raise ValueError(_in_use(kvstore.url, holder))
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(place, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        with plain_errors(kvstore, "written"):
            place.write("", None).result()


def _renew(place: ts.KvStore, ended: threading.Event) -> None:
    while not ended.wait(RENEWED):
        with suppress(ValueError):  # the next renewal comes long before the lock is stale
            place.write("", _lease()).result()


def _lease() -> bytes:
    return json.dumps({"holder": _me(), "renewed": time.time()}).encode()


def _in_use(url: str, holder: str) -> str:
    return (
        f"`store` must not be in use: another run works on {url} ({holder}); wait for it, or stop"
        " it."
    )
