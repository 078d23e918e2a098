"""What a report holds: log-probabilities, the classes that matter, and nothing that runs."""

import base64
import json
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz.viewer._encode import encode_map, encode_picture
from jaxviz.viewer._numbers import (
    keep_classes,
    kind_of,
    log_probabilities,
    score_image,
    surprise,
)

IMAGES = np.random.default_rng(0).random((2, 6, 6, 3)).astype(np.float32)


def scorer(images):
    return images[:, :4, :3].reshape(len(images), -1)[:, :9] * 8


def data_of(report):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.html, re.S)
    assert text
    return json.loads(text[1])


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture(scope="module")
def occ():
    return jv.occlude(scorer, IMAGES, patch=3, stride=2, fill=0.5)


def test_scores_come_back_as_log_probabilities_of_the_kept_classes(occ):
    data = data_of(jv.viewer.report(occ, IMAGES, keep=6))
    assert data["kind"] == "logits"
    for i, record in enumerate(data["images"]):
        scores = occ.scores[i].reshape(-1, 9).astype(np.float64)
        right = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        got = decoded(record["scores"], "<f2").reshape(-1, 6)
        np.testing.assert_allclose(got, right[:, record["kept"]], rtol=2e-3)
        np.testing.assert_array_equal(decoded(record["winners"], "<i4"), scores.argmax(-1))
        assert set(np.argsort(-occ.base[i])[:5]) <= set(record["kept"])


def test_where_patches_lie_and_what_fills_them_are_told(occ):
    data = data_of(jv.viewer.report(occ, IMAGES))
    assert data["positions"] == {
        "kind": "patches",
        "patch": [3, 3],
        "rows": list(occ.grid.row_starts),
        "cols": list(occ.grid.col_starts),
    }
    filled = np.asarray(Image.open(BytesIO(base64.b64decode(data["images"][0]["fill"][22:]))))
    assert np.isin(filled, (127, 128)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fill", "told"),
    [
        ("mean", "picture"),
        (jv.fills.blur(1.0), "picture"),
        ([0.1, 0.2, 0.3], "picture"),
        ("patch_mean", "mean"),
        (lambda under, key: under, None),
    ],
)
def test_the_record_of_a_run_says_how_its_patches_look(fill, told):
    occ = jv.occlude(scorer, IMAGES[0], patch=3, fill=fill)
    data = data_of(jv.viewer.report(occ, IMAGES[0]))
    assert data.get("filled") == told
    assert ("fill" in data["images"][0]) == (told == "picture")


def test_patches_are_painted_in_the_colours_of_the_pictures_beside_a_networks_units():
    pictures = np.random.default_rng(3).integers(0, 256, (1, 6, 6, 3), np.uint8)
    mean = np.array([104, 117, 123], np.float32)
    images = pictures[..., ::-1].astype(np.float32) - mean
    occ = jv.occlude(scorer, images, patch=3, fill=0.0)
    data = data_of(jv.viewer.report(occ, images, pictures=pictures))
    filled = np.asarray(Image.open(BytesIO(base64.b64decode(data["images"][0]["fill"][22:]))))
    np.testing.assert_array_equal(filled[0, 0], mean[::-1])
    unrelated = np.random.default_rng(4).integers(0, 256, (1, 6, 6, 3), np.uint8)
    assert "filled" not in data_of(jv.viewer.report(occ, images, pictures=unrelated))
    with pytest.raises(ValueError, match="`pictures` must suit `images`"):
        jv.viewer.report(occ, images, pictures=pictures[:, :4])


def test_segments_are_told_by_their_labels():
    labels = np.repeat(np.arange(3), 12).reshape(6, 6)
    occ = jv.occlude_segments(scorer, IMAGES, labels)
    data = data_of(jv.viewer.report(occ, IMAGES))
    np.testing.assert_array_equal(decoded(data["positions"]["labels"], "<i4"), labels.ravel())
    assert data["positions"]["groups"] == [[0], [1], [2]]


def test_maps_beside_an_occlusion_are_layers_by_name(occ):
    maps = np.random.default_rng(1).normal(size=(2, 6, 6))
    data = data_of(jv.viewer.report({"patches": occ, "noise": maps}, IMAGES))
    assert data["methods"] == ["patches", "noise"]
    record = data["images"][1]["maps"]["noise"]
    grey = np.asarray(Image.open(BytesIO(base64.b64decode(record["src"][22:]))), float)
    np.testing.assert_allclose((grey - 128) / 127 * record["scale"], maps[1], atol=0.02)


