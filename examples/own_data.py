"""Your own images and reports as a data set: a table becomes an annotation file, checked as training checks it.

    python examples/own_data.py reports.csv images annotation.json

The table has the columns patient, study, image (a path below the folder of images) and report, a row an image. A study of
several images has several rows with one report. Patients are split 8 : 1 : 1 by a hash, so that no patient is in two splits.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from diffrgen.images import check_images
from diffrgen.records import read_annotation


def split_of(patient: str) -> str:
    """Return the split of a patient, which does not depend on the other patients."""
    tenth = hashlib.sha256(patient.encode()).digest()[0] % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


def annotation(table: Path) -> dict[str, list[dict[str, object]]]:
    """Return R2Gen's annotation of the studies in `table`."""
    studies: dict[str, dict[str, object]] = {}
    images: dict[str, list[str]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            images.setdefault(row["study"], []).append(row["image"])
            studies[row["study"]] = {
                "id": row["study"],
                "patient_id": row["patient"],
                "report": row["report"],
                "image_path": images[row["study"]],
            }
    splits: dict[str, list[dict[str, object]]] = {"train": [], "val": [], "test": []}
    for study in studies.values():
        splits[split_of(str(study["patient_id"]))].append(study)
    return splits


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the annotation file, check it and every image, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("table", "images", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists; name a new file")
    options.output.write_text(json.dumps(annotation(options.table), indent=1), encoding="utf-8")
    # A DataError names the record that cannot be used, by split, position and id.
    studies = read_annotation(options.output, images=options.images)
    for split in ("train", "val", "test"):
        print(f"{split}: {len(studies[split])} studies, {sum(len(study.images) for study in studies[split])} images")
    for path, reason in check_images(list(studies)).items():
        print(f"cannot be read: {path}: {reason}")
    print(f"train with: python -m diffrgen.train --data {options.output} --images {options.images} --output runs/own")


if __name__ == "__main__":
    main()
