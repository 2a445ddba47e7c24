"""Builds the network that the options describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, BertConfig, BertLMHeadModel, PretrainedConfig, PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.images.efficientnet_lite import NAME as EFFICIENTNET_LITE
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration
from diffrgen.model.initial import draw_initial_weights
from diffrgen.model.promptmrg import widen_cross_attention
from diffrgen.pipeline.generation import DEFAULTS
from diffrgen.pipeline.word_tokens import finding_tokens
from diffrgen.retrieval import DualRetriever, Retriever
from diffrgen.text import PRIOR_PROMPT_TOKENS, PROMPT_TOKENS
from diffrgen.text.marks import mark_tokens
from diffrgen.training.options import BUILD_ONLY, RANDOM_ENCODERS, ModelOptions, TrainOptions

DECODERS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "nano": {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "max_position_embeddings": 128,
        },
        "tiny": {
            "hidden_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "intermediate_size": 768,
            "max_position_embeddings": 128,
        },
        # BERT-base, whose sizes are the defaults of BertConfig.
        "paper": {"max_position_embeddings": 512},
    }
)


def without_absent_parts(options: TrainOptions) -> TrainOptions:
    """Return `options` without the parts that their variant of the network does not have."""
    if options.model.variant == "diffrgen":
        return options
    absent: dict[str, Any] = {"masks_per_layer": (), "difference_metrics": ()}
    absent |= {"contrast_form": "supervised", "contrast_weight": 0.0}
    absent |= {"prior": False, "finding_queries": False, "severities": False, "row_routing": False}
    return replace(options, model=replace(options.model, **absent))


def pretrained_encoder(options: TrainOptions) -> PatchEncoder | None:
    """Return the image encoder whose weights --model.encoder names, frozen where asked; None for a random one."""
    if options.model.encoder in RANDOM_ENCODERS:
        return None
    return frozen_where_asked(PatchEncoder.from_pretrained(options.model.encoder), options)


def frozen_where_asked(encoder: PatchEncoder, options: TrainOptions) -> PatchEncoder:
    """Return `encoder`, frozen if the options request it."""
    return encoder.freeze() if options.freeze == "encoder" else encoder


def decoder_config(decoder: str, tokenizer: PreTrainedTokenizerFast, *, positions: int, dropout: float) -> BertConfig:
    """Return the BERT layout that `decoder` names, for the tokenizer's vocabulary and at least `positions` tokens."""
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "is_decoder": True,
        "add_cross_attention": True,
        "tie_word_embeddings": True,
    }
    if decoder not in DECODERS:
        config = AutoConfig.from_pretrained(decoder, trust_remote_code=False)
        if not isinstance(config, BertConfig) or config.max_position_embeddings < positions:
            raise DataError(f"{decoder}: needed a BERT of at least {positions} positions, got {type(config).__name__}")
        config.update(special)
        return config
    layout: dict[str, Any] = dict(DECODERS[decoder])
    layout["max_position_embeddings"] = max(positions, layout["max_position_embeddings"])
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        type_vocab_size=1,
        **special,
        **layout,
    )


@dataclass(frozen=True)
class DataShape:
    """The properties of a network that the data determine: findings, views per study, and whether views are classified."""

    findings: int
    views: int = 1
    view_recogniser: bool = False


