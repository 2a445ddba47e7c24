"""Loads a retriever of whichever kind a folder or hub name holds."""

from __future__ import annotations

from pathlib import Path

from transformers import PretrainedConfig

from diffrgen.errors import DataError
from diffrgen.retrieval.clip_retriever import ClipRetriever
from diffrgen.retrieval.dual_encoder import DualEncoderConfig
from diffrgen.retrieval.dual_retriever import DualRetriever
from diffrgen.retrieval.retriever import Retriever


def load_retriever(path: str | Path) -> Retriever:
    """Load a retriever from a folder that `save` wrote, or any CLIP-style checkpoint by folder or hub name.

    Raises DataError when `path` holds neither.
    """
    needed = f"{path}: needed a retriever's folder or a hub name, found no config.json"
    try:
        config, _ = PretrainedConfig.get_config_dict(path)
    except OSError as error:
        raise DataError(f"{needed}: {error}") from error
    if not config:
        raise DataError(needed)
    if config.get("model_type") == DualEncoderConfig.model_type:
        return DualRetriever.load(path)
    return ClipRetriever.load(path)
