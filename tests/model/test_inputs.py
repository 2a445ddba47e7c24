"""The network's inputs as one value."""

from __future__ import annotations

import pytest
import torch

from diffrgen.model import StudyInputs

BATCH = {"pixel_values": torch.zeros(2, 1, 4, 4), "retrieved": torch.ones(2, 3, 5), "prior": torch.ones(2, 1, 5)}


def test_inputs_are_taken_by_name_and_targets_left_out():
    inputs = StudyInputs.of({**BATCH, "labels": torch.zeros(2, 7), "retrieved_mask": None})
    assert set(inputs.tensors()) == {"pixel_values", "retrieved", "prior"}
    assert all(tensor is BATCH[name] for name, tensor in inputs.tensors().items())
    assert len(inputs) == 2
    assert inputs.retrieved_mask is None


def test_inputs_move_together():
    moved = StudyInputs.of(BATCH).to("meta")
    assert {name: (tensor.device.type, tensor.shape) for name, tensor in moved.tensors().items()} == {
        name: ("meta", tensor.shape) for name, tensor in BATCH.items()
    }


def test_a_batch_without_images_is_a_clear_error():
    with pytest.raises(ValueError, match="expected a batch with pixel_values and retrieved, got retrieved"):
        StudyInputs.of({"retrieved": BATCH["retrieved"]})
