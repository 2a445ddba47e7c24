"""Write a phantom data set: images, reports, labels and truth, in R2Gen's annotation format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.phantom.drawing.render import draw_study
from diffrgen.phantom.language.grammar import write_report
from diffrgen.phantom.language.impressions import write_impression
from diffrgen.phantom.language.indications import write_indication
from diffrgen.phantom.options import FORMAT_VERSION, PhantomOptions
from diffrgen.phantom.patients.patient import patient_rng, sample_patient, study_counts
from diffrgen.phantom.patients.states import SUPPORT_DEVICES, StudyState, device_change
from diffrgen.workers import end_with_the_main_process

MANIFEST = "phantom.json"
UNFINISHED = "phantom.unfinished.json"
ANNOTATION = "annotation.json"
VAL_SHARE, TEST_SHARE = 0.08, 0.12
Record = dict[str, Any]


def write_phantom(folder: Path, options: PhantomOptions, *, workers: int | None = None, progress: bool = True) -> Path:
    """Write the data set of `options` to `folder` and return its annotation.json.

    A folder that is complete for the same options is reused, an unfinished one is continued; all bytes are
    the same for any number of `workers` (default: one a CPU). DataError if `folder` holds anything else.
    """
    folder = Path(folder)
    if workers is not None and workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    if _claim(folder, options):
        return folder / ANNOTATION
    (folder / "images").mkdir(exist_ok=True)
    counts = study_counts(options)
    made = _make_all(folder / "images", options, counts, workers or os.cpu_count() or 1)
    records: list[list[Record]] = []
    with tqdm(total=options.studies, desc="phantom", unit="study", disable=not progress) as bar:
        for own in made:
            records.append(own)
            bar.update(len(own))
    splits = split_patients(counts, options.seed)
    annotation: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for split, own in zip(splits, records, strict=True):
        annotation[split].extend(own)
    _write_json(folder / ANNOTATION, annotation)
    _write_json(folder / MANIFEST, _manifest(options))
    (folder / UNFINISHED).unlink(missing_ok=True)
    return folder / ANNOTATION


def _manifest(options: PhantomOptions) -> Record:
    return {"format": FORMAT_VERSION, "options": asdict(options)}


def _claim(folder: Path, options: PhantomOptions) -> bool:
    """Return whether `folder` is complete for `options`; mark it as ours when it is empty or unfinished."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the phantom, found a file; name another path")
    wanted = _manifest(options)
    for name in (MANIFEST, UNFINISHED):
        path = folder / name
        if not path.exists():
            continue
        found = _read_manifest(path)
        if found != wanted:
            raise DataError(f"{path}: holds a phantom of {found}, asked for {wanted}; name another folder or remove it")
        return bool(name == MANIFEST and (folder / ANNOTATION).exists())
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: expected an empty folder or a phantom, found other files; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / UNFINISHED, wanted)
    return False


def _read_manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected a phantom's manifest, could not read it ({error}); remove the folder"
        ) from error


def _write_json(path: Path, content: Any) -> None:
    partial_path = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial_path, path)


def _make_all(images: Path, options: PhantomOptions, counts: list[int], workers: int) -> Iterator[list[Record]]:
    make = partial(make_patient, images, options)
    if workers == 1 or len(counts) < 2 * workers:
        yield from map(make, range(len(counts)), counts)
        return
    # Fresh processes: forking a process that already runs threads (torch, BLAS) may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_the_main_process) as pool:
        yield from pool.map(make, range(len(counts)), counts, chunksize=max(1, min(16, len(counts) // (4 * workers))))


def make_patient(images: Path, options: PhantomOptions, index: int, count: int) -> list[Record]:
    """Draw patient `index`: write an image a study that is not there yet, return the annotation's records."""
    patient = sample_patient(options, index, count)
    rng, asked, concluding = (patient_rng(options, index, stream=stream) for stream in (1, 2, 3))
    records: list[Record] = []
    for number, study in enumerate(patient.studies):
        name = f"p{index:06d}s{number}"
        path = images / f"{name}.png"
        if not path.exists():
            _write_image(path, draw_study(patient.anatomy, study, options))
        report = write_report(patient.anatomy, study, rng, variety=options.variety)
        records.append(
            {
                "id": name,
                "report": report.text,
                "impression": write_impression(study, concluding, variety=options.variety),
                "indication": write_indication(study, asked),
                "image_path": [path.name],
                "labels": list(report.labels),
                "patient_id": f"p{index:06d}",
                "days": study.days,
                "view": study.acquisition.view,
                "prior_id": records[-1]["id"] if records else None,
                "findings": study_record(study),
            }
        )
    return records


def _write_image(path: Path, film: np.ndarray) -> None:
    partial_path = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    Image.fromarray(film).save(partial_path, format="PNG", compress_level=3)
    os.replace(partial_path, path)


def study_record(study: StudyState) -> Record:
    """Return the exact truth of `study` as plain data: findings present or resolved, and devices."""
    record: Record = {
        name: {
            "state": int(state.state),
            "severity": state.severity,
            "side": state.side if state.grade else None,
            "zone": state.zone if state.grade else None,
            "change": state.change,
        }
        for name, state in study.findings.items()
    }
    if study.devices:
        record[SUPPORT_DEVICES] = {
            "state": int(study.device_state),
            "severity": None,
            "side": None,
            "zone": None,
            "change": device_change(study.devices),
            "devices": [asdict(device) for device in study.devices],
        }
    return record


def split_patients(counts: list[int], seed: int) -> list[str]:
    """Return each patient's split: 8 % of the studies in val, 12 % in test, each with a patient at least."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(2**31 + 1,)))
    order = rng.permutation(len(counts))
    total = sum(counts)
    splits = ["train"] * len(counts)
    position = 0
    for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        taken = 0
        while position < len(order) - 1 and (taken == 0 or taken + counts[order[position]] <= share * total):
            splits[order[position]] = split
            taken += counts[order[position]]
            position += 1
    return splits
