"""A thousand damaged files of each kind, or ten: each is read, or refused by an error that names the file and the reason."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from iu_archive import write_openi
from mimic_archive import write_archive
from PIL import Image
from warm_process import run_warm

from diffrgen.errors import DataError
from diffrgen.images import MAX_PIXELS, read_grey
from diffrgen.preparation.openi import read_openi
from diffrgen.preparation.report_files import UnpackedReports, ZippedReports
from diffrgen.preparation.table import read_table

SUPPORT = Path(__file__).parent / "support"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from Linux's /proc")
# DIFFRGEN_FULL_SCALE=1: 10,000 files of each kind.
FULL = os.environ.get("DIFFRGEN_FULL_SCALE") == "1"
FILES = 10_000 if FULL else 1_000
# Readers by the kind of file, with their shares in hundredths; a process starts once a kind.
KINDS = {
    "images": {"pictures": 100},
    "dicom": {"dicom": 100},
    "json": {"annotation": 40, "dumps": 40, "r2gen": 20},
    "csv": {"mimic-cxr": 60, "kaggle": 40},
    "xml": {"openi": 60, "openi-xml": 40},
    "run": {"settings": 40, "index": 60},
    "faiss": {"faiss": 60, "approximate": 40},
}


def feed(folder: Path, shares: dict[str, int], *, seed: int = 0) -> list[dict]:
    """Run the worker; its findings, then a line a reader. A crash or a hang ends it before the last of those."""
    counts = [f"{name}={FILES * share // 100}" for name, share in shares.items()]
    command = [sys.executable, str(SUPPORT / "malformed_worker.py"), str(folder), str(seed), *counts]
    done = run_warm(command, timeout=1500)
    last = next((path.read_text() for path in sorted(folder.glob("*/case"), key=os.path.getmtime)[-1:]), "start")
    assert done.returncode == 0, f"ended with {done.returncode} at {last}: {done.stderr[-3000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


@linux
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    lines = feed(tmp_path, KINDS[kind])
    faults = [line for line in lines if "fault" in line]
    shown = "\n".join(f"{f['reader']} {f['case']} {f['file']}: {f['fault']}" for f in faults[:3])
    assert not faults, f"{len(faults)} findings\n{shown}"
    summaries = {line["reader"]: line for line in lines}
    assert list(summaries) == list(KINDS[kind])
    for summary in summaries.values():
        # Damage that breaks everything or nothing tests nothing.
        assert 0 < summary["loaded"] < summary["cases"]


def test_shares_make_up_the_whole():
    assert {sum(shares.values()) for shares in KINDS.values()} == {100}


@linux
def test_a_reader_that_fails_is_found(tmp_path):
    """The worker tells another exception, a message without a reason and a file that takes too long."""
    lines = feed(tmp_path, {"broken": 3})
    assert {line["fault"].strip().splitlines()[-1][:27] for line in lines[:-1]} == {
        "ZeroDivisionError: division",
        "a message without file or r",
    }


def zeros(path: Path, count: int) -> None:
    """A gzip file of `count` megabytes of zeros."""
    with gzip.open(path, "wb", 1) as file:
        for _ in range(count):
            file.write(bytes(1 << 20))


def test_a_line_without_end_is_refused(tmp_path):
    path = tmp_path / "table.csv.gz"
    zeros(path, 30)
    with pytest.raises(DataError, match=r"table\.csv\.gz: expected lines of less than 1,000,000 characters"):
        list(read_table(path, ("id", "split")))


def test_reports_of_any_size_are_refused(tmp_path):
    archive = write_archive(tmp_path / "zipped")
    path = next(archive.rglob("*.zip"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("files/p19/p19000000/s59000000.txt", bytes(30 << 20))
    with pytest.raises(
        DataError, match=r"s59000000\.txt: expected a report of at most 1,000,000 bytes, got 31,457,280"
    ):
        ZippedReports(path).read("19000000", "59000000")
    folder = tmp_path / "p19" / "p19000000"
    folder.mkdir(parents=True)
    (folder / "s59000000.txt").write_bytes(bytes(1_000_001))
    with pytest.raises(DataError, match=r"s59000000\.txt: expected a report of at most 1,000,000 bytes, got 1,000,001"):
        UnpackedReports(tmp_path).read("19000000", "59000000")


def test_a_header_of_any_size_is_refused(tmp_path):
    """A tar file's extended header is read whole before its member is looked at."""
    path = write_openi(tmp_path / "archive") / "NLMCXR_reports.tgz"
    with tarfile.open(path, "w:gz") as packed:
        member = tarfile.TarInfo("1.xml")
        member.type, member.size = tarfile.XHDTYPE, 30 << 20
        packed.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(DataError, match=r"NLMCXR_reports\.tgz: .* a header or report of 31,457,280 bytes"):
        read_openi(path, {})


def test_dicom_of_wide_values_or_several_a_grey_pixel_is_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
    path = tmp_path / "wide.dcm"
    sample = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm")
    sample.BitsAllocated, sample.Rows, sample.Columns = 32, 5000, MAX_PIXELS // 4 // 5000 + 1
    sample.save_as(path)
    with pytest.raises(DataError, match=rf"wide\.dcm: .* pixels are over the limit of {MAX_PIXELS // 4}$"):
        read_grey(path)
    sample.BitsAllocated, sample.SamplesPerPixel = 16, 3
    sample.save_as(path)
    with pytest.raises(DataError, match=r"wide\.dcm: expected one value a pixel in MONOCHROME2, got 3"):
        read_grey(path)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(path)
    whole = bytearray(path.read_bytes())
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_grey(path)
