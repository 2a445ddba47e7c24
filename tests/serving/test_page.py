"""The web page in a real browser: what a visitor sees, with mouse or keyboard, on a desk or a phone, alone or not."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, open_browser, requested_hosts, resize
from PIL import Image

pytest.importorskip("gradio", reason='the web page needs the extra diffrgen[serve]')
pytest.importorskip("selenium", reason="driving the page needs selenium")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium or chromedriver is absent: apt-get install chromium chromium-driver", allow_module_level=True)
from page_server import serving
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from diffrgen.explanation import Explainer
from diffrgen.page import render_fragment
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.reporter import Reporter

PHONE = (390, 844)
PICTURE = re.compile(r'src="(data:image/[a-z]+;base64,[^"]+)"')
WAIT = 60


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    with serving(tiny_run, tmp_path_factory.mktemp("serve"), "--max-megapixels", "1") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def other_browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("other")) as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    return opened(browser, server)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Two films that no one would confuse."""
    folder, ramp = tmp_path_factory.mktemp("images"), np.add.outer(np.arange(60), np.arange(60)).astype(np.uint8) * 2
    paths = [folder / "rising.png", folder / "falling.png"]
    for path, values in zip(paths, (ramp, 255 - ramp), strict=True):
        Image.fromarray(values).save(path)
    return paths


@pytest.fixture(scope="module")
def expected(tiny_run, images) -> list[str]:
    """The fragments that the model, asked directly, gives for `images`."""
    explained = Explainer(Reporter(tiny_run)).explain(images, GenerationOptions())
    return [render_fragment(each) for each in explained]


def opened(browser, server):
    resize(browser, 1280, 1000)
    browser.get(server.url)
    find(browser, "form.study")
    return browser


def find(browser, selector: str):
    return WebDriverWait(browser, WAIT).until(lambda b: b.find_elements(By.CSS_SELECTOR, selector))[0]


def write(page) -> None:
    page.find_element(By.CSS_SELECTOR, "button[type=submit]").click()


def press(page, key: str) -> None:
    ActionChains(page).send_keys(key).perform()


def problem(page) -> str:
    """The message that the page shows, once it does."""
    return WebDriverWait(page, WAIT).until(lambda b: b.find_element(By.CSS_SELECTOR, "[role=alert]").text)


def pictures(page) -> list[str]:
    find(page, "[data-answer]")
    return [image.get_attribute("src") for image in page.find_elements(By.CSS_SELECTOR, "#answer article img")]


def test_an_uploaded_image_gets_its_report_and_reasons(page, server, images, expected):
    page.find_element(By.ID, "image").send_keys(str(images[0]))
    assert page.find_element(By.CSS_SELECTOR, ".preview").is_displayed()
    write(page)
    shown = pictures(page)
    assert shown == PICTURE.findall(expected[0])
    assert all(image.get_property("naturalWidth") > 50 for image in page.find_elements(By.CSS_SELECTOR, "#answer img"))
    text = page.find_element(By.CSS_SELECTOR, "#answer article").text
    for heading in re.findall(r"<h2[^>]*>([^<]+)</h2>", expected[0]):
        assert heading.lower() in text.lower()
    WebDriverWait(page, WAIT).until(lambda b: b.switch_to.active_element.text == "Result")


def test_the_page_says_what_it_is_for(page):
    assert "Research use only, not for diagnosis." in page.find_element(By.CSS_SELECTOR, "header [role=note]").text
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert "Gradio" not in page.find_element(By.TAG_NAME, "body").text


def test_an_example_gets_a_report(page):
    examples = page.find_elements(By.CSS_SELECTOR, "[data-example]")
    assert len(examples) == 6
    examples[2].click()
    assert [each.get_attribute("aria-pressed") for each in examples] == ["false"] * 2 + ["true"] + ["false"] * 3
    write(page)
    assert pictures(page)


def test_an_earlier_study_is_used(page, tiny_run, images):
    """An image and a report of it, beside the image to report: what the model, asked directly, makes of them."""
    prior = PriorStudy(images[1], "The heart is large. No edema.")
    (explained,) = Explainer(Reporter(tiny_run)).explain(images[:1], GenerationOptions(), priors=[prior])
    page.find_element(By.CSS_SELECTOR, "summary").click()
    page.find_element(By.ID, "image").send_keys(str(images[0]))
    page.find_element(By.ID, "prior-image").send_keys(str(prior.image))
    page.find_element(By.ID, "prior-report").send_keys(prior.report)
    write(page)
    assert pictures(page) == PICTURE.findall(render_fragment(explained))
    assert "The heart is large." in page.find_element(By.CSS_SELECTOR, "#answer article").text


def test_an_example_brings_its_earlier_study(page):
    """The second example has one, the first has none; what the visitor wrote stays."""
    told, box = page.find_element(By.ID, "prior-report"), page.find_element(By.ID, "example-prior")
    examples = page.find_elements(By.CSS_SELECTOR, "[data-example]")
    examples[1].click()
    assert told.get_property("value") == examples[1].get_attribute("data-prior") != ""
    assert box.is_selected()
    write(page)
    alone = len(pictures(page))
    examples[0].click()
    assert (told.get_property("value"), box.is_displayed()) == ("", False)
    told.send_keys("Mine.")
    examples[1].click()
    assert told.get_property("value") == "Mine."
    assert alone > 1


