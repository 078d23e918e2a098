"""Many images into a store: the scores of `occlude`, bit for bit; what differs is refused."""

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.tree_util import Partial
from PIL import Image
from scale_run import SHAPE, images, scorer

from jaxviz.images.preprocessing import NAMED
from jaxviz.occlusion import presets
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.reading import Reading
from jaxviz.perturbation.fills import blur
from jaxviz.scale.arguments import check_mesh
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.reader import open_store
from jaxviz.scale.run import Run
from jaxviz.scale.store import connect

SETTINGS = {"patch": 4, "stride": 2, "progress": False}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "out.zarr"


def run(store, f=None, source=None, **options):
    f, source = f or scorer(), images(10) if source is None else source
    return occlude_dataset(f, source, store, **{**SETTINGS, "chunk": 4, **options})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "incremental"])
def test_stored_scores_are_those_of_occlude_bit_for_bit(store, method):
    stored = run(store, method=method, batch_size=8)
    occ = occlude(scorer(), images(10), patch=4, stride=2, method=method, batch_size=8)
    np.testing.assert_array_equal(stored[:].scores, occ.scores)
    np.testing.assert_array_equal(stored.base, occ.base)
    np.testing.assert_array_equal(stored.predicted, occ.base.argmax(-1))
    np.testing.assert_array_equal(stored[7].heatmap(), occ.heatmap()[7])
    assert stored.grid == occ.grid and stored.done.all() and not stored.errors


@pytest.mark.parametrize("batch_size", ["auto", "fastest"])
def test_a_run_smaller_than_a_batch_is_found_again(store, batch_size):
    options = dict(source=images(1), patch=8, stride=8, batch_size=batch_size)
    first = run(store, **options)[:].scores
    again = run(store, **options)
    np.testing.assert_array_equal(again[:].scores, first)
    assert open_store(store).identity["program"]["batch"] < 16


@pytest.mark.parametrize("chunk", [1, 3, 10, "auto"])
def test_chunk_size_never_changes_a_score(store, chunk):
    stored = run(store, chunk=chunk, batch_size=8)
    occ = occlude(scorer(), images(10), patch=4, stride=2, method="dense", batch_size=8)
    np.testing.assert_array_equal(stored[:].scores, occ.scores)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    """Stores of runs on one device, by method."""
    place = tmp_path_factory.mktemp("one")
    methods = ("dense", "incremental")
    return {m: run(place / f"{m}.zarr", batch_size=4, method=m) for m in methods}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, method",
    [
        ({"images": 1}, "dense"),
        ({"images": 8}, "dense"),
        ({"positions": 2}, "dense"),
        ({"images": 2, "positions": 4}, "dense"),
        ({"images": 2, "positions": 4}, "incremental"),
    ],
)
def test_number_of_devices_never_changes_a_bit(store, on_one_device, sizes, method):
    shape = tuple(sizes.values())
    mesh = Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), tuple(sizes))
    with_mesh, without = run(store, mesh=mesh, batch_size=4, method=method), on_one_device[method]
    np.testing.assert_array_equal(with_mesh[:].scores, without[:].scores)
    assert with_mesh.identity == without.identity


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "method"), [((4,), "incremental"), ((8,), "dense"), ((2, 4), "dense")], ids=str
)
def test_meshes_of_make_mesh_never_change_a_bit(store, on_one_device, method, shape):
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, ("images", "positions")[: len(shape)], devices=devices)
    with_mesh, without = run(store, mesh=mesh, batch_size=4, method=method), on_one_device[method]
    np.testing.assert_array_equal(with_mesh[:].scores, without[:].scores)
    assert with_mesh.identity == without.identity


@pytest.mark.slow
def test_plain_zarr_and_xarray_open_a_store(store):
    zarr, xarray = pytest.importorskip("zarr"), pytest.importorskip("xarray")
    stored = run(store, top=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store, mode="r")
        assert sorted(group.array_keys()) == sorted(stored.identity["arrays"])
        np.testing.assert_array_equal(group["scores"][:], stored[:].scores)
        assert group["scores"].chunks == (1, *stored.grid.shape, 2)
        assert group.attrs["jaxviz"]["grid"]["patch"] == [4, 4]
        data = xarray.open_zarr(store, consolidated=False)
    assert data["scores"].dims == ("image", "row", "col", "rank")
    assert data["row"].values.tolist() == list(stored.grid.row_starts)
    np.testing.assert_array_equal(data["base"].values, stored.base)


