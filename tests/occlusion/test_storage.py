"""A result comes back from disk as it was; nothing else is taken for one, nothing is left over."""

import json
import os
import pickle

import numpy as np
import pytest

from jaxviz.occlusion import presets
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.result import Occlusion, load_occlusion
from jaxviz.occlusion.segments import occlude_segments

IMAGES = np.random.default_rng(0).uniform(size=(2, 6, 8, 1)).astype(np.float32)


def f(images):
    return images.mean((1, 2)) * np.arange(1, 4, dtype=np.float32)[None]


def interrupt(done, total):
    raise KeyboardInterrupt


def partial_run():
    with pytest.warns(UserWarning, match="interrupted"):
        return occlude(f, IMAGES, patch=2, batch_size=4, progress=interrupt)


LABELS = np.arange(48).reshape(6, 8) // 12
RUNS = {
    "batch": lambda: occlude(f, IMAGES, patch=(2, 3), stride=2, fill="mean"),
    "single": lambda: occlude(f, IMAGES[0], patch=4, margin=1, stride=2),
    "region": lambda: occlude(f, IMAGES, patch=5, border="valid", region=(0, 0, 2, 2)),
    "segments": lambda: occlude_segments(f, IMAGES, LABELS, groups=[0, [1, 3]]),
    "read": lambda: occlude(f, IMAGES, **presets.monai(4, image_shape=(6, 8))),
    "refined": lambda: occlude(f, IMAGES, patch=2, stride=1, refine=(3, 0.2)),
    "partial": partial_run,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_load_gives_what_was_saved(tmp_path, kind):
    occ = RUNS[kind]()
    occ.save(tmp_path / "occ.npz")
    again = load_occlusion(tmp_path / "occ.npz")
    assert isinstance(again, Occlusion) and repr(again) == repr(occ)
    for name in ("scores", "base", *(["exact"] if occ.exact is not None else [])):
        ours, wanted = getattr(again, name), getattr(occ, name)
        np.testing.assert_array_equal(ours, wanted)
        assert ours.dtype == wanted.dtype
    assert again.grid == occ.grid and again.config == occ.config and again.reading == occ.reading
    assert (again.single, again.partial) == (occ.single, occ.partial)
    assert again.partial == (kind == "partial")
    np.testing.assert_array_equal(again.heatmap(), occ.heatmap())
    np.testing.assert_array_equal(again.class_map(), occ.class_map())


@pytest.fixture
def occ():
    return occlude(f, IMAGES, patch=2, fill=0.5)


def test_the_file_says_grid_fill_and_model_without_pickle(tmp_path, occ):
    occ.save(str(tmp_path / "occ.npz"))
    with np.load(tmp_path / "occ.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"scores", "base", "record"}
        record = json.loads(str(arrays["record"]))
    assert record["grid"]["patch"] == [2, 2]
    config = dict(record["config"])
    assert " to " in config.pop("images")
    assert config == {"model": "f", "dtype": "float32", "fill": "constant 0.5"}


def test_saving_again_replaces_the_file(tmp_path, occ):
    path = tmp_path / "occ.npz"
    path.write_text("something else")
    occ.save(path)
    assert repr(load_occlusion(path)) == repr(occ)
    assert os.listdir(tmp_path) == ["occ.npz"]


def test_the_name_is_taken_as_it_is_and_others_may_read(tmp_path, occ):
    occ.save(tmp_path / "result")
    assert os.listdir(tmp_path) == ["result"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "result").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path, occ, monkeypatch):
    with pytest.raises(OSError, match="`path` must be writable: .*occ.npz is not"):
        occ.save(tmp_path / "missing" / "occ.npz")

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left on device"):
        occ.save(tmp_path / "occ.npz")
    assert os.listdir(tmp_path) == []


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must name a saved result: there is none"):
        load_occlusion(tmp_path / "occ.npz")
    with pytest.raises(FileNotFoundError, match="there is none at"):
        load_occlusion(tmp_path)


def others(path, occ):
    """Files that are not results."""
    occ.save(path)
    whole = path.read_bytes()
    record = json.dumps({"format": "another", "grid": {}})
    arrays = dict(scores=occ.scores, base=occ.base)
    yield whole[: len(whole) // 2]
    yield whole[:-30]
    yield b""
    yield b"\x93NUMPY"
    yield pickle.dumps(occ.scores)
    for content in (dict(x=occ.scores), arrays, dict(arrays, record=record)):
        np.savez(path, **content)
        yield path.read_bytes()
    np.savez(path, **arrays, record=np.array({"format": 1}, dtype=object))
    yield path.read_bytes()
    np.save(path.with_suffix(".npy"), occ.scores)
    yield path.with_suffix(".npy").read_bytes()


@pytest.mark.slow
def test_other_files_are_refused(tmp_path, occ):
    for number, content in enumerate(list(others(tmp_path / "a.npz", occ))):
        file = tmp_path / f"{number}.npz"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="`path` must be a file that Occlusion.save wrote"):
            load_occlusion(file)
