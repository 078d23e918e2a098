"""The table of methods and metrics: numbers, errors, what is undefined, how it is shown."""

import json
from functools import partial

import numpy as np
import pytest
from scipy.stats import ttest_rel
from scorers import weighted_sums

import jaxviz as jv

SHAPE = (6, 5, 1)


@pytest.fixture(scope="module")
def case():
    """A linear scorer, images, and three maps of them."""
    images = np.random.default_rng(0).random((8, *SHAPE)).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(2, 8, *SHAPE[:2]))
    return (
        weighted_sums(SHAPE),
        images,
        {"one": noise[0], "other": noise[1] + 1, "none": 0 * noise[0]},
    )


@pytest.fixture(scope="module")
def table(case):
    f, images, maps = case
    return jv.metrics.compare(
        f, images, maps, target=1, seed=5,
        metrics={
            "SRG": partial(jv.metrics.srg, steps=4, fill=0.0),
            "fidelity": partial(jv.metrics.mu_fidelity, grid=3, samples=12),
            "n": partial(jv.metrics.sensitivity_n, samples=5, shares=(0.3, 0.6)),
            "sparseness": "sparseness",
            "mine": lambda maps: maps[:, 0, 0],
        },
    )  # fmt: skip


@pytest.mark.slow
def test_it_holds_what_the_metrics_give(case, table):
    import jax

    f, images, maps = case
    key = jax.random.key(5)
    for i, given in enumerate(maps.values()):
        gain = jv.metrics.srg(f, images, given, target=1, steps=4, fill=0.0, key=key)
        np.testing.assert_array_equal(table.values[i, 0], gain.value)
        fidelity = jv.metrics.mu_fidelity(f, images, given, target=1, grid=3, samples=12, key=key)
        np.testing.assert_array_equal(table.values[i, 1], fidelity)
        n = jv.metrics.sensitivity_n(
            f, images, given, target=1, samples=5, shares=(0.3, 0.6), key=key
        )
        np.testing.assert_array_equal(table.values[i, 2], n.mean(-1))
        np.testing.assert_array_equal(table.values[i, 4], given[:, 0, 0])
    assert table.better == ("up", "up", "up", "", "")


@pytest.mark.slow
def test_means_errors_and_counts(table):
    for i, j in np.ndindex(3, 5):
        values = [v for v in table.values[i, j] if not np.isnan(v)]
        assert table.n[i, j] == len(values)
        if values:
            assert table.mean[i, j] == pytest.approx(np.mean(values))
            assert table.error[i, j] == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5)
    assert np.isnan(table.mean[2, 1]) and np.isnan(table.error[2, 1]) and table.n[2, 1] == 0


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_differences_are_paired(table, level):
    found = table.difference("one", "other", "SRG", level=level)
    test = ttest_rel(table.values[0, 0], table.values[1, 0])
    interval = test.confidence_interval(level)
    assert found.n == 8
    np.testing.assert_allclose([found.low, found.high], interval, rtol=1e-9)
    assert found.mean == pytest.approx(np.mean(table.values[0, 0] - table.values[1, 0]))


def test_undefined_images_have_no_difference(table):
    found = table.difference("one", "none", "fidelity")
    assert found.n == 0 and np.isnan(found.mean)


def test_it_can_be_kept_as_json(table):
    kept = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert kept["seed"] == 5 and kept["images"] == 8
    assert kept["methods"]["none"]["fidelity"] == {
        "mean": None, "error": None, "n": 0, "undefined": 8, "values": [None] * 8
    }  # fmt: skip
    assert kept["methods"]["one"]["SRG"]["values"] == table.values[0, 0].tolist()
    assert kept["better"]["SRG"] == "up"
    assert kept["config"]["SRG"] == "srg(steps=4, fill=0.0)"


def test_it_can_be_read(table):
    lines = repr(table).split("\n")
    assert lines[0].split() == ["SRG", "↑", "fidelity", "↑", "n", "↑", "sparseness", "mine"]
    assert lines[1].startswith("one ") and "±" in lines[1]
    assert "undefined" in lines[3]
    assert lines[-1] == "8 images, mean ± standard error, seed 5"
    assert "<th>SRG ↑</th>" in table._repr_html_()
    some = jv.metrics.Comparison(np.asarray([[[1.0, np.nan]]]), ("<b>",), ("m",))
    assert "1 (n = 1)" in repr(some)
    assert "&lt;b&gt;" in some._repr_html_()


def test_it_is_drawn(table):
    figure = table.plot(title="Three maps")
    assert figure._repr_png_()[:4] == b"\x89PNG"  # a notebook shows it, without pyplot too
    assert [axes.get_title() for axes in figure.axes][:2] == ["SRG ↑", "fidelity ↑"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["one", "other", "none"]


def test_one_image_has_no_error(case):
    f, images, maps = case
    table = jv.metrics.compare(
        f, images[0], {"one": maps["one"][0]}, metrics=["sparseness", "complexity"]
    )
    assert table.values.shape == (1, 2, 1) and np.isnan(table.error).all()
    assert "±" not in repr(table).split("\n")[1]


def test_floors_know_nothing_of_the_scorer(case):
    _, images, _ = case
    floors = jv.metrics.floors(images)
    assert {name: maps.shape for name, maps in floors.items()} == {
        "random": (8, 6, 5), "edges": (8, 6, 5)
    }  # fmt: skip
    step = np.zeros((5, 6, 1), np.float32)
    step[:, 3:] = 1
    edges = jv.metrics.floors(step)["edges"]
    assert (edges[:, 2:4] > 0).all() and (edges[:, [0, 1, 4, 5]] == 0).all()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["fidelity"], "`metrics` must be functions, or of srg, .*: got 'fidelity'"),
        ([], "must each name at least one"),
        (["srg", "srg"], "`metrics` must have different names"),
        (["pointing_game"], "pointing_game needs `masks`"),
        ([jv.metrics.max_sensitivity], "max_sensitivity needs `attribute`"),
        ({"two": lambda maps: maps[:2, 0, 0]}, "two must give one number per image"),
    ],
)
def test_what_breaks_a_rule_is_told(case, metrics, message):
    f, images, maps = case
    with pytest.raises(ValueError, match=message):
        jv.metrics.compare(f, images, {"one": maps["one"]}, metrics=metrics)


def test_unknown_names_of_a_difference_are_told(table):
    for options, message in [
        (("one", "nobody", "SRG"), "`method` must be one of one, other, none: got 'nobody'"),
        (("one", "other", "srg"), "`metric` must be one of SRG"),
    ]:
        with pytest.raises(ValueError, match=message):
            table.difference(*options)
    with pytest.raises(ValueError, match="`level` must lie between 0 and 1"):
        table.difference("one", "other", "SRG", level=1.0)


def test_drawing_a_table_of_other_shapes_is_told():
    with pytest.raises(ValueError, match="`mean` and `error` must be"):
        jv.plot.table(["a"], ["b"], np.ones((2, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="`named` must hold at least one curve"):
        jv.plot.curves({})


def test_no_function_shares_its_name_with_a_module():
    """Importing such a module would put it in the function's place."""
    from pathlib import Path

    modules = {path.stem for path in Path(jv.metrics.__file__).parent.glob("*.py")}
    assert not modules & set(jv.metrics.__all__)
