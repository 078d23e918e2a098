"""Maps of many images judged into a store: the table of `compare`; what differs is refused."""

import functools
import signal
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scale_run import SHAPE, events, files, images, judge, pixels, scorer, start, wait_for

import jaxviz as jv
from jaxviz.metrics.run import InterruptedWarning
from jaxviz.scale.dataset import occlude_dataset
from jaxviz.scale.described import described
from jaxviz.scale.judged import open_comparison
from jaxviz.scale.reader import open_store
from jaxviz.scale.store import Store, connect, find

WRITES = 5  # of arrays, per chunk: value, target, base, predicted, error, and then status
ARRAY = np.random.default_rng(2).normal(size=(20, *SHAPE[:2]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, of all 20 images."""
    return judge(scorer(), images(20), tmp_path_factory.mktemp("whole") / "out.zarr")


def folder(stored):
    return stored.url.removeprefix("file://")


@pytest.mark.slow
def test_the_table_is_that_of_compare_of_all_images(whole):
    f, x = scorer(), images(20)
    base = np.asarray(f(x))
    classes = base.argmax(-1)
    maps = {"noise": ARRAY, "pixels": pixels(f, x, target=classes)}
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(20)]
    each = [jv.metrics.floors(image, key=key) for image, key in zip(x, keys, strict=True)]
    maps |= {name: np.stack([one[name] for one in each]) for name in ("random", "edges")}
    table = jv.metrics.compare(
        f, x, maps, target=classes,
        metrics={
            "srg": partial(jv.metrics.srg, steps=3, fill=0.0),
            "fidelity": partial(jv.metrics.mu_fidelity, grid=3, samples=5),
        },
    )  # fmt: skip
    found = whole.table()
    assert (found.methods, found.metrics) == (table.methods, table.metrics)
    np.testing.assert_allclose(found.values, table.values, atol=1e-6)
    assert found.better == ("up", "up") and found.seed == 0
    np.testing.assert_allclose(whole.base, base, atol=1e-6)
    assert whole.predicted.tolist() == whole.target.tolist() == classes.tolist()
    one = found.difference("pixels", "random", "srg")
    two = table.difference("pixels", "random", "srg")
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.slow
def test_killed_run_is_finished_to_the_same_bits(tmp_path, whole):
    store, log = tmp_path / "out.zarr", tmp_path / "log"
    assert start(store, judge=True, die_at=2 * (WRITES + 1) + 3).wait() == -signal.SIGKILL
    assert open_comparison(store).done.sum() == 8
    assert open_comparison(store).table().values.shape == (4, 2, 8)
    judge(scorer(), images(20), store, log=log)
    assert files(store) == files(folder(whole))
    assert sum(event["event"] == "chunk" for event in events(log)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("write", [0, WRITES, 4 * WRITES])
def test_run_killed_at_any_write_is_finished_to_the_same_bits(tmp_path, whole, write):
    store = tmp_path / "out.zarr"
    assert start(store, judge=True, die_at=write).wait() == -signal.SIGKILL
    assert open_comparison(store).done.sum() == write // (WRITES + 1) * 4
    judge(scorer(), images(20), store)
    assert files(store) == files(folder(whole))


@pytest.mark.slow
def test_interrupted_run_keeps_what_was_judged(tmp_path, whole):
    store, log, gate = tmp_path / "out.zarr", tmp_path / "log", tmp_path / "gate"
    run = start(store, judge=True, gate=[12, str(gate)], log=str(log))
    wait_for(log, run)
    while len(events(log)) < 3:
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    gate.touch()
    assert run.wait() != 0
    done = open_comparison(store).done
    assert 0 < done.sum() <= 20
    np.testing.assert_array_equal(open_comparison(store).table().values, whole.table(done).values)
    judge(scorer(), images(20), store)
    assert files(store) == files(folder(whole))


def test_what_is_not_scored_is_not_kept(tmp_path):
    def interrupted(maps):
        import warnings

        warnings.warn("interrupted", InterruptedWarning, stacklevel=2)

    with pytest.raises(KeyboardInterrupt):
        judge(scorer(), images(20), tmp_path / "out.zarr", metrics={"mine": interrupted})
    assert not open_comparison(tmp_path / "out.zarr").done.any()

    def partly(f, images, *, target):
        maps = jv.attribution.saliency(f, images, target=target)
        return maps.__class__(**{**vars(maps), "partial": True})

    with pytest.raises(KeyboardInterrupt):
        judge(scorer(), images(20), tmp_path / "b.zarr", maps={"partly": partly})
    assert not open_comparison(tmp_path / "b.zarr").done.any()


def test_finished_store_is_not_judged_again(whole, monkeypatch):
    monkeypatch.setattr(Store, "write", None)
    again = judge(scorer(), images(20), folder(whole))
    np.testing.assert_array_equal(again.table().values, whole.table().values)
    assert repr(again).startswith("StoredComparison(20 of 20 images done, 4 methods, 2 metrics, ")


def other_pixels(f, images, *, target):
    return 2 * images[..., 0]


CHANGES = [
    ({"f": scorer(2.0)}, r"model.fingerprint is \w+… there and \w+… now"),
    ({"source": images(20)[::-1]}, "source.samples.0 is"),
    ({"seed": 1}, "seed is 0 there and 1 now"),
    ({"target": 3}, "target is None there and 3 now"),
    ({"target": np.arange(20) % 5}, r"target is None there and int64\(20,\)#"),
    ({"floors": False}, "floors is True there and False now"),
    ({"maps": {"noise": ARRAY + 1, "pixels": pixels}}, r"maps.noise is float64\(20, 12, 10\)#"),
    (
        {"maps": {"noise": ARRAY, "pixels": other_pixels}},
        r"maps.pixels is pixels#\w+ there and other_pixels#",
    ),
    ({"maps": {"pixels": pixels, "noise": ARRAY}}, "order.maps is"),
    ({"metrics": ["srg"]}, "metrics.fidelity is jaxviz.metrics.fidelity.mu_fidelity"),
    ({"metrics": {"srg": partial(jv.metrics.srg, steps=4, fill=0.0)}}, "srg.steps=3, fill=0.0. th"),
    ({"chunk": 5}, "program.chunk is 4 there and 5 now"),
    ({"batch_size": 3}, r"program.batch is \d\d there and 3 now"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[next(iter(c)) for c, _ in CHANGES])
def test_another_run_is_refused_with_what_differs(whole, change, told):
    settings = {"f": scorer(), "source": images(20), **change}
    with pytest.raises(ValueError, match=f"`store` must be of the same run: .*{told}"):
        judge(settings.pop("f"), settings.pop("source"), folder(whole), **settings)


def test_stores_of_two_kinds_are_told_apart(tmp_path, whole):
    scores = occlude_dataset(
        scorer(), images(20), tmp_path / "a.zarr", patch=4, stride=4, progress=False
    )
    with pytest.raises(ValueError, match="there are nothing there, not judged maps"):
        judge(scorer(), images(20), tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="`store` must hold judged maps: .* holds scores"):
        open_comparison(folder(scores))
    with pytest.raises(ValueError, match="`store` must hold scores: .* holds judged maps"):
        open_store(folder(whole))


@pytest.mark.slow
def test_maps_of_a_store_of_scores_are_its_heatmaps(tmp_path):
    f, x = scorer(), images(6)
    settings = {"patch": 4, "stride": 2, "progress": False}
    every = occlude_dataset(f, x, tmp_path / "every.zarr", **settings)
    best = occlude_dataset(f, x, tmp_path / "best.zarr", top=2, **settings)
    maps = {"every": every, "best": best, "occlude": jv.occlude(f, x, patch=4, stride=2).heatmap()}
    mine = {"mine": lambda maps: maps.std((1, 2))}
    found = judge(f, x, tmp_path / "out.zarr", maps=maps, metrics=mine, floors=False)
    values = found.table().values
    np.testing.assert_allclose(values[0], values[2], rtol=1e-5)
    np.testing.assert_array_equal(values[0], values[1])
    with pytest.raises(ValueError, match="`maps` must hold the scores that are judged: .* class"):
        maps = {"best": best}
        judge(f, x, tmp_path / "b.zarr", maps=maps, target=int(f(x)[0].argmin()), metrics=mine)


def test_methods_and_metrics_get_the_batch_of_the_run(tmp_path):
    batches = []

    def maps(f, images, *, target, batch_size):
        batches.append(("maps", len(images), batch_size))
        return images[..., 0]

    def metric(maps, batch_size, memory, mesh):
        batches.append(("metric", len(maps), batch_size))
        return maps.mean((1, 2))

    settings = {"maps": {"a": maps}, "metrics": {"m": metric}, "floors": False}
    judge(scorer(), images(5), tmp_path / "out.zarr", batch_size=3, **settings)
    assert batches == [("maps", 4, 3), ("metric", 4, 3), ("maps", 1, 3), ("metric", 1, 3)]


def test_bad_images_are_skipped_or_stop_the_run(tmp_path):
    x = list(images(6))
    x[4] = np.full(SHAPE, np.nan, np.float32)
    array = ARRAY[:6].copy()
    array[4] = np.nan
    settings = {"maps": {"noise": array}, "metrics": ["sparseness"]}
    with pytest.raises(ValueError, match="`source`: image 4 is bad: "):
        judge(scorer(), x, tmp_path / "out.zarr", **settings)
    with pytest.warns(UserWarning, match="1 of 2 images are bad"):
        found = judge(scorer(), x, tmp_path / "out.zarr", on_error="skip", **settings)
    assert [e.image for e in found.errors] == [4] and found.target[4] == -1
    assert found.table().values.shape == (3, 1, 5)
    assert np.isfinite(found.table().values).all()
    x[4] = images(6)[4]
    with pytest.raises(ValueError, match="`maps` must be finite"):
        judge(scorer(), x, tmp_path / "out.zarr", **settings)


def standardised(f, images, *, target):
    return (images / images.std((1, 2, 3), keepdims=True)).sum(-1)  # NaN where all are equal


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_what_a_function_makes_of_a_bad_image_does_not_matter(tmp_path, array):
    x, torn = images(6), list(images(6))
    torn[1] = torn[4] = torn[5] = np.full(SHAPE, np.nan, np.float32)

    def maps(f, images, *, target):
        return array(standardised(f, images, target=target))

    settings = {"maps": {"a": maps}, "metrics": ["sparseness"], "chunk": 2}
    whole = judge(scorer(), x, tmp_path / "whole.zarr", **settings)
    with pytest.warns(UserWarning, match="3 of 6 images are bad"):
        found = judge(scorer(), torn, tmp_path / "out.zarr", on_error="skip", **settings)
    assert [e.image for e in found.errors] == [1, 4, 5]  # the last chunk holds nothing else
    assert found.target.tolist() == [
        t if i not in (1, 4, 5) else -1 for i, t in enumerate(whole.target)
    ]
    np.testing.assert_array_equal(found.table().values, whole.table().values[..., [0, 2, 3]])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"maps": {}, "floors": False}, "`maps` and `metrics` must each name at least one"),
        ({"metrics": []}, "`maps` and `metrics` must each name at least one"),
        ({"metrics": ["best"]}, "`metrics` must be functions, or of srg"),
        ({"maps": {"edges": ARRAY}}, '`maps` must not be called "random" or "edges" beside'),
        ({"maps": {"a": ARRAY[:3]}}, r"`maps` must be one per image, \(20, 12, 10\): a is of sh"),
        ({"maps": {"a": lambda f, images: object(), "b": object()}}, "`maps` must be one per im"),
        ({"maps": {"a": partial(pixels, scale=object())}}, "`maps` must be known again by a run"),
        ({"target": np.ones((20, 5)) / 5}, "`target` must be classes here: got weights"),
        ({"target": 5}, "`target` must"),
        ({"chunk": 0}, '`chunk` must be "auto" or a whole number from 1: got 0'),
        ({"batch_size": "many"}, '`batch_size` must be "auto" or a whole number from 1: got'),
        ({"f": lambda x: x}, r"`f` must give scores \(N, K\)"),
        ({"on_error": "stop"}, "`on_error` must be"),
        ({"memory": 0}, "`memory` must be"),
    ],
)
def test_wrong_argument_is_refused_before_a_store_is_made(tmp_path, change, told):
    settings = {"f": scorer(), "source": images(20), **change}
    with pytest.raises(ValueError, match=told):
        judge(settings.pop("f"), settings.pop("source"), tmp_path / "out.zarr", **settings)
    assert find(connect(tmp_path / "out.zarr")) is None


def make(shift):
    return lambda f, images, *, target: images[..., 0] + shift


@pytest.mark.slow
def test_functions_are_known_by_code_closure_and_options():
    def text(value):
        return described(value, "maps")

    assert text(make(1)) == text(make(1)) != text(make(2))
    assert text(make(np.ones(2))) == text(make(np.ones(2))) != text(make(np.zeros(2)))
    assert text(partial(pixels, a=1)) != text(partial(pixels, a=2))
    assert text(lambda x: x + 1) == text(lambda x: x + 1) != text(lambda x: x + 2)
    assert text(lambda x: x in {"a", "b"}) == text(lambda x: x in {"a", "b"})
    rise = partial(jv.attribution.rise, key=jax.random.key(0), fill=jv.fills.blur(2.0))
    same = partial(jv.attribution.rise, key=jax.random.key(0), fill=jv.fills.blur(2.0))
    other = partial(jv.attribution.rise, key=jax.random.key(0), fill=jv.fills.blur(3.0))
    assert text(rise) == text(same) != text(other)
    assert text(rise).startswith("jaxviz.attribution.sampling.rise(key=key<fry>()#")
    assert text(scorer()) == text(scorer()) != text(scorer(2.0))
    assert text({"a": [1, None], "b": {2, 1}}) == "{'a': (1, None), 'b': {1, 2}}"

    def calls_itself(n):
        return calls_itself(n - 1) if n else 0

    assert "calls_itself#" in text(calls_itself)


def doubled(by):
    @functools.wraps(jv.attribution.saliency)
    def mine(f, images, *, target):
        return jv.attribution.saliency(f, by * images, target=target)

    return mine


def maker(changed):
    """Two versions of a class."""

    @dataclass(frozen=True)
    class Maker:
        scale: float = 1.0

        def __call__(self, f, images, *, target):
            return images[..., 0] * self.scale + changed

        def maps(self, f, images, *, target):
            return images[..., 0] - (2 if changed else 1)

    return Maker()


def test_code_behind_a_borrowed_name_an_object_and_a_method_counts():
    def text(value):
        return described(value, "maps")

    saliency = text(jv.attribution.saliency)
    assert text(doubled(2)) == text(doubled(2)) != text(doubled(3))
    assert saliency == "jaxviz.attribution.gradients.saliency" not in text(doubled(2))
    assert text(maker(0)) == text(maker(0)) != text(maker(1))
    assert text(maker(0).maps) == text(maker(0).maps) != text(maker(1).maps)
    assert text(jax.jit(doubled(2))) == text(doubled(2))
