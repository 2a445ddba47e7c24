"""The studies behind an index: ids, patients and report texts, each distinct text held once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json


@dataclass(frozen=True)
class IndexedStudies:
    """Training studies by row. `texts` are the distinct reports in order of first appearance; study `row` wrote
    `texts[text_of[row]]`. Reports that repeat word for word share one text, one embedding and one place in a result.
    """

    ids: tuple[str, ...]
    patients: tuple[str | None, ...]
    texts: tuple[str, ...]
    text_of: np.ndarray = field(repr=False)  # (n,) int64

    @classmethod
    def of(
        cls, *, ids: Sequence[str], reports: Sequence[str], patients: Sequence[str | None] | None = None
    ) -> IndexedStudies:
        """Group studies by report text; DataError for ids that repeat or an empty list."""
        patients = [None] * len(ids) if patients is None else patients
        if not len(ids) == len(reports) == len(patients):
            raise ValueError(f"expected one report and patient an id, got {len(ids)}, {len(reports)}, {len(patients)}")
        if not ids:
            raise DataError("needed at least one training study for a retrieval index, got none")
        if len(set(ids)) < len(ids):
            repeated = Counter(ids).most_common(1)[0][0]
            raise DataError(f"study id {repeated!r} comes more than once in the training split: ids must be unique")
        rows: dict[str, int] = {}
        text_of = np.array([rows.setdefault(report, len(rows)) for report in reports], dtype=np.int64)
        return cls(tuple(ids), tuple(patients), tuple(rows), text_of)

    def __len__(self) -> int:
        return len(self.ids)

    def report(self, row: int) -> str:
        """Return the report text of study `row`."""
        return self.texts[self.text_of[row]]

    def first_row(self, text: int, *, excluded: frozenset[int] = frozenset()) -> int:
        """Return the first study of `text` that is not excluded, -1 if there is none."""
        start, stop = self._starts[text], self._starts[text + 1]
        return next((int(row) for row in self._by_text[start:stop] if int(row) not in excluded), -1)

    def excluded_rows(self, study: str | None, patient: str | None) -> frozenset[int]:
        """Return the rows that a query of `study` and `patient` must not be given (None excludes nothing)."""
        rows = set(self._rows_of_patient.get(patient, ())) if patient is not None else set()
        if study in self._row_of_id:
            rows.add(self._row_of_id[study])
        return frozenset(rows)

    def holds(self, study: str, report: str) -> bool:
        """Return whether the study of this id is here with this cleaned report."""
        row = self._row_of_id.get(study)
        return row is not None and self.report(row) == report

    def save(self, path: Path) -> None:
        """Write the studies as JSON."""
        content = {"ids": self.ids, "patients": self.patients, "texts": self.texts, "text_of": self.text_of.tolist()}
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> IndexedStudies:
        """Read what `save` wrote; DataError when the file does not hold it."""
        try:
            content: Any = parse_json(path.read_text(encoding="utf-8"))
            text_of = np.array(content["text_of"], dtype=np.int64)
            studies = cls(tuple(content["ids"]), tuple(content["patients"]), tuple(content["texts"]), text_of)
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"{path}: needed the studies of a retrieval index as JSON: {error!r}") from error
        named = [*studies.ids, *studies.texts, *(patient for patient in studies.patients if patient is not None)]
        if text_of.ndim != 1 or not all(isinstance(name, str) for name in named):
            raise DataError(f"{path}: needed lists of texts and one list of numbers; build the index again")
        counts = (len(studies.ids), len(studies.patients), len(text_of))
        if len(set(counts)) != 1 or not set(text_of.tolist()) <= set(range(len(studies.texts))):
            raise DataError(f"{path}: needed one patient and one text for each id, got counts {counts}")
        return studies

    @cached_property
    def first_rows(self) -> np.ndarray:
        """The first study of each text, (texts,) int64."""
        return self._by_text[self._starts[:-1]]

    @cached_property
    def _by_text(self) -> np.ndarray:
        return np.argsort(self.text_of, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.bincount(self.text_of, minlength=len(self.texts)))])

    @cached_property
    def _row_of_id(self) -> dict[str | None, int]:
        return {study: row for row, study in enumerate(self.ids)}

    @cached_property
    def _rows_of_patient(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, patient in enumerate(self.patients):
            if patient is not None:
                rows.setdefault(patient, []).append(row)
        return rows
