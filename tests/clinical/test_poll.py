"""Polling a DICOMweb server: a small archive of test files, and a service that answers as the API's own models say."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pydicom = pytest.importorskip("pydicom", reason="clinical files need the extra diffrgen[clinical]")
pytest.importorskip("fhir.resources", reason="clinical files need the extra diffrgen[clinical]")
pytest.importorskip("httpx", reason="asking a DICOMweb server needs httpx")
pytest.importorskip("fastapi", reason="the API needs the extra diffrgen[api]")
from clinical_files import radiograph  # noqa: E402
from fastapi import Request  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from diffrgen.clinical import poll  # noqa: E402
from diffrgen.clinical.dicomweb import DicomWeb, StoredImage, first_part  # noqa: E402
from diffrgen.errors import DataError  # noqa: E402
from diffrgen.serving.api.answer import ReportAnswer  # noqa: E402
from diffrgen.serving.api.application import _application  # noqa: E402
from diffrgen.serving.api.form import TakenInputs  # noqa: E402

TOKEN, PASSWORD = "a-token-of-nobody", "Basic bm9ib2R5"
ANSWER = ReportAnswer(
    notice="Draft.",
    report="clear lungs . no effusion .",
    sentences=[{"text": "clear lungs .", "findings": {}}, {"text": "no effusion .", "findings": {}}],
    findings={},
    views=[],
    warnings=["Text may be burned in."],
    model="diffrgen 0.2.0",
    run="ab" * 32,
).model_dump()


class Hospital(ThreadingHTTPServer):
    """DICOM files by study, series and instance, what was stored, and the requests for reports."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.stored: list[bytes] = []
        self.asked: list[list[bytes]] = []
        self.status, self.most_images = 200, 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, folder: Path, **tags: object) -> str:
        """Take a new radiograph in and return the UID of its study."""
        content = radiograph(folder / f"{len(self.files)}.dcm", **tags).read_bytes()
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        self.files[dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID] = content
        return dataset.StudyInstanceUID


class Answering(BaseHTTPRequestHandler):
    server: Hospital

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, content: bytes, kind: str = "application/dicom+json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/openapi.json":
            application = _application(_Api(), TakenInputs(self.server.most_images, prior=False))
            self.answer(json.dumps(application.openapi()).encode(), "application/json")
            return
        if self.headers["authorization"] != PASSWORD:
            self.answer(b"", status=401)
            return
        parts = address.path.removeprefix("/dicom-web/").split("/")
        query = {name: value[0] for name, value in parse_qs(address.query).items()}
        if len(parts) == 6:
            file = self.server.files[parts[1], parts[3], parts[5]]
            body = b"\r\n--x-y\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x-y--\r\n"
            self.answer(body, 'multipart/related; type="application/dicom"; boundary=x-y')
            return
        tags = ("0020000D", "0020000E", "00080018")
        place, tag = len(parts) // 2, tags[len(parts) // 2]
        found = {
            uids[place]: {tag: {"vr": "UI", "Value": [uids[place]]}}
            for uids, content in self.server.files.items()
            if list(uids[:place]) == parts[1::2][:place] and self.matches(content, query)
        }
        self.answer(json.dumps(list(found.values())).encode())

    def matches(self, content: bytes, query: dict[str, str]) -> bool:
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        modality = query.get("ModalitiesInStudy", query.get("Modality", dataset.Modality))
        return dataset.Modality == modality and dataset.StudyDate >= query.get("StudyDate", "").rstrip("-")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/dicom-web/studies":
            self.server.stored.append(first_part(body, self.headers["content-type"]))
            self.answer(b"{}")
            return
        assert (self.path, self.headers["authorization"]) == ("/v1/reports", f"Bearer {TOKEN}")
        boundary = self.headers["content-type"].split("boundary=")[1].encode()
        parts = body.split(b"--" + boundary)[1:-1]
        assert all(b'name="images"' in part[:200] for part in parts)
        self.server.asked.append([part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts])
        problem = {"error": "An image cannot be used.", "expected": "another", "got": "this\x1b[2J"}
        content = ANSWER if self.server.status == 200 else problem
        self.answer(json.dumps(content).encode(), "application/json", self.server.status)


class _Api:
    async def answer(self, request: Request) -> None:
        raise NotImplementedError


@pytest.fixture
def hospital(monkeypatch) -> Iterator[Hospital]:
    monkeypatch.setenv(poll.TOKEN, TOKEN)
    monkeypatch.setenv(poll.ARCHIVE_AUTHORIZATION, PASSWORD)
    server = Hospital()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(hospital: Hospital, output: Path, *more: str) -> int:
    addresses = [f"{hospital.url}/dicom-web", str(output), "--service", hospital.url, "--since", "20250101"]
    return poll.main([*addresses, "--once", *more])


