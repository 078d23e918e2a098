"""Reading ahead and writing behind: side by side with computing, in order, and never far."""

import threading
import time

import numpy as np
import pytest
from scale_run import SHAPE, events, images, scorer

from jaxviz.scale import filling, pipeline
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.pipeline import READ_AHEAD, WRITTEN_BEHIND, Waits, WriteBehind, read_ahead
from jaxviz.scale.store import Store

CHUNK = 4
CHUNKS = [(c, range(c * CHUNK, (c + 1) * CHUNK)) for c in range(8)]


def test_images_are_read_beside_the_consumer_and_no_further_than_told():
    started, lock = [], threading.Lock()

    def read(index):
        with lock:
            started.append(index)
        return np.full((2, 2, 1), index, np.float32)

    reader = read_ahead(CHUNKS, read, np.zeros((2, 2, 1), np.float32), workers=3)
    for number, chunk in enumerate(reader):
        ahead = min((number + 1 + READ_AHEAD) * CHUNK, 8 * CHUNK)
        while len(started) < ahead:  # which they are to read by themselves
            time.sleep(0.001)
        assert number == chunk.number and sorted(started) == list(range(ahead))
        assert chunk.images[:, 0, 0, 0].tolist() == list(CHUNKS[number][1])
        assert chunk.errors == [""] * CHUNK


def test_results_are_written_beside_computing_and_at_most_two_behind():
    may_write, written, waits = threading.Semaphore(0), [], Waits()

    def write(number):
        may_write.acquire()
        written.append(number)

    with WriteBehind(write, waits) as behind:
        for number in range(WRITTEN_BEHIND):
            behind(number)
        assert written == []
        threading.Timer(0.05, may_write.release).start()
        behind(WRITTEN_BEHIND)
        assert written == [0] and waits.writing > 0
        may_write.release(WRITTEN_BEHIND)
    assert written == list(range(WRITTEN_BEHIND + 1))


def test_error_of_a_write_comes_up_at_the_latest_at_the_end():
    def write(number):
        raise OSError(f"disk full at {number}")

    with pytest.raises(OSError, match="disk full at 0"):
        with WriteBehind(write, Waits()) as behind:
            behind(0)


@pytest.mark.slow
def test_memory_is_bounded_when_writing_is_slow_and_reading_fast(tmp_path, monkeypatch):
    read, written, most = [0], [0], [0]
    lock, original, n = threading.Lock(), Store.write, 20 * CHUNK

    class Source:
        def __len__(self):
            return n

        def __getitem__(self, index):
            with lock:
                read[0] += 1
                most[0] = max(most[0], read[0] - written[0])
            return images(1)[0]

    def slow(store, chunk, rows, errors):
        time.sleep(0.02)
        original(store, chunk, rows, errors)
        with lock:
            written[0] += len(errors)

    monkeypatch.setattr(Store, "write", slow)
    settings = {"patch": 6, "chunk": CHUNK, "progress": False, "workers": 8}
    occlude_dataset(scorer(), Source(), tmp_path / "out.zarr", **settings)
    # What is read ahead, what is computed, what was computed and waits, and what is written.
    held = (READ_AHEAD + 1) + 1 + WRITTEN_BEHIND + 1
    samples = 4  # read beforehand, to know the source again
    assert written[0] == n and most[0] <= held * CHUNK + samples


def test_waits_tell_what_computing_stood_still_for(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pipeline, "perf_counter", lambda: now[0])
    monkeypatch.setattr(filling, "perf_counter", lambda: now[0])

    class Slow:
        def __len__(self):
            return 12

        def __getitem__(self, index):
            if threading.current_thread() is not threading.main_thread():
                now[0] += 1.0
            return np.zeros(SHAPE, np.float32)

    settings = {"patch": 6, "chunk": CHUNK, "workers": 1, "progress": False}
    occlude_dataset(scorer(), Slow(), tmp_path / "out.zarr", log=tmp_path / "log", **settings)
    end = events(tmp_path / "log")[-1]
    # For the first chunk at least, before which there is nothing to compute.
    assert CHUNK <= end["waited_for_images"] <= end["seconds"] - end["waited_for_writing"]
    assert end["seconds"] <= 12


@pytest.mark.slow
def test_what_was_launched_before_an_error_is_not_lost(tmp_path, monkeypatch):
    def broken():
        yield from ()
        raise ValueError("no image")

    done, original = [], pipeline.read_ahead

    def ahead(*arguments, **options):
        chunks = original(*arguments, **options)
        yield next(chunks)
        yield from broken()

    monkeypatch.setattr("jaxviz.scale.filling.read_ahead", ahead)
    settings = {"patch": 6, "chunk": CHUNK, "progress": lambda *told: done.append(told)}
    with pytest.raises(ValueError, match="no image"):
        occlude_dataset(scorer(), images(12), tmp_path / "out.zarr", **settings)
    assert done == [(CHUNK * 4, 12 * 4)]
