"""Digests of the studies that a run was trained on, so that changed data are detected and named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.pipeline.source import StudySource
from diffrgen.records import SPLITS, Split, Study
from diffrgen.staging import sampled_digest

FILE = "data-digests.json"
SHOWN, THREADS = 5, 8


@dataclass(frozen=True)
class DataDigests:
    """For each split the digest of each study by its id: of report, labels, patient, day, prior, images and the context.

    Labels that a labeler read are left out: they follow from the report. Of an image file, its size and samples of its
    content count; its folder and its time of change do not, so data may be moved.
    """

    studies: Mapping[Split, Mapping[str, str]]

    @classmethod
    def of(cls, source: StudySource, context: Sequence[str] = ()) -> DataDigests:
        """Return the digests of the studies of `source`, with the sections `context`; OSError for an image that is gone."""
        with ThreadPoolExecutor(THREADS) as pool:
            return cls(
                {
                    split: dict(pool.map(lambda study: (study.id, _digest(study, source, context)), source.splits[split]))
                    for split in SPLITS
                }
            )

    def check(self, now: DataDigests, folder: Path, *, less: bool = False) -> None:
        """Raise DataError, naming studies, where the data are not those any more that the run in `folder` was made from.

        less: studies may be absent, as with --skip-broken.
        """
        found = [f"{what}: {_named(ids)}" for what, ids in self._changes(now, less=less) if ids]
        if found:
            raise DataError(
                f"{folder}: the data are not those that this run was made from. {'; '.join(found)}. Restore them, or start "
                "another run with another --output; to evaluate on other data, pass --data"
            )

    def _changes(self, now: DataDigests, *, less: bool) -> Iterator[tuple[str, list[str]]]:
        known = {study for split in SPLITS for study in self.studies[split]}
        place = {study: split for split in SPLITS for study in now.studies[split]}
        for split in SPLITS:
            before, after = self.studies[split], now.studies[split]
            changed = [study for study, digest in before.items() if study in after and after[study] != digest]
            yield f"report, labels or images changed in {split}", changed
            for other in SPLITS:
                moved = [study for study in before if study not in after and place.get(study) == other]
                yield f"moved from {split} to {other}", moved
            if not less:
                yield f"gone from {split}", [study for study in before if study not in place]
            yield f"new in {split}", [study for study in after if study not in known]


def check_data(
    folder: Path, source: StudySource, *, context: Sequence[str] = (), keep: bool = False, less: bool = False
) -> None:
    """Compare the data with those that the run in `folder` was made from; note them if nothing is noted and `keep`.

    context: the sections that the run takes. A shared run holds no such notes. Raises DataError for data that changed.
    """
    path = folder / FILE
    if not path.is_file() and not keep:
        return
    now = DataDigests.of(source, context)
    if path.is_file():
        load_json(DataDigests, path).check(now, folder, less=less)
    else:
        save_json(now, path)


def _digest(study: Study, source: StudySource, context: Sequence[str]) -> str:
    labels = None if study.id in source.unlabelled else study.labels
    parts = [study.report, labels, study.patient_id, study.days, study.prior_id, study.views]
    parts += [getattr(study.sections, name) for name in context]
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8)
    for image in study.images:
        digest.update(sampled_digest(image).encode())
    return digest.hexdigest()


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{', '.join(map(repr, ids[:SHOWN]))}{more}"
