"""Report generation with the network: beam search, sampling, candidates, and the log-probability of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationMixin

from diffrgen.labels import State
from diffrgen.model.beam_cache import CACHE, NAMES, BeamCache
from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.guidance import without_positives
from diffrgen.model.inputs import StudyInputs
from diffrgen.model.outputs import EncodedStudy, GeneratedReports, Prompt


class Candidates(Protocol):
    """Drafts further reports of studies and chooses one per study."""

    def __call__(
        self, model: ReportWriting, encoded: EncodedStudy, prompt: Prompt, first: Tensor, **generation: Any
    ) -> Tensor:
        """Return the chosen reports (B, T') as padded token ids; first (B, T): those of ordinary decoding.

        generation: the arguments of `ReportWriting.decode` that these were decoded with.
        """
        ...


class ReportWriting(GenerationMixin):
    """The report generation of `DiffRGenForReportGeneration`, based on its `encode` and `decode_step`."""

    config: DiffRGenConfig
    if TYPE_CHECKING:
        # Defined by the network (modeling.py).
        def encode(self, inputs: StudyInputs) -> EncodedStudy: ...  # noqa: D102
        def predicted_states(self, encoded: EncodedStudy) -> Tensor: ...  # noqa: D102
        def prompt_ids(self, states: Tensor, prior_states: Tensor | None = None) -> Tensor: ...  # noqa: D102
        def decode_step(  # noqa: D102
            self, encoded: EncodedStudy, ids: Tensor, memory_mask: Tensor | None, cache: Any, **options: Any
        ) -> Any: ...

    @torch.no_grad()
    def write_reports(
        self,
        inputs: StudyInputs,
        *,
        guidance: float = 1.0,
        candidates: Candidates | None = None,
        token_scores: bool = False,
        **generation: Any,
    ) -> GeneratedReports:
        """Generate a report for each image, prompted by the most likely disease states.

        guidance: g of `diffrgen.model.guidance`; candidates: who drafts further reports, with that guidance, and chooses among
        them and the ordinary one, which then is without; None: there is one per study; token_scores: give the log-probability
        of each token, too. `generation` goes to `GenerationMixin.generate` (num_beams,
        max_new_tokens, ...).
        """
        encoded = self.encode(inputs)
        states = self.predicted_states(encoded)
        prompt = Prompt(states, inputs.prior_states)
        sequences = self.decode(encoded, prompt, guidance=guidance if candidates is None else 1.0, **generation)
        if candidates is not None:
            sequences = candidates(self, encoded, prompt, sequences, guidance=guidance, **generation)
        return GeneratedReports(
            sequences=sequences,
            states=states,
            state_probability=encoded.disease_logits.float().softmax(1),
            routing=encoded.routing,
            view_kinds=encoded.view_kinds,
            severities=None if encoded.severities is None else encoded.severities * (states == State.POSITIVE),
            token_log_probability=self.token_log_probability(encoded, prompt, sequences) if token_scores else None,
        )

    @torch.no_grad()
    def decode(self, encoded: EncodedStudy, prompt: Prompt, *, guidance: float = 1.0, **generation: Any) -> Tensor:
        """Return reports as token ids (B R, T) without the prompt, padded: R = num_return_sequences a study, one by default.

        Arguments are as in `write_reports`. Raises ValueError for a cache that guided decoding has not made itself.
        """
        ids = self.prompt_ids(prompt.states, prompt.prior_states)
        study = EncodedStudy(
            encoded.last_hidden_state, prompt_rows=encoded.prompt_rows, severities=encoded.severities
        )
        if guidance != 1:
            study.base_prompt = self.prompt_ids(without_positives(prompt.states), prompt.prior_states)
            study.guidance = guidance
        given = any(name in generation for name in NAMES)
        if given and guidance != 1:
            raise ValueError(f"expected no cache of the caller's in guided decoding, got guidance {guidance:g} with one")
        if generation.get("use_cache", True) and not given:
            new_tokens = generation.get("max_new_tokens", self.generation_config.max_new_tokens)
            most = ids.shape[1] + new_tokens if new_tokens else self.config.decoder.max_position_embeddings
            generation[CACHE] = BeamCache(self.config.decoder, most, copies=1 if guidance == 1 else 2)
        sequences = super().generate(
            encoder_outputs=study, attention_mask=encoded.memory_mask, decoder_input_ids=ids, **generation
        )
        return self._padded(sequences[:, ids.shape[1] :])

    @torch.no_grad()
    def log_probability(self, encoded: EncodedStudy, prompt: Prompt, sequences: Tensor) -> Tensor:
        """Return the mean log-probability of a token (B,) of padded reports (B, T), their first end token included."""
        scores = self.token_log_probability(encoded, prompt, sequences)
        return scores.sum(1) / self.written(sequences).sum(1).clamp_min(1)

    def written(self, sequences: Tensor) -> Tensor:
        """Return what of padded reports (B, T) is no padding, (B, T) bool."""
        return ~self._behind_end(sequences) & (sequences != self.config.pad_token_id)

    def token_log_probability(self, encoded: EncodedStudy, prompt: Prompt, sequences: Tensor) -> Tensor:
        """Return the log-probability (B, T) float32 of each token of padded reports (B, T), 0 for padding.

        It is the network's own: guidance, and what forbids or favours tokens in generation, take no part. Gradients are
        recorded unless the caller turns that off.
        """
        ids = self.prompt_ids(prompt.states, prompt.prior_states)
        ids = torch.cat([ids, sequences[:, :-1]], dim=1)
        kept = sequences.shape[1]
        decoded = self.decode_step(encoded, ids, encoded.memory_mask, None, use_cache=False, logits_to_keep=kept)
        chosen = decoded.logits.float().log_softmax(-1).gather(2, sequences.unsqueeze(-1)).squeeze(-1)  # (B, T)
        return chosen.masked_fill(~self.written(sequences), 0.0)

    def _padded(self, sequences: Tensor) -> Tensor:
        """Return sequences (B, T) padded behind the first end token: beam search fills up with end tokens if padding is 0."""
        return sequences.masked_fill(self._behind_end(sequences), self.config.pad_token_id)

    def _behind_end(self, sequences: Tensor) -> Tensor:
        """Return which tokens of sequences (B, T) follow the first end token, (B, T) bool."""
        ended = sequences == self.config.eos_token_id
        return ended.cumsum(1) > ended.long()

    def generate(self, inputs: StudyInputs, **generation: Any) -> Tensor:
        """Return the token ids (B, T) of `write_reports`, without the prompt."""
        return self.write_reports(inputs, **generation).sequences
