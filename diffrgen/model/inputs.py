"""The network's inputs for a batch of studies, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StudyInputs:
    """The images and the references of B studies.

    pixel_values (B, V, C, S, S) float, the V views of each study, or (B, C, S, S), one image each; view_mask (B, V) bool,
    False for an absent view, at least one per study (None: all are there); view_kinds (B, V) int64, places in
    `records.VIEW_KINDS` (None: all unknown). retrieved (B, N, E) float, the retriever's embeddings of N reports (or N x T token
    features); retrieved_mask (B, N) bool, False for an absent neighbour (None: all are there).
    With `config.prior`, of the patient's prior study: prior (B, R, E) float, the embedding of its image and one for each
    sentence of its report; prior_mask (B, R) bool, False for an absent row; prior_states (B, C) int64, its disease
    states, NO_STUDY for a study without a prior. None at all: no study has a prior.
    With `config.context`, of its F sections: context (B, F, E) float, the embedding of each; context_mask (B, F) bool, False
    for an absent one. None at all: no study has any.
    """

    pixel_values: Tensor
    retrieved: Tensor
    view_mask: Tensor | None = None
    view_kinds: Tensor | None = None
    retrieved_mask: Tensor | None = None
    prior: Tensor | None = None
    prior_mask: Tensor | None = None
    prior_states: Tensor | None = None
    context: Tensor | None = None
    context_mask: Tensor | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> StudyInputs:
        """Return the inputs that `batch` holds by name, its targets left out.

        Raises ValueError if pixel_values or retrieved is missing.
        """
        given = {name: batch[name] for name in NAMES if batch.get(name) is not None}
        if not {"pixel_values", "retrieved"} <= given.keys():
            raise ValueError(f"expected a batch with pixel_values and retrieved, got {', '.join(batch) or 'nothing'}")
        return cls(**given)

    def tensors(self) -> dict[str, Tensor]:
        """Return the inputs that are given, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def to(self, device: torch.device | str) -> StudyInputs:
        """Return the inputs on `device`."""
        return StudyInputs(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @property
    def view_counts(self) -> Tensor:
        """The number of views of each study, (B,) int64."""
        if self.view_mask is not None:
            return self.view_mask.sum(1)
        views = 1 if self.pixel_values.dim() == 4 else self.pixel_values.shape[1]
        return torch.full((len(self),), views, device=self.pixel_values.device)

    def __len__(self) -> int:
        return len(self.pixel_values)


# Outside the class, because torch.compile does not trace `fields`.
NAMES = tuple(field.name for field in fields(StudyInputs))
