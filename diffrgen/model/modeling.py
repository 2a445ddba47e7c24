"""The complete DiffRGenNet: encode, difference, aggregate, classify, contrast, decode; `writing.py` generates reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import BertLMHeadModel, GenerationMixin, PreTrainedModel

from diffrgen.images.encoder import PatchEncoder
from diffrgen.labels import NO_STUDY
from diffrgen.model.beam_cache import CACHE
from diffrgen.model.coattention import Route
from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.context import ContextRows
from diffrgen.model.contrast import ContrastHead
from diffrgen.model.difference import FeatureDifference
from diffrgen.model.disease import DiseaseClassifier, thresholded_states
from diffrgen.model.fam import FlexiRouteAggregation
from diffrgen.model.findings import FindingQueries
from diffrgen.model.guidance import beside_base, guided, twice
from diffrgen.model.initial import draw_initial_weights
from diffrgen.model.inputs import StudyInputs
from diffrgen.model.language import IGNORED, token_weights, weighted_language_loss
from diffrgen.model.outputs import DiffRGenOutput, EncodedStudy
from diffrgen.model.prior import PriorReferences
from diffrgen.model.processes import weight_of
from diffrgen.model.promptmrg import RetrievedMemory, encode_for_promptmrg, widen_cross_attention
from diffrgen.model.rows import given_or_true, masked_mean
from diffrgen.model.severity import SeverityHead
from diffrgen.model.views import ViewFeatures, ViewKinds, ViewMarks, encode_views
from diffrgen.model.writing import ReportWriting

if TYPE_CHECKING:
    from typing_extensions import Self

# Weight of the losses of the view recogniser and of the severities; small, because all gradients are clipped by their
# common norm. With weight 1 of the severities the findings are learned less well: docs/experiments.md.
SIDE_WEIGHT = 0.1
# Names that tensors had in version 0.1.
FORMER_NAMES = {r"^classifier\.prior$": "classifier.class_prior"}


class DiffRGenForReportGeneration(ReportWriting, PreTrainedModel, GenerationMixin):
    """Generates a radiology report from an image and the reports retrieved for it (Section 2 of the paper).

    `encode`, `write_reports` and `generate` take a batch as `StudyInputs`, `forward` its tensors by their names.
    """

    config: DiffRGenConfig
    config_class = DiffRGenConfig
    base_model_prefix = "diffrgen"
    main_input_name = "pixel_values"

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__(config)
        # Drawn first, so that it does not depend on the parts.
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
        self.image_encoder = PatchEncoder(config.encoder)
        image_width = self.image_encoder.width
        if config.variant == "promptmrg":
            self._add_promptmrg_parts(config, image_width)
        else:
            self._add_parts(config, image_width)
        self.post_init()
        if self.device.type != "meta":
            draw_initial_weights(self, seed)

    def _add_parts(self, config: DiffRGenConfig, image_width: int) -> None:
        self.patch_projection = nn.Sequential(nn.Linear(image_width, config.width), nn.LayerNorm(config.width))
        self.view_marks = ViewMarks(config, image_width) if config.views > 1 else None
        self.report_projection = nn.Sequential(
            nn.Linear(config.retrieved_width, config.width), nn.LayerNorm(config.width)
        )
        self.prior = PriorReferences(config) if config.prior else None
        self.context = ContextRows(config) if config.context else None
        self.difference = FeatureDifference(config) if config.difference_metrics else None
        self.fam = FlexiRouteAggregation(config)
        own = self.difference is not None and not config.share_fam
        self.difference_fam = FlexiRouteAggregation(config) if own else None
        self.finding_queries = FindingQueries(config) if config.finding_queries else None
        self.classifier = DiseaseClassifier(config, image_width)
        self.severity = SeverityHead(config, image_width) if config.severities else None
        self.contrast = ContrastHead(config, image_width)
        self.memory_projection = nn.Linear(config.width, config.decoder.hidden_size)
        self.memory: RetrievedMemory | None = None
        self.decoder = BertLMHeadModel(config.decoder)

    def _add_promptmrg_parts(self, config: DiffRGenConfig, image_width: int) -> None:
        self.view_marks = self.prior = self.difference = self.difference_fam = None
        self.context = self.finding_queries = self.severity = None
        # This variant's encoding and losses use neither.
        absent: Any = None
        self.fam = self.contrast = absent
        self.classifier = DiseaseClassifier(config, image_width)
        self.memory = RetrievedMemory(config, image_width)
        self.decoder = BertLMHeadModel(config.decoder)
        widen_cross_attention(self.decoder, image_width)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw the parameters of `module` itself that no checkpoint brought."""
        super()._init_weights(module)
        own = module.named_parameters(recurse=False)
        missing = {name for name, parameter in own if not getattr(parameter, "_is_hf_initialized", False)}
        draw_initial_weights(module, torch.initial_seed(), names=missing)

    if TYPE_CHECKING:
        # A decorator hides the signature of transformers' own method.
        def to(self, *arguments: Any, **options: Any) -> Self: ...  # type: ignore[override]  # noqa: D102

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> DiffRGenForReportGeneration:
        """Load a network as `PreTrainedModel.from_pretrained` does, also one that version 0.1 saved."""
        return super().from_pretrained(*arguments, **{"key_mapping": FORMER_NAMES, **options})

    def encode(self, inputs: StudyInputs) -> EncodedStudy:
        """Return the decoder's memory, disease logits and routing weights of images and references (the README's diagram).

        The prior's states are passed on, because they prompt the decoder. Raises ValueError for a prior, a context or more
        views than the network accepts.
        """
        image = encode_views(self.image_encoder, inputs.pixel_values, inputs.view_mask, most=self.config.views)
        if self.memory is not None:
            return encode_for_promptmrg(self.memory, self.classifier, image, inputs)
        patches, views = self._patches(image, inputs)  # F (B, V m, d)
        reports = self.report_projection(inputs.retrieved)  # Z (B, N, d)
        prior = self._prior_rows(inputs.prior)  # (B, R, d)
        retrieved_mask = given_or_true(inputs.retrieved_mask, reports)
        z, mask = self._references(reports, retrieved_mask, prior, inputs.prior_mask)  # [Z ; prior] (B, N + R, d), (B, N + R)
        alphas: list[Tensor] = []
        routes = self.fam.route(patches, image.grid, image.mask, self._rows_to_attend(z))
        similar, finding_rows = self._aggregate(z, routes, mask, alphas)  # S (B, N + R, d), Eq. 2-7
        memory, mean_difference = [patches, similar], None
        if self.difference is not None:
            difference = self._difference(self.difference, reports, prior, patches, image.mask)  # Eq. 1 (B, N + R, d)
            difference = self._aggregate_difference(difference, patches, image, routes, mask, alphas)  # D, Eq. 2-7
            memory, mean_difference = [*memory, difference], masked_mean(difference, retrieved_mask)
        masks = [given_or_true(image.mask, patches)] + [mask] * (len(memory) - 1)
        if (context := self._context_rows(inputs)) is not None:
            memory, masks = [*memory, context[0]], [*masks, context[1]]
        mean_similar = masked_mean(similar, retrieved_mask)
        severity_logits = None if self.severity is None else self.severity(image.pooled, mean_similar)
        return EncodedStudy(
            last_hidden_state=self.memory_projection(torch.cat(memory, dim=1)),  # [F ; S ; D ; context]
            memory_mask=torch.cat(masks, dim=1),
            disease_logits=self._disease_logits(image.pooled, mean_similar, finding_rows, context),
            routing=tuple(alphas),
            pooled=image.pooled,
            similar=mean_similar,
            difference=mean_difference,
            prior_states=inputs.prior_states,
            view_kinds=None if views is None else views.kinds,
            view_counts=None if views is None else inputs.view_counts,
            view_loss=None if views is None else views.loss,
            prompt_rows=None if self.finding_queries is None else self.finding_queries.prompt_rows(finding_rows),
            severity_logits=severity_logits,
            severities=None if severity_logits is None else severity_logits.argmax(1),
        )

    def _patches(self, image: ViewFeatures, inputs: StudyInputs) -> tuple[Tensor, ViewKinds | None]:
        """Return the patches F (B, V m, d), marked by the kinds of their views, and these kinds; None for one view."""
        patches = self.patch_projection(image.patches)
        if self.view_marks is None:
            return patches, None
        views = self.view_marks.kinds(image.pooled_views, inputs.view_kinds)
        return self.view_marks(patches, views.kinds), views

    def _references(
        self, reports: Tensor, mask: Tensor, prior: Tensor | None, prior_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return [Z ; prior] (B, N + R, d) and which rows exist (B, N + R), of Z (B, N, d), a prior study's rows (B, R, d) and
        the masks of both, (B, N) and (B, R).
        """
        if prior is None:
            return reports, mask
        assert self.prior is not None  # or `_prior_rows` had refused
        return (
            torch.cat([reports, self.prior.mark(prior)], dim=1),
            torch.cat([mask, given_or_true(prior_mask, prior)], dim=1),
        )

    def _rows_to_attend(self, z: Tensor) -> int:
        """Return the number of rows that attend to the image by one FAM: z (B, N + R, d), finding queries, differences."""
        queries = 0 if self.finding_queries is None else self.config.findings
        streams = 1 if self.difference is None or self.difference_fam is not None else 2
        return streams * z.shape[1] + queries

    def _aggregate_difference(
        self,
        difference: Tensor,
        patches: Tensor,
        image: ViewFeatures,
        routes: tuple[Route, ...],
        mask: Tensor,
        alphas: list[Tensor],
    ) -> Tensor:
        """Return D (B, N + R, d) of Eq. 1's difference (B, N + R, d), by the FAM of S or by a separate one, whose alphas
        are added to `alphas`.
        """
        if self.difference_fam is None:
            return self.fam(difference, routes, mask)
        routes = self.difference_fam.route(patches, image.grid, image.mask, difference.shape[1])
        return self.difference_fam(difference, routes, mask, alphas)

    def _disease_logits(
        self, pooled: Tensor, similar: Tensor, finding_rows: Tensor, context: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Return the logits (B, 4, C) of the classifier, plus those of finding queries and of context rows."""
        logits = self.classifier(pooled, similar)
        if self.finding_queries is not None:
            logits = logits + self.finding_queries.logits(finding_rows)
        if context is not None:
            assert self.context is not None  # or there had been no rows
            logits = logits + self.context.logits(*context)
        return logits

    def _aggregate(
        self, z: Tensor, routes: tuple[Route, ...], mask: Tensor, alphas: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return S (B, N + R, d) of z (B, N + R, d), and the aggregated finding queries (B, C, d; C = 0 without them)."""
        rows = z.shape[1]
        if self.finding_queries is not None:
            z, mask = self.finding_queries.beside(z, mask)
        return self.fam(z, routes, mask, alphas).tensor_split((rows,), dim=1)

    def _difference(
        self,
        eq1: FeatureDifference,
        reports: Tensor,
        earlier: Tensor | None,
        patches: Tensor,
        patch_mask: Tensor | None,
    ) -> Tensor:
        """Return Eq. 1 of the retrieved reports (B, N, d) and of a prior study's rows (B, R, d) against F (B, V m, d)."""
        difference = eq1(reports, patches, patch_mask)
        if earlier is None:
            return difference
        assert self.prior is not None  # or `_prior_rows` had refused
        return torch.cat([difference, self.prior.mark(eq1.of_prior(earlier, patches, patch_mask))], dim=1)

    def _prior_rows(self, prior: Tensor | None) -> Tensor | None:
        """Project the rows of a prior study, (B, R, E) -> (B, R, d); None if there is none."""
        if prior is None:
            return None
        if self.prior is None:
            raise ValueError("expected no prior, for the network was made without that input (config.prior), got one")
        return self.prior(prior, self.report_projection)

    def _context_rows(self, inputs: StudyInputs) -> tuple[Tensor, Tensor] | None:
        """Return the rows (B, F, d) of the sections and which exist (B, F); None for a network without context."""
        if self.context is None:
            if inputs.context is not None:
                raise ValueError("expected no context, for the network was made without that input (config.context), got some")
            return None
        shape = (len(inputs), len(self.config.context))
        if inputs.context is None:
            empty = inputs.retrieved.new_zeros(*shape, self.config.prior_width)
            return self.context(empty), empty.new_zeros(shape, dtype=torch.bool)
        rows = self.context(inputs.context)
        return rows, given_or_true(inputs.context_mask, rows)

    def forward(
        self,
        *,
        states: Tensor | None = None,
        severities: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedStudy | None = None,
        use_cache: bool | None = None,
        **inputs: Any,
    ) -> DiffRGenOutput:
        """Compute the losses of a batch (with `states` and `labels`), or one decoding step (with `decoder_input_ids`).

        states (B, C) int64: the reference disease states; severities (B, C) int64: those that the reference report states, for
        a network with severities; labels (B, T) int64: report tokens and the end token, padded by
        -100; the report is decoded after the prompt of the reference states. inputs: the fields of `StudyInputs` by name. The
        other arguments are `generate`'s.
        """
        encoded = self.encode(StudyInputs.of(inputs)) if encoder_outputs is None else encoder_outputs
        if severities is not None:
            encoded.severities = severities
        if labels is not None:
            now = self.predicted_states(encoded) if states is None else states
            prompt = self.prompt_ids(now, encoded.get("prior_states"))
            previous = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self.config.pad_token_id)
            decoder_input_ids = torch.cat([prompt, previous], dim=1)  # (B, 1 + C + T - 1)
        assert decoder_input_ids is not None  # one of both: labels, or generation's own step
        memory_mask = encoded.get("memory_mask") if attention_mask is None else attention_mask
        cache = inputs.get(CACHE)
        decoded = self.decode_step(
            encoded,
            decoder_input_ids,
            memory_mask,
            cache,
            use_cache=use_cache and labels is None,
            logits_to_keep=0 if labels is None else labels.shape[1],
        )
        output = DiffRGenOutput(
            logits=decoded.logits,
            disease_logits=encoded.get("disease_logits"),
            routing=encoded.get("routing"),
            encoder_last_hidden_state=encoded.last_hidden_state,
            **{CACHE: decoded.get(CACHE)},
        )
        return output if labels is None else self._with_losses(output, encoded, states, severities, labels)

    def decode_step(
        self, encoded: EncodedStudy, ids: Tensor, memory_mask: Tensor | None, cache: Any, **options: Any
    ) -> Any:
        """Return the decoder's output for ids (B, T), which follow the tokens in `cache`; the logits are guided if requested."""
        past = 0 if cache is None else cache.get_seq_length()
        memory, rows, base = encoded.last_hidden_state, encoded.get("prompt_rows"), encoded.get("base_prompt")
        severities = encoded.get("severities")
        if base is not None:
            ids = beside_base(ids, base, past=past)
            memory, rows, severities = twice(memory), twice(rows), twice(severities)
            memory_mask = None if memory_mask is None else twice(memory_mask)
        decoded = self.decoder(
            **self.decoder_inputs(ids, rows, severities, past=past),
            encoder_hidden_states=memory,
            encoder_attention_mask=memory_mask,
            **{CACHE: cache},
            **options,
        )
        if base is not None:
            assert encoded.guidance is not None  # with the base prompt
            decoded.logits = guided(decoded.logits, encoded.guidance)
        return decoded

    def _with_losses(
        self,
        output: DiffRGenOutput,
        encoded: EncodedStudy,
        states: Tensor | None,
        severities: Tensor | None,
        labels: Tensor,
    ) -> DiffRGenOutput:
        """Add L = L_LM + lambda L_SDL + gamma L_SCL and its terms; without states, L_LM alone.

        NOTE: a view recogniser adds a loss of its own, whose gradient reaches nothing but the recogniser; severities add one
        that trains the encoder too.
        """
        config, weights = self.config, (labels != IGNORED).float()
        if self.training:
            weights = token_weights(
                labels, config.finding_token_ids, config.finding_weight, config.unlearned_token_ids
            )
        smoothing = config.label_smoothing if self.training else 0.0
        language_loss = weighted_language_loss(output.logits, labels, weights, label_smoothing=smoothing)
        if self.training:
            language_loss = language_loss * weight_of(weights.sum())
        output.loss = output.language_loss = language_loss
        if states is not None:
            output.disease_loss = self.classifier.loss(encoded.disease_logits, states)
            output.contrast_loss = language_loss.new_zeros(())
            if self.contrast is not None:
                output.contrast_loss = self.contrast(encoded.pooled, encoded.similar, encoded.difference, states)
            output.loss = (
                output.language_loss
                + config.disease_weight * output.disease_loss
                + config.contrast_weight * output.contrast_loss
            )
        if self.severity is not None and states is not None and severities is not None:
            assert encoded.severity_logits is not None  # `encode` gives them
            output.severity_loss = self.severity.loss(encoded.severity_logits, severities, states)
            output.loss = output.loss + SIDE_WEIGHT * output.severity_loss
        if encoded.view_loss is not None:
            output.view_loss = encoded.view_loss
            output.loss = output.loss + SIDE_WEIGHT * output.view_loss
        return output

    def predicted_states(self, encoded: EncodedStudy) -> Tensor:
        """Return the state of each disease (B, C): the most likely one, or `thresholded_states`.

        NOTE: where one of two views is given, the thresholds for both prompt twice as many false findings (preset `iu`,
        docs/iu-xray.md), hence `single_view_thresholds`.
        """
        config, logits = self.config, encoded.disease_logits  # (B, 4, C)
        if not config.prompt_thresholds:
            return logits.argmax(dim=1)
        thresholds = logits.new_tensor(config.prompt_thresholds)
        if config.single_view_thresholds and encoded.view_counts is not None:
            single = (encoded.view_counts == 1).unsqueeze(1)  # (B, 1)
            thresholds = torch.where(single, logits.new_tensor(config.single_view_thresholds), thresholds)
        return thresholded_states(logits, thresholds)

    def prompt_ids(self, states: Tensor, prior_states: Tensor | None = None) -> Tensor:
        """Return the decoder's first tokens (B, 1 + C): the start token, then one prompt token a disease.

        A token encodes the state (B, C) and, if there is a prior study, the state in that study (B, C).
        """
        ids = torch.tensor([self.config.prompt_token_ids, *self.config.prior_prompt_token_ids], device=states.device)
        # The first row is for NO_STUDY.
        before = 0 if prior_states is None or len(ids) == 1 else prior_states - NO_STUDY
        tokens = ids[before, states]  # (B, C)
        start = tokens.new_full((len(tokens), 1), self.config.decoder_start_token_id)
        return torch.cat([start, tokens], dim=1)

    def decoder_inputs(
        self, ids: Tensor, prompt_rows: Tensor | None, severities: Tensor | None = None, *, past: int = 0
    ) -> dict[str, Tensor]:
        """Return the decoder's input for ids (B, T), which follow `past` cached tokens, by its argument name.

        prompt_rows and severities: the encoded study's, which are added to the prompt's embeddings; None: there are none.
        """
        if past or (prompt_rows is None and severities is None):
            return {"input_ids": ids}
        words = self.get_input_embeddings()(ids)
        if prompt_rows is not None:
            assert self.finding_queries is not None  # whose rows these are
            words = self.finding_queries.join(words, prompt_rows)
        if severities is not None:
            assert self.severity is not None  # which they come from
            words = self.severity.join(words, ids, severities)
        return {"inputs_embeds": words}

    def set_temperature(self, value: float) -> None:
        """Set the routers' Gumbel-softmax temperature (Eq. 7)."""
        for fam in (self.fam, self.difference_fam):
            if fam is not None:
                fam.set_temperature(value)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the image encoder."""
        return self.image_encoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's token embeddings."""
        return self.decoder.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the decoder's language modelling head."""
        return self.decoder.get_output_embeddings()
