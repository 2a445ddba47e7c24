"""A network small enough for a test, and a batch for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, ResNetConfig

from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration

NEIGHBOURS, RETRIEVED_WIDTH, FINDINGS, VOCABULARY, PRIOR_ROWS = 5, 12, 14, 40, 4
# Ids of the tokens that prompt with a state before (row) and now (column).
PRIOR_PROMPTS = tuple(tuple(range(first, first + 4)) for first in (9, 13, 17, 21))


def tiny_config(**changes: Any) -> DiffRGenConfig:
    """Return a configuration of 4 x 4 patches, width 16, 2 heads and 2 decoder layers."""
    # 16 channels: oneDNN (torch 2.13, AVX-512, 2 threads) crashes in the backward of a strided 1 x 1 convolution of 8.
    encoder = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 16, 32], depths=[1, 1, 1], layer_type="basic"
    )
    decoder = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    if changes.get("prior"):
        changes = {"prior_prompt_token_ids": PRIOR_PROMPTS, **changes}
    sizes = {"image_size": 64, "width": 16, "heads": 2, "neighbours": NEIGHBOURS, "retrieved_width": RETRIEVED_WIDTH}
    return DiffRGenConfig(encoder=encoder, decoder=decoder, **{**sizes, **changes})


def tiny_network(seed: int = 0, **changes: Any) -> DiffRGenForReportGeneration:
    """Return a network with random weights, large enough that its parts can be told apart, in evaluation mode."""
    torch.manual_seed(seed)
    network = DiffRGenForReportGeneration(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return network


def random_batch(size: int = 3, seed: int = 1, tokens: int = 7) -> dict[str, Tensor]:
    """Return random images, neighbours, states and reports of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(9, VOCABULARY, (size, tokens), generator=generator)
    for row in range(1, size):
        labels[row, tokens - row :] = -100
    return {
        "pixel_values": torch.randn(size, 1, 64, 64, generator=generator),
        "retrieved": torch.randn(size, NEIGHBOURS, RETRIEVED_WIDTH, generator=generator),
        "retrieved_mask": torch.ones(size, NEIGHBOURS, dtype=torch.bool),
        "states": torch.randint(0, 4, (size, FINDINGS), generator=generator),
        "labels": labels,
    }


def random_batch_with_prior(size: int = 3, seed: int = 1, width: int = RETRIEVED_WIDTH) -> dict[str, Tensor]:
    """Return a random batch whose studies all have an earlier one."""
    generator = torch.Generator().manual_seed(seed)
    prior = {
        "prior": torch.randn(size, PRIOR_ROWS, width, generator=generator),
        "prior_mask": torch.ones(size, PRIOR_ROWS, dtype=torch.bool),
        "prior_states": torch.randint(0, 4, (size, FINDINGS), generator=generator),
    }
    return {**random_batch(size, seed), **prior}
