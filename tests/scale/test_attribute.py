"""Many images explained into a store: the maps of the library, whatever interrupts the run."""

import signal
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from scale_run import attribute, events, files, images, scorer, start

import jaxviz as jv
from jaxviz.attribution import integrated_gradients, lime, rise, saliency
from jaxviz.attribution.result import Attribution
from jaxviz.scale import attributing
from jaxviz.scale.attribute import attribute_dataset
from jaxviz.scale.attributed import open_attribution
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import connect, find

WRITES = 8  # of arrays, per chunk: two values, delta, sampling, base, predicted, error, status


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, of all 20 images."""
    return attribute(scorer(), images(20), tmp_path_factory.mktemp("whole") / "out.zarr")


def folder(stored):
    return stored.url.removeprefix("file://")


@pytest.mark.slow
def test_the_maps_are_those_of_the_library(whole):
    f, x = scorer(), images(20)
    gradients = integrated_gradients(f, x, points=4)
    sampled = rise(f, x, samples=10, cells=3)
    assert whole.maps == ("ig", "rise") and len(whole) == 20 and whole.done.all()
    for name, wanted in (("ig", gradients), ("rise", sampled)):
        found = whole.read(name)
        assert isinstance(found, Attribution) and found.method == wanted.method
        assert found.image_shape == wanted.image_shape and found.reading == wanted.reading
        for part in ("values", "base", "target", "delta", "error"):
            expected = getattr(wanted, part)
            if expected is None:
                assert getattr(found, part) is None
            else:
                np.testing.assert_allclose(getattr(found, part), expected, rtol=1e-4, atol=1e-6)
        one = whole[7][name]
        assert one.single and one.heatmap().shape == (12, 10)
        np.testing.assert_allclose(one.heatmap(), wanted.heatmap()[7], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(whole[3:5][name].values, found.values[3:5])
    np.testing.assert_array_equal(whole.predicted, gradients.target)
    assert ("points", "4") in whole[0]["ig"].config


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [WRITES + 3, pytest.param(2 * WRITES - 1, marks=pytest.mark.slow)]
)
def test_killed_run_is_finished_to_the_same_bits(tmp_path, whole, write):
    store, log = tmp_path / "out.zarr", tmp_path / "log"
    assert start(store, attribute=True, die_at=write).wait() == -signal.SIGKILL
    done = open_attribution(store).done.sum()
    assert done == write // WRITES * 4
    attribute(scorer(), images(20), store, log=log)
    assert files(store) == files(folder(whole))
    told = events(log)
    assert sum(event["event"] == "chunk" for event in told) == (20 - done) // 4
    assert told[0]["maps"] == 2 and told[0]["methods"] == ["ig", "rise"]


@pytest.mark.slow
def test_finished_store_is_not_explained_again(whole, monkeypatch):
    monkeypatch.setattr(attributing.Attributing, "_explained", None)
    again = attribute(scorer(), images(20), folder(whole))
    np.testing.assert_array_equal(again.read("ig").values, whole.read("ig").values)


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(methods={"ig": partial(integrated_gradients, points=5)}), "methods.ig is"),
        (dict(target=1), "targets.1 is nothing there and 1 now"),
        (dict(stored="float16"), "stored is float32 there and float16 now"),
        (dict(chunk=5), "program.chunk is 4 there and 5 now"),
        (dict(resume=False), "`store` must not exist for `resume=False`"),
    ],
)
def test_another_run_is_refused_with_what_differs(whole, change, told):
    with pytest.raises(ValueError, match=told):
        attribute(scorer(), images(20), folder(whole), **change)


@pytest.mark.slow
def test_several_targets_have_maps_of_their_own(tmp_path):
    f, x = scorer(), images(6)
    stored = attribute_dataset(
        f, x, tmp_path / "out.zarr", methods=["saliency"], target=[None, 3], stored="float16",
        progress=False,
    )  # fmt: skip
    assert stored.maps == ("saliency, predicted", "saliency, 3")
    wanted = saliency(f, x, target=3)
    found = stored.read("saliency, 3")
    np.testing.assert_allclose(found.values, wanted.values, rtol=2e-3, atol=1e-5)
    np.testing.assert_array_equal(found.target, 3)
    assert found.values.dtype == np.float32
    assert repr(stored).startswith("StoredAttribution(6 of 6 images done, saliency, predicted")


@pytest.mark.slow
def test_occlusion_and_functions_of_ones_own_are_methods(tmp_path):
    def covered(f, images, *, target):
        return jv.occlude(f, images, patch=(4, 5))

    f, x = scorer(), images(5)
    stored = attribute_dataset(
        f, x, tmp_path / "out.zarr", methods={"covered": covered}, target=2, progress=False
    )
    wanted = jv.occlude(f, x, patch=(4, 5)).heatmap(2)
    np.testing.assert_allclose(stored.read("covered").heatmap(), wanted, atol=1e-6)


@pytest.mark.slow
def test_bad_images_are_skipped(tmp_path):
    x = images(6)
    x[4] = np.nan
    with pytest.warns(UserWarning, match="1 of 6 images are bad"):
        stored = attribute(scorer(), x, tmp_path / "out.zarr", on_error="skip")
    assert [error.image for error in stored.errors] == [4]
    assert np.isnan(stored[4]["ig"].values).all() and np.isfinite(stored[5]["ig"].values).all()
    assert stored.predicted[4] == -1


@pytest.mark.slow
def test_an_interrupted_method_stops_the_run(tmp_path):
    def interrupted(f, images, *, target):
        result = saliency(f, images, target=target)
        return jv.attribution.result.replace(result, partial=True)

    with pytest.raises(KeyboardInterrupt):
        attribute(scorer(), images(6), tmp_path / "out.zarr", methods={"own": interrupted})
    assert find(connect(tmp_path / "out.zarr")) is None


def test_memory_that_runs_out_is_an_error_not_other_bits(tmp_path):
    def short(f, images, *, target):
        import warnings

        warnings.warn("out of memory at batch_size=4: going on with 2.", stacklevel=2)

    with pytest.raises(MemoryError, match="`batch_size` must fit into memory: 16 at once do not"):
        attribute(scorer(), images(6), tmp_path / "out.zarr", methods={"own": short})


@pytest.mark.slow
def test_kinds_of_stores_are_told_apart(tmp_path, whole):
    with pytest.raises(ValueError, match="must hold scores: .* holds attribution maps"):
        open_store(folder(whole))
    jv.occlude_dataset(scorer(), images(4), tmp_path / "o.zarr", patch=6, progress=False)
    with pytest.raises(ValueError, match="must hold attribution maps: .* holds scores"):
        open_attribution(tmp_path / "o.zarr")
    with pytest.raises(ValueError, match="`name` must be one of ig, rise: got 'lime'"):
        whole.read("lime")


def numbers(f, images, *, target):
    return np.zeros(images.shape[:3])


def every(f, images, *, target):
    return lime(f, images, target="all", segments=2, samples=4)


def huge(f, images, *, target):
    return saliency(lambda x: 1e6 * x.sum((1, 2)), images, target=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, error, told",
    [
        (dict(methods=["gradcam"]), ValueError, "functions of jaxviz.attribution: got 'gradcam'"),
        (dict(methods={}), ValueError, "`methods` must hold at least one"),
        (dict(methods={"own": 3}), ValueError, "and functions alone"),
        (dict(methods={"own": numbers}), TypeError, "must return an Attribution .* got ndarray"),
        (dict(methods={"own": every}), TypeError, "of one target, .* all 5 classes"),
        (dict(methods={"own": huge}, stored="float16"), ValueError, '"float16" does not hold'),
        (dict(target=[1, 1]), ValueError, "`target` must name each class once: got '1' twice"),
        (dict(target=[]), ValueError, "`target` must hold at least one class"),
        (dict(target=[[1, 2]]), ValueError, "`target` must be a class, None or several"),
        (dict(target=9), ValueError, "`target`"),
        (dict(stored="int8"), ValueError, '`stored` must be "float32" or "float16"'),
        (dict(chunk=0), ValueError, '`chunk` must be "auto" or a whole number from 1'),
    ],
)
def test_wrong_argument_is_refused(tmp_path, options, error, told):
    with pytest.raises(error, match=told):
        attribute(scorer(), images(4), tmp_path / "out.zarr", **options)


@pytest.mark.slow
def test_scores_must_be_classes(tmp_path):
    maps = lambda x: jnp.stack([x, x], -1)[:, 0]  # noqa: E731
    with pytest.raises(ValueError, match=r"`f` must give scores \(N, K\)"):
        attribute(maps, images(4), tmp_path / "out.zarr")
