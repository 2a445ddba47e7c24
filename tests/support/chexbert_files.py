"""A checkpoint of CheXbert's file format with a tiny BERT of random weights, and its vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("no", "small", "left", "right", "effusion", "edema", "heart", "is", "large", "clear", "lung", "##s", ".", ",")
VOCABULARY = {token: number for number, token in enumerate((*SPECIAL, *WORDS))}
HEADS = [4] * 13 + [2]


def tiny_bert() -> BertModel:
    """Return a BERT with two 64-wide heads whose outputs depend strongly on the text, in evaluation mode."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    return BertModel(BertConfig(vocab_size=len(VOCABULARY), initializer_range=0.15, **sizes)).eval()


def tiny_heads() -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each head."""
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(n, 128, generator=generator), torch.randn(n, generator=generator)) for n in HEADS]


def checkpoint_content(*, prefix: str = "module.") -> dict[str, Any]:
    """Return what the release saves: the weights by DataParallel's names, and the optimiser's."""
    weights = {f"{prefix}bert.{name}": value for name, value in tiny_bert().state_dict().items()}
    weights[f"{prefix}bert.embeddings.position_ids"] = torch.arange(512)[None]
    for number, (weight, bias) in enumerate(tiny_heads()):
        weights |= {f"{prefix}linear_heads.{number}.weight": weight, f"{prefix}linear_heads.{number}.bias": bias}
    return {"epoch": 7, "model_state_dict": weights, "optimizer_state_dict": {"state": {}, "param_groups": []}}


def write_chexbert(folder: Path) -> tuple[Path, Path]:
    """Write chexbert.pth and vocab.txt; return the checkpoint's path and the vocabulary's folder."""
    torch.save(checkpoint_content(), folder / "chexbert.pth")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder / "chexbert.pth", folder
