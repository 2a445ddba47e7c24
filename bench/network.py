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
Preset = Literal["tiny", "paper"]


@dataclass(frozen=True)
class Setting:
    """A synthetic batch of the network: studies, pixels a side, retrieved rows N, report tokens, the vocabulary's size.

    steps: training steps to a sample on a GPU.
    """

    studies: int = 16
    image_size: int = 224
    rows: int = 21
    retrieved: Retrieved = "embeddings"
    layout: Preset = "paper"
    tokens: int = 98
    vocabulary: int = 30522  # BERT's
    steps: int = 10


# the paper's; the token features of its 21 reports on larger images; one for a test
SETTINGS = {
    "paper": Setting(),
    "tokens_512px": Setting(image_size=512, rows=21 * 60, retrieved="tokens", steps=3),
    "quick": Setting(studies=2, image_size=64, rows=5, layout="tiny", tokens=8, vocabulary=4000, steps=1),
}


def make_network(setting: Setting, backend: Backend) -> DiffRGenForReportGeneration:
    """The network of a setting with random weights."""
    small: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    special: dict[str, Any] = {
        "vocab_size": setting.vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    return DiffRGenForReportGeneration(
        DiffRGenConfig(
            encoder=encoder_config(setting.layout, channels=CHANNELS),
            decoder=BertConfig(**special, **(small if setting.layout == "tiny" else {})),
            image_size=setting.image_size,
            retrieved=setting.retrieved,
            operator_backend=backend,
            findings=FINDINGS,
        )
    ).train()


def make_batch(setting: Setting, device: str) -> dict[str, torch.Tensor]:
    """Random images, retrieved vectors, states and report tokens."""
    size, studies = setting.image_size, setting.studies
    return {
        "pixel_values": torch.randn(studies, CHANNELS, size, size, device=device),
        "retrieved": torch.randn(studies, setting.rows, 512, device=device),
        "retrieved_mask": torch.ones(studies, setting.rows, dtype=torch.bool, device=device),
        "states": torch.randint(0, 4, (studies, FINDINGS), device=device),
        "labels": torch.randint(9, setting.vocabulary, (studies, setting.tokens), device=device),
    }
