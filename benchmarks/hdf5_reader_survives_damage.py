"""A damaged HDF5 file ends in an error: our reader never hangs, crashes or exhausts its memory.

Sound files: a Sequential and a Functional Keras model as `.h5` and as `.weights.h5`, written on the
spot, one of them again with chunks that gzip compresses; and, where JAXVIZ_DATA names the test
data, the real HDF5 files there of at most 1 MiB. Each damaged file is one of them with up to four
changes outside its arrays:

- addresses: an aligned 8-byte word that may be an address or a size (its value lies within the
  file) becomes another word of that kind, a random place of the file, or a huge number;
- bytes: a byte becomes a random one;
- tail: the file ends early.

Every reader (ours, h5py on the C library, pyfive in Python) has a process of its own, and reads of
each damaged file what a loader reads: the names and attributes of every group of the sound file,
and every array. It may take 5 s of CPU for a file, and 2 GiB beyond what it starts with. What is
counted: the content of the sound file, another content without a word, an error (any exception but
those that follow), no memory or no stack (MemoryError, RecursionError), no end (the time ran out),
a crash (the process is gone).

    python -m benchmarks.hdf5_reader_survives_damage [--quick] [--save]
"""

import hashlib
import io
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common

CPU_SECONDS, WALL_SECONDS, MEMORY = 5, 300, 2 << 30
LARGEST = 1 << 20
SAME, OTHER, ERROR = "same content", "other content", "error"
MEMORY_OR_STACK, ENDLESS, CRASH = "no memory or stack", "no end", "crash"
OUTCOMES = (SAME, OTHER, ERROR, MEMORY_OR_STACK, ENDLESS, CRASH)


class Sound(NamedTuple):
    """A whole file, and what a loader reads of it.

    Attributes:
      data: the file's bytes.
      groups: path of every group -> names of its attributes; "/" is the root.
      arrays: path of every array.
      free: bool (bytes,): which bytes belong to no array.
    """

    data: bytes
    groups: Mapping[str, tuple[str, ...]]
    arrays: tuple[str, ...]
    free: np.ndarray


def main() -> None:
    """Damage the files, let every reader read them, and print what became of each."""
    settings = common.options(__doc__)
    count = 60 if settings.quick else 800
    with tempfile.TemporaryDirectory() as folder:
        written = common.in_process("hdf5_reader_survives_damage", WRITE, folder)
        sounds = [survey(path.read_bytes()) for path in [*map(Path, written), *real_files()]]
        rows = list(measure(sounds, count, Path(folder)))
    ours = [row for row in rows if row["reader"] == "ours"]
    bad = {row["reader"]: 0 for row in rows}
    for row in rows:
        bad[row["reader"]] += sum(row[outcome] for outcome in (MEMORY_OR_STACK, ENDLESS, CRASH))
    if bad["ours"]:
        raise SystemExit(f"our reader hangs, crashes or exhausts its process: {ours}")
    total = sum(row["files"] for row in ours)
    listed = ", ".join(f"{reader} {number}" for reader, number in bad.items())
    import h5py

    common.finish(
        "hdf5_reader_survives_damage",
        "A damaged HDF5 file ends in an error: no hang, no crash, no memory exhausted.",
        f"of {total:,} damaged files, hang, crash or exhaust memory or stack: {listed}",
        rows,
        notes=[
            f"{len(sounds)} sound files, {len(written)} of them written on the spot; at most "
            f"{CPU_SECONDS} s of CPU and {MEMORY >> 30} GiB for each file.",
            f"h5py is built on HDF5 {h5py.version.hdf5_version}.",
        ],
        packages=("h5py", "keras", "pyfive"),
        settings=settings,
    )


