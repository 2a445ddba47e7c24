"""The options of the retriever and its index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from diffrgen.errors import DataError
from diffrgen.fitting.precision import Precision
from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, Seed, Share, check_fields


@dataclass(frozen=True)
class RetrieverOptions:
    """Fitting the dual encoder, indexing its report embeddings, and searching for neighbours."""

    epochs: Count = 8
    """Epochs over the training split."""
    batch_size: Annotated[int, Ge(2)] = 32
    """Pairs per step, at least 2; the other pairs of the step are the negatives."""
    learning_rate: Positive = 1e-3
    """Peak of the cosine schedule (AdamW)."""
    weight_decay: PositiveOrZero = 0.05
    """Weight decay of AdamW; none on norms, biases and the temperature."""
    warmup: Share = 0.05
    """Share of the steps with a rising learning rate."""
    max_steps: Count | None = None
    """Stop after this many steps, regardless of `epochs`."""
    embedding_width: Count = 128
    """Width E of the embeddings."""
    text_layers: Count = 2
    """Layers of the text tower."""
    text_width: Count = 128
    """Hidden width of the text tower, a multiple of 64; also the width of token features."""
    temperature: Annotated[float, Gt(0), Le(1)] = 0.07
    """Initial value of the learnable temperature."""
    max_tokens: Count = 100
    """Maximum number of report tokens in the text tower."""
    index_factory: str = "Flat"
    """faiss.index_factory string, for example "IVF1024,Flat" or "HNSW32"."""
    index_search: str = ""
    """FAISS search parameters, for example "nprobe=16" for IVF or "efSearch=64" for HNSW."""
    neighbours: Count = 21
    """Number N of reports retrieved per image."""
    exclude_patient: bool = False
    """Never retrieve a report of the query's patient (the query's study is never retrieved)."""
    tokens_per_report: CountOrZero = 0
    """Token features stored per report for retrieved="tokens"; 0: none."""
    precision: Precision = "fp32"
    """Autocast of the towers; losses, embeddings and similarities are always float32."""
    workers: CountOrZero = 0
    """Processes that load images."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the pairs and the image augmentation."""

    def __post_init__(self) -> None:
        check_fields(self, "--retriever.")
        if self.text_width % 64:
            raise DataError(
                f"--retriever.text-width: expected a multiple of 64, the width of a head, got {self.text_width}"
            )
