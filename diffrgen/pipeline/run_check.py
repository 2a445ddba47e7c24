"""Whether the parts of a run fit each other: every refusal names the file and the field."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

from transformers import GenerationConfig

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenConfig
from diffrgen.pipeline.options import ImageOptions
from diffrgen.retrieval import RetrievalIndex, Retriever, RetrieverOptions
from diffrgen.weights import check_ranges, read_json, refuse_code

# What training writes. Anything else that would change how reports are generated is an option of ours, or unknown.
OURS = {
    *("num_beams", "max_new_tokens", "min_new_tokens", "early_stopping", "length_penalty", "repetition_penalty"),
    *("no_repeat_ngram_size", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache"),
    *("transformers_version", "_from_model_config", "output_attentions", "output_hidden_states"),
}
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def check_generation(path: Path) -> None:
    """Raise DataError where generation_config.json holds anything but what training writes, or a number out of range."""
    if not path.is_file():
        return
    content = read_json(path)
    refuse_code(content, path)
    check_ranges(content, path)
    defaults = GenerationConfig().to_dict()
    for name, value in content.items():
        if name not in OURS and value is not None and value != defaults.get(name):
            raise DataError(f"{path}: {name}: is no setting of a run, got {value!r}; remove it")
        if name in TOKENS and not (value is None or (type(value) is int and value >= 0)):
            raise DataError(f"{path}: {name}: needed the number of a token, got {value!r}")
    for name in ("num_beams", "max_new_tokens"):
        if name in content and type(content[name]) is not int:
            raise DataError(f"{path}: {name}: needed a whole number, got {content[name]!r}")


def check_fit(
    run: Path,
    config: DiffRGenConfig,
    *,
    image: ImageOptions,
    max_tokens: int,
    retriever: RetrieverOptions,
    tokenizer: Sized,
    index: RetrievalIndex,
) -> None:
    """Raise DataError where the tokenizer, the index or the settings of a run are not those of its network."""
    if image.size != config.image_size:
        raise DataError(f"{run / 'run.json'}: image.size: needed {config.image_size} as config.json says, got {image.size}")
    if len(tokenizer) != config.decoder.vocab_size:
        raise DataError(
            f"{run / 'tokenizer.json'}: needed the {config.decoder.vocab_size} tokens that config.json says, got "
            f"{len(tokenizer)}: this is the tokenizer of another run"
        )
    most = config.decoder.max_position_embeddings - 1 - config.findings
    if max_tokens > most:
        raise DataError(f"{run / 'run.json'}: max_tokens: needed at most {most}, which the decoder reads, got {max_tokens}")
    width = index.manifest.token_width if config.retrieved == "tokens" else index.manifest.width
    if width != config.retrieved_width:
        raise DataError(
            f"{index.folder / 'manifest.json'}: needed embeddings of width {config.retrieved_width} as config.json says, got "
            f"{width}: this is the index of another run"
        )
    if retriever.neighbours > len(index):
        raise DataError(
            f"{run / 'run.json'}: retriever.neighbours: needed at most the {len(index)} studies of the index, got "
            f"{retriever.neighbours}"
        )


def check_retriever(retriever: Retriever, index: RetrievalIndex) -> None:
    """Raise DataError where the reports of `index` were embedded by another retriever."""
    if retriever.fingerprint != index.manifest.retriever:
        raise DataError(
            f"{index.folder}: its reports were embedded by retriever {index.manifest.retriever or 'unknown'}, but the "
            f"images would be embedded by {retriever.fingerprint}; build the index again with this retriever"
        )