def measure(sounds: list[Sound], count: int, folder: Path) -> Iterator[common.Row]:
    """Yield a row for each kind of damage and each reader; all readers get the same files."""
    path = folder / "damaged.h5"
    truths = [expected(sound, folder) for sound in sounds]
    workers = {reader: Worker(reader) for reader in READERS}
    for kind, (damage, part) in DAMAGES.items():
        rng = np.random.default_rng(0)
        found = {reader: dict.fromkeys(OUTCOMES, 0) for reader in READERS}
        slowest = dict.fromkeys(READERS, 0.0)
        for number in range(count // part):
            which = number % len(sounds)
            path.write_bytes(damage(sounds[which], rng))
            for reader, worker in workers.items():
                answer, seconds = worker.read(path, sounds[which])
                outcome = SAME if answer == truths[which] else answer
                found[reader][outcome if outcome in OUTCOMES else OTHER] += 1
                slowest[reader] = max(slowest[reader], seconds)
        for reader in READERS:
            yield {"damage": kind, "reader": reader, "files": count // part, **found[reader],
                   "slowest, s": round(slowest[reader], 3)}  # fmt: skip
    for worker in workers.values():
        worker.close()


def expected(sound: Sound, folder: Path) -> str:
    """Return the digest of a sound file, on which all readers must agree."""
    path = folder / "sound.h5"
    path.write_bytes(sound.data)
    digests = {reader: digest(sound, read(path)) for reader, read in READERS.items()}
    if len(set(digests.values())) != 1:
        raise SystemExit(f"the readers do not agree on a sound file: {digests}")
    return digests["ours"]


# Damage


def _words(sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Return the places and values of the free words that may hold an address or a size."""
    size = len(sound.data) // 8 * 8
    values = np.frombuffer(sound.data[:size], "<u8")
    free = sound.free[:size].reshape(-1, 8).all(1)
    places = np.flatnonzero(free & (values > 0) & (values <= len(sound.data)))
    return places * 8, values[places]


def change_addresses(sound: Sound, rng: np.random.Generator) -> bytes:
    """Return the file with one to four of its addresses or sizes replaced."""
    data = bytearray(sound.data)
    places, values = _words(sound)
    for place in rng.choice(places, rng.integers(1, 5), replace=False):
        choices = (
            rng.choice(values),
            rng.integers(len(data)),
            rng.integers(len(data) // 8) * 8,
            rng.integers(1 << 62),
        )
        data[place : place + 8] = int(choices[rng.integers(4)]).to_bytes(8, "little")
    return bytes(data)


def change_bytes(sound: Sound, rng: np.random.Generator) -> bytes:
    """Return the file with one to four of its bytes outside the arrays replaced."""
    data = bytearray(sound.data)
    for place in rng.choice(np.flatnonzero(sound.free), rng.integers(1, 5), replace=False):
        data[place] = rng.integers(256)
    return bytes(data)


def cut_tail(sound: Sound, rng: np.random.Generator) -> bytes:
    """Return the file's first part, of any length."""
    return sound.data[: rng.integers(len(sound.data))]


# Kind of damage -> how it is done, and by what the number of files is divided.
DAMAGES: dict[str, tuple[Callable[[Sound, np.random.Generator], bytes], int]] = {
    "addresses": (change_addresses, 1),
    "bytes": (change_bytes, 2),
    "tail": (cut_tail, 8),
}


# Readers


def read_ours(path: Path) -> Any:
    """Open a file with our reader."""
    from jaxviz.keras.hdf5.file import Hdf5File

    root = Hdf5File(path.read_bytes()).root

    def item(name: str) -> tuple[Any, Any]:
        node = root[name] if name != "/" else root
        return node, getattr(node, "attributes", {})

    return item


def read_h5py(path: Path) -> Any:
    """Open a file with h5py."""
    import h5py

    file = h5py.File(path, "r")
    return lambda name: (file[name], file[name].attrs)


def read_pyfive(path: Path) -> Any:
    """Open a file with pyfive."""
    import pyfive

    file = pyfive.File(str(path))

    def item(name: str) -> tuple[Any, Any]:
        node = file[name] if name != "/" else file
        return node, node.attrs

    return item


READERS: dict[str, Callable[[Path], Any]] = {
    "ours": read_ours,
    "h5py": read_h5py,
    "pyfive": read_pyfive,
}
MODULES = {"ours": "jaxviz.keras.hdf5.file", "h5py": "h5py", "pyfive": "pyfive"}


def digest(sound: Sound, item: Callable[[str], tuple[Any, Any]]) -> str:
    """Read all that the sound file holds, and return a digest of it."""
    total = hashlib.sha256()
    for path, names in sound.groups.items():
        group, attributes = item(path)
        total.update(repr(sorted(group)).encode())
        for name in names:
            total.update(repr(_plain(attributes[name])).encode())
    for path in sound.arrays:
        array, _ = item(path)
        values = np.asarray(array.read() if hasattr(array, "read") else array[()])
        total.update(repr((values.shape, values.dtype.str)).encode() + values.tobytes())
    return total.hexdigest()


def _plain(value: Any) -> Any:
    """Return an attribute as text, number or list: readers differ in the types that they give."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    return [_plain(item) for item in value] if isinstance(value, list) else value


# A process for each reader


class Worker:
    """A process that reads file after file under limits, and is started again when it dies."""

    def __init__(self, reader: str):
        self.reader = reader
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None
        self.files = 0

    def read(self, path: Path, plan: Sound) -> tuple[str, float]:
        """Return a digest or what went wrong, and the seconds of CPU that it took.

        A file that ends the process is read once more in a new one: what earlier files left behind
        is not to be its fault.
        """
        answer, seconds = self._ask(path, plan)
        if self.process is None and self.files:
            self.files = 0
            answer, seconds = self._ask(path, plan)
        self.files = self.files + 1 if self.process is not None else 0
        return answer, seconds

    def _ask(self, path: Path, plan: Sound) -> tuple[str, float]:
        if self.process is None:
            self.connection, other = self.context.Pipe()
            self.process = self.context.Process(target=_work, args=(other, self.reader))
            self.process.start()
            other.close()
        self.connection.send((path, plan._replace(data=b"", free=np.zeros(0, bool))))
        try:
            if self.connection.poll(WALL_SECONDS):
                return self.connection.recv()
        except EOFError:
            self.process.join()
        ended = self.process.exitcode
        self.close()
        return CRASH if ended not in (None, -signal.SIGXCPU) else ENDLESS, float(CPU_SECONDS)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def _work(connection: Connection, reader: str) -> None:
    """Answer with a digest or an outcome for each file; runs in the worker's process."""
    __import__(MODULES[reader])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            path, plan = connection.recv()
        except EOFError:
            return
        start = time.process_time()
        resource.setrlimit(
            resource.RLIMIT_CPU, (math.ceil(start) + CPU_SECONDS, resource.RLIM_INFINITY)
        )
        try:
            answer = digest(plan, READERS[reader](path))
        except (MemoryError, RecursionError):
            answer = MEMORY_OR_STACK
        except Exception:
            answer = ERROR
        connection.send((answer, time.process_time() - start))


# Sound files

WRITE = "write"


def write(folder: Path) -> list[str]:
    """Write the Keras models and return their paths; runs in a process of its own."""
    import h5py
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    image = keras.Input((16, 16, 3))
    branch = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    joined = layers.Concatenate()([image, layers.BatchNormalization()(branch)])
    inner = keras.Sequential([keras.Input((16, 16, 7)), layers.SeparableConv2D(8, 3)], name="inner")
    graph = keras.Model(image, layers.GlobalAveragePooling2D()(inner(joined)))
    paths = []
    for name, model in (("plain", plain), ("graph", graph)):
        for suffix in ("h5", "weights.h5"):
            paths.append(folder / f"{name}.{suffix}")
            (model.save if suffix == "h5" else model.save_weights)(paths[-1])
    packed = folder / "packed.weights.h5"
    with h5py.File(paths[1]) as old, h5py.File(packed, "w") as new:
        old.visititems(lambda name, node: _pack(new, name, node))
    return [str(path) for path in (*paths, packed)]


def _pack(file: Any, name: str, node: Any) -> None:
    """Write an array again in chunks of half its length, shuffled and compressed."""
    if hasattr(node, "shape"):
        chunks = tuple(-(-size // 2) for size in node.shape)
        file.create_dataset(name, data=node[()], chunks=chunks, compression="gzip", shuffle=True)


def real_files() -> list[Path]:
    """Return the small HDF5 files of the test data, if there are any."""
    folder = os.environ.get("JAXVIZ_DATA")
    found = sorted(Path(folder, "keras").rglob("*.h5")) if folder else []
    return [path for path in found if path.stat().st_size <= LARGEST]


def survey(data: bytes) -> Sound:
    """List what a sound file holds, and which of its bytes belong to arrays."""
    import h5py

    groups: dict[str, tuple[str, ...]] = {}
    arrays, free = [], np.ones(len(data), bool)

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Group):
            groups[name] = tuple(sorted(node.attrs))
            return
        arrays.append(name)
        if node.chunks is None:
            start = node.id.get_offset()
            if start is not None:
                free[start : start + node.id.get_storage_size()] = False
            return
        for index in range(node.id.get_num_chunks()):
            chunk = node.id.get_chunk_info(index)
            free[chunk.byte_offset : chunk.byte_offset + chunk.size] = False

    with h5py.File(io.BytesIO(data)) as file:
        visit("/", file)
        file.visititems(visit)
    return Sound(data, groups, tuple(arrays), free)


if __name__ == "__main__":
    import json
    import sys

    if sys.argv[1:2] == [WRITE]:
        print(json.dumps(write(Path(sys.argv[2]))))
    else:
        main()
