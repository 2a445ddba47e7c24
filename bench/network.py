"""The network with random weights and a random batch, for the benchmarks of training and generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import BertConfig

from diffrgen.images.encoder import encoder_config
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration
from diffrgen.model.config import Retrieved

FINDINGS, CHANNELS = 14, 3
Backend = Literal["auto", "reference"]
Layout = Literal["quick", "tiny", "paper"]
# of the decoder; the paper's is BERT-base
DECODERS: dict[Layout, dict[str, int]] = {
    "quick": {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2},
    "tiny": {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 768},
    "paper": {},
}
AGGREGATION: dict[Layout, dict[str, int]] = {"quick": {}, "tiny": {"width": 128, "heads": 4}, "paper": {}}


@dataclass(frozen=True)
class Setting:
    """A synthetic batch of the network: studies, pixels a side, retrieved rows N and their width, report tokens, the
    vocabulary's size.

    steps: training steps to a sample on a GPU.
    """

    studies: int = 16
    image_size: int = 224
    rows: int = 21
    retrieved: Retrieved = "embeddings"
    retrieved_width: int = 512
    layout: Layout = "paper"
    tokens: int = 98
    vocabulary: int = 30522  # BERT's
    steps: int = 10


# the presets; the token features of 21 reports on larger images; one for a test
SETTINGS = {
    "paper": Setting(),
    "tiny": Setting(studies=8, image_size=112, retrieved_width=128, layout="tiny", tokens=60, vocabulary=1500),
    "tokens_512px": Setting(image_size=512, rows=21 * 60, retrieved="tokens", steps=3),
    "quick": Setting(studies=2, image_size=64, rows=5, layout="quick", tokens=8, vocabulary=4000, steps=1),
}


def make_network(setting: Setting, backend: Backend) -> DiffRGenForReportGeneration:
    """The network of a setting with random weights."""
    special: dict[str, Any] = {
        "vocab_size": setting.vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    return DiffRGenForReportGeneration(
        DiffRGenConfig(
            encoder=encoder_config("paper" if setting.layout == "paper" else "tiny", channels=CHANNELS),
            decoder=BertConfig(**special, **DECODERS[setting.layout]),
            image_size=setting.image_size,
            retrieved=setting.retrieved,
            retrieved_width=setting.retrieved_width,
            operator_backend=backend,
            findings=FINDINGS,
            **AGGREGATION[setting.layout],
        )
    ).train()


def make_batch(setting: Setting, device: str) -> dict[str, torch.Tensor]:
    """Random images, retrieved vectors, states and report tokens."""
    size, studies = setting.image_size, setting.studies
    return {
        "pixel_values": torch.randn(studies, CHANNELS, size, size, device=device),
        "retrieved": torch.randn(studies, setting.rows, setting.retrieved_width, device=device),
        "retrieved_mask": torch.ones(studies, setting.rows, dtype=torch.bool, device=device),
        "states": torch.randint(0, 4, (studies, FINDINGS), device=device),
        "labels": torch.randint(9, setting.vocabulary, (studies, setting.tokens), device=device),
    }
