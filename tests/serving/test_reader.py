"""A report on the page: corrected, looked at closely and kept as a file, in a real browser; and the address that makes files."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, open_browser, resize
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("gradio", reason="the web page needs the extra diffrgen[serve]")
pytest.importorskip("selenium", reason="driving the page needs selenium")
pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
pytest.importorskip("fhir.resources", reason="clinical files need the extra diffrgen[clinical]")
httpx = pytest.importorskip("httpx", reason="a visitor without a browser needs httpx")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium or chromedriver is absent: apt-get install chromium chromium-driver", allow_module_level=True)
from clinical_files import radiograph  # noqa: E402
from explained_reports import explained_report, surely  # noqa: E402
from page_server import serving  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from diffrgen.clinical import run_origin  # noqa: E402
from diffrgen.serving.blocks import asset  # noqa: E402
from diffrgen.serving.result import result_html  # noqa: E402

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> & no edema."
WAIT = 300
PHONE = (390, 844)


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    with serving(tiny_run, tmp_path_factory.mktemp("reader"), "--examples", "1") as server:
        yield server


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def browser(downloads):
    with open_browser(downloads) as browser:
        yield browser


@pytest.fixture(scope="module")
def dicom(tmp_path_factory) -> Path:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8) * 2
    path = tmp_path_factory.mktemp("dicom") / "a.dcm"
    return radiograph(path, Rows=64, Columns=64, PixelData=ramp.tobytes())


@pytest.fixture
def page(browser, server, dicom):
    """The page with the report of a DICOM image."""
    return reported(browser, server, dicom)


def reported(browser, server, image: Path, size: tuple[int, int] = (1280, 1000)):
    resize(browser, *size)
    browser.get(server.url)
    found(browser, "#image").send_keys(str(image))
    found(browser, "button[type=submit]").click()
    found(browser, "#answer .viewer canvas")
    return browser


def found(page, selector: str):
    return WebDriverWait(page, WAIT).until(lambda b: b.find_elements(By.CSS_SELECTOR, selector))[0]


def control(page, name: str):
    return found(page, f"#answer [aria-label='{name}']")


def written(page, text: str, number: int = 1) -> None:
    """Edit a sentence: click it, replace its text, save."""
    page.find_elements(By.CSS_SELECTOR, "#answer .sentence-text")[number - 1].click()
    page.execute_script("arguments[0].value = arguments[1]", found(page, "#answer .editing textarea"), text)
    control(page, f"Save sentence {number}").click()


def sentences(page) -> list[str]:
    return [each.get_property("textContent") for each in page.find_elements(By.CSS_SELECTOR, "#answer .sentence-text")]


def downloaded(page, folder: Path, kind: str, ending: str) -> bytes:
    for old in (folder / "downloads").glob("*"):
        old.unlink()
    found(page, f"[data-download={kind}]").click()
    (file,) = WebDriverWait(page, WAIT).until(lambda _: list((folder / "downloads").glob(f"*{ending}")))
    return file.read_bytes()


def pixels(page) -> np.ndarray:
    """The RGB values (H, W, 3) of what the viewer shows."""
    shape, values = page.execute_script(
        "const c = document.querySelector('#answer canvas'); "
        "return [[c.height, c.width, 4], [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(values, dtype=float).reshape(shape)[..., :3]


def test_an_edit_is_text_beside_what_was_written_and_goes_into_the_files(page, downloads):
    before = sentences(page)
    written(page, SCRIPT)
    assert sentences(page) == [SCRIPT, *before[1:]]
    assert found(page, "#answer .as-written").text == f"As generated: {before[0]}"
    time.sleep(0.3)
    assert page.title != "run"
    assert page.find_elements(By.CSS_SELECTOR, "#answer .sentence-text *") == []
    text = downloaded(page, downloads, "text", ".txt").decode()
    notice, kept, said = text.split("\n\n")
    assert "Research use only" in notice
    assert kept == "\n".join([SCRIPT, *before[1:]])
    assert said == (
        f"Edited by an unnamed reader: of {len(before)} generated sentences 1 changed, 0 removed.\n"
        f"Sentence 1, as generated: {before[0]}\n"
    )
    html = downloaded(page, downloads, "page", ".html").decode()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert f"As generated: {before[0]}" in html
    assert "<textarea" not in html
    assert "<canvas" not in html
    assert html.count("<img") == len(page.find_elements(By.CSS_SELECTOR, "#answer article img"))


def test_a_struck_sentence_is_kept_out_of_the_files_and_an_accepted_one_says_so(page, downloads):
    before = sentences(page)
    control(page, "Strike sentence 1").click()
    control(page, "Accept sentence 2").click()
    assert [e.text for e in page.find_elements(By.CSS_SELECTOR, "#answer .state-word")][:2] == ["struck", "accepted"]
    assert control(page, "Strike sentence 1").get_attribute("aria-pressed") == "true"
    *kept, said = downloaded(page, downloads, "text", ".txt").decode().split("\n\n")[1:]
    assert kept == ["\n".join(before[1:])] * (len(before) > 1)
    assert said == f"Edited by an unnamed reader: of {len(before)} generated sentences 0 changed, 1 removed.\n"
    control(page, "Strike sentence 1").click()
    assert page.find_elements(By.CSS_SELECTOR, "#answer .struck") == []


def test_an_edit_of_a_megabyte_is_refused_in_words(page):
    before = sentences(page)
    written(page, "x" * 1_000_000)
    assert found(page, "#answer .edit-problem").text == "An edit may have at most 2000 characters; this one has 1000000."
    control(page, "Cancel").click()
    assert sentences(page) == before


def test_hospital_formats_hold_the_corrected_report_of_the_uploaded_study(page, downloads, dicom, tiny_run):
    before, source = sentences(page), pydicom.dcmread(dicom)
    written(page, "No pneumothorax.")
    sr = pydicom.dcmread(io.BytesIO(downloaded(page, downloads, "dicom-sr", ".dcm")))
    assert (sr.PatientID, sr.StudyInstanceUID, sr.VerificationFlag) == ("P-1", source.StudyInstanceUID, "UNVERIFIED")
    (findings,) = [item for item in sr.ContentSequence if item.ValueType == "CONTAINER"]
    *items, changes = findings.ContentSequence
    assert [item.TextValue for item in items] == ["No pneumothorax.", *before[1:]]
    assert [child.TextValue for child in items[0].ContentSequence if child.ValueType == "TEXT"] == [before[0]]
    edited = f"Edited by an unnamed reader: of {len(before)} generated sentences 1 changed, 0 removed."
    assert changes.TextValue == edited
    assert sr.ContributingEquipmentSequence[0].DeviceSerialNumber == run_origin(tiny_run).digest
    report = json.loads(downloaded(page, downloads, "fhir", ".json"))
    assert (report["resourceType"], report["status"]) == ("DiagnosticReport", "preliminary")
    assert report["conclusion"] == " ".join(["No pneumothorax.", *before[1:]])
    notes = [each["valueAnnotation"]["text"] for each in report["extension"]]
    assert notes == [edited, f"Sentence 1, as generated: {before[0]}"]


def test_what_is_no_dicom_has_no_hospital_format_and_its_text_is_pointed_out(browser, server, tmp_path):
    image = Image.new("L", (900, 900), 60)
    ImageDraw.Draw(image).text((30, 30), "DOE JANE 1950", fill=255, font=ImageFont.load_default(40))
    image.save(tmp_path / "named.png")
    page = reported(browser, server, tmp_path / "named.png")
    assert "Text may be burned into the image (upper left)" in found(page, "#answer .warnings").text
    found(page, "[data-download=fhir]").click()
    told = WebDriverWait(page, WAIT).until(lambda b: b.find_element(By.CSS_SELECTOR, ".export-problem").text)
    assert "Image 1: a report can be exported for a DICOM image of modality CR, DX or RG, got" in told


def test_the_image_is_zoomed_and_windowed_by_keys_and_mouse(page):
    canvas, first = found(page, "#answer canvas"), pixels(page)
    assert (first[..., 0] == first[..., 2]).all()
    keys = ActionChains(page)
    canvas.click()
    keys.send_keys("++").perform()
    assert "Zoom 156 %" in canvas.accessible_name
    # The ramp of the image rises by less per pixel where it is shown larger.
    assert np.abs(np.diff(pixels(page)[100, :, 0])).mean() < np.abs(np.diff(first[100, :, 0])).mean()
    ActionChains(page).send_keys("0").perform()
    assert (pixels(page) == first).all()
    ActionChains(page).send_keys("s" * 8).perform()
    assert "window 135" in canvas.accessible_name
    assert pixels(page).std() > first.std()
    ActionChains(page).send_keys("0").key_down(Keys.SHIFT).drag_and_drop_by_offset(canvas, 0, 40).key_up(Keys.SHIFT).perform()
    assert pixels(page).mean() < first.mean()
    ActionChains(page).send_keys("0").scroll_from_origin(origin(canvas), 0, -200).perform()
    assert "Zoom 115 %" in canvas.accessible_name


def origin(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


def test_the_attention_of_a_sentence_lies_over_the_image(page):
    reading = json.loads(found(page, "#answer .result").get_attribute("data-reading"))[0]["heat"][0]
    control(page, "Show where the decoder looked for sentence 1").click()
    shown, grid = pixels(page), np.array(reading)
    warm = shown[..., 0] - shown[..., 2]
    rows, columns = grid.shape
    cells = warm.reshape(rows, warm.shape[0] // rows, columns, warm.shape[1] // columns).mean((1, 3))
    assert cells[grid <= 1 / grid.size].max(initial=0) < 1
    assert cells[grid > 1.2 / grid.size].min(initial=255) > 5
    control(page, "Hide the attention").click()
    assert (pixels(page)[..., 0] == pixels(page)[..., 2]).all()


def test_the_keyboard_alone_corrects_a_report(page):
    for _ in range(60):
        ActionChains(page).send_keys(Keys.TAB).perform()
        if page.switch_to.active_element.get_attribute("aria-label") == "Edit sentence 1":
            break
    ActionChains(page).send_keys(Keys.ENTER).perform()
    keys = ActionChains(page).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
    keys.send_keys("Clear lungs.").send_keys(Keys.ENTER).perform()
    assert sentences(page)[0] == "Clear lungs."
    assert page.switch_to.active_element.get_attribute("aria-label") == "Edit sentence 1"
    ActionChains(page).send_keys(Keys.TAB).send_keys(Keys.SPACE).perform()
    assert control(page, "Accept sentence 1").get_attribute("aria-pressed") == "true"


def test_a_phone_shows_all_controls(browser, server, dicom):
    page = reported(browser, server, dicom, PHONE)
    page.find_element(By.CSS_SELECTOR, "#answer .sentence-text").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    small = page.execute_script(
        "return [...document.querySelectorAll('#answer button')].filter(e => e.offsetParent && "
        "(e.offsetHeight < 36 || e.getBoundingClientRect().right > innerWidth)).map(e => e.outerHTML)"
    )
    assert small == []
    for each in page.find_elements(By.CSS_SELECTOR, "#answer button, #answer input, #answer textarea, #answer canvas"):
        # While a sentence is edited, its other controls are hidden, and what is hidden has no name.
        assert each.accessible_name or not each.is_displayed(), each.get_attribute("outerHTML")[:100]


def test_an_edited_sentence_is_no_longer_rated_on_the_page_or_in_its_files(browser, downloads, tmp_path):
    """The result of a calibrated run with the page's own script, without a service behind it."""
    result = result_html(surely(explained_report(), 0.83, 0.2))
    ready = 'document.dispatchEvent(new CustomEvent("diffrgen-report", { detail: { files: [] } }));'
    script = f'<script type="module">{asset("reader.js")}\n{ready}</script>'
    style = f"<style>{asset('reader.css')}</style>"
    whole = f'<!DOCTYPE html><meta charset="utf-8">{style}<div id="answer">{result}</div>{script}'
    (tmp_path / "page.html").write_text(whole, encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    found(browser, "#answer .controls")
    items = browser.find_elements(By.CSS_SELECTOR, "#answer .sentences li")
    left_out = "Not mentioned, although the classifier is confident: pneumothorax (87%)\n"
    assert [item.get_attribute("class") for item in items] == ["sure-likely", "sure-unlikely"]
    text = downloaded(browser, downloads, "text", ".txt").decode()
    assert text.endswith(f"Sentence 1: 83% likely to be true\nSentence 2: 20% likely to be true\n{left_out}")
    written(browser, "The heart is small.")
    assert [item.get_attribute("class") for item in items] == ["", "sure-unlikely"]
    assert "83%" not in items[0].text
    text = downloaded(browser, downloads, "text", ".txt").decode()
    assert text.split("\n\n", 2)[2] == (
        "Edited by an unnamed reader: of 2 generated sentences 1 changed, 0 removed.\n"
        f"Sentence 1, as generated: The heart is normal.\nSentence 2: 20% likely to be true\n{left_out}"
    )
    html = downloaded(browser, downloads, "page", ".html").decode()
    assert "83% likely" not in html
    assert "20% likely to be true" in html


def test_a_run_without_calibration_says_nothing_of_confidence(page):
    assert page.find_elements(By.CSS_SELECTOR, "#answer .confidence, #answer .legend") == []


def export(server, images: list[bytes], report: object, **headers: str):
    files = [("images", ("image.dcm", content)) for content in images]
    text = report if isinstance(report, str) else json.dumps(report)
    return httpx.post(f"{server.url}exports", files=files, data={"report": text}, headers=headers, timeout=300)


@pytest.mark.parametrize(
    ("report", "status", "message"),
    [
        ({"format": "fhir", "sentences": [{"text": "x" * 1_000_000}]}, 413, "An edit is too long"),
        ({"format": "fhir", "sentences": [{"text": "x" * 3_000_000}]}, 413, "An edit is too long"),
        ({"format": "fhir", "sentences": [{"text": "x", "generated": "x" * 3000}]}, 413, "An edit is too long"),
        ({"format": "fhir", "sentences": [{"text": "x"}] * 101}, 413, "a report 100 sentences"),
        ({"format": "html", "sentences": [{"text": "x"}]}, 422, "not a report"),
        ({"format": "fhir", "sentences": "x"}, 422, "not a report"),
        ({"format": "fhir", "sentences": [{"text": " "}]}, 422, "not a report"),
        ({"format": "fhir", "sentences": [{"text": "x", "probability": float("nan")}]}, 422, "not a report"),
        ({"format": "fhir", "sentences": [], "struck": -1}, 422, "not a report"),
        ("{", 422, "not a report"),
    ],
)
def test_reports_that_the_page_would_not_send_are_refused(server, dicom, report, status, message):
    answer = export(server, [dicom.read_bytes()], report)
    assert (answer.status_code, message in answer.text) == (status, True), answer.text
    assert "Traceback" not in answer.text


def test_drafts_of_two_patients_of_no_image_or_for_other_sites_are_refused(server, dicom, tmp_path):
    report, mine = {"format": "dicom-sr", "sentences": [{"text": "Clear."}]}, dicom.read_bytes()
    other = radiograph(tmp_path / "b.dcm", PatientID="P-2").read_bytes()
    files = server.files()
    answer = export(server, [mine, other], report)
    assert (answer.status_code, "expected one patient in a study, got two" in answer.text) == (422, True)
    assert "P-2" not in answer.text
    assert export(server, [], report).status_code == 422
    assert export(server, [mine], report, **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert export(server, [mine], report).status_code == 200
    assert server.files() == files


@pytest.mark.parametrize("kind", ["dicom-sr", "fhir"])
def test_confidence_and_what_is_left_out_leave_with_a_draft_without_control_characters(server, dicom, kind):
    sentences = [{"text": "Clear\x00\x1b[2J\u2028lungs."}, {"text": "An effusion.", "probability": 0.31}]
    report = {"format": kind, "sentences": sentences, "not_mentioned": [{"finding": "edema", "probability": 0.75}], "struck": 1}
    answer = export(server, [dicom.read_bytes()], report)
    assert answer.status_code == 200, answer.text
    clean, sure = "Clear\ufffd\ufffd[2J lungs.", "doubtful: 31% likely to be true"
    left_out = "Not mentioned, although the classifier is confident: edema (75%)"
    changes = "Edited by an unnamed reader: of 3 generated sentences 0 changed, 1 removed."
    if kind == "fhir":
        written = answer.json()
        assert written["conclusion"] == f"{clean} An effusion. [{sure}]"
        notes = [each["valueAnnotation"]["text"] for each in written["extension"]]
        assert notes == [changes, f"Sentence 2: {sure}", left_out]
    else:
        items = pydicom.dcmread(io.BytesIO(answer.content)).ContentSequence[-1].ContentSequence
        assert [item.TextValue for item in items] == [clean, "An effusion.", changes, left_out]
        assert items[1].ContentSequence[-1].TextValue == sure
