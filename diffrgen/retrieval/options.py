"""The options of the retriever: how it is fitted, and how the index answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class RetrieverOptions:
    """Fitting the dual encoder, indexing its report embeddings, and asking for neighbours."""

    epochs: int = 8
    """Passes over the training split."""
    batch_size: int = 32
    """Pairs a step; the other pairs of the step are the negatives."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule (AdamW)."""
    weight_decay: float = 0.05
    """AdamW's decay; none on norms, biases and the temperature."""
    warmup: float = 0.05
    """Share of the steps that the learning rate rises in."""
    max_steps: int | None = None
    """Stop after so many steps, whatever `epochs` says."""
    embedding_width: int = 128
    """Width E of the embeddings."""
    text_layers: int = 2
    """Layers of the text tower."""
    text_width: int = 128
    """Hidden width of the text tower, a multiple of 64; also the width of token features."""
    temperature: float = 0.07
    """Where the learnable temperature starts."""
    max_tokens: int = 100
    """Tokens of a report that the text tower reads."""
    index_factory: str = "Flat"
    """faiss.index_factory string, for example "IVF1024,Flat" or "HNSW32"."""
    index_search: str = ""
    """FAISS search parameters, for example "nprobe=16" for IVF or "efSearch=64" for HNSW."""
    neighbours: int = 21
    """Reports N retrieved for an image."""
    exclude_patient: bool = False
    """Never retrieve a report of the query's own patient (its own study is never retrieved)."""
    tokens_per_report: int = 0
    """Token features kept for each report for retrieved="tokens"; 0 keeps none."""
    precision: Precision = "fp32"
    """Autocast of the towers; losses, embeddings and similarities are float32 always."""
    workers: int = 0
    """Processes that read images."""
    seed: int = 0
    """Seed of the initial weights, the order of the pairs and the image augmentation."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "embedding_width", "text_layers", "text_width", "max_tokens", "neighbours")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"expected retriever option {name} >= 1, got {getattr(self, name)}")
        if self.text_width % 64:
            raise ValueError(f"expected text_width to be a multiple of 64 (the width of a head), got {self.text_width}")
        if self.batch_size < 2:
            raise ValueError("expected batch_size >= 2: a batch of one pair holds no negative")
        if not 0.0 < self.temperature <= 1.0:
            raise ValueError(f"expected 0 < temperature <= 1, got {self.temperature}")
