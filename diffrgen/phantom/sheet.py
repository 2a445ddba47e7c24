"""A contact sheet: phantom studies side by side, captioned with their findings."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from diffrgen.phantom.drawing.render import draw_study
from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.patients.patient import Patient, sample_patient, study_counts
from diffrgen.phantom.patients.states import DISEASES, SUPPORT_DEVICES, FindingState, Grade, StudyState

SIZE_NAMES = {
    "pleural effusion": ("small", "moderate", "large"),
    "pneumothorax": ("small", "moderate", "large"),
    "lung lesion": ("small", "medium", "large"),
}
SHOWN = 4


def caption(study: StudyState) -> str:
    """Return what `study` shows: findings from the most severe on, then devices, four and how many more."""
    states = sorted(study.present, key=lambda state: -state.grade)
    devices = [f"{device.side} {device.kind}" if device.side else device.kind for device in study.present_devices]
    parts = [_name(state) for state in states] + devices
    if len(parts) > SHOWN + 1:
        parts = [*parts[:SHOWN], f"{len(parts) - SHOWN} more"]
    return ", ".join(parts) if parts else "no finding"


def _name(state: FindingState) -> str:
    if state.grade == Grade.SUBTLE:
        words: list[str | None] = ["possible"]
    else:
        names = SIZE_NAMES.get(state.finding, ("mild", "moderate", "severe"))
        words = [names[state.grade - Grade.MILD]]
    return " ".join(word for word in (*words, state.side, state.zone, state.finding) if word)


def choose_studies(options: PhantomOptions, count: int) -> list[tuple[Patient, StudyState]]:
    """Return at most `count` studies: a normal one, each finding as lonely as may be, devices, then mixed ones."""
    counts = study_counts(options)
    patients = [sample_patient(options, index, counts[index]) for index in range(min(len(counts), 900))]
    pool = [(patient, study) for patient in patients for study in patient.studies]
    chosen: list[tuple[Patient, StudyState]] = []
    for wanted in ("no finding", *DISEASES, SUPPORT_DEVICES):
        chosen.append(min(pool, key=lambda entry: _distance(entry[1], wanted, [study for _, study in chosen])))
    mixed = sorted(pool, key=lambda entry: abs(len(entry[1].present) - 3) + abs(len(entry[1].present_devices) - 1))
    for entry in mixed:
        if all(entry[0] is not patient for patient, _ in chosen):
            chosen.append(entry)
    return chosen[:count]


def _distance(study: StudyState, wanted: str, taken: list[StudyState]) -> float:
    others = len(study.present) + 0.7 * len(study.present_devices) + 100.0 * (study in taken)
    if wanted == "no finding":
        return others
    if wanted == SUPPORT_DEVICES:
        return 3.0 * len(study.present) - 1.7 * len(study.present_devices)
    return others - 4.0 * (study.grade(wanted) == Grade.MODERATE) - 40.0 * (study.grade(wanted) >= Grade.MODERATE)


def write_contact_sheet(path: Path, options: PhantomOptions, *, rows: int = 4, columns: int = 5) -> Path:
    """Draw rows x columns captioned studies into the PNG `path`; places stay empty if `options` has fewer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 * columns, 2.98 * rows), facecolor="#101216")
    FigureCanvasAgg(figure)
    axes = np.asarray(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (patient, study) in zip(axes, choose_studies(options, rows * columns), strict=False):
        axis.imshow(
            draw_study(patient.anatomy, study, options),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="lanczos",
        )
        text = "\n".join(textwrap.wrap(caption(study), 38))
        axis.text(0.5, -0.035, text, transform=axis.transAxes, ha="center", va="top", color="#d7dce2", fontsize=8.2)
    figure.subplots_adjust(left=0.008, right=0.992, top=0.994, bottom=0.048, wspace=0.03, hspace=0.19)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor=figure.get_facecolor())
    return path
