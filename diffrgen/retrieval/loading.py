"""Loads a retriever of whichever kind a folder or hub name holds."""

from __future__ import annotations

from pathlib import Path

from transformers import PretrainedConfig

from diffrgen.errors import DataError
from diffrgen.retrieval.clip_retriever import ClipRetriever
from diffrgen.retrieval.dual_encoder import DualEncoderConfig
from diffrgen.retrieval.dual_retriever import DualRetriever
from diffrgen.retrieval.retriever import Retriever
from diffrgen.weights import CONFIG, read_json, refuse_code


def load_retriever(path: str | Path) -> Retriever:
    """Load a retriever from a folder that `save` wrote, or any CLIP-style checkpoint by folder or hub name.

    Raises DataError when `path` holds neither.
    """
    needed = f"{path}: needed a retriever's folder or a hub name, found no config.json"
    try:
        config, _ = PretrainedConfig.get_config_dict(path)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{needed}: {error}") from error
    if not config:
        raise DataError(needed)
    for name in (CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if (Path(path) / name).is_file():
            refuse_code(read_json(Path(path) / name), Path(path) / name)
    refuse_code(config, Path(path) / CONFIG)
    if config.get("model_type") == DualEncoderConfig.model_type:
        return DualRetriever.load(path)
    return ClipRetriever.load(path)
