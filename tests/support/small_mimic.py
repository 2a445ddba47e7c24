"""A small MIMIC-CXR that can be trained on: fifteen studies of two views each, with reports and labels by hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mimic_archive import Content, Row
from PIL import Image, ImageDraw


class Text(NamedTuple):
    """A FINDINGS section as the archive has it, and what R2Gen's rules for MIMIC-CXR make of it."""

    raw: str
    cleaned: str


TEXTS = (
    Text(
        "The heart is mildly enlarged.  There is\n no pneumothorax.",
        "the heart is mildly enlarged . there is no pneumothorax .",
    ),
    Text(
        "1. Right-sided effusion (moderate), new since ___.\n 2. No edema.",
        "right-sided effusion moderate new since . no edema .",
    ),
    Text("PA and lateral views; lungs are clear...", "pa and lateral views lungs are clear ."),
    Text("Tube 3 cm above the carina.\n\n Low volumes.", "tube 3 cm above the carina . low volumes ."),
)
# Two images each: ten training studies, two of validation and three of test, each of another patient.
SPLITS = ("train",) * 10 + ("validate",) * 2 + ("test",) * 3
# No report says so: labels that are read out of the texts would be others.
LABELLED = {"51000012": {"Fracture": "1.0", "Edema": "-1.0"}, "51000013": {"Fracture": "1.0"}, "51000014": {}}
WITHOUT_FINDINGS = (("50000098", "train"), ("51000099", "test"))


def mimic_content() -> Content:
    studies = [(f"{51000000 + number}", split) for number, split in enumerate(SPLITS)]
    rows = []
    for number, (study, split) in enumerate([*studies, *WITHOUT_FINDINGS]):
        patient = f"1{number % 3}0000{number:02d}"
        for view in ("PA", "LATERAL"):
            rows.append(Row(f"{study}-{view.lower()}", patient, study, split, view, "21500228", "120000"))
    reports = {
        study: f"  FINAL REPORT\n INDICATION:  Cough.\n\n FINDINGS:\n\n {TEXTS[number % len(TEXTS)].raw}\n\n"
        " IMPRESSION:\n\n Not to be written.\n"
        for number, (study, _) in enumerate(studies)
    }
    reports |= {study: "  FINAL REPORT\n IMPRESSION:  No change.\n" for study, _ in WITHOUT_FINDINGS}
    labels = {study: {"No Finding": "1.0"} for study, split in studies if split != "test"} | LABELLED
    return Content(tuple(rows), reports, labels)


def draw_chest(seed: str) -> Image.Image:
    """Two dark lungs and a heart on noise, another one for each name."""
    generator = np.random.default_rng(list(seed.encode()))
    image = Image.fromarray(generator.integers(120, 180, (72, 80), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    for left in (8, 44):
        draw.ellipse((left, 10, left + 28, 62), fill=int(generator.integers(20, 60)))
    draw.ellipse((32, 36, 40 + int(generator.integers(8, 20)), 64), fill=220)
    return image
