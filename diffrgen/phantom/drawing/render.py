"""Draw one study: anatomy, findings, devices, exposure, in the order required by the beam and the borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from diffrgen.phantom.drawing import body, bones
from diffrgen.phantom.drawing.chest import open_scene
from diffrgen.phantom.drawing.devices import draw_devices
from diffrgen.phantom.drawing.film import expose
from diffrgen.phantom.drawing.opacities import (
    draw_atelectasis,
    draw_consolidation,
    draw_edema,
    draw_haze,
    draw_lesion,
    draw_pneumonia,
)
from diffrgen.phantom.drawing.pleura import clear_pneumothorax, draw_effusion, draw_pneumothorax, draw_thickening
from diffrgen.phantom.drawing.scene import Scene
from diffrgen.phantom.drawing.vessels import draw_vessels
from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import FindingState, StudyState

Drawer = Callable[[Scene, FindingState, float], None]
# Cardiomegaly and an enlarged mediastinum move borders (shape.py); a fracture also breaks the drawn ribs.
DRAWERS: Mapping[str, Drawer] = MappingProxyType(
    {
        "edema": draw_edema,
        "lung opacity": draw_haze,
        "consolidation": draw_consolidation,
        "pneumonia": draw_pneumonia,
        "lung lesion": draw_lesion,
        "atelectasis": draw_atelectasis,
        "pneumothorax": draw_pneumothorax,
        "pleural effusion": draw_effusion,
        "pleural other": draw_thickening,
        "fracture": bones.draw_fracture,
    }
)


def draw_scene(anatomy: Anatomy, study: StudyState, options: PhantomOptions) -> Scene:
    """Return the finished density of one study, before exposure."""
    present = {state.finding: state for state in study.present}
    scene = open_scene(anatomy, study, size=options.size, contrast=options.contrast)
    body.draw_trunk(scene)
    body.draw_lungs(scene)
    body.draw_mediastinum(scene)
    body.draw_stomach(scene)
    body.draw_airway(scene)
    body.draw_breasts(scene)
    if "pneumothorax" in present:
        clear_pneumothorax(scene, present["pneumothorax"])
    draw_vessels(scene, study, noise=options.noise)
    bones.draw_spine(scene)
    bones.draw_ribs(scene, present.get("fracture"), contrast=options.contrast)
    bones.draw_shoulders(scene)
    for name, drawer in DRAWERS.items():
        if name in present:
            drawer(scene, present[name], options.contrast)
    body.draw_clutter(scene)
    draw_devices(scene, study.present_devices, options.contrast)
    return scene


def draw_study(anatomy: Anatomy, study: StudyState, options: PhantomOptions) -> np.ndarray:
    """Return the image of one study, (size, size) uint8."""
    return expose(draw_scene(anatomy, study, options), noise=options.noise)
