"""A miniature MIMIC-CXR in PhysioNet's exact layout, with the peculiarities of its tables and reports."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

RULE = "  " + "_" * 78
FINDINGS_COLUMNS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)


class Row(NamedTuple):
    """One image: a row of the metadata table and of the split list."""

    dicom: str
    patient: str
    study: str
    split: str
    view: str
    date: str
    time: str


# Patient 10000032: two studies, the later one listed first; times have lost their leading zeros.
ROWS = (
    Row("bbbb-lat", "10000032", "50000002", "train", "LATERAL", "21800626", "165500.312"),
    Row("bbbb-pa", "10000032", "50000002", "train", "PA", "21800626", "165500.312"),
    Row("aaaa-ap", "10000032", "50000001", "train", "AP", "21800506", "84500"),
    Row("aaaa-lat", "10000032", "50000001", "train", "LL", "21800506", "84556.875"),
    Row("cccc", "10000032", "50000003", "train", "", "21800626", "235959.5"),
    Row("dddd", "11000011", "51000001", "validate", "AP", "21110101", "0"),
    Row("eeee", "12000012", "52000001", "test", "PA", "21500228", "120000.0"),
    Row("ffff", "12000012", "52000002", "test", "PA", "21500301", "120000.0"),
    Row("gggg", "12000012", "52000003", "test", "PA", "21500302", "120000.0"),
)
REPORTS = {
    "50000001": f"""\
 WET READ: ___ ___ 8:07 PM
  Wet read findings, not the report.
{RULE}
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // eval for pneumonia

 FINDINGS:

 The heart is mildly enlarged.  There is
 no pneumothorax.

 IMPRESSION:

 Mild cardiomegaly.
""",
    "50000002": """\
                                 FINAL REPORT
 CHEST, TWO VIEWS:

 HISTORY:  ___-year-old with dyspnea.

 FINDINGS:  Right pleural effusion, new since ___.

 IMPRESSION:  New effusion.
""",
    "50000003": """\
                                 FINAL REPORT
 CHEST RADIOGRAPH, PORTABLE:  Lines in standard position.
""",
    "51000001": """\
                                 FINAL REPORT
 FINDINGS AND IMPRESSION:  Clear lungs.
""",
    "52000001": """\
                                 FINAL REPORT
 INDICATION:  Fever.

 FINDINGS:  Lungs are clear.
""",
    "52000002": """\
                                 FINAL REPORT
 HISTORY:  Pain.

 No acute process.
