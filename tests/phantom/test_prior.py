"""Eq. 9 on the phantom: the logit adjustment and its adaptive prior raise the recall of rare diseases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffrgen.images import ImageTransform, read_grey
from diffrgen.labels import NO_FINDING, State
from diffrgen.model.disease import adapted_class_prior, initial_class_prior, logit_adjusted_loss
from diffrgen.phantom import PhantomOptions, write_phantom
from diffrgen.records import Study, read_annotation


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    options = PhantomOptions(studies=700, size=64, seed=5)
    return read_annotation(write_phantom(tmp_path_factory.mktemp("phantom"), options, progress=False))


def pixels_and_states(studies: tuple[Study, ...]) -> tuple[Tensor, Tensor]:
    """Images as 24 x 24 pixels in a row, and the states of the 13 diseases."""
    transform = ImageTransform(size=24, resize=24)
    pixels = torch.stack([transform(read_grey(study.images[0])).flatten() for study in studies])
    states = torch.tensor([study.labels for study in studies])
    diseases = [column for column in range(states.shape[1]) if column != NO_FINDING]
    return pixels, states[:, diseases]


def rare_recall(splits, *, prior: bool, adapt: bool) -> float:
    """Train a linear classifier with Eq. 9; return the recall of the rarer half of the diseases on unseen studies."""
    torch.manual_seed(0)
    pixels, states = pixels_and_states(splits.train)
    unseen, unseen_states = pixels_and_states(splits.val + splits.test)
    mean, std = pixels.mean(0), pixels.std(0) + 1e-3
    classifier = nn.Sequential(nn.Linear(pixels.shape[1], 4 * states.shape[1]), nn.Unflatten(-1, (4, states.shape[1])))
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.1)
    pi = initial_class_prior(states) if prior else None
    for step in range(160):
        optimiser.zero_grad()
        logit_adjusted_loss(classifier((pixels - mean) / std), states, pi).backward()
        optimiser.step()
        if adapt and step % 40 == 39:
            with torch.no_grad():
                positive = classifier((unseen - mean) / std).softmax(1)[:, State.POSITIVE]
            pi = adapted_class_prior(pi, positive, unseen_states)
    with torch.no_grad():
        predicted = classifier((unseen - mean) / std).argmax(1) == State.POSITIVE
    true = unseen_states == State.POSITIVE
    rare = np.argsort((states == State.POSITIVE).sum(0).numpy())[:7].tolist()
    return (predicted & true)[:, rare].sum().item() / true[:, rare].sum().item()


def test_prior_raises_the_recall_of_rare_diseases(splits):
    plain = rare_recall(splits, prior=False, adapt=False)
    fixed = rare_recall(splits, prior=True, adapt=False)
    adaptive = rare_recall(splits, prior=True, adapt=True)
    print(f"recall of rare diseases: plain {plain:.3f}, fixed prior {fixed:.3f}, adaptive prior {adaptive:.3f}")
    assert fixed > plain + 0.1
    assert adaptive > plain + 0.1
