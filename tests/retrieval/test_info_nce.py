"""The loss of the dual encoder against values worked out by hand and in float64 NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from diffrgen.retrieval.info_nce import info_nce, same_text


def numpy_loss(image: np.ndarray, text: np.ndarray, scale: float, positives: np.ndarray) -> float:
    """Walk over images and reports one by one in float64."""
    similarity = scale * image @ text.T
    total = 0.0
    for matrix, mates in ((similarity, positives), (similarity.T, positives.T)):
        for row, mine in zip(matrix, mates, strict=True):
            total -= np.mean([row[j] - logsumexp(row) for j in np.flatnonzero(mine)])
    return total / (2 * len(image))


def test_two_orthogonal_pairs_by_hand():
    basis = torch.eye(2)
    loss = info_nce(basis, basis, scale=math.log(3), positives=torch.eye(2, dtype=torch.bool))
    # Each row of logits is (log 3, 0): the own pair takes 3 / (3 + 1).
    assert loss.item() == pytest.approx(math.log(4 / 3), abs=1e-6)


def test_copies_of_one_report_by_hand():
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # Reports weigh alike for every image: log 2 each. Images: logits (log 3, 0) for both reports, both are positives.
    to_image = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    loss = info_nce(image, text, scale=math.log(3), positives=torch.ones(2, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx((math.log(2) + to_image) / 2, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_matches_float64_numpy_with_repeated_reports(scale):
    generator = torch.Generator().manual_seed(1)
    image, text = (F.normalize(torch.randn(9, 16, generator=generator), dim=-1) for _ in range(2))
    report = torch.tensor([0, 1, 2, 0, 3, 4, 2, 0, 5])
    positives = report[:, None] == report
    loss = info_nce(image, text, scale=scale, positives=positives)
    expected = numpy_loss(image.double().numpy(), text.double().numpy(), scale, positives.numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_matches_finite_differences():
    image, text = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    positives = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]).bool()
    at = image.float().requires_grad_()
    info_nce(at, text.float(), scale=2.0, positives=positives).backward()
    step = 1e-5
    for index in np.ndindex(4, 3):
        ends = []
        for sign in (1, -1):
            moved = at.detach().double().numpy().copy()
            moved[index] += sign * step
            ends.append(numpy_loss(moved, text.float().double().numpy(), 2.0, positives.numpy()))
        assert at.grad[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-5)


def test_without_repeats_it_is_the_loss_of_clip():
    image, text = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    logits, target = 20.0 * image @ text.T, torch.arange(6)
    clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(info_nce(image, text, scale=20.0, positives=torch.eye(6).bool()), clip)


def test_sums_stay_float32_under_autocast():
    image, text = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    positives = torch.eye(6).bool()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = info_nce(image, text, scale=50.0, positives=positives)
    torch.testing.assert_close(low, info_nce(image, text, scale=50.0, positives=positives), rtol=0, atol=0)


def test_same_text_compares_whole_reports():
    ids = torch.tensor([[2, 7, 3, 0], [2, 7, 3, 0], [2, 7, 7, 3], [2, 8, 3, 0]])
    expected = torch.eye(4).bool()
    expected[0, 1] = expected[1, 0] = True
    assert torch.equal(same_text(ids), expected)


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(3, 3\) and \(2, 2\)"):
        info_nce(torch.zeros(2, 3), torch.zeros(3, 3), scale=1.0, positives=torch.eye(2).bool())
