"""Two hundred hostile uploads over HTTP: each is answered in words or by a report, and the service is as before."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hostile_uploads import hostile_uploads
from PIL import Image

pytest.importorskip("gradio", reason="the web page needs the extra diffrgen[serve]")
pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
httpx = pytest.importorskip("httpx", reason="a visitor without a browser needs httpx")
from page_server import Visitor, serving, spoken  # noqa: E402

from diffrgen.errors import DataError  # noqa: E402
from diffrgen.images import ResizedImages  # noqa: E402
from diffrgen.pipeline.options import GenerationOptions  # noqa: E402
from diffrgen.serving import ServeOptions, UploadLimits, serve  # noqa: E402
from diffrgen.serving.gallery import Example  # noqa: E402
from diffrgen.serving.held_images import HeldImages  # noqa: E402
from diffrgen.serving.service import ReportService  # noqa: E402

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from Linux's /proc")
NAME, NUMBER, BORN = "ZZYZXOV^PETRONELLA", "PN-77123-Q", "19410203"
# Freed memory that the C library keeps for later: what a second round of the same uploads does not add to.
KEPT_MEGABYTES = 150


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    with serving(tiny_run, tmp_path_factory.mktemp("hostile")) as server:
        yield server


@pytest.fixture(scope="module")
def visitor(server):
    return Visitor(server.url)


@pytest.fixture(scope="module")
def film() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.add.outer(np.arange(200), np.arange(180)).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def is_report(answer: str) -> bool:
    return '<article class="diffrgen' in answer


def check_answer(answer: str, server) -> None:
    """A report, or a sentence that tells nothing of the server."""
    assert is_report(answer) or re.fullmatch(r"[A-Z][^<>]{20,200}\.", answer), answer[:300]
    for secret in ("Traceback", str(server.temporary), "site-packages", "diffrgen/"):
        assert secret not in answer


@linux
def test_two_hundred_hostile_uploads(server, visitor, film, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uploads = hostile_uploads(tmp_path)
    assert len(uploads) >= 200
    for _ in range(3):
        assert is_report(visitor.report(film))
    before, files = server.resident_megabytes(), server.files()
    reports = 0
    for upload in uploads:
        answer = visitor.report(upload.content)
        check_answer(answer, server)
        reports += is_report(answer)
    assert is_report(visitor.report(film))
    # Some damage does not hurt, and oddities are images.
    assert 20 < reports < len(uploads) / 2
    assert server.files() == files
    assert server.resident_megabytes() < before + KEPT_MEGABYTES
    log = server.log.read_text()
    assert log.count("\n") == 1, log


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"image": None},
        {"image": {"token": "../../etc/passwd"}},
        {"image": {"token": "x" * 1000}},
        {"image": {"token": "/etc/passwd", "name": "a.png"}},
        {"image": {"token": "a", "url": "http://127.0.0.1:9/"}},
        {"example": -1},
        {"example": 10**30},
        {"example_prior": True},
        {"example": 0, "prior_report": "x" * 6000},
        {"example": 0, "prior_report": ["no"]},
        {"example": 0, "unknown": 1},
        {"example": "0; rm -rf /"},
    ],
)
def test_requests_that_the_page_would_not_send(server, visitor, request_body):
    answer = spoken(visitor.ask(**request_body))
    assert not is_report(answer)
    check_answer(answer, server)


def test_an_earlier_report_is_shown_as_text(visitor):
    """Templates and markup in it are neither run here nor in the browser: cleaning leaves their words."""
    answer = visitor.ask(example=0, prior_report="\0{{7*7}} ${1+1} <script>alert(1)</script> <img src=x>.")
    assert is_report(answer)
    assert "77 $11 scriptalert1script img srcx" in answer
    assert "<script" not in answer
    assert "<img src=x" not in answer


def test_a_model_without_earlier_studies_says_so():
    explainer = SimpleNamespace(reporter=SimpleNamespace(takes_priors=False))
    example = Example(Path("a.png"), "a", "", "")
    service = ReportService(explainer, [example], UploadLimits(), GenerationOptions())
    answer = asyncio.run(service.answer({"example": 0, "prior_report": "The heart is large."}, "client"))
    assert "trained without prior studies" in answer


def test_a_token_is_good_once(visitor, film):
    sent = visitor.send(film)
    assert is_report(visitor.ask(image=sent))
    assert spoken(visitor.ask(image=sent)) == "The image is no longer here; please choose it again."


def test_a_report_of_ten_megabytes_is_refused(visitor):
    body = {"data": [], "event_data": {"example": 0, "prior_report": "x" * 10_000_000}}
    answer = visitor.client.post("gradio_api/queue/join", json=body | {"fn_index": 0, "session_hash": "a"})
    assert (answer.status_code, answer.text) == (413, "The request is too long.")


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [], "event_data": {"\\u0070ath": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}',
        b"{",
        b"[" * 90_000,
        b"\xff\xfe{}",
    ],
)
def test_bodies_that_no_page_sends_are_refused(server, visitor, body):
    answer = visitor.client.post("gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.text) == (400, "The request cannot be read.")
    assert server.log.read_text().count("\n") == 1


@pytest.mark.parametrize(
    "path",
    [
        *("gradio_api/upload", "gradio_api/file=/etc/passwd", "gradio_api/file/etc/passwd", "file=/etc/passwd"),
        *("gradio_api/proxy=http://127.0.0.1/", "gradio_api/run/answer", "gradio_api/call/answer", "gradio_api/runs"),
        *("docs", "openapi.json", "gradio_api/openapi.json", "monitoring", "login", "gradio_api/vibe-edit"),
        *("assets/../../../etc/passwd", "static/%2e%2e/%2e%2e/etc/passwd", "images/%2e%2e", "gradio_api/deep_link"),
    ],
)
def test_nothing_else_is_open(visitor, path):
    names = {"files": ("../../\x01evil\n.png", b"x", "image/png")}
    answers = [visitor.client.get(path), visitor.client.post(path, files=names)]
    assert all(answer.status_code in (404, 405) for answer in answers), answers
    assert not any("root:" in answer.text for answer in answers)


def test_other_sites_and_other_names_are_refused(server, visitor, film):
    other = visitor.client.post("images", content=film, headers={"sec-fetch-site": "cross-site"})
    assert other.status_code == 403
    assert visitor.client.get("", headers={"host": "attacker.example"}).status_code == 400
    assert visitor.client.get("").headers["content-security-policy"].startswith("default-src 'self';")


def dicom_of_a_patient(folder, **tags: object) -> bytes:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, NUMBER, BORN
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(folder / "patient.dcm")
    return (folder / "patient.dcm").read_bytes()


@pytest.mark.parametrize("replaced", [b"", b"MONOCHROME2", b"-1024"])
def test_no_tag_of_a_patient_reaches_the_page_a_file_or_the_log(server, visitor, tmp_path, replaced):
    """Nor where the name stands in place of a word or a number, and what cannot read it would quote it."""
    content = dicom_of_a_patient(tmp_path)
    assert replaced in content
    if replaced:
        content = content.replace(replaced, NAME[: len(replaced)].encode())
    files = server.files()
    answer = visitor.report(content)
    # A number that is none is taken as absent.
    assert is_report(answer) is (replaced != b"MONOCHROME2")
    for told in (answer, server.log.read_text()):
        assert not any(tag in told for tag in (NAME[:5], NUMBER, BORN))
    assert server.files() == files


def test_visitors_at_once_get_their_own_answers(server, film):
    """Eight visitors, four of them with something else than an image."""
    answers: dict[int, str] = {}

    def visit(number: int) -> None:
        answers[number] = Visitor(server.url).report(film if number % 2 else b"no image")

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {number: is_report(answer) for number, answer in answers.items()} == {n: n % 2 == 1 for n in range(8)}


def test_a_taken_port_and_a_folder_that_is_no_run_are_named(server, tmp_path):
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(DataError, match=rf"port {port}: Address already in use; choose another with --host or --port"):
        serve(ServeOptions(tmp_path, port=port))
    with pytest.raises(DataError, match=r"run\.json: needed the folder of a run"):
        serve(ServeOptions(tmp_path, port=0))


def held_image(side: int) -> ResizedImages:
    return ResizedImages({side: Image.new("L", (side, side))})


def test_images_are_held_for_a_while_and_taken_once():
    now = [0.0]
    held = HeldImages(UploadLimits(held_seconds=10), clock=lambda: now[0])
    first, image = held.put(held_image(3), "a"), held_image(4)
    assert held.take(first).pixels == 9
    second, now[0] = held.put(image, "a"), 11.0
    third = held.put(image, "a")
    assert len(held) == 1
    assert held.take(third) is image
    for token in (first, second, third, "", "x"):
        with pytest.raises(DataError, match="no longer here"):
            held.take(token)


def test_the_client_that_holds_most_images_loses_its_oldest():
    """Ten images of 100 kB fit, small ones count as 100 kB."""
    held = HeldImages(UploadLimits(held_megabytes=1))
    (mine,) = [held.put(held_image(1), "a visitor")]
    theirs = [held.put(held_image(1), "another") for _ in range(30)]
    assert len(held) == 10
    assert held.take(mine).pixels == 1
    for token in theirs[:21]:
        with pytest.raises(DataError, match="no longer here"):
            held.take(token)
    assert [held.take(token).pixels for token in theirs[21:]] == [1] * 9
