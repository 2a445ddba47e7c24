"""The real IU X-Ray: all 3,955 reports parse, and the three forms that it is passed on in agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffrgen.preparation import IuXrayOptions, prepare_iu_xray
from diffrgen.preparation.kaggle_iu import read_kaggle
from diffrgen.preparation.openi import read_openi
from diffrgen.records import SPLITS

INDICATIONS = 2907


def prepare(archive: Path, out: Path, **options: object) -> dict:
    prepare_iu_xray(IuXrayOptions(archive, out, **options))
    return json.loads((out / "annotation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    return shared / "iu_xray"


@pytest.fixture(scope="module")
def openi_studies(real: Path) -> dict:
    return {study.number: study for study in read_openi(real / "NLMCXR_reports.tgz", {})}


def test_all_3955_real_reports_parse(openi_studies: dict) -> None:
    assert len(openi_studies) == 3955
    assert sum(len(study.images) for study in openi_studies.values()) == 7470
    assert sum(not study.sections.findings for study in openi_studies.values()) == 530
    assert sum(not study.sections.impression for study in openi_studies.values()) == 34
    assert openi_studies["1"].sections.impression == "Normal chest x-XXXX."


def test_kaggles_3851_reports_are_openis(real: Path, openi_studies: dict) -> None:
    kaggle = read_kaggle(real / "indiana_reports.csv", real / "indiana_projections.csv")
    assert len(kaggle) == 3851
    assert sum(len(study.images) for study in kaggle) == 7466
    different = [s.number for s in kaggle if text_pair(s) != text_pair(openi_studies[s.number])]
    assert different == []


def text_pair(study) -> tuple[str, str]:
    return study.sections.findings, study.sections.impression


def test_all_2955_findings_agree_with_r2gens_reports(real: Path, tmp_path: Path) -> None:
    """R2Gen's set is the studies with findings and two images or more: no exception in either direction."""
    made = prepare(real, tmp_path / "out")
    theirs = json.loads((real / "annotation.json").read_text(encoding="utf-8"))
    for split, count in zip(SPLITS, (2069, 296, 590), strict=True):
        assert len(made[split]) == count
        assert {r["id"]: r["report"] for r in made[split]} == {
            r["id"]: " ".join(r["report"].split()) for r in theirs[split]
        }
    dropped = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["dropped"]["studies"]
    assert {reason: entry["count"] for reason, entry in dropped.items()} == {
        "report without findings": 530,
        "study with fewer than 2 image(s) of the wanted views": 470,
    }


def test_r2gens_2955_real_records_pass_through(real: Path, tmp_path: Path) -> None:
    theirs = json.loads((real / "annotation.json").read_text(encoding="utf-8"))
    joined = prepare(real, tmp_path / "out", source="annotation")
    for split in theirs:
        assert [{key: record[key] for key in theirs[split][0]} for record in joined[split]] == theirs[split]
    # Counted in the XML files by hand: grep for an INDICATION that is not empty.
    assert sum("indication" in record for records in joined.values() for record in records) == INDICATIONS
    assert len(prepare(real, tmp_path / "whole", source="annotation", split="whole")["test"]) == 2955