def test_without_an_image_the_page_asks_for_one(page):
    write(page)
    assert "choose an X-ray image" in problem(page)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"The heart is large.", "This is not an X-ray image"),
        ("notes.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "This is not an X-ray image"),
        ("empty.png", b"", "this one is empty"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused(page, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    page.find_element(By.ID, "image").send_keys(str(tmp_path / name))
    write(page)
    assert message in problem(page)
    assert not page.find_elements(By.CSS_SELECTOR, "#answer article")


def test_an_oversized_image_is_refused_and_the_next_one_written(page, tmp_path, images):
    Image.new("L", (1100, 1000)).save(tmp_path / "wide.png")
    page.find_element(By.ID, "image").send_keys(str(tmp_path / "wide.png"))
    write(page)
    assert "at most 1 million pixels" in problem(page)
    page.find_element(By.ID, "image").send_keys(str(images[1]))
    write(page)
    assert pictures(page)
    assert page.find_element(By.CSS_SELECTOR, "[role=alert]").text == ""


def test_a_file_over_the_limit_is_refused_before_it_is_sent(page, tmp_path):
    with (tmp_path / "heavy.png").open("wb") as file:
        file.truncate(41_000_000)
    page.find_element(By.ID, "image").send_keys(str(tmp_path / "heavy.png"))
    write(page)
    assert "at most 40 MB" in problem(page)


def test_two_at_once_get_their_own_reports(page, other_browser, server, images, expected):
    both = [page, opened(other_browser, server)]
    for each, image in zip(both, images, strict=True):
        each.find_element(By.ID, "image").send_keys(str(image))
    for each in both:
        write(each)
    for each, fragment in zip(both, expected, strict=True):
        assert pictures(each) == PICTURE.findall(fragment)
    assert pictures(both[0])[0] != pictures(both[1])[0]


def test_the_download_is_the_report_and_needs_nothing_else(page, browser, images, expected):
    page.find_element(By.ID, "image").send_keys(str(images[1]))
    write(page)
    find(page, "[data-download=page]").click()
    folder = Path(browser.capabilities["chrome"]["userDataDir"]).parent / "downloads"
    (saved,) = WebDriverWait(page, WAIT).until(lambda _: list(folder.glob("*.html")))
    html = saved.read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    assert PICTURE.findall(html) == PICTURE.findall(expected[1])
    assert "Research use only" in html
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "<script" not in html


def test_the_keyboard_is_enough(page, images, expected):
    """Tab reaches image, examples and button in the order of the page; Enter and space do what a click does."""
    reached = []
    for _ in range(14):
        press(page, Keys.TAB)
        active = page.switch_to.active_element
        names = [active.get_attribute(name) for name in ("id", "data-example", "type")]
        reached.append(names[0] or names[1] or names[2])
        if reached[-1] == "1":
            press(page, Keys.SPACE)
        if reached[-1] == "submit":
            press(page, Keys.ENTER)
            break
    wanted = [name for name in reached if name in ("image", "0", "1", "5", "prior-report", "submit")]
    assert wanted == ["image", "0", "1", "5", "prior-report", "submit"]
    assert pictures(page)
    WebDriverWait(page, WAIT).until(lambda b: b.switch_to.active_element.text == "Result")
    press(page, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("data-download")


def test_everything_has_a_name(page):
    find(page, "[data-example='1']").click()  # it brings an earlier study, so that all there is can be seen
    write(page)
    pictures(page)
    for control in page.find_elements(By.CSS_SELECTOR, "#form input, #form textarea, #form button, #answer button"):
        assert control.accessible_name, control.get_attribute("outerHTML")[:200]
    for image in page.find_elements(By.CSS_SELECTOR, "#answer img, [data-example] img"):
        assert image.get_attribute("alt"), image.get_attribute("outerHTML")[:80]


def test_a_phone_shows_all_of_it(page):
    resize(page, *PHONE)
    find(page, "[data-example]").click()
    write(page)
    pictures(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    wide = page.execute_script(
        "return [...document.querySelectorAll('#form *, #answer *')].filter(e => e.getBoundingClientRect().right > "
        "innerWidth + 1 && !e.closest('.preview, svg')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_the_browser_asks_this_server_only(page, server, images):
    # Refused uploads of the tests before are complaints too.
    requested_hosts(page), page.get_log("browser")
    opened(page, server)
    page.find_element(By.ID, "image").send_keys(str(images[0]))
    write(page)
    pictures(page)
    time.sleep(1)
    assert requested_hosts(page) == {server.url.split("/")[2]}
    complaints = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []


def test_a_service_that_dies_while_it_writes_is_noticed(browser, tiny_run, tmp_path):
    with serving(tiny_run, tmp_path / "serve") as server:
        page = opened(browser, server)
        page.find_element(By.CSS_SELECTOR, "[data-example]").click()
        os.kill(server.pid, signal.SIGSTOP)
        write(page)
        assert page.find_element(By.CSS_SELECTOR, ".status").text == "Generating the report ..."
        os.kill(server.pid, signal.SIGKILL)
        assert problem(page) == "The service cannot be reached."
        assert page.find_element(By.CSS_SELECTOR, ".status").text == ""
