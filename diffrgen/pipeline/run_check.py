"""Whether the parts of a run fit each other: every refusal names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenConfig
from diffrgen.pipeline.options import ImageOptions
from diffrgen.records import Study
from diffrgen.retrieval import RetrievalIndex, Retriever, RetrieverOptions
from diffrgen.staging import file_digest
from diffrgen.text import Rules, clean_report
from diffrgen.weights import CONFIG, check_ranges, read_json, refuse_code, weight_files

# Fields of generation_config.json that training writes; any other field that affects generation is rejected.
OURS = {
    *("num_beams", "max_new_tokens", "min_new_tokens", "early_stopping", "length_penalty", "repetition_penalty"),
    *("no_repeat_ngram_size", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache"),
    *("transformers_version", "_from_model_config", "output_attentions", "output_hidden_states"),
}
# The field of config.json with the parts that the weights were trained with.
MADE_WITH, SHOWN = "made_with", 5
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def check_generation(path: Path) -> None:
    """Raise DataError if generation_config.json holds anything but what training writes, or a number out of range."""
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
    """Raise DataError if the tokenizer, the index or the settings of a run are not those of its network."""
    if image.size != config.image_size:
        raise DataError(f"{run / 'run.json'}: image.size: needed {config.image_size} as config.json says, got {image.size}")
    if len(tokenizer) != config.decoder.vocab_size:
        raise DataError(
            f"{run / 'tokenizer.json'}: needed the {config.decoder.vocab_size} tokens that config.json says, got "
            f"{len(tokenizer)}: this is the tokenizer of another run"
        )
    made_with = _made_with(config, run)
    for part, file, now in (
        ("tokenizer", "tokenizer.json", file_digest(run / "tokenizer.json")),
        ("retriever", "index/manifest.json", index.manifest.retriever),
    ):
        if made_with.get(part, now) != now:
            raise DataError(f"{run / file}: is not of the {part} that this run was trained with, but of another run's")
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
    """Raise DataError if the reports of `index` were embedded by another retriever."""
    if retriever.fingerprint != index.manifest.retriever:
        raise DataError(
            f"{index.folder}: its reports were embedded by retriever {index.manifest.retriever or 'unknown'}, but the "
            f"images would be embedded by {retriever.fingerprint}; build the index again with this retriever"
        )


def check_no_leak(studies: Sequence[Study], index: RetrievalIndex, *, rules: Rules) -> None:
    """Raise DataError if the index contains reports of studies of another split than train; the message names them."""
    found = [
        study.id
        for study in studies
        if study.split != "train" and index.studies.holds(study.id, clean_report(study.report, rules=rules))
    ]
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise DataError(
            f"{index.folder}: {len(found)} studies to score were trained on and can be retrieved with their own reports: "
            f"{', '.join(map(repr, found[:SHOWN]))}{more}; score studies of another split"
        )


def note_parts(config: DiffRGenConfig, run: Path, index: RetrievalIndex) -> None:
    """Store in a network's configuration the digest of its tokenizer and the fingerprint of its retriever."""
    setattr(
        config,
        MADE_WITH,
        {"tokenizer": file_digest(run / "tokenizer.json"), "retriever": index.manifest.retriever},
    )


def note_weights(folder: Path) -> None:
    """Store in the config.json of `folder` the SHA-256 of each weights file next to it."""
    content = read_json(folder / CONFIG)
    digests = {path.name: file_digest(path) for path in weight_files(folder)}
    content[MADE_WITH] = {**content.get(MADE_WITH, {}), "weights": digests}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_weights(run: Path, config: DiffRGenConfig) -> None:
    """Raise DataError if the weights are not those that config.json was saved with (0.1 does not record them)."""
    noted = _made_with(config, run).get("weights")
    if not isinstance(noted, dict):
        return
    for path in weight_files(run):
        if file_digest(path) != noted.get(path.name):
            raise DataError(
                f"{path}: is not the file that config.json was saved with, but another run's; where training was killed "
                "while it saved, resume it"
            )


def weights_digest(run: Path) -> str:
    """Return the SHA-256 of the weights in a run's folder; of several files, those of all in the order of their names."""
    return " ".join(file_digest(path) for path in sorted(run.glob("model*.safetensors")))


def _made_with(config: DiffRGenConfig, run: Path) -> dict[str, Any]:
    noted = getattr(config, MADE_WITH, {})
    if not isinstance(noted, dict):
        raise DataError(f"{run / CONFIG}: {MADE_WITH}: needed an object, got {type(noted).__name__}")
    return noted
