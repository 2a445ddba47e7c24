"""Losses of each study under each change: of its report, of its words by class, of its findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffrgen.labels import CLASSES
from diffrgen.mechanisms.changes import changes_of
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.language import IGNORED
from diffrgen.pipeline.dataset import Example, StudyDataset, example_loader


@dataclass(frozen=True, eq=False)
class StudyLosses:
    """Losses of n studies, in nats.

    language (n,): the mean over the tokens of the reference report; disease (n,): the mean over the findings.
    word, which (n, classes): sums over the tokens of each class, in the order of CLASSES; count (n, classes) of them.

        word = -log p(token)
        which = -log( p(token) / sum_{w in its class} p(w) )

    `which` is the loss of the word given its class; word - which is the loss of the class.
    """

    language: np.ndarray
    disease: np.ndarray
    word: np.ndarray
    which: np.ndarray
    count: np.ndarray


@torch.no_grad()
def study_losses(
    model: DiffRGenForReportGeneration, dataset: StudyDataset, classes: np.ndarray, *, batch_size: int
) -> dict[str, StudyLosses]:
    """Return the losses of all studies under each change that `model` has the parts for, by the name of the change.

    classes (V,): of each token of the vocabulary, as its place in CLASSES. Batches are of even size, so that none holds a
    single study, which has no other to take a part from.
    """
    batches = -(-len(dataset) // batch_size)
    members = F.one_hot(torch.from_numpy(classes).to(model.device), len(CLASSES)).bool().T  # (classes, V)
    changes = changes_of(model)
    found: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in changes}
    for batch in example_loader(dataset, batch_size=-(-len(dataset) // batches), workers=0):
        example: Example = {name: tensor.to(model.device) for name, tensor in batch.items()}
        for name, encode in changes.items():
            encoded = encode(model, example)
            logits = model(encoder_outputs=encoded, states=example["states"], labels=example["labels"]).logits
            disease = F.cross_entropy(encoded.disease_logits.float(), example["states"], reduction="none").mean(1)
            found[name].append((*token_losses(logits, example["labels"], members), disease))
    return {name: _joined(parts) for name, parts in found.items()}


def token_losses(logits: Tensor, labels: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of `word` and `which` and the count of tokens (B, classes) of logits (B, T, V), labels (B, T).

    members (classes, V) bool: the tokens of each class.
    """
    log_p = logits.float().log_softmax(-1)
    scored = labels != IGNORED
    token = labels.clamp_min(0)
    word = -log_p.gather(-1, token.unsqueeze(-1)).squeeze(-1)  # (B, T)
    sums, which, count = [], [], []
    for own in members:
        of_class = scored & own[token]
        any_of_class = log_p.masked_fill(~own, -torch.inf).logsumexp(-1)
        sums.append((word * of_class).sum(1))
        which.append(torch.where(of_class, word + any_of_class, 0.0).sum(1))
        count.append(of_class.sum(1))
    return torch.stack(sums, 1), torch.stack(which, 1), torch.stack(count, 1)


def _joined(parts: list[tuple[Tensor, ...]]) -> StudyLosses:
    word, which, count, disease = (torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True))
    return StudyLosses(word.sum(1) / count.sum(1), disease, word, which, count)
