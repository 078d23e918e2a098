"""The page in a real browser: pointing, keys, classes, many images, hostile names."""

import time

import numpy as np
import pytest
from browser import browser

import jaxviz as jv

HOSTILE = "<img src=x onerror=\"document.title='run'\"></script>"
NAMES = ["zero", "one", HOSTILE, "three"]


def scorer(images):
    quarters = [images[:, :4, :4], images[:, :4, 4:], images[:, 4:, :4], images[:, 4:, 4:]]
    return np.float32(6) * jv.tag("quarters", _stack(quarters))


def _stack(parts):
    import jax.numpy as jnp

    return jnp.stack([part.mean((1, 2, 3)) for part in parts], -1)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = rng.random((64, 8, 8, 3)).astype(np.float32) * 0.2
    images[0, :4, :4] = 0.9
    occ = jv.occlude(scorer, images, patch=4, stride=2, fill=0.0)
    report = jv.viewer.report(
        {"occlusion": occ, "noise": rng.normal(size=(64, 8, 8))},
        images,
        class_names=NAMES,
        names=[f"{i}{HOSTILE}" for i in range(64)],
    )
    return report.save(tmp_path_factory.mktemp("page") / "page.html").as_uri(), occ


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def opened(chrome, page):
    chrome.get("about:blank")
    chrome.get(page[0])
    wait(lambda: "Point at" in text(chrome, "told"))
    yield chrome
    assert [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(condition, tries=100):
    for _ in range(tries):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the page did not come to be as it should")


def find(driver, name):
    return driver.find_element("id", name)


def text(driver, name):
    return find(driver, name).text


def point(driver, x, y):
    """Move the pointer to a pixel of the image."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = find(driver, "canvas")
    unit = canvas.size["width"] / 8
    offset = (round((x - 4) * unit), round((y - 4) * unit))
    ActionChains(driver).move_to_element_with_offset(canvas, *offset).perform()


def percent(value):
    return f"{100 * value:.1f} %"


def probabilities(scores):
    p = np.exp(scores.astype(np.float64))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.slow
def test_pointing_shows_what_the_network_answered_before_and_after(opened, page):
    occ = page[1]
    point(opened, 1.5, 1.5)
    wait(lambda: "row 0, column 0" in text(opened, "told"))
    clean, covered = probabilities(occ.base[0])[0], probabilities(occ.scores[0, 0, 0])[0]
    assert f"zero {percent(clean)} → {percent(covered)}" in text(opened, "told")
    assert text(opened, "readings").startswith("Under the pointer")
    pixel = opened.execute_script(
        "const c = document.getElementById('canvas');"
        "const at = c.width / 8 * 1.5;"
        "return [...c.getContext('2d').getImageData(at, at, 1, 1).data]"
    )
    assert pixel == [0, 0, 0, 255]  # the patch is drawn with its fill


@pytest.mark.slow
def test_clicks_keep_two_positions_and_escape_lets_go(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for x, y in ((1.5, 1.5), (6, 6), (6, 1.5)):
        point(opened, x, y)
        ActionChains(opened).click().perform()
    wait(lambda: "Kept B" in text(opened, "readings"))
    assert "row=0" in opened.current_url and "col=2" in opened.current_url
    ActionChains(opened).send_keys(Keys.ESCAPE).perform()
    wait(lambda: "Kept" not in text(opened, "readings"))
    assert "row=" not in opened.current_url


@pytest.mark.slow
def test_keys_move_the_patch_change_the_image_and_choose_a_layer(opened):
    from selenium.webdriver.common.keys import Keys

    canvas = find(opened, "canvas")
    canvas.send_keys(Keys.ARROW_DOWN)
    wait(lambda: "row 1, column 1" in text(opened, "told"))  # the first key goes to the middle
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    wait(lambda: "row 2, column 0" in text(opened, "told"))
    canvas.send_keys(Keys.ENTER)
    wait(lambda: "row=2&col=0" in opened.current_url)
    canvas.send_keys(Keys.PAGE_DOWN)
    wait(lambda: text(opened, "caption").startswith("1<img"))
    for key, layer in (("2", "class map"), ("3", "noise"), ("1", "occlusion")):
        canvas.send_keys(key)
        wait(lambda layer=layer: find(opened, "canvas").accessible_name.endswith(f"layer {layer}"))


@pytest.mark.slow
def test_a_class_is_chosen_by_the_beginning_of_its_name(opened):
    from selenium.webdriver.common.keys import Keys

    find(opened, "canvas").send_keys("/")
    assert opened.switch_to.active_element.get_attribute("id") == "class"
    opened.switch_to.active_element.send_keys("thr", Keys.ENTER)
    wait(lambda: "class=3" in opened.current_url)
    assert find(opened, "class").get_attribute("value") == "three"
    find(opened, "class").send_keys("nothing like it", Keys.ENTER)
    wait(lambda: find(opened, "class").get_attribute("value") == "three")


def test_a_link_opens_the_image_class_and_position_that_it_names(chrome, page):
    chrome.get("about:blank")
    chrome.get(page[0] + "#image=5&class=1&row=2&col=0")
    wait(lambda: "row 2, column 0 covered: one" in text(chrome, "told"))
    assert text(chrome, "caption").startswith("5<img")
    chrome.get("about:blank")
    chrome.get(page[0] + "#image=99&class=x&row=-1&col=<b>")
    wait(lambda: text(chrome, "caption").startswith("0<img"))


@pytest.mark.slow
def test_images_are_sorted_by_surprise_and_chosen_in_the_gallery(opened, page):
    from selenium.webdriver.support.ui import Select

    assert len(opened.find_elements("css selector", "#thumbnails button")) == 64
    for by in ("drop", "changes", "disagreement", "order"):
        Select(find(opened, "sort")).select_by_value(by)
    opened.find_elements("css selector", "#thumbnails button")[7].click()
    wait(lambda: text(opened, "caption").startswith("7<img"))
    Select(find(opened, "sort")).select_by_value("drop")
    wait(lambda: text(opened, "caption").startswith("0<img"))


@pytest.mark.slow
def test_names_are_text_and_nothing_leaves_the_page(opened):
    find(opened, "help-button").click()
    assert find(opened, "help").is_displayed()
    assert opened.title == "What the network looks at"
    assert opened.find_elements("css selector", "main img[onerror]") == []
    entries = opened.get_log("performance")
    assert entries
    assert not [e for e in entries if '"url":"http' in e["message"]]


@pytest.mark.slow
def test_quantities_and_scales_can_be_changed(opened):
    from selenium.webdriver.support.ui import Select

    for quantity in ("probability", "logodds", "drop"):
        Select(find(opened, "quantity")).select_by_value(quantity)
        for scale in ("all", "image"):
            Select(find(opened, "scale")).select_by_value(scale)
            wait(lambda: text(opened, "high") not in ("", "0"))
    assert text(opened, "high").endswith("%")


@pytest.mark.slow
def test_a_page_of_maps_alone_has_no_positions(chrome, tmp_path):
    images = np.random.default_rng(0).random((1, 8, 8, 3))
    path = jv.viewer.report({"a": images[..., 0], "b": images[..., 1]}, images).save(
        tmp_path / "x.html"
    )
    chrome.get(path.as_uri())
    wait(lambda: text(chrome, "caption") == "image 0")
    assert not find(chrome, "class-label").is_displayed()
    assert not find(chrome, "gallery").is_displayed()
    assert [e for e in chrome.get_log("browser") if e["level"] == "SEVERE"] == []