def test_new_studies_get_a_structured_report_once(hospital, tmp_path, capsys):
    study = hospital.add(tmp_path, StudyInstanceUID=generate_uid())
    hospital.add(tmp_path, StudyInstanceUID=generate_uid(), StudyDate="20241231")
    hospital.add(tmp_path, StudyInstanceUID=generate_uid(), Modality="CT")
    output = tmp_path / "reports"
    assert run(hospital, output, "--store") == 0
    (file,) = output.glob("*.dcm")
    report = pydicom.dcmread(file)
    assert (report.StudyInstanceUID, report.PatientID, report.Modality) == (study, "P-1", "SR")
    (findings,) = [item for item in report.ContentSequence if item.ValueType == "CONTAINER"]
    assert [item.TextValue for item in findings.ContentSequence] == ["clear lungs .", "no effusion ."]
    assert report.ContributingEquipmentSequence[0].DeviceSerialNumber == "ab" * 32
    assert report.ContributingEquipmentSequence[0].SoftwareVersions == "diffrgen 0.2.0"
    assert hospital.stored == [file.read_bytes()]
    ((sent,),) = hospital.asked
    assert sent in hospital.files.values()
    assert "warning: Text may be burned in." in capsys.readouterr().err
    assert (output / "reported.txt").read_text().split() == [hashlib.sha256(study.encode()).hexdigest()]
    assert run(hospital, output) == 0
    assert len(hospital.asked) == 1


def test_a_study_waits_until_its_images_are_all_there(hospital, tmp_path):
    study = hospital.add(tmp_path, StudyInstanceUID=generate_uid())
    options = poll.PollOptions(f"{hospital.url}/dicom-web", tmp_path / "reports", hospital.url, since="20250101")
    hospital.most_images = 2
    with DicomWeb(options.archive, PASSWORD) as archive:
        poller = poll.Poller(options, archive, poll.Service(options.service, TOKEN))
        assert poller.poll() == 0
        hospital.add(tmp_path, StudyInstanceUID=study, ViewPosition="LL")
        assert [poller.poll() for _ in range(3)] == [0, 1, 0]
    assert [len(images) for images in hospital.asked] == [2]


def test_a_run_that_takes_one_image_gets_the_frontal_one(hospital, tmp_path):
    study = generate_uid()
    for view in ("LL", "PA", "LL"):
        hospital.add(tmp_path, StudyInstanceUID=study, ViewPosition=view)
    assert run(hospital, tmp_path / "reports") == 0
    ((sent,),) = hospital.asked
    assert pydicom.dcmread(io.BytesIO(sent)).ViewPosition == "PA"


def test_a_refused_study_is_not_tried_again_and_one_without_an_answer_is(hospital, tmp_path, capsys):
    study = hospital.add(tmp_path, StudyInstanceUID=generate_uid())
    output, hospital.status = tmp_path / "reports", 503
    assert run(hospital, output) == run(hospital, output) == 0
    hospital.status = 422
    assert run(hospital, output) == run(hospital, output) == 0
    assert len(hospital.asked) == 3
    told = capsys.readouterr().err
    assert told.count("tried again later: the service answered 503") == 2
    assert told.count("no report: the service answered 422: An image cannot be used.") == 1
    assert "\x1b" not in told
    assert study not in told
    assert list(output.glob("*.dcm")) == []


def test_two_patients_in_a_study_are_refused(hospital, tmp_path, capsys):
    study = generate_uid()
    for patient in ("P-1", "P-2"):
        hospital.add(tmp_path, StudyInstanceUID=study, PatientID=patient)
    assert run(hospital, tmp_path / "reports") == 0
    assert "expected one patient in a study, got two" in capsys.readouterr().err
    assert hospital.asked == []


def test_an_archive_that_refuses_or_is_not_there_is_named(hospital, tmp_path, monkeypatch):
    monkeypatch.setenv(poll.ARCHIVE_AUTHORIZATION, "Basic wrong")
    with pytest.raises(DataError, match="the archive answered 401"):
        run(hospital, tmp_path / "reports")
    with DicomWeb("http://127.0.0.1:9") as archive, pytest.raises(DataError, match="cannot be reached"):
        archive.fetch("1", StoredImage("2", "3"))
    monkeypatch.delenv(poll.TOKEN)
    with pytest.raises(DataError, match="DIFFRGEN_API_TOKEN, got none"):
        run(hospital, tmp_path / "reports")


@pytest.mark.parametrize(
    ("body", "kind", "content"),
    [
        (b"--b\r\n\r\nab\r\n--\r\n\r\n--b--", 'multipart/related; boundary="b"', b"ab\r\n--\r\n"),
        (b"text\r\n--b\r\nX: y\r\n\r\n\0\r\n--b\r\n\r\nsecond\r\n--b--", "multipart/related; boundary=b", b"\0"),
        (b"DICM", "application/dicom", b"DICM"),
    ],
)
def test_the_file_in_a_multipart_answer(body, kind, content):
    assert first_part(body, kind) == content


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"x", "text/html"), (b"x", ""), (b"--b--", "multipart/related; boundary=b"), (b"--b\r\nx\r\n--b--", "multipart/related")],
)
def test_other_answers_are_refused(body, kind):
    with pytest.raises(DataError, match="from the archive, got"):
        first_part(body, kind)
