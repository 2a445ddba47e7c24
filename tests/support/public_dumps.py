"""Files of invented reports in the shapes that public code bases write; the columns are those of their loggers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

# id, findings and impression of the reference, findings and impression that a system generated.
STUDIES = (
    ("s1", "The heart is enlarged, with edema.", "Cardiomegaly.", "The heart is enlarged.", "Cardiomegaly."),
    ("s2", "No effusion.", 'Normal, as "before".', "There is a pleural effusion.", "Effusion."),
    ("s3", "Clear lungs.", "No acute disease.", "Clear lungs, no edema.", "Normal."),
)


class Dump(NamedTuple):
    """A prediction file, its file of references where that is another one, and the options that it needs."""

    predictions: Path
    references: Path | None = None
    options: tuple[str, ...] = ()


def write(path: Path, rows: list[tuple[str, ...]]) -> Path:
    """Write rows as pandas does: fields with a comma, a quote or a line end between quotes."""
    lines = [
        ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"\n') else field for field in row)
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def r2gen(folder: Path) -> Dump:
    """R2Gen's tester: pandas tables of one column, without header or index, hypotheses and references apart."""
    written = write(folder / "res.csv", [(generated,) for _, _, _, generated, _ in STUDIES])
    return Dump(written, write(folder / "gts.csv", [(truth,) for _, truth, _, _, _ in STUDIES]))


def cxrmate2(folder: Path) -> Dump:
    """CXRMate-2's ReportLogger: findings, impression, study_id; no references."""
    rows = [("findings", "impression", "study_id")]
    rows += [(findings, impression, name) for name, _, _, findings, impression in STUDIES]
    truth = [("study_id", "findings", "impression"), *((name, f, i) for name, f, i, _, _ in STUDIES)]
    return Dump(write(folder / "reports.csv", rows), write(folder / "truth.csv", truth))


def mlrg(folder: Path) -> Dump:
    """MLRG's ReportLogger: dicom_id, labels (the reference as text), report (generated)."""
    rows = [("dicom_id", "labels", "report"), *((name, truth, said) for name, truth, _, said, _ in STUDIES)]
    return Dump(write(folder / "test_reports_epoch-1.csv", rows))


def priorrg(folder: Path) -> Dump:
    """PriorRG's ReportLogger: dicom_id, reference_report, generated_report."""
    rows = [("dicom_id", "reference_report", "generated_report")]
    return Dump(write(folder / "mimic.csv", rows + [(name, truth, said) for name, truth, _, said, _ in STUDIES]))


def rexrank(folder: Path) -> Dump:
    """ReXrank's prediction.json: an object by study of the input record with `model_prediction`; NaN for no section."""
    content = {
        name: {
            "image_path": [f"/{name}/0.jpg"],
            "key_image_path": f"/{name}/0.jpg",
            "context": "Age:60-70.Gender:F.Indication: cough.",
            "frontal_lateral": ["frontal"],
            "section_findings": findings,
            "section_impression": float("nan") if name == "s3" else impression,
            "report": f"Findings: {findings} Impression: {impression}",
            "split": "test",
            "subject_id": f"p{name}",
            "model_prediction": f"FINDINGS: {said} IMPRESSION: {concluded}",
        }
        for name, findings, impression, said, concluded in STUDIES
    }
    path = folder / "prediction.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Dump(path)
