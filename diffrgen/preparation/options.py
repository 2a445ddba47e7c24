"""What a user can choose when an archive is made into an annotation file."""

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
    """Make an annotation.json from PhysioNet's MIMIC-CXR and MIMIC-CXR-JPG, in the official split.

    NOTE: one entry an image is the default: the paper's 270,790 / 2,130 / 3,858 samples are more than the
    222,758 / 1,808 / 3,269 studies of the split, as R2Gen's file has an entry for each image.
    """

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with mimic-cxr-2.0.0-split.csv.gz, -metadata.csv.gz and the reports, all of them at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json."""
    section: SectionChoice = "findings"
    """Section of the report that becomes the text; both: findings, then impression, where at least one is there."""
    combined: CombinedAs = "impression"
    """What a FINDINGS AND IMPRESSION section counts as; PhysioNet's own section files count it as impression."""
    last_paragraph: bool = False
    """Use the last paragraph of a report that has neither section, instead of dropping it."""
    entries: EntryUnit = "image"
    """image: an entry for each image, as R2Gen and the paper count; study: one with all images (4 at most),
    frontal first."""
    views: tuple[str, ...] = ()
    """Views to keep, as in ViewPosition (PA AP LATERAL LL ...), or frontal, lateral, unknown; default all."""
    labels: LabelSource = "auto"
    """Labels of the 14 findings; auto: chexpert where its table is there, else negbio, else none."""
    check_images: bool = False
    """Leave out images whose file is not there (reads the folder of every study)."""
    overwrite: bool = False
    """Replace an annotation.json of other content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class IuXrayOptions:
    """Make an annotation.json from IU X-Ray: Open-i's XML, Kaggle's tables or R2Gen's own annotation.json."""

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with NLMCXR_reports.tgz or its *.xml, or indiana_reports.csv, or annotation.json, at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json; another one than the archive."""
    source: IuSource = "auto"
    """Where reports and images come from; auto: openi (the XML), else kaggle, else annotation, whichever is there."""
    split: IuSplit = "auto"
    """r2gen: that of annotation.json or split.csv (columns id, split) in the archive; patients: 7:1:2 by a hash of
    the patient; whole: every study in test; auto: r2gen where the archive has it, else patients."""
    section: SectionChoice = "findings"
    """Section of the report that becomes the text; both: findings, then impression, where at least one is there."""
    entries: EntryUnit = "study"
    """study: an entry with all images (4 at most), frontal first, as R2Gen; image: an entry for each image."""
    views: tuple[str, ...] = ()
    """Views to keep: frontal, lateral, unknown; default all. The XML alone does not tell views."""
    min_images: Count | None = None
    """Drop studies with fewer images; default 2 as R2Gen does, 1 with --split whole."""
    check_images: bool = False
    """Leave out images whose file is not there."""
    overwrite: bool = False
    """Replace an annotation.json of other content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class CollectionOptions:
    """What every collection below can be asked for."""

    archive: Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]
    """Folder with the files of the collection as its host ships them, at any depth."""
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for annotation.json and summary.json."""
    section: SectionChoice = "findings"
    """Section of the report that becomes the text; both: findings, then impression, where at least one is there."""
    entries: EntryUnit = "study"
    """study: an entry with all images (4 at most), frontal first; image: an entry for each image."""
    views: tuple[str, ...] = ()
    """Views to keep, as the collection names them (PA AP LATERAL ...), or frontal, lateral, unknown; default all."""
    check_images: bool = False
    """Leave out images that are not among the image files, or not in the packed ones where these can be listed."""
    unpack: bool = False
    """Write the images of the kept studies out of the host's packed files to OUT/images, leaving out those that are missing
    or damaged. Images that are there already in their size are passed over."""
    overwrite: bool = False
    """Replace an annotation.json of other content."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ChexpertPlusOptions(CollectionOptions):
    """Make an annotation.json from CheXpert Plus: df_chexpert_plus_240401.csv, its labels and images.

    Priors follow from the order of a patient's reports; the collection has no dates. Most reports have an impression and no
    findings: see --section.
    """

    images: ChexpertImages = "png"
    """Which of the collection's images the paths are of: those of PNG/*.zip, the JPEGs of CheXpert, or the DICOM files."""
    labels: ChexpertLabels = "auto"
    """Labels of the 14 findings, by CheXbert on that text; auto: on the section that becomes the text, where its file is
    there."""
    valid_as: Literal["val", "test"] = "val"
    """What the 200 studies of the official valid split are. test, as ReXrank takes them: val is then a hundredth of the
    training patients, by a hash of their names."""


@dataclass(frozen=True)
class RexGradientOptions(CollectionOptions):
    """Make an annotation.json from ReXGradient-160K: the metadata tables of its three splits and deid_png.part*.

    Priors are the patient's latest study of an earlier day. To unpack images, pip install "diffrgen[zstd]".
    """


@dataclass(frozen=True)
class PadchestGrOptions(CollectionOptions):
    """Make an annotation.json from PadChest-GR: master_table.csv, grounded_reports_*.json and PadChest_GR.zip.*.

    A report is the sentences of the study in their order; the records keep each with its boxes, labels and progression.
    """

    language: Language = "en"
    """Language of the sentences."""


@dataclass(frozen=True)
class ReXrankInputOptions(CollectionOptions):
    """Make an annotation.json from a ReXrank file, an object of studies by id with image_path, context and report.

    ARCHIVE is the file, or a folder with one such file. To answer the file for the leaderboard: python -m diffrgen.rexrank.
    """
