"""The network's outputs, and the states that prompt its decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers.utils import ModelOutput

from diffrgen.labels import State
from diffrgen.model.beam_cache import OutputWithCache

# ModelOutput requires a default for every field; `encode` always sets the fields that have this one.
GIVEN: Any = None


@dataclass
class EncodedStudy(ModelOutput):
    """The image and its retrieved reports, ready for the decoder.

    last_hidden_state (B, V m + 2N, decoder width): [patches ; S ; D], the patches of V views one grid after the other, or
    (B, V m + N, ...) without D, and behind it a row for each section of `config.context`;
    memory_mask (B, V m + 2N) bool, False for absent rows. N counts the rows of a prior too,
    which stand behind the retrieved reports in S and in D. disease_logits (B, 4, C); routing: alpha (B, p_k) of each
    layer, for S, then for D where it has a FAM of its own, with `row_routing` the means over the real rows;
    pooled (B, E), similar and difference (B, d): the means over
    the views and over the retrieved reports that Eq. 8 compares, difference None without D. prior_states (B, C): as they
    were given, None if they were not. prompt_rows (B, C, decoder width): what joins the prompt's embeddings
    (`FindingQueries`), None without finding queries. severity_logits (B, 4, C) and severities (B, C), the most probable ones
    or those of the reference reports (`SeverityHead`), None in a network without severities. view_kinds (B, V): places in
    `records.VIEW_KINDS`, recognised ones among them, None in a network for one image; view_counts (B,) int64: the views that
    are given, likewise; view_loss: the recogniser's.
    base_prompt (B, 1 + C) and guidance: of guided decoding (`diffrgen.model.guidance`), None if it is ordinary.
    """

    last_hidden_state: Tensor = GIVEN
    memory_mask: Tensor = GIVEN
    disease_logits: Tensor = GIVEN
    routing: tuple[Tensor, ...] = GIVEN
    pooled: Tensor = GIVEN
    similar: Tensor = GIVEN
    difference: Tensor | None = None
    prior_states: Tensor | None = None
    view_kinds: Tensor | None = None
    view_counts: Tensor | None = None
    view_loss: Tensor | None = None
    prompt_rows: Tensor | None = None
    severity_logits: Tensor | None = None
    severities: Tensor | None = None
    base_prompt: Tensor | None = None
    guidance: float | None = None


class Prompt(NamedTuple):
    """The states that prompt the decoder: states (B, C) int64, and prior_states (B, C), None if no study has a prior."""

    states: Tensor
    prior_states: Tensor | None = None


@dataclass
class DiffRGenOutput(OutputWithCache):
    """One pass of `DiffRGenForReportGeneration`.

    loss = language_loss + lambda disease_loss + gamma contrast_loss, each a scalar, present where its target was given;
    logits (B, T, vocabulary) of the report tokens; disease_logits and routing as in `EncodedStudy`; the decoder's keys and
    values under transformers' name for them (`beam_cache.CACHE`).
    """

    loss: Tensor | None = None
    language_loss: Tensor | None = None
    disease_loss: Tensor | None = None
    contrast_loss: Tensor | None = None
    view_loss: Tensor | None = None
    severity_loss: Tensor | None = None
    logits: Tensor = GIVEN
    disease_logits: Tensor | None = None
    routing: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None


@dataclass(frozen=True)
class GeneratedReports:
    """Reports as token ids (B, T) without prompt, padded, and what the model based them on.

    states (B, C): the disease states that prompted the decoder; severities (B, C): those of positive findings that did, values
    of `Severity`, None in a network without severities; state_probability (B, 4, C): of each state of each disease;
    routing and view_kinds as in `EncodedStudy`. token_log_probability (B, T) float32: of each token, 0 for padding; None
    where it was not asked for.
    """

    sequences: Tensor
    states: Tensor
    state_probability: Tensor
    routing: tuple[Tensor, ...]
    view_kinds: Tensor | None = None
    severities: Tensor | None = None
    token_log_probability: Tensor | None = None

    @property
    def positive_probability(self) -> Tensor:
        """P(positive) (B, C)."""
        return self.state_probability[:, State.POSITIVE]