def test_a_map_without_a_value_is_told_from_zero():
    encoded = encode_map(np.array([[0.0, np.nan], [-2.0, 1.0]]))
    grey = np.asarray(Image.open(BytesIO(base64.b64decode(encoded["src"][22:]))))
    assert grey.tolist() == [[128, 0], [1, 192]]
    assert encode_map(np.zeros((2, 2)))["scale"] == 0


def test_photographs_are_jpeg_and_small_pictures_are_kept_exactly():
    small = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    uri = encode_picture(small)
    back = np.asarray(Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))))
    np.testing.assert_array_equal(back, small)
    assert encode_picture(np.zeros((224, 224, 3), np.uint8)).startswith("data:image/jpeg")


def test_what_scores_are_is_read_off_the_clean_ones():
    assert kind_of(np.array([[0.2, 0.8], [0.5, 0.5]])) == "probabilities"
    assert kind_of(np.array([[0.2, 0.9]])) == "logits"
    assert kind_of(np.array([[-1.0, 2.0]])) == "logits"
    assert kind_of(np.array([[0.7]])) == "probabilities"
    assert kind_of(np.array([[3.0]])) == "scores"
    np.testing.assert_allclose(
        log_probabilities(np.array([[1e3, 0.0]]), "logits"), [[0.0, -1e3]], atol=1e-9
    )


