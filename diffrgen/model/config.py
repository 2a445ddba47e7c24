"""The configuration of the network: one place for every choice that the paper names or leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from annotated_types import Lt
from transformers import AutoConfig, BertConfig, PretrainedConfig

from diffrgen.errors import DataError
from diffrgen.images.encoder import layout_of
from diffrgen.model.choices import (
    DIFFERENCE_METRICS,
    Centres,
    ContextName,
    ContrastForm,
    Difference,
    DifferenceNorm,
    Masking,
    Metric,
    NetworkVariant,
    Retrieved,
    RoutingChoice,
    check_choices,
)
from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, check_values, types_of

# The values that a configuration of version 0.1 implies for options that it does not have.
VERSION_0_1: Mapping[str, Any] = MappingProxyType({"difference": "scalars"})


class DiffRGenConfig(PretrainedConfig):
    """Sizes and options of `DiffRGenForReportGeneration`.

    Symbols as in the paper: d = `width`, H = `heads`, p_k = `masks_per_layer[k]` (K = its length), N = `neighbours`,
    lambda = `disease_weight`, gamma = `contrast_weight`, tau = `contrast_temperature`. `prior`: the network takes the
    patient's prior study, embeddings of width `prior_width` (default: `retrieved_width`). A value out of range, a wrong
    word and a wrong combination raise ValueError with what was expected and what came. A saved configuration that lacks a
    choice means what the network did before there was one (`VERSION_0_1`).

    `views`: the most images of a study that the network takes; where it is more than one, each is marked by its kind,
    which `view_recogniser` finds for views of unknown kind.

    `context`: sections that are known before the images are read (`ContextRows`), embeddings of width `prior_width`.

    `severities`: the severity of each finding is classified and prompts the decoder (`SeverityHead`).

    `finding_weight`: of the tokens `finding_token_ids`, those of severity, side, zone and change, in the language loss of
    training; 1 for the others. `unlearned_token_ids`: those that training does not teach, de-identification marks; weight 0.
    `prompt_thresholds`: a finding whose P(positive) reaches its threshold prompts the decoder as positive; none: its most
    likely state does. `single_view_thresholds`: the same for a study of which one view is given, in a network for several;
    none: `prompt_thresholds`. Training chooses both on the validation split (`--calibrate-prompts`).

    `variant`: "promptmrg" is PromptMRG's network: the decoder attends to the encoder's patches as they are, and the classifier
    sees a row that a transformer reads out of the reports' embeddings, which are as wide as `width`. It has no aggregation
    module, difference features, contrast (Eq. 8), prior, context, finding queries or severities.

    The parts that the paper's ablations take away: `difference_metrics=()` leaves out the difference features, so that
    the memory holds no D and Eq. 8 contrasts with other studies alone; a layer of one mask is plain cross-attention over
    all patches, without a router; `masks_per_layer=()` leaves out the aggregation module: S = Z and D = dif, which the
    decoder finds beside the patches as they are.
    """

    model_type = "diffrgen"
    sub_configs = {"encoder": AutoConfig, "decoder": BertConfig}  # noqa: RUF012 (the library's own convention)

    def __init__(
        self,
        encoder: PretrainedConfig | dict[str, Any] | None = None,
        decoder: BertConfig | dict[str, Any] | None = None,
        *,
        variant: NetworkVariant = "diffrgen",
        image_size: Count = 224,
        views: Count = 1,
        view_recogniser: bool = False,
        width: Count = 512,
        heads: Count = 8,
        masks_per_layer: tuple[Count, ...] = (2, 3),
        neighbours: Count = 21,
        retrieved: Retrieved = "embeddings",
        retrieved_width: Count = 512,
        prior: bool = False,
        prior_width: Count | None = None,
        context: tuple[ContextName, ...] = (),
        difference: Difference = "content",
        difference_metrics: tuple[Metric, ...] = DIFFERENCE_METRICS,
        difference_norm: DifferenceNorm = "batch",
        difference_hidden: Count = 128,
        share_fam: bool = True,
        share_projections: bool = False,
        masking: Masking = "multiplicative",
        routing: RoutingChoice = "soft",
        operator_backend: Literal["auto", "reference", "triton", "native"] = "auto",
        centres: Centres = "rank",
        row_routing: bool = False,
        finding_queries: bool = False,
        severities: bool = False,
        dropout: Annotated[PositiveOrZero, Lt(1)] = 0.1,
        findings: Count = 14,
        disease_weight: PositiveOrZero = 4.0,
        logit_adjustment: bool = True,
        contrast_weight: PositiveOrZero = 0.1,
        contrast_temperature: Positive = 0.1,
        contrast_width: Count = 128,
        contrast_form: ContrastForm = "supervised",
        label_smoothing: Annotated[PositiveOrZero, Lt(1)] = 0.1,
        finding_weight: Positive = 1.0,
        finding_token_ids: tuple[CountOrZero, ...] = (),
        unlearned_token_ids: tuple[CountOrZero, ...] = (),
        prompt_thresholds: tuple[PositiveOrZero, ...] = (),
        single_view_thresholds: tuple[PositiveOrZero, ...] = (),
        prompt_token_ids: tuple[CountOrZero, CountOrZero, CountOrZero, CountOrZero] = (5, 6, 7, 8),
        prior_prompt_token_ids: tuple[tuple[CountOrZero, ...], ...] = (),
        **kwargs: Any,
    ) -> None:
        self.encoder = layout_of(encoder)
        self.decoder = BertConfig(**decoder) if isinstance(decoder, dict) else decoder or BertConfig()
        self.decoder.is_decoder = self.decoder.add_cross_attention = True
        self.variant = variant
        self.image_size, self.views, self.view_recogniser = image_size, views, view_recogniser
        self.width, self.heads = width, heads
        self.masks_per_layer = tuple(masks_per_layer)
        self.neighbours, self.retrieved, self.retrieved_width = neighbours, retrieved, retrieved_width
        self.prior, self.prior_width = prior, retrieved_width if prior_width is None else prior_width
        self.context = tuple(context)
        self.difference, self.difference_metrics = difference, tuple(difference_metrics)
        self.difference_norm, self.difference_hidden = difference_norm, difference_hidden
        self.share_fam, self.share_projections = share_fam, share_projections
        self.masking, self.routing, self.operator_backend = masking, routing, operator_backend
        self.centres, self.row_routing = centres, row_routing
        self.finding_queries, self.severities = finding_queries, severities
        self.dropout = dropout
        self.findings = findings
        self.disease_weight, self.logit_adjustment = disease_weight, logit_adjustment
        self.contrast_weight, self.contrast_temperature = contrast_weight, contrast_temperature
        self.contrast_width, self.contrast_form = contrast_width, contrast_form
        self.label_smoothing = label_smoothing
        self.finding_weight, self.finding_token_ids = finding_weight, tuple(finding_token_ids)
        self.unlearned_token_ids = tuple(unlearned_token_ids)
        self.prompt_thresholds = tuple(prompt_thresholds)
        self.single_view_thresholds = tuple(single_view_thresholds)
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.prior_prompt_token_ids = tuple(map(tuple, prior_prompt_token_ids))
        kwargs["is_encoder_decoder"] = True
        kwargs.setdefault("decoder_start_token_id", self.decoder.bos_token_id)
        kwargs.setdefault("pad_token_id", self.decoder.pad_token_id)
        kwargs.setdefault("eos_token_id", self.decoder.eos_token_id)
        super().__init__(**kwargs)
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> DiffRGenConfig:
        """Return the configuration that was saved as `config_dict`, by this version or an earlier one."""
        return super().from_dict({**VERSION_0_1, **config_dict}, **kwargs)

    def _check(self) -> None:
        """Raise ValueError if a value is not one of its type, or values do not fit each other."""
        types = types_of(DiffRGenConfig.__init__)
        check_values(vars(self), {name: kind for name, kind in types.items() if name in vars(self)})
        check_choices(self)
        self._check_variant()
        if self.view_recogniser and self.views == 1:
            raise ValueError("expected no view_recogniser for a network of one view, whose kind it does not use, got one")
        if self.retrieved == "embeddings" and self.prior_width != self.retrieved_width:
            raise ValueError(
                f"expected a prior's embeddings as wide as the retrieved ones, got {self.prior_width} and "
                f"{self.retrieved_width}"
            )
        for name in ("prompt_thresholds", "single_view_thresholds"):
            if (count := len(getattr(self, name))) not in (0, self.findings):
                raise ValueError(f"expected {self.findings} {name}, one a finding, or none, got {count}")
        if self.single_view_thresholds and not self.prompt_thresholds:
            raise ValueError("expected prompt_thresholds beside single_view_thresholds, got none")
        if self.prior_prompt_token_ids and [len(row) for row in self.prior_prompt_token_ids] != [4] * 4:
            raise ValueError(
                "expected 4 x 4 prompt tokens, one for each state before and now, or none, got "
                f"{self.prior_prompt_token_ids}"
            )

    def _check_variant(self) -> None:
        """Raise DataError if the variant is PromptMRG's, with a part that it does not have."""
        if self.variant == "diffrgen":
            return
        if self.retrieved_width != self.width:
            raise DataError(
                f"expected retrieved embeddings of width {self.width} for variant 'promptmrg', which does not project them, "
                f"got {self.retrieved_width}"
            )
        parts = ("masks_per_layer", "difference_metrics", "prior", "context", "finding_queries", "severities", "contrast_weight")
        found = [name for name in parts if getattr(self, name)]
        if found:
            raise DataError(f"expected none of {', '.join(found)} for variant 'promptmrg', which has no such part")
