"""Boxes of findings: on the side and at the height that the truth says, and round what is drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from diffrgen.phantom import Box, PhantomOptions, finding_boxes
from diffrgen.phantom.boxes import _box
from diffrgen.phantom.patients.patient import sample_patient, study_counts

OPTIONS = PhantomOptions(studies=160, seed=5)
LOCAL = {"lung lesion", "pneumonia", "consolidation", "pneumothorax", "fracture"}


def test_boxes_lie_on_the_side_and_at_the_height_of_the_truth():
    """The patient's left is on the right of the image."""
    checked = Counter()
    for index, count in enumerate(study_counts(OPTIONS)):
        patient = sample_patient(OPTIONS, index, count)
        for number, study in enumerate(patient.studies):
            boxes = finding_boxes(OPTIONS, f"p{index:06d}s{number}")
            assert set(boxes) == {state.finding for state in study.present}
            for name, box in boxes.items():
                state, (top, left, bottom, right) = study.findings[name], box
                assert 0 <= top < bottom <= 1.01
                assert 0 <= left < right <= 1.01
                if name in LOCAL and state.side != "bilateral":
                    assert ((left + right) / 2 > 0.5) == (state.side == "left"), (index, name, box)
                    checked[state.side] += 1
                if name in ("lung lesion", "pneumonia") and state.zone and state.side != "bilateral":
                    checked[state.zone] += 1
                    height = (top + bottom) / 2
                    assert {"upper": height < 0.45, "mid": 0.3 < height < 0.6, "lower": height > 0.45}[state.zone]
    assert min(checked[key] for key in ("left", "right", "upper", "lower")) >= 2


def test_a_box_by_hand():
    change = np.zeros((10, 10))
    change[2:4, 5:9] = 1.0
    assert _box(change) == pytest.approx((0.2, 0.5, 0.4, 0.9))
    box = Box(0.2, 0.5, 0.4, 0.9)
    assert box.holds(0.3, 0.9)
    assert not box.holds(0.45, 0.7)


@pytest.mark.parametrize("name", ["p000000s9", "p999999s0", "s0", "p000000s0.png"])
def test_an_id_of_no_study_is_an_error(name):
    with pytest.raises(ValueError, match="expected the id of a study of a phantom of 160 studies"):
        finding_boxes(OPTIONS, name)
