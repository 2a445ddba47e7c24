"""Invented miniatures of CheXpert Plus, ReXGradient-160K, PadChest-GR and a ReXrank file, in their hosts' layouts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mimic_archive import write_table
from PIL import Image

CHEXPERT_COLUMNS = (
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order", "report"),
    *("section_narrative", "section_clinical_history", "section_history", "section_comparison", "section_technique"),
    *("section_procedure_comments", "section_findings", "section_impression", "section_end_of_impression"),
    *("section_summary", "section_accession_number", "age", "sex", "race", "split"),
)
CHEXPERT_FINDINGS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia"),
    *("Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding"),
)


def png(value: int = 128, *, bits: int = 8) -> bytes:
    """Return a PNG of 8 x 8 pixels of `value`, 8 or 16 bits deep."""
    pixels = np.full((8, 8), value, dtype=np.uint8 if bits == 8 else np.uint16)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def chexpert_row(
    patient: str, study: int, view: str, order: int, findings: str, impression: str = "", *, split: str = "train"
) -> dict[str, str]:
    """Return a row of CheXpert Plus's table; view: PA, AP or LATERAL."""
    side = "lateral" if view == "LATERAL" else "frontal"
    path = f"{split}/{patient}/study{study}/view1_{side}.jpg"
    return {
        "path_to_image": path,
        "path_to_dcm": path.replace(".jpg", ".dcm"),
        "frontal_lateral": side.title(),
        "ap_pa": "" if side == "lateral" else view,
        "deid_patient_id": patient,
        "patient_report_date_order": str(order),
        "report": f"NARRATIVE: {findings} {impression}",
        "section_clinical_history": "Shortness of\n breath.",
        "section_history": "COPD.",
        "section_technique": "",
        "section_comparison": "None",
        "section_findings": findings,
        "section_impression": impression,
        "age": "63.0",
        "sex": "Female",
        "split": split,
    }


def write_chexpert(
    root: Path,
    rows: Sequence[dict[str, str]],
    *,
    images: dict[str, bytes] | None = None,
    labels: dict[str, dict[str, object]] | None = None,
) -> Path:
    """Write CheXpert Plus's table, PNG/images_0.zip of `images` (default: all), and findings_fixed.json of `labels`."""
    table = [tuple(row.get(column, "") for column in CHEXPERT_COLUMNS) for row in rows]
    write_table(root / "df_chexpert_plus_240401.csv", CHEXPERT_COLUMNS, table)
    names = [row["path_to_image"].replace(".jpg", ".png") for row in rows]
    (root / "PNG").mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "PNG" / "images_0.zip", "w") as archive:
        for name, data in ({name: png() for name in names} if images is None else images).items():
            archive.writestr(f"PNG/{name}", data)
    if labels is not None:
        (root / "chexbert_labels").mkdir(exist_ok=True)
        blank = dict.fromkeys(CHEXPERT_FINDINGS)
        lines = [json.dumps({"path_to_image": path, **blank, **states}) for path, states in labels.items()]
        (root / "chexbert_labels" / "findings_fixed.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def rexgradient_study(
    patient: str, accession: str, date: str, findings: str, *, views: Sequence[str] = ("PA", "LATERAL"), impression: str = ""
) -> tuple[str, dict[str, object]]:
    """Return the key and the record of a study in ReXGradient's metadata with view positions."""
    uid = f"1.2.{accession}"
    folder = f"../deid_png/{patient}/{accession}/studies/{uid}/series/1/instances"
    record = {
        "id": f"p{patient}_a{accession}_s{uid}",
        "StudyInstanceUid": uid,
        "PatientID": patient,
        "AccessionNumber": accession,
        "PatientSex": "M",
        "PatientAge": "014Y",
        "StudyDate": date,
        "StudyDescription": "XR CHEST",
        "Indication": "Cough",
        "Comparison": "None",
        "Findings": findings,
        "Impression": impression,
        "ImagePath": [f"{folder}/{number}.png" for number in range(len(views))],
        "ImageViewPosition": list(views),
    }
    return str(record["id"]), record