def test_metadata_tell_how_the_run_was_made(store):
    identity = run(store, fill=0.5, stored="float16", batch_size=16).identity
    assert identity["fill"]["values"] == [0.5]
    assert identity["scores"] == {"dtype": "float16", "classes": None, "top": None}
    assert identity["program"] == {"method": "dense", "batch": 11, "chunk": 4}
    assert identity["versions"]["jax"] == jax.__version__
    assert len(identity["model"]["fingerprint"]) == 64
    assert json.loads((store / "zarr.json").read_text())["attributes"]["jaxviz"] == identity


def test_kept_classes_are_those_of_all_classes(store):
    everything = run(store)[:]
    some = run(store.with_name("some.zarr"), classes=[3, 0])
    np.testing.assert_array_equal(some[:].scores, everything.scores[..., [3, 0]])
    np.testing.assert_array_equal(some[:].base, everything.base[:, [3, 0]])
    best = run(store.with_name("best.zarr"), top=2)
    order = np.argsort(-everything.base, -1)[:, :2]
    np.testing.assert_array_equal(best.classes, order)
    np.testing.assert_array_equal(best[5].scores, everything.scores[5][..., order[5]])
    np.testing.assert_array_equal(best[:].heatmap(), everything.heatmap())


@pytest.mark.slow
def test_half_precision_store_rounds_and_refuses_what_it_cannot_hold(store):
    stored = run(store, stored="float16")
    full = run(store.with_name("full.zarr"))
    np.testing.assert_array_equal(stored[:].scores, full[:].scores.astype(np.float16))
    with pytest.raises(ValueError, match='`stored` must hold the scores: "float16"'):
        run(store.with_name("big.zarr"), lambda x: 1e6 + x.mean((1, 2)), stored="float16")


def test_folder_of_images_gives_names(store, tmp_path, rng):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "ä.png"):
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(tmp_path / "pictures" / name)
    stored = run(store, source=tmp_path / "pictures", image_shape=SHAPE, fill=0.5)
    assert stored.names == ["a.png", "ä.png"]
    assert stored[0].scores.shape == (*stored.grid.shape, 5)


def test_bad_files_of_a_folder_are_named_with_the_reason(store, tmp_path, rng):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "cut.jpg", "z.png"):
        Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(folder / name)
    cut = folder / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    Image.fromarray(np.zeros((20, 20), np.int32)).save(folder / "deep.tif")
    with pytest.raises(ValueError, match=r"`source`: image 1 \(cut.jpg\) is bad: .*cannot be read"):
        run(store, source=folder, image_shape=SHAPE, fill=0.5, chunk=1, on_error="raise")
    with pytest.warns(UserWarning, match="2 of 3 images are bad"):
        stored = run(store, source=folder, image_shape=SHAPE, fill=0.5, chunk=1)
    told = [(error.name, error.why) for error in stored.errors]
    assert [name for name, _ in told] == ["cut.jpg", "deep.tif"]
    assert "cannot be read" in told[0][1] and "8 or 16 bits" in told[1][1]
    assert stored.predicted.tolist()[1:3] == [-1, -1] and np.isfinite(stored[[0, 3]].scores).all()


def test_scores_are_compressed(store):
    stored = run(store, lambda x: 0 * x.mean((1, 2)) + np.zeros((1, 100), np.float32), chunk=10)
    size = sum(path.stat().st_size for path in (store / "scores").rglob("*") if path.is_file())
    assert stored[:].scores.nbytes > 20 * size


def test_grain_data_source_gives_its_images(store):
    grain = pytest.importorskip("grain.python")
    source = grain.MapDataset.source(images(10)).map(lambda image: {"image": image, "label": 3})
    np.testing.assert_array_equal(run(store, source=source).base, run(f"{store}2").base)


def test_finished_store_is_not_computed_again(store, tmp_path):
    run(store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    run(store, log=tmp_path / "log")
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "end"]


