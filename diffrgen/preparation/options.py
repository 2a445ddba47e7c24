"""Options for creating an annotation file from an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffrgen.ranges import Count, check_fields

SectionChoice = Literal["findings", "impression", "both"]
EntryUnit = Literal["image", "study"]
CombinedAs = Literal["impression", "findings"]
LabelSource = Literal["auto", "chexpert", "negbio", "none"]
IuSource = Literal["auto", "openi", "kaggle", "annotation"]
IuSplit = Literal["auto", "r2gen", "patients", "whole"]


ChexpertImages = Literal["png", "jpg", "dicom"]
ChexpertLabels = Literal["auto", "report", "findings", "impression", "none"]
Language = Literal["en", "es"]


@dataclass(frozen=True)
class MimicCxrOptions:
    """Create an annotation.json from PhysioNet's MIMIC-CXR and MIMIC-CXR-JPG, with the official split.

    NOTE: the default is one entry per image, as in R2Gen's file: the paper's 270,790 / 2,130 / 3,858 samples exceed the
    222,758 / 1,808 / 3,269 studies of the split.
    """

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with mimic-cxr-2.0.0-split.csv.gz, -metadata.csv.gz and the reports, at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json."""
    section: SectionChoice = "findings"
    """Section of the report used as text; both: findings, then impression, if at least one exists."""
    combined: CombinedAs = "impression"
    """Treatment of a FINDINGS AND IMPRESSION section; PhysioNet's section files treat it as impression."""
    last_paragraph: bool = False
    """Use the last paragraph of a report with neither section, instead of excluding the report."""
    entries: EntryUnit = "image"
    """image: one entry per image, as in R2Gen and the paper; study: one entry with all images (at most 4), frontal
    first."""
    views: tuple[str, ...] = ()
    """Views to keep, as in ViewPosition (PA AP LATERAL LL ...), or frontal, lateral, unknown; default: all."""
    labels: LabelSource = "auto"
    """Labels of the 14 findings; auto: chexpert if its table exists, else negbio, else none."""
    check_images: bool = False
    """Exclude images whose file does not exist (reads the folder of every study)."""
    overwrite: bool = False
    """Replace an annotation.json with different content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class IuXrayOptions:
    """Create an annotation.json from IU X-Ray: Open-i's XML, Kaggle's tables or R2Gen's annotation.json."""

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with NLMCXR_reports.tgz or its *.xml, or indiana_reports.csv, or annotation.json, at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json; must differ from the archive."""
    source: IuSource = "auto"
    """Source of reports and images; auto: openi (the XML), else kaggle, else annotation, if present."""
    split: IuSplit = "auto"
    """r2gen: the split of annotation.json or split.csv (columns id, split) in the archive; patients: 7:1:2 by a hash of
    the patient; whole: every study in test; auto: r2gen if the archive has it, else patients."""
    section: SectionChoice = "findings"
    """Section of the report used as text; both: findings, then impression, if at least one exists."""
    entries: EntryUnit = "study"
    """study: one entry with all images (at most 4), frontal first, as in R2Gen; image: one entry per image."""
    views: tuple[str, ...] = ()
    """Views to keep: frontal, lateral, unknown; default: all. The XML alone does not contain views."""
    min_images: Count | None = None
    """Exclude studies with fewer images; default: 2 as in R2Gen, 1 with --split whole."""
    check_images: bool = False
    """Exclude images whose file does not exist."""
    overwrite: bool = False
    """Replace an annotation.json with different content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class CollectionOptions:
    """Options shared by the collections below."""

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with the original files of the collection, at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json."""
    section: SectionChoice = "findings"
    """Section of the report used as text; both: findings, then impression, if at least one exists."""
    entries: EntryUnit = "study"
    """study: one entry with all images (at most 4), frontal first; image: one entry per image."""
    views: tuple[str, ...] = ()
    """Views to keep, as named by the collection (PA AP LATERAL ...), or frontal, lateral, unknown; default: all."""
    check_images: bool = False
    """Exclude images missing from the image files, or from the packed files if these can be listed."""
    unpack: bool = False
    """Extract the images of the selected studies from the host's packed files to OUT/images, excluding missing and
    damaged images. Existing images of the right size are skipped."""
    overwrite: bool = False
    """Replace an annotation.json with different content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ChexpertPlusOptions(CollectionOptions):
    """Create an annotation.json from CheXpert Plus: df_chexpert_plus_240401.csv, its labels and images.

    Priors follow the order of a patient's reports, because the collection has no dates. Most reports have an impression
    but no findings: see --section.
    """

    images: ChexpertImages = "png"
    """Image files of the paths: those of PNG/*.zip, CheXpert's JPEG files, or the DICOM files."""
    labels: ChexpertLabels = "auto"
    """Labels of the 14 findings, by CheXbert on that text; auto: on the selected section, if its file exists."""
    valid_as: Literal["val", "test"] = "val"
    """Split of the 200 studies of the official valid split. test, as in ReXrank: val is then 1 % of the training
    patients, by a hash of their names."""


@dataclass(frozen=True)
class RexGradientOptions(CollectionOptions):
    """Create an annotation.json from ReXGradient-160K: the metadata tables of its three splits and deid_png.part*.

    A prior is the patient's latest study of an earlier day. Unpacking images requires pip install "diffrgen[zstd]".
    """


@dataclass(frozen=True)
class PadchestGrOptions(CollectionOptions):
    """Create an annotation.json from PadChest-GR: master_table.csv, grounded_reports_*.json and PadChest_GR.zip.*.

    A report is the sequence of the study's sentences; the records store each sentence with its boxes, labels and
    progression.
    """

    language: Language = "en"
    """Language of the sentences."""


@dataclass(frozen=True)
class ReXrankInputOptions(CollectionOptions):
    """Create an annotation.json from a ReXrank file, an object of studies by id with image_path, context and report.

    ARCHIVE is the file, or a folder with one such file. To generate reports for the leaderboard: python -m
    diffrgen.rexrank.
    """
