"""Approximate runs into a store: each chunk is what `occlude` makes of its images."""

import shutil
import threading

import jax
import numpy as np
import pytest
from scale_run import files
from scorers import fading

from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.result import Approximation
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store
from jaxviz.scoring.execute import Blocks

SHAPE, COUNT, CHUNK = (44, 40, 3), 5, 2
HIDE = {"patch": 6, "stride": 4, "fill": 0.5}
CHUNKS = [slice(0, 2), slice(2, 4), slice(4, 5)]
WAYS = [
    {"tolerance": 0.5},
    {"refine": (3, 0.2)},
    {"refine": (3, 0.5, 0.2)},
    {"tolerance": 0.5, "refine": (3, 0.2)},
]


@pytest.fixture(scope="module")
def f():
    return fading()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((COUNT, *SHAPE), np.float32)


def run(f, source, store, **options):
    settings = {"method": "incremental", "batch_size": 8, "chunk": CHUNK, "progress": False}
    return occlude_dataset(f, source, store, **HIDE, **{**settings, **options})


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_chunk_holds_what_occlude_makes_of_its_images(f, images, tmp_path, way):
    stored = run(f, images, tmp_path / "out.zarr", **way)
    for part in CHUNKS:
        occ = occlude(f, images[part], **HIDE, method="incremental", batch_size=8, **way)
        found = stored[part]
        np.testing.assert_array_equal(found.scores, occ.scores)
        np.testing.assert_array_equal(found.base, occ.base)
        assert found.approximation == occ.approximation
        for name in ("exact", "interpolation_error"):
            told, wanted = getattr(found, name), getattr(occ, name)
            assert (told is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_allclose(told, wanted, rtol=1e-6)
    single = stored[3]
    assert single.exact is None or single.exact.shape == single.grid.shape
    assert single.approximation == stored[2:4].approximation
    told, wanted = dict(single.config), dict(occ.config)
    assert all(told.get(name) == wanted.get(name) for name in ("tolerance", "refine"))


@pytest.mark.slow
def test_what_was_interrupted_is_finished_to_the_same_bits(f, images, tmp_path):
    way = {"tolerance": 0.5, "refine": (3, 0.5, 0.2)}

    class Torn:
        broken = False

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            reading = threading.current_thread() is not threading.main_thread()
            if index >= 3 and self.broken and reading:
                raise KeyboardInterrupt
            return images[index]

    source = Torn()
    run(f, source, tmp_path / "whole.zarr", **way)
    source.broken = True
    with pytest.raises(KeyboardInterrupt):
        run(f, source, tmp_path / "torn.zarr", **way)
    done = open_store(tmp_path / "torn.zarr").done
    assert done[:2].all() and not done[4]
    source.broken = False
    run(f, source, tmp_path / "torn.zarr", **way)
    assert files(tmp_path / "torn.zarr") == files(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_a_bad_image_decides_nothing(f, images, tmp_path):
    torn = images.copy()
    torn[1] = np.nan
    with pytest.warns(UserWarning, match="1 of 5 images are bad"):
        stored = run(f, torn, tmp_path / "out.zarr", tolerance=0.5, on_error="skip")
    alone = occlude(f, images[:1], **HIDE, method="incremental", batch_size=8, tolerance=0.5)
    np.testing.assert_array_equal(stored[:1].scores, alone.scores)
    assert stored[:2].approximation == alone.approximation == stored[0].approximation
    assert stored[1].approximation is None and np.isnan(stored[1].scores).all()


@pytest.mark.slow
def test_with_a_tolerance_windows_are_what_the_store_records(f, images, tmp_path):
    stored = run(f, images[:2], tmp_path / "out.zarr", tolerance=np.float32(0.5), method="auto")
    assert stored.identity["program"]["method"] == "incremental"
    again = run(f, images[:2], tmp_path / "out.zarr", tolerance=np.float32(0.5), method="auto")
    assert again[0].approximation.field is not None


@pytest.mark.slow
def test_memory_that_runs_out_is_told_as_smaller_blocks_would_give_other_bits(
    f, images, tmp_path, monkeypatch
):
    def full(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: injected")

    monkeypatch.setattr(Blocks, "_launch", full)
    for way in WAYS[:2]:
        with pytest.raises(MemoryError, match="`batch_size` must fit into memory"):
            run(f, images[:2], tmp_path / "out.zarr", **way)
        shutil.rmtree(tmp_path / "out.zarr")


@pytest.mark.slow
def test_the_worst_of_several_chunks_is_told(f, images, tmp_path):
    stored = run(f, images, tmp_path / "out.zarr", tolerance=0.5)
    each = [stored[part].approximation for part in CHUNKS]
    together = stored[:].approximation
    assert together.bound == max(one.bound for one in each) <= 0.5
    assert together.field == min(one.field for one in each if one.field is not None)
    assert isinstance(together, Approximation) and together.checked == 62


def test_another_approximation_is_another_run(f, images, tmp_path):
    store = tmp_path / "out.zarr"
    run(f, images[:1], store, refine=(3, 0.0))
    for other in ({}, {"refine": (3, 0.1)}, {"refine": (3, 0.0), "tolerance": 0.1}):
        with pytest.raises(ValueError, match="`store` must be of the same run: .*approximation"):
            run(f, images[:1], store, **other)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"tolerance": 2}, ValueError, "`tolerance` must be a share"),
        ({"tolerance": "much"}, TypeError, "`tolerance` must be a number"),
        ({"tolerance": 0.1, "method": "dense"}, ValueError, "cuts windows short"),
        ({"refine": (1, 0.5)}, ValueError, "`refine` must be"),
    ],
    ids=["tolerance", "no number", "dense", "refine"],
)
def test_wrong_options_are_told_before_anything_is_made(f, images, tmp_path, options, error, told):
    with pytest.raises(error, match=told):
        run(f, images, tmp_path / "out.zarr", **options)
    assert not (tmp_path / "out.zarr").exists()