""",
}
# Study 50000002 has every state; 50000003 is not in the table, as some of MIMIC's are not.
LABELS = {
    "50000001": {"Cardiomegaly": "1.0", "Pneumothorax": "0.0"},
    "50000002": {"Pleural Effusion": "1.0", "Edema": "-1.0", "Fracture": "0.0"},
    "52000001": {"No Finding": "1.0"},
}


class Content(NamedTuple):
    """What an archive holds: a row an image, reports and label cells by study."""

    rows: tuple[Row, ...]
    reports: dict[str, str]
    labels: dict[str, dict[str, str]]


MINIATURE = Content(ROWS, REPORTS, LABELS)
METADATA_COLUMNS = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"),
    *("StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
    "PatientOrientationCodeSequence_CodeMeaning",
)


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Write a CSV table, gzipped where its name ends in .gz."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def grey_square(row: Row) -> Image.Image:
    """Return the smallest picture of an image that nobody looks at."""
    return Image.new("L", (8, 8), 128)


def write_archive(
    root: Path,
    *,
    content: Content = MINIATURE,
    picture: Callable[[Row], Image.Image] = grey_square,
    end: str = ".csv.gz",
    zipped: bool = True,
    version: str = "2.0.0",
) -> Path:
    """Write MIMIC-CXR and MIMIC-CXR-JPG under `root` as `wget -r` leaves them; return `root`.

    version: that of the release's folder; the tables are called 2.0.0 in 2.1.0 too.
    """
    rows, reports, labels = content
    jpg = root / "physionet.org" / "files" / "mimic-cxr-jpg" / version
    text = root / "physionet.org" / "files" / "mimic-cxr" / version
    described = [
        (r.dicom, r.patient, r.study, "CHEST (PA AND LAT)", r.view, "8", "8", r.date, r.time, "", "", "") for r in rows
    ]
    write_table(jpg / f"mimic-cxr-2.0.0-metadata{end}", METADATA_COLUMNS, described)
    listed = [(r.dicom, r.study, r.patient, r.split) for r in rows]
    write_table(jpg / f"mimic-cxr-2.0.0-split{end}", ("dicom_id", "study_id", "subject_id", "split"), listed)
    patient_of = {r.study: r.patient for r in rows}
    states = [
        (patient_of[study], study, *(known.get(name, "") for name in FINDINGS_COLUMNS))
        for study, known in labels.items()
    ]
    write_table(jpg / f"mimic-cxr-2.0.0-chexpert{end}", ("subject_id", "study_id", *FINDINGS_COLUMNS), states)
    for row in rows:
        folder = jpg / "files" / f"p{row.patient[:2]}" / f"p{row.patient}" / f"s{row.study}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(row).save(folder / f"{row.dicom}.jpg")
    write_reports(text, {study: (patient_of[study], report) for study, report in reports.items()}, zipped=zipped)
    return root


def write_reports(folder: Path, reports: dict[str, tuple[str, str]], *, zipped: bool) -> None:
    """Write study -> (patient, report) to mimic-cxr-reports.zip or to files/."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"files/p{patient[:2]}/p{patient}/s{study}.txt": text for study, (patient, text) in reports.items()}
    if zipped:
        with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in paths.items():
                archive.writestr(path, text)
        return
    for path, text in paths.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


LARGE_REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old man with respiratory failure  // eval for interval change

 TECHNIQUE:  Single frontal view of the chest.

 COMPARISON:  Chest radiograph from ___.

 FINDINGS:

 Study {study}.  The endotracheal tube terminates 4.2 cm above the carina.  A right internal
 jugular central venous catheter ends in the lower superior vena cava.  Lung volumes
 are low.  Moderate bilateral pleural effusions with adjacent atelectasis are not
 substantially changed.  There is mild pulmonary vascular congestion.  No pneumothorax.

 IMPRESSION:

 1.  Lines and tubes in standard position.
 2.  Unchanged moderate bilateral pleural effusions and mild congestion.
"""


def write_large(root: Path, *, images: int, studies: int, patients: int) -> None:
    """Write tables of `images` rows and a zip of `studies` reports in MIMIC-CXR's form; no image files."""
    rows = [_large_row(number % studies, number, patients) for number in range(images)]
    described = [(r.dicom, r.patient, r.study, "", r.view, "2544", "3056", r.date, r.time, "", "", "") for r in rows]
    write_table(root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, described)
    listed = [(r.dicom, r.study, r.patient, r.split) for r in rows]
    write_table(root / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), listed)
    states = ("", "1.0", "", "-1.0", "", "", "", "0.0", "", "1.0", "", "", "0.0", "1.0")
    labels = [(row.patient, row.study, *states) for row in rows[:studies]]
    write_table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *FINDINGS_COLUMNS), labels)
    reports = {row.study: (row.patient, LARGE_REPORT.format(study=row.study)) for row in rows[:studies]}
    write_reports(root, reports, zipped=True)


def _large_row(study: int, number: int, patients: int) -> Row:
    patient = study % patients
    split = "test" if patient % 100 == 0 else "validate" if patient % 100 == 1 else "train"
    return Row(
        dicom=f"{number:08x}-{number * 7919:08x}-{number * 104729:08x}-{study:08x}-{patient:08x}"[:44],
        patient=f"1{patient * 137 % 10_000_000:07d}",
        study=f"5{study:07d}",
        split=split,
        view=("AP", "PA", "LATERAL", "LL")[number % 4],
        date=f"21{study % 80 + 10}{study % 12 + 1:02d}{study % 28 + 1:02d}",
        time=f"{study % 24 * 10000 + study % 60}.5",
    )
