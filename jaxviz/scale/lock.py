"""One run at a time on a store, or one of each share: locks that die with their processes.

Chunks are written whole and always with the same bits, so that even two runs could do no harm but
work twice; but only one may make the store. Beside the store lie

    STORE.lock          held for a moment: who holds it enters, or makes the store
    STORE.lock.I-of-N   held by a run, for as long as it works: share I of N, 0-of-1 if it has all

On a local file system a lock is the kernel's, on a file of that name; elsewhere it is an object,
see `jaxviz.scale.lease`.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import tensorstore as ts
from filelock import lock_descriptor

from jaxviz.scale.hosts import Share
from jaxviz.scale.lease import Leases

GATE = ".lock"
OWN = re.compile(r"\.lock\.\d+-of-\d+")


class Locks(Protocol):
    """The locks of one store."""

    def take(self, suffix: str) -> AbstractContextManager[None]:
        """Hold the lock of that name while the block runs; wait until it is free."""
        ...

    def holders(self) -> dict[str, str]:
        """Return who works on the store: {suffix: words}."""
        ...


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
    own, locks = f"{GATE}.{index}-of-{count}", _locks(kvstore)
    with ExitStack() as stack:
        with locks.take(GATE):
            for other, holder in locks.holders().items():
                if other == own:
                    name = f", process {index} of {count}" * (count > 1)
                    raise ValueError(_in_use(kvstore.url + name, holder))
                if count == 1 or other.endswith("-of-1"):
                    raise ValueError(_in_use(kvstore.url, holder))
            stack.enter_context(locks.take(own))
        yield


def alone(kvstore: ts.KvStore) -> AbstractContextManager[None]:
    """Wait until no other process makes the store, and keep all from it while the block runs.

    Raises:
        OSError: the lock cannot be written.
    """
    return _locks(kvstore).take(GATE)


def in_use(kvstore: ts.KvStore) -> str:
    """Return which processes work on a store, "" if none does."""
    return ", ".join(sorted(_locks(kvstore).holders().values()))


def beside(store: Path, suffix: str) -> Path:
    """Return the path of a file next to a store."""
    return store.with_name(store.name + suffix)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _locks(kvstore: ts.KvStore) -> Locks:
    if kvstore.url.startswith("file://"):
        return Files(kvstore)
    return Leases(kvstore, _me())


def _in_use(url: str, holder: str) -> str:
    return (
        f"`store` must not be in use: another run works on {url} ({holder}); wait for it, or stop"
        " it."
    )


class Files:
    """Locks of the kernel, which it takes back when a process dies."""

    def __init__(self, kvstore: ts.KvStore) -> None:
        self.url, self.store = kvstore.url, Path(kvstore.spec().to_json()["path"].rstrip("/"))

    @contextmanager
    def take(self, suffix: str) -> Iterator[None]:
        """Lock a file, and remove it at the end."""
        path = beside(self.store, suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _lock(path)
            # Behind the first byte, which on Windows others cannot read while it is locked.
            file.write(f" {_me()}".encode())
        except OSError as error:
            message = f"`store` {self.url} cannot be written: {path}: {error.strerror}."
            raise OSError(message) from error
        with file:
            try:
                yield
            finally:
                gone = _remove(path)
        if not gone:
            _remove(path)

    def holders(self) -> dict[str, str]:
        """Look which locks are held."""
        folder, name = self.store.parent, self.store.name
        found = os.listdir(folder) if folder.is_dir() else []
        suffixes = [file.removeprefix(name) for file in found if file.startswith(name)]
        paths = {suffix: beside(self.store, suffix) for suffix in filter(OWN.fullmatch, suffixes)}
        return {suffix: _holder(path) for suffix, path in paths.items() if not _free(path)}


def _lock(path: Path) -> BinaryIO:
    """Open and lock a file, which is made anew if its last holder removed it meanwhile."""
    while True:
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        try:
            lock_descriptor(file.fileno())
            file.truncate(0)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _free(path: Path) -> bool:
    """Say whether nobody holds a lock; remove its file then, which a process left that died."""
    try:
        with open(path, "rb", buffering=0) as file:
            free = lock_descriptor(file.fileno(), blocking=False)
            return free and (_remove(path) or True)
    except FileNotFoundError:
        return True


def _remove(path: Path) -> bool:
    """Remove a lock's file; False where the system does not remove what is open, as Windows."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _holder(path: Path) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(1)
            return file.read().decode() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"
