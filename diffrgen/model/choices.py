"""The choices of the network that have names, apart from the network."""

from __future__ import annotations

from typing import Literal

Retrieved = Literal["embeddings", "tokens"]
Metric = Literal["l2", "cosine", "dot"]
Difference = Literal["scalars", "content"]
DIFFERENCE_METRICS: tuple[Metric, ...] = ("l2", "cosine", "dot")
