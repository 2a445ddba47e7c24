"""Registers the network with transformers' Auto classes, on request: an import alone registers nothing."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.modeling import DiffRGenForReportGeneration


def register_auto_classes() -> None:
    """Have `AutoConfig.from_pretrained` and `AutoModel.from_pretrained` load runs, by folder and by hub name."""
    AutoConfig.register(DiffRGenConfig.model_type, DiffRGenConfig, exist_ok=True)
    AutoModel.register(DiffRGenConfig, DiffRGenForReportGeneration, exist_ok=True)