def chosen_fields(options: TrainOptions, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the fields of `DiffRGenConfig` that options choose and no weights fix, also in a training from another run."""
    model = options.model
    return {
        **{name: value for name, value in asdict(model).items() if name not in BUILD_ONLY},
        "neighbours": options.retriever.neighbours,
        "operator_backend": "auto" if options.fused_kernels else "reference",
        "finding_token_ids": finding_tokens(tokenizer) if model.finding_weight != 1.0 else (),
        "unlearned_token_ids": () if model.learn_marks else mark_tokens(tokenizer),
        "prior_prompt_token_ids": tuple(_ids(tokenizer, row) for row in PRIOR_PROMPT_TOKENS) if model.prior else (),
    }


def model_config(
    options: TrainOptions,
    tokenizer: PreTrainedTokenizerFast,
    retriever: Retriever,
    encoder: PretrainedConfig,
    shape: DataShape,
) -> DiffRGenConfig:
    """Return the configuration of the network for this tokenizer, retriever, layout of the image encoder and data."""
    model = options.model
    # The start token and one prompt token a finding stand before the report.
    positions = 1 + shape.findings + max(options.text.max_tokens, options.generation.limits.most or 0)
    return DiffRGenConfig(
        encoder=encoder,
        decoder=decoder_config(model.decoder, tokenizer, positions=positions, dropout=model.dropout),
        image_size=options.image.size,
        views=shape.views,
        view_recogniser=shape.view_recogniser and model.variant == "diffrgen",
        retrieved_width=retriever.token_width if model.retrieved == "tokens" else retriever.embedding_width,
        prior_width=retriever.embedding_width,
        findings=shape.findings,
        prompt_token_ids=cast("tuple[int, int, int, int]", _ids(tokenizer, PROMPT_TOKENS)),
        **chosen_fields(options, tokenizer),
    )


def build_model(
    options: TrainOptions,
    tokenizer: PreTrainedTokenizerFast,
    retriever: Retriever,
    encoder: PatchEncoder | None,
    shape: DataShape,
) -> DiffRGenForReportGeneration:
    """Return the network with initial weights: random, pretrained where paths are given, warm-started where asked.

    encoder: what `pretrained_encoder` returned, which becomes the network's own; None: one with random weights.
    """
    layout = encoder_config(options.model.encoder) if encoder is None else encoder.config
    if options.model.encoder == EFFICIENTNET_LITE:
        # NOTE: reading its weights draws random numbers first, and once stood here: other weights keep what they drew then.
        PatchEncoder(layout)
    model = DiffRGenForReportGeneration(model_config(options, tokenizer, retriever, layout, shape))
    if encoder is not None:
        model.image_encoder = encoder
    if options.model.decoder not in DECODERS:
        _load_decoder(model, options, vocabulary=len(tokenizer))
    start_prompts_alike(model)
    if options.model.warm_start:
        _warm_start(model, retriever, options.model)
    set_generation(model, options)
    return model


def set_generation(model: DiffRGenForReportGeneration, options: TrainOptions) -> None:
    """Set the default decoding of `model` to the options."""
    model.generation_config.update(
        num_beams=options.generation.beams or DEFAULTS["beams"],
        max_new_tokens=options.generation.limits.most or options.text.max_tokens,
        early_stopping=False,
    )


def _load_decoder(model: DiffRGenForReportGeneration, options: TrainOptions, *, vocabulary: int) -> None:
    """Put a pretrained decoder into `model`; what the checkpoint lacks, such as cross-attention, is drawn.

    The rows of new tokens, our prompt tokens, are drawn like the pretrained ones: from a normal distribution with their
    mean and standard deviation in each column.
    """
    found: Any = BertLMHeadModel.from_pretrained(
        options.model.decoder, config=model.config.decoder, use_safetensors=True, output_loading_info=True
    )
    decoder, loaded = found
    if options.model.variant == "promptmrg":
        widen_cross_attention(decoder, model.image_encoder.width)
    draw_initial_weights(decoder, options.seed, names=loaded["missing_keys"])
    known = decoder.config.vocab_size
    decoder.resize_token_embeddings(vocabulary, mean_resizing=False)
    words = decoder.get_input_embeddings().weight
    with torch.no_grad():
        std, mean = torch.std_mean(words[:known], dim=0)
        drawn = torch.randn(words[known:].shape, generator=torch.Generator().manual_seed(options.seed))
        words[known:] = mean + std * drawn
    model.decoder, model.config.decoder.vocab_size = decoder, vocabulary


def _ids(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> tuple[int, ...]:
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    return (ids,) if isinstance(ids, int) else tuple(ids)


@torch.no_grad()
def start_prompts_alike(model: DiffRGenForReportGeneration) -> None:
    """Initialise each prompt token that includes a prior state as the token of the current state alone."""
    words: Any = model.get_input_embeddings().weight
    now = list(model.config.prompt_token_ids)
    for row in model.config.prior_prompt_token_ids:
        words[list(row)] = words[now]


def _warm_start(model: DiffRGenForReportGeneration, retriever: Retriever, options: ModelOptions) -> None:
    """Copy the retriever's image tower into the image encoder; DataError if their layouts differ."""
    tower = retriever.model.image_tower if isinstance(retriever, DualRetriever) else None
    if tower is None or _shapes(tower) != _shapes(model.image_encoder):
        raise DataError(
            f"warm_start needs a retriever fitted with the encoder {options.encoder!r}, got {type(retriever).__name__} "
            "with another image tower; pass --model.no-warm-start"
        )
    model.image_encoder.load_state_dict(tower.state_dict())


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
