"""A report on the page: corrected and kept as a file, in a real browser."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, open_browser, resize

pytest.importorskip("gradio", reason="the web page needs the extra diffrgen[serve]")
pytest.importorskip("selenium", reason="driving the page needs selenium")
pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
pytest.importorskip("fhir.resources", reason="clinical files need the extra diffrgen[clinical]")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium or chromedriver is absent: apt-get install chromium chromium-driver", allow_module_level=True)
from page_server import serving  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from test_clinical import radiograph  # noqa: E402

from diffrgen.clinical import run_origin  # noqa: E402

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> & no edema."
WAIT = 300


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
    page.find_elements(By.CSS_SELECTOR, "#answer .said")[number - 1].click()
    page.execute_script("arguments[0].value = arguments[1]", found(page, "#answer .editing textarea"), text)
    control(page, f"Save sentence {number}").click()


def sentences(page) -> list[str]:
    return [each.get_property("textContent") for each in page.find_elements(By.CSS_SELECTOR, "#answer .said")]


def downloaded(page, folder: Path, kind: str, ending: str) -> bytes:
    for old in (folder / "downloads").glob("*"):
        old.unlink()
    found(page, f"[data-download={kind}]").click()
    (file,) = WebDriverWait(page, WAIT).until(lambda _: list((folder / "downloads").glob(f"*{ending}")))
    return file.read_bytes()


def test_an_edit_is_text_beside_what_was_written_and_goes_into_the_files(page, downloads):
    before = sentences(page)
    written(page, SCRIPT)
    assert sentences(page) == [SCRIPT, *before[1:]]
    assert found(page, "#answer .as-written").text == f"As written: {before[0]}"
    time.sleep(0.3)
    assert page.title != "run"
    assert page.find_elements(By.CSS_SELECTOR, "#answer .said *") == []
    text = downloaded(page, downloads, "text", ".txt").decode()
    assert text.split("\n\n")[1] == "\n".join([SCRIPT, *before[1:]]) + "\n"
    assert "Research use only" in text
    html = downloaded(page, downloads, "page", ".html").decode()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert f"As written: {before[0]}" in html
    assert "<textarea" not in html
    assert "<canvas" not in html
    assert html.count("<img") == len(page.find_elements(By.CSS_SELECTOR, "#answer article img"))


def test_a_struck_sentence_is_kept_out_of_the_files_and_an_accepted_one_says_so(page, downloads):
    before = sentences(page)
    control(page, "Strike sentence 1").click()
    control(page, "Accept sentence 2").click()
    assert [e.text for e in page.find_elements(By.CSS_SELECTOR, "#answer .state-word")][:2] == ["struck", "accepted"]
    assert control(page, "Strike sentence 1").get_attribute("aria-pressed") == "true"
    assert before[0] not in downloaded(page, downloads, "text", ".txt").decode().split("\n\n")[1].split("\n")[:1]
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
    assert [item.TextValue for item in findings.ContentSequence] == ["No pneumothorax.", *before[1:]]
    assert sr.ContributingEquipmentSequence[0].DeviceSerialNumber == run_origin(tiny_run).digest
    report = json.loads(downloaded(page, downloads, "fhir", ".json"))
    assert (report["resourceType"], report["status"]) == ("DiagnosticReport", "preliminary")
    assert report["conclusion"] == " ".join(["No pneumothorax.", *before[1:]])
