"""The options of pretraining an encoder on labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Lt

from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, check_fields


@dataclass(frozen=True)
class PretrainOptions:
    """Pretraining of the image encoder on the findings of each image, before the retriever and the network are trained."""

    epochs: CountOrZero = 0
    """Epochs of pretraining on the labeled images; 0: no pretraining."""
    learning_rate: Positive = 3e-4
    """Peak learning rate of the encoder; that of the classifier is five times as high."""
    batch_size: Count = 32
    """Images per batch."""
    weight_decay: PositiveOrZero = 0.05
    """Weight decay; none on norms and biases."""
    dropout: Annotated[PositiveOrZero, Lt(1)] = 0.2
    """Dropout of the pooled features, before the classifier."""

    def __post_init__(self) -> None:
        check_fields(self, "--pretrain.")
