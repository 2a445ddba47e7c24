"""The API over HTTP: the report that the model, asked directly, gives; what is refused, in JSON; nothing that is kept."""

from __future__ import annotations

import doctest
import io
import os
import socket
import threading

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("fastapi", reason="the API needs the extra diffrgen[api]")
pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
httpx = pytest.importorskip("httpx", reason="a client of the API needs httpx")
from dicom_files import write_dicom  # noqa: E402
from explained_reports import explained_report, surely  # noqa: E402
from page_server import serving  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from diffrgen.clinical import ReportOrigin, run_origin  # noqa: E402
from diffrgen.errors import DataError  # noqa: E402
from diffrgen.explanation import Explainer  # noqa: E402
from diffrgen.pipeline.options import GenerationOptions  # noqa: E402
from diffrgen.reporting.prior_study import PriorStudy  # noqa: E402
from diffrgen.reporting.reporter import Reporter  # noqa: E402
from diffrgen.serving import ServeOptions, serve  # noqa: E402
from diffrgen.serving.api import bearer  # noqa: E402
from diffrgen.serving.api.answer import report_answer  # noqa: E402
from diffrgen.serving.api.bearer import VARIABLE, read_token  # noqa: E402

TOKEN = "a token of nobody's".replace(" ", "-")
PATIENT = "SECRET-77123"
REQUESTS = "DIFFRGEN_API_REQUESTS"


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


RISING = np.add.outer(np.arange(60), np.arange(60)).astype(np.uint8) * 2
RADIOGRAPH, OTHER = png(RISING), png(255 - RISING)


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, TOKEN)
        with serving(tiny_run, tmp_path_factory.mktemp("api"), "--api", "--max-megapixels", "1") as server:
            yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=300, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture(scope="module")
def reporter(tiny_run) -> Reporter:
    return Reporter(tiny_run)


def sent(client, *images: bytes, **more):
    return client.post("v1/reports", files=[("images", ("image", image)) for image in images], **more)