def write_rexgradient(root: Path, splits: dict[str, Sequence[tuple[str, dict[str, object]]]], *, table: bool = False) -> Path:
    """Write the metadata of each split (train, valid, test), as JSON with view positions or as tables without."""
    folder = root / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        studies = splits.get(split, ())
        if table:
            columns = [name for name in rexgradient_study("1", "2", "20200101", "")[1] if name != "ImageViewPosition"]
            rows = [tuple(str(record[name]) for name in columns) for _, record in studies]
            write_table(folder / f"{split}_metadata.csv", tuple(columns), rows)
        else:
            # Written by hand where a key is there twice.
            members = ",\n".join(f"{json.dumps(key)}: {json.dumps(record)}" for key, record in studies)
            (folder / f"{split}_metadata_view_position.json").write_text(f"{{{members}}}", encoding="utf-8")
    return root


MASTER_COLUMNS = (
    *("StudyID", "ImageID", "label", "boxes_count", "extra_boxes_count", "locations", "prior_study", "progression_status"),
    *("prior_imageID", "sentence_en", "sentence_es", "study_is_benchmark", "study_is_validation", "split", "PatientID"),
    *("patient_is_benchmark", "PatientBirth", "PatientSex_DICOM", "StudyDate_DICOM", "StudyDate", "PatientAge"),
    *("label_group", "Year"),
)


def padchest_rows(study: str, patient: str, date: str, sentences: Sequence[str], *, split: str = "train") -> list[dict[str, str]]:
    """Return the rows of a study in PadChest-GR's master table, one a sentence."""
    shared = {
        "StudyID": study,
        "ImageID": f"{study}.png",
        "split": split,
        "PatientID": patient,
        "PatientSex_DICOM": "M",
        "StudyDate_DICOM": date,
        "PatientAge": "71.0",
    }
    return [{**shared, "sentence_en": sentence, "label": "label"} for sentence in sentences or ["none"]]


def write_padchest(root: Path, rows: Sequence[dict[str, str]], *, parts: int = 3) -> Path:
    """Write PadChest-GR's table, its reports of the same sentences, and its images in `parts` parts of one zip file."""
    write_table(root / "master_table.csv", MASTER_COLUMNS, [tuple(row.get(c, "") for c in MASTER_COLUMNS) for row in rows])
    reports: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        sentences = reports.setdefault(row["StudyID"], [])
        if row["sentence_en"] != "none":
            english = row["sentence_en"]
            boxes = [[0.1, 0.2, 0.3, 0.4]] if "effusion" in english else []
            sentences.append(
                {"sentence_en": english, "sentence_es": f"{english} (es)", "abnormal": bool(boxes), "boxes": boxes}
                | {"extra_boxes": [], "labels": ["label"], "locations": [], "progression": "worsening" if boxes else None}
            )
    content = [{"StudyID": study, "ImageID": f"{study}.png", "findings": told} for study, told in reports.items()]
    (root / "grounded_reports_20240819.json").write_text(json.dumps(content), encoding="utf-8")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for row in rows:
            if f"PadChest_GR/{row['ImageID']}" not in archive.NameToInfo:
                archive.writestr(f"PadChest_GR/{row['ImageID']}", png(40_000, bits=16))
    data, size = packed.getvalue(), -(-len(packed.getvalue()) // parts)
    for number in range(parts):
        (root / f"PadChest_GR.zip.{number + 1:03d}").write_bytes(data[number * size : (number + 1) * size])
    return root


def write_large_chexpert(root: Path, *, rows: int, studies: int, patients: int) -> Path:
    """Write CheXpert Plus's table alone, of `rows` images of `studies` studies, with reports of a usual length."""
    text = "The cardiomediastinal silhouette is stable. Moderate left pleural effusion, unchanged. No pneumothorax. " * 4
    made = []
    for number in range(rows):
        study = number % studies
        patient = study % patients
        split = "valid" if patient % 200 == 0 else "train"
        row = chexpert_row(
            *(f"patient{patient:05d}", study // patients + 1, ("AP", "LATERAL")[number >= studies], study // patients),
            *(f"{number}. {text}", text),
            split=split,
        )
        made.append(tuple({**row, "report": text * 3}.get(column, "") for column in CHEXPERT_COLUMNS))
    write_table(root / "df_chexpert_plus_240401.csv", CHEXPERT_COLUMNS, made)
    return root
