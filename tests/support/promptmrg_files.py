"""A checkpoint of PromptMRG's file format with a small network of random weights, and networks of its sizes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, ResNetConfig, ResNetModel

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "edema", "heart", "is", "large", "clear", "lung", "##s", ".")
STEM, STAGES, DEPTHS, WIDTH, LAYERS, HEADS, POSITIONS, HIDDEN = 16, (32, 64, 64, 128), (1, 2, 1, 1), 32, 2, 2, 96, 96
MEMORY, MEMORY_HEADS, ALL_FINDINGS = 16, 2, 18

RESNET = ResNetConfig(
    num_channels=3, embedding_size=STEM, hidden_sizes=list(STAGES), depths=list(DEPTHS), layer_type="bottleneck"
)
BERT = BertConfig(
    vocab_size=len(WORDS),
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=HIDDEN,
    max_position_embeddings=POSITIONS,
)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return float64 tensors by the names that PromptMRG's release has."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, bias: bool = True) -> None:
        fan_in = torch.Size(shape[1:]).numel()
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator, dtype=torch.float64) * fan_in**-0.5
        if bias:
            weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator, dtype=torch.float64) * 0.3

    def norm(name: str, width: int, *, batch: bool = False) -> None:
        weights[f"{name}.weight"] = 0.5 + torch.rand(width, generator=generator, dtype=torch.float64)
        weights[f"{name}.bias"] = torch.randn(width, generator=generator, dtype=torch.float64) * 0.3
        if batch:
            weights[f"{name}.running_mean"] = torch.randn(width, generator=generator, dtype=torch.float64) * 0.3
            weights[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=generator, dtype=torch.float64)
            weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def attention(name: str, width: int) -> None:
        add(f"{name}.in_proj", 3 * width, width)
        weights[f"{name}.in_proj_weight"] = weights.pop(f"{name}.in_proj.weight")
        weights[f"{name}.in_proj_bias"] = weights.pop(f"{name}.in_proj.bias")
        add(f"{name}.out_proj", width, width)

    add("visual_encoder.model.0", STEM, 3, 7, 7, bias=False)
    norm("visual_encoder.model.1", STEM, batch=True)
    before = STEM
    for number, (width, depth) in enumerate(zip(STAGES, DEPTHS, strict=True), start=4):
        for layer in range(depth):
            name, middle = f"visual_encoder.model.{number}.{layer}", width // 4
            for place, shape in enumerate([(middle, before, 1, 1), (middle, middle, 3, 3), (width, middle, 1, 1)], start=1):
                add(f"{name}.conv{place}", *shape, bias=False)
                norm(f"{name}.bn{place}", shape[0], batch=True)
            if layer == 0:
                add(f"{name}.downsample.0", width, before, 1, 1, bias=False)
                norm(f"{name}.downsample.1", width, batch=True)
            before = width

    bert, words = "text_decoder.bert", len(WORDS) + 5
    add(f"{bert}.embeddings.word_embeddings", words, WIDTH, bias=False)
    add(f"{bert}.embeddings.position_embeddings", POSITIONS, WIDTH, bias=False)
    weights[f"{bert}.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    norm(f"{bert}.embeddings.LayerNorm", WIDTH)
    for layer in range(LAYERS):
        for kind, source in (("attention", WIDTH), ("crossattention", STAGES[-1])):
            name = f"{bert}.encoder.layer.{layer}.{kind}"
            add(f"{name}.self.query", WIDTH, WIDTH)
            add(f"{name}.self.key", WIDTH, source)
            add(f"{name}.self.value", WIDTH, source)
            add(f"{name}.output.dense", WIDTH, WIDTH)
            norm(f"{name}.output.LayerNorm", WIDTH)
        add(f"{bert}.encoder.layer.{layer}.intermediate.dense", HIDDEN, WIDTH)
        add(f"{bert}.encoder.layer.{layer}.output.dense", WIDTH, HIDDEN)
        norm(f"{bert}.encoder.layer.{layer}.output.LayerNorm", WIDTH)
    head = "text_decoder.cls.predictions"
    add(f"{head}.transform.dense", WIDTH, WIDTH)
    norm(f"{head}.transform.LayerNorm", WIDTH)
    weights[f"{head}.decoder.weight"] = weights[f"{bert}.embeddings.word_embeddings.weight"]
    weights[f"{head}.bias"] = torch.randn(words, generator=generator, dtype=torch.float64)
    weights[f"{head}.decoder.bias"] = weights[f"{head}.bias"]

    add("cls_head", 4 * ALL_FINDINGS, STAGES[-1] + MEMORY)
    add("vision_proj", MEMORY, STAGES[-1])
    for part, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "multihead_attn"])):
        for layer in range(2):
            name = f"memory.{part}.layers.{layer}"
            for one in attentions:
                attention(f"{name}.{one}", MEMORY)
            add(f"{name}.linear1", 4 * MEMORY, MEMORY)
            add(f"{name}.linear2", MEMORY, 4 * MEMORY)
            for place in range(1, len(attentions) + 2):
                norm(f"{name}.norm{place}", MEMORY)
    norm("memory.decoder.norm", MEMORY)
    return weights


def write_promptmrg(folder: Path, seed: int = 0) -> Path:
    """Write promptmrg.pth, and the encoder and decoder of its sizes, resnet/ and bert/, with other weights."""
    torch.manual_seed(9)
    ResNetModel(RESNET).save_pretrained(folder / "resnet")
    BertForMaskedLM(BERT).save_pretrained(folder / "bert")
    (folder / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    path = folder / "promptmrg.pth"
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in random_weights(seed).items()}
    torch.save(weights, path)
    return path
