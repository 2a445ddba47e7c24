"""The decoder's cross-attention at each token, averaged over the heads of the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffrgen.explanation.recording import recorded
from diffrgen.model import DiffRGenForReportGeneration, EncodedStudy


@dataclass(frozen=True)
class AttentionShares:
    """The share of the attention for each part of the decoder's memory; the shares sum to 1.

    patches: the image; similar, difference: the retrieved reports' features S and D, the latter 0 where the
    model has none; prior: the prior study's rows of
    both, 0 if there is none; context: the sections known before, such as the indication, 0 if there is none.
    """

    patches: float
    similar: float
    difference: float
    prior: float = 0.0
    context: float = 0.0


def cross_attention(
    model: DiffRGenForReportGeneration, encoded: EncodedStudy, states: Tensor, sequences: Tensor
) -> Tensor:
    """Return the weights (B, T, memory) float32 over `encoded`'s memory with which each generated token was written.

        mean over heads of softmax_l( q_t . k_l / sqrt(D) ),  absent memory left out

    states (B, C) prompted the decoder, sequences (B, T) are the generated ids without prompt. One teacher-forced pass:
    the query of token t is the decoder's at the place before, which predicted it. Queries and keys are recorded from the
    layer's projections, so that the pass may run any attention implementation.
    """
    prompt = model.prompt_ids(states, encoded.prior_states)  # (B, 1 + C)
    ids = torch.cat([prompt, sequences[:, :-1]], dim=1)
    decoder = model.decoder.base_model
    attention: Any = decoder.get_submodule(f"encoder.layer.{model.config.decoder.num_hidden_layers - 1}.crossattention.self")
    with recorded(attention.query, attention.key) as (queries, keys):
        decoder(
            **model.decoder_inputs(ids, encoded.prompt_rows, encoded.severities),
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=encoded.memory_mask,
            use_cache=False,
        )
    heads = attention.num_attention_heads
    query, key = (calls[0].output.float().unflatten(-1, (heads, -1)).transpose(1, 2) for calls in (queries, keys))
    query = query[:, :, prompt.shape[1] - 1 :]  # (B, H, T, D)
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    absent = ~encoded.memory_mask[:, None, None]
    return logits.masked_fill(absent, -torch.inf).softmax(-1).mean(1)


def attention_shares(
    weights: Tensor, *, patches: int, retrieved: int, rows: int, context: int = 0
) -> AttentionShares:
    """Sum weights (memory,) over the parts of [patches ; S ; D], or of [patches ; S] where the model has no D.

    Behind them stand the rows of `context` sections.

    S and D have `rows` rows each, of which the first `retrieved` belong to retrieved reports, the others to the prior.
    """
    shares = weights / weights.sum()
    image, *streams, known = shares.split([patches, *[rows] * ((len(weights) - patches - context) // rows), context])
    similar, difference = [float(stream[:retrieved].sum()) for stream in streams] + [0.0] * (2 - len(streams))
    prior = sum(float(stream[retrieved:].sum()) for stream in streams)
    return AttentionShares(float(image.sum()), similar, difference, prior, float(known.sum()))
