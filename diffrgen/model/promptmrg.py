"""PromptMRG's parts (Jin 2024) in place of difference features and routed aggregation, so that all its weights load."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertLMHeadModel

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.disease import DiseaseClassifier
from diffrgen.model.inputs import StudyInputs
from diffrgen.model.outputs import EncodedStudy
from diffrgen.model.rows import given_or_true
from diffrgen.model.views import ViewFeatures

ENCODER_LAYERS, DECODER_LAYERS = 2, 2


class MemoryDecoderLayer(nn.Module):
    """A layer of DETR's decoder (Carion 2020): the query q is added again in front of each attention, values stay without it.

        y = LN(x + MHA(x + q, x + q, x));  y = LN(y + MHA(y + q, memory, memory));  LN(y + W_2 relu(W_1 y))
    """

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        width, attention = config.width, {"dropout": config.dropout, "batch_first": True}
        self.self_attn = nn.MultiheadAttention(width, config.heads, **attention)
        self.multihead_attn = nn.MultiheadAttention(width, config.heads, **attention)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Tensor, query: Tensor, memory: Tensor, absent: Tensor) -> Tensor:
        """Return rows (B, Q, d) after the layer; query (B, Q, d), memory (B, N, d), absent (B, N) True for absent rows."""
        placed = rows + query
        mixed = self.self_attn(placed, placed, rows, need_weights=False)[0]
        rows = self.norm1(rows + self.dropout(mixed))
        read = self.multihead_attn(rows + query, memory, memory, key_padding_mask=absent, need_weights=False)[0]
        rows = self.norm2(rows + self.dropout(read))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(rows))))
        return self.norm3(rows + self.dropout(hidden))


class MemoryEncoder(nn.Module):
    """Two layers of a post-norm transformer, without a norm behind the last."""

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(config.width, config.heads, 4 * config.width, config.dropout, batch_first=True)
            for _ in range(ENCODER_LAYERS)
        )

    def forward(self, reports: Tensor, absent: Tensor) -> Tensor:
        """Return reports (B, N, d) after all layers; absent (B, N) True for absent rows."""
        for layer in self.layers:
            reports = layer(reports, src_key_padding_mask=absent)
        return reports


class MemoryDecoder(nn.Module):
    """Two layers of DETR's decoder, whose rows start as zeros, and a norm."""

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryDecoderLayer(config) for _ in range(DECODER_LAYERS))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, query: Tensor, memory: Tensor, absent: Tensor) -> Tensor:
        """Return (B, Q, d) of query (B, Q, d) and memory (B, N, d)."""
        rows = query.new_zeros(query.shape)
        for layer in self.layers:
            rows = layer(rows, query, memory, absent)
        return self.norm(rows)


class RetrievedMemory(nn.Module):
    """h = decoder(vision_proj(pooled), encoder(reports)): one row that the image reads out of the retrieved reports.

    Its width d = `config.width` is that of the reports' embeddings: they are not projected.
    """

    def __init__(self, config: DiffRGenConfig, image_width: int) -> None:
        super().__init__()
        self.vision_proj = nn.Linear(image_width, config.width)
        self.encoder, self.decoder = MemoryEncoder(config), MemoryDecoder(config)

    def forward(self, pooled: Tensor, reports: Tensor, mask: Tensor) -> Tensor:
        """Return h (B, d) of pooled image (B, E) and reports (B, N, d); mask (B, N) True for real reports.

        Where no report is real, all rows are read, which are zeros.
        """
        absent = ~mask & mask.any(dim=1, keepdim=True)
        memory = self.encoder(reports, absent)
        return self.decoder(self.vision_proj(pooled).unsqueeze(1), memory, absent).squeeze(1)


def encode_for_promptmrg(
    memory: RetrievedMemory, classifier: DiseaseClassifier, image: ViewFeatures, inputs: StudyInputs
) -> EncodedStudy:
    """Return PromptMRG's encoding: the encoder's patches, and the classifier on [pooled image ; h].

    Raises ValueError for a prior or a context.
    """
    if inputs.prior is not None or inputs.context is not None:
        raise ValueError("expected no prior and no context, for variant 'promptmrg' has no such input, got one")
    mask = given_or_true(inputs.retrieved_mask, inputs.retrieved)
    similar = memory(image.pooled, inputs.retrieved, mask)  # h (B, d)
    return EncodedStudy(
        last_hidden_state=image.patches,
        memory_mask=given_or_true(image.mask, image.patches),
        disease_logits=classifier(image.pooled, similar),
        routing=(),
        pooled=image.pooled,
        similar=similar,
    )


def widen_cross_attention(decoder: BertLMHeadModel, width: int) -> None:
    """Have the cross-attention of `decoder` read a memory (B, M, width) as it is; its keys and values are drawn anew."""
    for layer in decoder.get_submodule("bert.encoder.layer").children():
        attention = layer.get_submodule("crossattention.self")
        for name in ("key", "value"):
            setattr(attention, name, nn.Linear(width, getattr(attention, name).out_features))