def check_problem(answer, status: int, *, expected: str = "", got: str = "") -> None:
    """JSON with expected and got, that tells nothing of the server."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"error", "expected", "got"}
    assert expected in problem["expected"]
    assert got in problem["got"]
    for secret in ("Traceback", "site-packages", "/tmp", PATIENT, TOKEN):
        assert secret not in answer.text


def test_a_study_gets_the_report_that_the_model_gives_when_asked_directly(client, reporter, tiny_run, tmp_path):
    (tmp_path / "a.png").write_bytes(RADIOGRAPH)
    (expected,) = Explainer(reporter).explain([tmp_path / "a.png"], GenerationOptions())
    answer = sent(client, RADIOGRAPH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    report = answer.json()
    assert report["report"] == expected.written.report
    assert [sentence["text"] for sentence in report["sentences"]] == [each.text for each in expected.sentences]
    assert {name: finding["state"] for name, finding in report["findings"].items()} == expected.written.states
    assert {n: f["probability"] for n, f in report["findings"].items()} == expected.written.positive_probability
    assert report["run"] == run_origin(tiny_run).digest
    assert report["model"].startswith("diffrgen ")
    assert "Research use only" in report["notice"]


def test_findings_of_a_sentence_are_those_that_it_states(reporter):
    texts = ["no pleural effusion or edema .", "there is cardiomegaly .", "possible pneumonia .", "comparison is made ."]
    assert reporter.stated_findings(texts) == [
        {"pleural effusion": "negative", "edema": "negative"},
        {"cardiomegaly": "positive"},
        {"pneumonia": "uncertain"},
        {},
    ]
    assert reporter.stated_findings([]) == []


def test_an_earlier_study_is_used(client, reporter, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, content in zip(paths, (RADIOGRAPH, OTHER), strict=True):
        path.write_bytes(content)
    prior = PriorStudy(paths[1], "The heart is large. No edema.")
    (expected,) = Explainer(reporter).explain(paths[:1], GenerationOptions(), priors=[prior])
    files = [("images", ("a", RADIOGRAPH)), ("prior_image", ("b", OTHER))]
    answer = client.post("v1/reports", files=files, data={"prior_report": prior.report})
    assert answer.json()["report"] == expected.written.report
    assert {n: f["probability"] for n, f in answer.json()["findings"].items()} == expected.written.positive_probability


def dicom(path, **tags) -> bytes:
    values = (RISING.astype(np.uint16) * 4)[:, : 50 + len(path.stem)]
    study = {"PatientID": PATIENT, "StudyInstanceUID": "1.2.3", "Modality": "CR", "ViewPosition": "PA"}
    return write_dicom(path, np.ascontiguousarray(values), bits=10, **(study | tags)).read_bytes()


def test_a_dicom_file_gets_a_report_and_no_tag_of_it_leaves(server, client, tmp_path):
    files = server.files()
    answer = sent(client, dicom(tmp_path / "a.dcm"))
    assert answer.json()["report"]
    assert PATIENT not in answer.text + server.log.read_text()
    assert server.files() == files


def test_two_patients_in_one_request_are_refused(client, tmp_path):
    mine, theirs = dicom(tmp_path / "a.dcm"), dicom(tmp_path / "b.dcm", PatientID="SOMEBODY-ELSE")
    files = [("images", ("a", mine)), ("prior_image", ("b", theirs))]
    answer = client.post("v1/reports", files=files)
    check_problem(answer, 422, expected="a prior study of the same patient", got="several")
    assert "SOMEBODY" not in answer.text
    same = dicom(tmp_path / "c.dcm", StudyInstanceUID=generate_uid())
    assert client.post("v1/reports", files=[("images", ("a", mine)), ("prior_image", ("b", same))]).status_code == 200


def test_text_in_an_image_is_pointed_out(client):
    image = Image.new("L", (900, 900), 60)
    ImageDraw.Draw(image).text((30, 30), "DOE JANE 1950", fill=255, font=ImageFont.load_default(40))
    (warning,) = sent(client, png(np.asarray(image))).json()["warnings"]
    assert warning.startswith("Text may be burned into the image (upper left)")
    assert sent(client, RADIOGRAPH).json()["warnings"] == []


def test_confidence_is_told_where_the_run_has_a_calibration():
    origin, report = ReportOrigin("1", "ab" * 32), surely(explained_report(), 0.83, None)
    answer = report_answer(report, origin, lambda texts: [{}] * len(texts)).model_dump(exclude_none=True)
    assert [sentence.get("confidence") for sentence in answer["sentences"]] == [0.83, None]
    assert answer["not_mentioned"] == [{"finding": "pneumothorax", "probability": 0.87}]
    silent = report_answer(explained_report(), origin, lambda texts: [{}] * len(texts)).model_dump(exclude_none=True)
    assert not any("confidence" in sentence for sentence in silent["sentences"])
    assert "not_mentioned" not in silent


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x"])
def test_without_the_token_there_is_no_report(server, given):
    headers = {} if given is None else {"authorization": given}
    answer = httpx.post(f"{server.url}v1/reports", files={"images": RADIOGRAPH}, headers=headers, timeout=300)
    check_problem(answer, 401, expected="Authorization: Bearer", got="none" if given is None else "another")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_json_in_place_of_a_form_is_refused(client):
    check_problem(client.post("v1/reports", json={"images": []}), 415, expected="multipart/form-data", got="application/json")
    check_problem(client.post("v1/reports", content=b"x"), 415, got="no content type")


@pytest.mark.parametrize(
    ("files", "data", "status", "expected", "got"),
    [
        ([], {"prior_report": "Clear."}, 422, "1 to 4 files", "0 files"),
        ([("images", RADIOGRAPH)] * 2, {}, 422, "at most 1", "2 files"),
        ([("images", RADIOGRAPH)] * 5, {}, 422, "1 to 4 files", "5 files"),
        ([("images", RADIOGRAPH)], {"indication": "Cough."}, 422, "without the field indication", "in the field indication"),
        ([("images", RADIOGRAPH)], {"history": "COPD."}, 422, "without the field history", "in the field history"),
        ([("images", RADIOGRAPH)], {"comment": "x"}, 422, "images, prior_image", "comment"),
        ([("images", RADIOGRAPH)], {"prior_report": "x" * 6000}, 413, "5000 characters", "6000"),
        ([("images", RADIOGRAPH)], {"prior_report": "x" * 1_100_000}, 400, "multipart", "maximum size"),
        ([("images", RADIOGRAPH), ("prior_image", OTHER), ("prior_image", OTHER)], {}, 422, "at most 1 file", "2 files"),
        ([("images", b"")], {}, 422, "PNG, JPEG or DICOM", "is empty"),
        ([("images", b"The heart is large.")], {}, 422, "PNG, JPEG or DICOM", "none of them"),
        ([("images", RADIOGRAPH[:60])], {}, 422, "PNG, JPEG or DICOM", "damaged"),
        ([("images", png(np.zeros((1100, 1000), np.uint8)))], {}, 422, "1 million pixels", "too large"),
        ([("images", b"\x89PNG\r\n\x1a\n" + bytes(40_000_001))], {}, 413, "40000000 bytes", "40000009 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_by_what_was_expected(server, client, files, data, status, expected, got):
    before = server.files()
    # A text as a part without a file name makes the body a form also where there is no file.
    parts = [(name, ("file", content)) for name, content in files] + [(n, (None, text)) for n, text in data.items()]
    answer = client.post("v1/reports", files=parts)
    check_problem(answer, status, expected=expected, got=got)
    assert server.files() == before


def test_text_in_place_of_a_file_and_a_torn_body_are_refused(client):
    check_problem(client.post("v1/reports", files={"images": (None, "text")}), 422, expected="a file", got="text")
    torn = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\nContent-Disp", b"no boundary", b"--x\r\n\r\nno name\r\n--x--\r\n"):
        assert client.post("v1/reports", content=body, headers=torn).status_code in (400, 422)
    headers = {"content-type": "multipart/form-data"}
    check_problem(client.post("v1/reports", content=b"--x", headers=headers), 400, got="boundary")


def head(length: int, *more: str, token: str = TOKEN) -> bytes:
    lines = ["POST /v1/reports HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {token}", f"content-length: {length}"]
    return "\r\n".join([*lines, "content-type: multipart/form-data; boundary=x", *more, "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


@pytest.mark.parametrize(("token", "status"), [(TOKEN, b"413"), ("x" * 20, b"401")])
def test_a_body_of_a_gigabyte_is_refused_before_it_is_read(server, token, status):
    """Not a byte of it is sent, and the connection is closed."""
    host, port = server.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), 300) as connection:
        connection.sendall(head(1_000_000_000, token=token))
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 " + status)
    if token == TOKEN:
        assert b'"expected":"at most 81000000 bytes","got":"1000000000 bytes"' in answer


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit(client):
    def endless():
        yield b"--x\r\nContent-Disposition: form-data; name=images; filename=a\r\n\r\n"
        for _ in range(1000):
            yield bytes(1_000_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    try:
        answer = client.post("v1/reports", content=endless(), headers=headers)
    except httpx.TransportError:  # the service answered and closed while the client still sent
        return
    check_problem(answer, 413, expected="81000000 bytes", got="more")


def test_what_is_open_without_a_token_tells_no_secret(server, client):
    health = httpx.get(f"{server.url}healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    page = httpx.get(f"{server.url}docs")
    assert page.headers["content-type"].startswith("text/html")
    for word in ("POST /v1/reports", "prior_image", "Research use only", "ReportAnswer"):
        assert word in page.text
    assert "<script" not in page.text
    assert 'src="http' not in page.text
    description = httpx.get(f"{server.url}openapi.json").json()
    body = description["paths"]["/v1/reports"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(body["properties"]) == {"images", "prior_image", "prior_report"}
    answer = description["components"]["schemas"]["ReportAnswer"]
    assert set(sent(client, RADIOGRAPH).json()) <= set(answer["properties"])
    check_problem(client.get("v1/reports"), 405, expected="POST", got="GET")
    for path in ("", "images", "config", "v1/reports/../x", "metrics"):
        check_problem(client.get(path), 404)


def test_twenty_clients_in_turn_get_their_own_reports(client, reporter, tmp_path):
    """Each sends another image, all at once; each gets what the model gives for that image alone."""
    images = [png(np.roll(RISING, 3 * number, axis=number % 2)) for number in range(20)]
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path, content in zip(paths, images, strict=True):
        path.write_bytes(content)
    explained = Explainer(reporter).explain(paths, GenerationOptions(batch_size=1))
    expected = [(each.written.report, each.written.positive_probability) for each in explained]
    answers: dict[int, tuple] = {}

    def ask(number: int) -> None:
        report = sent(client, images[number]).json()
        answers[number] = report["report"], {name: f["probability"] for name, f in report["findings"].items()}

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [answers[number] for number in range(20)] == expected
    assert len({str(answer) for answer in expected}) > 10


@pytest.mark.skipif(REQUESTS not in os.environ, reason=f"takes minutes: {REQUESTS}=300 sends so many requests")
def test_memory_stays_flat(client, server):
    """What 250 requests add after the first 50 is less than one copy of the images that they sent."""
    generator, held = np.random.default_rng(0), []
    for _ in range(int(os.environ[REQUESTS])):
        image = png(generator.integers(0, 256, (1000, 1000), dtype=np.uint8))
        assert sent(client, image).status_code == 200
        held.append(server.resident_megabytes())
    assert max(held[-10:]) < max(held[40:50]) + 50


@pytest.mark.parametrize(("token", "got"), [(None, "none"), ("short", "5 characters"), ("x" * 20 + " y", "other")])
def test_without_a_good_token_the_service_does_not_start(tmp_path, monkeypatch, token, got):
    monkeypatch.delenv(VARIABLE, raising=False)
    if token is not None:
        monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(DataError, match=rf"{VARIABLE}, got {got}"):
        serve(ServeOptions(tmp_path, api=True))


def test_tokens(monkeypatch):
    assert doctest.testmod(bearer).failed == 0
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert read_token() == TOKEN
