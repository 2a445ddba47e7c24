"""MIMIC-CXR-JPG's labels of the 14 findings (CheXpert's or NegBio's table) as states in CheXbert's order."""

from __future__ import annotations

from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.labels import FINDINGS, State
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.options import LabelSource
from diffrgen.preparation.table import read_table

STATES = {
    **dict.fromkeys(("1.0", "1"), State.POSITIVE),
    **dict.fromkeys(("0.0", "0", "-0.0"), State.NEGATIVE),
    **dict.fromkeys(("-1.0", "-1"), State.UNCERTAIN),
    "": State.BLANK,
}
# NegBio's name of the finding.
ALIASES = {"airspace opacity": "lung opacity"}


def label_table(archive: Archive, source: LabelSource) -> Path | None:
    """Return the label table that `source` means; None for "none", or "auto" if there is none.

    DataError if a table asked for by name is not there.
    """
    if source == "none":
        return None
    tables = ("chexpert", "negbio") if source == "auto" else (source,)
    names = [f"mimic-cxr-2.0.0-{table}.csv{end}" for table in tables for end in (".gz", "")]
    if source == "auto":
        return archive.find(names)
    return archive.need(names, f"the labels that --labels {source} asks for")


def read_labels(path: Path) -> dict[str, bytes]:
    """Return the 14 states of each study, a byte each in the order of `FINDINGS`: 0 blank, 1 positive, 2 negative,
    3 uncertain; the table has 1, 0, -1 and blank.

    DataError names the file, the study and the value where one is another.
    """
    labels: dict[str, bytes] = {}
    for study, *values in read_table(path, ("study_id", *FINDINGS), aliases=ALIASES, ids=("study_id",)):
        try:
            labels[study] = bytes([STATES[value] for value in values])
        except KeyError as error:
            raise DataError(
                f"{path}: study {study}: expected 1, 0, -1 or blank for each finding, got {error.args[0]!r}"
            ) from None
    return labels