def test_run_goes_on_with_the_program_of_the_store(store):
    run(store, method="incremental", batch_size=4, chunk=5)
    assert run(store, chunk="auto").identity["program"] == {
        "method": "incremental",
        "batch": 4,
        "chunk": 5,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store that is finished, for runs that leave it as it is."""
    store = tmp_path_factory.mktemp("finished") / "out.zarr"
    run(store)
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"f": scorer(2.0)}, r"model.fingerprint is \w+… there and \w+… now"),
        ({"f": lambda x: x.mean((1, 2))}, "model.fingerprint"),
        ({"patch": 3}, r"grid.patch is \[4, 4\] there and \[3, 3\] now"),
        ({"stride": 3}, "grid.stride"),
        ({"margin": 1}, "grid.margin"),
        ({"fill": 0.5}, r"fill.values is \[0.0\] there and \[0.5\] now"),
        ({"fill": blur(1.0)}, "fill.name"),
        ({"channels": [0]}, "fill.channels is None there and"),
        ({"source": images(11)}, "source.images is 10 there and 11 now"),
        ({"source": images(10)[::-1]}, "source.samples.0"),
        ({"preprocess": lambda x: x}, "source.units is as given there"),
        ({"preprocess": "tf"}, r"source.units is as given there and tf: \(x · 255 − 127.5\)"),
        ({"dtype": "bfloat16"}, "forward.dtype is float32 there and bfloat16 now"),
        ({"stored": "float16"}, "scores.dtype"),
        ({"top": 2}, "scores.top is None there and 2 now"),
        ({"method": "incremental"}, "program.method is dense there and incremental now"),
        ({"batch_size": 2}, r"program.batch is \d+ there and 2 now"),
        ({"chunk": 2}, "program.chunk is 4 there and 2 now"),
    ],
)
def test_store_of_another_run_is_refused_with_what_differs(finished, change, told):
    with pytest.raises(ValueError, match=told):
        run(finished, **change)


def test_preprocessing_goes_by_name_as_for_photographs(store, rng):
    pictures = rng.integers(0, 256, (3, *SHAPE), np.uint8)
    units = NAMED["tf"](pictures / np.float32(255))
    stored = run(store, source=pictures, preprocess="tf")
    np.testing.assert_array_equal(stored.base, occlude(scorer(), units, patch=4, stride=2).base)
    assert stored.identity["source"]["units"] == NAMED["tf"].describe()
    run(store, source=pictures, preprocess=NAMED["tf"])  # a name is the formula that it stands for
    with pytest.raises(ValueError, match="source.units is tf: .* now"):
        run(store, source=pictures, preprocess="raw")
    model = Partial(scorer())
    with pytest.raises(ValueError, match='`preprocess` "model" needs a model that says'):
        run(store, f=model, source=pictures, preprocess="model")
    with pytest.raises(ValueError, match="`preprocess` must be one of .*: got 'caffee'"):
        run(store, source=pictures, preprocess="caffee")


def test_store_of_another_version_is_refused(finished, monkeypatch):
    monkeypatch.setattr("jaxviz.scale.identity.__version__", "9.9")
    with pytest.raises(ValueError, match=r"versions.jaxviz is .* there and 9.9 now"):
        run(finished)


def test_store_that_is_none_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="there is none at"):
        open_store(store)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"precious")
    with pytest.raises(ValueError, match="photos/ holds a.png"):
        run(tmp_path / "photos")
    (tmp_path / "foreign.zarr").mkdir()
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    (tmp_path / "foreign.zarr" / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(ValueError, match="foreign.zarr/ is not"):
        run(tmp_path / "foreign.zarr")
    with pytest.raises(ValueError, match="a URL that tensorstore knows"):
        run("nowhere://bucket/out.zarr")
    run(store)
    with pytest.raises(ValueError, match="`resume=False`: there is one at"):
        run(store, resume=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"on_error": "ignore"}, '`on_error` must be "raise" or "skip"'),
        ({"stored": "int8"}, '`stored` must be "float32" or "float16"'),
        ({"classes": [7]}, "`classes` must be classes from 0 to 4"),
        ({"classes": []}, "`classes` must be classes from 0 to 4"),
        ({"top": 9}, "`top` must be from 1 to 5"),
        ({"top": 1, "classes": [1]}, "exclude each other"),
        ({"share": (2, 2)}, r"`share` must be \(i, n\)"),
        ({"share": "1/2"}, r"`share` must be \(i, n\), whole numbers .*: got '1/2'"),
        ({"memory": "much"}, "`memory` must be a whole number of bytes from 1.*: got 'much'"),
        ({"memory": 0}, "`memory` must be a whole number of bytes from 1.*: got 0"),
        ({"reading": "raw"}, "`reading` must be a jaxviz.Reading: got a str"),
        ({"mesh": jax.devices()}, "`mesh` must be a jax.sharding.Mesh.*: got list"),
        ({"dtype": "float33"}, "`dtype` must be a floating dtype.*: got 'float33'"),
        ({"dtype": "int8"}, "`dtype` must be a floating dtype: got int8"),
        ({"dtype": []}, r"`dtype` must be a floating dtype.*: got \[\]"),
        ({"workers": 0}, "`workers` must be None or a whole number from 1: got 0"),
        ({"chunk": 0}, "`chunk` must be"),
        ({"log": "no/such/folder/log"}, "`log` must name a file in a folder that exists: got no/s"),
        ({"log": "."}, "`log` must name a file in a folder that exists: got ."),
        ({"batch_size": "large"}, '`batch_size` must be "auto", "fastest" or a whole number'),
        ({"f": lambda x: x}, r"`f` must give scores \(N, K\)"),
    ],
)
def test_wrong_option_is_refused(store, option, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(store, **option)
    assert not store.exists()


def test_devices_of_other_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    mesh = Mesh(np.array(jax.devices()[:2]), ("images",))
    with pytest.raises(ValueError, match="`mesh` must hold devices of this process only"):
        check_mesh(mesh)


def test_bad_image_stops_the_run_or_is_recorded(store):
    source = list(images(10))
    source[6], source[9] = np.full(SHAPE, np.nan), np.zeros((3, 3, 1))
    with pytest.raises(ValueError, match=r"`source`: image 6 is bad: .* finite"):
        run(store, source=source)
    assert open_store(store).done.tolist() == [True] * 4 + [False] * 6
    with pytest.warns(UserWarning, match="2 of 6 images are bad"):
        stored = run(store, source=source, on_error="skip")
    assert [(error.image, error.name) for error in stored.errors] == [(6, ""), (9, "")]
    assert "finite" in stored.errors[0].why and "(3, 3, 1)" in stored.errors[1].why
    assert np.isnan(stored[6].scores).all() and stored.predicted[6] == -1
    good = [i for i in range(10) if i not in (6, 9)]
    whole = run(store.with_name("whole.zarr"))
    np.testing.assert_array_equal(stored[good].scores, whole[good].scores)


def test_repaired_image_is_computed_by_the_next_run(store, tmp_path):
    source = list(images(10))
    source[6] = np.full(SHAPE, np.nan)
    with pytest.warns(UserWarning, match="1 of 10 images are bad"):
        run(store, source=source, on_error="skip")
    stored = run(store, log=tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "chunk", "end"]
    assert not stored.errors
    whole = run(store.with_name("whole.zarr"))
    np.testing.assert_array_equal(stored[:].scores, whole[:].scores)


def test_shares_divide_the_work_and_give_the_same_store(store):
    run(store, share=(1, 3))
    assert open_store(store).done.tolist() == [False] * 4 + [True] * 4 + [False] * 2
    run(store, share=(0, 3))
    stored = run(store, share=(2, 3))
    assert stored.done.all()
    np.testing.assert_array_equal(stored[:].scores, run(store.with_name("b.zarr"))[:].scores)


@pytest.mark.parametrize(
    ("url", "driver"), [("gs://bucket/a/out", "gcs"), ("s3://bucket/a/out", "s3")]
)
def test_addresses_in_the_cloud_pass_through(url, driver):
    spec = connect(url).spec().to_json()
    assert (spec["driver"], spec["bucket"], spec["path"]) == (driver, "bucket", "a/out/")


def test_store_in_memory_stands_for_those_in_the_cloud(store):
    stored = run("memory://bucket/out.zarr")
    np.testing.assert_array_equal(stored[:].scores, run(store)[:].scores)
    assert open_store("memory://bucket/out.zarr").done.all()


def test_progress_and_log_tell_how_far_the_run_is(store, tmp_path, capsys):
    told = []
    run(store, progress=lambda *n: told.append(n), log=tmp_path / "log")
    assert told == [(80, 200), (160, 200), (200, 200)]  # positions, 20 an image
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "chunk", "chunk", "chunk", "end"]
    assert [line["images"] for line in lines[1:4]] == [4, 8, 10]
    assert (lines[-1]["positions"], lines[-1]["seconds_left"], lines[-1]["errors"]) == (200, 0, 0)
    assert {"images_per_second", "positions_per_second", "waited_for_images"} <= set(lines[1])
    run(store.with_name("bar.zarr"), progress=True)
    assert "positions" in (err := capsys.readouterr().err) and "200/200" in err


def test_log_tells_why_a_run_stopped(store, tmp_path):
    source = [*images(4), np.zeros((3, 3, 1))]
    with pytest.raises(ValueError, match="image 4 is bad"):
        run(store, source=source, log=tmp_path / "log")
    last = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert last["event"] == "stopped" and "image 4 is bad" in last["why"]


def test_a_store_is_read_as_its_first_run_had_it(store):
    preset = presets.seed(4)
    stored = run(store, reading=preset.reading)
    np.testing.assert_array_equal(stored[3].heatmap(), stored[3].heatmap(None, "raw", "cell"))
    assert open_store(store).reading == preset.reading
    other = run(store, reading=Reading("complement"))  # no other run: the scores are the same
    np.testing.assert_array_equal(other[3].heatmap(), stored[3].heatmap(None, "complement", "mean"))
    assert open_store(store).reading == preset.reading
    assert run(store.with_name("plain.zarr")).reading is None


@pytest.mark.slow
def test_memory_that_ends_later_is_an_error_with_advice(store, monkeypatch):
    def full(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too much")

    settle = Run.settle

    def settled(self, recorded):
        found = settle(self, recorded)
        return found._replace(program=replace(found.program, evaluate=full))

    monkeypatch.setattr(Run, "settle", settled)
    with pytest.raises(MemoryError, match=r"`batch_size` must fit into memory: \d+ images at once"):
        run(store)
    assert not open_store(store).done.any()


@pytest.mark.slow
def test_a_store_knows_the_names_of_classes(store, tmp_path):
    count = run(store).base.shape[1]
    names = [f"class {i}" for i in range(count)]
    assert open_store(store).class_names is None
    named = run(tmp_path / "named.zarr", class_names=names)
    np.testing.assert_array_equal(named[3].heatmap("class 1"), named[3].heatmap(1))
    assert open_store(tmp_path / "named.zarr").class_names == tuple(names)
    assert run(tmp_path / "named.zarr").done.all()  # the names are free to differ
    two = run(tmp_path / "two.zarr", class_names=names, classes=[2, 0])
    assert two[:2].class_names == ("class 2", "class 0")
    best = run(tmp_path / "best.zarr", class_names=names, top=2)
    assert best[0].class_names == tuple(names[c] for c in best.classes[0])
    with pytest.raises(ValueError, match=f"`class_names` must name {count} classes: got 1"):
        run(tmp_path / "wrong.zarr", class_names=["one"])


def test_a_place_spelt_out_is_that_of_the_path(tmp_path):
    """A path of a key-value store is what its keys begin with, so a folder's ends with a slash."""
    for path in ("a.zarr", "b.zarr/"):
        spec = {"driver": "file", "path": f"{tmp_path.as_posix()}/{path}"}
        stored = occlude_dataset(scorer(), images(3), spec, patch=4, progress=False)
        assert stored.done.all() and stored.url.endswith(f"{path.rstrip('/')}/")
        again = open_store(tmp_path / path)
        np.testing.assert_array_equal(again[:].scores, stored[:].scores)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_text_stops_nothing(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"torn\xe9.png"):
        path = os.fsdecode(os.path.join(os.fsencode(folder), name))
        if name.startswith(b"caf"):
            Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(path)
        else:
            Path(path).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 of 2 images are bad"):
        stored = occlude_dataset(
            lambda x: x.mean((1, 2)), folder, tmp_path / "out.zarr", patch=4, progress=False,
            image_shape=(12, 10, 3),
        )  # fmt: skip
    assert stored.names is not None and stored.names[0] == "caf\\udce9.png"
    assert stored.done.all() and len(stored.errors) == 1