def test_classes_are_kept_that_were_asked_for_that_lead_and_that_rise():
    base = np.log(np.arange(20, 0, -1) / 210)
    positions = np.tile(base, (3, 1))
    positions[1, 17] = 0.0
    assert keep_classes(base, positions, [12], 7).tolist() == [12, 0, 1, 2, 3, 4, 17]
    assert keep_classes(base, np.full((3, 20), np.nan), [], 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_surprise_is_the_largest_drop_the_share_of_changes_and_the_disagreement(occ):
    data = data_of(jv.viewer.report([occ, -occ.heatmap()], IMAGES))
    p = np.exp(occ.scores.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    base = np.exp(occ.base.astype(np.float64))
    base /= base.sum(-1, keepdims=True)
    for i, record in enumerate(data["images"]):
        top = base[i].argmax()
        assert record["surprise"]["drop"] == pytest.approx((base[i, top] - p[i, ..., top]).max())
        assert record["surprise"]["changes"] == np.mean(p[i].argmax(-1) != top)
        assert record["surprise"]["disagreement"] == pytest.approx(2.0)


def test_an_unfinished_run_has_no_winner_where_nothing_was_computed(occ):
    scores = occ.scores.copy()
    scores[0, 0] = np.nan
    data = data_of(jv.viewer.report(replace(occ, scores=scores), IMAGES))
    width = scores.shape[2]
    assert (decoded(data["images"][0]["winners"], "<i4")[:width] == -1).all()
    assert np.isnan(decoded(data["images"][0]["scores"], "<f2").reshape(width, -1)[0]).all()


def test_one_score_that_is_no_probability_is_shown_as_it_is():
    occ = jv.occlude(lambda x: x.sum((1, 2, 3))[:, None], IMAGES, patch=3)
    data = data_of(jv.viewer.report(occ, IMAGES))
    assert data["kind"] == "scores"
    assert decoded(data["images"][0]["scores"], "<f4").shape == (4,)
    assert surprise.__doc__


def test_one_class_of_many_that_a_store_keeps_is_no_network_of_one_score():
    kept, base = np.array([7]), np.array([0.9])
    positions = np.array([[0.2], [0.8], [np.nan]])
    scored = score_image(base, positions, "probabilities", [], 5, kept, single=False)
    assert scored.answer == 7 and scored.winners.tolist() == [7, 7, -1]
    assert surprise(scored, "probabilities", [])["changes"] == 0
    one = score_image(base, positions, "probabilities", [], 5, np.array([0]), single=True)
    assert one.answer == 1 and one.winners.tolist() == [0, 1, -1]
    assert surprise(one, "probabilities", [])["changes"] == 0.5


def test_maps_disagree_where_both_are_known():
    scored = score_image(np.zeros(2), np.zeros((1, 2)), "logits", [], 5, single=False)
    a, b = np.array([[np.nan, 4, 5, 6]]), np.array([[9.0, 4, 5, 6]])
    assert surprise(scored, "logits", [a, b])["disagreement"] == pytest.approx(0)
    assert surprise(scored, "logits", [a, -b])["disagreement"] == pytest.approx(2)
    for values, disagreement in ([np.nan] * 4, 0), ([np.inf, np.nan, 1, 1], 1):
        assert surprise(scored, "logits", [np.array([values]), b])["disagreement"] == disagreement


@pytest.mark.parametrize("clean", [[np.nan, 0.0], [np.nan, np.nan], [np.inf, 0.0]])
def test_a_page_of_scores_that_are_not_finite_is_written(occ, clean):
    base = occ.base[:, :2].copy()
    base[0] = clean
    torn = replace(occ, base=base, scores=occ.scores[..., :2])
    with np.errstate(invalid="ignore"):
        record = data_of(jv.viewer.report(torn, IMAGES))["images"][0]
    assert record["surprise"]["changes"] == (0 if np.isnan(clean).any() else pytest.approx(0.5, 1))
    assert record["surprise"]["drop"] >= 0


HOSTILE = '</script><img src=x onerror="document.title=1">&amp;{{data}}'


def test_text_of_the_user_is_never_markup(occ):
    names = [HOSTILE] * 9
    report = jv.viewer.report(occ, IMAGES, class_names=names, names=[HOSTILE] * 2, title=HOSTILE)
    assert "<img" not in report.html
    assert report.html.count("</script>") == 2
    assert set(data_of(report)["classes"].values()) == {HOSTILE}


def test_the_page_allows_itself_its_own_script_and_style_only(occ):
    from hashlib import sha256

    page = jv.viewer.report(occ, IMAGES).html
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for kind, tag in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        text = re.search(tag, page, re.S)
        assert text
        digest = base64.b64encode(sha256(text[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"(src|href)=.?https?:|@import|\bfetch\(|eval\(", page)


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(occ, tmp_path):
    report = jv.viewer.report(occ, IMAGES)
    framed = report._repr_html_()
    assert framed.startswith("<iframe srcdoc=") and 'sandbox="allow-scripts' in framed
    assert repr(report).startswith("Report(2 images, ")
    assert report.save(tmp_path / "x.html").read_text(encoding="utf-8") == report.html


@pytest.mark.parametrize(
    ("results", "options", "said"),
    [
        ("two", {}, "`results` must hold one occlusion with positions at most: got 2"),
        ([], {}, "`results` must hold a result or a map: got none"),
        (np.zeros((3, 6, 6)), {}, r"one map \(H, W\) an image: got \(3, 6, 6\)"),
        ("one", {"classes": [9]}, "`classes` must lie in 0 to 8"),
        ("one", {"class_names": ["a"]}, "`class_names` must name every class: got 1 for 9"),
        ("one", {"names": ["a"]}, "`names` must have one per image: got 1 of 2"),
    ],
)
def test_what_does_not_fit_is_told(occ, results, options, said):
    given = {"two": [occ, occ], "one": occ}[results] if isinstance(results, str) else results
    with pytest.raises(ValueError, match=said):
        jv.viewer.report(given, IMAGES, **options)


def test_images_of_another_run_are_refused(occ):
    with pytest.raises(ValueError, match="`images` must be those of the result: got 1 for 2"):
        jv.viewer.report(occ, IMAGES[:1])
    with pytest.raises(ValueError, match="1 to 32 channels: got .*40"):
        jv.viewer.report(occ, np.zeros((2, 6, 6, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 4, 7])
def test_images_of_other_channels_are_shown_in_colours_with_their_patches(rng, channels):
    images = rng.uniform(0.3, 0.7, (2, 6, 6, channels)).astype(np.float32)
    occ = jv.occlude(lambda x: x.mean((1, 2)), images, patch=3, fill=0.5)
    many, one = jv.viewer.report(occ, images), jv.viewer.report(occ, images, pictures=images)
    assert many.count == 2 and many.html == one.html
    single = jv.occlude(lambda x: x.mean((1, 2)), images[0], patch=3, fill=0.5)
    assert jv.viewer.report(single, images[0]).count == 1


@pytest.mark.slow
def test_sixty_four_images_with_many_positions_stay_under_ten_megabytes():
    from dataclasses import replace

    images = np.random.default_rng(0).random((64, 56, 56, 3)).astype(np.float32)
    occ = jv.occlude(lambda x: x[:, ::14, ::14].reshape(len(x), -1), images[:1], patch=4, stride=1)
    many = np.random.default_rng(1).normal(size=(64, *occ.scores.shape[1:])).astype(np.float32)
    report = jv.viewer.report(replace(occ, scores=many, base=many[:, 0, 0]), images)
    assert np.prod(occ.grid.shape) == 2809
    assert len(report.html) < 10e6
