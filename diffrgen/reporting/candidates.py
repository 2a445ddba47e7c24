"""Candidate reports of a study, and the selection of a probable report that agrees with its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from diffrgen.labels import NO_FINDING, Labeler, State
from diffrgen.model import EncodedStudy
from diffrgen.model.outputs import Prompt
from diffrgen.model.writing import ReportWriting
from diffrgen.pipeline.generation import Decoding
from diffrgen.text import decode_report


def disagreements(prompts: np.ndarray, reported: np.ndarray) -> np.ndarray:
    """Count (...,) the 13 diseases on which reports disagree with their prompts, states (..., C >= 13) of both.

    A positive prompt that the report leaves out counts once, one that it denies twice; a finding that the report says is
    there counts once where its prompt is neither positive nor uncertain.
    """
    prompts, reported = prompts[..., :NO_FINDING], reported[..., :NO_FINDING]
    positive, mentioned = prompts == State.POSITIVE, reported == State.POSITIVE
    missed, denied = positive & ~mentioned, positive & (reported == State.NEGATIVE)
    invented = mentioned & ~positive & (prompts != State.UNCERTAIN)
    return np.sum(missed, -1) + np.sum(denied, -1) + np.sum(invented, -1)


@dataclass(frozen=True)
class AgreeingCandidates:
    """Chooses among the report of ordinary decoding and `count` - 1 sampled ones.

        score = mean log-probability of a token - agreement x disagreements with the prompt

    Samples are drawn, guided where that is asked for, for those studies alone whose ordinary report, which is not guided,
    disagrees with its prompt. The first of the best wins, so
    that the ordinary report stays where no sample is better. sampling: the arguments of `GenerationMixin.generate` that
    samples are drawn with.
    """

    tokenizer: PreTrainedTokenizerFast
    labeler: Labeler
    count: int
    agreement: float
    sampling: Mapping[str, Any]

    def __call__(
        self, model: ReportWriting, encoded: EncodedStudy, prompt: Prompt, first: Tensor, **generation: Any
    ) -> Tensor:
        """Return the chosen reports (B, T') as padded token ids; first (B, T) and generation: of ordinary decoding."""
        rows = torch.from_numpy(self._disagreements(prompt, first.unsqueeze(1))[:, 0].nonzero()[0]).to(first.device)
        if not len(rows):
            return first
        encoded, prompt = studies_of(encoded, prompt, rows)
        arguments = {name: value for name, value in generation.items() if name != "length_penalty"}
        sampled = {**arguments, **self.sampling, "num_return_sequences": self.count - 1}
        drafts = _together(first[rows], model.decode(encoded, prompt, **sampled), padding=model.config.pad_token_id)
        likely = torch.stack([model.log_probability(encoded, prompt, draft) for draft in drafts.unbind(1)], dim=1)
        scores = likely.double().cpu().numpy() - self.agreement * self._disagreements(prompt, drafts)  # (b, count)
        best = torch.from_numpy(scores.argmax(1)).to(first.device)
        written = F.pad(first, (0, drafts.shape[2] - first.shape[1]), value=model.config.pad_token_id)
        return written.index_copy(0, rows, drafts[torch.arange(len(rows), device=rows.device), best])

    def _disagreements(self, prompt: Prompt, drafts: Tensor) -> np.ndarray:
        """Count (B, R) the diseases on which drafts (B, R, T) disagree with the prompts of their studies."""
        reported = self.labeler([decode_report(self.tokenizer, ids) for ids in drafts.flatten(0, 1)])
        return disagreements(prompt.states.cpu().numpy()[:, None], reported.reshape(*drafts.shape[:2], -1))


def studies_of(encoded: EncodedStudy, prompt: Prompt, rows: Tensor) -> tuple[EncodedStudy, Prompt]:
    """Return what the decoder attends to, and is prompted by, of the studies `rows` alone."""

    def of_rows(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    names = ("last_hidden_state", "memory_mask", "prompt_rows", "severities")
    parts: dict[str, Any] = {name: of_rows(encoded.get(name)) for name in names}
    kept = EncodedStudy(**parts)
    return kept, Prompt(prompt.states[rows], of_rows(prompt.prior_states))


def _together(first: Tensor, drawn: Tensor, *, padding: int) -> Tensor:
    """Return first (B, T1) and the samples drawn (B S, T2), those of a study one after the other, as (B, 1 + S, T)."""
    longest = max(first.shape[1], drawn.shape[1])
    first, drawn = (F.pad(ids, (0, longest - ids.shape[1]), value=padding) for ids in (first, drawn))
    return torch.cat([first.unsqueeze(1), drawn.unflatten(0, (len(first), -1))], dim=1)


def agreeing_candidates(
    decoding: Decoding, tokenizer: PreTrainedTokenizerFast, labeler: Labeler | None
) -> AgreeingCandidates:
    """Return what chooses among the candidates of a decoding; ValueError without a labeler to read them."""
    if labeler is None:
        raise ValueError(f"expected a labeler that reads the {decoding.candidates} candidates of a study, got None")
    # Samples are drawn token by token, whatever the beam width of the ordinary report.
    sampling = {"num_beams": 1, **decoding.sampling()}
    return AgreeingCandidates(tokenizer, labeler, decoding.candidates, decoding.agreement, sampling)
